"""Words and their surprisals: with every tokenizer the probabilities of all words that can come next add up to one."""

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.support.families import model_of
from tests.support.tiny_models import POEM, char_tokenizer, tokenizer_of
from trainer.config.validation import parse
from trainer.contracts.inference import ScoreRequest, ScoreResponse
from trainer.inference.scoring import ScoringJob, score_texts, word_surprisals
from trainer.inference.word_boundaries import WordBoundaries, word_ends
from trainer.models.base import LanguageModel, ModelState
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.tokenizers.sentencepiece import SPACE

SUBWORD = ["bpe", "wordpiece", "sentencepiece"]
LETTERS = ["ab ba a", "b ab", "a b"]
MAX_TOKENS = 3
"""A word of the toy model has no more."""


def tokenizer(method: str, lines: Sequence[str] = LETTERS) -> Tokenizer:
    sized: dict[str, object] = {} if method in ("char", "word") else {"vocab_size": 14}
    return tokenizer_of(method, lines, lines, **sized)


class ToyModel(LanguageModel):
    """Draws each token by the one before it, and ends every word in time, so that all its words can be counted."""

    def __init__(self, tokens: Tokenizer) -> None:
        super().__init__(vocabulary_of(tokens), "causal_lm")
        torch.manual_seed(3)
        self.names = tokens.tokens(range(self.vocab_size))
        self.begins = [name[0] in (" ", SPACE) for name in self.names]
        self.table = nn.Embedding(self.vocab_size, self.vocab_size)
        with torch.no_grad():
            self.table.weight.normal_(std=1.0)
        ids = self.vocabulary.special_ids
        self.specials = {i for i in (ids.pad, ids.unk, ids.bos, ids.mask) if i is not None}

    def next_log_p(self, ids: Sequence[int]) -> Tensor:
        """(V,) after ids that begin with [BOS]."""
        logits = self.table.weight[ids[-1]].detach().clone()
        specials: list[int] = sorted(self.specials)
        logits[specials] = -torch.inf
        letters = 0
        for i in reversed(ids[1:]):
            letters += 1
            if self.begins[i]:
                break
        if letters >= MAX_TOKENS:
            goes_on: list[int] = [
                i for i in range(self.vocab_size) if not self.begins[i] and i != self.vocabulary.special_ids.eos
            ]
            logits[goes_on] = -torch.inf
        return logits.log_softmax(-1)

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        rows: list[list[int]] = ids.tolist()
        return torch.stack([torch.stack([self.next_log_p(row[: t + 1]) for t in range(len(row))]) for row in rows])

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        return self.forward(ids), state

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def initial_state(self, batch: int) -> ModelState:
        return ()

    def input_embedding(self) -> nn.Embedding:
        return self.table


def probability(model: ToyModel, ids: Sequence[int], before: Sequence[int]) -> float:
    """Of these tokens after those."""
    log_p = 0.0
    for place, token in enumerate(ids):
        log_p += float(model.next_log_p([*before, *ids[:place]])[token])
    return math.exp(log_p)


def next_words(model: ToyModel, before: Sequence[int], *, is_marked: bool) -> Iterator[list[int]]:
    """Every word of MAX_TOKENS tokens or less that can follow; one that is marked begins with a space."""
    words = [[i] for i in range(model.vocab_size) if model.begins[i] == is_marked]
    words = [word for word in words if word[0] not in (*model.specials, model.vocabulary.special_ids.eos)]
    continuing = [
        i
        for i in range(model.vocab_size)
        if not model.begins[i] and i not in (*model.specials, model.vocabulary.special_ids.eos)
    ]
    while words:
        yield from words
        words = [[*word, i] for word in words for i in continuing if len(word) < MAX_TOKENS]


def ends(model: ToyModel, ids: Sequence[int]) -> float:
    """The probability that a word has ended, given all ids."""
    log_p = model.next_log_p(ids)
    return sum(
        math.exp(float(log_p[i]))
        for i in range(model.vocab_size)
        if model.begins[i] or i == model.vocabulary.special_ids.eos
    )


