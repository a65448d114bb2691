"""Tokenizers on disk, one directory each, trained by a job or by a run; imports no torch and no numpy."""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainer.artifacts.job_folder import JobStore, StatusJob, status_message, with_manifest
from trainer.artifacts.run_ids import Named, check_label
from trainer.artifacts.tokenizer_files import MANIFEST_FILE, read_manifest
from trainer.config.defaults import chosen_vocab_size
from trainer.config.tokenizer_request import config_of, tokenizer_id_of
from trainer.contracts.base import FileRecord, changed, now
from trainer.contracts.errors import AppError, ErrorCode, RunError, at_field, field_error
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerStatus, TokenizerTrainRequest
from trainer.contracts.tokenizers import SubwordConfig, TokenizerManifest
from trainer.data.corpora import CorpusStore, training_characters
from trainer.data.text import sample_text
from trainer.system.files import DISK, Disk, copy_durably, filled_folder


class TokenizerDirectory(StatusJob[TokenizerRecord]):
    """Folder of one tokenizer; its result is its manifest. The request of a run's tokenizer has a `source`."""

    word = "tokenizer"
    record_type = TokenizerRecord
    result_name = MANIFEST_FILE
    crash_code = ErrorCode.TOKENIZER_TRAIN_FAILED

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        super().__init__(path, disk)
        self.tokenizer_id = self.job_id

    def has_completed(self) -> bool:
        """Return True if it has a readable manifest."""
        return self.exists() and self.status().status == "completed"

    def names(self) -> Named:
        """Return the id, and the label of a tokenizer that was trained alone."""
        status = self.status()
        return Named(self.job_id, None if status.is_of_run else status.label)

    @property
    def is_shared(self) -> bool:
        """True if it was requested by itself, for all runs on its texts."""
        return self.record().source is None

    def completed_manifest(self) -> TokenizerManifest:
        """Return the manifest; raises CONFLICT while it is being trained, TOKENIZER_NOT_FOUND after a failure."""
        if self.result.exists():
            return self._read_manifest()
        failure = self.failure()
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
        record, (state, error), manifest = self.record(), self.state_and_error(), None
        if state == "completed":
            try:
                manifest = self._read_manifest()
            except AppError as broken:
                state, error = "failed", RunError.of(broken)
        return TokenizerStatus(
            tokenizer_id=self.tokenizer_id,
            status=state,
            message=status_message(state, error, "Training."),
            waits_for="turn" if state == "queued" else None,
            method=self.tokenizer_id.split("-")[0],
            vocab_size=None if manifest is None else manifest.vocab_size,
            stats=None if manifest is None else manifest.stats,
            artifact=f"/artifacts/tokenizers/{self.tokenizer_id}",
            error=error,
            label=record.request.label,
            created_at=record.created_at,
            is_of_run=record.source is not None,
        )

    def needed_corpora(self) -> tuple[CorpusRef, ...]:
        """Return the corpora of a tokenizer that is not trained yet."""
        return self.record().corpora if self.is_unfinished() else ()

    def mark_used(self) -> None:
        """Set the time of the last use to now, by which a cleanup chooses."""
        with suppress(OSError):  # on a read-only disk nothing is removed either
            os.utime(self.path)

    def result_files(self) -> tuple[FileRecord, ...]:
        """Return the files of the result, as the manifest names them; raises as `completed_manifest`."""
        return with_manifest(self.path, self.completed_manifest().files)

    def _of_attempt(self) -> tuple[Path, ...]:
        return (self.logs,)

    def _read_manifest(self) -> TokenizerManifest:
        try:
            return read_manifest(self.path)
        except AppError as error:
            raise AppError(
                error.code, f"The manifest of the tokenizer '{self.tokenizer_id}' is damaged: {error.message}"
            ) from None


class TokenizerStore(JobStore[TokenizerDirectory]):
    """All tokenizers of one artifacts root."""

    folder_name = "tokenizers"
    folder_type = TokenizerDirectory
    not_found = ErrorCode.TOKENIZER_NOT_FOUND

    def create(self, record: TokenizerRecord) -> TokenizerDirectory:
        """Create the folder of a tokenizer, as `create_or_continue` does, and mark the tokenizer as used."""
        self.directory(record.tokenizer_id).mark_used()
        return self.create_or_continue(record.tokenizer_id, record)

    def store_copy(self, record: TokenizerRecord, tokenizer_folder: Path, logs: Iterable[str]) -> None:
        """Store a copy of the tokenizer of a run with its request and log, atomically, unless it is stored already."""
        tokenizer = self.directory(record.tokenizer_id)
        if not tokenizer.exists():
            with filled_folder(tokenizer.path) as folder:
                copy = self.folder_type(folder, self.disk)
                copy.begin(record)
                copy_durably(tokenizer_folder, folder, self.disk)
                self.disk.write(copy.logs, "".join(f"{line}\n" for line in logs).encode())
        tokenizer.mark_used()

    def labelled(self, label: str) -> TokenizerDirectory | None:
        """Return the newest tokenizer with this label that was trained alone and has not failed."""
        for tokenizer in self.all():
            status = tokenizer.status()
            if status.label == label and status.status != "failed" and not status.is_of_run:
                return tokenizer
        return None

    def of_equal_run(self, source: str) -> TokenizerDirectory | None:
        """Return the tokenizer that a run of this source has trained."""
        return next((tokenizer for tokenizer in self.all() if tokenizer.record().source == source), None)


async def resolve_tokenizer(request: TokenizerTrainRequest, corpora: CorpusStore) -> TokenizerRecord:
    """Check a tokenizer request and its corpora, and choose its vocabulary if it gives none.

    Of a folder of splits, it reads the file for training. Raises AppError, having changed nothing.
    """
    config = config_of(request)
    check_label(request.label)
    given = {"split_by"} if request.split_by in ("line", "file") else set()
    with at_field("corpora"):
        full_names = [corpora.full_name(name, "corpora") for name in request.corpora]
        names = tuple(corpora.layout(name, given).files.get("corpus", name) for name in full_names)
    request = changed(request, corpora=names)
    splits = 2 + (request.test_fraction > 0)  # each needs a line
    described = tuple([await corpora.describe(name, "corpora", minimum_lines=splits) for name in request.corpora])
    if len({corpus.sha256 for corpus in described}) < len(described):
        raise field_error(ErrorCode.INVALID_INPUT, "corpora", "must name different texts: two of them are the same.")
    if isinstance(config, SubwordConfig) and request.vocab_size is None:
        paths = [corpora.find(name, "corpora") for name in request.corpora]
        share = 1 - request.holdout_fraction - request.test_fraction
        samples = [await asyncio.to_thread(sample_text, path) for path in paths]
        text = training_characters(samples, share)
        request = changed(request, vocab_size=chosen_vocab_size(config, text).value)
    return TokenizerRecord(
        tokenizer_id=tokenizer_id_of(request, described), created_at=now(), request=request, corpora=described
    )
