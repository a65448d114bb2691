"""Surprisals of a given text, against the textbook formulas and single forward passes."""

import math
from collections.abc import Sequence
from itertools import chain
from random import Random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.answers import (
    BOS,
    EOS,
    MASK,
    WITH_MASK,
    log_probabilities,
    score,
    scored_nats,
    scoring_job,
    surprisals,
    write,
)
from tests.support.families import (
    CONTINUING,
    EVERY,
    MASKED,
    POSITIONS,
    READ_ONCE,
    TRANSFORMERS,
    model_of,
    slow_unless_quick,
)
from tests.support.reference import ReferenceModel
from tests.support.refusals import refused
from tests.support.tiny_models import char_tokenizer, small_model
from trainer.contracts.errors import ErrorCode
from trainer.contracts.scores import ScoreResponse, WindowReport
from trainer.inference.scoring import packing_pays, score_lines, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

TOKENIZER = char_tokenizer(["abcdéf ghij"])
SIZE = TOKENIZER.vocab_size
LINE = "abcdhgfeabdcfehgacegbdfh" * 3
CONTEXT = POSITIONS // 4
"""Tokens that a window after the first one reads before those that it scores."""


@pytest.mark.parametrize("vocab_size", [40, 1 << 15])
def test_logits__of_a_long_line_are_few_at_a_time(vocab_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(vocab_size)
    logits, sizes = model.logits, list[int]()

    def noted(hidden: Tensor) -> Tensor:
        sizes.append(hidden[..., 0].numel() * vocab_size)
        return logits(hidden)

    monkeypatch.setattr(model, "logits", noted)
    [scores] = score_lines(model, [[5, 6, 7] * 400])
    assert len(scores.surprisal) == 1200
    assert sum(sizes) == 1201 * vocab_size
    assert max(sizes) <= 1 << 25


@pytest.mark.parametrize("top_k", [3, 50])
def test_score__has_ranks_entropies_and_candidates_of_the_distribution(top_k: int) -> None:
    found = score(small_model(SIZE), TOKENIZER, "abc", top_k=top_k)
    reference = ReferenceModel(small_model(SIZE), "lstm").log_probabilities([BOS, *TOKENIZER.encode("ab")])
    assert found.rank is not None and found.entropy is not None and found.topk is not None
    for place, (log_p, target) in enumerate(zip(reference, TOKENIZER.encode("abc"), strict=True)):
        order = sorted(range(SIZE), key=log_p.__getitem__, reverse=True)
        assert found.rank[place] == order.index(target) + 1
        assert found.entropy[place] == pytest.approx(-sum(math.exp(v) * v for v in log_p), abs=1e-5)
        assert [name for name, _ in found.topk[place]] == TOKENIZER.tokens(order[:top_k])
        expected = [math.exp(log_p[i]) for i in order[:top_k]]
        assert [p for _, p in found.topk[place]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "context", "sentence"),
    [("\n", "bos", "blank"), (" \r\n\t", "bos", "blank"), ("a\nb", "none", "there are no other tokens")],
)
def test_score__of_nothing_is_refused(text: str, context: str, sentence: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, sentence):
        scoring_job(TOKENIZER, text, context=context)


def random_line(length: int, seed: int = 1) -> list[int]:
    return Random(seed).choices(range(4, SIZE), k=length)


