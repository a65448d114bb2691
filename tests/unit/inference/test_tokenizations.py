"""Probabilities summed over tokenizations, against the enumeration of all token sequences by their decoded texts."""

import math
from itertools import pairwise
from random import Random

import pytest
import torch

from tests.support.answers import surprisals
from tests.support.families import POSITIONS, model_of
from tests.support.tiny_models import TableModel, tensor_of, tokenizer_of
from tests.unit.inference.test_sequences import only, parts_of
from trainer.contracts.sequences import SequenceBound, SequenceParts, SequenceScore, SequencesRequest, SequencesResponse
from trainer.inference.sequences import score_parts
from trainer.inference.tokenizations import marginals
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

LINES = ("abab ab", "ba bab", "ab abab")
TEXTS = [("aba", "b aba"), ("a", "b", " a"), ("ba", " ", "b"), (" a", "b a")]
SEQUENCES = [SequenceParts(parts=parts) for parts in TEXTS]
SEQUENCES += [SequenceParts(context="ab", parts=("ab", " b")), SequenceParts(context="ab ", parts=("a",))]


def tiny_tokenizer(method: str) -> Tokenizer:
    return tokenizer_of(method, LINES, vocab_size=12)


def marginal(
    model: LanguageModel, tokenizer: Tokenizer, *sequences: SequenceParts, beam_size: int = 10_000
) -> list[tuple[SequenceScore, SequenceBound]]:
    request = SequencesRequest(sequences=sequences, tokenizations="marginal", beam_size=beam_size)
    queued = SequencesResponse(request_id="r", run_id="run", status="queued")
    found = score_parts(model, tokenizer, request, queued)
    return list(zip(found.scores or (), found.bounds or (), strict=True))


def log_p_after(model: LanguageModel, sequences: list[list[int]]) -> list[list[float]]:
    """ln p of every token after each of sequences of one length."""
    with torch.inference_mode():
        rows: list[list[float]] = model.forward(tensor_of(sequences))[:, -1].double().log_softmax(-1).tolist()
    return rows


def nats_of(model: LanguageModel, tokenizer: Tokenizer, text: str) -> float:
    """-ln p(the decoded text begins with a text), summed over all sequences of tokens that are not special."""
    special = tokenizer.special_ids
    shown = f" {text}".encode()  # SentencePiece does not show a space at the start
    left_out = [*special.all, *(i for i, byte in tokenizer.byte_values.items() if byte not in shown)]
    tokens = [i for i in range(tokenizer.vocab_size) if i not in left_out]
    total = 0.0 if text else 1.0
    paths: dict[tuple[int, ...], float] = {(): 1.0}
    while paths and text:
        longer: dict[tuple[int, ...], float] = {}
        after = log_p_after(model, [[special.start, *ids] for ids in paths])
        for (ids, p), row in zip(paths.items(), after, strict=True):
            for token in tokens:  # all that can spell the text
                spelled = tokenizer.decode([*ids, token])
                if spelled.startswith(text):
                    total += p * math.exp(row[token])
                elif text.startswith(spelled):
                    longer[(*ids, token)] = p * math.exp(row[token])
        paths = longer
    return -math.log(total)


def nats_of_ends(model: LanguageModel, tokenizer: Tokenizer, sequence: SequenceParts) -> list[float]:
    """The surprisals of the texts up to the end of the context and of each part, without white space at their ends."""
    parts = [sequence.context, *sequence.parts]
    return [nats_of(model, tokenizer, "".join(parts[:end]).rstrip()) for end in range(1, len(parts) + 1)]


@pytest.mark.parametrize(
    ("method", "family"),
    [("bpe", "lstm"), ("wordpiece", "lstm"), ("sentencepiece", "lstm"), ("wordpiece", "gpt2"), ("bpe", "ngram")],
)
def test_marginal__is_the_sum_over_all_token_sequences_within_its_bound(method: str, family: str) -> None:
    tokenizer = tiny_tokenizer(method)
    model = model_of(family, vocabulary_of(tokenizer))
    sequences = SEQUENCES if family == "lstm" else SEQUENCES[1:]
    nats = [nats_of_ends(model, tokenizer, sequence) for sequence in sequences]
    for expected, (score, bound) in zip(nats, marginal(model, tokenizer, *sequences), strict=True):
        assert score.part_nats == pytest.approx([after - before for before, after in pairwise(expected)], abs=1e-5)
        assert score.nats == pytest.approx(expected[-1] - expected[0], abs=1e-5)
        assert (bound.nats, max(bound.part_nats)) == (0.0, 0.0)
    for beam_size in (1, 2):
        found = marginal(model, tokenizer, *sequences, beam_size=beam_size)
        assert any(bound.nats > 0.001 for _, bound in found)
        for sequence, expected, (score, bound) in zip(sequences, nats, found, strict=True):
            assert abs(expected[-1] - expected[0] - score.nats) <= bound.nats + 1e-5
            if not sequence.context:  # nothing was dropped before the first part
                too_high = (score.part_nats[0] or 0.0) - (expected[1] - expected[0])
                assert -1e-5 <= too_high <= bound.part_nats[0] + 1e-5


