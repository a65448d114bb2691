"""Batteries by name: files and folders in the folder of batteries, and known data sets of the Hugging Face hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

from pydantic import SecretStr
from pydantic_core import to_json

from trainer.batteries.reading import SUFFIXES, Battery, read_battery
from trainer.config.settings import Settings
from trainer.config.validation import did_you_mean, safe_name
from trainer.contracts.base import Frozen, Sha256, changed
from trainer.contracts.batteries import BatteryOptions
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import command_for
from trainer.system.files import DISK, read_record, write_atomically
from trainer.system.hardware import process_name

HUB_BATTERIES: Mapping[str, str] = {
    "blimp": "nyu-mll/blimp",
    "multiblimp": "jumelet/multiblimp",
    "turblimp": "juletxara/turblimp",
    "blimp_nl": "juletxara/blimp-nl",
    "zhoblimp": "Junrui1202/zhoblimp",
}
"""Data sets of the hub by their known names; the configurations of each are its parts."""
_MAX_NAME_BYTES = 200
"""A file system takes 255 bytes with the suffix."""
_SOURCE_FILE = ".source.json"
_LICENCE = "license:"


class _HubSource(Frozen):
    """`.source.json` beside the files of a data set that was fetched."""

    schema_version: Literal[1] = 1
    dataset: str
    revision: str
    licence: str | None
    parts: tuple[str, ...]
    """All parts, also those that were not fetched."""
    sha256: Mapping[str, Sha256] = {}
    """Hashes of the files of the parts that were fetched."""


def battery_at(place: str | Path, options: BatteryOptions, settings: Settings) -> Battery:
    """Read the battery of a path, or of a name as `find_battery` does."""
    return read_battery(Path(place), options) if Path(place).exists() else find_battery(str(place), options, settings)


def find_battery(name: str, options: BatteryOptions, settings: Settings) -> Battery:
    """Read the battery of a name such as `blimp` or `blimp:passive_1`, after fetching a known one that is not there.

    Raises DATA_NOT_FOUND, INVALID_INPUT, UNSUPPORTED_BACKEND without the extra `corpora`, and SERVICE_UNAVAILABLE if
    the hub cannot be reached.
    """
    folder, part = _place(name, settings)
    source = _source(folder)
    if must_fetch(name, settings):
        source = _fetch(folder, source, part, settings.hf.token)
    root = folder.parent
    path = _file(folder, part) if part else folder if folder.is_dir() else _file(root, folder.name)
    if path is None:
        raise _unknown(name, root)
    battery = read_battery(path, options, name)
    if source is None:
        return battery
    where = f"{source.dataset}@{source.revision}"
    return Battery(changed(battery.info, source=where, licence=source.licence), battery.items)


def must_fetch(name: str, settings: Settings) -> bool:
    """Return True for a known data set of which parts are not stored yet; raises INVALID_INPUT for what is no name."""
    folder, part = _place(name, settings)
    if folder.name not in HUB_BATTERIES:
        return False
    source = _source(folder)
    if source is None:
        return _file(folder.parent, folder.name) is None and not folder.is_dir()
    return bool(_missing(source, part))


def battery_names(settings: Settings) -> list[str]:
    """Return the names of the batteries that are stored, and the known ones."""
    root = settings.app.data_root / "batteries"
    stored = [path.stem for path in root.glob("*") if path.is_dir() or path.suffix.lower() in SUFFIXES]
    return sorted({*(name for name in stored if name[0] != "."), *HUB_BATTERIES})


def _place(name: str, settings: Settings) -> tuple[Path, str]:
    """Return the folder of a battery, which need not be there, and its part, "" for all of it."""
    base, colon, part = name.partition(":")
    parts = [base, part] if colon else [base]
    if not all(map(_is_file_name, parts)):
        message = f"'{safe_name(name)}' is no name of a battery: write NAME, or NAME:PART."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return settings.app.data_root / "batteries" / base, part


def _is_file_name(text: str) -> bool:
    is_whole = text.isprintable() and text[:1] not in ("", ".") and "/" not in text and "\\" not in text
    return is_whole and len(text.encode()) <= _MAX_NAME_BYTES


def _file(folder: Path, stem: str) -> Path | None:
    """Return the file of items with this name, with or without its suffix."""
    candidates = (folder / stem, *(folder / f"{stem}{suffix}" for suffix in SUFFIXES))
    return next((path for path in candidates if path.suffix.lower() in SUFFIXES and path.is_file()), None)


def _unknown(name: str, root: Path) -> AppError:
    base, _, part = name.partition(":")
    within = root / base
    if part and within.is_dir():
        parts = sorted(path.stem for path in within.iterdir() if path.suffix.lower() in SUFFIXES)
        near = did_you_mean(part, parts, f"{base}:")
        return AppError(ErrorCode.DATA_NOT_FOUND, f"'{safe_name(base)}' has no part '{safe_name(part)}'{near or '.'}")
    known = ", ".join(HUB_BATTERIES)
    message = f"There is no battery '{safe_name(name)}': give a file, a folder, or one of the names {known}."
    return AppError(ErrorCode.DATA_NOT_FOUND, message)


def _source(folder: Path) -> _HubSource | None:
    try:
        return read_record(folder / _SOURCE_FILE, _HubSource)
    except (FileNotFoundError, NotADirectoryError):
        return None


class _Load(Protocol):
    """`load_dataset` of the library: the rows of each split."""

    def __call__(
        self, path: str, name: str, *, revision: str, token: str | None
    ) -> Mapping[str, Iterable[Mapping[str, object]]]: ...


class _Names(Protocol):
    """`get_dataset_config_names` of the library."""

    def __call__(self, path: str, *, revision: str, token: str | None) -> Sequence[str]: ...


class _Info(Protocol):
    """Facts about a data set on the hub."""

    sha: str
    tags: Sequence[str]


class _Describe(Protocol):
    """`dataset_info` of the hub's client."""

    def __call__(self, repo_id: str, *, token: str | None) -> _Info: ...


