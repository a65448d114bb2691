"""Character tokenizer: one token per Unicode code point, stored as a file of the `tokenizers` library."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from trainer.contracts.tokenizers import CharTokenizerConfig, Normalization, TokenizerManifest
from trainer.data.normalization import normalized
from trainer.tokenizers.base import Ids, Span, Text, Tokenizer, Trained, ids_type, load_error
from trainer.tokenizers.counting import CODE_POINTS, code_points, count_characters
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of

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

    def encode_documents(self, lines: Sequence[str]) -> Ids:
        return self._document_table[code_points("".join(f"{_LINE_START}{line}{_LINE_END}" for line in lines))]

    def spans(self, text: str) -> list[Span]:
        return [(i, i + 1) for i in range(len(normalized(text, self.normalization)))]


def special_tokens(*, with_mask: bool) -> dict[str, int]:
    """Return the ids of the special tokens; [MASK] is the last one."""
    return SPECIAL_TOKENS | {"[MASK]": len(SPECIAL_TOKENS)} if with_mask else SPECIAL_TOKENS


def train(config: CharTokenizerConfig, texts: Iterable[Text]) -> Trained:
    """Build the vocabulary of the characters in the texts."""
    counts = count_characters(texts)
    specials = special_tokens(with_mask=config.mask_token)
    characters = _vocabulary(config, counts.by_code_point, len(specials))
    names = [*specials, *characters]
    return Trained(
        content=_library_json(names, list(specials), config.normalization),
        special_tokens=specials,
        vocab_size=len(names),
        characters=set(characters),
        corpora=counts.corpora,
        versions={"tokenizers": version("tokenizers"), "numpy": np.__version__},
    )


def _vocabulary(config: CharTokenizerConfig, counts: NDArray[np.int64], specials: int) -> list[str]:
    """Return the characters of the vocabulary by code point; a capped one has the most frequent, then the lowest."""
    selected = np.flatnonzero(counts >= config.min_frequency)
    if config.vocab_size is not None:
        room = max(0, config.vocab_size - specials)
        frequencies: NDArray[np.int64] = counts[selected]
        selected = np.sort(selected[np.argsort(-frequencies, kind="stable")[:room]])
    code_points: list[int] = selected.tolist()
    return [chr(c) for c in code_points]


def _library_json(names: Sequence[str], specials: Sequence[str], normalization: Normalization) -> bytes:
    library = tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    library.normalizer = normalizer_of(normalization)
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    library.decoder = decoders.Fuse()
    return content_of(library, specials)