@pytest.mark.parametrize("method", ["char", *SUBWORD])
@pytest.mark.parametrize("line", ["ab", "a b", "ab ba"])
def test_next_words__have_probabilities_that_add_up_to_one(method: str, line: str) -> None:
    """A line goes on with a word, or with none: that a word comes and is complete, and that [EOS] comes."""
    tokens = tokenizer(method)
    model = ToyModel(tokens)
    before = [tokens.special_ids.start, *tokens.encode(line)]
    ended = ends(model, before)
    total = probability(model, [tokens.special_ids.eos], before) / ended
    for word in next_words(model, before, is_marked=True):
        total += probability(model, word, before) * ends(model, [*before, *word]) / ended
    assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("method", ["char", *SUBWORD])
@pytest.mark.parametrize("line", ["ab", "a b", "ab ba", "ba a ab"])
def test_words__are_scored_as_the_words_that_were_counted(method: str, line: str) -> None:
    tokens = tokenizer(method)
    model = ToyModel(tokens)
    found = word_surprisals(model, tokens, line)
    before = [tokens.special_ids.start]
    assert [word for word, _ in found] == line.split()
    for place, (word, nats) in enumerate(found):
        spelled = tokens.encode(" ".join(line.split()[: place + 1]))[len(before) - 1 :]
        expected = probability(model, spelled, before) * ends(model, [*before, *spelled])
        if place > 0 or method == "sentencepiece":
            expected /= ends(model, before)
        assert nats == pytest.approx(-math.log(expected), abs=1e-4), word
        before += spelled


@pytest.mark.parametrize("method", ["char", *SUBWORD])
def test_words__are_those_of_minicons_where_asked(method: str) -> None:
    """Its `bow_correction`: the mass of tokens with a space after a word goes to it, and is taken from the next one."""
    tokens = tokenizer(method)
    model = ToyModel(tokens)
    marked = [i for i in range(model.vocab_size) if model.begins[i]]
    found = dict(word_surprisals(model, tokens, "ab ba", as_minicons=True))
    ids = [tokens.special_ids.start, *tokens.encode("ab ba")]
    answers = [model.next_log_p(ids[: t + 1]) for t in range(len(ids))]
    scores = [float(answers[t][ids[t + 1]]) for t in range(len(ids) - 1)]
    second = next(t for t, token in enumerate(ids[1:]) if t and model.begins[token])
    spaces = [float(answer[marked].logsumexp(-1)) for answer in answers]
    assert found["ab"] == pytest.approx(-(sum(scores[:second]) + spaces[second]), abs=1e-4)
    assert found["ba"] == pytest.approx(-(sum(scores[second:]) - spaces[second] + spaces[-1]), abs=1e-4)


def test_words__of_a_tokenizer_of_words_are_its_tokens() -> None:
    tokens = tokenizer("word")
    model = model_of("lstm", vocabulary_of(tokens))
    response = scored(model, tokens, "ab  b,\n a", detail_level="per_char")
    assert response.words is not None and response.surprisal is not None
    assert [word.text for word in response.words] == ["ab", "b,", "a"]
    assert [word.surprisal for word in response.words] == pytest.approx(list(response.surprisal))


def scored(model: LanguageModel, tokens: Tokenizer, text: str, **values: object) -> ScoreResponse:
    request = parse(ScoreRequest, {"text": text, "detail_level": "per_word", **values})
    queued = ScoreResponse(request_id="request", run_id="run", status="queued")
    [response] = score_texts(model, tokens, [ScoringJob.of(tokens, request, queued)])
    return response


@pytest.mark.parametrize("method", ["char", *SUBWORD])
def test_words__add_up_to_their_line_and_to_the_end_of_its_last_word(method: str) -> None:
    tokens = tokenizer(method)
    model = ToyModel(tokens)
    line = "ba ab a"
    response = scored(model, tokens, line, detail_level="per_char")
    assert response.words is not None and response.nats is not None
    total = math.fsum(word.surprisal or 0.0 for word in response.words)
    last = [tokens.special_ids.start, *tokens.encode(line)]
    expected = response.nats - math.log(ends(model, last))
    if method == "sentencepiece":
        expected += math.log(ends(model, last[:1]))
    assert total == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("method", ["char", "word", *SUBWORD])
