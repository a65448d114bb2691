"""Deletion of runs, other jobs and corpora, unless something needs them."""

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO, NamedTuple

from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.job_folder import AnyJob, FolderT, JobStore
from trainer.artifacts.kinds import JOB_KINDS, StatusKind
from trainer.artifacts.runs import LOCK_SECONDS, RunDirectory, RunStore
from trainer.artifacts.studies import StudyStore
from trainer.contracts.base import JobRecord
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.job_status import JobStatus
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.data.corpora import CONTENT_NAME, CorpusStore, note_path
from trainer.data.text import corpus_sha256, shown_name, text_files
from trainer.system.files import DISK, BrokenFile, storage_errors, use_folder

TRASH = ".removed"
"""Folder of what is being removed, which a cleanup empties after a crash."""
_SHOWN_USERS = 3
_POLL_SECONDS = 0.02


class User(NamedTuple):
    """A job that needs what is to be deleted."""

    job: AnyJob
    is_readable: bool = True
    """An unreadable job may need it."""

    def shown(self, sees: Callable[[JobRecord | None], bool]) -> str:
        """Return words for the job, with its id if its record (None for an unreadable one) may be seen."""
        try:
            is_seen = sees(self.job.record() if self.is_readable else None)
        except (OSError, BrokenFile):  # it was just deleted
            is_seen = sees(None)
        word = self.job.word
        if not is_seen:
            return f"an {word} of somebody else" if word[0] in "aeiou" else f"a {word} of somebody else"
        if not self.is_readable:
            return f"the {word} '{self.job.job_id}', which cannot be read"
        return f"the {word} '{self.job.job_id}'"


class Needed(AppError):
    """A refusal to delete what jobs need."""

    def __init__(
        self, name: str, users: Sequence[User], sees: Callable[[JobRecord | None], bool] = lambda _: True
    ) -> None:
        shown = {user.shown(sees): None for user in users[:_SHOWN_USERS]}
        more = ["…"] if len(users) > _SHOWN_USERS else []
        super().__init__(ErrorCode.CONFLICT, f"{name} stays, because others need it: {', '.join([*shown, *more])}.")
        self._name = name
        self._users = users

    def seen_by(self, sees: Callable[[JobRecord | None], bool]) -> "Needed":
        """Return the refusal without the ids of jobs that somebody may not see."""
        return Needed(self._name, self._users, sees)


def delete_run(run: RunDirectory, artifacts_root: Path) -> None:
    """Delete an ended run with its files; raises RUN_NOT_READY, or CONFLICT if a run or another job needs it."""
    run.ended_manifest()
    study_id = run.record().study_id
    name = f"The run '{run.run_id}'"
    with storage_errors("the run was not deleted completely"):
        with run.wait_for_lock(LOCK_SECONDS):
            trash = _move_to_trash(
                run.path, artifacts_root, name, lambda: _users_of_run(run.run_id, study_id, artifacts_root)
            )
        DISK.remove_folder(trash)


def delete_job(kind: StatusKind, artifacts_root: Path, job_id: str) -> None:
    """Delete an ended job with its files.

    Raises CONFLICT for one that has not ended or that others need, and SERVICE_UNAVAILABLE while a process writes it.
    """
    job = kind.store(artifacts_root).get(job_id)
    name = f"The {job.word} '{job_id}'"
    with storage_errors(f"the {job.word} was not deleted completely"):
        with _lock_of_ended(job) or nullcontext() as lock:
            if job.is_unfinished():
                raise AppError(ErrorCode.CONFLICT, f"{name} has not ended: cancel it first.")
            if lock is None:
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, f"{name} is just ending: try again in a minute.")
            status = job.listed()
            trash = _move_to_trash(job.path, artifacts_root, name, lambda: _users(status, artifacts_root))
        DISK.remove_folder(trash)


def _lock_of_ended(job: AnyJob) -> BinaryIO | None:
    """Take the lock of a job; one that has ended is waited for, since a process may just look whether it has."""
    deadline = monotonic() + LOCK_SECONDS
    while (lock := job.lock()) is None and job.exists() and not job.is_unfinished() and monotonic() < deadline:
        sleep(_POLL_SECONDS)
    return lock


def delete_corpus(
    corpora: CorpusStore, artifacts_root: Path, name: str, stays: Callable[[], bool] = lambda: False
) -> str | None:
    """Delete a corpus that was added or built, or a sent text, by its hash; return its SHA-256.

    `stays` is asked while nobody can send the text again: if it returns True, nothing is deleted, and None is returned.

    Raises DATA_NOT_FOUND for an unknown name, and CONFLICT for a corpus of the program or the operator, and for one
    that jobs need: also completed runs, whose splits are evaluated again and whose children continue with the text.
    """
    with corpora.changing():
        return None if stays() else _delete_corpus(corpora, artifacts_root, name)


def _delete_corpus(corpora: CorpusStore, artifacts_root: Path, name: str) -> str:
    is_sent = CONTENT_NAME.fullmatch(name) is not None and corpora.has(name)
    if name not in corpora.names() and not is_sent:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no corpus '{shown_name(name)}': give its complete name.")
    path = corpora.find(name)
    if path.parent != corpora.stored or (is_sent and is_linked(corpora, path)):
        message = f"The corpus '{name}' was not added here: only the operator of this machine can delete it."
        raise AppError(ErrorCode.CONFLICT, message)
    sha256, content = corpus_sha256(path), path.resolve()
    hashes = {sha256, *map(corpus_sha256, text_files(path))}
    with storage_errors("the corpus was not deleted completely"):
        readers = partial(_readers, hashes, artifacts_root)
        DISK.remove_folder(_move_to_trash(path, artifacts_root, f"The corpus '{name}'", readers))
        DISK.remove(note_path(path))
        if content != path and content.parent == corpora.stored.resolve() and not _is_held(corpora, content):
            DISK.remove_folder(_move_to_trash(content, artifacts_root, "", lambda: iter(())))
    return sha256


