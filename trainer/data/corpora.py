"""Corpora by name: those of the data root, those shipped with the program, added ones and stored attachments."""

import asyncio
import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp
from weakref import finalize

from trainer.config.defaults import TextCharacters
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.corpora import CorpusNote
from trainer.contracts.errors import AppError, ErrorCode, PathError, at_field
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.contracts.runs import CorpusRef
from trainer.contracts.tokenizers import Normalization
from trainer.contracts.wording import counted
from trainer.data.folders import FolderLayout, folder_layout
from trainer.data.normalization import normalized
from trainer.data.tables import PlainText, as_text
from trainer.data.text import (
    SUFFIXES,
    TextSample,
    check_plain,
    corpus_bytes,
    corpus_sha256,
    count_kinds,
    count_lines,
    is_converted,
    line_blocks,
    shown_name,
    text_files,
)
from trainer.system.files import changing_folder, filled_folder, whole_record, write_atomically

CONTENT_NAME = re.compile("[0-9a-f]{64}")
"""The name of a stored attachment or file: its SHA-256, which tells a person nothing."""


_SHOWN_NAMES = 5
_NOTE_SUFFIX = ".json"
_BUNDLED_LICENCES = {"demo": "CC0-1.0", "udhr_ipa": "text of the United Nations, free to reproduce"}


def bundled_licence(corpus: CorpusRef) -> str | None:
    """Return the licence of a corpus that is part of the program; None for another text, whatever its name."""
    licence = _BUNDLED_LICENCES.get(corpus.name.partition("/")[0])
    path = None if licence is None else _find_below(BUNDLED_CORPORA, corpus.name, "corpus")
    return licence if path is not None and corpus_sha256(path) == corpus.sha256 else None


