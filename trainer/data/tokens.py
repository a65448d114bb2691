"""The ids of a corpus, written once per corpus and tokenizer and mapped into memory from then on (DEC D48)."""

import os
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import NamedTuple

import numpy as np

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, EffectiveRequest, SplitSizes
from trainer.contracts.validation import parse_json
from trainer.data.corpus import Split, SplitCorpus, SplitRule, corpus_sha256
from trainer.files import sync_folder, write_atomically
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Ids, Tokenizer, ids_type

_CONTENT_FILE = "content.json"
_BLOCK_CHARACTERS = 1 << 20


class CorpusPaths(NamedTuple):
    """Where the texts of a run are; a validation or test text replaces the cut from the corpus."""

    corpus: Path
    validation: Path | None = None
    test: Path | None = None


class TokenizedCorpus(NamedTuple):
    """The splits of a run as ids: [BOS] line [EOS] of every line, one after another."""

    ids: dict[Split, Ids]
    """Mapped from files; a split that the run does not have is absent."""
    sizes: dict[Split, SplitSizes]
    words: dict[Split, int]
    """Words between white space."""


def prepare(
    effective: EffectiveRequest, paths: CorpusPaths, cache: Path, tokenizer: Tokenizer | None = None
) -> tuple[Tokenizer, TokenizedCorpus]:
    """Split the texts of a run, make its tokenizer unless one is given (a resumed run has one), and encode.

    What another run has encoded in the same way is found in the cache folder; anything in it may be deleted while no
    run is using it. Raises DATA_NOT_FOUND where a text is not the one that was asked for.
    """
    _check(effective.corpus, paths.corpus)
    _check(effective.validation_corpus, paths.validation)
    _check(effective.test_corpus, paths.test)
    rule = SplitRule(effective.holdout_fraction, effective.test_fraction, effective.seed)
    normalization = effective.tokenizer.normalization
    corpus: SplitCorpus | None = None
    if tokenizer is None:
        corpus = SplitCorpus(paths.corpus, normalization, rule, validation=paths.validation, test=paths.test)
        train, holdout = corpus.lines("train"), corpus.lines("validation")
        tokenizer = train_tokenizer(effective.tokenizer, train, holdout, corpus=effective.corpus, rule=rule)
    folder = cache / _key(effective, rule, tokenizer)
    was_there = folder.exists()
    if not _is_whole(folder):
        if was_there:  # it appears with all its files at once, so somebody has deleted some of them
            rmtree(folder)
        corpus = corpus or SplitCorpus(paths.corpus, normalization, rule, validation=paths.validation, test=paths.test)
        _write(folder, corpus, tokenizer)
    return tokenizer, _load(folder, tokenizer)


class _Content(Frozen):
    """What the cache folder holds; written last."""

    sizes: dict[Split, SplitSizes]
    words: dict[Split, int]


def _check(reference: CorpusRef | None, path: Path | None) -> None:
    if reference is not None and (path is None or corpus_sha256(path) != reference.sha256):
        raise AppError(
            ErrorCode.DATA_NOT_FOUND, f"The corpus '{reference.name}' has changed since the run was accepted."
        )


def _key(effective: EffectiveRequest, rule: SplitRule, tokenizer: Tokenizer) -> str:
    texts = [r and r.sha256 for r in (effective.corpus, effective.validation_corpus, effective.test_corpus)]
    vocabulary = [record.sha256 for record in tokenizer.manifest.files]
    return sha256(repr((texts, tuple(rule), vocabulary)).encode()).hexdigest()


def _is_whole(folder: Path) -> bool:
    """Whether a cache folder is there with all its files."""
    if not (folder / _CONTENT_FILE).exists():
        return False
    return all(_ids_file(folder, split).exists() for split in _content(folder).sizes)


def _content(folder: Path) -> _Content:
    return parse_json(_Content, (folder / _CONTENT_FILE).read_bytes(), ErrorCode.INTERNAL_ERROR)


def _write(folder: Path, corpus: SplitCorpus, tokenizer: Tokenizer) -> None:
    """Encode all splits in one pass; of two processes that do it at once, the later one keeps the other's files."""
    temporary = folder.with_name(f".tmp-{token_hex(8)}")
    temporary.mkdir(parents=True)
    try:
        writers = {split: _SplitWriter(_ids_file(temporary, split), tokenizer) for split in corpus.splits}
        for split, line in corpus.labelled_lines():
            writers[split].add(line)
        sizes = {split: writer.finish() for split, writer in writers.items()}
        content = _Content(sizes=sizes, words={split: writer.words for split, writer in writers.items()})
        write_atomically(temporary / _CONTENT_FILE, content.model_dump_json().encode())
        try:
            temporary.rename(folder)
        except OSError:
            if not _is_whole(folder):
                raise
        sync_folder(folder.parent)
    finally:
        rmtree(temporary, ignore_errors=True)


class _SplitWriter:
    """One split's ids on their way to a flat file, encoded many lines at a time."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._file = path.open("wb")
        self._tokenizer = tokenizer
        self._pending: list[str] = []
        self._pending_characters = self._lines = self._characters = self._ids = self.words = 0

    def add(self, line: str) -> None:
        self._pending.append(line)
        self.words += len(line.split())
        self._pending_characters += len(line)
        if self._pending_characters >= _BLOCK_CHARACTERS:
            self._flush()

    def finish(self) -> SplitSizes:
        self._flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return SplitSizes(lines=self._lines, chars=self._characters, tokens=self._ids - self._lines)

    def _flush(self) -> None:
        ids = self._tokenizer.encode_documents(self._pending)
        self._file.write(ids.tobytes())
        self._lines += len(self._pending)
        self._characters += self._pending_characters
        self._ids += len(ids)
        self._pending, self._pending_characters = [], 0


def _load(folder: Path, tokenizer: Tokenizer) -> TokenizedCorpus:
    content = _content(folder)
    ids = {split: _mapped(_ids_file(folder, split), tokenizer) for split in content.sizes}
    return TokenizedCorpus(ids, content.sizes, content.words)


def _mapped(path: Path, tokenizer: Tokenizer) -> Ids:
    ids: Ids = np.memmap(path, ids_type(tokenizer.vocab_size), "r")
    return ids


def _ids_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.bin"
