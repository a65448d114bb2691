"""Comparison of two runs: comparable metrics, regressions, and different request fields."""

import math

import pytest
from scipy.stats import t

from tests.support.baselines import BETTER, WORSE
from tests.support.families import config_of, effective_of
from tests.support.measured_runs import OTHER_TEXT, OWN_TEXT, SUMMARY, TEXT, line_losses, measured, of_fields
from tests.support.refusals import refused
from tests.support.stories import run_record
from trainer.artifacts.runs import manifest_of
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baselines
from trainer.contracts.environment import Environment
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalSplit
from trainer.contracts.models import NgramConfig
from trainer.contracts.reports import Link, Note, Table
from trainer.contracts.runs import DataFacts, EvalSummary, KnownFigures, Leak, RunManifest, Shares, SplitSizes
from trainer.reports.comparison import (
    Against,
    Comparison,
    Difference,
    Figures,
    MeasuredGroup,
    Measurement,
    compare,
    differences,
    model_name,
    summary_on,
)
from trainer.reports.comparison_report import comparison_report, verdict
from trainer.reports.report_text import Reader, rows_of

Fields = dict[str, object]
ENVIRONMENT = parse(
    Environment,
    {
        **{"python": "3.11", "libraries": {"torch": "2"}, "cpu": "x", "gpu": None, "threads": 1, "interop_threads": 1},
        **{"cpu_capability": "AVX512", "onednn_isa": "Intel AVX-512", "device": "cpu", "git_commit": "a"},
    },
)
BITS = Reader("bits")
ONE_SEED = "One seed each: the interval covers lines of the text, not the spread of trainings."


def notes_of(one: Against) -> tuple[str, ...]:
    """The notes of a comparison as text."""
    return tuple(map(BITS.note, one.notes))


def pair(one: Measurement, two: Measurement, split: EvalSplit | None = "test", tolerance: float = 0.01) -> Comparison:
    return compare([one, two], split=split, tolerance=tolerance)


def trained_by(one: Measurement, environment: Environment) -> Measurement:
    return one._replace(manifest=changed(one.manifest, environment=environment))


@pytest.mark.parametrize(
    ("loss", "spread", "tolerance", "expected", "said"),
    [
        (2.1, 0.2, 0.01, "worse", "✗ worse: loss +5.00% (95 % interval +1.76% to +8.24%), more than 1.00%"),
        (2.1, 0.2, 0.06, "worse", "worse within the tolerance: loss +5.00% (95 % interval +1.76% to +8.24%)"),
        (2.1, 0.4, 0.01, "no_clear_difference", "no clear difference: loss +5.00% (95 % interval -1.48% to +11.48%)"),
        (1.9, 0.4, 0.0, "no_clear_difference", "no clear difference: loss -5.00% (95 % interval -11.48% to +1.48%)"),
        (1.9, 0.2, 0.0, "better", "better: loss -5.00% (95 % interval -8.24% to -1.76%)"),
        (2.0, 0.2, 0.0, "equal", "equal: same loss within rounding"),
        (2 + 4.6e-8, 0.0, 0.0, "equal", "equal: same loss within rounding"),
        (2 - 4.6e-8, 0.0, 0.0, "equal", "equal: same loss within rounding"),
    ],
)
def test_verdict__is_better_or_worse_only_where_the_interval_excludes_zero(
    loss: float, spread: float, tolerance: float, expected: str, said: str
) -> None:
    """The half width of t * s / sqrt(n) with 40 lines is 2.0227 * spread * sqrt(40/39) / sqrt(40), of a loss of 2."""
    summary: Fields = {"loss": loss, "lines": line_losses(loss, spread)}
    found = pair(measured("new", summary=summary, learning_rate=0.1), measured("old"), tolerance=tolerance)
    [one] = found.against
    is_regression = said.startswith("✗")
    assert (one.run_id, one.basis, one.verdict, one.is_regression) == ("old", "loss", expected, is_regression)
    assert one.rise == pytest.approx((loss - 2) / 2)
    assert (one.interval is None) == (spread == 0)
    if one.interval is not None:
        assert one.interval.high - one.interval.low == pytest.approx(2.0227 * spread / math.sqrt(39), rel=1e-4)
    assert one.delta.loss == pytest.approx(loss - 2)
    assert BITS.note(verdict(one, found.tolerance)) == said
    assert notes_of(one) == (() if expected == "equal" else (ONE_SEED,))
    assert found.is_passed is not is_regression


