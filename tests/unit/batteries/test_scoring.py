"""Batteries scored by models whose probabilities are known, and by untrained ones."""

from itertools import product
from json import dumps
from math import log
from random import Random

import pytest
import torch

from tests.support.families import model_of
from tests.support.markers import slow_except
from tests.support.suites import SUITE
from tests.support.tiny_models import TableModel, tokenizer_of
from trainer.api import Model
from trainer.batteries.controls import counts_of
from trainer.batteries.reading import Battery, battery_of
from trainer.batteries.scoring import score_batteries
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryOptions, BatterySummary
from trainer.contracts.runs import RunModel
from trainer.contracts.sequences import SequenceScore, SequencesRequest, SequencesResponse
from trainer.data.rows import TextFile
from trainer.tokenizers.base import Tokenizer, vocabulary_of

NOUNS = [f"n{n}{number}" for n in range(12) for number in ("sg", "pl")]
VERBS = [(f"v{v}sg", f"v{v}pl") for v in range(5)]
AGREEMENT = {noun: random.uniform(0.05, 0.95) for random in [Random(4)] for noun in NOUNS}
"""The probability that the verb after a noun agrees with it."""
OPTIONS = BatteryOptions()
RUN = RunModel(run_id="bigram", seed=0)


def tokenizer() -> Tokenizer:
    words = [*NOUNS, *(form for forms in VERBS for form in forms)]
    return tokenizer_of("word", [" ".join(words)] * 2)


def pairs() -> Battery:
    rows = ["good,bad,group"]
    for noun, (singular, plural) in product(NOUNS, VERBS):
        good, bad = (singular, plural) if noun.endswith("sg") else (plural, singular)
        rows.append(f"{noun} {good},{noun} {bad},{'A' if noun < 'n5' else 'B'}")
    return battery_of("agreement", [TextFile("agreement.csv", "\n".join(rows).encode())], OPTIONS)


def language(*, is_mirrored: bool = False) -> Model:
    """A bigram model: a noun by chance, then a verb that agrees with the probability of the noun."""
    words = tokenizer()
    model = TableModel(vocabulary_of(words))
    ids = {word: words.encode(word)[0] for word in [*NOUNS, *(form for forms in VERBS for form in forms)]}
    table = torch.full((words.vocab_size, words.vocab_size), -60.0)
    for noun in NOUNS:
        table[words.special_ids.start or 0, ids[noun]] = log(1 / len(NOUNS))
        agrees = 1 - AGREEMENT[noun] if is_mirrored else AGREEMENT[noun]
        for singular, plural in VERBS:
            good, bad = (singular, plural) if noun.endswith("sg") else (plural, singular)
            table[ids[noun], ids[good]] = log(agrees / len(VERBS))
            table[ids[noun], ids[bad]] = log((1 - agrees) / len(VERBS))
    with torch.no_grad():
        model.embedding.weight.copy_(table)
    return Model("bigram", model.eval(), words)


def scored(model: Model, battery: Battery, options: BatteryOptions = OPTIONS, seed: int = 0) -> BatterySummary:
    return score_batteries(model.ask, RunModel(run_id=model.run_id, seed=seed), [battery], options)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_known_probabilities__give_the_computed_accuracy(is_mirrored: bool) -> None:
    options = BatteryOptions(has_controls=False)
    [result] = scored(language(is_mirrored=is_mirrored), pairs(), options).runs
    expected = {noun: (probability > 0.5) != is_mirrored for noun, probability in AGREEMENT.items()}
    overall = result.groups[0]
    assert [one.accuracy for one in overall.accuracies] == [sum(expected.values()) / len(NOUNS)] * 4
    for group in result.groups[1:]:
        nouns = [noun for noun in NOUNS if (noun < "n5") == (group.name == "A")]
        assert group.accuracies[0].accuracy == sum(expected[noun] for noun in nouns) / len(nouns)
    means = [group.accuracies[0].accuracy or 0.0 for group in result.groups[1:]]
    assert overall.mean_over_paradigms["sum"] == pytest.approx(sum(means) / 2)


