"""Continuations: the distribution that is drawn from, and when they end."""

import math
import re
from collections import Counter
from itertools import pairwise, product
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.support.families import vocabulary
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import char_tokenizer, doubles, floats, small_model
from trainer.config.validation import parse
from trainer.contracts.inference import GenerateRequest, GenerateResponse
from trainer.inference.generation import generate
from trainer.inference.sampling import choose, possible_tokens
from trainer.models.base import LanguageModel, ModelState

TOKENIZER = char_tokenizer(["abcdefgh"])
SIZE = TOKENIZER.vocab_size
BOS, EOS = 2, 3


def request_of(**values: object) -> GenerateRequest:
    return parse(GenerateRequest, {"prompt_text": "", **values})


def answer(model: LanguageModel | None = None, **values: object) -> GenerateResponse:
    return generate(model or small_model(SIZE), TOKENIZER, request_of(**values), run_id="run", request_id="request")


class Script(LanguageModel):
    """A model whose next token after each one is given; the state is the last token."""

    def __init__(self, follows: dict[int, int]) -> None:
        super().__init__(vocabulary(SIZE), "causal_lm")
        self._embedding = nn.Embedding(SIZE, 1)
        table = torch.full((SIZE, SIZE), -100.0)
        for token in range(SIZE):
            table[token, follows.get(token, EOS)] = 100.0
        self.table = table

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.table[ids]

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def initial_state(self, batch: int) -> ModelState:
        return (torch.zeros(1, batch, 1),)

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        return self.table[ids], state

    def input_embedding(self) -> nn.Embedding:
        return self._embedding


def spelled(text: str, then: int = EOS) -> Script:
    """A model that writes this text of different letters after [BOS]."""
    ids = [BOS, *TOKENIZER.encode(text), then]
    return Script(dict(pairwise(ids)))


def test_greedy__takes_the_likeliest_symbol_each_time() -> None:
    model = small_model(SIZE)
    reference = ReferenceModel(model, "lstm")
    ids = [BOS, *TOKENIZER.encode("ab")]
    text = ""
    for _ in range(12):
        log_p = reference.log_probabilities(ids)[-1]
        best = max(range(3, SIZE), key=log_p.__getitem__)
        ids += [best] if best != EOS else [EOS, BOS]
        text += TOKENIZER.decode([best]) if best != EOS else "\n"
    found = answer(model, prompt_text="ab", temperature=0, max_new_tokens=12, stop_on_eos=False)
    assert found.outputs == (text,)
    assert found.prompt_tokens == 2


def test_greedy__is_the_same_text_each_time_and_in_each_sequence() -> None:
    model = small_model(SIZE)
    alone = [answer(model, prompt_text="ab", temperature=0, stop_on_eos=False, seed=seed) for seed in (1, 1, 2)]
    many = answer(model, prompt_text="ab", temperature=0, stop_on_eos=False, num_return_sequences=10)
    assert many.outputs is not None
    assert {text for found in alone for text in found.outputs or ()} == set(many.outputs)
    assert len(set(many.outputs)) == 1


def test_generate__follows_the_script_and_stops_at_its_end() -> None:
    found = answer(spelled("hgf"), temperature=0)
    assert (found.outputs, found.steps, found.stop_reason) == (("hgf",), (4,), ("eos",))
    assert found.eos_terminated == (True,)


def test_generate__goes_on_with_a_new_line_after_the_end_where_that_is_asked() -> None:
    found = answer(spelled("hg"), temperature=0, stop_on_eos=False, max_new_tokens=7)
    assert (found.outputs, found.stop_reason) == (("hg\nhg\nh",), ("max_new_tokens",))
    assert found.eos_terminated == (False,)


def test_prompt__its_earlier_lines_are_closed_and_its_last_is_open() -> None:
    model = small_model(SIZE)
    reference = ReferenceModel(model, "lstm")
    context = [BOS, *TOKENIZER.encode("ab"), EOS, BOS, *TOKENIZER.encode("c")]
    expected = reference.log_probabilities(context)[-1]
    best = max(range(4, SIZE), key=expected.__getitem__)
    found = answer(model, prompt_text="ab\r\n \n\nc", temperature=0, max_new_tokens=1, stop_on_eos=False)
    assert expected[best] > expected[EOS]
    assert found.outputs == (TOKENIZER.decode([best]),)


def test_prompt__ending_in_a_newline_starts_the_next_line() -> None:
    assert answer(spelled("hg"), prompt_text="abc\n", temperature=0).outputs == ("hg",)


