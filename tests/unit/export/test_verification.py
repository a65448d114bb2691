"""`mt verify`: an unchanged run passes, and one flipped bit in any file is found."""

import asyncio
import random
import shutil
from hashlib import sha256
from pathlib import Path
from threading import Timer

import pytest

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.run_shell import contents
from tests.support.runs import ended, record
from trainer.artifacts.run_ids import new_run_id
from trainer.artifacts.runs import SEALED_FILES, RunDirectory, RunStore
from trainer.config.settings import LimitSettings
from trainer.contracts.base import changed, now
from trainer.contracts.verification import Verification
from trainer.data.corpora import CorpusStore
from trainer.export.archive import export_archive, import_archive
from trainer.export.verification import verify_run
from trainer.queue.resolve import resolve_request

NOT_VOUCHED_FOR = {"logs.jsonl", "lock"}


def verified(run: RunDirectory) -> Verification:
    return verify_run(run, settings_in(run.path.parents[2]))


def wrong(run: RunDirectory) -> dict[str, str]:
    found = verified(run)
    assert found.ok == all(check.ok for check in found.checks)
    return {check.name: check.message for check in found.checks if not check.ok}


def test_finished_run__is_found_right_and_left_as_it_is(run: RunDirectory) -> None:
    before = contents(run.path)
    found = verified(run)
    assert found.ok, found
    names = [check.name for check in found.checks]
    assert names[:4] == ["end", *SEALED_FILES]
    assert {"model.safetensors", "tokenizer/tokenizer.json", "eval/metrics.json", "model", "tokenizer"} <= set(names)
    assert names[-4:] == ["checkpoints/step-17", "checkpoints/step-34", "corpus", "request_hash"]
    assert contents(run.path) == before


def test_run_that_has_just_ended__is_checked_when_its_end_is_written(run: RunDirectory) -> None:
    run.seal.unlink()
    lock = run.lock()
    assert lock is not None

    def write_the_end() -> None:
        run.write_seal()
        lock.close()

    ending = Timer(0.3, write_the_end)
    ending.start()
    assert verified(run).ok
    ending.join()


def test_every_file__one_flipped_bit_is_found(run: RunDirectory) -> None:
    draw = random.Random(7)
    files = sorted(path for path in run.path.rglob("*") if path.is_file() and path.name not in NOT_VOUCHED_FOR)
    assert len(files) >= 18
    for path in files:
        data = path.read_bytes()
        for place in sorted({0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(3))}):
            changed = bytearray(data)
            changed[place] ^= 1 << draw.randrange(8)
            path.write_bytes(changed)
            assert not verified(run).ok, f"{path.name}, byte {place}"
        path.write_bytes(data)
    assert verified(run).ok


def test_lost_file__is_named_and_unreadable_records_are_one_finding(run: RunDirectory) -> None:
    lost = {"model.safetensors", "eval/samples.jsonl", "tokenizer/tokenizer.json"}
    for name in lost:
        (run.path / name).unlink()
    found = wrong(run)
    assert all(found[name] == "The file was changed or deleted." for name in lost)
    (run.path / "request.json").write_bytes(b"{")
    finding = wrong(run)
    (run.path / "request.json").unlink()
    assert finding.keys() == {"records"} and wrong(run) == finding


def test_changed_text__is_found_with_what_it_means_for_the_request(run: RunDirectory) -> None:
    text = run.path.parents[2] / "data" / "corpus" / "text.txt"
    text.write_text(text.read_text(encoding="utf-8") + "one more line\n", encoding="utf-8")
    assert wrong(run) == {
        "corpus": "'text' has changed since the run was accepted.",
        "request_hash": "The request resolves differently now: corpus.",
    }
    text.unlink()
    refused = wrong(run)
    assert refused["corpus"].startswith("There is no corpus 'text'")
    assert refused["request_hash"].startswith("The request would be refused now: There is no corpus")


def test_text_given_by_its_path__is_checked_by_its_stored_copy(tmp_path: Path) -> None:
    text = some_text().encode()
    copy = tmp_path / "artifacts" / "corpora" / sha256(text).hexdigest()
    copy.parent.mkdir(parents=True)
    copy.write_bytes(text)
    run = accepted(tmp_path, corpus=copy.name)
    assert {check.name: check.message for check in verified(run).checks}["corpus"] == "The stored copy is unchanged."
    copy.unlink()
    assert wrong(run)["corpus"] == "The stored copy is missing, so the run cannot be repeated."