def test_scores__are_the_logarithms_of_the_probabilities() -> None:
    sequences = tuple(sequence for item in pairs().items for sequence in item.sequences)
    answer = language().ask(SequencesRequest(sequences=sequences))
    shares = [(AGREEMENT[noun], 1 - AGREEMENT[noun]) for noun, _ in product(NOUNS, VERBS)]
    expected = [-log(share / len(VERBS) / len(NOUNS)) for of_item in shares for share in of_item]
    assert [score.nats for score in answer.scores or ()] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lstm", "gpt2"])
def test_untrained_models__are_at_chance_in_19_of_20_seeds(family: str) -> None:
    words, battery = tokenizer(), pairs()
    model = Model(family, model_of(family, vocabulary_of(words)), words)
    controls = [scored(model, battery, seed=seed).runs[0].controls[0] for seed in range(20)]
    assert sum(control.is_at_chance is True for control in controls) >= 19
    assert len({control.untrained.n_right for control in controls}) > 1, "each seed has its own weights"
    assert {control.chance for control in controls} == {0.5}


def test_pairs_with_a_common_beginning__are_decided_by_the_line_end() -> None:
    words = tokenizer_of("word", ["dog dogs s loudly"] * 2)
    model = TableModel(vocabulary_of(words))
    ids = {word: words.encode(word)[0] for word in ("dog", "dogs", "s")}
    with torch.no_grad():
        model.embedding.weight.zero_()  # but for what follows, every token is as likely as any other
        for noun, share in (("dog", 0.9), ("dogs", 0.2)):  # of nouns with an s behind them, at the end of a line
            model.embedding.weight[ids[noun]] = -60.0
            model.embedding.weight[ids[noun], ids["s"]] = log(share)
            model.embedding.weight[ids[noun], words.special_ids.line_end] = log(1 - share)
        model.embedding.weight[ids["s"]] = -60.0
        model.embedding.weight[ids["s"], words.special_ids.line_end] = 0.0
    rows = "good,bad\ndog s,dog\ndogs,dogs s\ndog s,loudly dog\n"
    battery = battery_of("ends", [TextFile("ends.csv", rows.encode())], OPTIONS)
    options = BatteryOptions(measure="end", has_controls=False)
    [by_end] = scored(Model("ends", model.eval(), words), battery, options).runs
    [group, _] = by_end.groups
    assert (group.n_items, group.n_prefix) == (3, 2)
    shares = {one.measure: (one.n_right, one.n_wrong) for one in group.accuracies}
    assert shares["end"] == (3, 0) and shares["sum"] == (2, 1), "the shorter of two is right once"
    [by_sum] = scored(Model("ends", model, words), battery, changed(options, measure="sum")).runs
    assert by_sum.groups[0].by("end") is None


def test_equal_items__are_counted_from_the_second_on() -> None:
    pair = "n0sg v0sg,n0sg v0pl"
    rows = f"good,bad,group\n{pair},A\n{pair},B\n{pair},B\nn0sg v0pl,n0sg v0sg,B\n"
    battery = battery_of("twice", [TextFile("twice.csv", rows.encode())], OPTIONS)
    [result] = scored(language(), battery, BatteryOptions(has_controls=False)).runs
    assert [(group.name, group.n_items, group.n_duplicates) for group in result.groups] == [
        ("", 4, 2),
        ("A", 1, 0),
        ("B", 3, 1),
    ]


