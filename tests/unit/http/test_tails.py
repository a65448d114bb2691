"""The events that a stream reads from the disk."""

from pathlib import Path

from tests.support.stories import Story, run_record
from trainer.http.tails import stored_events

PIECE = 1 << 20
"""Bytes of a log that are read at once."""


async def test_stored_events__of_a_long_log_come_in_pieces_in_their_order(tmp_path: Path) -> None:
    run = Story(tmp_path, run_record()).start().fail("x" * PIECE).pause().cancel().run
    pieces = [[item.number for item in items] async for items in stored_events(run, 1, 5)]
    assert pieces == [[2, 3], [4]], "the fourth is longer than a piece"
