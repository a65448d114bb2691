"""Where words begin and end among tokens, whatever the tokenizer, so that a word has one probability with all of them.

A word is what stands between white space. It is known to be complete once white space or the end of the line follows,
and that it comes next, and is complete, given that the word before it is, is the same event with every tokenizer. Where
a token begins with a space, which is the space before its word, the probability of a word's tokens is that of another
event: that the word before it ended is in it, that it ends itself is not. Pimentel and Meister (2024,
https://arxiv.org/abs/2406.14561) put that right: p(word) = p(its tokens) * p(a word ends after them) / p(a word ends
before them), where p(a word ends) is that of all tokens which begin with white space, and of [EOS], together. A space
that is a token of its own, as that of characters, is such a token too.
"""

from collections.abc import Sequence

from trainer.tokenizers.base import Span, Tokenizer
from trainer.tokenizers.sentencepiece import SPACE
from trainer.tokenizers.subword import SPLIT


class WordBoundaries:
    """What a tokenizer's tokens say of words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        method, special_ids = tokenizer.manifest.method, tokenizer.special_ids
        texts = tokenizer.tokens(range(tokenizer.vocab_size))
        if method == "sentencepiece":
            texts = [text.replace(SPACE, " ") for text in texts]
        self.eos = special_ids.eos
        self.is_line_marked = method == "sentencepiece"
        """Whether a line begins as if a space were before it."""
        self._is_word = method == "word"
        self._begins = {i for i, text in enumerate(texts) if text[0].isspace()}
        self._blank = {i for i in self._begins if text_is_blank(texts[i])}

    def boundary_ids(self, *, line_end: bool = True) -> list[int] | None:
        """Return the tokens which tell that the word before them is complete; None where every token does."""
        return None if self._is_word else sorted(self._begins | ({self.eos} if line_end else set()))

    def words(self, line_ids: Sequence[int]) -> list[Span]:
        """Return the ranges of a line's tokens that are a word each, white space at the end of a line one more."""
        starts: list[int] = []
        has_text = True
        for place, token in enumerate(line_ids):
            if place == 0 or self._is_word or (token in self._begins and has_text):
                starts.append(place)
                has_text = False
            has_text = has_text or token not in self._blank
        return list(zip(starts, [*starts[1:], len(line_ids)], strict=True))


def text_is_blank(text: str) -> bool:
    return not text.strip()


def word_ends(tokenizer: Tokenizer, line: str) -> list[int]:
    """Return for each token of a line where its word ends, for masks: the place behind the word's last token.

    Here a word is what no token of a subword tokenizer reaches out of: letters, a number, or signs, with the space
    before them. Where a space is a character as any other, white space is a word of its own.
    """
    pieces: list[tuple[str, Span]] = SPLIT.pre_tokenize_str(line)
    word_of_char = [number for number, (_, (start, end)) in enumerate(pieces) for _ in range(start, end)]
    words = [word_of_char[start] for start, _ in tokenizer.spans(line)]
    if tokenizer.manifest.method == "char":
        words = [-1 if text_is_blank(char) else word for char, word in zip(line, words, strict=True)]
    ends: list[int] = []
    for place in reversed(range(len(words))):
        goes_on = words[place : place + 1] == words[place + 1 : place + 2]
        ends.append(ends[-1] if goes_on else place + 1)
    return ends[::-1]
