"""Tokenizers on disk, one directory each, trained by a job or by a run; imports no torch and no numpy."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from trainer.artifacts.tokenizer_files import MANIFEST_FILE, read_manifest
from trainer.config.tokenizer_request import config_of, tokenizer_id_of
from trainer.contracts.base import JobState, Timestamp, now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.data.corpora import CorpusStore
from trainer.system.files import DISK, Disk, read_record, read_regular, try_lock, write_atomically

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_ID = re.compile(r"[a-z]{1,32}-[0-9a-f]{16}")
_ENDING_SECONDS, _LOOK_SECONDS = 10.0, 0.02
_MESSAGES: dict[JobState, str] = {"queued": "Waiting for a worker.", "running": "Training.", "completed": "Completed."}


class TokenizerDirectory:
    """Directory of one tokenizer: request, lock, log, and a manifest or an error.

    `manifest.json` is written on success, `error.json` on failure; the manifest counts if both exist. The request of a
    run's tokenizer has a `source` and is written last.
    """

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self.path = path
        self.disk = disk
        self.tokenizer_id = path.name
        self.logs = path / "logs.jsonl"
        self.message_ledger = path / "dm.json"
        self._request = path / "request.json"
        self._manifest = path / MANIFEST_FILE
        self._error = path / "error.json"

    def exists(self) -> bool:
        return self._request.exists() or self._manifest.exists()

    def has_failed(self) -> bool:
        return self.exists() and self.status().status == "failed"

    def is_unfinished(self) -> bool:
        return self._request.exists() and not self._manifest.exists() and not self._error.exists()

    def created_at(self) -> Timestamp:
        """Return when the tokenizer was accepted, or stored by its run."""
        if self._request.exists():
            return self.record().created_at
        return datetime.fromtimestamp(self._manifest.stat().st_mtime, UTC)

    def has_request(self) -> bool:
        """Return False for the tokenizer of a run of an older version."""
        return self._request.exists()

    def record(self) -> TokenizerRecord:
        """Read `request.json`; raises BrokenFile if it is damaged."""
        return read_record(self._request, TokenizerRecord)

    def is_shared(self) -> bool:
        """Return True if everybody may train it: it was requested by itself, on corpora that have names."""
        if not self.has_request():
            return False
        record = self.record()
        return record.source is None and not any(corpus.is_attached for corpus in record.corpora)

    def completed_manifest(self) -> TokenizerManifest:
        """Return the manifest; raises CONFLICT while it is being trained, TOKENIZER_NOT_FOUND after a failure."""
        if self._manifest.exists():
            return self._read_manifest()
        failure = self._failure()
        if failure is not None:
            raise AppError(
                ErrorCode.TOKENIZER_NOT_FOUND,
                f"The tokenizer '{self.tokenizer_id}' does not exist: its training failed. {failure.message}",
            )
        raise AppError(
            ErrorCode.CONFLICT,
            f"The tokenizer '{self.tokenizer_id}' is still being trained; try again when it is done.",
        )

    def status(self) -> TokenizerStatus:
        """Return the status; a tokenizer with a damaged manifest counts as failed, so that it can be trained again."""
        record = self.record() if self.has_request() else None
        state: JobState = "running" if self.logs.exists() else "queued"
        manifest: TokenizerManifest | None = None
        error = self._failure()
        if self._manifest.exists():
            try:
                state, manifest, error = "completed", self._read_manifest(), None
            except AppError as broken:
                error = RunError.of(broken)
        return TokenizerStatus(
            tokenizer_id=self.tokenizer_id,
            status=state if error is None else "failed",
            message=_MESSAGES[state] if error is None else error.message,
            method=self.tokenizer_id.split("-")[0],
            vocab_size=None if manifest is None else manifest.vocab_size,
            stats=None if manifest is None else manifest.stats,
            artifact=f"{self.path.parent.name}/{self.tokenizer_id}",
            error=error,
            label=None if record is None else record.request.label,
            created_at=self.created_at() if record is None else record.created_at,
            is_of_run=record is None or record.source is not None,
        )

    def mark_used(self) -> None:
        """Set the time of the last use to now, by which a cleanup chooses."""
        with suppress(OSError):  # on a read-only disk nothing is removed either
            os.utime(self.path)

    def used_at(self) -> float:
        """Return the time of the last use, in seconds since 1970."""
        return self.path.stat().st_mtime

    def lock(self) -> BinaryIO | None:
        """Take the lock for training, or return None if another process holds it."""
        return try_lock(self.path / "lock")

    def describe(self, record: TokenizerRecord, logs: Sequence[str]) -> None:
        """Write log and request of a tokenizer that a run has trained."""
        write_atomically(self.logs, "".join(f"{line}\n" for line in logs).encode(), self.disk)
        write_atomically(self._request, record.model_dump_json(indent=1).encode(), self.disk)

    def begin(self, record: TokenizerRecord) -> None:
        """Write a request and remove the results of an earlier attempt; the caller holds the lock."""
        write_atomically(self._request, record.model_dump_json(indent=1).encode(), self.disk)
        for file in (self.logs, self._manifest, self._error, self.message_ledger):
            self.disk.remove(file)
        self.disk.sync(self.path)

    def fail(self, error: AppError) -> None:
        """Write the error that the training ended with."""
        write_atomically(self._error, RunError.of(error).model_dump_json().encode(), self.disk)

    def _failure(self) -> RunError | None:
        try:
            return read_record(self._error, RunError)
        except FileNotFoundError:
            return None

    def _read_manifest(self) -> TokenizerManifest:
        try:
            return read_manifest(self.path)
        except AppError as error:
            raise AppError(
                error.code, f"The manifest of the tokenizer '{self.tokenizer_id}' is damaged: {error.message}"
            ) from None


class TokenizerStore:
    """All tokenizers of one artifacts root."""

    def __init__(self, artifacts_root: Path, disk: Disk = DISK) -> None:
        self._folder = artifacts_root / "tokenizers"
        self.disk = disk

    def create(self, record: TokenizerRecord) -> TokenizerDirectory:
        """Create the directory of a tokenizer with its request, synced to disk, unless it exists and has not failed.

        Waits for the process whose training has just failed to end. Raises OSError.
        """
        path = self._folder / record.tokenizer_id
        self.disk.make_folder(path)
        tokenizer = TokenizerDirectory(path, self.disk)
        tokenizer.mark_used()
        deadline = time.monotonic() + _ENDING_SECONDS
        while (lock := tokenizer.lock()) is None and tokenizer.has_failed() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if lock is not None:  # otherwise a process is training it
            with lock:
                if not tokenizer.exists() or tokenizer.has_failed():
                    tokenizer.begin(record)
                    self.disk.sync(self._folder)
        return tokenizer

    def keep(self, tokenizer_folder: Path, manifest: TokenizerManifest) -> TokenizerDirectory:
        """Store a copy of the tokenizer of a run under its id, unless it is stored already."""
        path = self._folder / manifest.tokenizer_id
        tokenizer = TokenizerDirectory(path, self.disk)
        if (path / MANIFEST_FILE).exists():
            tokenizer.mark_used()
            return tokenizer
        self.disk.make_folder(path)
        for name in (*(file.path for file in manifest.files), MANIFEST_FILE):  # the manifest makes it valid
            write_atomically(path / name, read_regular(tokenizer_folder / name), self.disk)
        self.disk.sync(self._folder)
        return tokenizer

    def get(self, tokenizer_id: str) -> TokenizerDirectory:
        """Return a tokenizer by id; raises TOKENIZER_NOT_FOUND."""
        tokenizer = TokenizerDirectory(self._folder / tokenizer_id, self.disk)
        if _ID.fullmatch(tokenizer_id) and tokenizer.exists():
            return tokenizer
        shown = f" '{tokenizer_id}'" if len(tokenizer_id) <= 64 and tokenizer_id.isprintable() else ""
        raise AppError(ErrorCode.TOKENIZER_NOT_FOUND, f"There is no tokenizer{shown}: check its id.")

    def all(self) -> list[TokenizerDirectory]:
        """Return all tokenizers, newest first; one with an unreadable request is logged and skipped."""
        found = (TokenizerDirectory(path, self.disk) for path in self._folder.glob("*-*"))
        created = {t: created_at for t in found if t.exists() and (created_at := _created_at(t)) is not None}
        return sorted(created, key=created.__getitem__, reverse=True)

    def labelled(self, label: str) -> TokenizerDirectory | None:
        """Return the newest tokenizer with this label that was trained alone and has not failed."""
        for tokenizer in self.all():
            status = tokenizer.status()
            if status.label == label and status.status != "failed" and not status.is_of_run:
                return tokenizer
        return None

    def of_equal_run(self, source: str) -> TokenizerDirectory | None:
        """Return the tokenizer that a run of this source has trained."""
        described = (tokenizer for tokenizer in self.all() if tokenizer.has_request())
        return next((tokenizer for tokenizer in described if tokenizer.record().source == source), None)

    def unfinished(self) -> list[TokenizerDirectory]:
        """Return the tokenizers whose training has not ended, oldest first."""
        return [tokenizer for tokenizer in self.all()[::-1] if tokenizer.is_unfinished()]


def _created_at(tokenizer: TokenizerDirectory) -> datetime | None:
    try:
        return tokenizer.created_at()
    except (OSError, ValueError):
        log.error("tokenizer_unreadable", tokenizer_id=tokenizer.tokenizer_id)
        return None


async def resolve_tokenizer(request: TokenizerTrainRequest, corpora: CorpusStore) -> TokenizerRecord:
    """Check a tokenizer request and its corpora; raises AppError, having changed nothing."""
    config_of(request)
    splits = 2 + (request.test_fraction > 0)  # each needs a line
    described = tuple([await corpora.describe(name, "corpora", minimum_lines=splits) for name in request.corpora])
    if len({corpus.sha256 for corpus in described}) < len(described):
        raise AppError(ErrorCode.INVALID_INPUT, "`corpora` must name different texts: two of them are the same.")
    return TokenizerRecord(
        tokenizer_id=tokenizer_id_of(request, described), created_at=now(), request=request, corpora=described
    )
