"""What a run left, checked against what it said it left: every file, its texts, its model, and its request."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from trainer.artifacts.runs import SEALED_FILES, RunDirectory
from trainer.config.presets import request_hash
from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, RunState, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, RunManifest, RunRecord
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.text import corpus_sha256
from trainer.inference.model_files import load_model
from trainer.jobs.resolve import resolve_request
from trainer.system.files import changed_files, read_regular, sha256_of
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.training.checkpoint import CheckpointStore

_CHANGED = "Is gone, or not as it was left."


class Check(Frozen):
    """One thing that was looked at."""

    name: str
    ok: bool
    message: str


_UNREADABLE = Check(name="records", ok=False, message=f"One of {', '.join(SEALED_FILES)} cannot be read.")


class Verification(Frozen):
    """What was found; `ok` says that every check is."""

    run_id: str
    ok: bool
    checks: tuple[Check, ...]


def verify_run(run: RunDirectory, settings: Settings) -> Verification:
    """Check a run as far as it has come; changes nothing.

    Of a finished run every byte is vouched for but those of its log: the manifest names the artifact's files, the
    checkpoints have manifests of their own, and SHA256SUMS names the request, the events and the manifest itself.
    """
    checks = tuple(_checks(run, settings))
    return Verification(run_id=run.run_id, ok=all(check.ok for check in checks), checks=checks)


def verify_files(run: RunDirectory) -> Iterator[Check]:
    """Check what lies in a run's folder, and nothing outside it."""
    records = _records(run)
    if records is None:
        yield _UNREADABLE
    else:
        yield from _files(run, records[1], records[2])


def _checks(run: RunDirectory, settings: Settings) -> Iterator[Check]:
    records = _records(run)
    if records is None:
        yield _UNREADABLE
        return
    record, manifest, status = records
    yield from _files(run, manifest, status)
    yield from _texts(record, settings)
    yield _asked_again(record, settings)


def _records(run: RunDirectory) -> tuple[RunRecord, RunManifest | None, RunState] | None:
    try:
        return run.record(), run.manifest(), run.follow().refresh().status
    except (OSError, ValueError):
        return None


def _files(run: RunDirectory, manifest: RunManifest | None, status: RunState) -> Iterator[Check]:
    as_left = [Check(name="end", ok=True, message=f"It is {status}: it is checked as far as it has come.")]
    if manifest is not None:
        as_left = list(_ended(run, manifest, status))
    yield from as_left
    if all(check.ok for check in as_left):  # what has changed is read no further
        if is_saved(run.tokenizer):
            yield _tried("tokenizer", "Is as its manifest says.", partial(load_tokenizer, run.tokenizer))
        if manifest is not None and manifest.status == "completed":
            yield _tried("model", "Loads, and its shapes fit.", partial(load_model, run.path))
    yield from _checkpoints(run)
    store = CheckpointStore(run.checkpoints)
    for step in store.scheduled_steps():
        name = f"checkpoints/scheduled/step-{step}"
        yield _tried(name, "Is as its manifest says.", partial(store.scheduled_weights, step))


def _ended(run: RunDirectory, manifest: RunManifest, status: str) -> Iterator[Check]:
    agree = manifest.status == status
    message = f"It is {status}." if agree else f"The event log says {status}, the manifest otherwise."
    yield Check(name="end", ok=agree, message=message)
    yield from _sealed(run)
    for file in manifest.files:
        ok = not changed_files(run.path, [file])
        yield Check(
            name=file.path, ok=ok, message=f"{counted(file.bytes, 'byte')}, as it was written." if ok else _CHANGED
        )


def _sealed(run: RunDirectory) -> Iterator[Check]:
    """Check the files that SHA256SUMS names."""
    if not run.seal.exists():
        message = f"Is not there: nothing vouches for {', '.join(SEALED_FILES)}."
        yield Check(name=run.seal.name, ok=False, message=message)
        return
    sums = _lines_of(run.seal)
    for name in SEALED_FILES:
        ok = f"{sha256_of(run.path / name)}  {name}" in sums
        yield Check(name=name, ok=ok, message="As it was at the end." if ok else f"Is not what {run.seal.name} says.")


def _lines_of(seal: Path) -> list[str]:
    try:
        return read_regular(seal).decode(errors="replace").split("\n")
    except (OSError, ValueError):
        return []


def _checkpoints(run: RunDirectory) -> Iterator[Check]:
    store = CheckpointStore(run.checkpoints)
    for step in store.steps():
        folder = run.checkpoints / f"step-{step}"
        check = _tried(f"checkpoints/{folder.name}", "Is as its manifest says.", partial(store.weights, step))
        if folder.exists():  # a run that goes on drops the older ones
            yield check


def _texts(record: RunRecord, settings: Settings) -> Iterator[Check]:
    corpora, effective = CorpusStore(settings), record.effective
    for field, text in (
        ("corpus", effective.corpus),
        ("validation_corpus", effective.validation_corpus),
        ("test_corpus", effective.test_corpus),
    ):
        if text is not None:
            yield _tried(field, "Is there as it was.", partial(_check_text, corpora, text))


def _check_text(corpora: CorpusStore, wanted: CorpusRef) -> None:
    if corpus_sha256(corpora.find(wanted.name)) != wanted.sha256:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"'{wanted.name}' has changed since the run was accepted.")


def _asked_again(record: RunRecord, settings: Settings) -> Check:
    """Whether the request, asked again here and now, is the same training."""
    name, effective = "request_hash", record.effective
    try:
        again = asyncio.run(resolve_request(record.request, CorpusStore(settings), settings))
    except AppError as error:
        return Check(name=name, ok=False, message=f"The request would be refused now: {error.message}")
    if request_hash(again) == record.request_hash:
        return Check(name=name, ok=True, message="Asked again, the request has the same.")
    if request_hash(changed(again, threads=effective.threads)) == record.request_hash:
        message = (
            f"The same but for the threads: {effective.threads} there, {again.threads} on this machine;"
            f" `threads: {effective.threads}` in the request makes it the same."
        )
        return Check(name=name, ok=True, message=message)
    before: dict[str, object] = effective.model_dump()
    after: dict[str, object] = again.model_dump()
    differing = [field for field, value in after.items() if value != before[field]]
    message = f"Asked again, the request is another one: {', '.join(differing)} differ."
    return Check(name=name, ok=False, message=message)


def _tried(name: str, message: str, do: Callable[[], object]) -> Check:
    try:
        do()
    except AppError as error:
        return Check(name=name, ok=False, message=error.message)
    return Check(name=name, ok=True, message=message)
