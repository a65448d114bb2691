"""Files of a stored tokenizer, and its share of unknown tokens in a text; imports no numpy."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import TokenizerManifest, TokenizerMethod
from trainer.contracts.validation import parse_json
from trainer.data.normalization import normalized
from trainer.system.files import BrokenFile, read_regular

MANIFEST_FILE = "manifest.json"
RESERVED = "\0\t\x1f\u2581\u2585"
"""Characters reserved by SentencePiece, which no vocabulary contains."""
_UNREADABLE = re.compile(f"[\ud800-\udfff{RESERVED}]")


def tokenizer_file(method: TokenizerMethod) -> str:
    """Return the name of the file with the vocabulary of a tokenizer."""
    return "tokenizer.model" if method == "sentencepiece" else "tokenizer.json"


def sentencepiece_form(text: str) -> str:
    """Replace characters that SentencePiece cannot read or reserves by NUL, which no vocabulary contains."""
    return _UNREADABLE.sub("\0", text)


def read_manifest(folder: Path) -> TokenizerManifest:
    """Read the manifest of a stored tokenizer; raises TOKENIZER_LOAD_FAILED if it is missing or damaged."""
    try:
        content = read_regular(folder / MANIFEST_FILE)
    except (OSError, BrokenFile):
        raise AppError(ErrorCode.TOKENIZER_LOAD_FAILED, "The tokenizer has no manifest.") from None
    return parse_json(TokenizerManifest, content, ErrorCode.TOKENIZER_LOAD_FAILED)


def unknown_share(folder: Path, lines: Sequence[str]) -> float:
    """Return the share of unknown tokens when a stored tokenizer encodes lines; 0 without tokens."""
    manifest = read_manifest(folder)
    file = folder / tokenizer_file(manifest.method)
    encode = _sentencepiece(file, manifest) if manifest.method == "sentencepiece" else _library(file)
    ids = [i for line in lines for i in encode(line)]
    return ids.count(manifest.special_ids.unk) / len(ids) if ids else 0.0


def _library(file: Path) -> Callable[[str], list[int]]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.encode_special_tokens = True
    return lambda line: tokenizer.encode(line, add_special_tokens=False).ids


def _sentencepiece(file: Path, manifest: TokenizerManifest) -> Callable[[str], list[int]]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(file))

    def encode(line: str) -> list[int]:
        ids: list[int] = processor.encode_as_ids(sentencepiece_form(normalized(line, manifest.normalization)))
        return ids

    return encode
