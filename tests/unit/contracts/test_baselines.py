"""Baselines in words."""

import pytest

from tests.support.baselines import BETTER, BETTER_LINE, UNCLEAR, UNCLEAR_LINE, WORSE, WORSE_LINE, WORSE_WARNING
from trainer.contracts.base import changed
from trainer.contracts.baselines import Against, Baseline
from trainer.reports.report_text import Reader
from trainer.reports.run_notes import counting_note

DOUBT = WORSE_WARNING.replace("is worse", "is not clearly better")


@pytest.mark.parametrize(
    ("baseline", "line", "warnings"),
    [
        (BETTER, BETTER_LINE, ()),
        (WORSE, WORSE_LINE, (WORSE_WARNING,)),
        (UNCLEAR, UNCLEAR_LINE, (DOUBT,)),
        (changed(UNCLEAR, has_leak=True), UNCLEAR_LINE, ()),
    ],
)
def test_baseline__is_one_line_and_a_warning_with_what_to_do(
    baseline: Baseline, line: str, warnings: tuple[str, ...]
) -> None:
    assert (Reader("bits").note(counting_note(baseline)), baseline.warnings()) == (line, warnings)


@pytest.mark.parametrize(
    ("bits", "margin", "against"),
    [
        (1.0, None, "better"),
        (2.0, None, "worse"),
        (1.5, None, "no_clear_difference"),
        (1.0, 0.5, "no_clear_difference"),
        (2.0, 0.5, "no_clear_difference"),
        (0.875, 0.5, "better"),
        (2.125, 0.5, "worse"),
    ],
)
def test_verdict__is_clear_only_where_the_interval_excludes_zero(
    bits: float, margin: float | None, against: Against
) -> None:
    assert changed(BETTER, ngram_bits_per_char=1.5, bits_per_char=bits, margin=margin).against == against