def test_prompt__longer_than_a_stretch_is_read_to_its_end() -> None:
    follows = dict(pairwise([*TOKENIZER.encode("ab"), EOS]))
    assert answer(Script(follows), prompt_text="c" * 5000 + "a", temperature=0).outputs == ("b",)


@pytest.mark.parametrize(
    ("stops", "output", "steps"),
    [
        (["e"], "abcd", 5),
        (["cd", "xyz"], "ab", 4),
        (["ef", "de"], "abc", 5),
        (["a"], "", 1),
        (["abc"], "", 3),
        (["cdx", "bcd", "cd", "d"], "a", 4),
        (["d", "bcd"], "a", 4),
        (["zz"], "abcdefgh", 8),
        (["ha"], "abcdefgh", 8),
    ],
)
def test_stop_sequence__is_cut_off_with_all_after_it(stops: list[str], output: str, steps: int) -> None:
    found = answer(spelled("abcdefgh"), temperature=0, stop_sequences=stops, max_new_tokens=8)
    assert (found.outputs, found.steps) == ((output,), (steps,))
    assert found.stop_reason == ("max_new_tokens" if steps == 8 else "stop_sequence",)


def test_stop_sequence__may_reach_over_the_end_of_a_line() -> None:
    found = answer(spelled("hg"), temperature=0, stop_on_eos=False, stop_sequences=["g\nh"])
    assert (found.outputs, found.stop_reason) == (("h",), ("stop_sequence",))


def test_stop_sequence__newline_ends_with_the_line() -> None:
    found = answer(spelled("hg"), temperature=0, stop_on_eos=False, stop_sequences=["\n"])
    assert (found.outputs, found.steps, found.stop_reason) == (("hg",), (3,), ("stop_sequence",))
    assert found.eos_terminated == (False,)


def test_stop_sequence__does_not_begin_in_the_prompt() -> None:
    found = answer(spelled("hgf"), prompt_text="e\n", temperature=0, stop_sequences=["\nh", "eh"])
    assert found.outputs == ("hgf",)


def test_stop_sequence__is_found_however_its_letters_were_typed() -> None:
    tokenizer = char_tokenizer(["abcdefg\u00e9"])
    ids = tokenizer.encode("ab\u00e9c")
    model = Script(dict(pairwise([BOS, *ids, EOS])))
    request = request_of(temperature=0, stop_sequences=["e\u0301"])
    assert generate(model, tokenizer, request, run_id="run", request_id="request").outputs == ("ab",)


def test_stop_sequence__cuts_each_sequence_at_its_own_place() -> None:
    model = small_model(SIZE)
    values: dict[str, object] = {"seed": 4, "num_return_sequences": 10, "max_new_tokens": 60, "stop_on_eos": False}
    whole = answer(model, **values)
    stopped = answer(model, **values, stop_sequences=["a", "bc"])
    assert whole.outputs is not None
    expected = tuple(re.split("a|bc", text)[0] for text in whole.outputs)
    assert stopped.outputs == expected
    assert len({len(text) for text in expected}) > 2


def test_end_of_line__ends_the_text_or_is_a_newline_of_it() -> None:
    model = small_model(SIZE)
    values: dict[str, object] = {"seed": 4, "num_return_sequences": 10, "max_new_tokens": 60}
    ended = answer(model, **values)
    gone_on = answer(model, **values, stop_on_eos=False)
    assert ended.outputs is not None and gone_on.outputs is not None
    assert ended.outputs == tuple(text.split("\n")[0] for text in gone_on.outputs)
    assert ended.eos_terminated == tuple("\n" in text for text in gone_on.outputs)
    assert True in ended.eos_terminated


def test_prompt__its_unknown_characters_are_counted() -> None:
    found = answer(spelled("hg"), prompt_text="abz\n\u00e9c")
    assert (found.prompt_tokens, found.unk_count) == (5, 2)


def test_extreme_requests__are_answered() -> None:
    tiny, huge = 5e-324, 1.7e308
    extremes = product([0.0, tiny, 1.0, huge], [tiny, 1.0], [0, 1, 10**6], [None, tiny, huge])
    for temperature, top_p, top_k, penalty in extremes:
        found = answer(
            small_model(SIZE),
            prompt_text="hgfedcba",
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=penalty,
            stop_on_eos=False,
            seed=1,
            max_new_tokens=4,
        )
        assert found.steps == (4,)