class CorpusStore:
    """Finds corpora by name, and stores copies: of added corpora by name, of attached ones by their content.

    A corpus is a file, or a folder's .txt and .text files in the order of their names.
    """

    def __init__(self, settings: Settings) -> None:
        self.own = settings.app.data_root / "corpus"
        """Folder of the operator's corpora, which may be read-only."""
        self.stored = settings.app.artifacts_root / "corpora"
        """Folder of added, built and attached corpora."""
        self._corpus_bytes = settings.limits.corpus_bytes
        self._offered: dict[str, Path] = {}
        self.table_notes: dict[str, tuple[str, ...]] = {}
        """What a person should know of the tables that were offered, by their names."""

    def has(self, name: str) -> bool:
        try:
            self.find(name)
        except AppError:
            return False
        return True

    def names(self) -> list[str]:
        """Return the names of all corpora except attached ones."""
        roots = (self.own, BUNDLED_CORPORA, self.stored)
        files = {path.stem for root in roots for path in root.glob("*.txt")}
        folders = {path.parent.name for root in roots for end in SUFFIXES for path in root.glob(f"*/*{end}")}
        built = {path.name for path in self.stored.glob("[!.]*") if path.is_symlink()}  # on another machine
        return sorted(name for name in files | folders | built if not CONTENT_NAME.fullmatch(name))

    def full_name(self, given: str, field: str = "corpus") -> str:
        """Return the name of the corpus that a name or its beginning is meant for; what is given if there is none.

        Raises INVALID_INPUT for the beginning of several names.
        """
        with at_field(field):
            return given if self.has(given) else only_name(given, self.names()) or given

    def find(self, name: str, field: str = "corpus") -> Path:
        """Return the file or folder of a corpus that a field names.

        Raises DATA_NOT_FOUND, and INVALID_INPUT for a name outside the folder.
        """
        offered, _, within = name.partition("/")
        try:
            if offered in self._offered:
                found = _find_below(self._offered[offered], within, field) if within else self._offered[offered]
                if found is not None:
                    return found
            for root in (self.own, BUNDLED_CORPORA, self.stored):
                found = _find_below(root, name, field, has_notes=root == self.stored)
                if found is not None:
                    return found
        except (OSError, ValueError) as error:  # no file can have such a name
            raise self.unknown(name) from error
        raise self.unknown(name)

    def find_exact(self, reference: CorpusRef) -> Path:
        """Return a corpus by its content if it is stored by that, else by its name; raises DATA_NOT_FOUND."""
        stored = self.stored / reference.sha256
        return stored if stored.exists() else self.find(reference.name)

    def content_of(self, name: str, field: str) -> str | None:
        """Return the hash in the name of a text that has no other name, stored or not; None for a named corpus.

        Raises PathError for a path that begins at the root of the disk.
        """
        if os.path.isabs(name):
            raise PathError(field)
        first = os.path.normpath(name).partition("/")[0]
        is_named = any(
            (root / f"{first}{end}").exists() for root in (self.own, BUNDLED_CORPORA) for end in ("", ".txt")
        )
        content = first.partition(".")[0]  # its note is beside it
        return content if CONTENT_NAME.fullmatch(content) and not is_named else None

    def is_bundled(self, name: str) -> bool:
        """Return True for a corpus that is part of the program."""
        return self.has(name) and BUNDLED_CORPORA in self.find(name).parents

    def owners(self, name: str) -> Collection[int | str]:
        """Return the people and API keys that have sent a text, with a name or with its hash as its name."""
        with suppress(AppError):
            note = whole_record(note_path(self.find(name)), CorpusNote)
            return () if note is None else note.owners
        return ()

    def changing(self) -> AbstractContextManager[None]:
        """Let nobody else add, send or delete a corpus meanwhile; others wait."""
        return changing_folder(self.stored)

    def _note_sender(self, sha256: str, owner: int | str | None) -> None:
        """Write down that somebody has sent a text that is stored by its hash, and that it is new again."""
        copy = self.stored / sha256
        os.utime(copy)
        note = whole_record(note_path(copy), CorpusNote)
        if owner is None or (note is not None and owner in note.owners):
            return
        if note is None:
            note = CorpusNote(bytes=corpus_bytes(copy))
        _write_note(copy, changed(note, owners=(*note.owners, owner)))

    def leave_to_others(self, name: str, is_own: Callable[[int | str], bool]) -> bool:
        """Remove the caller from the owners of a sent text that others have sent too; needs `changing`.

        Returns False, changing nothing, if nobody else has sent it, or if the caller has not.
        """
        copy = self.stored / name
        note = whole_record(note_path(copy), CorpusNote)
        others = () if note is None else tuple(one for one in note.owners if not is_own(one))
        if note is None or len(others) in (0, len(note.owners)):
            return False
        _write_note(copy, changed(note, owners=others))
        return True

    def layout(self, name: str, given: Collection[str] = ()) -> FolderLayout:
        """Return the corpora of a folder of splits by request field, and notes, which an offered table has as well.

        `given` are the fields of the request. Raises as `folder_layout` does.
        """
        path = self.find(name)
        if not path.is_dir():
            return FolderLayout({}, self.table_notes.get(name, ()))
        files, notes = folder_layout(path, self.shown(name), given)
        notes = (*self.table_notes.get(name, ()), *notes)
        return FolderLayout({field: f"{name}/{file}" for field, file in files.items()}, notes)

    async def describe(self, name: str, field: str = "corpus", *, minimum_lines: int = 1) -> CorpusRef:
        """Return name, hash and size of a corpus, after reading all of it.

        Raises DATA_NOT_FOUND, INVALID_INPUT (not UTF-8), PAYLOAD_TOO_LARGE, CORPUS_EMPTY (fewer than `minimum_lines`).
        """
        return (await self.read(name, field, minimum_lines=minimum_lines))[1]

    async def read(self, name: str, field: str, *, minimum_lines: int = 1) -> tuple[Path, CorpusRef]:
        """Return the file or folder of a corpus, and its description; raises as `describe` does."""
        with at_field(field):
            path = self.find(name, field)
            return path, await asyncio.to_thread(self._describe, name, path, minimum_lines)

    def add(
        self,
        name: str,
        path: Path,
        *,
        language: str | None = None,
        is_ipa: bool | None = None,
        owner: int | str | None = None,
    ) -> bool:
        """Store a copy of a corpus under its name; return False if the same corpus is there by this name already.

        Raises CONFLICT for the name of another corpus, and for the content as `describe` does.
        """
        new, lines = self._checked(name, path, 1)
        with self.changing():
            if self.has_content(name, new.sha256):
                return False
            copy = self.stored / (name if path.is_dir() else f"{name}.txt")
            _store(copy, path)
            owners = () if owner is None else (owner,)
            _write_note(copy, CorpusNote(language=language, is_ipa=is_ipa, lines=lines, bytes=new.bytes, owners=owners))
        return True

    def has_content(self, name: str, sha256: str) -> bool:
        """Return True for a corpus of this name and content; raises CONFLICT for another corpus of this name."""
        if not self.has(name):
            return False
        if corpus_sha256(self.find(name)) != sha256:
            raise other_corpus(name)
        return True

    def store(self, path: Path, owner: int | str | None = None) -> str:
        """Store a copy of a corpus under the hash of its content, which is its name; raises as `describe` does."""
        sha256 = self._describe(path.name, path, 1).sha256
        self._store_sent(sha256, path, owner)
        return sha256

    def send_again(self, sha256: str, owner: int | str | None) -> bool:
        """Write down that somebody has sent a stored text again; return False if it is deleted meanwhile."""
        with self.changing():
            if not (self.stored / sha256).exists():
                return False
            self._note_sender(sha256, owner)
        return True

    def _store_sent(self, sha256: str, path: Path, owner: int | str | None) -> None:
        with self.changing():
            _store(self.stored / sha256, path)
            self._note_sender(sha256, owner)

    async def offer(self, path: Path) -> str:
        """Make a file or folder available as a corpus without storing it; return its corpus name.

        A .jsonl, .csv or .tsv file is offered as the plain text of its field `text`.
        """
        text: PlainText = await asyncio.to_thread(as_text, path, self._scratch)
        reference = await asyncio.to_thread(self._describe, path.name, text.path, 1)
        self._offered[reference.sha256] = text.path
        self.table_notes[reference.sha256] = tuple(f"'{shown_name(path.name)}': {note}" for note in text.notes)
        return reference.sha256

    def shown(self, name: str) -> str:
        """Return the name of a corpus for messages: of an offered one, the name of its file."""
        return shown_name(self._offered[name].name if name in self._offered else name)

    @cached_property
    def _scratch(self) -> Path:
        """A folder for the texts of offered tables, removed with this object."""
        folder = mkdtemp(prefix="mt-tables-")
        finalize(self, rmtree, folder, ignore_errors=True)
        return Path(folder)

    async def store_offered(self, owner: int | str | None = None) -> None:
        """Store copies of the offered corpora under the hash of their content; `owner` is the one who has sent them."""
        for name, path in self._offered.items():
            await asyncio.to_thread(self._store_sent, name, path, owner)

    def _describe(self, name: str, path: Path, minimum_lines: int) -> CorpusRef:
        return self._checked(name, path, minimum_lines)[0]

    def _checked(self, name: str, path: Path, minimum_lines: int) -> tuple[CorpusRef, int]:
        """Read all of a corpus; return its description and its number of lines."""
        size = corpus_bytes(path)
        if size > self._corpus_bytes:
            raise AppError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"'{shown_name(path.name)}' has {size:,} bytes;"
                f" at most {self._corpus_bytes:,} are allowed (LIMITS__CORPUS_BYTES).",
            )
        for file in text_files(path):
            check_plain(file)
        lines = count_lines(path)
        require_lines(path.name, lines, minimum_lines)
        return CorpusRef(name=name, sha256=corpus_sha256(path), bytes=size), lines

    def unknown(self, name: str) -> AppError:
        """Return the error for a name of no corpus; it is the same for a text that is not the caller's."""
        if CONTENT_NAME.fullmatch(name.partition("/")[0]):
            message = "You have sent no text with this hash, or it is not stored any more: give its file again."
            return AppError(ErrorCode.DATA_NOT_FOUND, message)
        known = self.names()
        known_names = f"known are {', '.join(known[:20])}" if known else "none has been added yet"
        return AppError(ErrorCode.DATA_NOT_FOUND, f"There is no corpus '{shown_name(name)}'; {known_names}.")


