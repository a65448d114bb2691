"""Character tokenizer: one token per Unicode code point, stored as a file of the `tokenizers` library."""

from collections.abc import Iterable
from importlib.metadata import version

import numpy as np
import tokenizers
from tokenizers import decoders, pre_tokenizers

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import CharTokenizerConfig, DocumentMode, TokenizerManifest
from trainer.data.normalization import normalized
from trainer.tokenizers.base import NEWLINE, Ids, Span, Text, Tokenizer, Trained, ids_type, load_error
from trainer.tokenizers.counting import CODE_POINTS, code_points, count_characters, frequent_tokens
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of, word_level

_LINE_START, _LINE_END = "\n", "\0"
"""Placeholders for [BOS] and [EOS] while many lines are encoded at once; no line contains them."""
SPECIAL_TOKENS = {"[PAD]": 0, "[UNK]": 1, "[BOS]": 2, "[EOS]": 3}


class CharTokenizer(Tokenizer):
    """Character tokenizer: special tokens have the first ids (4, or 5 with [MASK]), then characters by code point."""

    def __init__(self, content: bytes, manifest: TokenizerManifest) -> None:
        """Raises TOKENIZER_LOAD_FAILED if the content of the file is no character vocabulary."""
        specials = special_tokens(with_mask="[MASK]" in manifest.special_tokens)
        super().__init__(content, manifest, specials, vocabulary_of(content, manifest))
        characters = self.names[len(specials) :]
        if any(len(character) != 1 for character in characters):
            raise load_error(manifest, "does not have a character vocabulary")
        ids = self.special_ids
        self._table: Ids = np.full(CODE_POINTS, ids.unk, dtype=ids_type(len(self.names)))
        self._table[[ord(c) for c in characters]] = np.arange(len(specials), len(self.names))
        self._document_table = self._table.copy()
        self._document_table[[ord(_LINE_START), ord(_LINE_END)]] = (ids.start, ids.eos)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._table[code_points(normalized(text, self.normalization))].tolist()
        return ids

    def encode_documents(self, lines: str) -> Ids:
        if self.documents == "stream":
            return np.take(self._table, code_points(lines + NEWLINE))
        text = lines.replace("\n", _LINE_END + _LINE_START)
        return np.take(self._document_table, code_points(f"{_LINE_START}{text}{_LINE_END}"))

    def spans(self, text: str) -> list[Span]:
        return [(i, i + 1) for i in range(len(normalized(text, self.normalization)))]


def special_tokens(*, with_mask: bool) -> dict[str, int]:
    """Return the ids of the special tokens; [MASK] is the last one."""
    return SPECIAL_TOKENS | {"[MASK]": len(SPECIAL_TOKENS)} if with_mask else SPECIAL_TOKENS


def train(config: CharTokenizerConfig, texts: Iterable[Text], documents: DocumentMode) -> Trained:
    """Build the vocabulary of the characters in the texts, by code point.

    Raises INVALID_INPUT if the options leave the newline of a stream out.
    """
    counts = count_characters(texts, documents)
    specials = special_tokens(with_mask=config.mask_token)
    characters = frequent_tokens(config, counts.characters, specials)
    if documents == "stream" and NEWLINE not in characters:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            "`vocab_size` and `min_frequency` leave the newline out of the vocabulary, and `documents` 'stream' needs"
            " it.",
        )
    library = word_level([*specials, *characters], "[UNK]")
    library.normalizer = normalizer_of(config.normalization)
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    library.decoder = decoders.Fuse()
    return Trained(
        content=content_of(library, list(specials)),
        special_tokens=specials,
        vocab_size=len(specials) + len(characters),
        characters=set(characters),
        corpora=counts.corpora,
        versions={"tokenizers": version("tokenizers"), "numpy": np.__version__},
    )