@pytest.mark.parametrize(
    ("method", "model_type", "has_bytes"),
    [
        ("bpe", None, False),
        ("wordpiece", None, False),
        ("sentencepiece", "unigram", False),
        ("sentencepiece", "bpe", False),
        ("bpe", None, True),
        ("sentencepiece", "unigram", True),
    ],
)
def test_string_of_up_to_8_characters__is_within_the_bound_of_all_its_tokenizations(
    method: str, model_type: str | None, has_bytes: bool
) -> None:
    fields: dict[str, object] = {} if model_type is None else {"model_type": model_type}
    fields |= {"vocab_size": 268, "byte_fallback": True} if has_bytes else {"vocab_size": 12}
    tokenizer, characters = tokenizer_of(method, LINES, ("a b",), **fields), "abü " if has_bytes else "ab "
    model, draws = model_of("lstm", vocabulary_of(tokenizer)), Random(8)
    texts = ["".join(draws.choices(characters, k=length)) for length in (1, 2, 3, 5, 8)]
    texts = sorted({text[:end] for text in texts for end in range(1, 1 + len(text))})
    expected = [nats_of(model, tokenizer, text) for text in texts]
    largest = 0.0
    for beam_size in (10_000, 16, 1):
        ends = [range(1 + len(text)) for text in texts]
        for nats, found in zip(expected, marginals(model, tokenizer, texts, ends, beam_size), strict=True):
            too_high = math.fsum(found.part_nats) - nats
            assert -1e-5 <= too_high <= found.bound_nats + 1e-5
            largest = max(largest, found.bound_nats)
        assert (largest == 0.0) == (beam_size == 10_000)


def test_bound__counts_dropped_tokenizations_as_if_they_gave_the_rest_of_the_text() -> None:
    tokenizer = tiny_tokenizer("bpe")
    assert sorted(filter(None, tokenizer.texts)) == [" ", " ab", " b", "a", "ab", "abab", "b", "ba"]
    model = TableModel(vocabulary_of(tokenizer))
    torch.nn.init.zeros_(model.embedding.weight)
    p = 1 / tokenizer.vocab_size  # of each token
    [(score, bound)] = marginal(model, tokenizer, SequenceParts(parts=("ab", "ab")), beam_size=1)
    first = 2 * p + 2 * p**2  # ab, abab; a b, a ba
    both = p + 2 * p**2 + 2 * p**3  # abab; ab ab, ab abab; a ba b, a ba ba
    dropped = p**2  # a b, which is less probable than ab; later ab a, which is not more probable than a ba
    assert score.part_nats == pytest.approx([-math.log(first), math.log(first / both)], abs=1e-6)
    second = math.log(first / (first - dropped)) + math.log((both + dropped) / both)
    assert bound.part_nats == pytest.approx([0, second], abs=1e-6)
    assert bound.nats == pytest.approx(math.log((both + 2 * dropped) / both), abs=1e-6)


def test_bound__of_a_part_adds_up_those_of_its_words() -> None:
    tokenizer = tiny_tokenizer("bpe")
    model = model_of("lstm", vocabulary_of(tokenizer))
    together, apart = SequenceParts(parts=("abab ba bab",)), SequenceParts(parts=("abab", " ba", " bab"))
    [(_, whole), (_, words)] = marginal(model, tokenizer, together, apart, beam_size=20)
    assert min(words.part_nats[1:]) > 0
    assert whole.part_nats == pytest.approx([math.fsum(words.part_nats)], abs=1e-9)
    assert whole.nats == pytest.approx(words.nats, abs=1e-9)


