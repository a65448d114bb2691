"""Completions of token ids against the transformers library and textbook formulas, as an evaluation harness reads them.

lm-evaluation-harness 0.4.13 (`local-completions`) sends batches of token ids with `echo`, one greedy token and one
likeliest token, and sums the log probabilities from the end of the context to the last but one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch

from tests.support.families import POSITIONS, model_of
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import char_tokenizer, small_model, tensor_of
from tests.unit.models.test_transformer import library_twin
from trainer.contracts.completions import CompletionChoice, CompletionRequest, CompletionResponse
from trainer.inference.completion import CompletionJob, complete_together
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import vocabulary_of

TOKENIZER = char_tokenizer(["abcdefgh"], mask_token=True)
NEVER = {0, 1, 2, 4}  # [PAD], [UNK], [BOS], [MASK]
PROMPTS: list[tuple[int, ...]] = [(2, 5, 9, 8, 3, 2, 6), (7,), (11, 12, 5, 5, 5, 6, 9, 8), tuple(range(5, 12)) * 3]
"""The model reads [BOS] before those that do not begin with it."""


class Oracle(NamedTuple):
    """ln p of the next token after each id of a prompt, by other code than ours."""

    model: LanguageModel
    after: dict[tuple[int, ...], list[list[float]]]


def started(prompt: Sequence[int]) -> list[int]:
    return [*([] if prompt[0] == 2 else [2]), *prompt]


def oracle_of(name: str) -> Oracle:
    if name == "lstm":
        model = small_model(vocabulary_of(TOKENIZER))
        reference = ReferenceModel(model, name)
        return Oracle(
            model, {prompt: reference.log_probabilities(started(prompt))[-len(prompt) :] for prompt in PROMPTS}
        )
    model = model_of(name)
    library = library_twin(name, model)
    after: dict[tuple[int, ...], list[list[float]]] = {}
    with torch.inference_mode():
        for prompt in PROMPTS:
            log_p: list[list[float]] = library(tensor_of([started(prompt)])).logits[0].log_softmax(-1).tolist()
            after[prompt] = log_p[-len(prompt) :]
    return Oracle(model, after)


def completed(model: LanguageModel, prompts: Sequence[Sequence[int]], **values: object) -> tuple[CompletionChoice, ...]:
    request = parse(CompletionRequest, {"prompts": prompts, "echo": True, "temperature": 0, **values})
    job = CompletionJob(model, TOKENIZER, request, CompletionResponse(request_id="q", run_id="r", status="queued"))
    [response] = complete_together(model, [job])
    assert isinstance(response, CompletionResponse) and response.choices is not None
    return response.choices


def likeliest_of(log_p: list[float]) -> int:
    """The likeliest token that may be sampled."""
    return max((token for token in range(len(log_p)) if token not in NEVER), key=log_p.__getitem__)


@pytest.mark.parametrize("name", ["gpt2", "lstm"])
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_echo__has_the_log_probabilities_of_the_reference(name: str, max_tokens: int) -> None:
    model, after = oracle_of(name)

    choices = completed(model, PROMPTS, logprobs=3, max_tokens=max_tokens)

    for prompt, choice in zip(PROMPTS, choices, strict=True):
        assert choice.tokens is not None and choice.token_logprobs is not None and choice.top_logprobs is not None
        assert list(choice.tokens[: len(prompt)]) == TOKENIZER.tokens(prompt)
        assert (choice.token_logprobs[0], choice.top_logprobs[0]) == (None, None)
        following = [*prompt[1:], *([likeliest_of(after[prompt][-1])] if max_tokens else [])]
        for place, (token, log_p) in enumerate(zip(following, after[prompt], strict=False), 1):
            best = sorted(range(len(log_p)), key=log_p.__getitem__, reverse=True)[:3]
            expected = {TOKENIZER.names[i]: log_p[i] for i in {*best, token}}
            assert choice.token_logprobs[place] == pytest.approx(log_p[token], abs=1e-4)
            assert choice.top_logprobs[place] == pytest.approx(expected, abs=1e-4)
        assert choice.prompt_tokens == len(prompt)
        assert len(choice.tokens) == choice.prompt_tokens + choice.completion_tokens
        assert choice.completion_tokens <= max_tokens


@pytest.mark.parametrize("name", ["gpt2", "lstm"])
def test_harness__finds_the_likelihood_of_each_end_and_if_it_is_the_greedy_one(name: str) -> None:
    model, after = oracle_of(name)
    best = {prompt: [max(range(13), key=log_p.__getitem__) for log_p in after[prompt]] for prompt in PROMPTS}
    context_lengths = [3, 1, 5, 20]

    choices = completed(model, PROMPTS, logprobs=1, max_tokens=1)
    greedy = completed(model, [(*prompt, best[prompt][-1]) for prompt in PROMPTS[:3]], logprobs=1, max_tokens=1)

    for prompt, length, choice in zip(PROMPTS, context_lengths, choices, strict=True):
        total, is_greedy = parsed(choice, length)
        places = range(length, len(prompt))
        assert total == pytest.approx(sum(after[prompt][place - 1][prompt[place]] for place in places), abs=1e-4)
        assert is_greedy == all(prompt[place] == best[prompt][place - 1] for place in places)
    for prompt, choice in zip(PROMPTS, greedy, strict=False):
        total, is_greedy = parsed(choice, len(prompt))
        assert total == pytest.approx(max(after[prompt][-1]), abs=1e-4)
        assert is_greedy
    assert [choice.index for choice in choices] == [0, 1, 2, 3]


def parsed(choice: CompletionChoice, context_length: int) -> tuple[float, bool]:
    """Read a choice as the harness does."""
    logprobs = (choice.token_logprobs or ())[context_length:-1]
    tops = (choice.top_logprobs or ())[context_length:-1]
    is_greedy = all(value == max((top or {}).values()) for value, top in zip(logprobs, tops, strict=True))
    return sum(value for value in logprobs if value is not None), is_greedy


def test_echo__of_a_full_context_has_one_more_token_and_no_further_one() -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        model.input_embedding().weight[3] = 0  # [EOS] is never the likeliest
    prompt = [2, *[5, 6, 7] * POSITIONS][:POSITIONS]
    [one] = completed(model, [prompt], logprobs=0, max_tokens=1)
    [many] = completed(model, [prompt], logprobs=0, max_tokens=9)
    assert one.tokens is not None and len(one.tokens) == POSITIONS + 1
    assert (one.tokens, one.text, one.finish_reason) == (many.tokens, many.text, "length")
    assert many.finish_reason == "length"


def test_prompts__do_not_change_each_other() -> None:
    model = model_of("gpt2")
    together = completed(model, PROMPTS, logprobs=2, max_tokens=2)
    alone = [completed(model, [prompt], logprobs=2, max_tokens=2)[0] for prompt in PROMPTS]
    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.tokens, one.finish_reason) == (other.text, other.tokens, other.finish_reason)
        assert floats_of(one) == pytest.approx(floats_of(other), abs=1e-5)


def floats_of(choice: CompletionChoice) -> list[float]:
    return [value for value in choice.token_logprobs or () if value is not None]
