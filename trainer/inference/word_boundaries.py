"""Word boundaries among tokens, so that a word has the same probability with every tokenizer.

A word is the text between white space or zero-width spaces. It is complete when one of them or the end of the line
follows. The surprisal of a word is that of one event: this word comes next and is complete, given that the word before
it is complete. Where tokens begin with the space before their word, the tokens of a word have another probability: it
includes that the word before them ended, and not that the word itself ends. Pimentel and Meister (2024,
https://arxiv.org/abs/2406.14561) correct that: p(word) = p(its tokens) * p(a word ends after them) / p(a word ends
before them), where p(a word ends) is the sum over all tokens that begin with white space, and [EOS]. A space that is a
token of its own counts among them.
"""

from collections.abc import Sequence

from trainer.data.words import is_separator
from trainer.tokenizers.base import SPACE, Span, Tokenizer
from trainer.tokenizers.subword import SPLIT

_ASCII = 0x80


class WordBoundaries:
    """The tokens of a tokenizer that begin a word."""

    def __init__(self, tokenizer: Tokenizer, *, as_minicons: bool = False) -> None:
        """`as_minicons`: the end of a line ends no word, and the first word of a line has no boundary before it."""
        method = tokenizer.manifest.method
        names = tokenizer.names
        texts = [name.replace(SPACE, " ") for name in names] if method == "sentencepiece" else names[:]
        for i, byte in tokenizer.byte_values.items():
            texts[i] = chr(byte) if byte < _ASCII else names[i]
        self.has_line_start = method == "sentencepiece" and not as_minicons
        """A line begins with a boundary, as if a space were before it."""
        self._is_word = method == "word"
        self._begins = {i for i, text in enumerate(texts) if is_separator(text[0])}
        self._blank = {i for i in self._begins if is_separator(texts[i])}
        ends = set() if as_minicons else {tokenizer.special_ids.line_end}
        self.ids = None if self._is_word else sorted(self._begins | ends)
        """The tokens after which the word before them is complete; None if every token is one."""

    def words(self, line_ids: Sequence[int]) -> list[Span]:
        """Return the range of tokens of each word; separators at the end of a line are one more."""
        starts: list[int] = []
        has_text = True
        for position, token in enumerate(line_ids):
            if position == 0 or self._is_word or (token in self._begins and has_text):
                starts.append(position)
                has_text = False
            has_text = has_text or token not in self._blank
        return list(zip(starts, [*starts[1:], len(line_ids)], strict=True))


def word_ends(tokenizer: Tokenizer, line: str) -> list[int]:
    """Return for each token of a line the position after the last token of its word, for masks.

    A word here is letters, a number, or signs, with the space before them: no subword token crosses its borders. With
    characters, what separates words is a word of its own.
    """
    pieces: list[tuple[str, Span]] = SPLIT.pre_tokenize_str(line)
    word_of_char = [number for number, (_, (start, end)) in enumerate(pieces) for _ in range(start, end)]
    starts = [start for start, _ in tokenizer.spans(line)]
    words = [word_of_char[start] for start in starts]
    if tokenizer.manifest.method in ("char", "byte"):
        words = [-1 if is_separator(line[start]) else word for start, word in zip(starts, words, strict=True)]
    ends: list[int] = []
    for position in reversed(range(len(words))):
        has_next = words[position : position + 1] == words[position + 1 : position + 2]
        ends.append(ends[-1] if has_next else position + 1)
    return ends[::-1]
