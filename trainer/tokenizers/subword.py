"""BPE and WordPiece tokenizers of the `tokenizers` library: their word boundaries, encoding and training."""

import re
from collections.abc import Iterable
from importlib.metadata import version

import tokenizers
from tokenizers import Regex, pre_tokenizers, processors
from tokenizers.trainers import Trainer

from trainer.contracts.tokenizers import (
    DocumentMode,
    SubwordConfig,
    TokenizerManifest,
    has_byte_fallback,
    special_names,
)
from trainer.data.normalization import normalized
from trainer.tokenizers.base import NEWLINE, Ids, Span, Text, Tokenizer, Trained, join_ids, special_token_ids
from trainer.tokenizers.counting import CharacterCounts
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of

SPLIT = pre_tokenizers.Split(
    Regex(
        r" ?#"
        r"| ?(?:[\p{L}\p{M}]|(?<=\p{L})['\u2019](?=\p{L})){1,60}"
        r"| ?\p{N}{1,60}"
        r"| ?[^\s\u200b\p{L}\p{M}\p{N}#]{1,60}"
        r"|[\s\u200b]"
    ),
    "isolated",
)
"""Splits a text into words, numbers and punctuation, each with the space before it; no token crosses a split.

Therefore no token is spelled like a special token, only WordPiece continuations start with ##, and long words are
encoded quickly.
"""
_SURROGATES = re.compile("[\ud800-\udfff]")


class SubwordTokenizer(Tokenizer):
    """Subword tokenizer: the first ids are special tokens, then characters, then merged tokens.

    A space belongs to the word after it; a second space and other white space are tokens of their own. Tokens consist
    of complete characters, so that each has a span. An unknown character is one unknown token, or its bytes.
    """

    def __init__(
        self, content: bytes, manifest: TokenizerManifest, config: SubwordConfig, continuing: str = ""
    ) -> None:
        """Read the content of the file; `continuing` is the prefix of tokens inside a word.

        Raises TOKENIZER_LOAD_FAILED if it does not match the manifest.
        """
        names = vocabulary_of(content, manifest)
        super().__init__(
            content,
            manifest,
            special_token_ids(config),
            names,
            lambda name: name.removeprefix(continuing),
            has_bytes=has_byte_fallback(config),
        )
        self._library = tokenizers.Tokenizer.from_str(content.decode())
        self._library.normalizer = None  # texts are normalized before, so that spans refer to the normalized text
        self._library.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        return self._encoding(text).ids

    def encode_documents(self, lines: str) -> Ids:
        encodings = self._library.encode_batch_fast(lines.split("\n"), add_special_tokens=False)
        start, end = self.special_ids.line_start, self.special_ids.line_end
        before = [] if start is None else [start]
        return join_ids(([*before, *encoding.ids, end] for encoding in encodings), self.vocab_size)

    def spans(self, text: str) -> list[Span]:
        encoding = self._encoding(text)
        spans = encoding.offsets
        if not self.byte_values:
            return spans
        is_byte = [token in self.byte_values for token in encoding.ids]  # the library gives each the character's range
        has_next = [is_byte[i : i + 2] == [True, True] and spans[i] == spans[i + 1] for i in range(len(spans))]
        return [(start, start if waits else end) for (start, end), waits in zip(spans, has_next, strict=True)]

    def _encoding(self, text: str) -> tokenizers.Encoding:
        # the library cannot encode lone surrogates; like NUL, they occur in no corpus
        encodable = _SURROGATES.sub("\0", normalized(text, self.normalization))
        return self._library.encode(encodable, add_special_tokens=False)


def train_library(
    library: tokenizers.Tokenizer, trainer: Trainer, texts: Iterable[Text], documents: DocumentMode
) -> None:
    """Train a library tokenizer on the lines of the texts, with all cores."""
    library.pre_tokenizer = SPLIT
    end = "" if documents == "line" else NEWLINE
    lines = ([line + end for line in block.split(NEWLINE)] for text in texts for block in text.lines())
    library.train_from_iterator(lines, trainer)


def describe(
    library: tokenizers.Tokenizer, config: SubwordConfig, counts: CharacterCounts, documents: DocumentMode
) -> Trained:
    """Add normalizer and template to a library tokenizer, for users of its file, and return it as Trained."""
    names, specials = special_names(config), special_token_ids(config)
    begin, end = names["bos"], names["eos"]
    library.normalizer = normalizer_of(config.normalization)
    ids = [(name, specials[name]) for name in (begin, end)]
    if documents == "line":
        pair = f"{begin} $A {end} $B:1 {end}:1"
        library.post_processor = processors.TemplateProcessing(f"{begin} $A {end}", pair, ids)
    return Trained(
        content=content_of(library, list(specials)),
        special_tokens=specials,
        vocab_size=library.get_vocab_size(),
        characters=set(counts.characters),
        corpora=counts.corpora,
        versions={"tokenizers": version("tokenizers")},
    )