def test_runs__are_named_by_labels_with_the_ends_of_ids_where_two_have_one() -> None:
    labels = {"a": "wide", "b@20": "narrow", "b@40": "narrow", "c": None, "d": "twin", "e": "twin"}
    found = compare(
        [measured(run_id.partition("@")[0] + "x" * (run_id == "b@40")) for run_id in ("first", *labels)], split="test"
    )
    runs, against = [found.runs[0]], list[Against]()
    for (run_id, label), run, one in zip(labels.items(), found.runs[1:], found.against, strict=True):
        runs.append(changed(run, run_id=run_id, label=label))
        against.append(changed(one, run_id=run_id))
    report = comparison_report(changed(found, runs=tuple(runs), against=tuple(against)))
    metrics, changes = (part for part in report.sections[1].parts if isinstance(part, Table))
    names = ["wide", "narrow@20", "narrow@40", "c", "twin (d)", "twin (e)"]
    assert [row[:2] for row in metrics.rows][1:] == [
        (Link(text=name, address=f"runs/{run_id.partition('@')[0]}"), run_id)
        for name, run_id in zip(names, labels, strict=True)
    ]
    assert [row[0] for row in changes.rows] == names


@pytest.mark.parametrize(
    ("fields", "drawn"),
    [
        ({}, {"validation", "test"}),
        ({"split_by": "position"}, set[str]()),
        ({"split_by": "file"}, set[str]()),
        ({"test_corpus": OWN_TEXT}, {"validation"}),
        ({"test_corpus": OWN_TEXT, "split_by": "position"}, set[str]()),
    ],
)
def test_lines__are_drawn_by_lot_where_a_corpus_is_split_by_line(fields: Fields, drawn: set[str]) -> None:
    effective = of_fields("new", fields).manifest.effective
    assert {split for split in ("validation", "test") if effective.draws_lines(split)} == drawn


@pytest.mark.parametrize("is_drawn", [True, False])
def test_interval_of_neighbouring_lines__is_over_blocks(is_drawn: bool) -> None:
    """Turns of fifteen lines: 60 independent lines show a difference, four blocks of equal lines do not."""
    lines = line_losses(2.1, 0.2, lines=60, turns=15, is_drawn=is_drawn)
    old = measured("old", summary={"lines": line_losses(2.0, lines=60, is_drawn=is_drawn)})
    [one] = pair(measured("new", summary={"loss": 2.1, "lines": lines}, learning_rate=0.1), old).against
    count, half = (60, 2.0010) if is_drawn else (4, 3.1824)
    assert one.interval is not None and one.rise is not None
    assert one.interval.high - one.rise == pytest.approx(half * 0.2 / math.sqrt(count - 1) / 2, rel=1e-4)
    assert one.verdict == ("worse" if is_drawn else "no_clear_difference")
    note = "Neighbouring lines depend on each other: the interval takes them in blocks, 10 at most."
    assert notes_of(one) == ((ONE_SEED,) if is_drawn else (ONE_SEED, note))


