"""Train a tokenizer from its config, and load a saved one from its folder."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import assert_never

from trainer.artifacts.tokenizer_files import MANIFEST_FILE, read_manifest, tokenizer_file
from trainer.contracts.base import FileRecord, changed, now
from trainer.contracts.tokenizers import (
    BpeTokenizerConfig,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    DocumentMode,
    SentencePieceTokenizerConfig,
    TokenizerConfig,
    TokenizerManifest,
    TokenizerStats,
    WordPieceTokenizerConfig,
    WordTokenizerConfig,
)
from trainer.data.corpus import SplitRule
from trainer.system.files import read_regular
from trainer.tokenizers import bpe, byte, char, sentencepiece, word, wordpiece
from trainer.tokenizers.base import Text, Tokenizer, Trained, load_error
from trainer.tokenizers.byte import ByteTokenizer
from trainer.tokenizers.char import CharTokenizer
from trainer.tokenizers.counting import statistics
from trainer.tokenizers.sentencepiece import SentencePieceTokenizer
from trainer.tokenizers.subword import SubwordTokenizer
from trainer.tokenizers.word import WordTokenizer


def train_tokenizer(
    config: TokenizerConfig,
    texts: Sequence[Text],
    holdout_lines: Iterable[str],
    *,
    rule: SplitRule,
    documents: DocumentMode = "line",
    tokenizer_id: str | None = None,
) -> Tokenizer:
    """Train a tokenizer on the lines of all texts, and measure its statistics on the held-out lines.

    `holdout_lines` are many at a time, separated by newlines. For a stream, newlines are characters of the texts.
    The default id is a hash of the config, the texts, the split rule and the vocabulary.
    """
    match config:
        case CharTokenizerConfig():
            trained = char.train(config, texts, documents)
        case ByteTokenizerConfig():
            trained = byte.train(config, texts, documents)
        case WordTokenizerConfig():
            trained = word.train(config, texts, documents)
        case BpeTokenizerConfig():
            trained = bpe.train(config, texts, documents)
        case WordPieceTokenizerConfig():
            trained = wordpiece.train(config, texts, documents)
        case SentencePieceTokenizerConfig():
            trained = sentencepiece.train(config, texts)
        case _:
            assert_never(config)
    tokenizer = _open(trained.content, _manifest(config, trained, rule, documents, tokenizer_id))
    stats = statistics(tokenizer, trained.characters, holdout_lines)
    tokenizer.manifest = changed(tokenizer.manifest, stats=stats, created_at=now())
    return tokenizer


def is_saved(folder: Path) -> bool:
    """Return True if the folder has a complete tokenizer: the manifest is written last."""
    return (folder / MANIFEST_FILE).exists()


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load a saved tokenizer. Raises TOKENIZER_LOAD_FAILED if its files are missing or changed."""
    manifest = read_manifest(folder)
    try:
        content = read_regular(folder / tokenizer_file(manifest.method))
    except (OSError, ValueError):
        raise load_error(manifest, "cannot be read") from None
    if [record.sha256 for record in manifest.files] != [sha256(content).hexdigest()]:
        raise load_error(manifest, "does not match its manifest")
    return _open(content, manifest)


def _open(content: bytes, manifest: TokenizerManifest) -> Tokenizer:
    config = manifest.config
    if manifest.method != config.method:
        raise load_error(manifest, "does not have the method of its manifest")
    match config:
        case CharTokenizerConfig():
            return CharTokenizer(content, manifest)
        case ByteTokenizerConfig():
            return ByteTokenizer(content, manifest)
        case WordTokenizerConfig():
            return WordTokenizer(content, manifest)
        case BpeTokenizerConfig():
            return SubwordTokenizer(content, manifest, config)
        case WordPieceTokenizerConfig():
            return SubwordTokenizer(content, manifest, config, wordpiece.CONTINUING)
        case SentencePieceTokenizerConfig():
            return SentencePieceTokenizer(content, manifest, config)
        case _:
            assert_never(config)


def _manifest(
    config: TokenizerConfig, trained: Trained, rule: SplitRule, documents: DocumentMode, tokenizer_id: str | None
) -> TokenizerManifest:
    """Return the manifest of a tokenizer without its statistics."""
    digest = sha256(trained.content).hexdigest()
    corpora = " ".join(corpus.model_dump_json() for corpus in trained.corpora)
    identity = f"{config.model_dump_json()} {corpora} {rule} {digest}"
    return TokenizerManifest(
        tokenizer_id=tokenizer_id or f"{config.method}-{sha256(identity.encode()).hexdigest()[:16]}",
        method=config.method,
        vocab_size=trained.vocab_size,
        special_tokens=trained.special_tokens,
        normalization=config.normalization,
        documents=documents,
        corpus=trained.corpora,
        config=config,
        stats=_UNMEASURED,
        seed=rule.seed,
        split_by=rule.by,
        holdout_fraction=rule.holdout_fraction,
        test_fraction=rule.test_fraction,
        versions=trained.versions,
        created_at=now(),
        files=(FileRecord(path=tokenizer_file(config.method), bytes=len(trained.content), sha256=digest),),
    )


_UNMEASURED = TokenizerStats(
    coverage=0.0,
    oov_rate=0.0,
    unknown_char_share=0.0,
    token_count=0,
    char_coverage=0.0,
    avg_tokens_per_char=0.0,
    avg_tokens_per_word=0.0,
    holdout_lines=0,
)
