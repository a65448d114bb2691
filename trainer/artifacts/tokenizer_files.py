"""Files of a stored tokenizer, and the share of characters that it does not know; imports no numpy."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from trainer.config.validation import parse_json
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import TokenizerManifest, TokenizerMethod, has_byte_fallback
from trainer.data.normalization import normalized
from trainer.system.files import BrokenFile, read_regular

MANIFEST_FILE = "manifest.json"
RESERVED = "\0\t\x1f\u2581\u2585"
"""Characters reserved by SentencePiece, which no vocabulary contains."""
_UNREADABLE = re.compile(f"[\ud800-\udfff{RESERVED}]")
_NEVER_READABLE = re.compile("[\ud800-\udfff\u2581]")


def tokenizer_file(method: TokenizerMethod) -> str:
    """Return the name of the file with the vocabulary of a tokenizer."""
    return "tokenizer.model" if method == "sentencepiece" else "tokenizer.json"


def sentencepiece_form(text: str, *, has_bytes: bool = False) -> str:
    """Replace characters that SentencePiece cannot read or reserves by NUL, which no vocabulary contains.

    With `has_bytes` it reads all as bytes except U+2581, which it takes for a space.
    """
    return (_NEVER_READABLE if has_bytes else _UNREADABLE).sub("\0", text)


def read_manifest(folder: Path) -> TokenizerManifest:
    """Read the manifest of a stored tokenizer; raises TOKENIZER_LOAD_FAILED if it is missing or damaged."""
    try:
        content = read_regular(folder / MANIFEST_FILE)
    except (OSError, BrokenFile):
        raise AppError(ErrorCode.TOKENIZER_LOAD_FAILED, "The tokenizer has no manifest.") from None
    return parse_json(TokenizerManifest, content, ErrorCode.TOKENIZER_LOAD_FAILED)


def unknown_share(folder: Path, lines: Sequence[str]) -> float:
    """Return the share of the characters of lines that a stored tokenizer does not know; 0 without characters."""
    manifest = read_manifest(folder)
    file = folder / tokenizer_file(manifest.method)
    if has_byte_fallback(manifest.config):
        return 0.0
    encode = _sentencepiece(file) if manifest.method == "sentencepiece" else _library(file)
    texts = [normalized(line, manifest.normalization) for line in lines]
    unknown = manifest.special_ids.unk
    count = sum(end - start for text in texts for token, (start, end) in encode(text) if token == unknown)
    return count / max(1, sum(map(len, texts)))


_Encode = Callable[[str], Iterable[tuple[int, tuple[int, int]]]]
"""Returns the id of each token of a text and its range of characters."""


def _library(file: Path) -> _Encode:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.encode_special_tokens = True

    def encode(text: str) -> Iterable[tuple[int, tuple[int, int]]]:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        return zip(encoding.ids, encoding.offsets, strict=True)

    return encode


def _sentencepiece(file: Path) -> _Encode:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(file))

    def encode(text: str) -> Iterable[tuple[int, tuple[int, int]]]:
        form = sentencepiece_form(text)
        mapping: dict[str, list[tuple[int, int]]] = processor.encode_as_offset_mapping(form)
        ids: list[int] = processor.encode_as_ids(form)
        return zip(ids, mapping["offsets"], strict=True)

    return encode
