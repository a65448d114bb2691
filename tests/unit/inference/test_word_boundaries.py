"""Words and their surprisals: with every tokenizer the probabilities of all words that can come next add up to one."""

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from tests.support.answers import score, scored_nats
from tests.support.families import model_of
from tests.support.tiny_models import POEM, TableModel, char_tokenizer, tokenizer_of
from trainer.inference.scoring import word_surprisals
from trainer.inference.word_boundaries import WordBoundaries, word_ends
from trainer.tokenizers.base import SPACE, Tokenizer, vocabulary_of

SUBWORD = ["bpe", "wordpiece", "sentencepiece"]
MAX_TOKENS = 3
"""A word of the toy model has no more."""


def tokenizer_with(method: str, lines: Sequence[str] = ("ab ba a", "b ab", "a b"), size: int = 14) -> Tokenizer:
    return tokenizer_of(method, lines, lines, vocab_size=None if method in ("char", "word") else size)


class ToyModel(TableModel):
    """Draws each token by the one before it, and ends every word in time, so that all its words can be counted."""

    def __init__(self, tokens: Tokenizer) -> None:
        super().__init__(vocabulary_of(tokens))
        torch.manual_seed(3)
        self.tokens = tokens
        ids = self.vocabulary.special_ids
        self.start, self.eos = ids.start, ids.eos
        specials = {ids.pad, ids.unk, ids.bos, ids.mask} - {None}
        ordinary = [i for i in range(self.vocab_size) if i not in (*specials, self.eos)]
        self.beginning = [i for i in range(self.vocab_size) if tokens.names[i][0] in (" ", SPACE)]
        self.ending = sorted({*self.beginning, self.eos})
        """Tokens before which a word has ended."""
        self.continuing = [i for i in ordinary if i not in self.beginning]
        with torch.no_grad():
            self.embedding.weight.normal_(std=1.0)
            never: list[int] = [i for i in range(self.vocab_size) if i in specials]
            self.embedding.weight[:, never] = -torch.inf

    def next_log_p(self, ids: Sequence[int]) -> Tensor:
        """(V,) after ids that begin with [BOS]."""
        logits = self.embedding.weight[ids[-1]].detach().clone()
        letters = next((n for n, i in enumerate(reversed(ids[1:]), 1) if i in self.beginning), len(ids) - 1)
        if letters >= MAX_TOKENS:
            logits[self.continuing] = -torch.inf
        return logits.log_softmax(-1)

    def probability(self, ids: Sequence[int], before: Sequence[int]) -> float:
        """Of these tokens after those."""
        log_p = [float(self.next_log_p([*before, *ids[:place]])[token]) for place, token in enumerate(ids)]
        return math.exp(math.fsum(log_p))

    def end(self, ids: Sequence[int]) -> float:
        """The probability that a word has ended, given all ids."""
        return float(self.next_log_p(ids)[self.ending].exp().sum())

    def next_words(self) -> Iterator[list[int]]:
        """Every word of MAX_TOKENS tokens or less that can follow a word."""
        words = [[i] for i in self.beginning]
        while words:
            yield from words
            words = [[*word, i] for word in words for i in self.continuing if len(word) < MAX_TOKENS]

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        rows: list[list[int]] = ids.tolist()
        return torch.stack([torch.stack([self.next_log_p(row[: t + 1]) for t in range(len(row))]) for row in rows])


TOY_MODELS = {method: ToyModel(tokenizer_with(method)) for method in ["char", *SUBWORD]}


@pytest.mark.parametrize("method", TOY_MODELS)
@pytest.mark.parametrize("line", ["ab", "a b", "ab ba"])
def test_next_words__have_probabilities_that_add_up_to_one(method: str, line: str) -> None:
    """A line goes on with a word, or with none: that a word comes and is complete, and that [EOS] comes."""
    model = TOY_MODELS[method]
    before = [model.start, *model.tokens.encode(line)]
    total = model.probability([model.eos], before)
    for word in model.next_words():
        total += model.probability(word, before) * model.end([*before, *word])
    assert total / model.end(before) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("method", TOY_MODELS)
@pytest.mark.parametrize("line", ["ab", "a b", "ab ba", "ba a ab"])
def test_words__are_scored_as_the_words_that_were_counted(method: str, line: str) -> None:
    model = TOY_MODELS[method]
    before, nats = [model.start], list[float]()
    for place in range(len(line.split())):
        spelled = model.tokens.encode(" ".join(line.split()[: place + 1]))[len(before) - 1 :]
        expected = model.probability(spelled, before) * model.end([*before, *spelled])
        if place > 0 or method == "sentencepiece":
            expected /= model.end(before)
        nats.append(-math.log(expected))
        before += spelled
    found = word_surprisals(model, model.tokens, line)
    assert [word for word, _ in found] == line.split()
    assert [value for _, value in found] == pytest.approx(nats, abs=1e-4)
    response = score(model, model.tokens, line)
    assert response.nats is not None
    total = math.fsum(word.surprisal or 0.0 for word in response.words or ())
    begin = math.log(model.end([model.start])) if method == "sentencepiece" else 0.0
    assert total == pytest.approx(response.nats - math.log(model.end(before)) + begin, abs=1e-4), "they add up"