def note_path(path: Path) -> Path:
    """Return the file beside a corpus that says what it is; names of corpora end in neither `.txt` nor `.json`."""
    return path.with_name(f"{path.name.removesuffix('.txt')}{_NOTE_SUFFIX}")


def _write_note(path: Path, note: CorpusNote) -> None:
    write_atomically(note_path(path), note.model_dump_json().encode())


def note_on_name(given: str, name: str) -> tuple[str, ...]:
    """Return a sentence on the corpus that the beginning of its name is meant for; none for the complete name."""
    return () if given == name else (f"'{shown_name(given)}' names the corpus '{name}'.",)


def only_name(prefix: str, names: Sequence[str]) -> str | None:
    """Return the name that a text is or that only begins with it, None for none; raises INVALID_INPUT for several."""
    found = [prefix] if prefix in names else [name for name in names if prefix and name.startswith(prefix)]
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN_NAMES]) + (", …" if len(found) > _SHOWN_NAMES else "")
        message = f"'{shown_name(prefix)}' names {len(found)} corpora: {shown}. Give more of the name."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return found[0] if found else None


def _find_below(root: Path, name: str, field: str, *, has_notes: bool = False) -> Path | None:
    """Return the file or folder of a corpus below a root, which may have notes beside its corpora.

    Raises PathError if any of its files is elsewhere.
    """
    path = root / name
    _require_below(root, path, field)
    for candidate in (path, path.with_name(f"{path.name}.txt")):
        _require_below(root, candidate, field)
        if candidate.is_file() and not (has_notes and candidate.suffix == _NOTE_SUFFIX):
            if is_converted(candidate) and field != "ratings":
                message = (
                    f"'{shown_name(name)}' in the corpus folder is a table or a transcript. Save its texts as .txt"
                    " there, or give its path to `mt`."
                )
                raise AppError(ErrorCode.INVALID_INPUT, message)
            return candidate
    if not path.is_dir():
        return None
    for file in text_files(path):
        _require_below(root, file, field)
    return path