def test_several_comparisons__have_verdicts_of_p_adjusted_for_their_number() -> None:
    """Each p is that of t = difference / (0.2 / sqrt(39)) with 39 degrees; p_holm are 4, 3, 2 times p and p itself."""
    first = measured("new", summary={"lines": line_losses(2.0, 0.2)}, learning_rate=0.1)
    losses = {"far": 1.8, "near": 1.93, "nearer": 1.99, "close": 1.92}
    others = [measured(name, summary={"loss": loss, "lines": line_losses(loss, 0.0)}) for name, loss in losses.items()]
    found = compare([first, *others], split="test")
    p = {name: 2 * float(t.sf((2.0 - loss) / (0.2 / math.sqrt(39)), 39)) for name, loss in losses.items()}
    p_holm = {"far": 4 * p["far"], "close": 3 * p["close"], "near": 2 * p["near"], "nearer": p["nearer"]}
    assert p["near"] < 0.05 < p_holm["close"] < p_holm["near"]
    for name, one in zip(losses, found.against, strict=True):
        assert one.p == pytest.approx(p[name], abs=2e-6) and one.p_holm == pytest.approx(p_holm[name], abs=1e-5)
        is_clear = name == "far"
        assert (one.verdict, one.is_regression) == ("worse" if is_clear else "no_clear_difference", is_clear)
        [alone] = pair(first, others[[*losses].index(name)]).against
        assert (alone.p_holm, alone.interval, notes_of(alone)) == (None, one.interval, notes_of(one)[:1])
    assert notes_of(found.against[0])[1:] == (
        "Adjusted for 4 comparisons, p is below 0.0001 (Holm 1979); the interval is not adjusted.",
    )
    assert notes_of(found.against[1])[1:] == (
        f"Adjusted for 4 comparisons, p is {p_holm['near']:.4g} (Holm 1979), alone {p['near']:.4g}: the difference"
        " is not clear, although its own interval excludes zero.",
    )


def test_runs_that_differ_in_their_seeds_only__are_no_regression() -> None:
    first, other = measured("new", seed=7, summary={"loss": 2.1}), trained_by(measured("old"), ENVIRONMENT)
    found = pair(trained_by(first, ENVIRONMENT), other)
    [one] = found.against
    assert (one.verdict, one.is_regression, found.is_passed) == ("worse", False, True)
    assert notes_of(one) == ("These runs differ only in their seeds: the difference is the spread of trainings.",)
    assert BITS.note(verdict(one, 0.01)) == "worse: loss +5.00% (95 % interval +4.98% to +5.02%)"
    [elsewhere] = pair(trained_by(first, changed(ENVIRONMENT, git_commit="b")), other).against
    assert (elsewhere.is_regression, notes_of(elsewhere)) == (True, (ONE_SEED,))


@pytest.mark.parametrize(
    ("changes", "is_chance"),
    [
        ({"cpu_capability": "AVX2"}, True),
        ({"onednn_isa": "Intel AVX2"}, True),
        ({"threads": 2}, False),
        ({"threads": 3}, True),
        ({"interop_threads": 2}, False),
        ({"device": "cuda:0", "gpu": "A100"}, True),
        ({"cpu": "another with the same instructions"}, False),
        ({"cpu_capability": "AVX2", "libraries": {"torch": "3"}}, False),
    ],
)
def test_equal_requests_on_different_cpus__are_no_regression(changes: Fields, is_chance: bool) -> None:
    new = trained_by(measured("new", summary={"loss": 2.1}), ENVIRONMENT)
    [one] = pair(new, trained_by(measured("old"), changed(ENVIRONMENT, **changes))).against
    said = "Equal seeds give equal numbers only on equal CPUs: these have other instructions, threads or devices."
    assert (one.is_regression, notes_of(one)) == (not is_chance, (said if is_chance else ONE_SEED,))


def test_difference_without_an_interval__is_no_verdict() -> None:
    few = line_losses(2.0, lines=5)
    old = measured("old", summary={"lines": few})
    found, same = (pair(measured("new", summary={"lines": few, "loss": loss}), old) for loss in (2.5, 2.0))
    [one] = found.against
    assert (one.verdict, one.interval, one.is_regression, found.is_passed) == ("no_interval", None, False, False)
    assert notes_of(one) == ("No interval: the text has 5 lines, and an interval takes 6 or more.",)
    assert BITS.note(verdict(one, 0.01)) == "no interval: loss +25.00%"
    assert (same.against[0].verdict, same.is_passed) == ("equal", True)
    [other] = pair(measured("new", summary={"lines": line_losses(2.5, lines=7), "loss": 2.5}), measured("old")).against
    assert (other.verdict, notes_of(other)[0].partition(",")[0]) == (
        "no_interval",
        "No interval: the two evaluations have other lines",
    )


