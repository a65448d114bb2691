"""Index of runs, corpora, tokenizers and other jobs in memory, for lists and suggestions."""

import asyncio
import gc
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from trainer.artifacts.job_folder import REQUEST_FILE, unreadable
from trainer.artifacts.run_status import RunFollower
from trainer.contracts.base import JobRecord, RunState, changed
from trainer.contracts.errors import AppError
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.models import Objective
from trainer.contracts.runs import RunManifest, RunStatus, settings_of
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.data.corpora import CONTENT_NAME
from trainer.queue.run_feeds import RunFeed, RunFeeds
from trainer.queue.stores import Stores
from trainer.system.files import changed_ns
from trainer.system.shared_calls import SharedCalls

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_DISCORD_ID = re.compile(r"[1-9][0-9]{0,18}")
DAY_SECONDS = 86400.0
_CATCH_UP_SECONDS = 0.1
"""Timeout of a refresh for a person who types."""
_SETTLED_NS = 2 * 10**9
"""Age from which on the time of a folder's last change tells it from later ones, with any clock of a file system."""


class RunNumbers(NamedTuple):
    """The numbers of a run by the names that they have in its status; a list is sorted by them."""

    train_loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_val_bits_per_char: float | None = None
    test_loss: float | None = None
    bits_per_char: float | None = None
    params: float | None = None


class RunEntry(NamedTuple):
    """Summary of a run."""

    run_id: str
    user_id: int | None
    """Its owner; negative for an API key that is no Discord user's."""
    created_at: datetime
    label: str | None
    family: str
    corpus: str
    """Name of the corpus; for an attached text, the hash of its content."""
    has_attached_text: bool
    sent_texts: tuple[str, ...] = ()
    """The hashes of its texts that have no names."""
    objective: Objective = "causal_lm"
    state: RunState = "queued"
    progress: float = 0.0
    tokenizer_id: str | None = None
    loss_nats: float | None = None
    """Training loss, or the test loss of an ended run."""
    bits_per_char: float | None = None
    unknown_char_share: float | None = None
    ends_at: float | None = None
    """Expected end, in seconds since 1970."""
    ended_at: float | None = None
    """End, in seconds since 1970; None before it."""
    train_seconds: float = 0.0
    """Seconds from its first start to its end, or to its last sign of life."""
    idempotency: str | None = None
    """Hash of the Idempotency-Key of the HTTP request that started the run."""
    group_id: str | None = None
    """The group of runs over seeds that it belongs to."""
    resumes: str | None = None
    """The failed or cancelled run that it resumes."""
    is_part: bool = False
    """True for a run that an experiment or a study has started."""
    parents: tuple[str, ...] = ()
    """The runs that it started from: the one that it resumes, and the one of its initial weights."""
    owner: str | None = None
    """Name of the API key or id of the Discord user that started the run; None for the command line."""
    numbers: RunNumbers = RunNumbers()
    settings: tuple[str, ...] = ()
    """The settings, each as `name=value`, with the tags and the note that people have given last.

    Runs share equal ones.
    """

    def setting(self, name: str) -> str | None:
        """Return the value of a setting; None if the run has no such setting."""
        start = f"{name}="
        return next((one.removeprefix(start) for one in self.settings if one.startswith(start)), None)

    @property
    def name(self) -> str:
        return self.label or self.run_id

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which a search finds it."""
        return (self.name, self.run_id) if self.has_attached_text else (self.name, self.run_id, self.corpus)

    @property
    def is_unfinished(self) -> bool:
        """True while the run trains or waits for its turn."""
        return self.state in ("queued", "running")

    def leaves_day_at(self, now: float) -> float:
        """Return the time from which on limits of a day do not count it: a day after its end, at the earliest."""
        last = now if self.is_unfinished else self.ended_at or self.created_at.timestamp()
        return last + DAY_SECONDS

    def is_of_day(self, now: float) -> bool:
        """Return True if it was started, trained or ended within the last 24 hours."""
        return self.leaves_day_at(now) > now


class RunRow(NamedTuple):
    """A row of a list: a run, or the listed runs of a group over seeds."""

    name: str
    """The id of the run or the group."""
    runs: tuple[RunEntry, ...]

    @property
    def is_group(self) -> bool:
        return self.name != self.runs[0].run_id


def rows_of(runs: Iterable[RunEntry]) -> list[RunRow]:
    """Return the rows of a list of runs; a group has one row, where its first run would be."""
    rows: dict[str, tuple[RunEntry, ...]] = {}
    for run in runs:
        name = run.group_id or run.run_id
        rows[name] = (*rows.get(name, ()), run)
    return [*map(RunRow, rows.keys(), rows.values())]


class _Folder:
    """The names in a folder, listed again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: frozenset[str] = frozenset()
        self._changed_ns: int | None = None

    def names(self) -> frozenset[str]:
        """Return the names: the same object while they stay the same."""
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns != self._changed_ns:
                self._changed_ns = changed_ns if time.time_ns() - changed_ns > _SETTLED_NS else None
                found = frozenset(os.listdir(self._path))
                self._names = self._names if found == self._names else found
        except FileNotFoundError:
            self._names = frozenset()
        return self._names