def create_with_texts(
    corpora: CorpusStore, create: Callable[[], Sequence[FolderT]], known: Collection[str] = ()
) -> Sequence[FolderT]:
    """Write accepted jobs while nobody deletes a corpus, which then finds them; return them.

    Raises DATA_NOT_FOUND, having removed them, if a text was deleted after the request for them was checked. Jobs with
    `known` ids were there before, and stay as they are.
    """
    descriptor = use_folder(corpora.stored)
    try:
        jobs = create()
        new = [job for job in jobs if job.job_id not in known]
        texts = {text for job in new for text in job.needed_corpora()}
        missing = next((text for text in texts if not _is_stored(text, corpora)), None)
        if missing is None:
            return jobs
        for job in reversed(new):
            job.disk.remove_folder(job.path)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    message = f"The corpus '{shown_name(missing.name)}' has just been deleted or replaced: nothing was queued."
    raise AppError(ErrorCode.DATA_NOT_FOUND, message)


def _is_stored(text: CorpusRef, corpora: CorpusStore) -> bool:
    """Return True if a corpus is there with its content, by its hash or its name."""
    if (corpora.stored / text.sha256).exists():
        return True
    try:
        return corpus_sha256(corpora.find(text.name)) == text.sha256
    except AppError as error:
        return error.code is not ErrorCode.DATA_NOT_FOUND  # a table of ratings, which nobody deletes here


def _is_held(corpora: CorpusStore, content: Path) -> bool:
    """Return True for a text by its hash that has a name, or that somebody has sent without one."""
    return is_linked(corpora, content) or bool(corpora.owners(content.name))


def is_linked(corpora: CorpusStore, content: Path) -> bool:
    """Return True for a text by its hash that has a name, too: one of an object store."""
    return any(link.resolve() == content.resolve() for link in corpora.stored.iterdir() if link.is_symlink())


def _move_to_trash(path: Path, artifacts_root: Path, name: str, users: Callable[[], Iterator[User]]) -> Path:
    """Move a file or folder to the trash unless it has users, and return its new path.

    A user that it gets meanwhile finds it in its place again. A lock in the folder goes with it: the caller releases it
    before it removes the folder, because NFS keeps files that are open.
    """
    _check_unused(name, users())
    trash = artifacts_root / TRASH / secrets.token_hex(8)
    DISK.make_folder(trash.parent)
    DISK.rename(path, trash)
    try:
        _check_unused(name, users())
    except AppError:
        DISK.rename(trash, path)
        raise
    DISK.sync(path.parent)
    return trash


def _check_unused(name: str, users: Iterator[User]) -> None:
    found = [*islice(users, _SHOWN_USERS + 1)]
    if found:
        raise Needed(name, found)


def _users_of_run(run_id: str, study_id: str | None, artifacts_root: Path) -> Iterator[User]:
    """Yield the runs that start from a run, and the experiments and the study that have it."""
    for run in RunStore(artifacts_root).all():
        if run.record().effective.parent_run_id == run_id:
            yield User(run)
    study = None if study_id is None else StudyStore(artifacts_root).find(study_id)
    if study is not None:
        yield User(study)
    for experiment in ExperimentStore(artifacts_root).all():
        if any(cell.run_id == run_id for cell in experiment.runs().values()):
            yield User(experiment)


def _users(status: JobStatus, artifacts_root: Path) -> Iterator[User]:
    """Yield the runs and experiments that need a tokenizer or a battery; an unreadable one, which may need it, too."""
    runs, experiments = RunStore(artifacts_root), ExperimentStore(artifacts_root)
    match status:
        case TokenizerStatus(tokenizer_id=tokenizer_id, label=label):
            yield from _unreadable(runs)
            yield from (User(run) for run in runs.all() if tokenizer_id in run.tokenizer_ids())
            found = experiments.tokenizer_users()(tokenizer_id, label)
        case BatteryStatus(battery_id=battery_id):
            found = [one.experiment_id for one in experiments.all() if battery_id in one.battery_ids()]
        case _:
            return
    yield from _unreadable(experiments)
    yield from (User(experiments.directory(experiment_id)) for experiment_id in found)


def needed_texts(artifacts_root: Path) -> set[str] | None:
    """Return the SHA-256 of all corpora that jobs need; None if one of them cannot be read."""
    stores = [kind.store(artifacts_root) for kind in JOB_KINDS]
    if any(store.unreadable() for store in stores):
        return None
    needed = set[str]()
    for job in (job for store in stores for job in store.all()):
        with suppress(FileNotFoundError):  # it was just deleted
            needed |= {corpus.sha256 for corpus in job.needed_corpora()}
    return needed


def _readers(hashes: set[str], artifacts_root: Path) -> Iterator[User]:
    """Yield the jobs that need a corpus with one of some hashes; an unreadable one, which may need it, too."""
    for kind in JOB_KINDS:
        store = kind.store(artifacts_root)
        yield from _unreadable(store)
        for job in store.all():
            with suppress(FileNotFoundError):  # it was just deleted
                if any(corpus.sha256 in hashes for corpus in job.needed_corpora()):
                    yield User(job)


def _unreadable(store: JobStore[FolderT]) -> Iterator[User]:
    return (User(job, is_readable=False) for job in store.unreadable())