def test_delta__is_of_every_number_and_absent_where_one_is_not_known() -> None:
    better: Fields = {"perplexity": 7.0, "bits_per_char": 1.25, "top1_accuracy": 0.5, "top5_accuracy": 0.75}
    old: Fields = {"bits_per_char": None, "top1_accuracy": None, "top5_accuracy": None}
    new = measured("new", summary=better)._replace(tokens_per_second=1500.0)
    found = compare([new, measured("known"), measured("first", summary=old)._replace(tokens_per_second=None)])
    known, first = (one.delta for one in found.against)
    assert (known.bits_per_char, known.top1_accuracy, known.top5_accuracy) == (-0.25, 0.25, 0.25)
    assert known.perplexity == pytest.approx(-0.389)
    assert (known.params, known.tokens_per_second) == (0, 500.0)
    assert (first.bits_per_char, first.top1_accuracy, first.tokens_per_second) == (None, None, None)
    assert [run.run_id for run in found.runs] == ["new", "known", "first"]
    assert found.runs[0].tokens_per_second == 1500.0


def test_rows__have_the_ngram_of_each_run_on_the_split_that_is_compared() -> None:
    baselines: Baselines = {"test": BETTER, "validation": WORSE}
    one, two = (
        each._replace(manifest=changed(each.manifest, baselines=baselines))
        for each in (measured("one"), measured("two", seed=7))
    )
    on_another_text = one._replace(summary=changed(one.summary, dataset="text"))
    group = MeasuredGroup("group", [two, measured("uncounted")])
    assert [run.ngram_bits_per_char for run in compare([one, measured("old"), group]).runs] == [1.8128, None, None]
    assert compare([measured("old"), MeasuredGroup("group", [one, two])]).runs[1].ngram_bits_per_char == 1.8128
    assert compare([on_another_text, two]).runs[0].ngram_bits_per_char is None


OTHER_SPLIT = "Their test splits differ, so none of their metrics are comparable."
LOWERCASE: Fields = {"tokenizer": {"method": "char", "normalization": {"lowercase": True}}}
SAME_TEST: Fields = {"test_corpus": OWN_TEXT}
NO_FIGURES: Fields = dict.fromkeys(("loss", "perplexity", "bits_per_char", "top1_accuracy", "top5_accuracy"), None)
DIFFERENT: list[Fields] = [{"corpus": OTHER_TEXT}, {"split_seed": 7}, {"test_fraction": 0.2}]
DIFFERENT += [{"split_by": "position"}, SAME_TEST]
BASES: list[tuple[Fields, Fields, EvalSplit | None, str | None, str]] = [
    ({"corpus": OTHER_TEXT, "split_seed": 7, **SAME_TEST}, SAME_TEST, "test", "loss", ""),
    ({"seed": 7}, {}, "test", "loss", ""),
    ({"holdout_fraction": 0.2}, {}, "test", "loss", ""),
    ({"holdout_fraction": 0.2}, {}, "validation", None, "Their validation splits differ,"),
    ({"corpus": OTHER_TEXT}, {}, None, "loss", ""),
    ({"split_by": "position"}, {}, None, "loss", ""),
    (SAME_TEST, {}, "validation", None, "Their validation splits differ,"),  # what is left for it is another text
    (SAME_TEST, {"test_fraction": 0.0}, "validation", "loss", ""),
    (LOWERCASE, {}, None, None, "Their normalizations differ, so none of their metrics are comparable."),
    ({"documents": "stream", "split_by": "position"}, {}, None, None, "Their `documents` differ, so none of their me"),
    ({"objective": "masked_lm"}, {}, None, None, "none of their metrics are comparable"),
]

BASES += [(fields, {}, "test", None, OTHER_SPLIT) for fields in DIFFERENT]


