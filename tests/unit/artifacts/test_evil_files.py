"""Corrupt and malicious files: nothing is executed, nothing hangs, and all are refused."""

import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bot.people.watchers import read_ledger
from tests.support import settings_in
from tests.support.checkpoints import Evil, checkpoint, names, same
from tests.support.run_shell import FINISHED_RUN
from tests.support.waiting import captured_logs
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.commands.main import main
from trainer.contracts.base import FileRecord, Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.export.verification import verify_run
from trainer.http.webhooks.ledger import read_webhooks
from trainer.inference.model_files import load_model, load_run
from trainer.system.files import BrokenFile, changed_files, read_regular, sha256_of
from trainer.training.checkpoint import Checkpoint, CheckpointStore, OptimizerState


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    """A finished run that somebody watches."""
    shutil.copytree(FINISHED_RUN, tmp_path / "there")
    [run] = RunStore(tmp_path / "there" / "artifacts").all()
    run.write_seal()
    for ledger in (run.message_ledger, run.webhook_ledger):
        ledger.write_text('{"schema_version":1}', encoding="utf-8")
    return run


def files_of(run: RunDirectory) -> list[Path]:
    found = sorted(path for path in run.path.rglob("*") if path.is_file())
    assert len(found) >= 20
    return found


def read_all(run: RunDirectory) -> list[Exception]:
    """Read a run in every way that the product does; what is refused must be so by a typed error."""
    refused: list[Exception] = []
    root = run.path.parents[2]
    store = RunStore(root / "artifacts")
    ways: list[Callable[[], object]] = [
        lambda: store.get(run.run_id),
        store.all,
        run.record,
        run.manifest,
        lambda: run.follow().refresh(),
        lambda: run.open_log().__exit__(),
        lambda: (run.lock() or BytesIO()).close(),
        lambda: load_run(run),
        lambda: recover_whole(run),
        lambda: read_ledger(run),
        lambda: read_webhooks(run),
        lambda: verify_run(run, settings_in(root)),
        TokenizerStore(root / "artifacts").all,
    ]
    for way in ways:
        try:
            way()
        except (AppError, ValueError, FileNotFoundError) as error:
            refused.append(error)
    return refused


def recover_whole(run: RunDirectory) -> None:
    expected = CheckpointStore(FINISHED_RUN / run.checkpoints.relative_to(run.path.parents[2])).weights(34)
    if CheckpointStore(run.checkpoints).recover(expected).quarantined:
        raise BrokenFile("A checkpoint was set aside.")


def is_refused(run: RunDirectory) -> bool:
    try:
        return bool(read_all(run)) or not verify_run(run, settings_in(run.path.parents[2])).ok
    except ValueError:
        return True


def test_run_as_it_was_left__is_read_in_every_way(run: RunDirectory) -> None:
    assert read_all(run) == []
    assert not is_refused(run)


@pytest.mark.parametrize("as_archive", [False, True])
def test_pickle_in_place_of_any_file__runs_nothing_and_is_refused_by_a_typed_error(
    run: RunDirectory, tmp_path: Path, as_archive: bool
) -> None:
    marker = tmp_path / "ran"
    evil = pickle.dumps(Evil(marker))
    if as_archive:
        packed = BytesIO()
        torch.save({"evil": Evil(marker)}, packed)
        evil = packed.getvalue()
    for path in files_of(run):
        was = path.read_bytes()
        path.write_bytes(evil)
        refused = is_refused(run)
        assert not marker.exists(), path
        assert refused or path.name in ("logs.jsonl", "lock"), path
        restore(run, path, was)


def restore(run: RunDirectory, path: Path, data: bytes) -> None:
    for broken in run.checkpoints.glob("broken-*"):
        broken.rename(run.checkpoints / "-".join(broken.name.split("-")[1:3]))
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_link_pipe_or_folder_in_place_of_any_file__is_refused_at_once(
    run: RunDirectory, tmp_path: Path, kind: str
) -> None:
    """The link leads to the very same bytes, outside."""
    outside = tmp_path / "outside"
    for path in files_of(run):
        was = path.read_bytes()
        path.unlink()
        if kind == "link":
            outside.write_bytes(was)
            path.symlink_to(outside)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()

        assert is_refused(run) or path.name == "logs.jsonl", path

        assert not outside.exists() or outside.read_bytes() == was
        for broken in run.checkpoints.glob("broken-*"):
            broken.rename(run.checkpoints / "-".join(broken.name.split("-")[1:3]))
        if kind == "folder":
            path.rmdir()
        restore(run, path, was)