class RunIndex:
    """Reads a run when it appears and when it has ended; in between, only new lines of its event log."""

    def __init__(self, stores: Stores, feeds: RunFeeds, artifacts_root: Path) -> None:
        self.runs: Sequence[RunEntry] = ()
        """Sorted from new to old as of the last refresh, like `tokenizers`; the same object until a run changes."""
        self.tokenizers: Sequence[TokenizerStatus] = ()
        self.corpora: Sequence[str] = ()
        self.batteries: Sequence[str] = ()
        self.readings: Sequence[str] = ()
        self.experiments: Sequence[str] = ()
        self.studies: Sequence[str] = ()
        """Ids, newest first."""
        self.deleted: Sequence[RunEntry] = ()
        """The runs that this process has seen and that were deleted since, as long as limits of a day count them."""
        self._stores = stores
        self._feeds = feeds
        self._folder = _Folder(artifacts_root / "models")
        self._tokenizer_folder = _Folder(artifacts_root / "tokenizers")
        self._names: frozenset[str] = frozenset()
        self._unread: set[str] = set()
        self._runs: dict[str, RunEntry] = {}
        self._sorted: dict[str, None] = {}
        self._tokenizers: dict[str, TokenizerStatus] = {}
        self._unfinished: dict[str, RunFeed] = {}
        self.unreadable: dict[str, UnreadableJob] = {}
        """The runs whose records cannot be read."""
        self._unreadable_tokenizers: set[str] = set()
        self._annotated_ns: int | None = None
        self._annotations: dict[str, tuple[int | None, ...]] = {}
        """When annotations and manifests of runs have changed last."""
        self._is_frozen = False
        self._refreshes: SharedCalls[None] = SharedCalls()
        self._background: asyncio.Task[None] | None = None

    @property
    def unfinished(self) -> list[RunEntry]:
        """The runs of all users that count towards the limits."""
        return [run for run in self.runs if run.is_unfinished]

    @property
    def recent(self) -> Iterator[RunEntry]:
        """The runs that limits of a day may count, deleted ones too."""
        return chain(self.runs, self.deleted)

    def start(self) -> None:
        """Start to read the disk in the background."""
        self._background = self._in_background()

    def _in_background(self) -> asyncio.Task[None]:
        if self._background is None or self._background.done():
            self._background = self._refreshes.start(self._refresh)
            self._background.add_done_callback(_log_failure)
        return self._background

    async def stop(self) -> None:
        await self._refreshes.stop()

    async def refresh(self) -> None:
        """Read changes from the disk; callers during a refresh share the next one."""
        await self._refreshes.result(self._refresh)

    async def _refresh(self) -> None:
        await asyncio.to_thread(self._read)
        if not self._is_frozen:
            gc.freeze()  # a full collection visits every object, which would stop the bot for seconds
            self._is_frozen = True

    async def catch_up(self) -> None:
        """Refresh, but return after a short time even if the refresh continues: a person is typing."""
        await asyncio.wait([self._in_background()], timeout=_CATCH_UP_SECONDS)

    def _read(self) -> None:
        names = self._folder.names()
        if names is not self._names:
            self._names = names
            gone = [self._runs.pop(name) for name in self._runs.keys() - names]
            self.deleted = [run for run in (*self.deleted, *gone) if run.is_of_day(time.time())]
            for run in gone:
                self._unfinished.pop(run.run_id, None)
            for name in self.unreadable.keys() - names:
                del self.unreadable[name]
            self._unread = {*names - self.unreadable.keys() - self._runs.keys()}
        self._find_annotated()
        changed = [self._read_run(name) for name in self._unread | self._unfinished.keys()]
        if self._runs.keys() != self._sorted.keys():
            self._sorted = dict.fromkeys(sorted(self._runs, key=self._order, reverse=True))
            changed.append(True)
        if any(changed):
            self.runs = tuple(self._runs[name] for name in self._sorted)
        self._read_tokenizers()
        self.corpora = self._stores.corpora.names()
        self.batteries = self._stores.batteries.names()
        self.readings = self._stores.readings.names()
        self.experiments = self._stores.experiments.names()
        self.studies = self._stores.studies.names()

    def _find_annotated(self) -> None:
        """Let runs be read again whose annotations have changed since the last call, or whose test split was read."""
        annotated_ns = self._stores.runs.annotated_ns()
        if annotated_ns != self._annotated_ns:
            self._annotated_ns = annotated_ns
            found = {name: at for name, entry in self._runs.items() if any(at := self._times(entry))}
            for name in {name for name, at in found.items() if self._annotations.get(name) != at}:
                del self._runs[name]
                self._unfinished.pop(name, None)
                self._unread.add(name)
            self._annotations = found

    def _times(self, entry: RunEntry) -> tuple[int | None, ...]:
        """Return when the annotations of a run have changed last, its manifest, to which an unlock may add, and its
        record, into which its worker may write what it has chosen.
        """
        run, is_locked = self._stores.runs.directory(entry.run_id), entry.setting("test") == "locked"
        is_chosen_later = entry.is_unfinished and entry.setting("minutes") is not None
        return (
            changed_ns(run.annotations_file),
            changed_ns(run.result) if is_locked else None,
            changed_ns(run.path / REQUEST_FILE) if is_chosen_later else None,
        )

    def _order(self, name: str) -> tuple[datetime, str]:
        return self._runs[name].created_at, name

    def _read_run(self, name: str) -> bool:
        """Read a run, and return whether its entry has changed."""
        before = self._runs.get(name)
        try:
            if name not in self._unfinished:
                self._unfinished[name] = self._feeds.of(self._stores.runs.get(name))
            feed = self._unfinished[name]
            entry = self._runs.setdefault(name, _entry(feed.follower))
            self._unread.discard(name)
            manifest = feed.run.manifest()
            if manifest is None:
                status = feed.read()
                known, seconds = status.last_heartbeat_ts, status.eta_seconds
                self._runs[name] = entry._replace(
                    state=status.status,
                    progress=status.progress,
                    loss_nats=status.train_loss,
                    bits_per_char=status.train_bits_per_char,
                    unknown_char_share=status.unknown_char_share,
                    tokenizer_id=status.tokenizer_id or entry.tokenizer_id,
                    ends_at=None if known is None or seconds is None else known + seconds,
                    train_seconds=_seconds(status.started_at, known),
                    numbers=_numbers_of_status(status),
                )
            else:
                # what a run that did not complete came to stands in its events only
                ended = None if manifest.status == "completed" else feed.read()
                self._runs[name] = entry._replace(
                    state=manifest.status,
                    progress=100.0 if ended is None else ended.progress,
                    numbers=_numbers_of_manifest(manifest) if ended is None else _numbers_of_status(ended),
                    tokenizer_id=entry.tokenizer_id if manifest.tokenizer is None else manifest.tokenizer.id,
                    loss_nats=manifest.metrics.test,
                    bits_per_char=manifest.metrics.bits_per_char,
                    unknown_char_share=manifest.unknown_char_share,
                    ends_at=None,
                    ended_at=manifest.timings.finished.timestamp(),
                    train_seconds=_seconds(
                        manifest.timings.started if ended is None else ended.started_at,
                        manifest.timings.finished.timestamp(),
                    ),
                )
                del self._unfinished[name]
        except AppError:
            pass  # not accepted yet
        except (OSError, ValueError) as error:
            found = unreadable(self._stores.runs.directory(name))
            if found is not None and name not in self.unreadable:  # else it was just deleted
                self.unreadable[name] = found
                log.error("run_unreadable", run_id=name, exc_info=error)
            if not isinstance(error, FileNotFoundError):  # a missing file may still come from another machine
                self._unread.discard(name)
        else:
            self.unreadable.pop(name, None)
        return self._runs.get(name) != before

    def _read_tokenizers(self) -> None:
        names = self._tokenizer_folder.names()
        for name in self._tokenizers.keys() - names:
            del self._tokenizers[name]
        for name in names - self._tokenizers.keys() - self._unreadable_tokenizers:
            try:
                status = self._stores.tokenizers.get(name).status()
                if status.status == "completed":
                    self._tokenizers[name] = status
            except AppError:
                pass  # not accepted yet
            except (OSError, ValueError) as error:
                self._unreadable_tokenizers.add(name)
                log.error("tokenizer_unreadable", tokenizer_id=name, exc_info=error)
        self.tokenizers = tuple(sorted(self._tokenizers.values(), key=_created_at, reverse=True))


