"""Next-token predictions: the model's probabilities, and cached states of a growing text."""

import math

import pytest
import torch

from tests.support.families import CAUSAL, POSITIONS, model_of
from tests.support.tiny_models import POEM, char_tokenizer, small_model, tensor_of, tokenizer_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import PredictRequest, PredictResponse
from trainer.contracts.tokenizers import METHODS
from trainer.inference.prediction import PrefixCache, predict
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

TOKENIZER = char_tokenizer(["abcdefgh"], mask_token=True)
BOS, EOS = 2, 3
QUEUED = PredictResponse(request_id="request", run_id="run", status="queued")


def asked(
    model: LanguageModel,
    text: str,
    k: int = 5,
    *,
    tokenizer: Tokenizer = TOKENIZER,
    prefixes: PrefixCache | None = None,
) -> PredictResponse:
    return predict(model, tokenizer, PredictRequest(text=text, k=k), QUEUED, prefixes or PrefixCache())


def tokens_fed(model: LanguageModel) -> list[int]:
    """Return the number of tokens that each later call of the model reads."""
    fed: list[int] = []

    def note(_: torch.nn.Module, inputs: tuple[torch.Tensor], __: torch.Tensor) -> None:
        fed.append(inputs[0].shape[1])

    model.input_embedding().register_forward_hook(note)
    return fed


@pytest.mark.parametrize("name", CAUSAL)
def test_suggestions__are_the_likeliest_of_a_whole_forward_pass(name: str) -> None:
    model = model_of(name)
    ids = [BOS, *TOKENIZER.encode("ab"), EOS, BOS, *TOKENIZER.encode("cdx")]
    with torch.inference_mode():
        answers: list[float] = model.forward(tensor_of([ids]))[0, -1].double().log_softmax(-1).tolist()
    expected = sorted((-answers[i], i) for i in TOKENIZER.encode("abcdefgh"))[:6]
    found = asked(model, "ab\n\ncdx", 6)
    assert found.suggestions is not None
    assert [s.token for s in found.suggestions] == [TOKENIZER.decode([i]) for _, i in expected]
    assert [s.logp for s in found.suggestions] == pytest.approx([-nats for nats, _ in expected], abs=1e-4)
    assert [s.prob for s in found.suggestions] == pytest.approx([math.exp(s.logp) for s in found.suggestions])
    assert (found.status, found.unk_count) == ("completed", 1)


@pytest.mark.parametrize("method", METHODS)
def test_suggestions__are_distinct_and_never_special_and_as_many_as_there_are(method: str) -> None:
    sized = method not in ("char", "byte")
    tokenizer = tokenizer_of(method, POEM, vocab_size=60) if sized else tokenizer_of(method, POEM)
    model = small_model(vocabulary_of(tokenizer))
    few, all_there_are = (asked(model, "the sun was", k, tokenizer=tokenizer).suggestions or () for k in (5, 100))
    names = [suggestion.token for suggestion in all_there_are]
    assert few == all_there_are[:5]
    assert set(names) <= set(tokenizer.tokens(range(tokenizer.vocab_size))) - set(tokenizer.manifest.special_tokens)
    assert len(names) == len(set(names)) == min(100, tokenizer.vocab_size - len(tokenizer.special_ids.all))
    probabilities = [suggestion.prob for suggestion in all_there_are]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("text", ["", "\n", " \n\n"])
def test_prefix_without_tokens__has_no_suggestions(text: str) -> None:
    words = tokenizer_of("word", POEM)
    assert asked(small_model(vocabulary_of(words)), text, tokenizer=words).suggestions == ()


@pytest.mark.parametrize("name", CAUSAL)
def test_growing_prefix__costs_a_step_for_each_token_and_gives_the_same(name: str) -> None:
    model, prefixes = model_of(name), PrefixCache()
    text = "abcdhgfeabdcfehg"
    alone = [asked(model, text[:n]) for n in range(1, len(text) + 1)]
    fed = tokens_fed(model)

    grown = [asked(model, text[:n], prefixes=prefixes) for n in range(1, len(text) + 1)]
    typed = fed[:]
    asked(model, text, prefixes=prefixes)
    again = fed[len(typed) :]
    asked(model, text[:-1] + "x", prefixes=prefixes)
    corrected = fed[len(typed) + len(again) :]

    for one, other in zip(grown, alone, strict=True):
        assert one.suggestions is not None and other.suggestions is not None
        assert [s.token for s in one.suggestions] == [s.token for s in other.suggestions]
        assert [s.prob for s in one.suggestions] == pytest.approx([s.prob for s in other.suggestions], abs=1e-5)
    assert typed == [1] * (len(text) + 1)
    assert (again, corrected) == ([], [1])


def test_prefixes__are_bounded_by_bytes_and_number_and_the_last_ones_stay() -> None:
    model, nothing, few = model_of("gpt2"), PrefixCache(0), PrefixCache(40_000)
    fed = tokens_fed(model)

    for n in range(1, POSITIONS):
        assert asked(model, "a" * n, prefixes=nothing) == asked(model, "a" * n, prefixes=PrefixCache())
        asked(model, "a" * n, prefixes=few)
    del fed[:]
    asked(model, "a" * (POSITIONS - 1), prefixes=few)
    asked(model, "a", prefixes=few)

    assert nothing.memory_bytes == 0
    assert 0 < few.memory_bytes <= 40_000
    assert fed == [1, 1], "the whole was there; of the oldest nothing was"

    recurrent, many, one = model_of("gru"), PrefixCache(), PrefixCache()
    for n in range(300):
        asked(recurrent, "abcdefgh"[n % 8] + "abcdefgh"[n // 8 % 8] + "abcdefgh"[n // 64], prefixes=many)
    asked(recurrent, "a", prefixes=one)
    assert many.memory_bytes < 1.1 * 256 * one.memory_bytes / 2


def test_text_beyond_the_context__is_refused_and_not_cut() -> None:
    model = model_of("qwen")
    asked(model, "a" * (POSITIONS - 1))
    with pytest.raises(AppError) as caught:
        asked(model, "a" * POSITIONS)
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.message == ("The text has 25 tokens, and this model reads at most 24. Give only its end.")