def test_seed__gives_the_same_text_again_and_is_told_where_none_was_given() -> None:
    model = small_model(SIZE)
    first, again = (answer(model, seed=7, num_return_sequences=3) for _ in range(2))
    drawn = answer(model, num_return_sequences=3)
    redrawn = answer(model, num_return_sequences=3, seed=drawn.seed_used)
    assert first == again
    assert first.seed_used == 7
    assert drawn == redrawn
    assert first.outputs is not None
    assert len(set(first.outputs)) == 3


def test_sequences__do_not_depend_on_how_many_there_are() -> None:
    model = small_model(SIZE)
    many = answer(model, seed=3, num_return_sequences=10, max_new_tokens=40)
    few = answer(model, seed=3, num_return_sequences=2, max_new_tokens=40)
    assert many.outputs is not None
    assert few.outputs == many.outputs[:2]


def test_specials__are_never_sampled() -> None:
    class Unruly(Script):
        def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
            logits = torch.zeros(*ids.shape, SIZE)
            logits[..., :3] = 50.0
            return logits, state

    found = answer(Unruly({}), seed=1, max_new_tokens=300, stop_on_eos=False, num_return_sequences=4)
    assert found.outputs is not None
    letters = Counter("".join(found.outputs))
    assert set(letters) == set("abcdefgh\n")
    assert sum(letters.values()) == 1200


class Filter(NamedTuple):
    """The expected result of a filter for these logits: id -> probability."""

    request: GenerateRequest
    expected: dict[int, float]


PROBABILITIES = [0.4, 0.05, 0.25, 0.2, 0.1]
FILTERS = [
    Filter(request_of(), dict(enumerate(PROBABILITIES))),
    Filter(request_of(top_k=2), {0: 0.4 / 0.65, 2: 0.25 / 0.65}),
    Filter(request_of(top_p=0.6), {0: 0.4 / 0.65, 2: 0.25 / 0.65}),
    Filter(request_of(top_p=0.7), {0: 0.4 / 0.85, 2: 0.25 / 0.85, 3: 0.2 / 0.85}),
    Filter(request_of(top_p=0.01), {0: 1.0}),
    Filter(request_of(top_k=3, top_p=0.7), {0: 0.4 / 0.65, 2: 0.25 / 0.65}),
    Filter(
        request_of(temperature=0.5), {i: p * p / sum(q * q for q in PROBABILITIES) for i, p in enumerate(PROBABILITIES)}
    ),
    Filter(request_of(top_k=99), dict(enumerate(PROBABILITIES))),
]


@pytest.mark.parametrize("case", FILTERS)
def test_filter__leaves_the_exact_distribution(case: Filter) -> None:
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log().unsqueeze(0) + 3
    weights, ids = possible_tokens(doubles(logits), case.request)
    found: list[float] = weights.flatten().tolist()
    order: list[int] = list(range(len(found))) if ids is None else ids.flatten().tolist()
    left = {token: weight / sum(found) for token, weight in zip(order, found, strict=True) if weight > 0}
    assert left == pytest.approx(case.expected)


@pytest.mark.parametrize("case", FILTERS)
def test_draws__follow_the_filtered_distribution(case: Filter) -> None:
    """Pearson's chi-square of 20,000 draws; the bound is the 99.99 % point for 4 degrees of freedom."""
    count = 20_000
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log().repeat(count, 1)
    draws = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    drawn = Counter(choose(doubles(logits), case.request, floats(draws)))
    assert set(drawn) == set(case.expected)
    assert sum((drawn[i] - count * p) ** 2 / (count * p) for i, p in case.expected.items()) < 23.5


def test_draw__just_below_1_is_a_token_that_is_possible() -> None:
    """Rounded sums of probabilities end at 1 minus some units of the last place."""
    logits = np.random.Generator(np.random.PCG64(5)).standard_normal((1000, 50))
    logits[:, ::3] = -math.inf
    chosen = choose(logits, request_of(), [math.nextafter(1, 0)] * len(logits))
    assert all(token % 3 for token in chosen)


@pytest.mark.parametrize("decimals", [0, 1, 8])  # with few decimals many tokens are equally likely
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 3},
        {"top_k": 290},
        {"top_k": 5000},
        {"top_p": 0.3},
        {"top_p": 0.999},
        {"top_k": 9, "top_p": 0.5},
    ],
)
def test_draw__from_a_large_vocabulary_is_that_of_its_definition(
    options: dict[str, object], spread: float, decimals: int
) -> None:
    size = 1200
    generator = np.random.Generator(np.random.PCG64(4))
    logits: NDArray[np.float64] = np.round(generator.standard_normal((4, size)) * spread, decimals)
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


