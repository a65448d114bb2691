"""What can be named in a command: runs, tokenizers and texts, kept in memory and brought up to date from the disk."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import structlog

from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError
from trainer.contracts.models import Objective
from trainer.contracts.runs import RunManifest, RunRecord, RunStatus
from trainer.jobs.queue import JobQueue

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_PATIENCE_SECONDS = 0.1
"""How long suggestions for somebody who is typing wait for the newest state of the disk."""


class RunEntry(NamedTuple):
    """A run in short."""

    run_id: str
    user_id: int | None
    created_at: datetime
    label: str | None
    family: str
    corpus: str
    """The name of its text; for a text that was attached, the hash of its content."""
    has_attached_text: bool
    objective: Objective = "causal_lm"
    state: RunState = "queued"
    progress: float = 0.0
    tokenizer_id: str | None = None
    loss_nats: float | None = None
    """Of the test once it is known, of the training before."""
    bits_per_char: float | None = None
    ends_at: float | None = None
    """When it should end, in seconds since 1970."""

    @property
    def name(self) -> str:
        return self.label or self.run_id

    @property
    def is_unfinished(self) -> bool:
        return self.state in ("queued", "running")


class TokenizerEntry(NamedTuple):
    """A finished tokenizer in short."""

    tokenizer_id: str
    created_at: datetime
    label: str | None
    vocab_size: int | None


class RunIndex:
    """Reads a run once when it appears and once when it has ended; between the two, only what its log has grown by."""

    def __init__(self, queue: JobQueue, artifacts_root: Path) -> None:
        self.runs: Sequence[RunEntry] = ()
        """Newest first, as the next three stood at the last look."""
        self.tokenizers: Sequence[TokenizerEntry] = ()
        self.corpora: Sequence[str] = ()
        self._queue = queue
        self._root = artifacts_root
        self._runs: dict[str, RunEntry] = {}
        self._tokenizers: dict[str, TokenizerEntry] = {}
        self._unfinished: dict[str, tuple[RunDirectory, RunFollower]] = {}
        self._unreadable: set[str] = set()
        self._lock = asyncio.Lock()
        self._asked = self._answered = 0
        self._looking: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to read what is there, and do not wait for it."""
        looking = asyncio.create_task(self.refresh())
        looking.add_done_callback(_say_failure)
        self._looking = {looking}

    async def stop(self) -> None:
        for looking in self._looking:
            looking.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    async def refresh(self) -> None:
        """Look at the disk; those who ask while one look is under way share the next one."""
        self._asked += 1
        asked = self._asked
        async with self._lock:
            if self._answered >= asked:
                return
            answered = self._asked
            await asyncio.to_thread(self._look)
            self._answered = answered

    async def catch_up(self) -> None:
        """Look at the disk, but wait for it no longer than a person may who is typing."""
        if all(looking.done() for looking in self._looking):
            self.start()
        await asyncio.wait(self._looking, timeout=_PATIENCE_SECONDS)

    def _look(self) -> None:
        names = _names(self._root / "models")
        for name in self._runs.keys() - names:
            del self._runs[name]
            self._unfinished.pop(name, None)
        for name in names - self._unreadable:
            known = self._runs.get(name)
            if known is None or known.is_unfinished:
                self._read_run(name)
        self.runs = _newest_first(self._runs.values())
        self._look_at_tokenizers()
        self.corpora = self._queue.corpora.names()

    def _read_run(self, name: str) -> None:
        try:
            if name not in self._unfinished:
                run = self._queue.runs.get(name)
                self._unfinished[name] = run, run.follow()
            run, follower = self._unfinished[name]
            self._runs.setdefault(name, _entry(follower.record))
            manifest = run.manifest()
            if manifest is None:
                self._runs[name] = _standing(self._runs[name], follower.refresh())
            else:
                self._runs[name] = _ended(self._runs[name], manifest)
                del self._unfinished[name]
        except (AppError, FileNotFoundError):
            pass  # not accepted yet, or just removed
        except ValueError as error:
            self._unreadable.add(name)
            log.error("run that cannot be read", run_id=name, exc_info=error)

    def _look_at_tokenizers(self) -> None:
        names = _names(self._root / "tokenizers")
        for name in self._tokenizers.keys() - names:
            del self._tokenizers[name]
        for name in names - self._tokenizers.keys() - self._unreadable:
            try:
                status = self._queue.tokenizers.status(name)
            except AppError:
                continue  # not accepted yet
            except ValueError as error:
                self._unreadable.add(name)
                log.error("tokenizer that cannot be read", tokenizer_id=name, exc_info=error)
                continue
            if status.status == "completed":
                self._tokenizers[name] = TokenizerEntry(name, status.created_at, status.label, status.vocab_size)
        self.tokenizers = _newest_first(self._tokenizers.values())


def matching(typed: str, things: Iterable[T], names: Callable[[T], Sequence[str]], *, exactly: bool = False) -> list[T]:
    """The things that what somebody has typed can mean, the likeliest first, else in their order.

    A word means a name that begins with it, then one that has it inside, then (unless `exactly`) one that has its
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


class _Dated(Protocol):
    @property
    def created_at(self) -> datetime: ...


DatedT = TypeVar("DatedT", bound=_Dated)


def _say_failure(looking: asyncio.Task[None]) -> None:
    if not looking.cancelled() and (error := looking.exception()):
        log.error("runs could not be listed, which is tried again at the next look", exc_info=error)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def _newest_first(entries: Iterable[DatedT]) -> tuple[DatedT, ...]:
    return tuple(sorted(entries, key=_created_at, reverse=True))


def _created_at(entry: _Dated) -> datetime:
    return entry.created_at


def _entry(record: RunRecord) -> RunEntry:
    asked = record.effective
    return RunEntry(
        run_id=record.run_id,
        user_id=record.user_id,
        created_at=record.created_at,
        label=asked.label,
        family=asked.model_family,
        corpus=asked.corpus.name,
        has_attached_text=asked.corpus.name == asked.corpus.sha256,
        objective=asked.objective,
        tokenizer_id=asked.tokenizer_id,
    )


def _standing(entry: RunEntry, status: RunStatus) -> RunEntry:
    ends_at: float | None = None
    if status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        ends_at = status.last_heartbeat_ts + status.eta_seconds
    return entry._replace(state=status.status, progress=status.progress, loss_nats=status.train_loss, ends_at=ends_at)


def _ended(entry: RunEntry, manifest: RunManifest) -> RunEntry:
    return entry._replace(
        state=manifest.status,
        tokenizer_id=None if manifest.tokenizer is None else manifest.tokenizer.id,
        loss_nats=manifest.metrics.test,
        bits_per_char=manifest.metrics.bits_per_char,
        ends_at=None,
    )


def _distance(word: str, name: str) -> int:
    if name.startswith(word):
        return 0
    if word in name:
        return 1
    signs = iter(name)
    return 2 if all(sign in signs for sign in word) else 3