def exact(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """-ln p (T,) of each id but the first, by torch's own layer in double precision: a tied LSTM of one layer."""
    state: dict[str, Tensor] = model.state_dict()
    weights = {name: weight.double() for name, weight in state.items()}
    embedding, read = weights["embedding.weight"], torch.tensor(ids)
    lstm = nn.LSTM(6, 7, dtype=torch.float64)
    of_layer: dict[str, Tensor] = {name[7:]: w for name, w in weights.items() if name.startswith("layers.")}
    lstm.load_state_dict(of_layer)
    with torch.no_grad():
        output: tuple[Tensor, object] = lstm(embedding[read[:-1]])
    projected = output[0] @ weights["projection.weight"].T + weights["projection.bias"]
    return functional.cross_entropy(projected @ embedding.T + weights["head_bias"], read[1:], reduction="none")


def nats_of(response: ScoreResponse) -> Tensor:
    return torch.tensor(scored_nats(response), dtype=torch.float64)


def difference(found: Tensor, expected: Tensor) -> float:
    assert len(found) == len(expected)
    return float((found.double() - expected).abs().max())


@pytest.mark.slow
def test_hundred_thousand_characters_in_a_line__are_all_scored() -> None:
    text = "a" + "".join(Random(3).choices("abcd\u00e9f ghijx", k=99_998)) + "b"
    model = small_model(SIZE, layers=1)
    found = score(model, TOKENIZER, text)
    assert found.n_scored == found.n_tokens == 100_000
    assert difference(nats_of(found), exact(model, [BOS, *TOKENIZER.encode(text)])) <= 1e-5
    assert found.char_spans == tuple((place, place + 1) for place in range(100_000))
    assert found.window is None


def test_score__does_not_depend_on_the_batch_or_the_stretch_of_time() -> None:
    model = small_model(SIZE, layers=1)
    lines = [random_line(length, seed=length) for length in chain(range(1, 60), range(1000, 1070))]
    together, reverse = score_lines(model, lines), score_lines(model, lines[::-1])[::-1]
    for place in range(0, len(lines), 6):
        expected, [alone] = exact(model, [BOS, *lines[place]]), score_lines(model, [lines[place]])
        for found in (together[place].surprisal, reverse[place].surprisal, alone.surprisal):
            assert difference(found, expected) <= 1e-5


def by_windows(model: LanguageModel, line: list[int], window: int) -> Tensor:
    """Each token given its window: the first `window` tokens from [BOS], then three quarters of a window at a time."""
    ids, context = [BOS, *line], window // 4
    parts = [exact(model, ids[: window + 1])]
    start = window - context
    while start + context < len(line):
        parts.append(exact(model, ids[start : start + window + 1])[context:])
        start += window - context
    return torch.cat(parts)


@pytest.mark.parametrize("window", [64, 67])
def test_windows__score_every_token_once_as_their_own_beginning_has_it(window: int) -> None:
    model = small_model(SIZE, layers=1)
    lines = [random_line(n, seed=n) for n in (1, 63, 64, 65, 68, 112, 113, 160, 161, 1000, 5000)]
    for line, scores in zip(lines, score_lines(model, lines, top_k=2, window_tokens=window), strict=True):
        assert [len(part) for part in scores] == [len(line)] * len(scores)
        assert difference(scores.surprisal, by_windows(model, line, window)) <= 1e-5


@pytest.mark.parametrize(("window", "length", "compared"), [(64, 300, 300), (64, 5000, 4096), (2100, 5000, 4200)])
def test_windows__report_how_far_they_are_from_the_exact_scores(window: int, length: int, compared: int) -> None:
    model, line = small_model(SIZE, layers=1), random_line(length)
    windowed = by_windows(model, line, window)
    found = score(model, TOKENIZER, f"abc\n{TOKENIZER.decode(line)}\n", window_tokens=window)
    assert found.window is not None
    assert (found.n_scored, found.n_tokens) == (length + 3, length + 3)
    assert difference(nats_of(found)[3:], windowed) <= 1e-5
    assert (found.window.window_tokens, found.window.context_tokens) == (window, window // 4)
    assert found.window.compared_tokens == compared
    expected = difference(windowed[:compared], exact(model, [BOS, *line])[:compared])
    assert found.window.max_difference_nats == pytest.approx(expected, abs=1e-5)


def test_windows__of_lines_that_are_not_longer_are_exact() -> None:
    model, text = small_model(SIZE), "abc\n" + TOKENIZER.decode(random_line(63))
    plain, windowed = (score(model, TOKENIZER, text, top_k=2, window_tokens=window) for window in (None, 64))
    report = WindowReport(
        window_tokens=64, context_tokens=16, stride_tokens=48, compared_tokens=0, max_difference_nats=0.0
    )
    # the end of the last word is that of the line, which stands behind the window
    marked: dict[str, object] = {"window": report, "words": windowed.words}
    assert windowed == plain.model_copy(update=marked)
    assert windowed.words is not None and plain.words is not None
    assert windowed.words[:-1] == plain.words[:-1]


@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_score__of_a_causal_model_is_the_forward_pass_of_each_line(name: str) -> None:
    model, lines = model_of(name), ["abcdefgh", "h", "hgfe"]
    found, unstarted = (score(model, WITH_MASK, "\n".join(lines), context=c, top_k=1) for c in ("bos", "none"))
    expected = [nats for line in lines for nats in surprisals(model, [BOS, *WITH_MASK.encode(line)])]
    assert found.surprisal == pytest.approx(expected, abs=1e-5)
    assert (found.method, found.window) == ("causal", None)
    without = [value for line in lines for value in [None, *surprisals(model, WITH_MASK.encode(line))]]
    has_none = [value is None for value in without]
    rest = [value for value in without if value is not None]
    assert [value is None for value in unstarted.surprisal or ()] == has_none
    assert scored_nats(unstarted) == pytest.approx(rest, abs=1e-5)
    assert [rank is None for rank in unstarted.rank or ()] == has_none
    assert [not row for row in unstarted.topk or ()] == has_none
    assert (unstarted.n_tokens, unstarted.n_scored, unstarted.n_chars) == (13, 10, 10)
    assert unstarted.nats == pytest.approx(math.fsum(rest), abs=1e-5)


@pytest.mark.parametrize("name", slow_unless_quick(READ_ONCE))
def test_score__of_a_line_beyond_the_context_reports_its_windows(name: str) -> None:
    model, stride = model_of(name), POSITIONS - CONTEXT
    found, unstarted = score(model, WITH_MASK, f"abc\n{LINE}"), score(model, WITH_MASK, LINE, context="none")
    ids, expected, given = [BOS, *WITH_MASK.encode(LINE)], list[float](), list[int]()
    for target in range(1, len(ids)):
        first = 0 if target <= POSITIONS else -(-(target - POSITIONS) // stride) * stride
        expected.append(-log_probabilities(model, ids[first:target])[-1][ids[target]])
        given.append(target - first)
    assert scored_nats(found)[3:] == pytest.approx(expected, abs=1e-4)
    assert (found.n_tokens, found.n_scored) == (len(LINE) + 3,) * 2
    assert found.window is not None and found.window.compared_tokens == 0
    assert (found.window.window_tokens, found.window.context_tokens, found.window.stride_tokens) == (24, 6, 18)
    assert list(found.context_tokens or ()) == [1, 2, 3, *given]
    assert list(unstarted.context_tokens or ()) == [0, *given[:-1]]
    assert score(model, WITH_MASK, "abc").context_tokens is None


def test_score__by_smaller_windows_is_compared_up_to_the_context() -> None:
    model, ids = model_of("gpt2"), WITH_MASK.encode(LINE[:POSITIONS])
    plain, again = score_lines(model, [ids] * 2)
    [smaller] = score_lines(model, [ids], window_tokens=8)
    assert torch.allclose(plain.surprisal, again.surprisal, atol=1e-5)
    assert torch.allclose(plain.surprisal[:8], smaller.surprisal[:8], atol=1e-5)
    assert not torch.allclose(plain.surprisal, smaller.surprisal, atol=1e-2)


def masked_nats(model: LanguageModel, tokenizer: Tokenizer, line: str, place: int, end: int, width: int = 99) -> float:
    """-ln p of the token at a place, which is masked with those up to an end, given the window around it."""
    ids = [BOS, *tokenizer.encode(line), EOS]
    first = min(max(place - width // 2, 0), max(len(ids) - width, 0))
    gap = [*ids[:place], *[MASK] * (end + 1 - place), *ids[end + 1 :]][first : first + width]
    return -log_probabilities(model, gap)[place - first][ids[place]]


@pytest.mark.parametrize("name", slow_unless_quick(MASKED))
def test_score__of_a_masked_model_masks_each_token_or_the_rest_of_its_word(name: str) -> None:
    """Kauf and Ivanova (2023): each token given those before it in its word and all tokens of other words."""
    model, tokenizer = model_of(name), char_tokenizer(["abcdefg "], mask_token=True)
    plain, within = (score(model, tokenizer, "abc de\ng", top_k=2, pll_within_word=word) for word in (False, True))
    lines = (("abc de", [3, 3, 3, 4, 6, 6]), ("g", [1]))
    for found, is_within in ((plain, False), (within, True)):
        expected = [
            masked_nats(model, tokenizer, line, place, end if is_within else place)
            for line, ends in lines
            for place, end in enumerate(ends, 1)
        ]
        assert found.surprisal == pytest.approx(expected, abs=1e-4)
        assert found.mean_surprisal == pytest.approx(math.fsum(expected) / 7, abs=1e-4)
    assert within.surprisal != pytest.approx(plain.surprisal, abs=1e-3)
    assert (plain.loss, plain.perplexity, plain.bits_per_char, plain.end_nats) == (None,) * 4
    assert (plain.method, plain.window, plain.n_scored) == ("pseudo_log_likelihood", None, 7)
    assert {len(row) for row in plain.topk or ()} == {2}


@pytest.mark.parametrize(("name", "window", "width"), [("bert", None, 24), ("lstm both", 64, 64), ("bert", 64, 24)])
def test_score__of_a_masked_model_reads_around_each_token(name: str, window: int | None, width: int) -> None:
    model = model_of(name)
    found = score(model, WITH_MASK, LINE, window_tokens=window)
    for place in (1, 5, 30, 50, len(LINE)):
        expected = masked_nats(model, WITH_MASK, LINE, place, place, width)
        assert scored_nats(found)[place - 1] == pytest.approx(expected, abs=1e-4)
    assert found.window is not None and found.window.compared_tokens == 0
    assert (found.window.window_tokens, found.window.stride_tokens) == (width, 1)


def test_windows_of_a_masked_model__begin_where_a_line_is_longer() -> None:
    model = model_of("bert")
    fits, cut = (score(model, WITH_MASK, "ab" * ((POSITIONS - 2) // 2) + more) for more in ("", "a"))
    assert fits.window is None and fits.context_tokens is None
    assert cut.window is not None and cut.window.cut_lines == 1
    assert cut.context_tokens == (POSITIONS - 1,) * (POSITIONS - 1)
    both = score(model, WITH_MASK, f"abc\n{LINE}")
    assert both.context_tokens == (4,) * 3 + (POSITIONS - 1,) * len(LINE)


def test_windows__of_lines_without_a_begin_are_compared_likewise() -> None:
    model = model_of("lstm")
    windowed, plain = (score(model, WITH_MASK, LINE * 4, context="none", window_tokens=w) for w in (64, None))
    assert windowed.window is not None
    largest = difference(nats_of(windowed), nats_of(plain))
    assert windowed.window.max_difference_nats == pytest.approx(largest, abs=1e-6)
    assert windowed.window.compared_tokens == len(LINE * 4) - 1


@pytest.mark.parametrize("name", slow_unless_quick(EVERY))
def test_score__is_the_same_alone_in_company_and_after_other_work(name: str) -> None:
    model, texts = model_of(name), ["abcdefgh", "hg\nfe" * 9, LINE, "a", LINE[:POSITIONS]]
    first = [score(model, WITH_MASK, text, top_k=3) for text in texts]
    together = score_texts(model, WITH_MASK, [scoring_job(WITH_MASK, text, top_k=3) for text in texts])
    if name in CONTINUING:
        write(model, WITH_MASK, prompt_text="abc", max_new_tokens=5)
    after = [score(model, WITH_MASK, text, top_k=3) for text in reversed(texts)][::-1]
    fresh = [score(model_of(name), WITH_MASK, text, top_k=3) for text in texts]
    for others in (together, after, fresh):
        for one, other in zip(first, others, strict=True):
            assert one.surprisal == pytest.approx(other.surprisal, abs=1e-5)
            assert one.entropy == pytest.approx(other.entropy, abs=1e-5)
            assert (one.n_scored, one.rank, one.window) == (other.n_scored, other.rank, other.window)
            assert one.context_tokens == other.context_tokens


@pytest.mark.parametrize("name", slow_unless_quick(EVERY))
def test_packing__is_for_many_tokens_of_a_transformer_on_a_cpu_with_avx512(name: str) -> None:
    model = model_of(name)
    assert packing_pays(model, 1 << 20, "AVX512") == (name in TRANSFORMERS)
    assert not packing_pays(model, 100, "AVX512")
    assert not packing_pays(model, 1 << 20, "AVX2")
    assert not packing_pays(model.double(), 1 << 20, "AVX512")
