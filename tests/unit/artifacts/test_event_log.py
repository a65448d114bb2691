"""Lines of an event log that hold no event are skipped; a log has one writer."""

from pathlib import Path

import pytest

from tests.support.waiting import captured_logs
from trainer.artifacts.event_log import EventLog, EventReader, TakenOver
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


def test_log_that_another_process_has_taken_over__gets_nothing_more_from_the_first_one(tmp_path: Path) -> None:
    path = tmp_path / "char_lstm-1" / "events.jsonl"
    path.parent.mkdir()
    with EventLog(path) as first, EventLog(path) as second:
        first.check_only_writer()
        second.append(JobCancelled(**stamp("char_lstm-1", None, "of the second")))
        with pytest.raises(TakenOver, match="char_lstm-1"):
            first.check_only_writer()
        with pytest.raises(TakenOver):
            first.append(JobCancelled(**stamp("char_lstm-1", None, "of the first")))
        second.append(JobCancelled(**stamp("char_lstm-1", None, "again of the second")))
    found = [(event.seq, event.event_id) for event in EventReader(path).read_new()]
    assert found == [(1, "char_lstm-1:of the second"), (2, "char_lstm-1:again of the second")]
