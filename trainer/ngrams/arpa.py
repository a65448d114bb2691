"""The ARPA format of n-gram models, which KenLM and SRILM read.

The unknown token is <unk>. A line is between <s> and </s>; the token before and after it has these names. A stream has
no lines: its newline is a token like the others, and <s> and </s> are listed, but have no probability. Tokens that no
text has are left out. In other names, white space, control characters and the backslash are escaped as in Python:
\\u0020 is a space. The < of a token that has one of the three names by itself is escaped, too.
"""

from collections.abc import Iterator, Sequence
from unicodedata import category

import numpy as np

from trainer.ngrams.kneser_ney import MIN_PROBABILITY, Floats, KneserNey, Nodes, is_predicted

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
_NEVER = "-99"
"""Stands for the logarithm of 0."""
_CHUNK_NGRAMS = 1 << 16


def escaped(name: str) -> str:
    """Return the name of a token without white space and control characters."""
    if name in (START, END, UNKNOWN):
        return f"\\u{ord('<'):04x}{name[1:]}"
    return "".join(_escaped_character(character) for character in name)


def arpa_lines(model: KneserNey, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of an ARPA file, without newlines, given the names of all tokens.

    Numbers have nine digits, as many as a number in 32 bits needs.
    """
    special_ids = model.special_ids
    words = [escaped(name) for name in names]
    words[special_ids.unk] = UNKNOWN
    last_words = words.copy()
    if special_ids.newline is None:
        words[special_ids.start], last_words[special_ids.eos] = START, END
    unigrams = list(_unigrams(model, words, last_words))
    yield "\\data\\"
    yield f"ngram 1={len(unigrams)}"
    for order in range(2, model.order + 1):
        yield f"ngram {order}={len(model.tables.keys[order - 1])}"
    for order in range(1, model.order + 1):
        yield ""
        yield f"\\{order}-grams:"
        yield from unigrams if order == 1 else _ngrams(model, order, words, last_words)
    yield ""
    yield "\\end\\"


def _unigrams(model: KneserNey, words: Sequence[str], last_words: Sequence[str]) -> Iterator[str]:
    special_ids = model.special_ids
    tokens: Nodes = np.arange(model.vocab_size)
    predicted: list[bool] = is_predicted(model.vocab_size, special_ids).tolist()
    probabilities, backoffs = _logarithms(model.unigrams), _backoffs(model, 1, tokens)
    for token, is_listed in enumerate(predicted):
        if is_listed:
            is_end = last_words[token] == END
            yield _line(probabilities[token], last_words[token], "" if is_end else backoffs[token])
    if special_ids.newline is None:
        yield _line(_NEVER, START, backoffs[special_ids.start])
    else:
        yield _line(_NEVER, START)
        yield _line(_NEVER, END)


def _ngrams(model: KneserNey, order: int, words: Sequence[str], last_words: Sequence[str]) -> Iterator[str]:
    count = len(model.tables.keys[order - 1])
    for begin in range(0, count, _CHUNK_NGRAMS):
        numbers: Nodes = np.arange(begin, min(begin + _CHUNK_NGRAMS, count))
        tokens = model.tokens_of(order, numbers)
        rows: list[list[int]] = tokens.tolist()
        columns = zip(
            rows, _logarithms(model.ngram_probabilities(tokens)), _backoffs(model, order, numbers), strict=True
        )
        for (*context, last), probability, backoff in columns:
            yield _line(probability, " ".join([*(words[token] for token in context), last_words[last]]), backoff)


def _line(probability: str, words: str, backoff: str = "") -> str:
    return f"{probability}\t{words}\t{backoff}" if backoff else f"{probability}\t{words}"


def _backoffs(model: KneserNey, order: int, numbers: Nodes) -> list[str]:
    """Return the logarithms of the weights after n-grams; nothing for those of the highest order."""
    return [""] * len(numbers) if order == model.order else _logarithms(model.lower_shares(order, numbers))


def _logarithms(numbers: Floats) -> list[str]:
    logarithms: list[float] = np.log10(np.maximum(numbers, MIN_PROBABILITY)).tolist()
    return [f"{logarithm:.9g}" for logarithm in logarithms]


def _escaped_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if not character.isspace() and category(character) != "Cc":
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else f"\\U{ord(character):08x}"
