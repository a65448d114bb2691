"""Limits and lines of run cards and final messages; their texts are in test_cards.py."""

from hypothesis import strategies as st

from bot.messages.run_card import final_message, progress_bar, sparkline
from tests.support.cards import Read, within_limits
from tests.support.messages import FAILED
from tests.support.properties import for_all
from tests.support.stories import run_record
from trainer.artifacts.outcome import Outcome
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, RunError


def test_final_message__of_a_failure_with_a_long_error_keeps_its_hint() -> None:
    long = changed(FAILED, error=RunError.of(AppError(ErrorCode.CRASH_LOOP, "*😀" * 5000)))
    embed = final_message(run_record(), long, Outcome(last_lines=["😀" * 5000] * 8))
    assert within_limits(embed) and Read(embed).text.endswith("include the run id below.")


@for_all(st.floats(allow_nan=False))
def test_progress_bar__has_sixteen_cells_and_is_full_only_at_the_end(percent: float) -> None:
    bar = progress_bar(percent)
    assert len(bar) == 16
    assert bar == "▰" * bar.count("▰") + "▱" * bar.count("▱")
    assert (bar == "▰" * 16) == (percent >= 100)


@for_all(st.lists(st.floats(min_value=0, max_value=20), max_size=200))
def test_sparkline__is_short_and_follows_the_curve(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) == min(12, len(values))
    assert set(line) <= set("▁▂▃▄▅▆▇█")
    if 0 < len(values) <= 12 and max(values) > min(values):
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"
    assert sparkline([7, 6, 5, 4, 3, 2, 1, 0]) == "█▇▆▅▄▃▂▁"