def _require_below(root: Path, path: Path, field: str) -> None:
    if root.resolve() not in path.resolve().parents:
        raise PathError(field)


def _store(copy: Path, path: Path) -> None:
    """Copy a corpus; the copy appears complete."""
    if copy.exists():
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        with filled_folder(copy) as folder:
            for file in text_files(path):
                _store(folder / file.name, file)
    else:
        with path.open("rb") as data:
            write_atomically(copy, data)


def require_lines(name: str, lines: int, minimum: int = 1) -> None:
    """Raise CORPUS_EMPTY for a corpus with fewer lines."""
    if lines == 0:
        raise AppError(ErrorCode.CORPUS_EMPTY, f"'{shown_name(name)}' is empty: it needs lines of text to learn from.")
    if lines < minimum:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"The corpus has {counted(lines, 'line')} with text; it needs at least {minimum}:"
            " lines to train on and lines held out.",
        )


def training_characters(samples: Sequence[TextSample], share: float) -> TextCharacters:
    """Estimate the characters of training splits that are this share of the sampled corpora."""
    text = normalized("".join(sample.text for sample in samples), Normalization())
    sample_bytes = max(1, sum(sample.n_bytes for sample in samples))
    growth = share * sum(sample.corpus_bytes for sample in samples) / sample_bytes
    return TextCharacters(round(growth * len(text)), round(count_kinds(text, max(1.0, growth))))


def sample_lines(path: Path, count: int, seed: int) -> list[str]:
    """Return `count` lines of a corpus, drawn uniformly by seed; all lines of a shorter corpus."""
    random = Random(seed)  # noqa: S311  no secret depends on it
    sample: list[str] = []
    for number, line in enumerate(chain.from_iterable(line_blocks(path))):
        position = int(random.random() * (number + 1))
        if number < count:
            sample.append(line)
        elif position < count:
            sample[position] = line
    return sample


def other_corpus(name: str) -> AppError:
    """Return the error for the name of another corpus."""
    return AppError(ErrorCode.CONFLICT, f"There is another corpus '{shown_name(name)}': give another `name`.")