def test_words__are_those_between_white_space_with_their_places(method: str) -> None:
    lines = [*POEM, "odd,\u00a0(it) was."]
    sized: dict[str, object] = {} if method in ("char", "word") else {"vocab_size": 90}
    tokens = tokenizer_of(method, lines, lines, **sized)
    text = "the  odd,\u00a0sun \n\n was Ж(it)Ж\n"
    model = model_of("lstm", vocabulary_of(tokens))
    response = scored(model, tokens, text)
    assert response.words is not None
    assert [text[word.span[0] : word.span[1]] for word in response.words] == [word.text for word in response.words]
    assert [word.text for word in response.words if word.text] == text.split()
    blank = [word for word in response.words if not word.text]
    assert len(blank) == (0 if method == "word" else 1), "the space at the end of the first line"


def test_words__of_a_masked_model_are_the_sums_of_their_tokens() -> None:
    tokens = char_tokenizer(["abc def"], mask_token=True)
    model = model_of("bert", vocabulary_of(tokens))
    response = scored(model, tokens, "ab cd", detail_level="per_char")
    assert response.words is not None and response.surprisal is not None
    first, second = math.fsum(map(floats, response.surprisal[:2])), math.fsum(map(floats, response.surprisal[2:]))
    assert [word.surprisal for word in response.words] == pytest.approx([first, second])


def floats(value: float | None) -> float:
    assert value is not None
    return value


def test_levels__each_have_what_those_before_them_have() -> None:
    tokens = char_tokenizer(["abc"])
    model = model_of("char_lstm", vocabulary_of(tokens))

    levels = [
        scored(model, tokens, "a b\n\nc", detail_level=level)
        for level in ("summary", "per_line", "per_word", "per_char")
    ]

    assert [[a is not None for a in (r.lines, r.words, r.tokens)] for r in levels] == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert levels[1].lines is not None
    assert [(line.number, line.span, line.n_tokens) for line in levels[1].lines] == [(1, (0, 3), 3), (3, (5, 6), 1)]
    assert math.fsum(line.nats for line in levels[1].lines) == pytest.approx(levels[0].nats)
    assert len({response.mean_surprisal for response in levels}) == 1


WITHIN = [
    ("char", "the moon,  12", [3, 3, 3, 4, 8, 8, 8, 8, 9, 11, 11, 13, 13]),
    ("word", "the moon,  12", [1, 2, 3]),
]


@pytest.mark.parametrize(("method", "line", "expected"), WITHIN)
def test_masks__of_words_end_with_the_word(method: str, line: str, expected: list[int]) -> None:
    assert word_ends(tokenizer_of(method, POEM), line) == expected


@pytest.mark.parametrize("method", SUBWORD)
def test_masks__of_subwords_end_with_the_word_of_letters_or_the_number(method: str) -> None:
    tokens = tokenizer_of(method, [*POEM, "moon, 12"], POEM, vocab_size=90)
    line = "the moon, 12"
    found = [
        (tokens.spans(line)[place][0], tokens.spans(line)[end - 1][1])
        for place, end in enumerate(word_ends(tokens, line))
    ]
    assert {end for _, end in found} == {3, 8, 9, 12}
    assert all(not {3, 8, 9} & set(range(start + 1, end)) for start, end in found)


def test_marks__know_every_white_space() -> None:
    tokens = char_tokenizer(["a\tb c\u00a0d"])
    marks = WordBoundaries(tokens)
    found = marks.ids
    assert found == sorted({tokens.special_ids.eos, *tokens.encode("\t \u00a0")})
    assert WordBoundaries(tokens, as_minicons=True).ids == sorted(tokens.encode("\t \u00a0"))
    assert WordBoundaries(tokenizer("word")).ids is None