class Memoryless(Script):
    """A model that predicts the same whatever came before."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__({})
        self.table = torch.tensor(logits).repeat(SIZE, 1)


LOGITS = [3.0, 3.0, 3.0, 0.1, -0.7, 1.3, 0.4, -1.9, 2.2, 0.9, -0.2, 1.7]
"""[PAD], [UNK], [BOS], which are never drawn; then [EOS] and the letters."""


def filtered_by_numpy(temperature: float, top_k: int, top_p: float) -> list[float]:
    """The probabilities of [EOS] and the letters after temperature, top_k and top_p, in this order."""
    logits = np.array(LOGITS[3:], dtype=np.float64)
    weights: NDArray[np.float64] = np.exp(logits / temperature)
    weights[np.argsort(-logits)[top_k or len(logits) :]] = 0
    ordered: NDArray[np.float64] = np.sort(weights)[::-1]
    summed: NDArray[np.float64] = np.cumsum(ordered)
    total: np.float64 = summed[-1]
    shares: NDArray[np.float64] = summed / total
    kept = int(np.argmax(shares >= top_p)) + 1  # the fewest whose share is enough
    weights[np.argsort(-logits)[kept:]] = 0
    probabilities: NDArray[np.float64] = weights / np.sum(weights)
    result: list[float] = probabilities.tolist()
    return result


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (0.6, 0, 1.0),
        pytest.param(1.8, 0, 1.0, marks=pytest.mark.slow),
        pytest.param(1.0, 4, 1.0, marks=pytest.mark.slow),
        pytest.param(1.0, 0, 0.8, marks=pytest.mark.slow),
        (1.5, 7, 0.6),
    ],
)
def test_generated_tokens__follow_the_exact_filtered_softmax(temperature: float, top_k: int, top_p: float) -> None:
    """Pearson's chi-square of 20,480 drawn tokens; its tail is the regularized upper gamma function."""
    model, drawn = Memoryless(LOGITS), Counter[str]()
    for seed in range(4):
        found = answer(
            model,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            max_new_tokens=512,
            num_return_sequences=10,
            stop_on_eos=False,
        )
        drawn.update("".join(found.outputs or ()))

    expected = dict(zip("\nabcdefgh", filtered_by_numpy(temperature, top_k, top_p), strict=True))
    possible = {symbol: p for symbol, p in expected.items() if p > 0}
    assert (drawn.total(), set(drawn)) == (20_480, set(possible))
    statistic = sum((drawn[symbol] - 20_480 * p) ** 2 / (20_480 * p) for symbol, p in possible.items())
    freedom = torch.tensor(len(possible) - 1, dtype=torch.float64)
    tail: Tensor = torch.special.gammaincc(freedom / 2, torch.tensor(statistic, dtype=torch.float64) / 2)
    assert tail.item() > 1e-4


def test_choose__always_finds_a_possible_id() -> None:
    random = Random(5)
    for _ in range(300):
        logits = torch.empty(1, 5, dtype=torch.float64).uniform_(-50, 50)
        logits[0, 1] = -math.inf
        draw = random.choice([0.0, random.random(), math.nextafter(1.0, 0.0)])
        chosen = choose(doubles(logits), request_of(temperature=random.uniform(0.01, 5)), [draw])
        assert chosen[0] in {0, 2, 3, 4}


def test_repetition_penalty__makes_the_tokens_of_the_window_less_likely() -> None:
    stuck = Script({token: TOKENIZER.encode("a")[0] for token in range(SIZE)})
    stuck.table[:, EOS] = -100.0
    stuck.table[:, TOKENIZER.encode("a")[0]] = 1.0
    stuck.table[:, TOKENIZER.encode("b")[0]] = 0.9
    plain = answer(stuck, temperature=0, max_new_tokens=6)
    penalized = answer(stuck, temperature=0, max_new_tokens=6, repetition_penalty=2.0, repetition_window=1)
    encouraged = answer(stuck, temperature=0, max_new_tokens=6, repetition_penalty=0.5)
    assert plain.outputs == ("aaaaaa",)
    assert penalized.outputs == ("ababab",)
    assert encouraged.outputs == ("aaaaaa",)
