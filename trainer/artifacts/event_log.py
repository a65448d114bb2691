"""Event log of a run: the process with the run's lock writes it, any process reads it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import ValidationError

from trainer.contracts.base import changed
from trainer.contracts.earlier_forms import upgraded_event
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Event, EventBase, MetricsProgress, event_adapter, type_of
from trainer.system.files import DISK, Disk, open_regular, storage_errors

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

EventT = TypeVar("EventT", bound=EventBase)

_PIECE_BYTES = 1 << 20
_PROGRESS = f'"type":"{type_of(MetricsProgress)}"'.encode()


class TakenOver(AppError):
    """Another process writes the run: where machines mount a folder, a lock may be lost with the connection."""

    def __init__(self, run_id: str) -> None:
        super().__init__(ErrorCode.SERVICE_UNAVAILABLE, f"Another process has taken over the run '{run_id}'.")


class EventLog:
    """Writer of a run's event log: each event is written once, completely, and before it is published."""

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self._disk, self._path = disk, path
        with storage_errors("the event log could not be opened"):
            if not path.exists():
                disk.write(path, b"")
                disk.sync(path.parent)
            self._file = open_regular(path, "r+b")
            try:
                reader, self._known, self._seq = EventReader(path), set[str](), 0
                self._latest: datetime | None = None
                self._behind = timedelta(0)
                """The time by which this machine's clock is behind the last event, which may be another machine's."""
                for lines in reader.lines():
                    for event in reader.parsed(lines):
                        self._known.add(event.event_id)
                        self._seq, self._latest = event.seq, event.ts
                self._length = reader.offset
                if self._length < os.fstat(self._file.fileno()).st_size:
                    disk.cut(self._file, self._length)  # a writer died within the line; its event was never published
            except OSError:
                self._file.close()
                raise
        self._unwritten = b""

    def time_of(self, moment: datetime) -> datetime:
        """Return a time of this machine's clock, or a later one if a machine whose clock is ahead wrote the log before.

        So no run starts before it was created, and no event precedes an earlier one. Durations stay.
        """
        if self._latest is None or moment >= self._latest:
            return moment
        self._behind = max(self._behind, self._latest - moment)
        return moment + self._behind

    def append(self, event: EventT) -> EventT:
        """Write an event with the next number and its time in the log, unless one with its id is there; return it.

        Raises TakenOver, and INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE if the disk fails. The next call then starts
        with the same bytes at the same position, because a reader may have seen them.
        """
        is_new = event.event_id not in self._known
        event = changed(event, seq=self._seq + 1, ts=self.time_of(event.ts)) if is_new else event
        line = event.model_dump_json().encode() + b"\n" if is_new else b""
        self.check_only_writer()  # right before the bytes are written
        if is_new:
            self._seq += 1
            self._unwritten += line
            self._known.add(event.event_id)
            self._latest = event.ts
        if self._unwritten:
            with storage_errors("the events of the run could not be written"):
                self._disk.write_at(self._file, self._length, self._unwritten)
            self._length += len(self._unwritten)
            self._unwritten = b""
        return event

    def check_only_writer(self) -> None:
        """Raise TakenOver if another process has written events since this one has opened the log."""
        if os.fstat(self._file.fileno()).st_size > self._length + len(self._unwritten):
            raise TakenOver(self._path.parent.name)

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class EventReader:
    """Reader of a run's event log that remembers its position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.offset = 0
        """Bytes of the complete lines that were read."""

    def read_new(self, *, has_progress: bool = True) -> list[Event]:
        """Return the events written since the last call; without `has_progress`, those of steps are left out."""
        return [
            event
            for lines in self.lines()
            for event in self.parsed(line for line in lines if has_progress or not is_progress(line))
            if has_progress or not isinstance(event, MetricsProgress)
        ]

    def lines(self) -> Iterator[list[bytes]]:
        """Yield the lines written since the last call, some thousands at a time: a log may have a million.

        A log of the same length is not opened.
        """
        if self.offset and self._path.lstat().st_size == self.offset:
            return
        with open_regular(self._path) as file:
            file.seek(self.offset)
            rest = b""
            while data := file.read(_PIECE_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                self.offset += sum(map(len, lines)) + len(lines)
                yield lines

    def parsed(self, lines: Iterable[bytes]) -> list[Event]:
        """Return the events of lines; a malformed one, or one of an unknown version, is logged and skipped."""
        events = []
        for line in lines:
            try:
                events.append(event_adapter.validate_json(line))
            except ValidationError as error:
                with suppress(ValidationError):
                    if (earlier := upgraded_event(line)) is not None:
                        events.append(event_adapter.validate_json(earlier))
                        continue
                is_unknown = '"union_tag_invalid"' in error.json(include_input=False, include_context=False)
                log.warning("event_unknown" if is_unknown else "event_malformed", run_id=self._path.parent.name)
        return events


def is_progress(line: bytes) -> bool:
    """Return True for a progress event as EventLog writes it."""
    return _PROGRESS in line
