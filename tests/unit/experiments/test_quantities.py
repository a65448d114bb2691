"""Tables of section scores: closed forms, an independent computation in plain Python, order and mistakes."""

from itertools import combinations, product
from math import log
from random import Random

import pytest

from benchmarks import experiment_numbers
from tests.support.refusals import refused
from tests.support.section_losses import losses_of
from trainer.contracts.errors import ErrorCode
from trainer.contracts.experiments import SectionScore, SectionsFile, SectionTable
from trainer.experiments.quantities import recompute, symmetric_distances, tables
from trainer.experiments.sections import Sections, section_scores

A_CHAIN = {("a", "a"): 3 / 4, ("a", "b"): 1 / 4, ("b", "a"): 1 / 2, ("b", "b"): 1 / 2}
B_CHAIN = {("a", "a"): 1 / 2, ("a", "b"): 1 / 2, ("b", "a"): 1 / 2, ("b", "b"): 1 / 2}
A_TEXT = ["aaaabbaaaabba", "abbaaaa"]
"""The transitions have the shares of the chain's stationary distribution: aa 1/2, ab, ba and bb 1/6 each."""
B_TEXT = ["aabbaabbaabba", "baabb"]
"""aa, ab, ba and bb 1/4 each."""


def scored(chain: dict[tuple[str, str], float], text: list[str]) -> tuple[SectionScore, ...]:
    """Score a text by a Markov chain."""
    tokens = [
        (number, place, place + 1, -log(chain[line[place - 1], line[place]]) if place else float("nan"), False)
        for number, line in enumerate(text)
        for place in range(len(line))
    ]
    return section_scores(Sections.of(text), losses_of(tokens)).rows()


def test_matrix__of_two_known_languages_has_entropies_and_cross_entropies() -> None:
    table: SectionTable = {
        "a": {"a": scored(A_CHAIN, A_TEXT), "b": scored(A_CHAIN, B_TEXT)},
        "b": {"a": scored(B_CHAIN, A_TEXT), "b": scored(B_CHAIN, B_TEXT)},
    }
    found = tables(table, "unk")
    entropy_a = 1 / 2 * log(4 / 3) + 1 / 6 * log(4) + 1 / 3 * log(2)
    a_on_b = 1 / 4 * log(4 / 3) + 1 / 4 * log(4) + 1 / 2 * log(2)
    expected = [("a", "a", entropy_a, entropy_a), ("a", "b", a_on_b, log(2))]
    expected += [("b", "a", log(2), entropy_a), ("b", "b", log(2), log(2))]
    for row, (listener, text, cross_entropy, native) in zip(found.matrix, expected, strict=True):
        assert (row.listener_language, row.text_language, row.scoring_mode) == (listener, text, "unk")
        assert row.cross_entropy == pytest.approx(cross_entropy)
        assert row.native_cross_entropy == pytest.approx(native)
        assert row.excess_cross_entropy == pytest.approx(cross_entropy - native)
        assert row.fraction_scored == 1.0
        assert row.n_scored == (18 if text == "a" else 16)
        if listener == text:
            assert (row.excess_cross_entropy, row.interval_low, row.interval_high) == (0.0, 0.0, 0.0)
        else:
            assert row.interval_low <= row.excess_cross_entropy <= row.interval_high
    assert found.listeners == ()
    [asymmetry] = found.asymmetry
    assert asymmetry.asymmetry == pytest.approx((a_on_b - log(2)) - (log(2) - entropy_a))
    distance = symmetric_distances(found.matrix)
    assert distance["a", "b"] == distance["b", "a"] == pytest.approx((a_on_b - entropy_a) / 2)


def random_table(languages: list[str], sections: dict[str, int]) -> SectionTable:
    """Scores of which each listener's positions differ, as those of larger tokens do."""
    rng = Random(7)
    return {
        listener: {
            text: tuple(
                SectionScore(section=number, loss_sum=rng.uniform(1, 99), n_scored=rng.randrange(1, 30), n_total=30)
                for number in range(sections[text])
            )
            for text in languages
        }
        for listener in languages
    }


LANGUAGES = ["tr", "az", "kk", "fi"]
TABLE = random_table(LANGUAGES, {"tr": 3, "az": 5, "kk": 3, "fi": 2})