@pytest.mark.parametrize("method", ["bpe", "wordpiece", "sentencepiece"])
def test_unknown_token__spells_what_it_stands_for(method: str) -> None:
    tokenizer = tiny_tokenizer(method)
    model = model_of("lstm", vocabulary_of(tokenizer))
    sequence = SequenceParts(context="₪₪", parts=("a", "₪"))
    start, unknown = tokenizer.special_ids.start, tokenizer.special_ids.unk
    a = [i for i, text in enumerate(tokenizer.texts) if text.startswith("a")]
    given = [unknown] if method == "sentencepiece" else [unknown, unknown]
    begins = [[start, *given]]
    if method == "sentencepiece":
        begins.append([start, tokenizer.names.index("▁"), *given])
    assert all(begin[1:] == tokenizer.encode("₪₪") for begin in begins[-1:])
    nats = [0.0, 0.0, 0.0]
    for begin in begins:
        context = -sum(surprisals(model, begin))
        after = log_p_after(model, [begin])[0]
        nats[0] += math.exp(context)
        nats[1] += sum(math.exp(context + after[i]) for i in a)
        for i in a:
            if tokenizer.texts[i] == "a":
                nats[2] += math.exp(context + after[i] + log_p_after(model, [[*begin, i]])[0][unknown])
    [(score, _)] = marginal(model, tokenizer, sequence)
    expected = [math.log(before / after) for before, after in pairwise(nats)]
    assert score.part_nats == pytest.approx(expected, abs=1e-5)
    assert score.unk_count == 1


def test_bytes__spell_characters_that_no_token_has() -> None:
    tokenizer = tokenizer_of("bpe", LINES, vocab_size=268, byte_fallback=True)
    model = model_of("lstm", vocabulary_of(tokenizer))
    sequence = SequenceParts(parts=("ü", "a"))
    [before, middle, after] = nats_of_ends(model, tokenizer, sequence)
    [(score, bound)] = marginal(model, tokenizer, sequence)
    assert score.part_nats == pytest.approx([middle - before, after - middle], abs=1e-5)
    assert (score.unk_count, bound.nats) == (0, 0.0)


@pytest.mark.parametrize("method", ["bpe", "wordpiece", "sentencepiece"])
def test_parts__add_up_to_the_text_wherever_it_is_cut(method: str) -> None:
    tokenizer = tiny_tokenizer(method)
    model = model_of("lstm", vocabulary_of(tokenizer))
    text = "abab ba  bab abba aabb"
    cuts = [SequenceParts(parts=(text[:cut], text[cut:])) for cut in range(1, len(text))]
    cuts.append(SequenceParts(parts=tuple(text)))
    [(whole, _), *others] = marginal(model, tokenizer, SequenceParts(parts=(text,)), *cuts, beam_size=8)
    for score, _ in others:
        assert math.fsum(nats or 0.0 for nats in score.part_nats) == pytest.approx(whole.nats, abs=1e-6)
        assert min(nats or 0.0 for nats in score.part_nats) >= 0


@pytest.mark.parametrize("method", ["char", "byte", "word"])
def test_text_with_one_tokenization__has_its_canonical_score(method: str) -> None:
    tokenizer = tokenizer_of(method, LINES)
    model = model_of("lstm", vocabulary_of(tokenizer))
    sequences = [*SEQUENCES, SequenceParts(context="a", parts=("b ₪", "a"))]
    canonical = parts_of(model, tokenizer, *sequences).scores or ()
    assert [score for score, _ in marginal(model, tokenizer, *sequences)] == [*canonical]
    assert all(bound.nats == max(bound.part_nats) == 0 for _, bound in marginal(model, tokenizer, *sequences))


@pytest.mark.parametrize("family", ["lstm", "gpt2", "ngram"])
def test_characters__have_their_surprisals_in_a_text_of_any_length(family: str) -> None:
    tokenizer = tokenizer_of("char", LINES)
    model = model_of(family, vocabulary_of(tokenizer))
    text = "abab ba₪ bab" * (POSITIONS // 4)
    [found] = marginals(model, tokenizer, [text], [range(len(text) + 1)], beam_size=1)
    canonical = only(parts_of(model, tokenizer, SequenceParts(parts=(text,))))
    assert canonical.is_cut == (model.context_tokens is not None)
    assert math.fsum(found.part_nats) == pytest.approx(canonical.nats, abs=1e-4)
    expected = surprisals(model, [tokenizer.special_ids.start, *tokenizer.encode(text)][:POSITIONS])
    assert found.part_nats[: POSITIONS - 1] == pytest.approx(expected, abs=1e-4)
    assert (found.bound_nats, max(found.part_left_out_nats)) == (0.0, 0.0)
