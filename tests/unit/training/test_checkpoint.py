"""Checkpoints are loaded complete or refused, run no code, and an earlier or a scheduled one remains."""

import zipfile
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from random import Random
from typing import BinaryIO

import pytest
import torch
from torch import Tensor

from tests.support.checkpoints import Evil, checkpoint, kept_states, names, same
from tests.support.families import FAMILIES, slow_unless_quick
from tests.support.markers import slow_except
from tests.support.refusals import refused
from tests.support.resumed import run_in, saved_last
from tests.support.tiny_models import Run, make_run
from tests.support.trainings import DROPOUT, TEXT, after, digest, digest_of, observed
from tests.support.waiting import captured_logs
from trainer.artifacts.checkpoint_files import CheckpointManifest, TrainingState
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.contracts.events import Progress
from trainer.system.files import Disk, file_records, read_record
from trainer.training.checkpoint import Checkpoint, CheckpointStore
from trainer.training.loop import TrainingCallbacks

FILES = ["manifest.json", "state.json", "model.safetensors", "optimizer.pt"]


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def save(store: CheckpointStore, *steps: int, best: int | None = None) -> None:
    for step in steps:
        store.save(checkpoint(step, best))


def test_recover__gives_back_what_was_saved_to_the_last_bit(store: CheckpointStore, tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").recover() == (None, ())
    saved = checkpoint(7, 7)
    store.save(saved)
    store.save(checkpoint(7, seed=1))  # a step that is there stays
    found = CheckpointStore(tmp_path).recover()
    assert same(saved, found.checkpoint)
    assert (found.quarantined, names(tmp_path)) == ((), ["step-7"])


def test_save__keeps_the_last_two_and_the_best_of_each(store: CheckpointStore, tmp_path: Path) -> None:
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (9, 2), (10, 10)):
        store.save(checkpoint(step, best))
    assert names(tmp_path) == ["step-10", "step-2", "step-9"]
    assert torch.equal(store.weights(2)["weight"], checkpoint(2).weights["weight"])
    save(store, 11, best=10)
    assert names(tmp_path) == ["step-10", "step-11"]


def test_prune__without_a_known_best_drops_nothing(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 1, 2, best=1)
    (tmp_path / "step-2" / "state.json").write_bytes(b"\xff")
    save(store, 3, best=1)
    assert names(tmp_path) == ["step-1", "step-2", "step-3"]
    save(store, 4, 5, best=1)
    assert names(tmp_path) == ["step-1", "step-4", "step-5"]


