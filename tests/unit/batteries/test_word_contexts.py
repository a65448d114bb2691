"""Words of a held-out text, their contexts and their mean surprisals, against brute force."""

import re
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import strategies

from tests.support.answers import score
from tests.support.families import model_of
from tests.support.properties import for_all
from tests.support.refusals import refused
from tests.support.tiny_models import tokenizer_of
from trainer.batteries.word_contexts import choose_words, frequencies_per_million, line_portions, mean_surprisals
from trainer.contracts.errors import ErrorCode
from trainer.contracts.scores import WordScore
from trainer.inference.scoring import word_surprisals
from trainer.reports.score_table import ScoredLine, scored_lines
from trainer.tokenizers.base import vocabulary_of

_lines = strategies.lists(strategies.text(strategies.sampled_from("aAbb' .,\t"), max_size=12), max_size=60)


def plain(line: str) -> list[str]:
    """The words of a line of letters and signs."""
    words = (match.group() for match in re.finditer(r"[^ \t]+", line))
    return [re.sub(r"^[^a-z]+|[^a-z]+$", "", word.lower()) for word in words]


@for_all(_lines)
def test_words__are_the_frequent_ones_with_all_their_occurrences(lines: list[str]) -> None:
    found = choose_words(lines)
    places = {
        word: [
            (number, place) for number, line in enumerate(lines) for place, one in enumerate(plain(line)) if one == word
        ]
        for line in lines
        for word in plain(line)
        if word
    }
    ranked = sorted((-len(of_word), word) for word, of_word in places.items() if len(of_word) >= 10)
    frequent = [word for _, word in ranked]
    assert [*found.occurrences] == frequent and not found.missing
    assert all([*found.occurrences[word]] == places[word] for word in frequent if len(places[word]) <= 100)
    assert [*found.lines] == sorted({line for of_word in found.occurrences.values() for line, _ in of_word})


def test_contexts__are_100_spread_evenly_over_the_text() -> None:
    lines = [f"the line {number}" for number in range(1000)]
    found = choose_words(lines)
    assert [*found.occurrences] == ["line", "the"], "equally frequent words stand in the order of the alphabet"
    assert [one.line for one in found.occurrences["the"]] == list(range(0, 1000, 10))
    assert {one.word for one in found.occurrences["line"]} == {1}
    assert len(found.lines) == 100 and choose_words(lines) == found


def test_words__are_500_at_most() -> None:
    lines = [" ".join(f"w{number}" for number in range(600))] * 10
    assert len(choose_words(lines).occurrences) == 500


def test_wanted_words__are_measured_however_rare_they_are() -> None:
    found = choose_words(["The sun, the sea.", "A sun"], ["Sun", "moon", "“A”", "sun"])
    assert found.occurrences == {"sun": ((0, 1), (1, 1)), "a": ((1, 0),)}
    assert found.missing == ("moon",) and found.lines == (0, 1)
    for text in ("two words", "—", ""):
        with refused(ErrorCode.INVALID_INPUT, f"'{text}' is not one word"):
            choose_words(["a"], [text])


def test_mean__covers_the_occurrences_with_a_surprisal() -> None:
    lines = ["a b a", "b a", "a\u3000b", "a lost"]
    scored = [
        ScoredLine(line=1, text="a b a", words=words(("a", 0, 3.0), ("b", 2, 1.0), ("a", 4, 5.0))),
        ScoredLine(line=2, text="b a", words=words(("b", 0, None), ("a", 2, 1.5))),
        ScoredLine(line=3, text="a\u3000b", words=words(("a\u3000b", 0, 9.0))),
        ScoredLine(line=4, error="It cannot be read."),
    ]
    means = mean_surprisals(7, choose_words(lines, ["a", "b", "lost"]), scored)
    assert [(one.step, one.word, one.n_contexts, one.nats) for one in means.scores] == [
        (7, "a", 3, pytest.approx(9.5 / 3)),
        (7, "b", 1, 1.0),
    ]
    assert means.n_unscored == 5


def words(*found: tuple[str, int, float | None]) -> tuple[WordScore, ...]:
    return tuple(WordScore(text=text, span=(start, start + len(text)), surprisal=nats) for text, start, nats in found)


@pytest.mark.parametrize("method", ["char", "word", "bpe", "sentencepiece", "wordpiece"])
@pytest.mark.parametrize("name", ["lstm", "bert"])
def test_means__of_causal_and_masked_models_are_those_of_their_words(name: str, method: str) -> None:
    lines = ["ab ba, a", "“ba” b  ab.", " b", "a b"]
    size = None if method in ("char", "word") else 24
    tokens = tokenizer_of(method, lines, lines, vocab_size=size)
    model = model_of(name, vocabulary_of(tokens))
    chosen = choose_words(lines, ["ab", "ba", "b"])
    text = "\n".join(lines[number] for number in chosen.lines)
    means = mean_surprisals(1, chosen, scored_lines(score(model, tokens, text, detail_level="per_word"), text))
    for one in means.scores:
        expected = [
            nats
            for number in chosen.lines
            for word, nats in word_surprisals(model, tokens, lines[number])
            if plain(word) == [one.word]
        ]
        assert one.n_contexts == len(expected)
        assert one.nats == pytest.approx(fmean(expected), abs=1e-4)
    assert [one.n_contexts for one in means.scores] == [2, 2, 3] and not means.n_unscored


def test_split__without_lines_has_no_text_to_score() -> None:
    assert [*line_portions([], "line")] == []


@for_all(_lines)
def test_frequencies__are_those_of_the_words(lines: list[str]) -> None:
    counts = Counter(word for line in lines for word in plain(line) if word)
    total = sum(counts.values())
    expected = {word: 1e6 * count / total for word, count in counts.items()}
    assert frequencies_per_million(["\n".join(lines)], counts) == pytest.approx(expected)