def test_folder_that_is_a_link__is_no_part_of_the_run(run: RunDirectory, tmp_path: Path) -> None:
    for name in ("tokenizer", "eval", "checkpoints/step-34"):
        folder = run.path / name
        folder.rename(tmp_path / "outside")
        folder.symlink_to(tmp_path / "outside")
        assert is_refused(run), name
        for link in (folder, *run.checkpoints.glob("broken-*")):
            link.unlink(missing_ok=True)
        (tmp_path / "outside").rename(folder)


def test_record_of_a_file_elsewhere__counts_as_changed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    for path in ("../secret", str(secret)):
        record = FileRecord(path=path, bytes=1, sha256=sha256_of(secret))
        assert changed_files(tmp_path / "run", [record]) == [path]


def test_command__tells_of_a_broken_record_in_one_sentence(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(run.path.parents[1]))
    (run.path / "request.json").write_bytes(b"\x80\x04garbage")
    assert main(["config", run.run_id]) == 1
    said = capsys.readouterr().err
    assert "cannot be read: its content is damaged" in said
    assert "Traceback" not in said


def test_flipped_bit__in_a_checkpoint_is_refused_and_the_earlier_one_used(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    store.save(checkpoint(2))
    whole = {path: path.read_bytes() for path in (tmp_path / "step-2").iterdir()}
    draw = random.Random(200)
    places = [(path, byte) for path, data in whole.items() for byte in range(len(data))]

    for number in range(25):
        path, byte = draw.choice(places)
        changed = bytearray(whole[path])
        if number < 20:
            changed[byte] ^= 1 << draw.randrange(8)
        path.write_bytes(changed if number < 20 else changed[:byte])

        found = store.recover()

        assert same(checkpoint(1), found.checkpoint), (path.name, byte)
        [broken] = found.quarantined
        (tmp_path / broken).rename(tmp_path / "step-2")
        path.write_bytes(whole[path])
    assert same(checkpoint(2), store.recover().checkpoint)


def test_flipped_bit__in_a_model_is_refused(run: RunDirectory) -> None:
    draw = random.Random(201)
    whole = {
        path: path.read_bytes()
        for path in (run.path / "model.safetensors", run.path / "config.json", *run.tokenizer.iterdir())
    }
    places = [(path, byte) for path, data in whole.items() for byte in range(len(data))]
    for number in range(25):
        path, byte = draw.choice(places)
        changed = bytearray(whole[path])
        changed[byte] ^= 1 << draw.randrange(8)
        path.write_bytes(changed if number < 20 else changed[:byte])

        with pytest.raises(AppError, match="changed or deleted") as caught:
            load_run(run)
        assert caught.value.code == ErrorCode.MODEL_LOAD_FAILED
        path.write_bytes(whole[path])
    load_run(run)


def test_model_that_its_manifest_does_not_vouch_for__is_refused(run: RunDirectory) -> None:
    manifest = run.completed_manifest()
    fewer: dict[str, object] = {"files": tuple(f for f in manifest.files if f.path != "config.json")}
    run.write_manifest(manifest.model_copy(update=fewer))
    with pytest.raises(AppError, match=r"changed or deleted after its training: config\.json"):
        load_run(run)


class _Manifest(Frozen):
    format_version: int = 1
    files: tuple[FileRecord, ...]


def seal(folder: Path) -> None:
    """Make a checkpoint's manifest fit its files, as somebody would who wants them to be believed."""
    (folder / "manifest.json").unlink(missing_ok=True)
    files = tuple(
        FileRecord(path=path.name, bytes=path.stat().st_size, sha256=sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    )
    (folder / "manifest.json").write_text(_Manifest(files=files).model_dump_json(), encoding="utf-8")


def bomb_of_one_number(saved: Checkpoint) -> bytes:
    """A tensor that shows one number 200 million times."""
    return archive_of(saved, torch.zeros(1).expand(200_000_000))


def archive_of(saved: Checkpoint, moment: Tensor) -> bytes:
    packed = BytesIO()
    optimizer: dict[str, object] = {"state": {0: {"exp_avg": moment}}, "param_groups": []}
    torch.save(OptimizerState(optimizer=optimizer, scaler={}, random=saved.optimizer_state["random"]), packed)
    return packed.getvalue()


def packed_bomb(saved: Checkpoint) -> bytes:
    """An archive of zeros that is small only as long as it is packed."""
    packed = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(archive_of(saved, torch.zeros(5_000_000)))) as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    assert len(packed.getvalue()) < 100_000
    return packed.getvalue()


def of_other_keys(saved: Checkpoint) -> bytes:
    packed = BytesIO()
    torch.save({"optimizer": saved.optimizer_state["optimizer"]}, packed)
    return packed.getvalue()


def of_the_old_format(saved: Checkpoint) -> bytes:
    packed = BytesIO()
    torch.save(saved.optimizer_state, packed, _use_new_zipfile_serialization=False)
    return packed.getvalue()


@pytest.mark.parametrize("bomb", [bomb_of_one_number, packed_bomb, of_other_keys, of_the_old_format])
def test_training_state_that_would_grow__is_refused_though_its_hash_is_right(
    tmp_path: Path, bomb: Callable[[Checkpoint], bytes]
) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(checkpoint(step))
    (tmp_path / "step-2" / "optimizer.pt").write_bytes(bomb(checkpoint(2)))
    seal(tmp_path / "step-2")
    with captured_logs() as logs:
        found = store.recover(checkpoint(1).weights)
    assert same(checkpoint(1), found.checkpoint)
    assert len(found.quarantined) == 1
    assert [line["event"] for line in logs] == ["checkpoint_unreadable"]


def header_of(shape: list[int], data_bytes: int) -> bytes:
    text = f'{{"weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{data_bytes}]}}}}'.encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


@pytest.mark.parametrize(
    "weights",
    [
        header_of([200_000_000], 800_000_000),
        header_of([1], 4),
        header_of([1], 800),
        header_of([8], 4).replace(b'"F32"', b'"F4" '),  # a dtype that torch lacks
        b"\xff" * 64,
        (1 << 40).to_bytes(8, "little"),
        b"",
    ],
)
@pytest.mark.parametrize("with_expected", [True, False])
def test_weights_that_promise_what_is_not_there__are_refused_though_their_hash_is_right(
    tmp_path: Path, weights: bytes, with_expected: bool
) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(checkpoint(step))
    (tmp_path / "step-2" / "model.safetensors").write_bytes(weights)
    seal(tmp_path / "step-2")
    expected = checkpoint(1).weights if with_expected else {"weight": torch.zeros(2)}
    found = store.recover(expected)
    assert len(found.quarantined) == (1 if with_expected else 2)
    assert with_expected == same(checkpoint(1), found.checkpoint)


def test_weights_of_another_dtype__are_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    expected = {name: weight.double() for name, weight in checkpoint(1).weights.items()}
    assert store.recover(expected).checkpoint is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "manifest.json", "state.json"])
