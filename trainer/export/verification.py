"""Verification of a run: its files against their hashes, its corpora, its model, and its request hash."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from trainer.artifacts.runs import SEALED_FILES, RunDirectory
from trainer.config.presets import recorded_hash, request_hash
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, RunManifest, RunRecord
from trainer.contracts.verification import Check, Verification
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.text import corpus_sha256
from trainer.inference.model_files import load_model
from trainer.queue.resolve import resolve_again
from trainer.system.files import changed_files, read_regular, sha256_of
from trainer.tokenizers import is_saved, load_tokenizer
from trainer.training.checkpoint import CheckpointStore

_MATCHES = "It matches its manifest."
_NO_TEXT = "The training text is not on this machine, so it was not checked."
_UNRESOLVED = "The recorded settings have this hash. This machine lacks what the request needs to be resolved again."


def verify_run(run: RunDirectory, settings: Settings) -> Verification:
    """Check a run as far as it has come, and change nothing.

    In a finished run, every byte but the log has a hash: the manifest names the artifact's files, each checkpoint has a
    manifest, and SHA256SUMS names the request, the events and the manifest. The training text of a restored run is
    checked only if it is on this machine.
    """
    with run.in_use():
        checks, is_restored = [*verify_files(run)], run.is_restored()
    if (record := _read_record(run)) is not None:
        texts = list(_check_corpora(record, settings, is_restored=is_restored))
        is_complete = not any(text.is_skipped for text in texts)
        checks += [*texts, _check_request_hash(record, settings, is_restored=is_restored, has_texts=is_complete)]
    return Verification(run_id=run.run_id, ok=all(check.ok for check in checks), checks=tuple(checks))


def verify_files(run: RunDirectory) -> Iterator[Check]:
    """Check the files in a run's folder."""
    try:
        run.wait_for_end()
        manifest, status = run.manifest(), run.follow().refresh().status
    except (OSError, ValueError):
        manifest, status = None, None
    if status is None or _read_record(run) is None:
        yield Check(name="records", ok=False, message=f"One of {', '.join(SEALED_FILES)} cannot be read.")
        return
    checks = [Check(name="end", ok=True, message=f"The run is {status}. Its files so far are checked.")]
    if manifest is not None:
        checks = list(_check_finished(run, manifest, status))
    yield from checks
    if all(check.ok for check in checks):  # changed files are not loaded
        if is_saved(run.tokenizer):
            yield _attempt("tokenizer", _MATCHES, partial(load_tokenizer, run.tokenizer))
        if manifest is not None and manifest.status == "completed":
            yield _attempt("model", "It loads, and its shapes match.", partial(load_model, run.path))
    store = CheckpointStore(run.checkpoints)
    for step in store.steps():
        folder = run.checkpoints / f"step-{step}"
        check = _attempt(f"checkpoints/{folder.name}", _MATCHES, partial(store.weights, step))
        if folder.exists():  # an active run deletes older checkpoints
            yield check
    for step in store.scheduled_steps():
        yield _attempt(f"checkpoints/scheduled/step-{step}", _MATCHES, partial(store.scheduled_weights, step))


def check_whole(run: RunDirectory) -> None:
    """Raise MODEL_LOAD_FAILED if a file of the run is missing or has changed."""
    wrong = next((check for check in verify_files(run) if not check.ok), None)
    if wrong is not None:
        raise AppError(
            ErrorCode.MODEL_LOAD_FAILED, f"The run '{run.run_id}' failed its check of {wrong.name}. {wrong.message}"
        )


def _read_record(run: RunDirectory) -> RunRecord | None:
    try:
        return run.record()
    except (OSError, ValueError):
        return None


def _check_finished(run: RunDirectory, manifest: RunManifest, status: str) -> Iterator[Check]:
    conflict = f"The event log says {status}, the manifest {manifest.status}."
    yield _check("end", manifest.status == status, f"The run is {status}.", conflict)
    yield from _check_seal(run)
    for file in manifest.files:
        message = f"{counted(file.bytes, 'byte')}, unchanged."
        yield _check(file.path, not changed_files(run.path, [file]), message, "The file was changed or deleted.")


def _check_seal(run: RunDirectory) -> Iterator[Check]:
    """Check the files that SHA256SUMS names."""
    seal = run.seal.name
    if not run.seal.exists():
        yield _check(seal, False, "", f"The file is missing: {', '.join(SEALED_FILES)} cannot be checked.")
        return
    try:
        sums = read_regular(run.seal).decode(errors="replace").split("\n")
    except (OSError, ValueError):
        sums = []
    for name in SEALED_FILES:
        ok = f"{sha256_of(run.path / name)}  {name}" in sums
        yield _check(name, ok, "Unchanged.", f"Its hash is not the one in {seal}.")


def _check_corpora(record: RunRecord, settings: Settings, *, is_restored: bool) -> Iterator[Check]:
    """Check the texts of a run; one of a restored run that this machine lacks, or has another text for, is skipped."""
    corpora, effective = CorpusStore(settings), record.effective
    for field, corpus in (
        ("corpus", effective.corpus),
        ("validation_corpus", effective.validation_corpus),
        ("test_corpus", effective.test_corpus),
    ):
        if corpus is not None:
            unchanged = "The stored copy is unchanged." if corpus.is_attached else "Unchanged."
            check = _attempt(field, unchanged, partial(_compare_corpus, corpora, corpus))
            is_elsewhere = is_restored and not check.ok
            yield Check(name=field, ok=True, message=_NO_TEXT, is_skipped=True) if is_elsewhere else check


def _compare_corpus(corpora: CorpusStore, expected: CorpusRef) -> None:
    if expected.is_attached and not corpora.has(expected.name):
        raise AppError(ErrorCode.DATA_NOT_FOUND, "The stored copy is missing, so the run cannot be repeated.")
    if corpus_sha256(corpora.find(expected.name)) != expected.sha256:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"'{expected.name}' has changed since the run was accepted.")


def _check_request_hash(record: RunRecord, settings: Settings, *, is_restored: bool, has_texts: bool) -> Check:
    """Resolve the request again and compare its hash; that of a restored run only if this machine has what it names."""
    name, effective = "request_hash", record.effective
    unresolved = _check(
        name, request_hash(effective) == recorded_hash(record), _UNRESOLVED, "The settings have changed."
    )
    if not has_texts:
        return unresolved
    try:
        again = asyncio.run(resolve_again(record, CorpusStore(settings), settings))
    except AppError as error:
        if is_restored:
            return unresolved
        return Check(name=name, ok=False, message=f"The request would be refused now: {error.message}")
    if request_hash(again) == recorded_hash(record):
        return Check(name=name, ok=True, message="The request resolves to the same hash.")
    before: dict[str, object] = effective.model_dump()
    after: dict[str, object] = again.model_dump()
    differing = [field for field, value in after.items() if value != before[field]]
    return Check(name=name, ok=False, message=f"The request resolves differently now: {', '.join(differing)}.")


def _check(name: str, ok: bool, message: str, fault: str) -> Check:
    return Check(name=name, ok=ok, message=message if ok else fault)


def _attempt(name: str, message: str, check: Callable[[], object]) -> Check:
    try:
        check()
    except AppError as error:
        return Check(name=name, ok=False, message=error.message)
    return Check(name=name, ok=True, message=message)
