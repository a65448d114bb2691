"""The ids of a corpus, written once per corpus and tokenizer and mapped into memory from then on (DEC D48)."""

import os
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, EffectiveRequest, SplitSizes
from trainer.contracts.tokenizers import SpecialIds
from trainer.contracts.validation import parse_json
from trainer.data.corpus import Split, SplitCorpus, SplitRule
from trainer.data.folders import filled_folder
from trainer.data.text import corpus_sha256
from trainer.system.files import write_atomically
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Ids, Reread, Text, Tokenizer, ids_type
from trainer.training.batches import Masking, Rows
from trainer.training.documents import Documents

_CONTENT_FILE = "content.json"
_CONTENT_FORM = 3
"""What the cache holds has changed: folders of an earlier form are not found."""


class CorpusPaths(NamedTuple):
    """Where the texts of a run are; a validation or test text replaces the cut from the corpus."""

    corpus: Path
    validation: Path | None = None
    test: Path | None = None


class TokenizedCorpus(NamedTuple):
    """The splits of a run as ids: what `encode_documents` makes of every line, one after another."""

    ids: dict[Split, Ids]
    """Mapped from files; a split that the run does not have is absent."""
    sizes: dict[Split, SplitSizes]
    words: dict[Split, int]
    """Words between white space."""
    special_ids: SpecialIds

    def rows(self, split: Split, length: int, masking: Masking | None = None) -> Rows:
        """Return a split as training rows of so many targets."""
        return Rows(self.ids[split], length, self.special_ids, masking)

    def documents(self, split: Split, masking: Masking | None = None) -> Documents:
        """Return a split as documents, one per line."""
        return Documents(self.ids[split], self.special_ids, masking)


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
    rule = SplitRule(effective.holdout_fraction, effective.test_fraction, effective.seed, effective.split_by)
    cache.mkdir(parents=True, exist_ok=True)

    def split() -> SplitCorpus:
        normalization = effective.tokenizer.normalization
        return SplitCorpus(
            paths.corpus, normalization, rule, validation=paths.validation, test=paths.test, scratch=cache
        )

    corpus: SplitCorpus | None = None
    if tokenizer is None:
        corpus = split()
        text = Text(effective.corpus, Reread(partial(corpus.lines, "train")))
        tokenizer = train_tokenizer(effective.tokenizer, [text], corpus.lines("validation"), rule=rule)
    folder = cache / _key(effective, rule, tokenizer)
    was_there = folder.exists()
    if not _is_whole(folder):
        if was_there:  # it appears with all its files at once, so somebody has deleted some of them
            rmtree(folder)
        _write(folder, corpus or split(), tokenizer)
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
    return sha256(repr((_CONTENT_FORM, texts, tuple(rule), vocabulary)).encode()).hexdigest()


def _is_whole(folder: Path) -> bool:
    """Whether a cache folder is there with all its files."""
    if not (folder / _CONTENT_FILE).exists():
        return False
    return all(_ids_file(folder, split).exists() for split in _content(folder).sizes)


def _content(folder: Path) -> _Content:
    return parse_json(_Content, (folder / _CONTENT_FILE).read_bytes(), ErrorCode.INTERNAL_ERROR)


def _write(folder: Path, corpus: SplitCorpus, tokenizer: Tokenizer) -> None:
    """Encode all splits in one pass."""
    with filled_folder(folder) as temporary, ExitStack() as files:
        writers = {
            split: _SplitWriter(files.enter_context(_ids_file(temporary, split).open("wb")), tokenizer)
            for split in corpus.splits
        }
        for split, lines in corpus.blocks():
            writers[split].add(lines)
        sizes = {split: writer.finish() for split, writer in writers.items()}
        content = _Content(sizes=sizes, words={split: writer.words for split, writer in writers.items()})
        write_atomically(temporary / _CONTENT_FILE, content.model_dump_json().encode())


class _SplitWriter:
    """One split's ids on their way to a flat file, and what is counted on the way."""

    def __init__(self, file: BinaryIO, tokenizer: Tokenizer) -> None:
        self._file = file
        self._tokenizer = tokenizer
        self._lines = self._characters = self._bytes = self._ids = self._unknown = self.words = 0

    def add(self, lines: list[str]) -> None:
        ids = self._tokenizer.encode_documents(lines)
        self._file.write(ids.tobytes())
        self._lines += len(lines)
        self._characters += sum(map(len, lines))
        self._bytes += len("".join(lines).encode())
        self._ids += len(ids)
        is_unknown: NDArray[np.bool_] = ids == self._tokenizer.special_ids.unk
        self._unknown += int(np.count_nonzero(is_unknown))
        self.words += sum(len(line.split()) for line in lines)

    def finish(self) -> SplitSizes:
        self._file.flush()
        os.fsync(self._file.fileno())
        return SplitSizes(
            lines=self._lines,
            chars=self._characters,
            tokens=self._ids - (0 if self._tokenizer.special_ids.bos is None else self._lines),
            unknown_tokens=self._unknown,
            bytes=self._bytes,
        )


def _load(folder: Path, tokenizer: Tokenizer) -> TokenizedCorpus:
    content = _content(folder)
    ids = {split: _mapped(_ids_file(folder, split), tokenizer) for split in content.sizes}
    return TokenizedCorpus(ids, content.sizes, content.words, tokenizer.special_ids)


def _mapped(path: Path, tokenizer: Tokenizer) -> Ids:
    ids: Ids = np.memmap(path, ids_type(tokenizer.vocab_size), "r")
    return ids


def _ids_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.bin"
