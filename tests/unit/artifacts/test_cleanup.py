"""`mt gc`: only files that nothing needs go, and what is left of a run is valid."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.support.cleanups import DAY_SECONDS, add_checkpoint, add_run, contents, make_old, settings_of
from tests.support.cross_language import cell_run, experiment_record, plan, plan_with
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from tests.support.run_shell import Shell
from tests.support.runs import record
from tests.support.tiny_models import char_tokenizer
from tests.support.unsynced_disk import UnsyncedDisk
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, is_awaited, until
from trainer.artifacts import cleanup
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.cleanup import CleanupReport, clean_up, remove_kept
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import CorpusCacheCleanupSettings, Settings, TokenizerCleanupSettings
from trainer.config.tokenizer_request import record_of_run, tokenizer_id_of
from trainer.config.validation import parse
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import CellKey, ExperimentRequest
from trainer.contracts.runs import CorpusRef, FinalState
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore, note_path
from trainer.export.archive import export_archive, import_archive
from trainer.export.verification import verify_files
from trainer.inference.model_files import load_run
from trainer.system.files import changed_files, claim_folder, try_lock, use_folder

ENDS: tuple[FinalState | None, ...] = (None, "completed", "failed", "cancelled")
BEST: tuple[int | None, ...] = (None, 1, 2, 3)


class Planned(NamedTuple):
    """A run to create."""

    end: FinalState | None
    parent: int
    best_step: int | None
    is_old: bool
    is_cell: bool
    is_stored: bool


flags: SearchStrategy[tuple[bool, bool, bool]] = st.tuples(st.booleans(), st.booleans(), st.booleans())
planned_runs: SearchStrategy[Planned] = st.tuples(
    st.sampled_from(ENDS), st.integers(0, 3), st.sampled_from(BEST), flags
).map(lambda values: Planned(values[0], values[1], values[2], *values[3]))


@for_all_pairs(st.lists(planned_runs, max_size=4), st.booleans())
def test_cleanup__removes_nothing_that_a_run_or_an_experiment_needs(planned: list[Planned], is_over: bool) -> None:
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        runs: list[RunDirectory] = []
        for number, one in enumerate(planned):
            name, parent, days = f"lstm-{number}", f"lstm-{one.parent}", 2.0 if one.is_old else 0.5
            run = add_run(folder, name, one.end, days=days, best_step=one.best_step, init_from_run_id=parent)
            runs.append(run)
        cells = [run for run, one in zip(runs, planned, strict=True) if one.is_cell]
        experiment = add_experiment(folder, plan(), cells)
        if is_over:
            experiment.result.touch()
        needed = {f"lstm-{one.parent}" for one in planned if one.end is None}
        needed |= set() if is_over else {run.run_id for run in cells}
        settings, before = settings_of(folder), contents(folder)
        stored = {run.run_id for run, one in zip(runs, planned, strict=True) if one.is_stored}

        def clean(*, dry_run: bool) -> CleanupReport:
            return clean_up(settings, dry_run=dry_run, is_stored=lambda run: run.run_id in stored)

        listed = clean(dry_run=True)
        assert contents(folder) == before
        resumable = [newest_whole(run.checkpoints) for run in runs]
        report = clean(dry_run=False)
        after = contents(folder)
        assert report.removals == listed.removals
        assert after.items() <= before.items()
        assert report.bytes_freed == sum(map(len, before.values())) - sum(map(len, after.values()))
        assert report.files_deleted == len(before) - len(after)
        kept = {path: data for path, data in after.items() if "/scheduled/" in path}
        sizes = (report.kept_checkpoints, report.kept_bytes)
        assert sizes == (len({Path(path).parent for path in kept}), sum(map(len, kept.values())))
        for run, one, state in zip(runs, planned, resumable, strict=True):
            lost = {path for path in before.keys() - after.keys() if f"/{run.run_id}/" in path}
            if one.end is None or not one.is_old or run.run_id in needed:
                assert not lost
            elif one.end != "completed":
                assert newest_whole(run.checkpoints) == state
                assert contents(run.checkpoints / "scheduled")
            else:
                gone = changed_files(run.path, run.completed_manifest().files)
                assert bool(gone) == one.is_stored == (not (run.path / "model.safetensors").exists())
        assert clean(dry_run=False).removals == ()


def add_experiment(folder: Path, request: ExperimentRequest, cells: list[RunDirectory]) -> ExperimentDirectory:
    record = changed(experiment_record(), request=request)
    experiment = ExperimentStore(folder / "artifacts", UnsyncedDisk()).create(record)
    experiment.write_runs([cell_run(CellKey("lstm", "kk", seed), run.run_id) for seed, run in enumerate(cells)])
    return experiment


def removed(settings: Settings, is_stored: Callable[[RunDirectory], bool] | None = None) -> dict[str, str]:
    """Clean up; return the reasons by their paths."""
    report = clean_up(settings, is_stored=is_stored) if is_stored else clean_up(settings)
    assert all(removal.error is None for removal in report.removals), report
    return {removal.path: removal.reason for removal in report.removals}


def add_old_run(shell: Shell) -> RunDirectory:
    run = shell.add_finished_run()
    run.write_seal()
    make_old(run.seal, 30)
    return run


def test_completed_run__keeps_its_model_and_passes_every_check(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """First a dry run, which is an option and a setting, removes nothing."""
    run = add_old_run(shell)
    status, checked, before = shell.status(run), {check.name for check in verify_files(run)}, contents(shell.folder)
    shown = shell.type("gc", "--dry-run")
    assert "Nothing was removed." in shown and "/checkpoints/step-34 " in shown
    monkeypatch.setenv("APP__CLEANUP__DRY_RUN", "true")
    report = CleanupReport.model_validate_json(shell.type("gc", "--json"))
    assert report.dry_run and len(report.removals) == 2 and report.bytes_freed == report.files_deleted == 0
    assert contents(shell.folder) == before
    monkeypatch.setenv("APP__CLEANUP__DRY_RUN", "false")
    shown = shell.type("gc")
    assert shown.endswith(" removed.\n") and "nothing resumes from this checkpoint" in shown
    assert not list(run.checkpoints.glob("step-*"))
    checks = list(verify_files(run))
    assert all(check.ok for check in checks)
    assert checked - {check.name for check in checks} == {"checkpoints/step-17", "checkpoints/step-34"}
    assert shell.status(run) == status
    assert load_run(run)[0].parameter_count() > 0
    archive = shell.folder / "run.tar"
    export_archive(run, archive)
    assert import_archive(archive, shell.folder / "elsewhere").completed_manifest() == run.completed_manifest()
    assert shell.type("gc") == "There is nothing to remove.\n"


def test_failed_run__keeps_the_newest_whole_checkpoint_with_its_best(tmp_path: Path) -> None:
    run = add_run(tmp_path, "lstm-1", "failed", steps=(1, 2, 3, 4), best_step=1)
    (run.checkpoints / "step-4" / "optimizer.pt").write_bytes(b"damaged")
    (run.checkpoints / "step-3").rename(run.checkpoints / "broken-step-3-01234567")
    damaged = add_run(tmp_path, "lstm-2", "cancelled", steps=(1, 2))
    for step in (1, 2):
        (damaged.checkpoints / f"step-{step}" / "state.json").unlink()
    assert removed(settings_of(tmp_path)) == {
        "models/lstm-1/checkpoints/broken-step-3-01234567": "The checkpoint is damaged.",
        "models/lstm-1/checkpoints/step-4": "The run resumes from another checkpoint.",
    }
    state = newest_whole(run.checkpoints)
    assert state is not None and (state.step, state.history.best_step) == (2, 1)
    assert len(list(damaged.checkpoints.glob("step-*"))) == 2


def test_leftovers__of_killed_processes_go(tmp_path: Path) -> None:
    run = add_run(tmp_path, "lstm-1", "failed", steps=())
    add_checkpoint(run.checkpoints / ".tmp-step-9", 9, None)
    old, young = run.path / ".manifest.json.1f.tmp", run.path / ".dm.json.2f.tmp"
    for path in (old, young):
        path.write_bytes(b"{")
    make_old(old, 2)
    trash = tmp_path / "artifacts" / ".removed" / "f0"  # a cleanup was killed in mid-removal
    add_checkpoint(trash, 1, None)
    assert {Path(path).name for path in removed(settings_of(tmp_path))} == {".tmp-step-9", old.name}
    assert young.exists() and not old.exists() and not trash.exists()


@pytest.mark.parametrize("user", ["writer", "reader"])
def test_run_in_use__is_left_alone(tmp_path: Path, user: str) -> None:
    run = add_run(tmp_path, "lstm-1")
    before = contents(run.path)
    use: AbstractContextManager[object] | None = run.lock() if user == "writer" else run.in_use()
    assert use is not None
    with use:
        assert removed(settings_of(tmp_path)) == {}
    assert contents(run.path) == before
    assert len(removed(settings_of(tmp_path))) == 3


def test_reader__waits_for_a_cleanup_of_its_run(tmp_path: Path) -> None:
    run = add_run(tmp_path, "lstm-1")
    claim = claim_folder(run.path)
    assert claim is not None

    def read() -> bool:
        with run.in_use():
            return (run.path / "model.safetensors").exists()

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        (run.path / "model.safetensors").unlink()
        os.close(claim)
        assert not reading.result()
    with RunDirectory(tmp_path / "lstm-2").in_use():
        assert not (tmp_path / "lstm-2").exists(), "a run that was deleted has no files"


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_lock__of_a_removed_folder_is_none(tmp_path: Path, is_replaced: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    inode = folder.stat().st_ino
    claim = claim_folder(folder)
    assert claim is not None and claim_folder(folder) is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(use_folder, folder)
        await until(lambda: is_awaited(inode))
        folder.rename(tmp_path / "trash")
        if is_replaced:
            folder.mkdir()
        os.close(claim)
        assert waiting.result() is None
    assert (claim_folder(folder) is not None) == is_replaced


def test_weights__go_only_when_the_object_store_has_the_run(tmp_path: Path) -> None:
    run = add_run(tmp_path, "lstm-1", steps=())
    cancelled = add_run(tmp_path, "lstm-2", "cancelled", steps=(1,))
    asked: list[str] = []

    def is_stored(checked: RunDirectory) -> bool:
        asked.append(checked.run_id)
        return len(asked) > 1

    settings, weights = settings_of(tmp_path), {"model.safetensors", "checkpoints/scheduled/step-1/model.safetensors"}
    assert removed(settings) == removed(settings, is_stored) == {}
    assert removed(settings, is_stored) == {f"models/lstm-1/{name}": "The object store has it." for name in weights}
    assert set(changed_files(run.path, run.completed_manifest().files)) == weights
    assert removed(settings, is_stored) == {}
    assert asked == ["lstm-1", "lstm-1"]  # a run without local weights is not looked up
    assert newest_whole(cancelled.checkpoints) is not None
    make_old(run.seal, 0.9)  # measured once more
    add_checkpoint(run.checkpoints / "step-9", 9, None)
    assert removed(settings, is_stored) == {}


def test_errors__are_reported_and_leave_the_rest(tmp_path: Path) -> None:
    damaged, unreachable, other = (add_run(tmp_path, f"lstm-{number}", steps=(1,)) for number in range(3))
    endless = add_run(tmp_path, "lstm-3")
    (damaged.path / "manifest.json").write_bytes(b"{")
    (endless.path / "manifest.json").unlink()
    before = contents(tmp_path)

    def check(run: RunDirectory) -> bool:
        if run.run_id == unreachable.run_id:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The object store does not answer.")
        return False

    with captured_logs() as logs:
        report = clean_up(settings_of(tmp_path), is_stored=check)
    assert [(one.path, one.error) for one in report.removals] == [
        ("models/lstm-0", "The file 'manifest.json' of 'lstm-0' cannot be read: its content is damaged."),
        ("models/lstm-1", "The object store does not answer."),
        ("models/lstm-2/checkpoints/step-1", None),
    ]
    lost = before.keys() - contents(tmp_path).keys()
    assert {Path(path).parent.as_posix() for path in lost} == {f"artifacts/models/{other.run_id}/checkpoints/step-1"}
    assert len(lost) == 4
    assert [line["event"] for line in logs] == ["cleanup_failed", "cleanup_failed", "cleanup_completed"]


def test_folder_that_cannot_be_removed__stays_complete(shell: Shell) -> None:
    run = add_old_run(shell)
    (shell.folder / "artifacts" / ".removed").write_bytes(b"")  # a file in place of the trash
    before = contents(run.path)
    shown = shell.type("gc", code=1)
    assert "File exists" in shown and str(shell.folder) not in shown
    assert contents(run.path) == before


def test_kept_checkpoints__stay_and_their_size_is_reported(shell: Shell) -> None:
    for number in (1, 2):
        add_run(shell.folder, f"lstm-{number}")
    kept = {path: data for path, data in contents(shell.folder).items() if "/scheduled/" in path}
    told = f"2 checkpoints of schedules with {sum(map(len, kept.values())):,} bytes stay: `mt gc --kept RUN` removes"
    assert told in shell.type("gc", "--dry-run") and told in shell.type("gc")
    assert kept.items() <= contents(shell.folder).items()


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_kept_checkpoints__are_removed_on_request_and_the_rest_stays(shell: Shell, end: FinalState) -> None:
    """The manifest names them no more, and its new hash is in SHA256SUMS; the grace period is for other files."""
    runs = [add_run(shell.folder, f"lstm-{number}", end, days=0) for number in (1, 2)]
    before, kept = contents(shell.folder), contents(runs[0].checkpoints / "scheduled")
    assert "/lstm-1/checkpoints/scheduled/step-1 " in shell.type("gc", "--kept", "lstm-1", "--dry-run")
    assert contents(shell.folder).items() >= before.items()
    report = CleanupReport.model_validate_json(shell.type("gc", "--kept", "lstm-1", "--json"))
    assert (report.files_deleted, report.bytes_freed) == (len(kept), sum(map(len, kept.values())))
    assert report.kept_checkpoints == 1
    after = contents(shell.folder)
    renewed = {f"artifacts/models/lstm-1/{name}" for name in ("manifest.json", "SHA256SUMS")}
    lost = {f"artifacts/models/lstm-1/checkpoints/scheduled/{name}" for name in kept}
    assert before.keys() - after.keys() == lost
    assert {name for name in before.keys() - lost if after[name] != before[name]} <= renewed
    assert not changed_files(runs[0].path, runs[0].ended_manifest().files)
    assert all(check.ok for check in verify_files(runs[0]) if check.name in ("manifest.json", "request.json", "end"))
    assert "There is nothing to remove." in shell.type("gc", "--kept", "lstm-1")


def test_kept_checkpoints__of_runs_that_are_needed_or_in_use_stay(tmp_path: Path) -> None:
    settings, parent = settings_of(tmp_path), add_run(tmp_path, "lstm-1")
    waiting = add_run(tmp_path, "lstm-2", None, init_from_run_id="lstm-1")
    before = contents(tmp_path)
    with refused(ErrorCode.RUN_NOT_READY, "has not ended"):
        remove_kept(settings, "lstm-2")
    with refused(ErrorCode.CONFLICT, "Unfinished work needs the run 'lstm-1': wait"):
        remove_kept(settings, "lstm-1")
    assert contents(tmp_path).items() >= before.items()
    shutil.rmtree(waiting.path)
    with parent.wait_for_lock(PATIENCE_SECONDS), refused(ErrorCode.SERVICE_UNAVAILABLE, "written by another process"):
        remove_kept(settings, "lstm-1")
    assert remove_kept(settings, "lstm-1").files_deleted == 3


@pytest.mark.parametrize("dry_run", [True, False])
def test_log__has_an_event_with_its_fields_for_every_removal(tmp_path: Path, dry_run: bool) -> None:
    run = add_run(tmp_path, "lstm-1", steps=(1,))
    sizes = [path.stat().st_size for path in (run.checkpoints / "step-1").iterdir()]
    with captured_logs() as logs:
        [removal] = clean_up(settings_of(tmp_path), dry_run=dry_run).removals
    assert removal.path == "models/lstm-1/checkpoints/step-1"
    event = "cleanup_dry_run" if dry_run else "cleanup_completed"
    named = {"run_id": "lstm-1", "path": removal.path, "reason": removal.reason}
    assert logs == [{"event": event, "log_level": "info", **named, "bytes_freed": sum(sizes), "files_deleted": 4}]


def test_second_cleanup__at_the_same_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    lock = try_lock(tmp_path / "artifacts" / "cleanup.lock")
    assert lock is not None
    with lock, refused(ErrorCode.CONFLICT, "Another cleanup is running"):
        clean_up(settings_of(tmp_path))
    empty = CleanupReport(dry_run=False, bytes_freed=0, files_deleted=0, removals=())
    assert clean_up(settings_of(tmp_path / "new")) == empty


# tokenizers


def with_tokenizers(folder: Path) -> Settings:
    return settings_of(folder, tokenizer_cleanup=TokenizerCleanupSettings(enabled=True, min_unused_days=10))


def add_tokenizer(folder: Path, text: str, days: float = 20) -> str:
    """A stored tokenizer of these characters that was used so long ago; return its id."""
    tokenizer = char_tokenizer([text])
    with tempfile.TemporaryDirectory() as own:
        tokenizer.save(Path(own) / "own")
        described = record_of_run(record(), tokenizer.manifest)
        TokenizerStore(folder / "artifacts").store_copy(described, Path(own) / "own", [])
    tokenizer_id = tokenizer.manifest.tokenizer_id
    make_old(folder / "artifacts" / "tokenizers" / tokenizer_id, days)
    return tokenizer_id


def stored_tokenizers(folder: Path) -> set[str]:
    return {tokenizer.tokenizer_id for tokenizer in TokenizerStore(folder / "artifacts").all()}


def test_tokenizers__without_any_use_for_long_go(tmp_path: Path) -> None:
    unused, young = add_tokenizer(tmp_path, "ab"), add_tokenizer(tmp_path, "bc", days=5)
    given, own, planned = (add_tokenizer(tmp_path, text) for text in ("cd", "de", "ef"))
    renewed = add_tokenizer(tmp_path, "fg")
    assert add_tokenizer(tmp_path, "fg", days=0) == renewed, "a run takes it again"
    add_run(tmp_path, "lstm-1", None, tokenizer_id=given)
    trained = add_run(tmp_path, "lstm-2", "failed")
    shutil.copytree(tmp_path / "artifacts" / "tokenizers" / own, trained.tokenizer)
    add_experiment(tmp_path, plan_with({"tokenizer_id": planned}), [])
    checkpoints = {f"models/lstm-2/checkpoints/step-{step}" for step in (1, 2, 3)}
    assert removed(settings_of(tmp_path)).keys() <= checkpoints
    report = clean_up(with_tokenizers(tmp_path))
    [removal] = [one for one in report.removals if one.run_id is None]
    assert (removal.path, removal.tokenizer_id) == (f"tokenizers/{unused}", unused)
    assert stored_tokenizers(tmp_path) == {young, given, own, planned, renewed}


def test_tokenizer_jobs__stay_while_they_wait_or_are_in_an_experiment(tmp_path: Path) -> None:
    store, paths = TokenizerStore(tmp_path / "artifacts"), dict[str, str]()
    for number, label in enumerate(("small lstm", "other", "damaged", "queued")):
        request = parse(TokenizerTrainRequest, {"method": "char", "corpora": ["text"], "label": label, "vocab_size": 9})
        tokenizer_id = tokenizer_id_of(changed(request, vocab_size=10 + number), ())
        record = TokenizerRecord(tokenizer_id=tokenizer_id, created_at=now(), request=request, corpora=())
        tokenizer = store.get(store.create(record).tokenizer_id)
        if label != "queued":
            tokenizer.fail(AppError(ErrorCode.CORPUS_EMPTY, "It is empty."))
        if label == "damaged":
            (tokenizer.path / "error.json").write_bytes(b"{")
        make_old(tokenizer.path, 20)
        paths[label] = f"tokenizers/{tokenizer_id}"
    add_experiment(tmp_path, plan(), [])
    assert removed(with_tokenizers(tmp_path)).keys() == {paths["other"]}


@pytest.mark.parametrize("damaged", ["models/lstm-1", "experiments/small-01234567"])
def test_tokenizers__stay_while_a_run_or_an_experiment_cannot_be_read(tmp_path: Path, damaged: str) -> None:
    tokenizer_id = add_tokenizer(tmp_path, "ab")
    add_run(tmp_path, "lstm-1", None)
    add_experiment(tmp_path, plan(), [])
    (tmp_path / "artifacts" / damaged / "request.json").write_bytes(b"{")
    with captured_logs() as logs:
        clean_up(with_tokenizers(tmp_path))
    assert stored_tokenizers(tmp_path) == {tokenizer_id}
    assert "tokenizer_cleanup_postponed" in [line["event"] for line in logs]


# sent texts


def sent(folder: Path, line: str, days: float) -> str:
    """The hash of a text that somebody sent so many days ago."""
    text, corpora = folder / "text.txt", CorpusStore(settings_of(folder))
    text.write_text(f"{line}\n", encoding="utf-8")
    name = corpora.store(text, "key")
    for path in (corpora.stored / name, note_path(corpora.stored / name)):
        make_old(path, days)
    return name


def text_named(name: str) -> CorpusRef:
    return CorpusRef(name=name, sha256=name, bytes=1)


def test_sent_texts__that_no_job_needs_go_some_time_after_they_were_sent(tmp_path: Path) -> None:
    orphan, young, given, held_out, linked = (
        sent(tmp_path, line, days) for line, days in (("a", 60), ("b", 0), ("c", 60), ("d", 60), ("e", 60))
    )
    add_run(tmp_path, "lstm-1", "failed", steps=(), corpus=text_named(given), validation_corpus=text_named(held_out))
    stored = tmp_path / "artifacts" / "corpora"
    (stored / "poems").symlink_to(stored / linked)
    listed = clean_up(settings_of(tmp_path), dry_run=True)
    assert [one.path for one in listed.removals] == [f"corpora/{orphan}"] and (stored / orphan).exists()
    removed_now = clean_up(settings_of(tmp_path))
    assert [(one.path, one.bytes) for one in removed_now.removals] == [(f"corpora/{orphan}", 2)]
    left = {path.name.removesuffix(".json") for path in stored.iterdir()}
    assert left == {young, given, held_out, linked, "poems"}


@pytest.mark.parametrize("owner", ["key", "other", None])
def test_sent_text__that_is_sent_again_stays_for_as_long_as_a_new_one(tmp_path: Path, owner: str | None) -> None:
    name = sent(tmp_path, "a", 60)
    assert CorpusStore(settings_of(tmp_path)).store(tmp_path / "text.txt", owner) == name
    assert clean_up(settings_of(tmp_path)).removals == ()


def test_sent_texts__stay_while_a_job_cannot_be_read_or_takes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = sent(tmp_path, "a", 60)
    run = add_run(tmp_path, "lstm-1", "failed", steps=(), corpus=text_named(name))
    request = (run.path / "request.json").read_bytes()
    (run.path / "request.json").write_bytes(b"{")
    with captured_logs() as logs:
        assert clean_up(settings_of(tmp_path)).removals == ()
    assert "text_cleanup_postponed" in [line["event"] for line in logs]
    (run.path / "request.json").write_bytes(request)

    def before_the_run(artifacts_root: Path) -> set[str]:
        return set()

    monkeypatch.setattr(cleanup, "needed_texts", before_the_run)
    [removal] = clean_up(settings_of(tmp_path)).removals
    assert removal.error is not None and "the run 'lstm-1'" in removal.error
    assert CorpusStore(settings_of(tmp_path)).has(name)


# encoded corpora


def cached(folder: Path, name: str) -> Path:
    return folder / "data" / "corpus_cache" / (name if name.startswith(".") else name * 64)


def add_encoded(folder: Path, **written_and_used: tuple[float, float]) -> list[Path]:
    """Encoded corpora of 1,000 bytes that were written and used so many days ago."""
    for name, (written, used) in written_and_used.items():
        encoded = cached(folder, name)
        encoded.mkdir(parents=True)
        (encoded / "train.bin").write_bytes(b"x" * 1000)
        make_old(encoded / "train.bin", written)
        make_old(encoded, used)
    return [cached(folder, name) for name in written_and_used]


def cache_settings(folder: Path, **fields: object) -> Settings:
    options: dict[str, object] = {"enabled": True, "min_free_bytes": 0, **fields}
    return settings_of(folder, corpus_cache_cleanup=CorpusCacheCleanupSettings.model_validate(options))


@pytest.mark.parametrize(("policy", "kept"), [("lru", "a"), ("oldest", "c")])
def test_corpus_cache__shrinks_to_its_size_in_the_order_of_the_policy(tmp_path: Path, policy: str, kept: str) -> None:
    add_encoded(tmp_path, a=(9, 1), b=(8, 7), c=(2, 2))
    free = shutil.disk_usage(tmp_path).free
    assert removed(cache_settings(tmp_path, min_free_bytes=free // 2)) == {}
    settings = cache_settings(tmp_path, policy=policy, max_bytes=1999)
    listed, report = clean_up(settings, dry_run=True), clean_up(settings)
    assert listed.removals == report.removals and report.bytes_freed == 2000
    gone = sorted({"a", "b", "c"} - {kept})
    assert sorted(one.path for one in report.removals) == [f"corpus_cache/{name * 64}" for name in gone]
    assert removed(settings) == removed(settings_of(tmp_path)) == {}
    assert len(removed(cache_settings(tmp_path, min_free_bytes=free * 2))) == 1, "for the sake of the disk"


def test_encoded_corpus_in_use__stays(tmp_path: Path) -> None:
    used, other = add_encoded(tmp_path, a=(9, 9), b=(9, 9))
    descriptor = use_folder(used)
    assert descriptor is not None
    clean_up(cache_settings(tmp_path, max_bytes=0))
    os.close(descriptor)
    assert used.exists() and not other.exists()
    cached(tmp_path, ".removed").rmdir()
    cached(tmp_path, ".removed").write_bytes(b"")
    [removal] = clean_up(cache_settings(tmp_path, max_bytes=0)).removals
    assert removal.error == "File exists" and used.exists()


def test_incompletely_encoded_corpus__is_removed_after_a_day(tmp_path: Path) -> None:
    young, old = add_encoded(tmp_path, **{".tmp-1": (0.5, 3), ".tmp-2": (1.5, 3)})
    empty = cached(tmp_path, ".tmp-3")
    empty.mkdir()
    make_old(empty, 2)
    clean_up(cache_settings(tmp_path))
    assert [path.exists() for path in (young, old, empty)] == [True, False, False]
    assert time.time() - young.stat().st_mtime > DAY_SECONDS
