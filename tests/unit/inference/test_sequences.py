"""Scores of the parts of sequences, against the surprisals of single forward passes."""

import math

import pytest
import torch
from pydantic import ValidationError

from tests.support.answers import log_probabilities, score, scored_nats, small_tokenizer, surprisals
from tests.support.families import MASKED, POSITIONS, QUICK, model_of, with_vocabulary
from trainer.api import Model
from trainer.contracts.sequences import SequenceParts, SequenceScore, SequencesRequest, SequencesResponse, Tokenizations
from trainer.inference.sequences import score_parts
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

CONTEXT, PARTS = "The sun was", (" shining", "", " on the sea", ",  ")
TEXT = CONTEXT + "".join(PARTS)
METHODS = ["char", "byte", "word", "bpe", "wordpiece", "sentencepiece"]


def parts_of(
    model: LanguageModel,
    tokenizer: Tokenizer,
    *sequences: SequenceParts,
    pll_within_word: bool = False,
    has_end: bool = False,
    has_entropies: bool = False,
    tokenizations: Tokenizations = "canonical",
) -> SequencesResponse:
    request = SequencesRequest(
        sequences=sequences,
        pll_within_word=pll_within_word,
        has_end=has_end,
        has_entropies=has_entropies,
        tokenizations=tokenizations,
    )
    return score_parts(model, tokenizer, request, SequencesResponse(request_id="r", run_id="run", status="queued"))


def only(response: SequencesResponse) -> SequenceScore:
    [score] = response.scores or ()
    return score


