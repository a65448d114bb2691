"""Folders of text files: the files whose names say a split, and what a corpus leaves out."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import distinct, listed
from trainer.data.text import reading, shown_name, text_files

_USES = {"corpus": "training", "validation_corpus": "validation", "test_corpus": "test"}
"""Request fields of the splits, and their use."""
_SHARES = {"test_corpus": "test_fraction"}
_FIELDS = {
    **dict.fromkeys(("train", "training"), "corpus"),
    **dict.fromkeys(
        ("dev", "devel", "development", "val", "valid", "validation", "eval", "evaluation"), "validation_corpus"
    ),
    **dict.fromkeys(("test", "testing"), "test_corpus"),
}
"""Request fields by the words of file names."""
_SEPARATORS = re.compile(r"([\W_]+)")


class FolderLayout(NamedTuple):
    """The files of a folder by request field, empty for one text, and notes on the files for a person."""

    files: dict[str, str]
    notes: tuple[str, ...] = ()


def folder_layout(folder: Path, name: str, given: Collection[str] = ()) -> FolderLayout:
    """Return the splits that the names of a folder's files say, as in train.txt, dev.txt, ptb.test.txt.

    `name` is that of the folder for messages. `given` are the fields of a request: a corpus that it names replaces the
    file, and with `split_by` all files are one text. Raises INVALID_INPUT if files of several splits are no complete
    set: with two test files, without one for training, or with others beside them.
    """
    names = [file.name for file in text_files(folder)]
    left_out = folder_notes(folder, name)
    readings = {file: _readings(file) for file in names}
    described = [file for file, fields in readings.items() if fields]
    if not described:
        return FolderLayout({}, left_out)
    joined = FolderLayout({}, (f"All files of '{name}' are one text, also {_shown(described)}.", *left_out))
    if "split_by" in given:
        return joined
    if (files := _complete(readings)) is not None:
        return FolderLayout(
            {field: file for field, file in files.items() if field == "corpus" or field not in given},
            (_described(files, name, given), *left_out),
        )
    fields = {field for of_file in readings.values() for field in of_file.values()}
    if len(fields) > 1 or (len(described) == len(names) and fields != {"corpus"}):
        message = (
            f"The files of '{name}' have names of splits, but are not one file each for training, validation and test"
            f" whose names are otherwise equal: {_shown(names)}. Rename them, name each file in `corpus`,"
            " `validation_corpus` and `test_corpus`, or give `split_by: line`, which makes all files one text."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return joined


def folder_notes(folder: Path, name: str) -> tuple[str, ...]:
    """Return a note on what is in a folder and not in its corpus; hidden files do not count."""
    if not folder.is_dir():
        return ()
    texts = set(text_files(folder))
    with reading(folder):
        others = sorted(path for path in folder.iterdir() if path not in texts and not path.name.startswith("."))
    if not others:
        return ()
    shown = listed([f"{shown_name(path.name)}{'/' if path.is_dir() else ''}" for path in others])
    kept = "A corpus is the .txt and .text files of its folder, without README, LICENSE and the like."
    return (f"Left out of '{name}': {shown}. {kept}",)


def _shown(names: Sequence[str]) -> str:
    return listed([shown_name(name) for name in names])


def _readings(file: str) -> dict[str, str]:
    """Return the fields that the words of a file name say, by the rest of the name."""
    parts = _SEPARATORS.split(Path(file).stem.casefold())
    return {
        "".join((*parts[:place], "*", *parts[place + 1 :])): _FIELDS[part]
        for place, part in enumerate(parts)
        if part in _FIELDS
    }


def _complete(readings: Mapping[str, Mapping[str, str]]) -> dict[str, str] | None:
    """Return the files by field if they are of different splits, one for training, and otherwise named equally."""
    for rest in distinct(rest for of_file in readings.values() for rest in of_file):
        files = {of_file[rest]: file for file, of_file in readings.items() if rest in of_file}
        if len(files) == len(readings) and "corpus" in files:
            return {field: files[field] for field in _USES if field in files}
    return None


def _described(files: Mapping[str, str], name: str, given: Collection[str]) -> str:
    unused = [file for field, file in files.items() if field in given and field != "corpus"]
    uses = [f"{shown_name(file)} for {_USES[field]}" for field, file in files.items() if file not in unused]
    drawn = [use for field, use in _USES.items() if field not in files and not {field, _SHARES.get(field)} & {*given}]
    note = f"The files of '{name}' are splits by their names: {listed(uses)}."
    note += f" Left out, because the request names another: {_shown(unused)}." if unused else ""
    return note + (f" Lines of {shown_name(files['corpus'])} are drawn for {listed(drawn)}." if drawn else "")