def _fetch(folder: Path, source: _HubSource | None, part: str, token: SecretStr | None) -> _HubSource:
    """Fetch the parts of a data set that are asked for and not there yet, always from the same revision."""
    dataset = HUB_BATTERIES[folder.name]
    try:
        library, hub = import_module("datasets"), import_module("huggingface_hub")
    except ImportError:
        message = (
            f"The machine '{_host()}' cannot fetch '{folder.name}' without the library `datasets`: run"
            f" {command_for('corpora')} there (containers: `WORKER_EXTRAS=corpora`), or put its files into"
            f" `batteries/{folder.name}` of APP__DATA_ROOT."
        )
        raise AppError(ErrorCode.UNSUPPORTED_BACKEND, message) from None
    load: _Load = library.load_dataset
    names: _Names = library.get_dataset_config_names
    describe: _Describe = hub.dataset_info
    secret = None if token is None else token.get_secret_value()
    if source is None:
        with _asking_hub(folder.name):
            info = describe(dataset, token=secret)
            parts = tuple(names(dataset, revision=info.sha, token=secret))
        licence = next((tag.removeprefix(_LICENCE) for tag in info.tags if tag.startswith(_LICENCE)), None)
        source = _HubSource(dataset=dataset, revision=info.sha, licence=licence, parts=parts)
        DISK.make_folder(folder)
        _write_source(folder, source)  # first, so that a part alone is no battery of one's own
    for one in _missing(source, part):
        with _asking_hub(folder.name):
            splits = load(dataset, one, revision=source.revision, token=secret)
            content = b"".join(to_json(row) + b"\n" for row in chain.from_iterable(splits.values()))
        write_atomically(folder / f"{one}.jsonl", content)
        source = changed(source, sha256={**source.sha256, one: sha256(content).hexdigest()})
        _write_source(folder, source)
    return source


@contextmanager
def _asking_hub(name: str) -> Iterator[None]:
    """Raise SERVICE_UNAVAILABLE for the errors that the libraries raise without a network."""
    from httpx2 import HTTPError  # a tenth of the bot's start

    try:
        yield
    except (OSError, ValueError, HTTPError) as error:
        message = (
            f"The machine '{_host()}' could not fetch '{name}' from the Hugging Face hub: try again when it has a"
            " network, or give a file of items."
        )
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from error


def _write_source(folder: Path, source: _HubSource) -> None:
    write_atomically(folder / _SOURCE_FILE, source.model_dump_json(indent=1).encode())


def _host() -> str:
    return process_name().rpartition(":")[0]


def _missing(source: _HubSource, part: str) -> list[str]:
    """Return the parts that are asked for and were not fetched."""
    return [one for one in source.parts if one not in source.sha256 and part in ("", one)]
