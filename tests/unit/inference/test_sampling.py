"""The distribution that tokens are drawn from: exact by filters and in large samples."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.answers import EOS, LETTERS, Script, write
from tests.support.tiny_models import doubles, floats
from trainer.config.validation import parse
from trainer.contracts.generations import GenerateRequest
from trainer.inference.sampling import choose, possible_tokens

K = TypeVar("K")
PROBABILITIES = [0.4, 0.05, 0.25, 0.2, 0.1]
TWO = {0: 0.4 / 0.65, 2: 0.25 / 0.65}
ALL = dict(enumerate(PROBABILITIES))
FILTERS: list[tuple[dict[str, object], dict[int, float]]] = [
    ({}, ALL),
    ({"top_k": 99}, ALL),
    ({"top_k": 2}, TWO),
    ({"top_p": 0.6}, TWO),
    ({"top_k": 3, "top_p": 0.7}, TWO),
    ({"top_p": 0.7}, {0: 0.4 / 0.85, 2: 0.25 / 0.85, 3: 0.2 / 0.85}),
    ({"top_p": 0.01}, {0: 1.0}),
    ({"temperature": 0.5}, {i: p * p / sum(q * q for q in PROBABILITIES) for i, p in ALL.items()}),
]
"""Options, and the probabilities that they leave."""
OPTIONS: list[dict[str, object]] = [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_k": 290}, {"top_k": 5000}]
OPTIONS += [{"top_p": 0.3}, {"top_p": 0.999}, {"top_k": 9, "top_p": 0.5}]


def request_of(**values: object) -> GenerateRequest:
    return parse(GenerateRequest, {"prompt_text": "", **values})


def left_over(logits: Tensor, request: GenerateRequest) -> dict[int, float]:
    """The probabilities that a request leaves, by id."""
    weights, ids = possible_tokens(doubles(logits), request)
    found: list[float] = weights.flatten().tolist()
    order: list[int] = [*range(len(found))] if ids is None else ids.flatten().tolist()
    return {token: weight / sum(found) for token, weight in zip(order, found, strict=True) if weight > 0}


def p_value(drawn: Mapping[K, int], expected: Mapping[K, float]) -> float:
    """Pearson's chi-square test of counts against probabilities; its tail is the regularized upper gamma function."""
    assert set(drawn) == set(expected)
    count = sum(drawn.values())
    statistic = sum((drawn[token] - count * p) ** 2 / (count * p) for token, p in expected.items())
    halves: list[float] = [(len(expected) - 1) / 2, statistic / 2]
    tail: Tensor = torch.special.gammaincc(*torch.tensor(halves, dtype=torch.float64))
    return tail.item()


@pytest.mark.parametrize(("values", "expected"), FILTERS)
def test_filter__leaves_the_exact_distribution_and_draws_follow_it(
    values: dict[str, object], expected: dict[int, float]
) -> None:
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log()
    assert left_over(logits.unsqueeze(0) + 3, request_of(**values)) == pytest.approx(expected)
    draws = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    drawn = Counter(choose(doubles(logits.repeat(20_000, 1)), request_of(**values), floats(draws)))
    assert len(expected) == len(drawn) == 1 or p_value(drawn, expected) > 1e-4
    model = Script({})  # it predicts the same after every token; special tokens are the likeliest, and never drawn
    model.table[:] = torch.tensor([9.0] * EOS + floats(logits) + [-100.0] * (len(LETTERS.names) - EOS - 5))
    found = write(model, seed=1, max_new_tokens=512, num_return_sequences=10, stop_on_eos=False, **values)
    written = Counter("\nabcd".index(letter) for letter in "".join(found.outputs or ()))
    assert written.total() == 5120
    assert len(expected) == len(written) == 1 or p_value(written, expected) > 1e-4


def test_temperature__that_is_colder_than_a_millionth_is_taken_for_one() -> None:
    apart: list[list[float]] = [[1.0, 1.0 + 1e-6, 0.5]]
    logits = torch.tensor(apart, dtype=torch.float64)
    share = 1 / (1 + math.exp(-1))
    assert left_over(logits, request_of(temperature=1e-9)) == pytest.approx({0: 1 - share, 1: share}, abs=1e-9)


def test_draw__just_below_1_is_a_token_that_is_possible() -> None:
    """Rounded sums of probabilities end at 1 minus some units of the last place."""
    logits = np.random.Generator(np.random.PCG64(5)).standard_normal((1000, 50)) * 20
    logits[:, ::3] = -math.inf
    for draw in (0.0, 0.6229, math.nextafter(1, 0)):
        for temperature in (20.0, 5.0, 1.0, 0.01):
            chosen = choose(logits.copy(), request_of(temperature=temperature), [draw] * len(logits))
            assert all(token % 3 for token in chosen)


@pytest.mark.parametrize("decimals", [0, 1, 8])  # with few decimals many tokens are equally likely
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_draw__from_a_large_vocabulary_equals_its_definition(
    options: dict[str, object], spread: float, decimals: int
) -> None:
    generator = np.random.Generator(np.random.PCG64(4))
    logits: NDArray[np.float64] = np.round(generator.standard_normal((4, 1200)) * spread, decimals)
    logits[:, ::7] = -math.inf  # tokens that are not allowed
    request = request_of(**options)
    rows: list[list[float]] = np.exp(logits / request.temperature).tolist()
    for draw in (0.0, 0.213, 0.617, 0.971, 0.99999, 1 - 1e-9):
        expected = [drawn_by_definition(weights, request, draw) for weights in rows]
        assert choose(logits.copy(), request, [draw] * len(rows)) == expected
        assert [choose(logits[[row]], request, [draw]) for row in range(4)] == [[token] for token in expected]


def drawn_by_definition(weights: list[float], request: GenerateRequest, draw: float) -> int:
    """Choose an id by its definition: cut the sorted tokens by top_k and top_p, if given, and walk up to the draw."""
    by_weight = [(-weight, i) for i, weight in enumerate(weights) if weight > 0]
    if request.top_k or request.top_p < 1:
        by_weight.sort()
    order = [i for _, i in by_weight][: request.top_k or len(weights)]
    total, kept, mass = math.fsum(weights[i] for i in order), list[int](), 0.0
    for i in order:
        if mass < request.top_p * total:
            kept.append(i)
            mass += weights[i]
    bound = 0.0
    for i in kept:
        bound += weights[i] / mass
        if bound > draw:
            return i
    return kept[-1]


def test_repetition_penalty__makes_the_tokens_of_the_window_less_likely() -> None:
    a, b = LETTERS.encode("ab")
    stuck = Script({})
    stuck.table[:, EOS] = -100.0
    stuck.table[:, a] = 1.0
    stuck.table[:, b] = 0.9
    for penalty, expected in ((None, "aaaaaa"), (2.0, "ababab"), (0.5, "aaaaaa")):
        found = write(stuck, temperature=0, max_new_tokens=6, repetition_penalty=penalty, repetition_window=1)
        assert found.outputs == (expected,)