@pytest.mark.parametrize("method", METHODS)
def test_part__has_the_tokens_that_begin_in_it(method: str) -> None:
    tokenizer = small_tokenizer(method)
    model = model_of("lstm", vocabulary_of(tokenizer))
    start, ids = tokenizer.special_ids.start, tokenizer.encode(TEXT)
    ends = [len(CONTEXT), *(len(CONTEXT) + len("".join(PARTS[: n + 1])) for n in range(len(PARTS)))]
    expected = [list[float]() for _ in ends]
    for (first, _), nats in zip(tokenizer.spans(TEXT), surprisals(model, [start, *ids]), strict=True):
        place = first
        while TEXT[place : place + 1].isspace():
            place += 1
        expected[min(sum(end <= place for end in ends), len(PARTS))].append(nats)
    found = only(parts_of(model, tokenizer, SequenceParts(context=CONTEXT, parts=PARTS)))
    wanted = [math.fsum(nats) if nats or not part else None for nats, part in zip(expected[1:], PARTS, strict=True)]
    assert found.part_nats == pytest.approx(wanted, abs=1e-4)
    assert found.nats == pytest.approx(math.fsum(nats or 0.0 for nats in found.part_nats), abs=1e-9)
    assert found.n_tokens == sum(map(len, expected[1:]))
    assert (found.n_chars, found.n_bytes) == (len("shining on the sea,"), len(b"shining on the sea,"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("has_end", [False, True])
def test_part__has_the_entropy_of_the_prediction_before_it(method: str, has_end: bool) -> None:
    tokenizer = small_tokenizer(method)
    model = model_of("lstm", vocabulary_of(tokenizer))
    ids: list[int] = [tokenizer.special_ids.start, *tokenizer.encode(TEXT)]
    entropies = [-math.fsum(math.exp(log_p) * log_p for log_p in row) for row in log_probabilities(model, ids)]
    starts = [len(CONTEXT) + len("".join(PARTS[:number])) for number in range(len(PARTS))]
    places = [start + len(TEXT[start:]) - len(TEXT[start:].lstrip()) for start, _ in tokenizer.spans(TEXT)]
    firsts = [
        next((n for n, place in enumerate(places) if start <= place < start + len(part)), None)
        for start, part in zip(starts, PARTS, strict=True)
    ]
    asked = SequenceParts(context=CONTEXT, parts=PARTS)
    found = only(parts_of(model, tokenizer, asked, has_end=has_end, has_entropies=True))
    assert firsts[1] is None
    for first, entropy in zip(firsts, found.part_entropies or (), strict=True):
        assert entropy == (None if first is None else pytest.approx(entropies[first], abs=1e-4))
    without = only(parts_of(model, tokenizer, asked, has_end=has_end))
    assert without.part_entropies is None and found.part_nats == pytest.approx(without.part_nats, abs=1e-5)


@pytest.mark.parametrize("family", QUICK)
def test_sequence__without_context_has_the_total_of_a_score(family: str) -> None:
    tokenizer = small_tokenizer("bpe")
    model = model_of(family, vocabulary_of(tokenizer))
    for text, is_cut in {
        "the sun was shining": False,
        "shining " * POSITIONS + "sea": model.context_tokens is not None,
    }.items():
        found = only(parts_of(model, tokenizer, SequenceParts(parts=(text,))))
        assert found.nats == pytest.approx(score(model, tokenizer, text).nats, abs=1e-5)
        assert found.is_cut == is_cut


@pytest.mark.parametrize("family", MASKED[-1:])
def test_masked_word__hides_the_rest_of_each_word_on_request(family: str) -> None:
    tokenizer = small_tokenizer("bpe")
    model = model_of(family, vocabulary_of(tokenizer))
    sequence = SequenceParts(context="the sun was", parts=(" quoted",))
    whole = scored_nats(score(model, tokenizer, sequence.text, pll_within_word=True))
    found = parts_of(model, tokenizer, sequence, pll_within_word=True)
    n_tokens = only(found).n_tokens
    assert found.method == "pseudo_log_likelihood"
    assert n_tokens > 1
    assert only(found).nats == pytest.approx(math.fsum(whole[-n_tokens:]), abs=1e-9)
    assert only(found).nats != pytest.approx(only(parts_of(model, tokenizer, sequence)).nats, abs=1e-3)


def test_unknown_characters__count_where_they_are_scored() -> None:
    tokenizer = small_tokenizer("char")
    model = model_of("lstm", vocabulary_of(tokenizer))
    assert only(parts_of(model, tokenizer, SequenceParts(context="₪", parts=("a₪₪",)))).unk_count == 2


@pytest.mark.parametrize("family", ["lstm", "bert"])
def test_parts_without_a_token__have_no_nats(family: str) -> None:
    tokenizer = small_tokenizer("bpe")
    model = model_of(family, vocabulary_of(tokenizer))
    composed = SequenceParts(context="e", parts=("\u0301",))  # in NFC, one character with the context
    [empty, scored] = parts_of(model, tokenizer, composed, SequenceParts(parts=("sun",))).scores or ()
    assert (empty.nats, empty.part_nats, empty.n_tokens, empty.n_chars) == (0.0, (0.0,), 0, 0)
    assert scored.nats > 0


def test_part_inside_a_token__has_no_surprisal_of_its_own() -> None:
    tokenizer = small_tokenizer("bpe")
    model = model_of("lstm", vocabulary_of(tokenizer))
    word, (start, end) = "the", tokenizer.spans("the")[0]
    assert (start, end) == (0, 3)
    sequence = SequenceParts(parts=("t", "he", ""))
    found = only(parts_of(model, tokenizer, sequence))
    whole = scored_nats(score(model, tokenizer, word))[0]
    assert found.part_nats == pytest.approx([whole, None, 0.0], abs=1e-5)
    [of_all, inside, _] = only(parts_of(model, tokenizer, sequence, tokenizations="marginal")).part_nats
    assert of_all is not None and inside is not None and inside > 0


@pytest.mark.parametrize("documents", ["line", "stream"])
@pytest.mark.parametrize("family", ["lstm", "gpt2", "ngram"])
def test_line_end__is_scored_by_itself_on_request(family: str, documents: str) -> None:
    tokenizer = small_tokenizer("bpe", documents)
    model = model_of(family, vocabulary_of(tokenizer))
    special_ids = tokenizer.special_ids
    sequences = [SequenceParts(context="the sun", parts=(" was", " on")), SequenceParts(parts=("the sun was",))]
    sequences += [SequenceParts(context="e", parts=("\u0301",)), SequenceParts(parts=("shining " * POSITIONS,))]
    found = parts_of(model, tokenizer, *sequences, has_end=True).scores or ()
    plain = parts_of(model, tokenizer, *sequences).scores or ()
    assert [one.nats for one in found] == pytest.approx([one.nats for one in plain], abs=1e-4)
    assert [one.n_tokens for one in found] == [one.n_tokens for one in plain]
    for sequence, scored in zip(sequences[:3], found, strict=False):
        ids = [special_ids.start, *tokenizer.encode(sequence.text), special_ids.line_end]
        assert scored.end_nats == pytest.approx(surprisals(model, ids)[-1], abs=1e-4)
    assert all(one.end_nats is not None and one.end_nats > 0 for one in found)


@pytest.mark.parametrize("fields", [{"parts": ()}, {"parts": (" ",)}, {"context": "a\n", "parts": ("b",)}])
def test_sequence__that_is_blank_or_no_line_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SequenceParts.model_validate(fields)


@pytest.mark.parametrize("family", QUICK)
def test_untrained_seed__draws_the_weights_of_the_architecture(family: str) -> None:
    tokenizer = small_tokenizer("bpe")
    model = Model("run", model_of(family, vocabulary_of(tokenizer)), tokenizer)
    sequences = (SequenceParts(parts=("the sun was shining",)),)
    state = torch.get_rng_state()
    found = [
        only(model.ask(SequencesRequest(sequences=sequences, untrained_seed=seed))).nats for seed in (None, 1, 2, 1)
    ]
    assert len({*found}) == (2 if family == "ngram" else 3)  # uncounted n-grams are equally probable
    assert found[1] == found[3]
    torch.manual_seed(1)
    fresh = build(*with_vocabulary(family, vocabulary_of(tokenizer))).eval()
    torch.set_rng_state(state)
    assert only(parts_of(fresh, tokenizer, *sequences)).nats == pytest.approx(found[1], abs=1e-9)
    uniform = math.log(tokenizer.vocab_size) * only(parts_of(fresh, tokenizer, *sequences)).n_tokens
    assert found[1] == pytest.approx(uniform, rel=0.2), "an untrained model knows nothing"


def test_line_end__is_refused_beside_the_sum_over_tokenizations() -> None:
    with pytest.raises(ValidationError, match="'canonical' only"):
        SequencesRequest(sequences=(SequenceParts(parts=("a",)),), has_end=True, tokenizations="marginal")
