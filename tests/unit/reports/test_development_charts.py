"""Pictures of a development."""

from collections.abc import Mapping, Sequence

import pytest

from tests.support.development_results import (
    DEVELOPMENT,
    NO_ITEMS,
    STEPS,
    WORDS,
    accuracies,
    development_of,
    losses,
    words_of,
)
from trainer.contracts.base import changed
from trainer.contracts.development import Development, DevelopmentRow, WordScores
from trainer.reports.development_charts import words_picture
from trainer.reports.development_report import development_report
from trainer.reports.report_figures import pictures_of

LONG = "a very long name of a phenomenon " * 4


def development_figures(development: Development, words: Sequence[WordScores]) -> Mapping[str, bytes]:
    """All pictures of a development."""
    return {**pictures_of(development_report(development, NO_ITEMS)), **words_picture(development, words)}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(0,), (16,), (0, 1), (16, 64), STEPS, tuple(range(0, 900, 30))])
def test_pictures__are_the_same_bytes_of_the_same_numbers(steps: tuple[int, ...]) -> None:
    development, words = development_of(steps), words_of(steps)
    figures = development_figures(development, words)
    has_ages = any(word.fits for word in development.acquisitions)
    assert [*figures] == ["accuracy", "loss", *(["words"] if has_ages else [])]
    assert all(png.startswith(b"\x89PNG") for png in figures.values())
    assert development_figures(development, words) == figures
    assert has_ages == (len(steps) > 5)


def of_curves(*curves: tuple[DevelopmentRow, ...]) -> bytes:
    rows = tuple(row for curve in curves for row in curve)
    [png] = development_figures(changed(DEVELOPMENT, curves=rows, acquisitions=()), ()).values()
    return png


@pytest.mark.slow
def test_accuracies__are_those_of_batteries_and_of_their_largest_parts() -> None:
    whole = accuracies("battery", "a&b")
    fields = [accuracies("field", f"a&b: {LONG}{number}") for number in range(2)]
    paradigms = [accuracies("paradigm", f"a&b: p{number}") for number in range(12)]
    with_fields = of_curves(whole, *fields, *paradigms)
    assert with_fields != of_curves(whole, *fields), "a note says how many more there are"
    assert with_fields != of_curves(whole, *paradigms)
    assert of_curves(whole, *paradigms) == of_curves(whole, *paradigms[:7], *paradigms[7:][::-1])
    only = accuracies("field", "a&b: the only one")
    assert of_curves(whole, only, *paradigms[:2]) == of_curves(whole, *paradigms[:2], only)


@pytest.mark.slow
def test_pictures__show_intervals_chance_and_the_axis_of_words() -> None:
    shown = accuracies("battery", "a&b")
    pictures = {
        of_curves(shown),
        of_curves(tuple(changed(row, low=None, high=None) for row in shown)),
        of_curves(tuple(changed(row, chance=None) for row in shown)),
        of_curves(tuple(changed(row, chance=0.25) for row in shown), accuracies("battery", "c")),
        of_curves(losses()),
        of_curves(tuple(changed(row, measure="loss") for row in losses())),
        of_curves(losses(), tuple(changed(row, name="validation") for row in losses())),
    }
    assert len(pictures) == 7
    points = tuple(changed(point, words=None) for point in DEVELOPMENT.points)
    assert development_figures(changed(DEVELOPMENT, points=points), WORDS) != development_figures(DEVELOPMENT, WORDS)
    assert development_figures(Development(run_id="lstm-1", points=()), ()) == {}


def test_words__are_eight_at_most() -> None:
    first = DEVELOPMENT.acquisitions[0]
    many = tuple(changed(first, word=f"w{number}", age_steps=1.5 * (number + 1)) for number in range(20))
    scores = [changed(score, word=word.word) for word in many for score in WORDS if score.word == first.word]
    more, eight = (
        development_figures(changed(DEVELOPMENT, acquisitions=words, curves=()), scores) for words in (many, many[:8])
    )
    assert [*more] == [*eight] == ["words"] and more != eight
    older = [changed(word, age_steps_low=None) for word in many]
    assert development_figures(changed(DEVELOPMENT, acquisitions=tuple(older), curves=()), scores) != more
