"""Surprisals of a given text, against the textbook formulas."""

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support import families
from tests.support.families import CAUSAL
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import char_tokenizer, small_model, tensor_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ScoreRequest, ScoreResponse, WindowReport
from trainer.inference.scoring import ScoringJob, score_lines, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.device import resolve
from trainer.training.documents import Documents
from trainer.training.evaluation import evaluate

TOKENIZER = char_tokenizer(["abcdéf ghij"])
TEXT = "abc de\u0301f\r\n\n   \nghxj\nzzz"
QUEUED = ScoreResponse(request_id="request", run_id="run", status="queued")
NORMALIZED = "abc déf\r\n\n   \nghxj\nzzz"


def model_of() -> LanguageModel:
    return small_model(TOKENIZER.vocab_size)


def score(text: str, top_k: int | None = None, *, brief: bool = False) -> ScoreResponse:
    request = ScoreRequest(text=text, detail_level="summary" if brief else "per_char", top_k=top_k)
    return score_text(model_of(), TOKENIZER, request)


def score_text(model: LanguageModel, tokenizer: Tokenizer, request: ScoreRequest) -> ScoreResponse:
    """Score a text alone."""
    [scored] = score_texts(model, tokenizer, [ScoringJob.of(tokenizer, request, QUEUED)])
    return scored


def scored_of(response: ScoreResponse) -> list[float]:
    """The surprisals of the tokens that have one."""
    return [value for value in response.surprisal or () if value is not None]


def by_hand(lines: list[str]) -> list[float]:
    reference = ReferenceModel(model_of(), "lstm")
    values: list[float] = []
    for line in lines:
        ids = TOKENIZER.encode(line)
        answers = reference.log_probabilities([2, *ids[:-1]])
        values += [-p[i] for p, i in zip(answers, ids, strict=True)]
    return values


def test_score__is_the_brute_force_of_every_line_from_its_start() -> None:
    found = score(TEXT)
    expected = by_hand(["abc déf", "ghxj", "zzz"])
    assert found.surprisal is not None
    assert found.surprisal == pytest.approx(expected, abs=1e-5)
    assert found.n_tokens == found.n_scored == len(expected) == 14
    assert found.unk_count == 4
    assert min(scored_of(found)) >= 0


