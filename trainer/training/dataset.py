"""Tokenized corpora: encoded once per corpus and tokenizer, then mapped into memory from a cache folder."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeAlias
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from trainer.config.validation import parse_json
from trainer.contracts.base import Frozen, changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import HELD_OUT_SPLITS, EffectiveRequest, Leaks, SplitSizes, leaks_of
from trainer.contracts.tokenizers import SpecialIds
from trainer.data.corpus import Split, SplitCorpus, SplitRule
from trainer.data.leaks import measure_leaks
from trainer.data.run_corpora import CorpusPaths, check_unchanged, references_of, split_paths, split_rule
from trainer.system.files import DISK, filled_folder, use_folder, write_atomically
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Ids, Text, Tokenizer, ids_type
from trainer.tokenizers.counting import counts_of
from trainer.training.batches import Masking, Rows
from trainer.training.documents import Documents

LineChars: TypeAlias = "NDArray[np.int32]"
_CONTENT_FILE = "content.json"
_CACHE_VERSION = 9
_SYNCED_BYTES = 8 << 20
"""Ids that are written before the disk gets them, while the next ones are encoded."""


class TokenizedCorpus(NamedTuple):
    """The splits of a run as token ids: `encode_documents` of all lines, one after another.

    `ids` are mapped from files; splits that the run does not have are absent. `words` counts words between white space.
    `line_chars` has the characters of each line (lines,), in a stream with its newline, mapped from files too.
    """

    ids: dict[Split, Ids]
    sizes: dict[Split, SplitSizes]
    words: dict[Split, int]
    special_ids: SpecialIds
    line_chars: dict[Split, LineChars]
    notes: tuple[str, ...] = ()
    """Notes on the splits for a person."""

    @property
    def leaks(self) -> Leaks:
        """Return the leaks of the held-out splits."""
        return leaks_of({split: self.sizes.get(split) for split in HELD_OUT_SPLITS})

    def with_leaks(self, leaks: Leaks) -> "TokenizedCorpus":
        """Return the corpus with other leaks of its held-out splits."""
        sizes = {
            split: size if split == "train" else changed(size, leak=leaks.get(split))
            for split, size in self.sizes.items()
        }
        return self._replace(sizes=sizes)

    def without_test(self) -> "TokenizedCorpus":
        """Return the corpus with the sizes of its test split, but without its text."""
        ids: dict[Split, Ids] = {split: of_split for split, of_split in self.ids.items() if split != "test"}
        return self._replace(ids=ids)

    def rows(self, split: Split, length: int, masking: Masking | None = None) -> Rows:
        """Return a split as training rows of `length` targets."""
        return Rows(self.ids[split], length, self.special_ids, masking)

    def documents(self, split: Split, masking: Masking | None = None) -> Documents:
        """Return a split as documents: one per line, or one in a stream."""
        return Documents(self.ids[split], self.special_ids, masking)


def prepare(
    effective: EffectiveRequest, paths: CorpusPaths, cache: Path, tokenizer: Tokenizer | None = None
) -> tuple[Tokenizer, TokenizedCorpus]:
    """Split the corpora of a run, train its tokenizer unless one is given, and return the encoded splits.

    Runs with equal corpora, splits and tokenizers share a folder in the cache. Folders that no run uses may be deleted.
    Raises DATA_NOT_FOUND if a corpus has changed since the run was accepted.
    """
    check_unchanged(effective, paths)
    rule = split_rule(effective)
    cache.mkdir(parents=True, exist_ok=True)
    corpus: SplitCorpus | None = None
    if tokenizer is None:
        corpus = split_paths(effective, paths, cache)
        text = Text(effective.corpus, partial(corpus.lines, "train"))
        tokenizer = train_tokenizer(
            effective.tokenizer, [text], corpus.lines("validation"), rule=rule, documents=effective.documents
        )
    folder = cache / _key(effective, rule, tokenizer)
    while (descriptor := _use_complete(folder)) is None:  # a cleanup may have removed the folder just now
        _write(folder, corpus or split_paths(effective, paths, cache), tokenizer, rule.seed)
    try:
        os.utime(descriptor)  # the time of the last use, by which a cleanup chooses
        content = _content(folder)
        ids: dict[Split, Ids] = {}
        line_chars: dict[Split, LineChars] = {}
        for split in content.sizes:
            of_split: Ids = np.memmap(_ids_file(folder, split), ids_type(tokenizer.vocab_size), "r")
            chars: LineChars = np.memmap(_chars_file(folder, split), np.int32, "r")
            ids[split], line_chars[split] = of_split, chars
            for mapped in (of_split, chars):  # the folder is in use as long as its files are mapped
                finalize(mapped, os.close, os.dup(descriptor))
    finally:
        os.close(descriptor)
    return tokenizer, TokenizedCorpus(
        ids, content.sizes, content.words, tokenizer.special_ids, line_chars, content.notes
    )


class _Content(Frozen):
    """Record of a cache folder; written last."""

    sizes: dict[Split, SplitSizes]
    words: dict[Split, int]
    notes: tuple[str, ...]


def _key(effective: EffectiveRequest, rule: SplitRule, tokenizer: Tokenizer) -> str:
    texts = [reference and reference.sha256 for reference in references_of(effective)]
    vocabulary = [record.sha256 for record in tokenizer.manifest.files]
    return sha256(repr((_CACHE_VERSION, texts, tuple(rule), effective.documents, vocabulary)).encode()).hexdigest()


def _use_complete(folder: Path) -> int | None:
    """Keep cleanups away from a folder until the returned descriptor is closed; None if there is no complete one."""
    descriptor = use_folder(folder)
    if descriptor is None or _is_complete(folder):
        return descriptor
    os.close(descriptor)
    DISK.remove_folder(folder)  # folders appear complete, so files of this one were deleted
    return None


def _is_complete(folder: Path) -> bool:
    if not (folder / _CONTENT_FILE).exists():
        return False
    files = (file(folder, split) for split in _content(folder).sizes for file in (_ids_file, _chars_file))
    return all(file.exists() for file in files)


def _content(folder: Path) -> _Content:
    return parse_json(_Content, (folder / _CONTENT_FILE).read_bytes(), ErrorCode.INTERNAL_ERROR)


def _write(folder: Path, corpus: SplitCorpus, tokenizer: Tokenizer, seed: int) -> None:
    """Encode all splits in one pass over the corpus, and measure leaks between them."""
    newline = 0 if tokenizer.documents == "line" else 1
    counts = {split: Counter[str]() for split in corpus.splits}
    with filled_folder(folder) as temporary, ExitStack() as stack:
        files = {split: stack.enter_context(_ids_file(temporary, split).open("wb")) for split in counts}
        chars_files = {split: stack.enter_context(_chars_file(temporary, split).open("wb")) for split in counts}
        syncing: list[Future[None]] = []
        disk = stack.enter_context(ThreadPoolExecutor(1))
        unsynced_bytes = 0
        for split, lines in corpus.blocks(list(counts)):
            ids = tokenizer.encode_documents(lines)
            counts[split].update(counts_of(tokenizer, lines, ids))
            unsynced_bytes += files[split].write(ids.tobytes())
            lengths: Iterator[int] = map(len, lines.split("\n"))
            line_chars: LineChars = np.fromiter(lengths, np.int32)
            chars_files[split].write((line_chars + newline).tobytes())
            if unsynced_bytes > _SYNCED_BYTES:
                syncing.append(disk.submit(os.fsync, files[split].fileno()))
                unsynced_bytes = 0
        for file in (*files.values(), *chars_files.values()):
            file.flush()
            syncing.append(disk.submit(os.fsync, file.fileno()))
        for sync in syncing:
            sync.result()
        words = {split: of_split.pop("words") for split, of_split in counts.items()}
        leaks = measure_leaks(corpus, tokenizer.documents, seed)
        sizes = {
            split: SplitSizes(**of_split, leak=None if split == "train" else leaks.get(split))
            for split, of_split in counts.items()
        }
        content = _Content(sizes=sizes, words=words, notes=corpus.notes)
        write_atomically(temporary / _CONTENT_FILE, content.model_dump_json().encode())


def _ids_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.bin"


def _chars_file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.chars.bin"
