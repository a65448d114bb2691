"""Word tokenizer: one token per word between white space, stored as a file of the `tokenizers` library."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from trainer.contracts.tokenizers import UNKNOWN_NAMES, DocumentMode, TokenizerManifest, WordTokenizerConfig
from trainer.data.normalization import normalized
from trainer.data.words import split_words
from trainer.tokenizers.base import NEWLINE, Ids, Span, Text, Tokenizer, Trained, join_ids, load_error
from trainer.tokenizers.counting import count_lines, frequent_tokens
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of, word_level

_UNKNOWN, _END = "<UNK>", "<eos>"
_SPECIAL_TOKENS = {_UNKNOWN: 0, _END: 1}
_SPACE = r"\s\x1c-\x1f\u200b"
"""What separates words: the regular expressions of the library miss four of Python's white space characters."""
_SEPARATORS = f"[{_SPACE}]+"
_IN_FILE = f'"Regex":{json.dumps(_SEPARATORS)}'.encode()
_NO_SPACE_BEFORE: tuple[str, ...] = (*",.:;!?)]}", "'s", "'")
_NO_SPACE_AFTER = tuple("([{")


class WordTokenizer(Tokenizer):
    """Word tokenizer: ids 0 and 1 are <UNK> and <eos>, then words in the order of their first occurrence.

    White space and zero-width spaces are part of no word and no span; `decode` puts spaces where printed text has
    them. A word spelled like a special token is unknown, and so are <unk> and [UNK]. The newline of a stream is <eos>.
    Tokenizers of earlier versions have zero-width spaces inside words, as their files do.
    """

    def __init__(self, content: bytes, manifest: TokenizerManifest) -> None:
        """Raises TOKENIZER_LOAD_FAILED if the content of the file is no word vocabulary."""
        super().__init__(content, manifest, _SPECIAL_TOKENS, vocabulary_of(content, manifest), newline=_END)
        words = self.names[len(_SPECIAL_TOKENS) :]
        is_earlier = _IN_FILE not in content
        self._split = str.split if is_earlier else split_words
        self._word = re.compile(r"\S+" if is_earlier else f"[^{_SPACE}]+")
        self._word_or_newline = re.compile(rf"{self._word.pattern}|\n")
        if not all(map(self._word.fullmatch, words)):
            raise load_error(manifest, "does not have a word vocabulary")
        self._ids = {word: i for i, word in enumerate(words, len(_SPECIAL_TOKENS))}

    def encode(self, text: str) -> list[int]:
        form = normalized(text, self.normalization)
        if self.documents == "line":
            return self._encode_line(form)
        first, *others = [self._encode_line(line) for line in form.split(NEWLINE)]
        return [*first, *(i for line in others for i in (self.special_ids.eos, *line))]

    def encode_documents(self, lines: str) -> Ids:
        documents = ([*self._encode_line(line), self.special_ids.eos] for line in lines.split("\n"))
        return join_ids(documents, self.vocab_size)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(with_spaces(super().pieces(ids)))

    def spans(self, text: str) -> list[Span]:
        pattern = self._word if self.documents == "line" else self._word_or_newline
        return [word.span() for word in pattern.finditer(normalized(text, self.normalization))]

    def unknown_characters(self, lines: str, ids: Ids) -> int:
        if self.special_ids.unk not in ids:
            return 0
        return sum(len(word) for word in self._split(lines) if self._encode_line(word) == [self.special_ids.unk])

    def _encode_line(self, line: str) -> list[int]:
        return [self._ids.get(word, self.special_ids.unk) for word in self._split(line)]


def with_spaces(words: Iterable[str]) -> Iterator[str]:
    """Yield each word, with a space before it as in printed text: none between punctuation or brackets and a word.

    Empty words are special tokens and stay empty. A newline begins a line.
    """
    joins, quoted = True, False
    for word in words:
        if word == NEWLINE:
            joins, quoted = True, False
            yield word
            continue
        if not word:
            yield word
            continue
        is_quote = word == '"'
        joins = joins or word in _NO_SPACE_BEFORE or (is_quote and quoted)
        yield word if joins else f" {word}"
        quoted ^= is_quote
        joins = word in _NO_SPACE_AFTER or (is_quote and quoted)


def train(config: WordTokenizerConfig, texts: Iterable[Text], documents: DocumentMode) -> Trained:
    """Build the vocabulary of the words in the texts, in the order of their first occurrence."""
    counts: Counter[str] = Counter()
    corpora = count_lines(texts, lambda block: counts.update(split_words(block)), documents)
    for name in UNKNOWN_NAMES:  # WikiText and other corpora have replaced rare words
        counts.pop(name, None)
    words = frequent_tokens(config, counts, _SPECIAL_TOKENS)
    library = word_level([*_SPECIAL_TOKENS, *words], _UNKNOWN)
    spelled = tokenizers.Regex(f"(?<![^{_SPACE}]){_END}(?![^{_SPACE}])")
    replacements = [normalizers.Replace(spelled, _UNKNOWN)]
    if documents == "stream":
        replacements.append(normalizers.Replace(NEWLINE, f" {_END} "))
    library.normalizer = normalizer_of(config.normalization, *replacements)
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(_SEPARATORS), "removed")
    return Trained(
        content=content_of(library, list(_SPECIAL_TOKENS)),
        special_tokens=_SPECIAL_TOKENS,
        vocab_size=len(_SPECIAL_TOKENS) + len(words),
        characters=set(chain.from_iterable(words)),
        corpora=corpora,
        versions={"tokenizers": version("tokenizers")},
    )
