"""The reference tools: minicons' scorers and the models of the transformers library, loaded from an exported folder."""

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


class Tokenizer(Protocol):
    def __call__(self, text: list[str], *, padding: str) -> object: ...


class Scorer(Protocol):
    """The part of minicons' scorers used here."""

    @property
    def tokenizer(self) -> "Tokenizer": ...
    def prepare_text(self, text: object, **options: bool) -> object: ...
    def compute_stats(self, batch: object) -> list[list[float]]: ...
    def word_score_tokenized(
        self, batch: list[str], tokenize_function: Callable[[str], list[str]], **options: bool
    ) -> list[list[tuple[str, float]]]: ...


class Ids(Protocol):
    def tolist(self) -> list[list[int]]: ...


class Output(Protocol):
    @property
    def logits(self) -> Tensor: ...


class Exported(Protocol):
    """The part of the library's models used here."""

    def __call__(self, input_ids: Tensor) -> Output: ...
    def generate(self, input_ids: Tensor, **options: object) -> Ids: ...
    def eval(self) -> "Exported": ...
    def bfloat16(self) -> "Exported": ...


class Load(Protocol):
    def __call__(self, folder: str, *, trust_remote_code: bool) -> Exported: ...


class Auto(Protocol):
    @property
    def from_pretrained(self) -> Load: ...


def load_scorer(name: str, folder: Path) -> Scorer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make: Callable[[str, str], Scorer] = getattr(import_module("minicons.scorer"), name)
        return make(str(folder), "cpu")


def load_library_model(folder: Path) -> Exported:
    quiet: Callable[[], None] = import_module("transformers.utils.logging").disable_progress_bar
    quiet()
    auto: Auto = import_module("transformers").AutoModelForCausalLM
    load = auto.from_pretrained
    return load(str(folder), trust_remote_code=True).eval()


def row_of(ids: list[int]) -> Tensor:
    rows: list[list[int]] = [ids]
    return torch.tensor(rows)