def matching(typed: str, things: Iterable[T], names: Callable[[T], Sequence[str]], *, exactly: bool = False) -> list[T]:
    """Return the things whose names match every typed word, best matches first.

    A word matches a name that begins with it, then a name that contains it, then (unless `exactly`) a name with its
    letters in this order.
    """
    words = typed.casefold().split()
    found: list[tuple[int, T]] = []
    for thing in things:
        folded = [name.casefold() for name in names(thing)]
        worst = max((min(_distance(word, name) for name in folded) for word in words), default=0)
        if worst <= (1 if exactly else 2):
            found.append((worst, thing))
    return [thing for _, thing in sorted(found, key=itemgetter(0))]


def _created_at(tokenizer: TokenizerStatus) -> datetime:
    return tokenizer.created_at


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("index_refresh_failed", exc_info=error)


def _entry(run: RunFollower) -> RunEntry:
    record, request, note = run.record, run.record.effective, run.status.note
    settings = [*settings_of(changed(request, tags=run.status.tags)), *([] if note is None else [("note", note)])]
    return RunEntry(
        run_id=record.run_id,
        user_id=owner_of(record),
        idempotency=None if record.http is None else record.http.idempotency,
        created_at=record.created_at.astimezone(UTC),  # whose comparison is quick
        label=request.label,
        family=request.model_family,
        corpus=request.corpus.name,
        has_attached_text=request.corpus.is_attached,
        sent_texts=tuple(filter(CONTENT_NAME.fullmatch, (one.name.partition("/")[0] for one in request.corpora))),
        objective=request.objective,
        tokenizer_id=request.tokenizer_id,
        group_id=None if record.group is None else record.group.group_id,
        resumes=record.resumed_from_run_id,
        is_part=record.experiment_id is not None or record.study_id is not None,
        parents=tuple(run_id for run_id in (record.resumed_from_run_id, request.parent_run_id) if run_id is not None),
        owner=None if record.owner is None else str(record.owner),
        settings=tuple(sys.intern(f"{name}={value}") for name, value in settings),
    )


