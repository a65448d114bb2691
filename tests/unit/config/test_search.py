"""The plan of a search: its rounds, its variants, and the requests that have one."""

from fractions import Fraction

import pytest

from tests.support.refusals import refused
from trainer.config.presets import request_hash, resolve
from trainer.config.search import chosen_request, of_variant, rounds, search_share, trial_request, variants
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import LlamaConfig, RnnConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.search import Search, Trial
from trainer.reports.report_text import ENGLISH, Reader
from trainer.reports.run_notes import search_note

OPEN: dict[str, object] = {"model_family": "lstm", "corpus": "text", "tokenizer": {"method": "char"}, "search": 8}
DROPOUT = {"embedding_size": 8, "hidden_size": 8, "num_layers": 1, "dropout": 0.3}


def resolved(**fields: object) -> EffectiveRequest:
    request = parse(TrainRequest, {**OPEN, **fields})
    corpus = CorpusRef(name="text", sha256="a" * 64, bytes=100_000)
    return resolve(request, corpus=corpus)


@pytest.mark.parametrize(
    ("number", "expected", "share"),
    [
        (2, [(2, Fraction(1, 2))], 1),
        (3, [(3, Fraction(1, 4)), (2, Fraction(1, 2))], Fraction(7, 4)),
        (8, [(8, Fraction(1, 8)), (4, Fraction(1, 4)), (2, Fraction(1, 2))], 3),
        (9, [(9, Fraction(1, 16)), (5, Fraction(1, 8)), (3, Fraction(1, 4)), (2, Fraction(1, 2))], Fraction(47, 16)),
    ],
)
def test_rounds__halve_the_variants_and_double_their_steps(
    number: int, expected: list[tuple[int, Fraction]], share: float
) -> None:
    assert [(each.variants, Fraction(each.share)) for each in rounds(number)] == expected
    assert [each.number for each in rounds(number)] == list(range(1, len(expected) + 1))
    assert search_share(resolved(search=number)) == share
    assert rounds(number)[-1].steps(1001) == 500
    assert rounds(number)[0].steps(1) == 1


@pytest.mark.parametrize("number", [2, 8, 64])
def test_variants__lie_around_the_values_of_the_rules_which_come_first(number: int) -> None:
    effective = resolved(search=number, model=DROPOUT | {"dropout": None})
    plan = variants(effective)
    assert isinstance(effective.model, RnnConfig)
    usual = effective.model.dropout
    assert [one.number for one in plan] == list(range(1, number + 1))
    assert (plan[0].learning_rate, plan[0].dropout) == (effective.learning_rate, usual)
    assert len({(one.learning_rate, one.dropout) for one in plan}) == number
    for one in plan:
        assert one.dropout is not None and 0 <= one.dropout <= usual + 0.2
        assert effective.learning_rate / 3.1 < one.learning_rate < effective.learning_rate * 3.1
    if number == 64:  # they reach all parts of the range
        rates, dropouts = [one.learning_rate for one in plan], [one.dropout or 0.0 for one in plan]
        assert min(rates) < effective.learning_rate / 2.5 and max(rates) > effective.learning_rate * 2.5
        assert max(dropouts) - min(dropouts) > 0.9 * (min(0.2, usual) + 0.2)


def test_variants__of_a_high_rate_stay_within_what_a_request_may_have() -> None:
    effective = changed(resolved(model=DROPOUT | {"dropout": None}, search=64), learning_rate=0.9)
    assert max(one.learning_rate for one in variants(effective)) == 1


def test_given_values__are_those_of_every_variant() -> None:
    with_rate, with_dropout = resolved(learning_rate=0.02), resolved(model=DROPOUT)
    assert {one.learning_rate for one in variants(with_rate)} == {0.02}
    assert len({one.dropout for one in variants(with_rate)}) == 8
    assert {one.dropout for one in variants(with_dropout)} == {None}
    assert len({one.learning_rate for one in variants(with_dropout)}) == 8
    models = [of_variant(with_dropout, one).model for one in variants(with_dropout)]
    assert {model.dropout for model in models if isinstance(model, RnnConfig)} == {0.3}


def test_transformer__is_searched_in_the_dropout_that_is_not_given() -> None:
    effective = resolved(model_family="llama", model_size="tiny", model={"dropout": 0.1})
    assert effective.searched == ("learning_rate", "model.attention_dropout")
    tried = of_variant(effective, variants(effective)[3])
    assert isinstance(tried.model, LlamaConfig)
    assert (tried.model.dropout, tried.model.attention_dropout) == (0.1, variants(effective)[3].dropout)
    assert resolved(model_family="llama", model_size="tiny").searched == (
        *("learning_rate", "model.dropout", "model.attention_dropout"),
    )
    assert tried.learning_rate == variants(effective)[3].learning_rate


def test_hash__does_not_depend_on_the_choice_of_the_search() -> None:
    effective = resolved()
    assert len({request_hash(of_variant(effective, one)) for one in variants(effective)}) == 1
    others = (resolved(search=4), resolved(learning_rate=0.02), resolved(learning_rate=0.03), resolved(search=None))
    assert len({request_hash(one) for one in (effective, *others)}) == 5
    plain = {name: value for name, value in OPEN.items() if name != "search"}
    assert request_hash(resolved(search=None)) == request_hash(
        resolve(
            parse(TrainRequest, plain),
            corpus=effective.corpus,
        )
    )


def test_trial__has_a_schedule_that_ends_with_its_steps() -> None:
    effective = resolved(sample_every_steps=5, checkpoint_schedule=[1, 2])
    trial = trial_request(effective, variants(effective)[1], 70)
    assert (trial.max_steps, trial.search, trial.sample_every_steps, trial.checkpoint_schedule) == (
        70,
        None,
        None,
        None,
    )
    assert not trial.early_stopping.enabled and effective.early_stopping.enabled


def test_best__is_the_lowest_of_the_last_round_and_the_first_of_equals() -> None:
    def trial(number: int, round_: int, loss: float | None) -> Trial:
        return Trial(number=number, learning_rate=0.01 * number, dropout=0.1, round=round_, steps=50, val_loss=loss)

    first = [trial(1, 1, 2.0), trial(2, 1, 1.0), trial(3, 1, None)]
    search = Search(variants=3, trials=(*first, trial(1, 2, 1.5), trial(2, 2, 1.5)))
    assert search.best == trial(1, 2, 1.5)
    assert ENGLISH.note(search_note(search)) == (
        "Best of 3 variants: learning rate 0.01, dropout 0.1 (1.500 nats per token after 50 steps)"
    )
    later = Search(variants=3, trials=(*first, trial(1, 2, 1.5), trial(2, 2, 1.25)))
    assert Reader("bits").note(search_note(later)).endswith("(1.803 bits per token after 50 steps; 2.164 by the rules)")
    assert chosen_request(resolved(), later).learning_rate == 0.02
    vain = Search(variants=2, trials=(trial(1, 1, None), trial(2, 1, None)))
    assert ENGLISH.note(search_note(vain)) == "None of 2 variants learned: the values of the rules were taken"
    assert chosen_request(resolved(), vain) == resolved()
    assert vain.best is None, "a card would show its values as chosen"
    assert (Search(variants=2).best, search_share(resolved(search=None))) == (None, 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_seconds": 60}, "give `search` or `max_seconds`, not both"),
        ({"seeds": 3}, "give `search` or `seeds`, not both"),
        ({"devices": 2}, "`devices` must be 1 with `search`, you gave 2"),
    ],
)
def test_search__is_refused_beside_what_contradicts_it(fields: dict[str, object], said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        resolved(**fields)
