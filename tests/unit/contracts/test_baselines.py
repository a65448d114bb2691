"""Baselines in words."""

import pytest

from tests.support.baselines import (
    AHEAD_LINE,
    AHEAD_OF_CHARACTERS,
    BEHIND_CHARACTERS,
    BEHIND_LINE,
    BETTER,
    BETTER_LINE,
    MOSTLY_UNKNOWN,
    MOSTLY_UNKNOWN_LINE,
    UNCLEAR,
    UNCLEAR_LINE,
    WORSE,
    WORSE_LINE,
    WORSE_WARNING,
)
from trainer.contracts.base import changed
from trainer.contracts.baselines import Against, Baseline, mean_baseline
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
        (BEHIND_CHARACTERS, BEHIND_LINE, (WORSE_WARNING,)),
        (AHEAD_OF_CHARACTERS, AHEAD_LINE, ()),
        (MOSTLY_UNKNOWN, MOSTLY_UNKNOWN_LINE, (WORSE_WARNING,)),
        (
            changed(MOSTLY_UNKNOWN, unknown_char_share=0.05),
            MOSTLY_UNKNOWN_LINE.split("; over known")[0],
            (WORSE_WARNING,),
        ),
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


def test_runs_over_seeds__have_the_mean_of_their_known_losses() -> None:
    one, two = changed(MOSTLY_UNKNOWN, known_loss=1.0), changed(MOSTLY_UNKNOWN, known_loss=2.0, bits_per_char=2.5)
    mean = mean_baseline([one, two])
    assert (mean.known_loss, mean.bits_per_char) == (1.5, 2.0)
    assert mean_baseline([one, changed(two, known_loss=None)]).known_loss is None