def _seconds(started: datetime | None, last: float | None) -> float:
    return 0.0 if started is None or last is None else max(0.0, last - started.timestamp())


_in_status: Callable[[RunStatus], Sequence[float | None]] = attrgetter(*RunNumbers._fields)


def _numbers_of_status(status: RunStatus) -> RunNumbers:
    return RunNumbers(*_in_status(status))


def _numbers_of_manifest(manifest: RunManifest) -> RunNumbers:
    metrics = manifest.metrics
    return RunNumbers(
        train_loss=metrics.train,
        val_loss=metrics.val,
        best_val_loss=metrics.best,
        best_val_bits_per_char=metrics.best_bits_per_char,
        test_loss=metrics.test,
        bits_per_char=metrics.bits_per_char,
        params=None if manifest.model is None else manifest.model.params,
    )


def owner_of(record: JobRecord) -> int | None:
    """Return the Discord user who owns a job, or the negative number of its API key; None for the command line."""
    return owner_number(record.owner) if isinstance(record.owner, str) else record.owner


def owner_number(api_key: str) -> int:
    """Return the number that stands for an API key: the Discord user that it names, or else a negative one."""
    user_id = discord_user(api_key)
    return -1 - int(sha256(api_key.encode()).hexdigest()[:15], 16) if user_id is None else user_id


def discord_user(api_key: str) -> int | None:
    """Return the Discord user whose id is the name of an API key; None for another name."""
    return int(api_key) if _DISCORD_ID.fullmatch(api_key) else None


def _distance(word: str, name: str) -> int:
    if name.startswith(word):
        return 0
    if word in name:
        return 1
    signs = iter(name)
    return 2 if all(sign in signs for sign in word) else 3
