"""Reads batteries: a file, a folder of files, or the files of a request."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trainer.batteries.suites import Items, read_suite
from trainer.batteries.tables import read_table
from trainer.config.validation import decoded, parse, safe_name
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryInfo, BatteryItem, BatteryOptions, BatteryRequest, Suite
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.reports import Note, counted_note, note
from trainer.contracts.sequences import SequenceParts, joined
from trainer.data.rows import TextFile, check_suffix, in_file, read_file
from trainer.data.text import shown_name

SUFFIXES = (".jsonl", ".tsv", ".csv", ".json")
_MAX_ITEMS = 1_000_000
_SHOWN_FILES = 3


class Battery(NamedTuple):
    """A battery that has been read."""

    info: BatteryInfo
    items: tuple[BatteryItem, ...]


def read_battery(path: Path, options: BatteryOptions, name: str | None = None) -> Battery:
    """Read a file of items, or all files of a folder; raises DATA_NOT_FOUND, INVALID_INPUT and PAYLOAD_TOO_LARGE."""
    return battery_of(name or shown_name(path.stem), item_files(path), options)


def item_files(path: Path) -> list[TextFile]:
    """Return the content of a file of items, or of all files of a folder; raises as `read_battery` does."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] not in "._")
        if not files:
            message = f"The folder '{shown_name(path.name)}' has no file of items: {', '.join(SUFFIXES)}."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)
    return [read_file(file, SUFFIXES) for file in files]


def battery_request(options: BatteryOptions, runs: Sequence[str], batteries: Sequence[str]) -> BatteryRequest:
    """Return the request to a server: the items of files and folders of this machine, and other names as they are."""
    files = [
        {"name": file.name, "content": decoded(file.content, f"'{file.shown}'"), "battery": shown_name(path.stem)}
        for path in map(Path, batteries)
        if path.exists()
        for file in item_files(path)
    ]
    names = [name for name in batteries if not Path(name).exists()]
    fields: dict[str, object] = options.model_dump()
    return parse(BatteryRequest, fields | {"runs": runs, "batteries": names, "files": files})


def battery_of(name: str, files: Sequence[TextFile], options: BatteryOptions) -> Battery:
    """Return the items of files, whose suffixes tell their forms; raises INVALID_INPUT and PAYLOAD_TOO_LARGE."""
    items: list[BatteryItem] = []
    suites: dict[str, Suite] = {}
    notes: list[tuple[Note, list[str]]] = []
    digest = sha256()
    parts: list[Items] = []
    for file in files:
        digest.update(sha256(file.content).digest())
        parts.append(_items_of(file, name, options))
    stems = [PurePosixPath(file.shown).stem for file in files]
    for file, found in zip(files, _with_own_paradigms(stems, parts), strict=True):
        items += found.items
        suites |= found.suites
        for one in found.notes:
            same = next((of_files for known, of_files in notes if known == one), None)
            if same is None:
                notes.append((one, [file.shown]))
            else:
                same.append(file.shown)
        if len(items) > _MAX_ITEMS:
            raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"'{name}' has more than {_MAX_ITEMS:,} items.")
    info = BatteryInfo(
        name=name,
        sha256=digest.hexdigest(),
        n_items=len(items),
        n_sequences=sum(len(item.sequences) for item in items),
        suites=suites,
        notes=tuple(_with_files(one, of_note, len(files)) for one, of_note in notes),
    )
    return Battery(info, tuple(items))


def _with_own_paradigms(stems: Sequence[str], parts: Sequence[Items]) -> Iterator[Items]:
    """Yield the items of files; a file whose only paradigm is that of another file as well is a paradigm itself.

    The paradigm that the files share is their phenomenon then. TurBLiMP's experimental files are of this kind.
    """
    of_parts = [{item.paradigm for item in part.items} for part in parts]
    counts = Counter(name for names in of_parts for name in names)
    for stem, part, names in zip(stems, parts, of_parts, strict=True):
        name = min(names)
        if len(names) > 1 or counts[name] == 1:
            yield part
            continue
        items = [changed(item, paradigm=stem, phenomenon=item.phenomenon or name) for item in part.items]
        suites = {stem: part.suites[name]} if part.suites else {}
        alike = note(
            "Several files have the paradigm `{paradigm}` only: each file is a paradigm, by its name.",
            paradigm=safe_name(name),
        )
        yield Items(items, suites, (*part.notes, alike))


