"""The tokenizer child: reads a request from disk and writes the trained tokenizer, or the error."""

import os
from functools import partial
from itertools import chain
from pathlib import Path

import structlog

from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import Settings
from trainer.config.tokenizer_request import config_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizer_jobs import TokenizerRecord
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.data.text import corpus_sha256
from trainer.system.hardware import default_threads, use_cores
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Text, Tokenizer
from trainer.worker.children.step import run_step

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def run_tokenizer_child(settings: Settings, tokenizer_id: str) -> int:
    """Train a tokenizer for its worker, which holds its lock, and return 0. The child can be killed at any time."""
    tokenizer = TokenizerStore(settings.app.artifacts_root).get(tokenizer_id)
    if not tokenizer.is_unfinished():
        return 0
    threads = tokenizer.record().request.threads
    use_cores(threads)
    os.environ["RAYON_NUM_THREADS"] = str(threads or default_threads())
    corpora, folder = CorpusStore(settings), tokenizer.path
    return run_step(tokenizer, settings, lambda: make(tokenizer.record(), corpora, folder).save(folder))


def make(record: TokenizerRecord, corpora: CorpusStore, scratch: Path) -> Tokenizer:
    """Train the tokenizer of a record, with temporary files in `scratch`; raises DATA_NOT_FOUND for changed corpora."""
    request = record.request
    config = config_of(request)
    log.info("tokenizer_training_started")
    paths = [corpora.find_exact(corpus) for corpus in record.corpora]
    for corpus, path in zip(record.corpora, paths, strict=True):
        if corpus_sha256(path) != corpus.sha256:
            raise AppError(
                ErrorCode.DATA_NOT_FOUND, f"The corpus '{corpus.name}' has changed since the tokenizer was accepted."
            )
    rule = SplitRule(request.holdout_fraction, request.test_fraction, request.seed, request.split)
    splits = [
        SplitCorpus(path, config.normalization, rule, documents=request.documents, scratch=scratch) for path in paths
    ]
    log.info("corpus_split")
    texts = [Text(corpus, partial(split.lines, "train")) for corpus, split in zip(record.corpora, splits, strict=True)]
    held_out = chain.from_iterable(split.lines("validation") for split in splits)
    tokenizer = train_tokenizer(
        config, texts, held_out, rule=rule, documents=request.documents, tokenizer_id=record.tokenizer_id
    )
    log.info("tokenizer_trained", vocab_size=tokenizer.vocab_size)
    return tokenizer
