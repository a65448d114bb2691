"""The event log of a run: written by whoever holds the run's lock, read by everybody (R6)."""

from pathlib import Path

import structlog
from pydantic import ValidationError

from trainer.contracts.events import Event, event_adapter
from trainer.system.files import DISK, Disk, open_regular, storage_errors

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class EventLog:
    """The writer of a run's event log: each event once, whole or not at all, on disk before it is told (R6)."""

    def __init__(self, path: Path, disk: Disk = DISK) -> None:
        self._disk = disk
        with storage_errors("the event log could not be opened"):
            if not path.exists():
                disk.write(path, b"")
                disk.sync(path.parent)
            self._file = open_regular(path, "r+b")
            try:
                data = self._file.readall()
                whole = data.rfind(b"\n") + 1
                if whole < len(data):  # a writer died in mid-line: nobody was told of this event
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
        """Write an event with the next sequence number, unless one with its id is there already.

        Raises INSUFFICIENT_STORAGE and SERVICE_UNAVAILABLE where the disk fails. The next call begins with the same
        bytes at the same place then: a reader may have seen them.
        """
        if event.event_id not in self._known:
            self._seq += 1
            place: dict[str, object] = {"seq": self._seq}
            self._unwritten += event.model_copy(update=place).model_dump_json().encode() + b"\n"
            self._known.add(event.event_id)
        if self._unwritten:
            with storage_errors("what happened in the run could not be noted"):
                self._disk.write_at(self._file, self._length, self._unwritten)
            self._length += len(self._unwritten)
            self._unwritten = b""

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class EventReader:
    """A reader of a run's event log that remembers how far it has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read_new(self) -> list[Event]:
        """The whole events that were added since the last call."""
        with open_regular(self._path) as file:
            file.seek(self._offset)
            data = file.readall()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return _parse_lines(whole, self._path)


def _parse_lines(data: bytes, path: Path) -> list[Event]:
    """The events of whole lines; what is none, or of a version that is not known here, is logged and left out."""
    events = []
    for line in data.splitlines():
        try:
            events.append(event_adapter.validate_json(line))
        except ValidationError as error:
            is_unknown = '"union_tag_invalid"' in error.json(include_input=False, include_context=False)
            what = "event of an unknown version left out" if is_unknown else "malformed event left out"
            log.warning(what, run_id=path.parent.name)
    return events
