"""Lines of an event log that hold no event are skipped."""

from pathlib import Path

from tests.support.waiting import captured_logs
from trainer.artifacts.event_log import EventLog, EventReader
from trainer.contracts.events import JobCancelled, stamp

GARBAGE = {
    b"no event": "event_malformed",
    b"\xff\xfe": "event_malformed",
    b'{"type":"trainer.job.cancelled.v1"}': "event_malformed",
    b'{"type":"trainer.job.cancelled.v2","event_id":"secret"}': "event_unknown",
    b'{"type":"trainer.job.exploded.v1"}': "event_unknown",
}


def test_garbage__is_a_line_of_the_log_each_and_the_events_around_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "char_lstm-1" / "events.jsonl"
    path.parent.mkdir()
    with EventLog(path) as log:
        log.append(JobCancelled(**stamp("char_lstm-1", None, "cancelled:1")))
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in GARBAGE))
    with captured_logs() as unheard, EventLog(path) as log:
        log.append(JobCancelled(**stamp("char_lstm-1", None, "cancelled:2")))

    reader = EventReader(path)
    with captured_logs() as logs:
        events = reader.read_new() + reader.read_new()

    assert [event.seq for event in events] == [1, 2]
    said = [{"event": event, "run_id": "char_lstm-1", "log_level": "warning"} for event in GARBAGE.values()]
    assert logs == unheard == said