def test_suite__has_its_formulas_and_effects() -> None:
    words = tokenizer_of("word", ["the sun was were shining on the sea"] * 2)
    model = Model("gpt2", model_of("gpt2", vocabulary_of(words)), words)
    battery = battery_of("suite", [TextFile("suite.json", dumps(SUITE).encode())], OPTIONS)
    [result] = scored(model, battery).runs
    regions = [one for one in result.effects if one.region is not None]
    assert {(one.what, one.region) for one in regions} == {(name, n) for name in ("good", "bad") for n in (1, 2, 3)}
    [difference, *_] = [one for one in result.effects if one.region is None]
    by_place = {(one.what, one.region): one.nats for one in regions}
    assert difference.nats == pytest.approx(by_place["good", 2] - by_place["bad", 2])
    assert difference.what == "(2;%good%) < (2;%bad%)"
    assert [one.n_items for one in result.formulas] == [2, 2]
    [control] = result.controls
    assert (control.battery, control.suite, control.n_items) == ("suite", "agreement", 2)
    assert control.untrained.measure == "sum", "formulas compare sums"
    assert [one.chance for one in result.formulas] == pytest.approx([0.5, 1.0], abs=0.02)
    assert [one.measure for one in result.groups[0].accuracies] == ["sum"]


def test_regions_without_formulas__have_no_controls() -> None:
    rows = "item,condition,region,text\n1,a,noun,n0sg\n1,a,verb,v0sg\n1,b,noun,n0sg\n1,b,verb,v0pl\n"
    battery = battery_of("regions", [TextFile("regions.csv", rows.encode())], OPTIONS)
    model = Model("gpt2", model_of("gpt2", vocabulary_of(tokenizer())), tokenizer())
    [result] = scored(model, battery).runs
    assert (result.controls, result.groups[0].accuracies, len(result.effects)) == ((), (), 4)
    assert counts_of(2, battery.items, "sum", {0: {}}, {0: {}}) == {}


@pytest.mark.parametrize("family", slow_except(["lstm", "gpt2"], "lstm"))
def test_untrained_models__are_at_the_chance_of_a_suite(family: str) -> None:
    rows = ["item,condition,region,text"]
    nouns = [noun.removesuffix("sg") for noun in NOUNS if noun.endswith("sg")]
    for noun, (verb, _) in product(nouns, VERBS):
        stem = verb.removesuffix("sg")
        for one, other in product(("sg", "pl"), ("sg", "pl")):
            cells = f"{noun}_{stem},{one}_{other}"
            rows += [f"{cells},noun,{noun}{one}", f"{cells},verb,{stem}{other}"]
    options = BatteryOptions(formulas=("(2;%sg_sg%) < (2;%sg_pl%)", "(2;%pl_pl%) < (2;%pl_sg%)"))
    battery = battery_of("verbs", [TextFile("verbs.csv", "\n".join(rows).encode())], options)
    words = tokenizer()
    model = Model(family, model_of(family, vocabulary_of(words)), words)
    controls = [scored(model, battery, options, seed).runs[0].controls[0] for seed in range(10)]
    assert [control.chance for control in controls] == pytest.approx([0.25] * 10, abs=0.02)
    assert sum(control.untrained.n_right for control in controls) / (10 * len(battery.items)) < 0.4


def test_suite_of_equal_values__is_undecided() -> None:
    def ask(request: SequencesRequest) -> SequencesResponse:
        score = SequenceScore(
            nats=3.0, part_nats=(1.0, 1.0, 1.0), n_tokens=3, n_chars=9, n_bytes=9, unk_count=0, is_cut=False
        )
        return SequencesResponse(
            request_id="equal", run_id="equal", status="completed", scores=(score,) * len(request.sequences)
        )

    battery = battery_of("suite", [TextFile("suite.json", dumps(SUITE).encode())], OPTIONS)
    [result] = score_batteries(ask, RUN, [battery], OPTIONS).runs
    undecided, equal = result.formulas
    assert (undecided.n_right, undecided.n_undecided, undecided.accuracy, undecided.low) == (0, 2, None, None)
    assert (equal.n_right, equal.n_undecided, equal.accuracy) == (2, 0, 1.0), "`=` has a tolerance of its own"
    assert [(one.n_ties, one.accuracy) for one in result.groups[0].accuracies] == [(2, None)]
