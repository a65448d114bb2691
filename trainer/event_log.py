"""The event log of a run: written by whoever holds the run's lock, read by everybody (R6)."""

import os
from pathlib import Path

from trainer.contracts.events import Event, event_adapter


class EventLog:
    """The writer of a run's event log: each event once, whole or not at all, on disk before it is told (R6)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a writer died in mid-line: nobody was told of this event
            self._file.truncate(whole)
        events = _parse_lines(data[:whole])
        self._known = {event.event_id for event in events}
        self._seq = events[-1].seq if events else 0

    def append(self, event: Event) -> None:
        """Write an event with the next sequence number, unless one with its id is there already."""
        if event.event_id in self._known:
            return
        place: dict[str, object] = {"seq": self._seq + 1}
        numbered = event.model_copy(update=place)
        self._file.write(numbered.model_dump_json().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._seq += 1
        self._known.add(event.event_id)

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
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return _parse_lines(whole)


def _parse_lines(data: bytes) -> list[Event]:
    return [event_adapter.validate_json(line) for line in data.splitlines()]
