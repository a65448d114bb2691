"""Texts from elsewhere: data sets of the Hugging Face hub, streamed or fetched, and folders of local text."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from httpx2 import HTTPError, TransportError
from pydantic import BaseModel, SecretStr

from trainer.config.validation import safe_name
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.installation import command_for
from trainer.contracts.wording import distinct
from trainer.data.cleaning import ALPHABETS
from trainer.data.text import corpus_sha256, stream_blocks
from trainer.system.files import filled_folder

Read = Callable[[str, int], Iterator[str]]
"""Yields the documents of a language, after skipping the given number of them."""
HUB_SOURCES = {"oscar": "oscar-corpus/OSCAR-2301", "culturax": "uonlp/CulturaX"}
"""Data sets on the hub by our name; both are gated."""
STREAM_CHARACTERS = 10_000_000
"""Default limit per language of a data set on the hub, whose Turkish has more than any disk holds."""
_DOCUMENT_LINES = 100


class Source(NamedTuple):
    """Documents with the name that their corpora get."""

    name: str
    dataset: str | None
    """The data set on the hub; None: local text."""
    sha256: Mapping[str, str]
    """SHA-256 of the local text of each language."""
    read: Read


def find_source(given: str, languages: Sequence[str], token: SecretStr | None) -> Source:
    """Return the data set on the hub of this name, or the folder of texts.

    Raises INVALID_INPUT for an unknown source, DATA_NOT_FOUND for a folder without the text of a language, and
    UNSUPPORTED_BACKEND for a data set without the extra `corpora`.
    """
    if given in HUB_SOURCES:
        return Source(given, HUB_SOURCES[given], {}, partial(_stream, given, token, _load_dataset()))
    folder = Path(given)
    if not folder.is_dir():
        known = ", ".join(("wikitext-2", *HUB_SOURCES))
        message = f"must be one of {known}, or a folder of texts, you gave '{safe_name(given)}'."
        raise field_error(ErrorCode.INVALID_INPUT, "source", message)
    missing = [f"{language}.txt" for language in languages if not (folder / f"{language}.txt").is_file()]
    name = safe_name(folder.resolve().name)
    if missing:
        message = f"'{name}' has no {', '.join(missing)}: add a text per language, or leave out the language."
        raise AppError(ErrorCode.DATA_NOT_FOUND, message)
    hashes = {language: corpus_sha256(folder / f"{language}.txt") for language in languages}
    return Source(name, None, hashes, partial(_read_folder, folder))


def parse_languages(given: str) -> tuple[str, ...]:
    """Read `kk,ky,…`; raises INVALID_INPUT for a language without an IPA alphabet."""
    languages = [language.strip() for language in given.split(",")]
    unknown = [language for language in languages if language not in ALPHABETS]
    if unknown:
        message = f"must be of {', '.join(ALPHABETS)}, you gave '{safe_name(','.join(unknown))}'."
        raise field_error(ErrorCode.INVALID_INPUT, "languages", message)
    return distinct(languages)


class _Stream(Protocol):
    """A streamed data set."""

    def skip(self, n: int) -> Iterable[dict[str, str]]: ...


class _Load(Protocol):
    """`load_dataset` of the library."""

    def __call__(
        self, path: str, *, name: str | None, data_files: str | None, split: str, streaming: bool, token: str | None
    ) -> _Stream: ...


class _OscarDocument(BaseModel):
    """A line of a file of OSCAR."""

    content: str


def _load_dataset() -> _Load:
    try:
        load: _Load = import_module("datasets").load_dataset
    except ImportError:
        message = f"Streaming needs datasets: run {command_for('corpora')}, or build from texts of your own."
        raise AppError(ErrorCode.UNSUPPORTED_BACKEND, message) from None
    return load


def _stream(name: str, token: SecretStr | None, load: _Load, language: str, skipped: int) -> Iterator[str]:
    """Yield documents of the hub; raises SERVICE_UNAVAILABLE if they cannot be fetched."""
    dataset, is_oscar = HUB_SOURCES[name], name == "oscar"
    try:
        rows = load(
            # OSCAR has a loading script, which the library does not run: its files are read as lines of JSON
            "text" if is_oscar else dataset,
            name=None if is_oscar else language,
            data_files=f"hf://datasets/{dataset}/{language}_meta/*.jsonl.zst" if is_oscar else None,
            split="train",
            streaming=True,
            token=None if token is None else token.get_secret_value(),
        )
        is_empty = skipped == 0
        for row in rows.skip(skipped):
            is_empty = False
            yield _OscarDocument.model_validate_json(row["text"]).content if is_oscar else row["text"]
        if is_empty:  # where a token gives no access, the library finds no files
            raise FileNotFoundError(dataset)
    except (OSError, ValueError, HTTPError) as error:
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, f"'{name}' {_advice(error, dataset, token)}") from error


def _advice(error: Exception, dataset: str, token: SecretStr | None) -> str:
    if isinstance(error, (ConnectionError, TransportError)):
        return (
            "could not be fetched, because the hub cannot be reached: run the same command again where there is a"
            " network, or build from texts of your own."
        )
    missing = "set HF_TOKEN to the token of" if token is None else "check that HF_TOKEN belongs to"
    return (
        f"could not be fetched: {missing} an account that has accepted the terms of {dataset} on the hub, then run the"
        " same command again."
    )


def _read_folder(folder: Path, language: str, skipped: int) -> Iterator[str]:
    with (folder / f"{language}.txt").open("rb") as file:
        yield from islice(_local_documents(file, f"{language}.txt"), skipped, None)


def _local_documents(file: BinaryIO, name: str) -> Iterator[str]:
    """Yield the paragraphs of a text: lines up to a blank line, at most 100 of them."""
    paragraph: list[str] = []
    for line in (line for block in stream_blocks(file, name, "stream") for line in block.text.split("\n")):
        paragraph.append(line)
        if not line.strip() or len(paragraph) == _DOCUMENT_LINES:
            yield "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph)


SOURCES = {"wikitext-2": ("Salesforce/wikitext", "wikitext-2-v1")}
"""Data sets that can be downloaded: the data set and its configuration by our name."""
_LoadSplits = Callable[[str, str], Mapping[str, Iterable[Mapping[str, str]]]]
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
        load: _LoadSplits = import_module("datasets").load_dataset
    except ImportError:
        message = f"Fetching needs datasets: run {command_for('corpora')}, {by_hand}"
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