def test_file_that_is_larger_than_it_can_be__is_not_read(tmp_path: Path, file: str) -> None:
    """A terabyte, on paper."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    path = tmp_path / "step-1" / file
    with path.open("r+b") as opened:
        opened.truncate(1 << 40)
    if file in ("model.safetensors", "optimizer.pt"):  # and the manifest says so
        manifest = tmp_path / "step-1" / "manifest.json"
        records = _Manifest.model_validate_json(manifest.read_bytes()).files
        size: dict[str, object] = {"bytes": 1 << 40}
        changed = tuple(r.model_copy(update=size) if r.path == file else r for r in records)
        manifest.write_text(_Manifest(files=changed).model_dump_json(), encoding="utf-8")
    assert store.recover(checkpoint(1).weights).checkpoint is None


def test_model_that_is_larger_than_it_can_be__is_not_read(run: RunDirectory) -> None:
    with (run.path / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    for load in (partial(load_run, run), partial(load_model, run.path)):
        with pytest.raises(AppError) as caught:
            load()
        assert caught.value.code == ErrorCode.MODEL_LOAD_FAILED


def test_leftovers_of_strange_kinds__do_not_stand_in_the_way_of_recovery(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(3))
    (tmp_path / ".tmp-file").touch()
    (tmp_path / ".tmp-link").symlink_to("/")
    for name in ("step-007", "step-٣", "step-x"):
        (tmp_path / name).mkdir()
    assert same(checkpoint(3), store.recover().checkpoint)
    assert names(tmp_path) == ["step-007", "step-3", "step-x", "step-٣"]


def test_device__is_no_file() -> None:
    with pytest.raises(BrokenFile, match="no regular file"):
        read_regular(Path("/dev/zero"))


def test_tokenizer_whose_request_is_broken__hides_no_other(tmp_path: Path) -> None:
    for name in ("char-0000000000000001", "char-0000000000000002"):
        (tmp_path / "tokenizers" / name).mkdir(parents=True)
    (tmp_path / "tokenizers" / "char-0000000000000001" / "request.json").write_bytes(b"{")
    (tmp_path / "tokenizers" / "char-0000000000000002" / "manifest.json").write_bytes(b"{")
    with captured_logs() as logs:
        found = TokenizerStore(tmp_path).all()
    assert [tokenizer.tokenizer_id for tokenizer in found] == ["char-0000000000000002"]
    assert [line["tokenizer_id"] for line in logs] == ["char-0000000000000001"]
