"""The looks at test splits: a file for each model whose loss on one was read, and the texts whose splits are locked.

A file never changes, and no deletion of a run removes one. It is written before the loss is read, so that whatever is
killed meanwhile has counted, and a repeated reading of the same models is no new look.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trainer.config.settings import Settings
from trainer.contracts.base import Frozen, now, run_of
from trainer.contracts.looks import Look, LookCount, LookReason, TextLock, TrainedRun, test_locked
from trainer.contracts.runs import EffectiveRequest, test_id_of
from trainer.system.files import DISK, read_record, storage_errors, write_atomically

if TYPE_CHECKING:
    from trainer.artifacts.object_store import ObjectStore

_FOLDER, _LOCKS = "looks", "locks"
_TRAINED, _END = ".trained", ".json"
_ID_CHARACTERS = 16
_KEY = re.compile(r"[a-z0-9]+/[a-z0-9][A-Za-z0-9@:_.-]*\.json")


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
        """Return the looks so far at the test split of a run; None for a run without one."""
        test_id = effective.test_id
        if test_id is None:
            return None
        names = self._names(test_id)
        trained = [name for name in names if name.endswith(_TRAINED)]
        looks = {look for _, look in self._looks(names)}
        return LookCount(test_id=test_id, looks=len(looks), runs=len(trained))

    def add_trained(self, effective: EffectiveRequest, run_id: str) -> None:
        """Count a completed training on the corpus of a test split, once."""
        if effective.test_id is not None:
            self._write(f"{effective.test_id}/{run_id}{_TRAINED}{_END}", TrainedRun(run_id=run_id))

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
        self, effective: EffectiveRequest, model: str, text_sha256: str, reason: LookReason, by: int | str | None
    ) -> None:
        """Count a look by a model at a whole text, if that is the test text of some run; raises as `read` does.

        A text from which a locked test split is drawn is refused as well, because its loss tells of that split.
        """
        own = effective.test_text
        if own is not None and own.sha256 == text_sha256:
            self.check(effective, model)
        elif self.has_lock(text_sha256):
            raise test_locked("This text has a locked test split")
        test_id = test_id_of(text_sha256)
        if (self._folder / test_id).exists():
            self.record(test_id, [model], reason, by)

    def check(self, effective: EffectiveRequest, model: str) -> None:
        """Raise TEST_LOCKED for a model whose test split is locked, and was not read by it before."""
        if self.is_locked(effective) and not self.has_read(effective, model):
            raise test_locked()

    def is_locked(self, effective: EffectiveRequest) -> bool:
        """Return True if a look at the test split of a run needs an unlock, by the run, its text or the settings."""
        text = effective.test_text
        return text is not None and (effective.test == "locked" or self._locks_all or self.has_lock(text.sha256))

    def has_read(self, effective: EffectiveRequest, model: str) -> bool:
        """Return True if the loss of a model, or of the run of a checkpoint, on its test split was read before."""
        return effective.test_id is not None and not {model, run_of(model)}.isdisjoint(self._models(effective.test_id))

    def lock(self, text_sha256: str, by: int | str | None) -> TextLock:
        """Lock the test splits of runs on a text from now on; return the first lock of the text."""
        self._write(f"{_LOCKS}/{text_sha256}{_END}", TextLock(at=now(), by=by))
        return read_record(self._folder / _LOCKS / f"{text_sha256}{_END}", TextLock)

    def has_lock(self, text_sha256: str) -> bool:
        """Return True if the test splits of runs on a text are locked."""
        return (self._folder / _LOCKS / f"{text_sha256}{_END}").exists()

    def share(self, objects: "ObjectStore") -> None:
        """Give the object store the looks of this machine, and bring those of the others here."""
        here = {path.relative_to(self._folder).as_posix() for path in self._folder.glob(f"*/*{_END}")}
        keys = (key.removeprefix(f"{_FOLDER}/") for key in objects.tags(f"{_FOLDER}/"))
        there = {key for key in keys if _KEY.fullmatch(key)}
        for name in here - there:
            objects.put_new(f"{_FOLDER}/{name}", (self._folder / name).read_bytes())
        found = {name: objects.get(f"{_FOLDER}/{name}") for name in there - here}
        for name, data in {name: look.data for name, look in found.items() if look is not None}.items():
            self._store(name, data)

    def _models(self, test_id: str) -> set[str]:
        return {model for model, _ in self._looks(self._names(test_id))}

    @staticmethod
    def _looks(names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the model and the id of each look among names of files."""
        for name in names:
            model, _, look = name.rpartition(".")
            if not name.endswith(_TRAINED):
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
