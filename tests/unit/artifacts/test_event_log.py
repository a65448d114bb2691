"""An event log: each event once and in order, what is torn or garbage is skipped, and one writer."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from tests.support.runs import phase
from tests.support.waiting import captured_logs
from trainer.artifacts.event_log import EventLog, EventReader, TakenOver
from trainer.contracts.events import JobCancelled, stamp

MALFORMED = [b"no event", b"\xff\xfe", b'{"type":"trainer.job.cancelled.v1"}']
UNKNOWN = [b'{"type":"trainer.job.cancelled.v2","event_id":"secret"}', b'{"type":"trainer.job.exploded.v1"}']


@pytest.fixture(name="path")
def path_fixture(tmp_path: Path) -> Path:
    (tmp_path / "char_lstm-1").mkdir()
    return tmp_path / "char_lstm-1" / "events.jsonl"


def read(path: Path) -> list[tuple[int, str]]:
    return [(event.seq, event.event_id) for event in EventReader(path).read_new()]


def cancelled(kind: str) -> JobCancelled:
    return JobCancelled(**stamp("char_lstm-1", None, kind))


def test_log_torn_at_every_byte__loses_only_the_torn_event(tmp_path: Path) -> None:
    with EventLog(tmp_path / "whole") as log:
        log.append(phase(1))
        log.append(phase(2))
    data = (tmp_path / "whole").read_bytes()
    first = data.index(b"\n") + 1
    long_event = data[:first] + b'{"type": "' + b"x" * 5000
    for cut, left in [*((cut, data[:cut]) for cut in range(first, len(data))), (0, long_event)]:
        torn = tmp_path / f"torn{cut}"
        torn.write_bytes(left)
        assert read(torn) == [(1, "r:phase:1")]
        with EventLog(torn) as log:
            log.append(phase(3))
        assert read(torn) == [(1, "r:phase:1"), (2, "r:phase:3")]
        assert torn.read_bytes().endswith(b"}\n")


def test_times__never_go_back_and_keep_their_distances_by_a_clock_that_is_behind(path: Path) -> None:
    begin = datetime(2026, 11, 30, 12, tzinfo=UTC)

    def at(kind: str, seconds: float) -> JobCancelled:
        return JobCancelled(**stamp("char_lstm-1", None, kind, begin + timedelta(seconds=seconds)))

    with EventLog(path) as log:
        log.append(at("created", 0))
    with EventLog(path) as log:  # of a machine whose clock is ten minutes behind
        written = [log.append(at(f"step:{second}", second - 600)) for second in (5, 6, 26)]
        again = log.append(at("step:5", -500))
        assert log.time_of(begin) == begin + timedelta(seconds=595), "a time before the last event"
        assert log.time_of(begin + timedelta(seconds=99)) == begin + timedelta(seconds=99)
    seconds = [(event.ts - begin).total_seconds() for event in EventReader(path).read_new()]
    assert seconds == [0, 0, 1, 21]
    assert [(one.ts - begin).total_seconds() for one in written] == seconds[1:] and again.seq == 0


@for_all_pairs(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 5))
def test_reader__returns_each_event_once_in_order_for_any_number_of_reads(numbers: list[int], every: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, seen = Path(folder) / "log", list[int]()
        reader = EventReader(path)
        for begin in range(0, len(numbers), every):
            with EventLog(path) as log:  # opened again and again
                for number in numbers[begin : begin + every]:
                    log.append(phase(number))
            seen += [event.seq for event in reader.read_new()]
        assert seen == list(range(1, len(set(numbers)) + 1))
        assert {event_id for _, event_id in (read(path) if numbers else [])} == {f"r:phase:{n}" for n in numbers}


def test_garbage__is_logged_line_by_line_and_the_events_around_it_are_read(path: Path) -> None:
    with EventLog(path) as log:
        log.append(cancelled("1"))
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in MALFORMED + UNKNOWN))
    with captured_logs() as unheard, EventLog(path) as log:
        log.append(cancelled("2"))
    reader = EventReader(path)
    with captured_logs() as logs:
        events = reader.read_new() + reader.read_new()
    assert [event.seq for event in events] == [1, 2]
    kinds = ["event_malformed"] * len(MALFORMED) + ["event_unknown"] * len(UNKNOWN)
    assert logs == unheard == [{"event": kind, "run_id": "char_lstm-1", "log_level": "warning"} for kind in kinds]


def test_log_taken_over_by_another_process__gets_nothing_from_the_first(path: Path) -> None:
    with EventLog(path) as first, EventLog(path) as second:
        first.check_only_writer()
        second.append(cancelled("of the second"))
        with pytest.raises(TakenOver, match="char_lstm-1"):
            first.check_only_writer()
        with pytest.raises(TakenOver):
            first.append(cancelled("of the first"))
        second.append(cancelled("again of the second"))
    assert read(path) == [(1, "char_lstm-1:of the second"), (2, "char_lstm-1:again of the second")]