@pytest.mark.parametrize(("new", "old", "split", "basis", "note"), BASES)
def test_runs__compare_on_one_text_in_one_form_only(
    new: Fields, old: Fields, split: EvalSplit | None, basis: str | None, note: str
) -> None:
    found = pair(of_fields("new", new), of_fields("old", old), split)
    [one] = found.against
    assert (one.basis, one.is_on_one_text) == (basis, basis is not None or "objective" in new)
    if basis is None:
        assert (one.rise, found.is_passed, len(notes_of(one))) == (None, False, 1)
        assert note in notes_of(one)[0]
    if note == OTHER_SPLIT:
        assert one.delta == parse(Figures, {**NO_FIGURES, "params": 0, "tokens_per_second": 0.0})


def test_different_tokenizers__compare_by_bits_per_character_only() -> None:
    known: Fields = {"loss": 9.0, "bits_per_char": 1.4, "unknown_share": 0.125, "unknown_char_share": 0.001}
    masked, other = (measured(name, tokenizer=name, objective="masked_lm") for name in ("a", "b"))
    [one] = pair(masked, other).against
    assert (one.basis, one.is_regression) == (None, False)
    assert notes_of(one) == ("Their tokenizers differ, so losses per token are not comparable.",)
    new = measured("new", tokenizer="b", summary=known)
    [one] = pair(new, measured("old")).against
    assert (one.basis, one.is_regression) == ("bits_per_char", False)
    assert one.rise == pytest.approx(-0.1 / 1.5)
    assert "only losses per character are comparable" in notes_of(one)[0]
    assert notes_of(one)[1:] == (ONE_SEED,)
    # 40 lines of 90 ± 0.7 and of 20 nats, in 20 characters: 2.0227 · 0.7 / 20 / √39 nats, by 1.5 bits
    assert BITS.note(verdict(one, 0.01)) == "better: loss per character -6.67% (95 % interval -7.76% to -5.58%)"
    assert (one.delta.loss, one.delta.perplexity, one.delta.top1_accuracy) == (None, None, None)
    assert one.delta.bits_per_char == pytest.approx(-0.1)
    [unknown] = pair(new, measured("old", summary={"bits_per_char": None})).against
    assert (unknown.basis, unknown.rise, BITS.note(verdict(unknown, 0.01))) == (None, None, "not comparable")


KNOWN = KnownFigures(loss=3.0, top1_accuracy=0.125, top5_accuracy=0.25, n_tokens=300)


def test_unknown_characters__make_bits_per_character_too_low_to_compare() -> None:
    unread = measured("new", tokenizer="b", summary={"bits_per_char": 0.899, "unknown_char_share": 0.845})
    note = "`new` does not know 84.5% of the characters, so its losses per character are too low to compare."
    for found in (pair(unread, measured("old")), pair(measured("old"), unread)):
        [one] = found.against
        assert (one.basis, one.rise, found.is_passed) == (None, None, False)
        assert notes_of(one)[1:] == (note,)
    [alike] = pair(unread, measured("old", tokenizer="b")).against
    shared = (
        "The tokenizer of these runs does not know 84.5% of the characters, so losses per character are too low to"
        " compare with those of other tokenizers."
    )
    assert (alike.basis, notes_of(alike), alike.verdict) == ("loss", (shared,), "equal")


