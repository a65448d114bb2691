"""Models with a limited context: scores in windows, and generation to the end of the context."""

import math
from itertools import pairwise

import pytest
import torch

from tests.support.families import CAUSAL, MASKED, POSITIONS, model_of
from tests.support.tiny_models import char_tokenizer, tensor_of
from trainer.config.validation import parse
from trainer.contracts.errors import AppError
from trainer.contracts.inference import GenerateRequest, GenerateResponse, ScoreRequest, ScoreResponse
from trainer.inference.generation import GenerationJob, generate, generate_together
from trainer.inference.scoring import ScoringJob, score_lines, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

TOKENIZER = char_tokenizer(["abcdefgh"], mask_token=True)
BOS, EOS, MASK = 2, 3, 4
READ_ONCE = ["gpt2", "llama", "qwen"]
LINE = "abcdhgfeabdcfehgacegbdfh" * 3


def log_probabilities(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """(T, V), of one whole forward pass."""
    with torch.inference_mode():
        return model.forward(tensor_of([ids]))[0].log_softmax(-1)


def scored(model: LanguageModel, text: str, *, tokenizer: Tokenizer = TOKENIZER, **values: object) -> ScoreResponse:
    request = parse(ScoreRequest, {"text": text, "detail_level": "per_char", **values})
    queued = ScoreResponse(request_id="request", run_id="run", status="queued")
    [response] = score_texts(model, tokenizer, [ScoringJob.of(tokenizer, request, queued)])
    return response


def written(model: LanguageModel, prompt: str, **values: object) -> GenerateResponse:
    request = parse(GenerateRequest, {"prompt_text": prompt, "temperature": 0.0, **values})
    return generate(model, TOKENIZER, request, run_id="run", request_id="request")


@pytest.mark.parametrize("name", CAUSAL)
def test_score__of_a_causal_model_is_the_forward_pass_of_each_line(name: str) -> None:
    model = model_of(name)
    response = scored(model, "abcdefgh\nhgfe")
    expected: list[float] = []
    for line in ("abcdefgh", "hgfe"):
        ids = [BOS, *TOKENIZER.encode(line)]
        answers = log_probabilities(model, ids)
        expected += [-float(answers[t, following]) for t, (_, following) in enumerate(pairwise(ids))]
    assert response.surprisal == pytest.approx(expected, abs=1e-4)
    assert (response.method, response.window) == ("causal", None)


@pytest.mark.parametrize("name", READ_ONCE)
def test_score__of_a_line_beyond_the_context_goes_by_windows_and_says_so(name: str) -> None:
    model = model_of(name)

    response = scored(model, LINE)

    ids = [BOS, *TOKENIZER.encode(LINE)]
    context = POSITIONS // 4
    expected: list[float] = []
    for target in range(1, len(ids)):
        stride = POSITIONS - context
        window = 0 if target <= POSITIONS else -(-(target - POSITIONS) // stride) * stride
        answers = log_probabilities(model, ids[window:target])
        expected.append(-float(answers[-1, ids[target]]))
    assert response.surprisal == pytest.approx(expected, abs=1e-4)
    assert (response.n_tokens, response.n_scored) == (len(LINE), len(LINE))
    assert response.window is not None
    assert (response.window.window_tokens, response.window.context_tokens) == (POSITIONS, context)
    assert response.window.compared_tokens == 0


def test_score__by_smaller_windows_is_compared_as_far_as_the_context_goes() -> None:
    model = model_of("gpt2")
    exact, by_windows = score_lines(model, [TOKENIZER.encode(LINE[:POSITIONS])] * 2)
    [smaller] = score_lines(model, [TOKENIZER.encode(LINE[:POSITIONS])], window_tokens=8)
    assert torch.allclose(exact.surprisal, by_windows.surprisal, atol=1e-5)
    assert torch.allclose(exact.surprisal[:8], smaller.surprisal[:8], atol=1e-5)
    assert not torch.allclose(exact.surprisal, smaller.surprisal, atol=1e-2)


@pytest.mark.parametrize("name", MASKED)
def test_score__of_a_masked_model_masks_each_token_in_turn(name: str) -> None:
    model = model_of(name)
    response = scored(model, "abcdefgh\nhgfe", top_k=2)
    expected: list[float] = []
    for line in ("abcdefgh", "hgfe"):
        ids = [BOS, *TOKENIZER.encode(line), EOS]
        for place in range(1, len(ids) - 1):
            gap = [*ids[:place], MASK, *ids[place + 1 :]]
            expected.append(-float(log_probabilities(model, gap)[place, ids[place]]))
    assert response.surprisal == pytest.approx(expected, abs=1e-4)
    assert response.mean_surprisal == pytest.approx(math.fsum(expected) / 12, abs=1e-4)
    assert (response.loss, response.perplexity, response.bits_per_char, response.end_nats) == (None,) * 4
    assert (response.method, response.window, response.n_scored) == ("pseudo_log_likelihood", None, 12)
    assert response.topk is not None and {len(row) for row in response.topk} == {2}


@pytest.mark.parametrize(("name", "asked"), [("bert", None), ("lstm both", 64), ("bert", 64)])
def test_score__of_a_masked_model_reads_around_each_token_what_it_can(name: str, asked: int | None) -> None:
    model = model_of(name)
    width = POSITIONS if name == "bert" else 64
    response = scored(model, LINE, window_tokens=asked)
    ids = [BOS, *TOKENIZER.encode(LINE), EOS]
    for place in (1, 5, 30, 50, len(LINE)):
        first = min(max(place - width // 2, 0), len(ids) - width)
        gap = [*ids[:place], MASK, *ids[place + 1 :]][first : first + width]
        expected = -float(log_probabilities(model, gap)[place - first, ids[place]])
        assert response.surprisal is not None
        assert response.surprisal[place - 1] == pytest.approx(expected, abs=1e-4)
    assert response.window is not None
    assert (response.window.window_tokens, response.window.compared_tokens) == (width, 0)


def test_windows_of_a_masked_model__are_told_of_where_a_line_with_its_begin_and_end_is_longer() -> None:
    model = model_of("bert")
    whole, cut = (scored(model, "ab" * ((POSITIONS - 2) // 2) + more) for more in ("", "a"))
    assert whole.window is None and whole.context_tokens is None
    assert cut.window is not None and cut.window.cut_lines == 1
    assert cut.context_tokens == (POSITIONS - 1,) * (POSITIONS - 1)


def test_windows__of_lines_without_a_begin_are_compared_with_scores_without_it() -> None:
    model = model_of("lstm")
    windowed, exact = (scored(model, LINE * 4, context="none", window_tokens=window) for window in (64, None))
    assert windowed.window is not None and windowed.surprisal is not None and exact.surprisal is not None
    pairs = zip(windowed.surprisal, exact.surprisal, strict=True)
    largest = max(abs(a - b) for a, b in pairs if a is not None and b is not None)
    assert windowed.window.max_difference_nats == pytest.approx(largest, abs=1e-6)
    assert windowed.window.compared_tokens == len(LINE * 4) - 1


@pytest.mark.parametrize("name", CAUSAL)
def test_score__without_a_context_reads_the_first_token_and_scores_the_others(name: str) -> None:
    model = model_of(name)
    response = scored(model, "abcdefgh\nh\nhgfe", context="none", top_k=1)
    expected: list[float | None] = []
    for line in ("abcdefgh", "h", "hgfe"):
        ids = TOKENIZER.encode(line)
        answers = log_probabilities(model, ids)
        expected += [None, *(-float(answers[t, following]) for t, (_, following) in enumerate(pairwise(ids)))]
    assert response.surprisal is not None and response.rank is not None and response.topk is not None
    assert [None if value is None else pytest.approx(value, abs=1e-4) for value in expected] == [*response.surprisal]
    assert [rank is None for rank in response.rank] == [not row for row in response.topk]
    assert (response.n_tokens, response.n_scored, response.n_chars) == (13, 10, 10)
    assert response.nats == pytest.approx(math.fsum(value or 0.0 for value in expected), abs=1e-4)


def test_score__without_a_context_of_single_tokens_is_refused() -> None:
    with pytest.raises(AppError, match="there are no other tokens"):
        scored(model_of("lstm"), "a\nb", context="none")


@pytest.mark.parametrize("name", MASKED)
def test_score__of_a_masked_model_hides_the_rest_of_the_word_where_that_is_asked(name: str) -> None:
    """Kauf and Ivanova (2023): each token given those before it in its word and all tokens of other words."""
    tokenizer = char_tokenizer(["abcdefg "], mask_token=True)
    model = model_of(name)
    response = scored(model, "abc de\ng", tokenizer=tokenizer, pll_within_word=True)
    expected: list[float] = []
    for line, ends in (("abc de", [3, 3, 3, 4, 6, 6]), ("g", [1])):
        ids = [BOS, *tokenizer.encode(line), EOS]
        for place, end in enumerate(ends, 1):
            gap = [*ids[:place], *[MASK] * (end + 1 - place), *ids[end + 1 :]]
            expected.append(-float(log_probabilities(model, gap)[place, ids[place]]))
    assert response.surprisal == pytest.approx(expected, abs=1e-4)
    assert response.surprisal != pytest.approx(scored(model, "abc de\ng", tokenizer=tokenizer).surprisal, abs=1e-3)


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED])
def test_score__is_the_same_alone_in_company_and_after_other_work(name: str) -> None:
    model = model_of(name)
    texts = ["abcdefgh", "hg\nfe" * 9, LINE, "a", LINE[:POSITIONS]]
    requests = [ScoreRequest(text=text, detail_level="per_char", top_k=3) for text in texts]
    queued = ScoreResponse(request_id="request", run_id="run", status="queued")

    first = [scored(model, text, top_k=3) for text in texts]
    together = score_texts(model, TOKENIZER, [ScoringJob.of(TOKENIZER, request, queued) for request in requests])
    if name in CAUSAL:
        written(model, "abc", max_new_tokens=5)
    after = [scored(model, text, top_k=3) for text in reversed(texts)][::-1]
    fresh = [scored(model_of(name), text, top_k=3) for text in texts]

    for others in (together, after, fresh):
        for one, other in zip(first, others, strict=True):
            assert one.surprisal == pytest.approx(other.surprisal, abs=1e-5)
            assert one.entropy == pytest.approx(other.entropy, abs=1e-5)
            assert (one.n_scored, one.rank, one.window) == (other.n_scored, other.rank, other.window)
            assert one.context_tokens == other.context_tokens


@pytest.mark.parametrize("name", READ_ONCE)
def test_score__of_three_contexts_states_the_stride_and_what_each_token_was_given(name: str) -> None:
    response = scored(model_of(name), f"abc\n{LINE}")
    stride = POSITIONS - POSITIONS // 4
    assert response.window is not None
    assert (response.window.window_tokens, response.window.stride_tokens) == (POSITIONS, stride)
    expected: list[int] = list(range(1, POSITIONS + 1))
    while len(expected) < len(LINE):
        expected += range(POSITIONS // 4 + 1, POSITIONS + 1)
    assert list(response.context_tokens or ()) == [1, 2, 3, *expected[: len(LINE)]]
    without = scored(model_of(name), LINE, context="none").context_tokens
    assert list(without or ()) == [0, *expected[: len(LINE) - 1]]
    assert scored(model_of(name), "abc").context_tokens is None


def test_score__of_a_masked_model_beyond_its_context_states_the_window_of_each_token() -> None:
    response = scored(model_of("bert"), f"abc\n{LINE}")
    assert response.window is not None and response.window.stride_tokens == 1
    assert response.context_tokens == (4,) * 3 + (POSITIONS - 1,) * len(LINE)


@pytest.mark.parametrize("name", CAUSAL)
def test_generation__is_the_likeliest_token_of_a_whole_forward_pass_each_time(name: str) -> None:
    model = model_of(name)
    ids = [BOS, *TOKENIZER.encode("abc")]
    steps = 0
    text = ""
    while steps < 12 and len(ids) <= POSITIONS:
        answers: list[float] = log_probabilities(model, ids)[-1].tolist()
        best = max((token for token in range(13) if token not in (0, 1, 2, MASK)), key=answers.__getitem__)
        steps += 1
        ids += [EOS, BOS] if best == EOS else [best]
        text += "\n" if best == EOS else TOKENIZER.decode([best])
    response = written(model, "abc", max_new_tokens=12, stop_on_eos=False)
    assert response.outputs == (text,)
    assert response.steps == (steps,)


@pytest.mark.parametrize("name", READ_ONCE)
def test_generation__ends_where_the_context_is_full_and_says_so(name: str) -> None:
    model = model_of(name)
    prompt = "abcdefgh"
    response = written(
        model, prompt, max_new_tokens=100, num_return_sequences=3, temperature=1.5, seed=1, stop_on_eos=False
    )
    assert response.stop_reason == ("context_full",) * 3
    assert response.steps is not None and response.outputs is not None
    for steps, text in zip(response.steps, response.outputs, strict=True):
        # each new line takes a place for its [BOS], and the last token none
        read = 1 + len(prompt) + steps + text.count("\n")
        assert POSITIONS < read <= POSITIONS + 2


@pytest.mark.parametrize("name", READ_ONCE)
def test_generation__of_a_prompt_beyond_the_context_writes_nothing_and_says_why(name: str) -> None:
    response = written(model_of(name), LINE, num_return_sequences=2)
    assert (response.outputs, response.steps) == (("", ""), (0, 0))
    assert response.stop_reason == ("context_full", "context_full")


@pytest.mark.parametrize("name", READ_ONCE)
def test_generation__together_is_what_each_prompt_gives_alone(name: str) -> None:
    model = model_of(name)
    values = [
        {"prompt_text": prompt, "max_new_tokens": 9, "num_return_sequences": 2, "seed": seed, "stop_on_eos": False}
        for seed, prompt in enumerate(["", "abcd\nef", LINE, "hgfedcbahgf"])
    ]
    requests = [parse(GenerateRequest, one) for one in values]
    asked = [
        GenerationJob(model, TOKENIZER, request, GenerateResponse(request_id=f"r{i}", run_id="run", status="queued"))
        for i, request in enumerate(requests)
    ]
    together = {response.request_id: response for response in generate_together(model, asked)}
    for i, request in enumerate(requests):
        alone = generate(model, TOKENIZER, request, run_id="run", request_id=f"r{i}")
        assert together[f"r{i}"] == alone


def test_vocabulary__of_a_tokenizer_names_its_mask_token() -> None:
    assert vocabulary_of(TOKENIZER).special_ids.mask == MASK
    assert vocabulary_of(char_tokenizer(["ab"])).special_ids.mask is None
    assert TOKENIZER.decode([MASK, 5]) == "a"
    assert TOKENIZER.encode("a[MASK]") == [5, 1, 1, 1, 1, 1, 1]
