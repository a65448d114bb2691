"""Size, languages and characters of corpora, for lists; of their text, it gives only single characters."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from trainer.contracts.corpora import CorpusManifest, CorpusNote, CorpusOverview, CorpusStatistics
from trainer.contracts.errors import AppError
from trainer.data.cleaning import ALPHABETS
from trainer.data.corpora import CorpusStore, note_path
from trainer.data.text import corpus_bytes, count_lines, text_blocks, text_files
from trainer.system.files import BrokenFile, read_record, whole_record

_COUNTED_BYTES = 1 << 20
"""The lines of a corpus of at most this size are counted for a list."""
_IPA, _WORD = "ipa", re.compile("[a-z]+")


def corpus_overview(corpora: CorpusStore, name: str) -> CorpusOverview:
    """Return what is known of a corpus without reading a large one; raises DATA_NOT_FOUND."""
    path = corpora.find(name)
    size = corpus_bytes(path)
    note = _note(path) or CorpusNote(bytes=size)
    lines = note.lines if note.bytes == size else None
    if lines is None and size <= _COUNTED_BYTES:
        lines = _lines(path)
    languages = (note.language,) if note.language is not None else tuple(_languages(path))
    is_ipa = True if note.is_ipa is None and _IPA in _words(name) else note.is_ipa
    notes = _notes_on_files(corpora, name)
    return CorpusOverview(name=name, bytes=size, lines=lines, languages=languages, is_ipa=is_ipa, notes=notes)


def corpus_overviews(corpora: CorpusStore, names: Sequence[str]) -> tuple[CorpusOverview, ...]:
    """Return what is known of several corpora, without those that were deleted a moment ago."""
    found: list[CorpusOverview] = []
    for name in names:
        with suppress(AppError):
            found.append(corpus_overview(corpora, name))
    return tuple(found)


def corpus_statistics(path: Path, most: int) -> CorpusStatistics:
    """Count the lines and characters of a corpus; raises INVALID_INPUT if it is not UTF-8."""
    counts: Counter[str] = Counter()
    lines = 0
    for block in text_blocks(path):
        counts.update(block.text)
        lines += block.text.count("\n") + 1
    del counts["\n"]
    return CorpusStatistics(lines, counts.total(), len(counts), tuple(counts.most_common(most)))


def _note(path: Path) -> CorpusNote | None:
    """Return the note beside a corpus, or the entry in the manifest of a built one."""
    notes = [note_path(path)]
    earlier = path.with_suffix(".json")  # a folder's in version 0.1.0, which may be that of another corpus
    if path.is_dir() and not any(earlier.with_suffix(end).exists() for end in ("", ".txt")):
        notes.append(earlier)
    for file in notes:
        if (note := whole_record(file, CorpusNote)) is not None:  # it is broken if it is of another program
            return note
    for manifest in path.parent.glob("*_manifest.json"):
        try:
            for language, built in read_record(manifest, CorpusManifest).languages.items():
                if built.file.path == path.name:
                    return CorpusNote(language=language, is_ipa=True, lines=built.lines, bytes=built.file.bytes)
        except BrokenFile:
            continue
    return None


def _notes_on_files(corpora: CorpusStore, name: str) -> tuple[str, ...]:
    try:
        return corpora.layout(name).notes
    except AppError as error:  # only a request can say how to read its files
        return (error.message,)


def _lines(path: Path) -> int | None:
    try:
        return count_lines(path)
    except AppError:  # it is not UTF-8
        return None


def _languages(path: Path) -> Iterator[str]:
    """Yield the languages that the names of the files tell."""
    for file in text_files(path):
        yield from (word for word in _words(file.stem) if word in ALPHABETS)


def _words(name: str) -> list[str]:
    found: list[str] = _WORD.findall(name)
    return found
