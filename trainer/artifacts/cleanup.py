"""Cleanup of the disk: removes files that no run, experiment or request needs; what is left of a run stays valid."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import structlog

from trainer.artifacts.checkpoint_files import checkpoint_steps, newest_whole, scheduled_folder, step_folder
from trainer.artifacts.deletion import TRASH, delete_corpus, is_linked, needed_texts
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.job_folder import AnyJob, in_order
from trainer.artifacts.runs import RunDirectory, RunStore, in_use
from trainer.artifacts.studies import StudyStore
from trainer.artifacts.tokenizers import TokenizerDirectory, TokenizerStore
from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import FinalState
from trainer.data.corpora import CONTENT_NAME, CorpusStore
from trainer.data.corpus_uploads import FOLDER, expired_uploads
from trainer.data.text import corpus_sha256, text_files
from trainer.system.files import DISK, claim_folder, folder_time, try_lock

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

StoredCheck = Callable[[RunDirectory], bool]
"""Returns True if the object store has every file of a run."""

_WEIGHTS = "*.safetensors"
_DAY_SECONDS = 86_400

_LEFTOVER = "The process that wrote it has ended."


class Removal(Frozen):
    """A file or folder that a cleanup removes, or would remove in a dry run."""

    path: str
    """Relative to the artifacts folder; of an encoded corpus, relative to the data folder."""
    reason: str
    bytes: int
    files: int
    run_id: str | None = None
    tokenizer_id: str | None = None
    error: str | None = None
    """Why it was not removed."""


class CleanupReport(Frozen):
    """The result of a cleanup."""

    dry_run: bool
    bytes_freed: int
    files_deleted: int
    removals: tuple[Removal, ...]
    kept_checkpoints: int = 0
    """Checkpoints of a `checkpoint_schedule`, in all runs; only `mt gc --kept` removes them."""
    kept_bytes: int = 0


def clean_up(settings: Settings, *, dry_run: bool = False, is_stored: StoredCheck | None = None) -> CleanupReport:
    """Remove what is not needed, or list it in a dry run; without `is_stored` no weights of a completed run.

    Raises CONFLICT while another cleanup of the artifacts folder runs. A file or folder that cannot be removed is
    reported with its error.
    """
    with _lock(settings):
        return _Cleanup(settings, dry_run=dry_run or settings.app.cleanup.dry_run, is_stored=is_stored).run()


def remove_kept(settings: Settings, run_id: str, *, dry_run: bool = False) -> CleanupReport:
    """Remove the checkpoints that the schedule of an ended run has kept, or list them in a dry run.

    The manifest no longer names them. Raises RUN_NOT_READY for a run that has not ended, CONFLICT for one that
    unfinished work needs, and SERVICE_UNAVAILABLE while another process reads or writes the run.
    """
    with _lock(settings):
        is_dry = dry_run or settings.app.cleanup.dry_run
        return _Cleanup(settings, dry_run=is_dry, is_stored=None).remove_kept(run_id)


def _lock(settings: Settings) -> BinaryIO:
    """Return the lock of cleanups. Raises CONFLICT while another cleanup has it."""
    root = settings.app.artifacts_root
    DISK.make_folder(root)
    lock = try_lock(root / "cleanup.lock")
    if lock is None:
        raise AppError(ErrorCode.CONFLICT, "Another cleanup is running: wait until it has ended.")
    return lock


class _Cleanup:
    """One cleanup; the caller holds the lock of cleanups.

    A folder is renamed into the trash before its files are removed, and the next cleanup empties the trash. So a
    killed cleanup leaves complete folders only.
    """

    def __init__(self, settings: Settings, *, dry_run: bool, is_stored: StoredCheck | None) -> None:
        self._app = settings.app
        self._dry_run = dry_run
        self._is_stored = is_stored
        self._upload_ttl_seconds = settings.limits.upload_ttl_seconds
        self._corpora = CorpusStore(settings)
        self._runs = RunStore(settings.app.artifacts_root)
        self._experiments = ExperimentStore(settings.app.artifacts_root)
        self._studies = StudyStore(settings.app.artifacts_root)

    def run(self) -> CleanupReport:
        removals = (
            self._clean_runs(),
            self._clean_tokenizers(),
            self._clean_corpus_cache(),
            self._clean_uploads(),
            self._clean_texts(),
            self._clean_leftovers(),
        )
        return self._report(list(chain.from_iterable(removals)))

    def remove_kept(self, run_id: str) -> CleanupReport:
        """Leave the kept checkpoints of a run out of its manifest, then remove them."""
        run = self._runs.get(run_id)
        run.ended_manifest()
        if run_id in self._needed_runs():
            raise AppError(ErrorCode.CONFLICT, f"Unfinished work needs the run '{run_id}': wait until it has ended.")
        folders = list(_kept(run))
        names = {folder.relative_to(run.path).as_posix() for folder in folders}
        with ExitStack() as locks:
            if not self._dry_run:
                if not _take_locks(run, locks):
                    raise in_use(run_id)
                manifest = run.ended_manifest()
                files = (file for file in manifest.files if file.path.rpartition("/")[0] not in names)
                run.replace_manifest(changed(manifest, files=tuple(files)))
            return self._report([self._remove(folder, "Its removal was requested.", run) for folder in folders])

    def _report(self, removals: Sequence[Removal]) -> CleanupReport:
        kept = [folder for run in self._runs.all() for folder in _kept(run)]
        removed = [removal for removal in removals if removal.error is None and not self._dry_run]
        return CleanupReport(
            dry_run=self._dry_run,
            bytes_freed=sum(removal.bytes for removal in removed),
            files_deleted=sum(removal.files for removal in removed),
            removals=tuple(removals),
            kept_checkpoints=len(kept),
            kept_bytes=sum(_size(folder)[0] for folder in kept),
        )

    def _clean_runs(self) -> Iterator[Removal]:
        """Clean the runs whose grace period is over and that no unfinished run or experiment needs."""
        self._empty_trash(self._app.artifacts_root)
        latest = folder_time(self._app.artifacts_root) - self._app.cleanup.grace_period_seconds
        needed = self._needed_runs()
        for run in in_order(self._runs.finished()):
            ended_at = run.ended_at()
            if run.run_id not in needed and ended_at is not None and ended_at <= latest:
                try:
                    removals = self._clean_run(run, latest)
                except (AppError, OSError, ValueError) as error:  # ValueError: a damaged record
                    removals = [self._failed(self._removal(run.path, "It cannot be checked.", run), error)]
                yield from removals

    def _needed_runs(self) -> set[str | None]:
        """Return the runs that unfinished runs start from, and those of unfinished experiments and studies."""
        needed: set[str | None] = set()
        for run in self._runs.unfinished():
            record = run.record()
            needed |= {record.effective.parent_run_id, record.resumed_from_run_id}
        unfinished = {study.study_id for study in self._studies.unfinished()}
        needed |= {run.run_id for run in self._runs.all() if unfinished and run.record().study_id in unfinished}
        for experiment in self._experiments.unfinished():
            needed |= {cell.run_id for cell in experiment.runs().values()}
        return needed

    def _clean_run(self, run: RunDirectory, latest: float) -> list[Removal]:
        """Remove the unneeded files of a run, unless another process reads or writes the run."""
        manifest = run.manifest()
        if manifest is None:  # it was deleted
            return []
        has_copy = self._has_copy(run, manifest.status)
        with ExitStack() as locks:
            if not self._dry_run and not _take_locks(run, locks):
                return []
            found = [*_leftovers(run, latest), *_checkpoints(run, manifest.status)]
            if has_copy:
                weights = [run.path / file.path for file in manifest.files if Path(file.path).match(_WEIGHTS)]
                found += [(path, "The object store has it.") for path in weights if path.exists()]
            return [self._remove(path, why, run) for path, why in found]

    def _has_copy(self, run: RunDirectory, status: FinalState) -> bool:
        """Return True if the object store has all files of a completed run, whose weights are still here."""
        if self._is_stored is None or status != "completed" or not any(run.path.rglob(_WEIGHTS)):
            return False
        return self._is_stored(run)

    def _clean_tokenizers(self) -> Iterator[Removal]:
        """Remove tokenizers without any use for some days; none while a run or an experiment cannot be read."""
        options = self._app.tokenizer_cleanup
        if not options.enabled:
            return
        if self._runs.unreadable() or self._experiments.unreadable():
            log.warning("tokenizer_cleanup_postponed", reason="A run or an experiment cannot be read.")
            return
        users = self._experiments.tokenizer_users()
        used = {tokenizer_id for run in self._runs.all() for tokenizer_id in run.tokenizer_ids()}
        latest = folder_time(self._app.artifacts_root) - options.min_unused_days * _DAY_SECONDS
        for tokenizer in TokenizerStore(self._app.artifacts_root).all():
            tokenizer_id = tokenizer.tokenizer_id
            if tokenizer_id in used or not _is_unused(tokenizer, latest, users):
                continue
            yield self._remove(tokenizer.path, "No run and no experiment uses the tokenizer.", tokenizer)

    def _clean_corpus_cache(self) -> Iterator[Removal]:
        """Remove encoded corpora until the others take little enough space; those in use stay."""
        options, cache = self._app.corpus_cache_cleanup, self._app.corpus_cache
        if not options.enabled or not cache.is_dir():
            return
        self._empty_trash(cache)
        latest = folder_time(cache) - _DAY_SECONDS
        for leftover in sorted(cache.glob(".tmp-*")):
            if _written_at(leftover) < latest:
                yield self._remove(leftover, _LEFTOVER)
        sizes = {folder: _size(folder)[0] for folder in cache.iterdir() if folder.is_dir() and folder.name[0] != "."}
        excess = max(sum(sizes.values()) - options.max_bytes, options.min_free_bytes - shutil.disk_usage(cache).free)
        for folder in sorted(sizes, key=_used_at if options.policy == "lru" else _written_at):
            claim = claim_folder(folder) if excess > 0 else None
            if claim is not None:
                try:
                    removal = self._remove(folder, "The encoded corpora take more space than the settings allow.")
                finally:
                    os.close(claim)
                excess -= removal.bytes if removal.error is None else 0
                yield removal

    def _clean_uploads(self) -> Iterator[Removal]:
        """Remove the uploads of corpora that have received nothing for long; those that have ended are records only."""
        for folder in expired_uploads(self._app.artifacts_root / FOLDER, self._upload_ttl_seconds):
            yield self._remove(folder, "Nothing has arrived for this upload for too long.")

    def _clean_texts(self) -> Iterator[Removal]:
        """Remove sent texts that no run or other job needs, after the time that unfinished uploads have."""
        corpora, latest = self._corpora, folder_time(self._app.artifacts_root) - self._upload_ttl_seconds
        texts = [path for path in corpora.stored.glob("[0-9a-f]*") if CONTENT_NAME.fullmatch(path.name)]
        old = [text for text in texts if _used_at(text) < latest]
        needed = needed_texts(self._app.artifacts_root) if old else set()
        if needed is None:
            log.warning("text_cleanup_postponed", reason="A run or another job cannot be read.")
            return
        for text in sorted(old):
            if not needed & {text.name, *map(corpus_sha256, text_files(text))} and not is_linked(corpora, text):
                stays = partial(_is_sent_again, text, latest)
                remove = partial(delete_corpus, corpora, self._app.artifacts_root, text.name, stays)
                yield self._remove(
                    text, "No run and no job needs this text, which was sent without a name.", remove=remove
                )

    def _clean_leftovers(self) -> Iterator[Removal]:
        """Remove what killed processes, and files that were open on NFS, have left beside jobs."""
        root = self._app.artifacts_root
        leftovers = sorted([*root.glob(".import-*"), *root.glob("*/.tmp-*")])
        latest = folder_time(root) - _DAY_SECONDS
        for leftover in leftovers:
            if _written_at(leftover) < latest:
                yield self._remove(leftover, _LEFTOVER)

    def _remove(
        self, path: Path, reason: str, job: AnyJob | None = None, remove: Callable[[], object] | None = None
    ) -> Removal:
        """Remove a file or folder, by a function that may refuse it if there is one, or only log it in a dry run."""
        removal = self._removal(path, reason, job)
        if self._dry_run:
            _log_of(removal).info("cleanup_dry_run")
            return removal
        try:
            if remove is not None:
                remove()
            elif path.is_dir():
                is_cached = path.is_relative_to(self._app.corpus_cache)  # which may be a disk of its own
                root = self._app.corpus_cache if is_cached else self._app.artifacts_root
                trash = root / TRASH / secrets.token_hex(8)
                DISK.make_folder(trash.parent)
                DISK.rename(path, trash)
                DISK.sync(path.parent)
                DISK.remove_folder(trash)
            else:
                DISK.remove(path)
        except (AppError, OSError) as error:
            return self._failed(removal, error)
        _log_of(removal).info("cleanup_completed")
        return removal

    def _removal(self, path: Path, reason: str, job: AnyJob | None = None) -> Removal:
        size, files = _size(path)
        is_cached = path.is_relative_to(self._app.corpus_cache)
        shown = path.relative_to(self._app.data_root if is_cached else self._app.artifacts_root).as_posix()
        fields: dict[str, object] = {"path": shown, "reason": reason, "bytes": size, "files": files}
        if job is not None:
            fields.update(job.log_id)
        return Removal.model_validate(fields)

    def _failed(self, removal: Removal, error: AppError | OSError | ValueError) -> Removal:
        """Log and return a removal that failed; the message of an OSError would show the server's path."""
        reason = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        failed = changed(removal, bytes=0, files=0, error=reason)
        _log_of(failed).error("cleanup_failed", error=reason)
        return failed

    def _empty_trash(self, root: Path) -> None:
        """Remove what a killed cleanup has left."""
        if not self._dry_run:
            shutil.rmtree(root / TRASH, ignore_errors=True)