def test_run_that_was_trained_elsewhere__is_right_without_its_text(run: RunDirectory, tmp_path: Path) -> None:
    export_archive(run, tmp_path / "run.tar")
    there = tmp_path / "there"
    restored = import_archive(tmp_path / "run.tar", there / "artifacts")
    found = verified(restored)
    assert found.ok
    assert {check.name: check.message for check in found.checks if check.is_skipped} == {
        "corpus": "The training text is not on this machine, so it was not checked."
    }
    assert found.checks[-1].message.startswith("The recorded settings have this hash.")
    add_corpus(there, "another text of the same name\n", "text")
    assert verified(restored) == found
    shutil.copytree(run.path.parents[2] / "data", there / "data", dirs_exist_ok=True)
    complete = verified(restored)
    assert [check.is_skipped for check in complete.checks] == [False] * len(found.checks)
    assert complete.checks[-2:] == verified(run).checks[-2:]
    small = changed(settings_in(there), limits=LimitSettings(corpus_bytes=1))  # this machine would not train it
    assert verify_run(restored, small).checks[-1] == found.checks[-1]
    (restored.path / "eval" / "samples.jsonl").write_bytes(b"")
    assert wrong(restored).keys() == {"eval/samples.jsonl"}


def test_texts_given_for_validation_and_test__are_checked_too(tmp_path: Path) -> None:
    for lines, name in ((60, "text"), (70, "held"), (80, "last")):
        add_corpus(tmp_path, some_text(lines), name)
    run = accepted(tmp_path, validation_corpus="held", test_corpus="last")
    assert [check.name for check in verified(run).checks] == [
        *("end", "corpus", "validation_corpus", "test_corpus", "request_hash")
    ]
    add_corpus(tmp_path, "another\n", "last")
    assert set(wrong(run)) == {"test_corpus", "request_hash"}


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_run_without_a_model__is_checked_as_far_as_it_has_come(tmp_path: Path, is_cancelled: bool) -> None:
    add_corpus(tmp_path, some_text())
    run = accepted(tmp_path)
    if is_cancelled:
        ended(run, "cancelled")
    found = verified(run)
    sealed = list(SEALED_FILES) if is_cancelled else list[str]()
    assert found.ok
    assert [check.name for check in found.checks] == ["end", *sealed, "corpus", "request_hash"]
    assert ("The run is queued." in found.checks[0].message) is not is_cancelled


def test_run_under_way__is_checked_with_its_tokenizer_and_checkpoints(run: RunDirectory) -> None:
    (run.path / "manifest.json").unlink()
    run.seal.unlink()
    (run.checkpoints / "step-9").symlink_to("dropped-by-the-training-meanwhile")
    found = verified(run)
    assert found.ok
    checkpoints = ("checkpoints/step-17", "checkpoints/step-34")
    assert [check.name for check in found.checks] == ["end", "tokenizer", *checkpoints, "corpus", "request_hash"]
    with (run.checkpoints / "step-34" / "state.json").open("ab") as file:
        file.write(b" ")
    assert wrong(run) == {"checkpoints/step-34": "The checkpoint of step 34 is damaged."}


def test_end_that_the_event_log_or_the_seal_does_not_know__is_found(run: RunDirectory) -> None:
    log, seal = run.path / "events.jsonl", run.seal.read_bytes()
    run.seal.unlink()
    assert "The file is missing: request.json" in wrong(run)[run.seal.name]
    run.seal.write_bytes(seal)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert wrong(run)["end"] == "The event log says running, the manifest completed."


def accepted(folder: Path, **fields: object) -> RunDirectory:
    """A run that waits, with its texts there."""
    settings, request = settings_in(folder), tiny_request(**fields)
    effective = asyncio.run(resolve_request(request, CorpusStore(settings), settings))
    run_id = new_run_id(request.model_family, now())
    return RunStore(settings.app.artifacts_root).create(record(run_id, None, request=request, effective=effective))
