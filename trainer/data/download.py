"""Corpora that are fetched: WikiText-2, in its three splits."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

from httpx2 import HTTPError

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import command_for_extra
from trainer.data.folders import filled_folder

SOURCES = {"wikitext-2": ("Salesforce/wikitext", "wikitext-2-v1")}
"""Data sets that can be downloaded: the data set and its configuration by our name."""
_Load = Callable[[str, str], Mapping[str, Iterable[Mapping[str, str]]]]
_FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


def build_corpus(source: str, corpora: Path) -> Path:
    """Download a corpus into a folder of its name, one file per split; an existing folder is not changed.

    Raises UNSUPPORTED_BACKEND without the extra `corpora`, and SERVICE_UNAVAILABLE if the download fails.
    """
    folder = corpora / source
    if folder.exists():
        return folder
    by_hand = f"or put {', '.join(f'{source}/{file}' for file in _FILES.values())} into the corpus folder yourself."
    try:
        load: _Load = import_module("datasets").load_dataset
    except ImportError:
        message = f"Fetching needs datasets: run {command_for_extra('corpora')}, {by_hand}"
        raise AppError(ErrorCode.UNSUPPORTED_BACKEND, message) from None
    try:
        splits = load(*SOURCES[source])
    except (OSError, ValueError, HTTPError) as error:  # raised by the library without a network
        message = f"'{source}' could not be fetched: try again where there is a network, {by_hand}"
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message) from error
    with filled_folder(folder) as filling:
        for split, file in _FILES.items():
            lines = (row["text"].removesuffix("\n") + "\n" for row in splits[split])
            (filling / file).write_text("".join(lines), encoding="utf-8")
    return folder