def test_recompute__gives_the_numbers_of_plain_python_to_six_decimals() -> None:
    def plainly(rows: tuple[SectionScore, ...]) -> list[experiment_numbers.Section]:
        return [experiment_numbers.Section(row.loss_sum, row.n_scored, row.n_total) for row in rows]

    scores = {name: {text: plainly(rows) for text, rows in texts.items()} for name, texts in TABLE.items()}
    plain = experiment_numbers.Seeds([scores], scores)
    found = recompute(SectionsFile(sections=TABLE, scoring_mode="assimilate"))
    expected = [
        *experiment_numbers.matrix(plain, "assimilate"),
        *experiment_numbers.listeners(plain, "assimilate"),
        *experiment_numbers.asymmetry(plain, "assimilate"),
    ]
    for row, own in zip([*found.matrix, *found.listeners, *found.asymmetry], expected, strict=True):
        given: dict[str, object] = dict(row)
        assert list(given) == list(own)
        for column, value in own.items():
            number = given[column]
            if isinstance(value, float) and isinstance(number, float):
                assert abs(number - value) <= 0.6e-6
                assert number == round(number, 6) and str(number) != "-0.0"
            else:
                assert (type(number), number) == (type(value), value)


def test_tables__have_their_rows_in_order() -> None:
    found = tables(TABLE, "skip")
    pairs = [(row.listener_language, row.text_language) for row in found.matrix]
    assert pairs == list(product(LANGUAGES, LANGUAGES))
    assert [(row.text_language, row.listener_a, row.listener_b) for row in found.listeners] == [
        (text, a, b) for text in sorted(LANGUAGES) for a, b in combinations(sorted(LANGUAGES), 2) if text not in (a, b)
    ]
    assert [(row.language_a, row.language_b) for row in found.asymmetry] == list(combinations(sorted(LANGUAGES), 2))


def test_recompute__needs_the_sections_alone() -> None:
    given = (
        '{"sections": {"a": {"a": [{"section": "x", "loss_sum": 2, "n_scored": 2, "n_total": 4}],'
        ' "b": [{"section": 7, "loss_sum": 3.0, "n_scored": 1, "n_total": 1}]},'
        ' "b": {"a": [{"section": "x", "loss_sum": 5.0000004, "n_scored": 3, "n_total": 4}],'
        ' "b": [{"section": 7, "loss_sum": 3.5, "n_scored": 1, "n_total": 1}]}}}'
    )
    found = recompute(SectionsFile.model_validate_json(given))
    # a single section: all resamples are equal
    assert all(row.interval_low == row.interval_high == row.excess_cross_entropy for row in found.matrix)
    numbers = [(row.cross_entropy, row.excess_cross_entropy, row.fraction_scored) for row in found.matrix]
    assert numbers == [(1.0, 0.0, 0.5), (3.0, -0.5, 1.0), (1.666667, 0.666667, 0.75), (3.5, 0.0, 1.0)]
    assert {row.scoring_mode for row in found.matrix} == {"skip"}


def score(section: int, n_scored: int = 1, n_total: int = 5) -> SectionScore:
    return SectionScore(section=section, loss_sum=float(n_scored), n_scored=n_scored, n_total=n_total)


TWO: tuple[SectionScore, ...] = (score(0), score(1))


def test_tables__drop_sections_that_a_listener_has_not_scored() -> None:
    def with_text(of_a: tuple[SectionScore, ...], of_b: tuple[SectionScore, ...]) -> SectionTable:
        return {"a": {"a": of_a, "b": (score(0),)}, "b": {"a": of_b, "b": (score(0),)}}

    dropped = with_text((*TWO, score(2)), (score(0), score(1, n_scored=0), score(2)))
    kept = (score(0), score(2))
    assert tables(dropped, "skip") == tables(with_text(kept, kept), "skip")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a": {"a": (score(0),)}, "b": {"b": (score(0),)}}, "The texts of listener 'a' are not those of all"),
        ({"a": {"a": (score(0),), "x": (score(0),)}}, "'x' is missing or has no listener of its own."),
        (
            {"a": {"a": (score(0),), "b": TWO}, "b": {"a": (score(0),), "b": TWO[::-1]}},
            "Listener 'a' has other sections of the text 'b' than the text's own model",
        ),
        ({"a": {"a": (score(0, n_scored=0),)}}, "No section of the text 'a' has a position"),
        ({"a": {"a": ()}}, "No section of the text 'a' has a position"),
        ({"a": {"a": (score(0, n_scored=6),)}}, "A section of the text 'a' has more scored positions than positions."),
    ],
)
def test_tables__of_unequal_sections_are_refused(table: SectionTable, message: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, message):
        tables(table, "skip")
