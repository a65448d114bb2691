"""One token per word between white space, stored in the form of the `tokenizers` library."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from itertools import chain

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from trainer.contracts.tokenizers import Normalization, TokenizerCorpus, TokenizerManifest, WordTokenizerConfig
from trainer.data.normalization import normalized
from trainer.tokenizers.base import Ids, Span, StoredTokenizer, Text, Trained, broken, documents_of
from trainer.tokenizers.counting import CountedLines
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of

_UNKNOWN, _END = "<UNK>", "<eos>"
_SPECIAL_TOKENS = {_UNKNOWN: 0, _END: 1}
_WORD = re.compile(r"\S+")
_SPACE = r"\s\x1c-\x1f"
"""White space as Python has it; the library's regular expressions leave out four control characters."""
_NONE_BEFORE: tuple[str, ...] = (*",.:;!?)]}", "'s", "'")
_NONE_AFTER = tuple("([{")


class WordTokenizer(StoredTokenizer):
    """Implements Tokenizer; ids are 0 and 1 for <UNK> and <eos>, then the words as they came first in the text.

    White space separates words and is part of none, nor of any span; `decode` puts spaces where print has them. A
    word that is spelled like a special token is an unknown one.
    """

    def __init__(self, content: bytes, manifest: TokenizerManifest) -> None:
        """Read the content of the file; raises TOKENIZER_LOAD_FAILED where it is none of words."""
        super().__init__(manifest, content, _SPECIAL_TOKENS)
        self._names = vocabulary_of(content, manifest)
        words = self._names[len(_SPECIAL_TOKENS) :]
        if self._names[: len(_SPECIAL_TOKENS)] != list(_SPECIAL_TOKENS) or any(
            not _WORD.fullmatch(word) for word in words
        ):
            raise broken(manifest, "does not hold a vocabulary of words")
        self._texts = ["" for _ in _SPECIAL_TOKENS] + words
        self._ids = {word: i for i, word in enumerate(words, len(_SPECIAL_TOKENS))}

    def encode(self, text: str) -> list[int]:
        return self._encoded(normalized(text, self.normalization))

    def encode_documents(self, lines: Sequence[str]) -> Ids:
        return documents_of(map(self._encoded, lines), self.special_ids, self.vocab_size)

    def decode(self, ids: Sequence[int]) -> str:
        return detokenized([self._names[i] for i in ids if len(_SPECIAL_TOKENS) <= i < len(self._names)])

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._names[i] for i in ids]

    def spans(self, text: str) -> list[Span]:
        return [word.span() for word in _WORD.finditer(normalized(text, self.normalization))]

    def _encoded(self, line: str) -> list[int]:
        return [self._ids.get(word, self.special_ids.unk) for word in line.split()]


def detokenized(words: Iterable[str]) -> str:
    """Return the words as a printed text: punctuation stands at its word, brackets and quotes at what they enclose."""
    parts: list[str] = []
    joins, quoted = True, False
    for word in words:
        is_quote = word == '"'
        joins = joins or word in _NONE_BEFORE or (is_quote and quoted)
        parts += [word] if joins else [" ", word]
        quoted ^= is_quote
        joins = word in _NONE_AFTER or (is_quote and quoted)
    return "".join(parts)


def train(config: WordTokenizerConfig, texts: Iterable[Text]) -> Trained:
    """Make the vocabulary from the words of the texts, in their order."""
    counts: Counter[str] = Counter()
    corpora: list[TokenizerCorpus] = []
    for text in texts:
        lines = CountedLines(text)
        for block in lines.blocks():
            counts.update(chain.from_iterable(map(str.split, block)))
        corpora.append(lines.counted())
    words = _vocabulary(config, counts)
    return Trained(
        content=_as_library_json([*_SPECIAL_TOKENS, *words], config.normalization),
        special_tokens=_SPECIAL_TOKENS,
        vocab_size=len(_SPECIAL_TOKENS) + len(words),
        characters=set(chain.from_iterable(words)),
        corpora=tuple(corpora),
        versions={"tokenizers": version("tokenizers")},
    )


def _vocabulary(config: WordTokenizerConfig, counts: Counter[str]) -> list[str]:
    """Return the words that are kept, by their first places; a cap keeps the most frequent, the first of equals."""
    kept = [word for word, count in counts.items() if count >= config.min_frequency and word not in _SPECIAL_TOKENS]
    if config.vocab_size is None:
        return kept
    room = max(0, config.vocab_size - len(_SPECIAL_TOKENS))
    most_frequent = set(sorted(kept, key=counts.__getitem__, reverse=True)[:room])
    return [word for word in kept if word in most_frequent]


def _as_library_json(names: Sequence[str], normalization: Normalization) -> bytes:
    library = tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=_UNKNOWN))
    spelled = tokenizers.Regex(f"(?<![^{_SPACE}]){_END}(?![^{_SPACE}])")
    library.normalizer = normalizer_of(normalization, normalizers.Replace(spelled, _UNKNOWN))
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(f"[{_SPACE}]+"), "removed")
    return content_of(library, list(_SPECIAL_TOKENS))