def _log_of(removal: Removal) -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines say what is removed."""
    ids: dict[str, object] = removal.model_dump(include={"run_id", "tokenizer_id"}, exclude_none=True)
    return log.bind(
        path=removal.path, reason=removal.reason, bytes_freed=removal.bytes, files_deleted=removal.files, **ids
    )


def _take_locks(run: RunDirectory, locks: ExitStack) -> bool:
    """Take the lock of writers and that of readers; return False if another process has one of them."""
    lock = run.lock()
    if lock is None:
        return False
    locks.enter_context(lock)
    claim = claim_folder(run.path)
    if claim is None:
        return False
    locks.callback(os.close, claim)
    return True


def _leftovers(run: RunDirectory, latest: float) -> Iterator[tuple[Path, str]]:
    """Yield temporary files and folders of killed processes; the bot may be writing a younger one just now."""
    for path in sorted(run.path.rglob(".*")):
        if path.name.startswith(".tmp-") or (path.suffix == ".tmp" and _used_at(path) <= latest):
            yield path, _LEFTOVER


def _checkpoints(run: RunDirectory, status: FinalState) -> Iterator[tuple[Path, str]]:
    """Yield damaged checkpoints, and those that `mt resume` does not need; scheduled ones are part of the result."""
    for path in sorted(run.checkpoints.glob("broken-step-*")):
        yield path, "The checkpoint is damaged."
    steps = checkpoint_steps(run.checkpoints)
    needed, reason = set[int | None](), "The run is completed, so nothing resumes from this checkpoint."
    if status != "completed":
        state = newest_whole(run.checkpoints) if len(steps) > 1 else None
        needed = {*steps} if state is None else {state.step, state.history.best_step}
        reason = "The run resumes from another checkpoint."
    yield from ((step_folder(run.checkpoints, step), reason) for step in steps if step not in needed)


def _kept(run: RunDirectory) -> Iterator[Path]:
    """Yield the folders of the checkpoints that the schedule of a run has kept."""
    folder = scheduled_folder(run.checkpoints)
    yield from (step_folder(folder, step) for step in checkpoint_steps(folder))


def _is_unused(tokenizer: TokenizerDirectory, latest: float, users: Callable[[str, str | None], Sequence[str]]) -> bool:
    """Return True if a tokenizer was not used since a time, is not being trained, and no experiment needs it."""
    try:
        is_recent = tokenizer.is_unfinished() or _used_at(tokenizer.path) > latest
        return not is_recent and not users(tokenizer.tokenizer_id, tokenizer.status().label)
    except (OSError, ValueError):  # a damaged record
        return False


def _size(path: Path) -> tuple[int, int]:
    """Return bytes and number of a file, or of the files in a folder."""
    sizes: list[int] = []
    for file in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):  # another process has removed it
            if not file.is_dir():
                sizes.append(file.lstat().st_size)
    return sum(sizes), len(sizes)


def _used_at(path: Path) -> float:
    return path.stat().st_mtime


def _is_sent_again(text: Path, latest: float) -> bool:
    return text.exists() and _used_at(text) >= latest


def _written_at(folder: Path) -> float:
    """Return when a folder's newest file was written; an empty folder's own time."""
    return max((file.stat().st_mtime for file in folder.iterdir()), default=folder.stat().st_mtime)
