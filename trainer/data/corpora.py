"""Texts by name: the data root's own, those shipped with the program, and stored attachments (DEC D06)."""

import asyncio
from itertools import chain
from pathlib import Path
from random import Random

from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.contracts.wording import counted
from trainer.data.folders import filled_folder
from trainer.data.text import SUFFIXES, corpus_sha256, line_blocks, shown_name, text_files
from trainer.system.files import write_atomically

_SPLITS = {
    "train": "corpus",
    "valid": "validation_corpus",
    "validation": "validation_corpus",
    "test": "test_corpus",
}
BUNDLED = Path(__file__).resolve().parents[2] / "corpora"


class CorpusStore:
    """Finds texts by name and keeps copies of texts that were handed in, by their content.

    A corpus is a file, or a folder's .txt and .text files in the order of their names.
    """

    def __init__(self, settings: Settings) -> None:
        self._corpora = settings.app.data_root / "corpus"
        self._stored = settings.app.artifacts_root / "corpora"
        self._corpus_bytes = settings.limits.corpus_bytes
        self._offered: dict[str, Path] = {}

    def has(self, name: str) -> bool:
        try:
            self.find(name)
        except AppError:
            return False
        return True

    def names(self) -> list[str]:
        """The texts that have names of their own; those that were handed in have not."""
        roots = (self._corpora, BUNDLED)
        files = {path.stem for root in roots for path in root.glob("*.txt")}
        folders = {path.parent.name for root in roots for end in SUFFIXES for path in root.glob(f"*/*{end}")}
        return sorted(files | folders)

    def find(self, name: str) -> Path:
        """The file or folder of a corpus name; raises INVALID_INPUT for a name that leads out, DATA_NOT_FOUND."""
        offered, _, within = name.partition("/")
        try:
            if offered in self._offered:
                found = _found(self._offered[offered], within) if within else self._offered[offered]
                if found is not None:
                    return found
            for root in (self._corpora, BUNDLED, self._stored):
                found = _found(root, name)
                if found is not None:
                    return found
        except (OSError, ValueError) as error:  # no file can have such a name
            raise self._unknown(name) from error
        raise self._unknown(name)

    def splits(self, name: str) -> dict[str, str]:
        """The texts of a folder that is made of splits, by the field of a request that each is for; else none.

        Such a folder has no other texts than train.txt, valid.txt (or validation.txt) and test.txt; raises
        DATA_NOT_FOUND where the first is missing.
        """
        folder = self.find(name)
        if not folder.is_dir():
            return {}
        files = {file.stem: file.name for file in text_files(folder)}
        if not files.keys() <= _SPLITS.keys():
            return {}
        if "train" not in files:
            raise AppError(
                ErrorCode.DATA_NOT_FOUND,
                f"There is no '{shown_name(name)}/train.txt', which is expected beside {' and '.join(files.values())}.",
            )
        return {_SPLITS[stem]: f"{name}/{file}" for stem, file in files.items()}

    async def describe(self, name: str, *, minimum_lines: int = 1) -> CorpusRef:
        """A corpus by name and content, checked whole: strict UTF-8, not too large, lines enough to split."""
        return await asyncio.to_thread(self._described, name, self.find(name), minimum_lines)

    def sample_lines(self, name: str, count: int, seed: int) -> list[str]:
        """Draw lines of a corpus by seed, each as likely as any other; all of them where there are no more."""
        random = Random(seed)  # noqa: S311  no secret depends on it
        sample: list[str] = []
        for number, line in enumerate(chain.from_iterable(line_blocks(self.find(name)))):
            place = int(random.random() * (number + 1))
            if number < count:
                sample.append(line)
            elif place < count:
                sample[place] = line
        return sample

    async def offer(self, path: Path) -> str:
        """Take a file or folder of this machine as a corpus for now, changing nothing; returns its corpus name."""
        reference = await asyncio.to_thread(self._described, path.name, path, 1)
        self._offered[reference.sha256] = path
        return reference.sha256

    async def keep_offered(self) -> None:
        """Store copies of the texts that were offered, by their content."""
        for name, path in self._offered.items():
            await asyncio.to_thread(self._keep, self._stored / name, path)

    def _described(self, name: str, path: Path, minimum_lines: int) -> CorpusRef:
        size = sum(file.stat().st_size for file in text_files(path))
        if size > self._corpus_bytes:
            raise AppError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"'{shown_name(path.name)}' has {size:,} bytes;"
                f" at most {self._corpus_bytes:,} are taken (LIMITS__CORPUS_BYTES).",
            )
        _require_lines(path.name, sum(map(len, line_blocks(path))), minimum_lines)
        return CorpusRef(name=name, sha256=corpus_sha256(path), bytes=size)

    def _keep(self, kept: Path, path: Path) -> None:
        if kept.exists():
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            _copy(path, kept)
            return
        with filled_folder(kept) as folder:
            for file in text_files(path):
                _copy(file, folder / file.name)

    def _unknown(self, name: str) -> AppError:
        known = self.names()
        known_names = f"known are {', '.join(known[:20])}" if known else "none has been added yet"
        return AppError(ErrorCode.DATA_NOT_FOUND, f"There is no corpus '{shown_name(name)}'; {known_names}.")


def _found(root: Path, name: str) -> Path | None:
    """The file or folder of a name below a root; raises INVALID_INPUT where anything of it lies elsewhere."""
    path = root / name
    _require_below(root, path)
    for candidate in (path, path.with_name(f"{path.name}.txt")):
        _require_below(root, candidate)
        if candidate.is_file():
            return candidate
    if not path.is_dir():
        return None
    for file in text_files(path):
        _require_below(root, file)
    return path


def _require_below(root: Path, path: Path) -> None:
    if root.resolve() not in path.resolve().parents:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            "`corpus` must be a name inside the corpus folder: no absolute path and no `..`.",
        )


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as data:
        write_atomically(target, data)


def _require_lines(name: str, lines: int, minimum: int) -> None:
    if lines == 0:
        raise AppError(ErrorCode.CORPUS_EMPTY, f"'{shown_name(name)}' is empty: it needs lines of text to learn from.")
    if lines < minimum:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"The corpus has {counted(lines, 'line')} with text; it needs at least {minimum}:"
            " lines to train on and lines held out.",
        )