@pytest.mark.parametrize("method", TOY_MODELS)
def test_words__are_those_of_minicons_on_request(method: str) -> None:
    """Its `bow_correction`: the mass of tokens with a space after a word goes to it, and is taken from the next one."""
    model = TOY_MODELS[method]
    found = dict(word_surprisals(model, model.tokens, "ab ba", as_minicons=True))
    ids = [model.start, *model.tokens.encode("ab ba")]
    answers = [model.next_log_p(ids[: t + 1]) for t in range(len(ids))]
    scores = [float(answers[t][ids[t + 1]]) for t in range(len(ids) - 1)]
    second = next(t for t, token in enumerate(ids[1:]) if t and token in model.beginning)
    spaces = [float(answer[model.beginning].logsumexp(-1)) for answer in answers]
    assert found["ab"] == pytest.approx(-(sum(scores[:second]) + spaces[second]), abs=1e-4)
    assert found["ba"] == pytest.approx(-(sum(scores[second:]) - spaces[second] + spaces[-1]), abs=1e-4)


def test_words__of_word_tokenizers_and_masked_models_are_token_sums() -> None:
    tokens = tokenizer_with("word")
    of_words = score(model_of("lstm", vocabulary_of(tokens)), tokens, "ab  b,\n a")
    assert [word.text for word in of_words.words or ()] == ["ab", "b,", "a"]
    assert [word.surprisal for word in of_words.words or ()] == pytest.approx(scored_nats(of_words))
    letters = char_tokenizer(["abc def"], mask_token=True)
    masked = score(model_of("bert", vocabulary_of(letters)), letters, "ab cd")
    nats = scored_nats(masked)
    assert [word.surprisal for word in masked.words or ()] == pytest.approx([sum(nats[:2]), sum(nats[2:])])


@pytest.mark.parametrize("method", ["char", "word", *SUBWORD])
def test_words__are_those_between_white_space_with_their_places(method: str) -> None:
    tokens = tokenizer_with(method, [*POEM, "odd,\u00a0(it) was."], 90)
    text = "the  odd,\u00a0sun \n\n was Ж(it)Ж\n"
    words = score(model_of("lstm", vocabulary_of(tokens)), tokens, text, detail_level="per_word").words or ()
    assert [text[word.span[0] : word.span[1]] for word in words] == [word.text for word in words]
    assert [word.text for word in words if word.text] == text.split()
    blank = [word for word in words if not word.text]
    assert len(blank) == (0 if method == "word" else 1), "the space at the end of the first line"


@pytest.mark.parametrize("method", ["char", "byte", "word", *SUBWORD])
def test_words__are_those_between_zero_width_spaces(method: str) -> None:
    lines = ["ab\u200bc,\u200b ab", "c\u200bab ab,", "ab\u200b c"] * 3
    tokens = tokenizer_of(method, lines, lines, **({} if method in ("byte", "word") else {"vocab_size": 20}))
    words = score(model_of("lstm", vocabulary_of(tokens)), tokens, lines[0], detail_level="per_word").words or ()
    assert [word.text for word in words if word.text] == (
        ["ab\u200bc,", "ab"] if method == "byte" else ["ab", "c,", "ab"]
    ), "its tokens are single bytes"


def test_levels__each_have_what_those_before_them_have() -> None:
    tokens = char_tokenizer(["abc"])
    model = model_of("char_lstm", vocabulary_of(tokens))
    names = ("summary", "per_line", "per_word", "per_char")
    levels = [score(model, tokens, "a b\n\nc", detail_level=level) for level in names]
    assert [sum(part is not None for part in (r.lines, r.words, r.tokens)) for r in levels] == [0, 1, 2, 3]
    lines = levels[1].lines or ()
    assert [(line.number, line.span, line.n_tokens) for line in lines] == [(1, (0, 3), 3), (3, (5, 6), 1)]
    assert math.fsum(line.nats for line in lines) == pytest.approx(levels[0].nats)
    assert len({response.mean_surprisal for response in levels}) == 1


@pytest.mark.parametrize(
    ("method", "expected"), [("char", [3, 3, 3, 4, 8, 8, 8, 8, 9, 11, 11, 13, 13]), ("word", [1, 2, 3])]
)
def test_masks__of_words_end_with_the_word(method: str, expected: list[int]) -> None:
    assert word_ends(tokenizer_of(method, POEM), "the moon,  12") == expected


@pytest.mark.parametrize("method", SUBWORD)
def test_masks__of_subwords_end_with_the_word_of_letters_or_the_number(method: str) -> None:
    tokens, line = tokenizer_with(method, [*POEM, "moon, 12"], 90), "the moon, 12"
    spans = tokens.spans(line)
    found = [(spans[place][0], spans[end - 1][1]) for place, end in enumerate(word_ends(tokens, line))]
    assert {end for _, end in found} == {3, 8, 9, 12}
    assert all(not {3, 8, 9} & set(range(start + 1, end)) for start, end in found)


def test_marks__know_every_white_space() -> None:
    tokens = char_tokenizer(["a\tb c\u00a0d"])
    spaces = tokens.encode("\t \u00a0")
    assert WordBoundaries(tokens).ids == sorted({tokens.special_ids.eos, *spaces})
    assert WordBoundaries(tokens, as_minicons=True).ids == sorted(spaces)
    assert WordBoundaries(tokenizer_with("word")).ids is None
