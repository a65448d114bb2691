"""What a stored tokenizer is, and how much of a text it knows, found out without numpy: the bot asks too."""

from collections.abc import Sequence
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import TokenizerManifest
from trainer.contracts.validation import parse_json
from trainer.files import BrokenFile, read_regular

MANIFEST_FILE, TOKENIZER_FILE = "manifest.json", "tokenizer.json"


def read_manifest(folder: Path) -> TokenizerManifest:
    """Read what made a stored tokenizer; raises TOKENIZER_LOAD_FAILED where that is not as it was written."""
    try:
        content = read_regular(folder / MANIFEST_FILE)
    except (OSError, BrokenFile):
        raise AppError(ErrorCode.TOKENIZER_LOAD_FAILED, "The tokenizer has no manifest.") from None
    return parse_json(TokenizerManifest, content, ErrorCode.TOKENIZER_LOAD_FAILED)


def unknown_share(folder: Path, lines: Sequence[str]) -> float:
    """Return the share of the lines' tokens that a stored tokenizer does not know; of no tokens, 0."""
    import tokenizers

    unknown = read_manifest(folder).special_tokens["[UNK]"]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.encode_special_tokens = True
    ids = [i for line in lines for i in tokenizer.encode(line, add_special_tokens=False).ids]
    return ids.count(unknown) / len(ids) if ids else 0.0