@pytest.mark.parametrize(
    ("share", "known", "cells"),
    [
        (0.001, KNOWN, ["2.885", "1.500", "7.39", "25.0%", "50.0%", "1.813"]),
        (0.05, KNOWN, ["2.885 (!)", "1.500 (!)", "7.39 (!)", "25.0% (!)", "50.0% (!)", "1.813 (!)"]),
        (0.845, KNOWN, ["2.885 (!)", "–", "–", "–", "–", "–"]),
        (0.845, None, ["2.885 (!)", "1.500 (!)", "7.39 (!)", "25.0% (!)", "50.0% (!)", "1.813 (!)"]),
    ],
)
def test_unknown_tokens__mark_each_figure_of_their_row(
    share: float, known: KnownFigures | None, cells: list[str]
) -> None:
    """Above 5 % of unknown characters only figures over known tokens say something; earlier records have none."""
    new = measured("new", summary={"unknown_char_share": share, "known": known})
    new = new._replace(manifest=changed(new.manifest, baselines={"test": BETTER}))
    report = comparison_report(pair(new, measured("old")))
    [metrics, _] = [one for one in report.tables() if one.name in ("metrics", "differences")]
    [_, of_new, of_old] = rows_of(metrics, BITS)
    assert [*of_new[3:8], of_new[-1]] == cells and of_old[3:8] == ["2.885", "1.500", "7.39", "25.0%", "50.0%"]
    notes = [BITS.note(part) for one in report.sections for part in one.parts if isinstance(part, Note)]
    line = "new: Over known tokens: 4.328 bits per token, perplexity 20.09, top-1 12.5%, top-5 25.0%"
    assert (line in notes) == (share == 0.845 and known is not None)


def test_unknown_tokens__mark_the_mean_of_a_group() -> None:
    group = MeasuredGroup("group-1", [measured(f"s{n}", seed=n, summary={"unknown_char_share": 0.5}) for n in (1, 2)])
    report = comparison_report(compare([group, measured("old")], split="test"))
    [metrics] = [one for one in report.tables() if one.name == "metrics"]
    assert rows_of(metrics, BITS)[1][3:5] == ["2.885 (!)±0.000", "1.500 (!)±0.000"]


LEAKED, CLEAN = Leak(lines=0.8, ancestors=("parent",)), Leak(lines=0.01, unsearched=("gone",))
WORDS_LEAK = "0.0% of the lines and 1.1% of the 13-grams of words"
NEAR_LEAK = "0.0% of the lines and 11.0% of the lines without case, punctuation and spaces"
OWN = "stand in the training text of `new`: its loss says little about unseen text."
READ = (
    "stand in the training text of `new` or in the training text of `parent`: its loss says little about unseen text."
)
NOT_SEARCHED = "The training text of `gone` is deleted or has changed, so this text was not searched for in it."
CHOSEN = (
    "50.0% of the lines of this text stand in the validation text, which chooses the weights: its loss is a little too"
    " low."
)


@pytest.mark.parametrize(
    ("new", "old", "expected", "notes"),
    [
        (CLEAN, None, "better", (NOT_SEARCHED,)),
        (LEAKED, None, "not_comparable", (f"80.0% of the lines of this text {READ}",)),
        (LEAKED, CLEAN, "not_comparable", (f"80.0% of the lines of this text {READ}", NOT_SEARCHED)),
        (changed(LEAKED, lines=0, words=0.011), None, "not_comparable", (f"{WORDS_LEAK} of this text {READ}",)),
        (changed(LEAKED, lines=0, validation=Shares(lines=0.5)), None, "better", (CHOSEN,)),
        (Leak(lines=0, plain_lines=0.1), None, "better", ()),
        (Leak(lines=0, plain_lines=0.11), Leak(lines=0.01), "not_comparable", (f"{NEAR_LEAK} of this text {OWN}",)),
    ],
)
def test_text_that_a_run_has_trained_on__gives_no_verdict(
    new: Leak, old: Leak | None, expected: str, notes: tuple[str, ...]
) -> None:
    one = measured("new", summary={"loss": 1.0, "leak": new, "dataset": "text"})
    two = measured("old", summary={"leak": old, "dataset": "text"})
    [against] = pair(one, two, None).against
    assert (against.verdict, against.delta.loss is None) == (expected, expected == "not_comparable")
    reach = [ONE_SEED] if expected == "better" else []
    assert notes_of(against) == (*notes, *reach)
    [of_group] = compare([two, MeasuredGroup("group", [measured("third", seed=7), one], ())]).against
    assert (of_group.verdict == "not_comparable") is (expected == "not_comparable")
    assert set(notes) <= {*notes_of(of_group)}