def _with_files(about: Note, files: Sequence[str], n_files: int) -> Note:
    """Return a note with the files that it is about, where a battery has others, too."""
    if len(files) == n_files:
        return about
    names = note("{names}", names=", ".join(files[:_SHOWN_FILES]))
    if len(files) > _SHOWN_FILES:
        names = note("{names} and {number} more", names=names, number=len(files) - _SHOWN_FILES)
    return note("{files}: {note}", files=names, note=about)


def _items_of(file: TextFile, battery: str, options: BatteryOptions) -> Items:
    suffix, stem = PurePosixPath(file.shown).suffix.lower(), PurePosixPath(file.shown).stem
    check_suffix(file.name, SUFFIXES)
    text = file.text()
    with in_file(file.name):
        if suffix == ".json":
            found = read_suite(text, stem, battery)
        else:
            found = read_table(text, stem, suffix, battery, options)
    if suffix == ".json" and options.separator is None:
        return found  # the suites of SyntaxGym are joined by spaces whatever they have
    items = [_separated(item, options.separator) for item in found.items]
    sequences = [item.sequences for item in items]
    n_spaces = sum(any(one.has_unwritten_space for one in of_item) for of_item in sequences)
    n_bare = sum(any(map(_has_bare_part, of_item)) for of_item in sequences)
    notes = [*found.notes]
    if n_spaces and suffix != ".json" and options.separator is not None:
        spaces = note(
            "Joined with a space where usually none is written, as before punctuation: {items}. The option `separator`"
            " (`--separator`) gives another.",
            items=counted_note(n_spaces, "item"),
        )
        notes.append(spaces)
    if n_bare and options.separator is None:
        bare = note(
            "Joined without a space where usually none is written, as before punctuation: {items}. The option"
            " `separator` (`--separator`) gives another.",
            items=counted_note(n_bare, "item"),
        )
        notes.append(bare)
    return found._replace(items=items, notes=tuple(notes))


def _separated(item: BatteryItem, separator: str | None) -> BatteryItem:
    """Return an item whose contexts, choices and regions, which are read with spaces between them, have a separator."""
    return changed(item, sequences=tuple(_with_separator(sequence, separator) for sequence in item.sequences))


def _with_separator(sequence: SequenceParts, separator: str | None) -> SequenceParts:
    texts = [sequence.context]
    for part in sequence.parts:
        texts.append(part.removeprefix(" ") if any(texts) else part)
    return changed(sequence, parts=tuple(joined(texts, separator)[1:]))


def _has_bare_part(sequence: SequenceParts) -> bool:
    """Return True if a part follows the text before it without a space."""
    _, *others = filter(None, (sequence.context, *sequence.parts))
    return any(part[0] != " " for part in others)


def with_items(infos: Iterable[BatteryInfo], items: Sequence[BatteryItem]) -> list[Battery]:
    """Return stored batteries with their items among those of others."""
    return [Battery(info, tuple(item for item in items if item.battery == info.name)) for info in infos]


def with_distinct_names(batteries: Sequence[Battery]) -> list[Battery]:
    """Return the batteries with a number after a name that an earlier one has."""
    named: list[Battery] = []
    for battery in batteries:
        taken = {one.info.name for one in named}
        name, number = battery.info.name, 2
        while name in taken:
            name, number = f"{battery.info.name}-{number}", number + 1
        if name != battery.info.name:
            items = tuple(changed(item, battery=name) for item in battery.items)
            battery = Battery(changed(battery.info, name=name), items)
        named.append(battery)
    return named
