"""Event log of a run: the process with the run's lock writes it, any process reads it."""

import os
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import ValidationError

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import Event, event_adapter
from trainer.system.files import DISK, Disk, open_regular, storage_errors

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_PIECE_BYTES = 1 << 20


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
                data = self._file.readall()
                whole = data.rfind(b"\n") + 1
                if whole < len(data):  # a writer died within the line; its event was never published
                    disk.cut(self._file, whole)
            except OSError:
                self._file.close()
                raise
        events = _parse_lines(data[:whole], path)
        self._known = {event.event_id for event in events}
        self._seq = events[-1].seq if events else 0
        self._length = whole
        self._unwritten = b""

    def append(self, event: Event) -> None:
        """Write an event with the next sequence number, unless an event with its id has been written.

        Raises TakenOver, and INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE if the disk fails. The next call then starts
        with the same bytes at the same position, because a reader may have seen them.
        """
        is_new = event.event_id not in self._known
        line = changed(event, seq=self._seq + 1).model_dump_json().encode() + b"\n" if is_new else b""
        self.check_only_writer()  # right before the bytes are written
        if is_new:
            self._seq += 1
            self._unwritten += line
            self._known.add(event.event_id)
        if self._unwritten:
            with storage_errors("the events of the run could not be written"):
                self._disk.write_at(self._file, self._length, self._unwritten)
            self._length += len(self._unwritten)
            self._unwritten = b""

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
        self._offset = 0

    def read_new(self) -> list[Event]:
        """Return the events written since the last call; a log of the same length is not opened."""
        return [event for events in self.pieces() for event in events]

    def pieces(self) -> Iterator[list[Event]]:
        """Yield the events written since the last call, some thousands at a time: a log may have a million."""
        if self._offset and self._path.lstat().st_size == self._offset:
            return
        with open_regular(self._path) as file:
            file.seek(self._offset)
            rest = b""
            while data := file.read(_PIECE_BYTES):
                whole, rest = _divided(rest + data)
                self._offset += len(whole)
                yield _parse_lines(whole, self._path)


def _divided(data: bytes) -> tuple[bytes, bytes]:
    """Return the complete lines and the begin of the last one."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _parse_lines(data: bytes, path: Path) -> list[Event]:
    """Parse complete lines; a malformed event, or one of an unknown version, is logged and skipped."""
    events = []
    for line in data.splitlines():
        try:
            events.append(event_adapter.validate_json(line))
        except ValidationError as error:
            is_unknown = '"union_tag_invalid"' in error.json(include_input=False, include_context=False)
            log.warning("event_unknown" if is_unknown else "event_malformed", run_id=path.parent.name)
    return events
