"""The looks at test splits: a file for each model whose loss on one was read, and the texts whose splits are locked.

A file never changes, and no deletion of a run removes one. It is written before the loss is read, so that whatever is
killed meanwhile has counted, and a repeated reading of the same models is no new look.

Test texts and locked texts are known by their lines (`line_keys.py`), which are stored beside the looks: a copy in
another file, or a part of them, is the same text. Those of earlier versions are known by the hashes of their files
until their lines are read.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, now, run_of
from trainer.contracts.looks import Look, LookCount, LookReason, SameLines, TextLock, TrainedRun, test_locked
from trainer.contracts.runs import EffectiveRequest, test_id_of
from trainer.data.line_keys import LineKeys, TextLines, stored_keys
from trainer.system.files import DISK, read_record, storage_errors, write_atomically

if TYPE_CHECKING:
    from trainer.artifacts.object_store import ObjectStore

_FOLDER, _LOCKS, _LINES = "looks", "locks", "lines"
_TRAINED, _SAME, _END, _KEYS, _COMPARED = ".trained", ".same", ".json", ".keys", ".compared"
_ID_CHARACTERS = 16
_TEXT_LOCKED = "This text has lines of a locked test split"
_NAME = re.compile(r"[a-z0-9]+/[a-z0-9][A-Za-z0-9@:_.-]*\.(json|keys)")

Measured = tuple[str, EffectiveRequest]
"""A model that is measured: its name, and the request of its run."""


class LookLedger:
    """The looks at the test splits of an installation."""

    def __init__(self, artifacts_root: Path, *, locks_all: bool = False) -> None:
        """`locks_all`: the test splits of all runs are locked."""
        self._folder = artifacts_root / _FOLDER
        self._locks_all = locks_all

    @classmethod
    def of(cls, settings: Settings) -> "LookLedger":
        """Return the looks of the installation that settings describe."""
        return cls(settings.app.artifacts_root, locks_all=settings.app.test_split == "locked")

    def count(self, effective: EffectiveRequest) -> LookCount | None:
        """Return the looks so far at the test split of a run; None for a run without one.

        Looks at another test text that tell of this one are among them.
        """
        test_id = effective.test_id
        if test_id is None:
            return None
        names = self._names(test_id)
        others = [name.removesuffix(_SAME) for name in names if name.endswith(_SAME)]
        names += [name for other in others for name in self._names(other)]
        trained = {name for name in names if name.endswith(_TRAINED)}
        looks = {look for _, look in self._looks(names)}
        return LookCount(test_id=test_id, looks=len(looks), runs=len(trained))

    def add_trained(self, effective: EffectiveRequest, run_id: str) -> None:
        """Count a completed training on the corpus of a test split, once."""
        if effective.test_id is not None:
            self._write(f"{effective.test_id}/{run_id}{_TRAINED}{_END}", TrainedRun(run_id=run_id))

    def has_lines(self, test_id: str) -> bool:
        """Return True if the lines of a test text are stored, and were compared with those of the others."""
        return (self._folder / _LINES / f"{test_id}{_COMPARED}").exists()

    def add_lines(self, test_id: str, lines: LineKeys) -> None:
        """Store the lines of a test text, and which other test texts they tell of, and that tell of them."""
        self._store_keys(_LINES, test_id, lines)
        self._compare(test_id)

    def record(self, test_id: str | None, models: Sequence[str], reason: LookReason, by: int | str | None) -> None:
        """Count a look at a test split by models that are measured together, except for those before; none without one.

        Their losses may be read from now on. Raises INSUFFICIENT_STORAGE or SERVICE_UNAVAILABLE if it cannot be
        written: then nothing is to be read.
        """
        if test_id is None:
            return
        look = Look(models=tuple(sorted(models)), at=now(), by=by, reason=reason)
        look_id = sha256("\n".join(look.models).encode()).hexdigest()[:_ID_CHARACTERS]
        known = self._models(test_id)
        for model in look.models:
            if model not in known:
                self._write(f"{test_id}/{model}.{look_id}{_END}", look)

    def read(self, effective: EffectiveRequest, model: str, reason: LookReason, by: int | str | None) -> None:
        """Count a look at the test split of a run by a model of it; raises TEST_LOCKED, and as `record` does."""
        self.check(effective, model)
        self.record(effective.test_id, [model], reason, by)

    def read_text(
        self, measured: Sequence[Measured], text: TextLines, reason: LookReason, by: int | str | None
    ) -> None:
        """Count a look at each test text that a text tells of, by models that are measured on it together.

        Raises TEST_LOCKED if the text tells of a locked text, or of the locked test split of one of the models, unless
        the split was unlocked for the model. Raises as `record` does too.
        """
        self._keep_lines(text)
        locked = [lock for lock in self._locks() if self._tells_of(text, _LOCKS, lock)]
        for model, effective in measured:
            if not all(self._is_drawn_from(lock, effective) for lock in locked):
                raise test_locked(_TEXT_LOCKED)
            if locked or self.has_test_lines(effective, text):
                self.check(effective, model)
        earlier = (test_id for test_id in map(test_id_of, text.hashes) if (self._folder / test_id).exists())
        for test_id in {*self._stored(_LINES), *earlier}:
            if self._tells_of(text, _LINES, test_id):
                self.record(test_id, [model for model, _ in measured], reason, by)

    def check_text(self, text: TextLines) -> None:
        """Raise TEST_LOCKED for a text that tells of a locked one."""
        if self.has_lock(text):
            raise test_locked(_TEXT_LOCKED)

    def check(self, effective: EffectiveRequest, model: str) -> None:
        """Raise TEST_LOCKED for a model whose test split is locked, and was not read by it before."""
        if self.is_locked(effective) and not self.has_read(effective, model):
            raise test_locked()

    def is_locked(self, effective: EffectiveRequest) -> bool:
        """Return True if a look at the test split of a run needs an unlock, by the run, its text or the settings."""
        if effective.test_text is None:
            return False
        has_lock = effective.test == "locked" or self._locks_all
        return has_lock or any(self._is_drawn_from(lock, effective) for lock in self._locks())

    def has_read(self, effective: EffectiveRequest, model: str) -> bool:
        """Return True if the loss of a model, or of the run of a checkpoint, on its test split was read before."""
        return effective.test_id is not None and not {model, run_of(model)}.isdisjoint(self._models(effective.test_id))

    def has_test_lines(self, effective: EffectiveRequest, text: TextLines) -> bool:
        """Return True if a text tells of the test split of a run, or is the text that has it."""
        own, test_id = effective.test_text, effective.test_id
        if own is None or test_id is None:
            return False
        return own.sha256 in text.hashes or self._tells_of(text, _LINES, test_id)

    def lock(self, text: TextLines, by: int | str | None) -> TextLock:
        """Lock the test splits of runs on a text from now on; return the first lock of the text."""
        [sha256] = text.hashes
        self._store_keys(_LOCKS, sha256, text.lines)
        self._write(f"{_LOCKS}/{sha256}{_END}", TextLock(at=now(), by=by))
        return read_record(self._folder / _LOCKS / f"{sha256}{_END}", TextLock)

    @property
    def has_locks(self) -> bool:
        """True if some text is locked."""
        return any(True for _ in self._locks())

    def has_lock(self, text: TextLines) -> bool:
        """Return True if a text tells of one whose test splits are locked for every run."""
        return any(self._tells_of(text, _LOCKS, lock) for lock in self._locks())

    def share(self, objects: "ObjectStore") -> None:
        """Give the object store the looks of this machine, and bring those of the others here."""
        files = (path.relative_to(self._folder).as_posix() for path in self._folder.glob("*/*"))
        here = {name for name in files if _NAME.fullmatch(name)}
        keys = (key.removeprefix(f"{_FOLDER}/") for key in objects.tags(f"{_FOLDER}/"))
        there = {key for key in keys if _NAME.fullmatch(key)}
        for name in here - there:
            objects.put_new(f"{_FOLDER}/{name}", (self._folder / name).read_bytes())
        found = {name: objects.get(f"{_FOLDER}/{name}") for name in there - here}
        for name, data in {name: look.data for name, look in found.items() if look is not None}.items():
            self._store(name, data)
        for test_id in self._stored(_LINES):
            if not self.has_lines(test_id):
                self._compare(test_id)

    def _locks(self) -> Iterator[str]:
        """Yield the SHA-256 of the locked texts."""
        return (path.name.removesuffix(_END) for path in (self._folder / _LOCKS).glob(f"[a-z0-9]*{_END}"))

    def _stored(self, folder: str) -> list[str]:
        """Return the names of the texts whose lines are stored."""
        return [path.name.removesuffix(_KEYS) for path in (self._folder / folder).glob(f"[a-z0-9]*{_KEYS}")]

    def _lines(self, folder: str, name: str) -> LineKeys | None:
        """Return the stored lines of a locked text or of a test text; None for those of an earlier version."""
        path = self._keys_file(folder, name)
        return stored_keys(path) if path.exists() else None

    def _tells_of(self, text: TextLines, folder: str, name: str) -> bool:
        """Return True if a text tells of a locked text or of a test text, or has its file's hash."""
        is_file = name in (text.hashes if folder == _LOCKS else map(test_id_of, text.hashes))
        return is_file or ((lines := self._lines(folder, name)) is not None and text.lines.tells_of(lines))

    def _is_drawn_from(self, lock: str, effective: EffectiveRequest) -> bool:
        """Return True if the test split of a run is, or has lines of, a locked text."""
        own, test_id = effective.test_text, effective.test_id
        if own is None or test_id is None:
            return False
        lines, locked = self._lines(_LINES, test_id), self._lines(_LOCKS, lock)
        return own.sha256 == lock or (lines is not None and locked is not None and lines.tells_of(locked))

    def _keep_lines(self, text: TextLines) -> None:
        """Store the lines of a text that an earlier version knows by its hash."""
        for content in text.hashes:
            if (self._folder / _LOCKS / f"{content}{_END}").exists():
                self._store_keys(_LOCKS, content, text.lines)
            if (self._folder / test_id_of(content)).exists() and not self.has_lines(test_id_of(content)):
                self.add_lines(test_id_of(content), text.lines)

    def _compare(self, test_id: str) -> None:
        """Write down which of the other test texts tell of one, and which it tells of, then that it was compared.

        Of two texts that are stored at once, at least the one that is compared later finds the other.
        """
        own = self._lines(_LINES, test_id)
        for other in self._stored(_LINES):
            lines = self._lines(_LINES, other)
            if own is None or lines is None or other == test_id:
                continue
            for one, its_lines, told, told_lines in ((test_id, own, other, lines), (other, lines, test_id, own)):
                if its_lines.tells_of(told_lines):
                    self._write(f"{told}/{one}{_SAME}{_END}", SameLines(test_id=one))
        self._store(f"{_LINES}/{test_id}{_COMPARED}", b"")

    def _keys_file(self, folder: str, name: str) -> Path:
        return self._folder / folder / f"{name}{_KEYS}"

    def _store_keys(self, folder: str, name: str, lines: LineKeys) -> None:
        with storage_errors("the look at the test split could not be counted"):
            self._store(f"{folder}/{name}{_KEYS}", lines.written())

    def _models(self, test_id: str) -> set[str]:
        return {model for model, _ in self._looks(self._names(test_id))}

    @staticmethod
    def _looks(names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the model and the id of each look among names of files."""
        for name in names:
            model, _, look = name.rpartition(".")
            if not name.endswith((_TRAINED, _SAME)):
                yield model, look

    def _names(self, test_id: str) -> list[str]:
        return [file.name.removesuffix(_END) for file in (self._folder / test_id).glob(f"[a-z0-9]*{_END}")]

    def _write(self, name: str, record: Frozen) -> None:
        with storage_errors("the look at the test split could not be counted"):
            self._store(name, record.model_dump_json().encode())

    def _store(self, name: str, data: bytes) -> None:
        path = self._folder / PurePosixPath(name)
        if not path.exists():
            DISK.make_folder(path.parent)
            write_atomically(path, data)