def test_recover__removes_what_was_never_finished_and_leaves_the_rest(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 3)
    (tmp_path / ".tmp-step-4").mkdir()
    (tmp_path / ".tmp-step-4" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp-file").touch()
    (tmp_path / ".tmp-link").symlink_to("/")
    for name in ("step-notes", "step-007", "step-٣"):
        (tmp_path / name).mkdir()
    assert same(checkpoint(3), store.recover().checkpoint)
    assert names(tmp_path) == ["step-007", "step-3", "step-notes", "step-٣"]


@pytest.mark.parametrize("file", FILES)
def test_damaged_file__is_refused_and_the_earlier_checkpoint_used(
    store: CheckpointStore, tmp_path: Path, file: str
) -> None:
    """A flipped bit, a cut anywhere, the last byte, the whole file."""
    save(store, 1)
    random = Random(1)
    for number in range(12):
        save(store, 2)
        path = tmp_path / "step-2" / file
        data = bytearray(path.read_bytes())
        place = random.randrange(len(data))
        if number < 7:
            data[place] ^= 1 << random.randrange(8)
        path.write_bytes(data if number < 7 else data[:place] if number < 10 else data[:-1])
        if number == 11:
            path.unlink()
        found = store.recover()
        assert same(checkpoint(1), found.checkpoint), (number, place)
        [broken] = found.quarantined
        assert broken in names(tmp_path) and broken.startswith("broken-step-2")


def test_best__that_is_broken_takes_those_that_point_to_it_with_it(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 1, 2, 3, best=1)
    (tmp_path / "step-1" / "model.safetensors").unlink()
    found = store.recover()
    assert (found.checkpoint, len(found.quarantined)) == (None, 3)
    save(store, 2)
    (tmp_path / "step-2" / "manifest.json").write_text('{"files":[]}')
    assert store.recover().checkpoint is None, "a manifest without files seals nothing"
    with refused(ErrorCode.CHECKPOINT_CORRUPT):
        store.weights(1)


def test_pickled_code__never_runs(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 1)
    evil = checkpoint(2)
    evil.optimizer_state["optimizer"]["evil"] = Evil(tmp_path / "ran")
    store.save(evil)
    found = store.recover()
    assert same(checkpoint(1), found.checkpoint) and len(found.quarantined) == 1
    assert not (tmp_path / "ran").exists()


def packed(value: object, *, as_zip: bool = True) -> bytes:
    file = BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def with_moment(saved: Checkpoint, moment: Tensor) -> bytes:
    optimizer: dict[str, object] = {"state": {0: {"exp_avg": moment}}, "param_groups": []}
    return packed({**saved.optimizer_state, "optimizer": optimizer})


def with_raw_weight(saved: Checkpoint, weight: Tensor) -> bytes:
    return packed({**saved.optimizer_state, "raw_weights": {"weight": weight}})


def packed_bomb(saved: Checkpoint) -> bytes:
    """An archive of zeros that is small only as long as it is packed."""
    bomb, plain = BytesIO(), BytesIO(with_moment(saved, torch.zeros(5_000_000)))
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    assert len(bomb.getvalue()) < 100_000
    return bomb.getvalue()


BOMBS: dict[str, Callable[[Checkpoint], bytes]] = {
    "one number 200 million times": lambda saved: with_moment(saved, torch.zeros(1).expand(200_000_000)),
    "a weight as large": lambda saved: with_raw_weight(saved, torch.zeros(1).expand(200_000_000)),
    "a packed bomb": packed_bomb,
    "other keys": lambda saved: packed({"optimizer": saved.optimizer_state["optimizer"]}),
    "the old format": lambda saved: packed(saved.optimizer_state, as_zip=False),
}


def seal(folder: Path) -> None:
    """Make a checkpoint's manifest fit its files, as somebody would who wants them to be believed."""
    (folder / "manifest.json").unlink(missing_ok=True)
    manifest = CheckpointManifest(files=file_records(folder, folder.iterdir()))
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")


def test_training_state_of_an_earlier_version__has_no_raw_weights(store: CheckpointStore, tmp_path: Path) -> None:
    save(store, 1)
    saved = checkpoint(1)
    earlier = {name: value for name, value in saved.optimizer_state.items() if name != "raw_weights"}
    (tmp_path / "step-1" / "optimizer.pt").write_bytes(packed(earlier))
    seal(tmp_path / "step-1")
    assert same(saved, store.recover(saved.weights).checkpoint)


@pytest.mark.parametrize("bomb", BOMBS)
def test_training_state_that_would_grow__is_refused_with_a_right_hash(
    store: CheckpointStore, tmp_path: Path, bomb: str
) -> None:
    save(store, 1, 2)
    (tmp_path / "step-2" / "optimizer.pt").write_bytes(BOMBS[bomb](checkpoint(2)))
    seal(tmp_path / "step-2")
    with captured_logs() as logs:
        found = store.recover(checkpoint(1).weights)
    assert same(checkpoint(1), found.checkpoint) and len(found.quarantined) == 1
    assert [line["event"] for line in logs] == ["checkpoint_unreadable"]


def header_of(shape: list[int], data_bytes: int) -> bytes:
    text = f'{{"weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{data_bytes}]}}}}'.encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


@pytest.mark.parametrize(
    "weights",
    [
        *(header_of([200_000_000], 800_000_000), header_of([1], 4), header_of([1], 800)),
        header_of([8], 4).replace(b'"F32"', b'"F4" '),  # a dtype that torch lacks
        *(b"\xff" * 64, (1 << 40).to_bytes(8, "little"), b""),
    ],
)
@pytest.mark.parametrize("with_expected", [True, False])
def test_weights_that_promise_too_much__are_refused_with_a_right_hash(
    store: CheckpointStore, tmp_path: Path, weights: bytes, with_expected: bool
) -> None:
    save(store, 1, 2)
    (tmp_path / "step-2" / "model.safetensors").write_bytes(weights)
    seal(tmp_path / "step-2")
    found = store.recover(checkpoint(1).weights if with_expected else {"weight": torch.zeros(2)})
    assert len(found.quarantined) == (1 if with_expected else 2)
    assert with_expected == same(checkpoint(1), found.checkpoint)
    doubles = {name: weight.double() for name, weight in checkpoint(1).weights.items()}
    assert store.recover(doubles).checkpoint is None, "another dtype"


@pytest.mark.parametrize("file", FILES)
def test_file_that_is_larger_than_it_can_be__is_not_read(store: CheckpointStore, tmp_path: Path, file: str) -> None:
    """A terabyte, on paper, of which the manifest tells: the checkpoint before is taken."""
    save(store, 1, 2)
    manifest = tmp_path / "step-2" / "manifest.json"
    if file != "manifest.json":
        records = CheckpointManifest.model_validate_json(manifest.read_bytes()).files
        files = tuple(changed(record, bytes=1 << 40) if record.path == file else record for record in records)
        manifest.write_text(CheckpointManifest(files=files).model_dump_json(), encoding="utf-8")
    with (tmp_path / "step-2" / file).open("r+b") as opened:
        opened.truncate(1 << 40)
    assert same(checkpoint(1), store.recover(checkpoint(1).weights).checkpoint)


def test_state_that_cannot_be_read_back__is_refused_at_the_first_save(store: CheckpointStore, tmp_path: Path) -> None:
    """A class of ours saves without a word, and no unpickler that runs no code takes it."""
    strange = checkpoint(1)
    strange.optimizer_state["scaler"]["growth"] = ErrorClass.FATAL
    with refused(ErrorCode.CHECKPOINT_CORRUPT, "cannot be read back"):
        store.save(strange)
    assert names(tmp_path) == []
    save(store, 2)
    assert same(checkpoint(2), store.recover().checkpoint)


class RottingDisk(Disk):
    """A disk that keeps another byte than it was given."""

    rots = True

    def write(self, path: Path, data: bytes | BinaryIO) -> None:
        super().write(path, b"?" + data[1:] if self.rots and isinstance(data, bytes) else data)


def test_first_save_of_an_attempt__is_the_only_one_that_is_read_back(tmp_path: Path) -> None:
    disk = RottingDisk()
    store = CheckpointStore(tmp_path, disk)
    with pytest.raises(AppError, match="cannot be read back"):
        save(store, 1)
    disk.rots = False
    save(store, 1)
    disk.rots = True
    save(store, 2)
    assert names(tmp_path) == ["step-1", "step-2"]
    assert same(checkpoint(1), store.recover().checkpoint)


SCHEDULED: dict[str, object] = {"model": DROPOUT, "num_epochs": 1, "batch_size": 8, "checkpoint_schedule": [0, 2, 5]}


def digests_of(run: Run) -> dict[int, str]:
    store = CheckpointStore(run.folder / "checkpoints")
    return {step: digest_of(store.scheduled_weights(step)) for step in store.scheduled_steps()}


def kept_of(run: Run) -> list[TrainingState]:
    return kept_states(run.folder / "checkpoints")


def seen(run: Run) -> dict[int, str]:
    """The weights after each step, as they are looked at from outside."""
    model = run.fresh_model()
    found = {0: digest(model)}

    def look(read: Callable[[], Progress]) -> None:
        found[read().step] = digest(model)

    run.train(model, store=CheckpointStore(run.folder / "elsewhere"), callbacks=TrainingCallbacks(on_step=look))
    return found


def test_training__keeps_the_weights_of_scheduled_steps_and_reports_each(tmp_path: Path) -> None:
    run = make_run(tmp_path, TEXT, **SCHEDULED)
    after_step = seen(run)
    told = observed(run)
    last = told.result.state.step
    assert last > 5
    assert digests_of(run) == {step: after_step[step] for step in (0, 2, 5, last)}
    assert {0, 2, 5, last} <= {saved.step for saved in told.saved}
    kept = tmp_path / "checkpoints" / "scheduled" / "step-5"
    assert names(kept) == ["manifest.json", "model.safetensors", "state.json"]
    assert read_record(kept / "state.json", TrainingState).step == 5


@pytest.mark.parametrize("schedule", slow_except([[0, 2, 5], {"words": "log2"}], [0, 2, 5]), ids=["steps", "words"])
def test_training__interrupted_anywhere_keeps_the_same(tmp_path: Path, schedule: object) -> None:
    values = SCHEDULED | {"checkpoint_schedule": schedule}
    whole = run_in(tmp_path / "whole", values)
    observed(whole)
    for calls in (0, 3, 5, 8):
        run = run_in(tmp_path / str(calls), values)
        observed(run, should_stop=after(calls, "pause"))
        observed(run, resume=True)
        assert digests_of(run) == digests_of(whole), calls
        assert [state.seen for state in kept_of(run)] == [state.seen for state in kept_of(whole)], calls


@pytest.mark.parametrize("family", slow_unless_quick(FAMILIES))
def test_kept_weights__change_nothing_and_are_those_of_a_shorter_training(tmp_path: Path, family: str) -> None:
    """Of a constant learning rate; other schedules of it end with the training, so that a shorter one has other rates.

    Dropout and masks take random numbers, which the writing of a checkpoint leaves alone.
    """
    tokenizer: dict[str, object] = {"method": "char"}
    values: dict[str, object] = SCHEDULED | {"tokenizer": tokenizer, **FAMILIES[family], "eval_every_steps": 3}
    kept = run_in(tmp_path / "kept", values)
    plain = run_in(tmp_path / "plain", values | {"checkpoint_schedule": None})
    assert digest(observed(kept).model) == digest(observed(plain).model)
    assert digest_of(saved_last(kept).weights) == digest_of(saved_last(plain).weights)
    for step in (2, 5):
        shorter = run_in(tmp_path / str(step), values | {"max_steps": step, "checkpoint_schedule": None})
        observed(shorter)
        assert digest_of(saved_last(shorter).weights) == digests_of(kept)[step], step


def test_training_that_ends_early__keeps_its_last_step_if_scheduled(tmp_path: Path) -> None:
    early: dict[str, object] = {"enabled": True, "patience": 1, "min_delta": 100.0}
    for schedule in ([0, 2, 5], None):
        changes: dict[str, object] = {"early_stopping": early, "num_epochs": 9, "checkpoint_schedule": schedule}
        run = run_in(tmp_path / str(schedule), SCHEDULED | changes)
        result = run.train(run.fresh_model())
        assert result.early_stopped
        assert list(digests_of(run)) == ([*schedule, result.state.step] if schedule else [])


BY_TEXT: dict[str, dict[str, object]] = {
    "words": {"words": [0, 100, 101, "0.5k", 700, "1M"]},
    "tokens": {"tokens": [1, "0.3k", 4000]},
    "log2": {"words": "log2"},
}


@pytest.mark.parametrize("schedule", BY_TEXT.values(), ids=BY_TEXT)
@pytest.mark.parametrize("objective", ["causal_lm", "masked_lm"])
def test_training__keeps_weights_by_text_and_reports_how_much_it_has_read(
    tmp_path: Path, schedule: dict[str, object], objective: str
) -> None:
    """Of masked tokens only some are predicted, and all of the text is read."""
    family: dict[str, object] = {"model_family": "lstm", "tokenizer": {"method": "char"}, "objective": objective}
    changes = {"num_epochs": 3, "gradient_accumulation": 3, "checkpoint_schedule": schedule}
    changes |= family if objective == "causal_lm" else family | {"model": {**DROPOUT, "bidirectional": True}}
    run = make_run(tmp_path, TEXT, **(SCHEDULED | changes))
    result = observed(run).result
    rows, words = len(run.corpus.rows("train", 16)), len(" ".join(run.lines("train")).split())
    tokens = run.corpus.sizes["train"].tokens
    for state in kept_of(run):
        seen, share = state.seen, len(state.epochs) + Fraction(state.position, rows)
        assert (seen.words, seen.tokens) == (int(words * share), int(tokens * share))
        before = share - Fraction(min(24, (state.position or rows) % 24 or 24), rows) if state.step else share
        in_step = (seen.words - seen.words_in_step, seen.tokens - seen.tokens_in_step)
        assert in_step == (int(words * before), int(tokens * before))
    assert result.state.seen.words == 3 * words
    assert (result.state.tokens_seen == 3 * tokens) == (objective == "causal_lm")


@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_kept_weights__name_the_count_they_were_kept_for(tmp_path: Path, unit: str) -> None:
    counts = [100, 101, 500, 700]
    run = make_run(tmp_path, TEXT, **(SCHEDULED | {"num_epochs": 5, "checkpoint_schedule": {unit: counts}}))
    observed(run)
    spans: dict[int, tuple[int, int]] = {}
    for state in kept_of(run):
        read = (state.seen.words, state.seen.words_in_step), (state.seen.tokens, state.seen.tokens_in_step)
        spans[state.step] = read[unit == "tokens"]
    found = {count: [step for step, (read, new) in spans.items() if read - new < count <= read] for count in counts}
    assert [len(steps) for steps in found.values()] == [1, 1, 1, 1]
    assert {step for [step] in found.values()} | {max(spans)} == set(spans)


def keep(store: CheckpointStore, step: int, *, seed: int = 0) -> dict[str, Tensor]:
    state, weights, _ = checkpoint(step, seed=seed)
    store.save_scheduled(state, weights)
    return weights


def test_kept_weights__outlive_later_checkpoints_and_are_written_once(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = keep(store, 1)
    for step in range(2, 7):
        store.save(checkpoint(step, step))
    keep(store, 1, seed=9)
    (tmp_path / "scheduled" / ".tmp-step-4").mkdir()
    assert store.recover().checkpoint is not None
    assert names(tmp_path / "scheduled") == ["step-1"]
    assert names(tmp_path) == ["scheduled", "step-5", "step-6"]
    assert digest_of(store.scheduled_weights(1)) == digest_of(first)


@pytest.mark.parametrize("file", ["manifest.json", "state.json", "model.safetensors"])
def test_kept_weights__with_a_flipped_bit_are_refused(tmp_path: Path, file: str) -> None:
    store = CheckpointStore(tmp_path)
    keep(store, 3)
    path = tmp_path / "scheduled" / "step-3" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with refused(ErrorCode.CHECKPOINT_CORRUPT):
        store.scheduled_weights(3)


def test_kept_weights__are_no_checkpoint_to_resume_from(tmp_path: Path) -> None:
    keep(CheckpointStore(tmp_path), 3)
    (tmp_path / "scheduled" / "step-3").rename(tmp_path / "step-3")
    found = CheckpointStore(tmp_path).recover()
    assert found.checkpoint is None and len(found.quarantined) == 1