def test_split_that_a_run_has_trained_on__gives_no_verdict_on_earlier_evaluations() -> None:
    size = SplitSizes(lines=1, chars=1, tokens=1)
    data = DataFacts(corpus=TEXT, train=size, validation=size, test=changed(size, leak=LEAKED))
    new = measured("new", summary={"loss": 1.0})
    new = new._replace(manifest=changed(new.manifest, data=data))
    [one] = pair(new, measured("old")).against
    assert (one.verdict, notes_of(one)) == ("not_comparable", (f"80.0% of the lines of the test split {READ}",))
    elsewhere = new._replace(summary=changed(new.summary, dataset="text"))
    assert pair(elsewhere, measured("old"), None).against[0].verdict == "better"


def test_gaps_masked_by_different_seeds__differ_by_chance_too() -> None:
    one = measured("new", family="bert")
    assert notes_of(pair(one, measured("old", family="bert", seed=3)).against[0]) == ()  # equal
    [other] = pair(one, measured("other", family="bert", split_seed=3), split=None).against
    assert (other.basis, len(notes_of(other))) == ("loss", 1)
    assert "a part of the difference is chance" in notes_of(other)[0]


def test_loss_of_nothing__is_no_measure_for_another() -> None:
    found = pair(measured("new"), measured("old", summary={"loss": 0.0}))
    [one] = found.against
    assert (one.rise, BITS.note(verdict(one, 0.01)), found.is_passed) == (None, "not comparable", False)


def test_differences__are_the_fields_that_differ_and_no_others() -> None:
    new = measured("new", learning_rate=0.02, label="mine", tags=("x",), optimizer={"name": "sgd"})
    [one] = pair(new, measured("old", test_corpus=OWN_TEXT)).against
    wanted = {
        **{"learning_rate": ("0.02", "0.01"), "optimizer.name": ("sgd", "adamw")},
        "test_corpus.name": ("null", "own"),
    }
    found = {difference.field: (difference.run, difference.other) for difference in one.differences}
    assert wanted.items() <= found.items()
    assert {field.split(".")[0] for field in found} == {"learning_rate", "optimizer", "test_corpus"}
    assert not any(field.endswith((".sha256", ".bytes")) for field in found)
    assert pair(measured("new"), measured("old")).against[0].differences == ()
    [one] = pair(measured("new", corpus=OTHER_TEXT), measured("old")).against  # of the same name
    assert one.differences == (Difference(field="corpus.sha256", run="1" * 64, other="0" * 64),)


def manifest_with(*summaries: EvalSummary) -> RunManifest:
    return changed(manifest_of(run_record("lstm-1"), "completed"), eval=summaries)


def test_summary__is_of_the_split_itself_and_of_no_other_text() -> None:
    validation, elsewhere = changed(SUMMARY, split="validation", loss=3.0), changed(SUMMARY, dataset="other")
    assert summary_on(manifest_with(elsewhere, validation, SUMMARY), "test") == SUMMARY
    assert summary_on(manifest_with(elsewhere, validation, SUMMARY), "validation").loss == 3.0
    with refused(ErrorCode.EVAL_NOT_FOUND, "`mt eval lstm-1 --split validation`"):
        summary_on(manifest_with(elsewhere, SUMMARY), "validation")


def test_model__is_named_by_layers_and_width() -> None:
    names = {"lstm": "LSTM-2x16", "gru both": "BiGRU-2x16", "gpt2": "GPT2-2x16", "qwen": "QWEN-2x16"}
    for family, name in names.items():
        assert model_name(config_of(family)[0]) == model_name(effective_of(family).model) == name
    assert model_name(effective_of("ngram").model) == "3-GRAM"
    assert model_name(NgramConfig(max_order=7, order=5)) == "5-GRAM"


def test_counts_of_ngrams__are_no_settings() -> None:
    one = effective_of("ngram")
    other = changed(one, model=NgramConfig(max_order=4, order=2, ngrams=(5, 9), discounts=((0.5, 1.0, 1.5),) * 2))
    assert [*differences(one, other)] == [Difference(field="model.max_order", run="3", other="4")]
