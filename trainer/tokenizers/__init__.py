"""Make a tokenizer by its config, and find a saved one by its manifest."""

from collections.abc import Iterable
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizers import TokenizerConfig, TokenizerManifest
from trainer.contracts.validation import parse_json
from trainer.data.corpus import SplitRule
from trainer.tokenizers import char
from trainer.tokenizers.base import Tokenizer


def train_tokenizer(
    config: TokenizerConfig,
    lines: Iterable[str],
    holdout_lines: Iterable[str],
    *,
    corpus: CorpusRef,
    rule: SplitRule,
) -> Tokenizer:
    """Make a tokenizer from the lines of the training split; the hold-out's lines give its statistics."""
    return char.train(config, lines, holdout_lines, corpus=corpus, rule=rule)


def is_saved(folder: Path) -> bool:
    """Whether a tokenizer was saved to the folder to the end: its manifest comes last."""
    return (folder / char.MANIFEST_FILE).exists()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a saved tokenizer; raises TOKENIZER_LOAD_FAILED where it is not as it was saved."""
    try:
        content = (folder / char.MANIFEST_FILE).read_bytes()
    except OSError:
        raise AppError(ErrorCode.TOKENIZER_LOAD_FAILED, "The tokenizer has no manifest.") from None
    return char.load(folder, parse_json(TokenizerManifest, content, ErrorCode.TOKENIZER_LOAD_FAILED))