@pytest.mark.parametrize("vocab_size", [40, 1 << 15])
def test_logits__of_a_long_line_are_few_at_a_time_however_many_tokens_the_model_knows(
    vocab_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(vocab_size)
    logits, sizes = model.logits, list[int]()

    def noted(hidden: Tensor) -> Tensor:
        sizes.append(hidden[..., 0].numel() * vocab_size)
        return logits(hidden)

    monkeypatch.setattr(model, "logits", noted)
    [scored] = score_lines(model, [[5, 6, 7] * 400])
    assert len(scored.surprisal) == 1200
    assert sum(sizes) == 1201 * vocab_size
    assert max(sizes) <= 1 << 25


def test_score__figures_fit_together() -> None:
    found = score(TEXT)
    assert found.surprisal is not None
    assert found.loss is not None
    assert found.mean_surprisal == pytest.approx(math.fsum(scored_of(found)) / 14, rel=1e-12)
    assert found.perplexity == math.exp(found.loss)


def test_score__is_told_in_nats_and_bits_by_token_character_and_byte() -> None:
    found = score(TEXT)
    lines = ["abc déf", "ghxj", "zzz"]
    reference = ReferenceModel(model_of(), "lstm")
    of_ends = [-reference.log_probabilities([2, *TOKENIZER.encode(line)])[-1][3] for line in lines]
    nats, end_nats = math.fsum(scored_of(found)), math.fsum(of_ends)
    assert found.nats == pytest.approx(nats, rel=1e-12)
    assert found.end_nats == pytest.approx(end_nats, abs=1e-5)
    assert found.n_ends == 3
    assert found.loss == pytest.approx((nats + end_nats) / 17, abs=1e-6)
    assert (found.n_chars, found.n_bytes) == (14, sum(len(line.encode()) for line in lines)) == (14, 15)
    assert found.bits_per_char == pytest.approx((nats + end_nats) / math.log(2) / 14, abs=1e-6)
    assert found.bits_per_byte == pytest.approx((nats + end_nats) / math.log(2) / 15, abs=1e-6)


@pytest.mark.parametrize("family", CAUSAL)
def test_score__has_the_loss_of_an_evaluation_of_the_same_lines(family: str) -> None:
    lines = ["abc déf", "ghxj" * 30, "z", "a" * 300]
    model = families.model_of(family, vocabulary_of(TOKENIZER))
    scored = score_text(model, TOKENIZER, ScoreRequest(text="\n".join(lines)))
    documents = Documents(TOKENIZER.encode_documents("\n".join(lines)), TOKENIZER.special_ids)
    found = evaluate(model, documents, resolve(families.effective_of(family)))
    assert scored.loss == pytest.approx(found.loss_nats, abs=1e-6)
    assert (scored.n_scored or 0) + (scored.n_ends or 0) == found.tokens


def test_score__spans_point_at_the_tokens_in_the_normalized_text() -> None:
    found = score(TEXT)
    assert found.tokens is not None
    assert found.char_spans is not None
    shown = [NORMALIZED[a:b] for a, b in found.char_spans]
    assert "".join(shown) == "abc défghxjzzz"
    assert found.tokens == tuple("[UNK]" if c in "xz" else c for c in shown)


def test_score__ranks_entropies_and_candidates_are_those_of_the_distribution() -> None:
    found = score("abc", top_k=3)
    reference = ReferenceModel(model_of(), "lstm").log_probabilities([2, *TOKENIZER.encode("ab")])
    assert found.rank is not None
    assert found.entropy is not None
    assert found.topk is not None
    for place, log_p in enumerate(reference):
        target = TOKENIZER.encode("abc")[place]
        order = [i for _, i in sorted(zip([-v for v in log_p], range(len(log_p)), strict=True))]
        assert found.rank[place] == order.index(target) + 1
        assert found.entropy[place] == pytest.approx(-sum(math.exp(v) * v for v in log_p), abs=1e-5)
        assert [name for name, _ in found.topk[place]] == TOKENIZER.tokens(order[:3])
        assert [p for _, p in found.topk[place]] == pytest.approx([math.exp(log_p[i]) for i in order[:3]], abs=1e-5)


def test_score__summary_has_the_figures_and_no_lists() -> None:
    detailed, brief = score(TEXT), score(TEXT, brief=True)
    assert brief.loss == detailed.loss
    lists = (brief.surprisal, brief.rank, brief.entropy, brief.tokens, brief.char_spans, brief.topk)
    assert lists == (None,) * 6
    assert detailed.topk is None


def test_score__one_character_has_its_surprisal() -> None:
    assert score("a").surprisal == pytest.approx(by_hand(["a"]), abs=1e-5)


@pytest.mark.parametrize("text", ["\n", " \r\n\t"])
def test_score__blank_text_is_refused(text: str) -> None:
    with pytest.raises(AppError, match="blank") as caught:
        score(text)
    assert caught.value.code == ErrorCode.INVALID_INPUT


def test_score__more_candidates_than_tokens_are_all_of_them() -> None:
    found = score("a", top_k=50)
    assert found.topk is not None
    assert len(found.topk[0]) == TOKENIZER.vocab_size
    assert sum(p for _, p in found.topk[0]) == pytest.approx(1)


def test_surprisals__long_lines_are_scored_to_the_last_token() -> None:
    random = Random(1)
    ids = [random.randrange(4, TOKENIZER.vocab_size) for _ in range(20_000)]
    model = model_of()
    found = score_lines(model, [ids])[0].surprisal
    assert len(found) == len(ids)
    assert torch.allclose(found[:16_000], score_lines(model, [ids[:16_000]])[0].surprisal, atol=1e-5)
    assert torch.allclose(found[16_300:], surprisals_by_forward(model, ids)[16_300:], atol=1e-5)


def test_surprisals__do_not_depend_on_the_neighbours_in_a_batch() -> None:
    random = Random(2)
    lines = [[random.randrange(4, TOKENIZER.vocab_size) for _ in range(random.randrange(1, 40))] for _ in range(150)]
    model = model_of()
    together = score_lines(model, lines)
    for line, scores in zip(lines, together, strict=True):
        assert torch.allclose(scores.surprisal, score_lines(model, [line])[0].surprisal, atol=1e-5)


def random_line(length: int, seed: int = 1) -> list[int]:
    random = Random(seed)
    return [random.randrange(4, TOKENIZER.vocab_size) for _ in range(length)]


def step_by_step(model: LanguageModel, ids: list[int]) -> NDArray[np.float64]:
    """-ln p (T,) of each id but the first, one at a time in double precision: a tied LSTM of one layer."""
    state: dict[str, Tensor] = model.state_dict()
    weights = {name: array(weight) for name, weight in state.items()}
    embedding, recurrent = weights["embedding.weight"], weights["layers.weight_hh_l0"]
    bias: NDArray[np.float64] = weights["layers.bias_ih_l0"] + weights["layers.bias_hh_l0"]
    from_input: NDArray[np.float64] = embedding @ weights["layers.weight_ih_l0"].T + bias
    size = len(bias) // 4
    hidden: NDArray[np.float64] = np.zeros(size)
    cell: NDArray[np.float64] = np.zeros(size)
    outputs: NDArray[np.float64] = np.empty((len(ids) - 1, size))
    for place, token in enumerate(ids[:-1]):
        row: NDArray[np.float64] = from_input[token]
        gates: NDArray[np.float64] = row + recurrent @ hidden
        opened: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(gates / 2)
        cell = opened[size : 2 * size] * cell + opened[:size] * np.tanh(gates[2 * size : 3 * size])
        hidden = opened[3 * size :] * np.tanh(cell)
        outputs[place] = hidden
    projected: NDArray[np.float64] = outputs @ weights["projection.weight"].T + weights["projection.bias"]
    logits: NDArray[np.float64] = projected @ embedding.T + weights["head_bias"]
    summed: NDArray[np.float64] = np.sum(np.exp(logits), axis=-1)
    of_target: NDArray[np.float64] = logits[np.arange(len(ids) - 1), ids[1:]]
    result: NDArray[np.float64] = np.log(summed) - of_target
    return result


def array(weight: Tensor) -> NDArray[np.float64]:
    values: list[float] | list[list[float]] = weight.double().tolist()
    return np.array(values, dtype=np.float64)


def floats(scores: Tensor) -> list[float]:
    values: list[float] = scores.tolist()
    return values


def largest_difference(found: Sequence[float], expected: NDArray[np.float64]) -> float:
    apart: NDArray[np.float64] = np.abs(np.array(found, dtype=np.float64) - expected)
    largest: np.float64 = apart.max()
    return float(largest)


def one_layer_model() -> LanguageModel:
    return small_model(TOKENIZER.vocab_size, layers=1)


@pytest.mark.parametrize("architecture", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("tied", [True, False])
def test_score__of_every_architecture_is_its_brute_force(architecture: str, tied: bool) -> None:
    model = small_model(TOKENIZER.vocab_size, architecture, tied=tied)
    ids = random_line(30)
    answers = ReferenceModel(model, architecture).log_probabilities([2, *ids[:-1]])
    found: list[float] = score_lines(model, [ids])[0].surprisal.tolist()
    assert found == pytest.approx([-p[i] for p, i in zip(answers, ids, strict=True)], abs=1e-5)


def test_hundred_thousand_characters_in_a_line__are_all_scored() -> None:
    random = Random(3)
    text = "a" + "".join(random.choices("abcd\u00e9f ghijx", k=99_998)) + "b"
    model = one_layer_model()
    request = ScoreRequest(text=text, detail_level="per_char")
    found = score_text(model, TOKENIZER, request)
    assert found.n_scored == found.n_tokens == 100_000
    assert found.surprisal is not None and found.char_spans is not None
    expected = step_by_step(model, [2, *TOKENIZER.encode(text)])
    assert largest_difference(scored_of(found), expected) <= 1e-5
    assert found.char_spans == tuple((place, place + 1) for place in range(100_000))
    assert found.window is None


def test_score__does_not_depend_on_the_batch_or_the_stretch_of_time() -> None:
    model = one_layer_model()
    lines = [random_line(1000 + place, seed=place) for place in range(70)]
    together = score_lines(model, lines)
    reverse = score_lines(model, lines[::-1])[::-1]
    for place in (0, 30, 69):
        expected = step_by_step(model, [2, *lines[place]])
        for found in (
            together[place].surprisal,
            reverse[place].surprisal,
            score_lines(model, [lines[place]])[0].surprisal,
        ):
            assert largest_difference(floats(found), expected) <= 1e-5


def test_seed__changes_no_score() -> None:
    model = model_of()
    asked = [ScoreRequest(text=TEXT, detail_level="per_char", seed=seed) for seed in (None, 0, 7)]
    first, *others = (score_text(model, TOKENIZER, one) for one in asked)
    assert others == [first, first]


def by_windows(model: LanguageModel, line: list[int], window: int) -> NDArray[np.float64]:
    """Each token given its window: the first `window` tokens from [BOS], then three quarters of a window at a time."""
    ids, context = [2, *line], window // 4
    parts = [step_by_step(model, ids[: window + 1])]
    start = window - context
    while start + context < len(line):
        parts.append(step_by_step(model, ids[start : start + window + 1])[context:])
        start += window - context
    return np.concatenate(parts)


@pytest.mark.parametrize("window", [64, 67])
def test_windows__score_every_token_once_as_their_own_beginning_has_it(window: int) -> None:
    model = one_layer_model()
    lengths = [1, 63, 64, 65, 68, 112, 113, 160, 161, 1000, 5000]
    lines = [random_line(length, seed=length) for length in lengths]
    found = score_lines(model, lines, top_k=2, window_tokens=window)
    for line, scores in zip(lines, found, strict=True):
        assert [len(part) for part in scores] == [len(line)] * len(scores)
        assert largest_difference(floats(scores.surprisal), by_windows(model, line, window)) <= 1e-5


@pytest.mark.parametrize(("window", "length", "compared"), [(64, 300, 300), (64, 5000, 4096), (2100, 5000, 4200)])
def test_windows__report_how_far_they_are_from_the_exact_scores(window: int, length: int, compared: int) -> None:
    model = one_layer_model()
    line = random_line(length)
    text = f"abc\n{TOKENIZER.decode(line)}\n"
    exact, windowed = step_by_step(model, [2, *line]), by_windows(model, line, window)
    request = ScoreRequest(text=text, window_tokens=window, detail_level="per_char")
    found = score_text(model, TOKENIZER, request)
    assert found.window is not None
    assert found.surprisal is not None
    assert (found.n_scored, found.n_tokens) == (length + 3, length + 3)
    assert largest_difference(scored_of(found)[3:], windowed) <= 1e-5
    assert (found.window.window_tokens, found.window.context_tokens) == (window, window // 4)
    assert found.window.compared_tokens == compared
    expected = largest_difference(list(windowed[:compared]), exact[:compared])
    assert found.window.max_difference_nats == pytest.approx(expected, abs=1e-5)


def test_windows__of_lines_that_are_not_longer_are_exact() -> None:
    model = model_of()
    text = "abc\n" + TOKENIZER.decode(random_line(63))
    exact, windowed = (
        score_text(
            model,
            TOKENIZER,
            ScoreRequest(text=text, detail_level="per_char", top_k=2, window_tokens=window),
        )
        for window in (None, 64)
    )

    report = WindowReport(
        window_tokens=64, context_tokens=16, stride_tokens=48, compared_tokens=0, max_difference_nats=0.0
    )
    # the end of the last word is that of the line, which stands behind the window
    marked: dict[str, object] = {"window": report, "words": windowed.words}
    assert windowed == exact.model_copy(update=marked)
    assert windowed.words is not None and exact.words is not None
    assert windowed.words[:-1] == exact.words[:-1]


def surprisals_by_forward(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """One forward pass over the whole line."""
    with torch.inference_mode():
        log_p = model.forward(tensor_of([[2, *ids[:-1]]]))[0].log_softmax(-1)
    return -log_p.gather(-1, tensor_of([ids]).T).squeeze(-1)
