"""The order of an n-gram model and its discounts, as validation text chooses them."""

from collections.abc import Sequence
from itertools import product
from math import fsum, log

import pytest

from tests.unit.ngrams.brute_force import as_ids
from tests.unit.ngrams.texts import LINES, MODE_NAMES, MODES, STREAM, VOCAB_SIZE, drawn_texts, tokens_of
from trainer.contracts.tokenizers import SpecialIds
from trainer.ngrams import choose
from trainer.ngrams.choose import ChosenNgram, choose_ngram
from trainer.ngrams.counts import count_ngrams
from trainer.ngrams.kneser_ney import Discounts, KneserNey, closed_form, tables_of


def choice(
    train: Sequence[int],
    validation: Sequence[int],
    special: SpecialIds = LINES,
    max_order: int = 7,
    max_tokens: int | None = None,
) -> ChosenNgram:
    return choose_ngram(
        as_ids(train, VOCAB_SIZE),
        as_ids(validation, VOCAB_SIZE),
        vocab_size=VOCAB_SIZE,
        special_ids=special,
        max_order=max_order,
        max_tokens=max_tokens,
    )


def mean_loss_nats(model: KneserNey, tokens: Sequence[int]) -> float:
    losses: list[float] = model.losses_nats(as_ids(tokens, VOCAB_SIZE)).tolist()
    return fsum(losses) / len(losses)


def by_closed_form(tokens: Sequence[int], special: SpecialIds, order: int) -> KneserNey:
    found = count_ngrams(as_ids(tokens, VOCAB_SIZE), VOCAB_SIZE, special, order)
    tables = tables_of(found, order)
    return KneserNey(tables, tuple(map(closed_form, tables.counts)), VOCAB_SIZE, special)


@pytest.mark.parametrize("special", MODES, ids=MODE_NAMES)
def test_choice__is_the_order_with_the_lowest_validation_loss(special: SpecialIds) -> None:
    train, validation = (tokens_of(drawn_texts(lines, 6, seed), special) for lines, seed in ((200, 1), (60, 2)))
    chosen = choice(train, validation, special)
    losses = {order: mean_loss_nats(by_closed_form(train, special, order), validation) for order in range(1, 8)}
    best = min(losses, key=losses.__getitem__)
    assert chosen.model.order == best
    assert chosen.counted_tokens == len(train)
    found = dict(chosen.validation_losses_nats)
    assert found[best] == pytest.approx(mean_loss_nats(chosen.model, validation))
    assert found.pop(best) <= losses.pop(best)
    assert found == pytest.approx(losses)


def test_discounts__are_at_the_minimum_of_the_validation_loss() -> None:
    train, validation = (tokens_of(drawn_texts(lines, 6, seed), LINES) for lines, seed in ((300, 1), (200, 2)))
    model = choice(train, validation, max_order=2).model
    assert model.discounts != by_closed_form(train, LINES, 2).discounts
    lowest = mean_loss_nats(model, validation)
    for order, kind, change in product(range(2), range(3), (-0.02, 0.02)):
        moved = [list(of_order) for of_order in model.discounts]
        moved[order][kind] = min(max(moved[order][kind] + change, 0.01), kind + 1)
        discounts: tuple[Discounts, ...] = tuple((once, twice, more) for once, twice, more in moved)
        other = KneserNey(model.tables, discounts, VOCAB_SIZE, LINES)
        assert mean_loss_nats(other, validation) > lowest - 1e-5


def test_discounts__stay_those_of_the_counts_where_others_do_not_win_on_the_other_half() -> None:
    train = tokens_of(drawn_texts(50, 4, seed=1), LINES)
    seen_then_unseen = tokens_of([[0] * 9, [4] * 9], LINES)
    assert choice(train, seen_then_unseen, max_order=1).model.discounts == by_closed_form(train, LINES, 1).discounts
    mixed = tokens_of([[0, 4] * 9, [4, 0] * 9], LINES)
    assert choice(train, mixed, max_order=1).model.discounts != by_closed_form(train, LINES, 1).discounts


def test_no_validation_text__leaves_the_highest_order() -> None:
    train = tokens_of(drawn_texts(50, 5, seed=1), LINES)
    chosen = choice(train, [], max_order=4)
    assert chosen.model.order == 4
    assert chosen.model.discounts == by_closed_form(train, LINES, 4).discounts
    assert chosen.validation_losses_nats == {}


@pytest.mark.parametrize("tokens", [[2, 3], [2, 5, 3], [2, 5, 5, 5, 5, 3]])
def test_text_of_one_line__has_a_model(tokens: list[int]) -> None:
    chosen = choice(tokens, tokens)
    assert 0 < mean_loss_nats(chosen.model, tokens) < log(9)
    assert list(chosen.validation_losses_nats) == list(range(1, min(len(tokens), 7) + 1))


@pytest.mark.parametrize("special", [LINES, STREAM], ids=["lines", "stream"])
def test_sample__is_of_complete_lines_from_all_over_the_text(special: SpecialIds) -> None:
    texts = [[number % 4] * 3 for number in range(4000)]  # lines tell where they were
    for number, text in enumerate(texts):
        text.append(number // 1000)
    train = tokens_of(texts, special)
    chosen = choice(train, train[:100], special, max_order=2, max_tokens=2000)
    assert 1000 < chosen.counted_tokens <= 2000
    everything = choice(train, train[:100], special, max_order=2, max_tokens=len(train))
    assert everything.counted_tokens == len(train)
    bigrams: list[int] = chosen.model.tables.keys[1].tolist()
    expected: list[int] = everything.model.tables.keys[1].tolist()
    assert bigrams == expected


def test_sample__of_one_long_line_is_cut_anywhere() -> None:
    line = tokens_of([[number % 3 for number in range(5000)]], LINES)
    chosen = choice(line, line[:50], max_order=3, max_tokens=640)
    assert chosen.counted_tokens == 640


def test_long_validation_text__is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = (tokens_of(drawn_texts(lines, 6, seed), LINES) for lines, seed in ((50, 1), (300, 2)))
    at_once = choice(train, validation)
    monkeypatch.setattr(choose, "MAX_VALIDATION_TOKENS", 1000)
    sampled = choice(train, validation)
    for order, loss_nats in at_once.validation_losses_nats.items():
        assert sampled.validation_losses_nats[order] != loss_nats
        assert sampled.validation_losses_nats[order] == pytest.approx(loss_nats, abs=0.2)
