"""The documents of the task `mt_documents`: the lines of a text, normalized as in training."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol
from unicodedata import normalize


class _DataSet(Protocol):
    """The class of the untyped library `datasets`."""

    @staticmethod
    def from_list(rows: Sequence[dict[str, str]]) -> object: ...


def load(path: str, end: str, **_: object) -> dict[str, object]:
    """Return the lines of a text, without blank ones; `end` is the name of the tokenizer's [EOS]."""
    lines = normalize("NFC", Path(path).read_text(encoding="utf-8")).split("\n")
    rows: list[dict[str, str]] = [{"text": line, "end": end} for line in lines if line.strip()]
    data_set: _DataSet = import_module("datasets").Dataset
    return {"test": data_set.from_list(rows)}


def target(document: dict[str, str]) -> str:
    """Return a line with its [EOS]."""
    return document["text"] + document["end"]


def weigh(document: dict[str, str], results: tuple[float]) -> dict[str, tuple[float, int]]:
    """Return the log likelihood of a line with its bytes, for each metric."""
    [loglikelihood] = results
    weighted = loglikelihood, len(document["text"].encode())
    return {"byte_perplexity": weighted, "bits_per_byte": weighted}
