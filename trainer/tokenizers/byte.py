"""Byte tokenizer: one token per byte of UTF-8, stored as a file of the `tokenizers` library."""

from collections.abc import Iterable
from importlib.metadata import version

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models

from trainer.contracts.tokenizers import ByteTokenizerConfig, DocumentMode, TokenizerManifest
from trainer.data.normalization import normalized
from trainer.tokenizers.base import NEWLINE, Ids, Span, Text, Tokenizer, Trained, load_error
from trainer.tokenizers.char import special_tokens
from trainer.tokenizers.counting import count_lines
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of

_ASCII = 0x80
_NAMES = [chr(byte) if byte < _ASCII else f"<0x{byte:02X}>" for byte in range(256)]
"""ASCII characters by themselves, other bytes by their value."""
_UNKNOWN = "[UNK]"
_LINE_START, _LINE_END = b"\xfe", b"\xff"
"""Placeholders for [BOS] and [EOS] while many lines are encoded at once; UTF-8 has no such bytes."""


class ByteTokenizer(Tokenizer):
    """Byte tokenizer: special tokens have the first ids (4, or 5 with [MASK]), then the 256 bytes.

    The last byte of a character has the character's range, the bytes before it an empty range.
    """

    def __init__(self, content: bytes, manifest: TokenizerManifest) -> None:
        """Raises TOKENIZER_LOAD_FAILED if the content of the file is no byte vocabulary."""
        specials = special_tokens(with_mask="[MASK]" in manifest.special_tokens)
        super().__init__(content, manifest, specials, vocabulary_of(content, manifest), has_bytes=True)
        if self.names[len(specials) :] != _NAMES:
            raise load_error(manifest, "does not have a byte vocabulary")
        self._table: NDArray[np.uint16] = np.arange(len(specials), len(specials) + 256, dtype=np.uint16)
        self._document_table = self._table.copy()
        self._document_table[[ord(_LINE_START), ord(_LINE_END)]] = (self.special_ids.start, self.special_ids.eos)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = np.take(self._table, _bytes(normalized(text, self.normalization))).tolist()
        return ids

    def encode_documents(self, lines: str) -> Ids:
        if self.documents == "stream":
            return np.take(self._table, _bytes(lines + NEWLINE))
        text = _bytes(lines).tobytes().replace(b"\n", _LINE_END + _LINE_START)
        return np.take(self._document_table, np.frombuffer(_LINE_START + text + _LINE_END, dtype=np.uint8))

    def spans(self, text: str) -> list[Span]:
        spans: list[Span] = []
        for position, character in enumerate(normalized(text, self.normalization)):
            spans += [(position, position)] * (len(_bytes(character)) - 1)
            spans.append((position, position + 1))
        return spans


def _bytes(text: str) -> NDArray[np.uint8]:
    # surrogatepass: a lone surrogate, which no corpus contains, has three bytes that decode to U+FFFD
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def train(config: ByteTokenizerConfig, texts: Iterable[Text], documents: DocumentMode) -> Trained:
    """Build the vocabulary, which is the same for all texts."""
    corpora = count_lines(texts, lambda block: None, documents)
    specials = special_tokens(with_mask=config.mask_token)
    vocabulary = {name: i for i, name in enumerate([*specials, *_NAMES])}
    library = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=_UNKNOWN, byte_fallback=True))
    library.normalizer = normalizer_of(config.normalization)
    steps: list[decoders.Decoder] = [decoders.ByteFallback(), decoders.Fuse()]
    library.decoder = decoders.Sequence(steps)
    return Trained(
        content=content_of(library, list(specials)),
        special_tokens=specials,
        vocab_size=len(vocabulary),
        characters=None,
        corpora=corpora,
        versions={"tokenizers": version("tokenizers"), "numpy": np.__version__},
    )
