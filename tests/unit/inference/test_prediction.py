"""Next-token predictions: the model's probabilities, and cached states of a growing text."""

import math

import pytest
import torch

from tests.support.answers import BOS, EOS, WITH_MASK, WORD_START, log_probabilities, small_tokenizer
from tests.support.families import CAUSAL, CONTINUING, POSITIONS, model_of, slow_unless_quick
from tests.support.refusals import refused
from tests.support.tiny_models import POEM, small_model, tokenizer_of
from trainer.contracts.errors import ErrorCode
from trainer.contracts.predictions import PredictRequest, PredictResponse, Suggestion
from trainer.contracts.tokenizers import METHODS
from trainer.inference.prediction import PrefixCache, predict
from trainer.models import base
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of


def suggest(
    model: LanguageModel, text: str, k: int = 5, *, tokenizer: Tokenizer = WITH_MASK, cache: PrefixCache | None = None
) -> tuple[Suggestion, ...]:
    queued = PredictResponse(request_id="request", run_id="run", status="queued")
    found = predict(model, tokenizer, PredictRequest(text=text, k=k), queued, cache or PrefixCache())
    assert found.status == "completed" and found.suggestions is not None
    assert found.unk_count == text.count("x")
    return found.suggestions


def count_tokens(model: LanguageModel) -> list[int]:
    """Return the number of tokens that each later call of the model reads."""
    read: list[int] = []

    def note(_: torch.nn.Module, inputs: tuple[torch.Tensor], __: torch.Tensor) -> None:
        read.append(inputs[0].shape[1])

    model.input_embedding().register_forward_hook(note)
    return read


@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_suggestions__are_the_likeliest_of_a_complete_forward_pass(name: str) -> None:
    model = model_of(name)
    answers = log_probabilities(model, [BOS, *WITH_MASK.encode("ab"), EOS, BOS, *WITH_MASK.encode("cdx")])[-1]
    expected = sorted(WITH_MASK.encode("abcdefgh"), key=answers.__getitem__, reverse=True)[:6]
    found = suggest(model, "ab\n\ncdx", 6)
    assert [s.token for s in found] == [WITH_MASK.decode([i]) for i in expected]
    assert [s.logp for s in found] == pytest.approx([answers[i] for i in expected], abs=1e-4)
    assert [s.prob for s in found] == pytest.approx([math.exp(s.logp) for s in found])


@pytest.mark.parametrize("method", METHODS)
def test_suggestions__are_distinct_never_special_and_all_there_are(method: str) -> None:
    tokenizer = small_tokenizer(method)
    model = small_model(vocabulary_of(tokenizer))
    few, all_there_are = (suggest(model, "the sun was", k, tokenizer=tokenizer) for k in (5, 100))
    names = [suggestion.token for suggestion in all_there_are]
    assert few == all_there_are[:5]
    assert set(names) <= set(tokenizer.names) - set(tokenizer.manifest.special_tokens)
    assert len(names) == len(set(names)) == min(100, tokenizer.vocab_size - len(tokenizer.special_ids.all))
    probabilities = [suggestion.prob for suggestion in all_there_are]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", ["the sun was", ""])
def test_suggestions_after_a_space__begin_with_it_and_share_the_probability_of_those(method: str, text: str) -> None:
    tokenizer = small_tokenizer(method)
    model, special_ids, start = small_model(vocabulary_of(tokenizer)), tokenizer.special_ids, WORD_START.get(method)
    found = suggest(model, f"{text} ", 100, tokenizer=tokenizer)
    read = tokenizer.encode(f"{text} ")
    after = log_probabilities(model, [special_ids.start, *(read[:-1] if start else read)])[-1]
    if start is None:
        expected = {i: math.exp(after[i]) for i in range(len(after)) if i not in special_ids.all}
    else:
        weights = {i: math.exp(after[i]) for i, name in enumerate(tokenizer.names) if name.startswith(start)}
        expected = {i: weight / math.fsum(weights.values()) for i, weight in weights.items()}
    best = sorted(expected, key=expected.__getitem__, reverse=True)[: 100 if read else 0]
    assert [suggestion.token for suggestion in found] == tokenizer.tokens(best)
    assert [suggestion.prob for suggestion in found] == pytest.approx([expected[i] for i in best], rel=1e-4)


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_prefix_without_tokens__has_no_suggestions(text: str) -> None:
    words = tokenizer_of("word", POEM)
    assert suggest(small_model(vocabulary_of(words)), text, tokenizer=words) == ()


@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_growing_prefix__gives_the_same(name: str) -> None:
    model, cache, text = model_of(name), PrefixCache(), "abcdhgfeabdcfehgabcdef"
    for n in (1, 2, 3, 5, 8, 20, 21, 22):
        grown, alone = suggest(model, text[:n], cache=cache), suggest(model, text[:n])
        assert [s.token for s in grown] == [s.token for s in alone]
        assert [s.prob for s in grown] == pytest.approx([s.prob for s in alone], abs=1e-5)


@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_growing_prefix__costs_a_step_for_each_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache, text = model_of(name), PrefixCache(), "abcdhgfeabdcfehg"
    monkeypatch.setattr(base, "builds", tuple)  # without a compiled step, each step is a call of the model
    read = count_tokens(model)
    for n in range(1, len(text) + 1):
        suggest(model, text[:n], cache=cache)
    assert read == [1] * (len(text) + 1)
    suggest(model, text, cache=cache)
    assert read == [1] * (len(text) + 1), "again it costs nothing"
    suggest(model, text[:-1] + "x", cache=cache)
    assert read == [1] * (len(text) + 2), "a corrected end costs one step"


def test_prefixes__are_bounded_by_bytes_and_number_and_the_last_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "builds", tuple)  # without a compiled step, each step is a call of the model
    model, nothing, few = model_of("gpt2"), PrefixCache(0), PrefixCache(40_000)
    read = count_tokens(model)
    for n in range(1, POSITIONS):
        assert suggest(model, "a" * n, cache=nothing) == suggest(model, "a" * n)
        suggest(model, "a" * n, cache=few)
    del read[:]
    suggest(model, "a" * (POSITIONS - 1), cache=few)
    suggest(model, "a", cache=few)
    assert nothing.memory_bytes == 0
    assert 0 < few.memory_bytes <= 40_000
    assert read == [1, 1], "the whole was there; of the oldest nothing was"
    recurrent, many, one = model_of("gru"), PrefixCache(), PrefixCache()
    for n in range(300):
        suggest(recurrent, "abcdefgh"[n % 8] + "abcdefgh"[n // 8 % 8] + "abcdefgh"[n // 64], cache=many)
    suggest(recurrent, "a", cache=one)
    assert many.memory_bytes < 1.1 * 256 * one.memory_bytes / 2


def test_text_beyond_the_context__is_refused_and_not_cut() -> None:
    model = model_of("qwen")
    suggest(model, "a" * (POSITIONS - 1))
    with refused(ErrorCode.INVALID_INPUT, "The text has 25 tokens, and this model reads at most 24"):
        suggest(model, "a" * POSITIONS)
