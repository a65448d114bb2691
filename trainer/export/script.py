"""A model as TorchScript: a legacy format that PyTorch loads without our classes."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from trainer.contracts.models import ModelConfig, RnnConfig
from trainer.export.steps import Step, Whole, example_ids, example_lengths, example_state
from trainer.models.base import LanguageModel

SCRIPT_FILE = "model.pt"


class _Traced(Protocol):
    def save(self, path: str) -> None: ...


class _Trace(Protocol):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], *, check_trace: bool) -> _Traced: ...


_trace: _Trace = import_module("torch.jit").trace


def write(folder: Path, model: LanguageModel, config: ModelConfig) -> None:
    """Write `model.pt`, which takes (ids, *state); of a masked model (ids, lengths), if it is recurrent (ids) alone."""
    ids = example_ids(model)
    module: nn.Module = model
    inputs: tuple[Tensor, ...] = (ids,)
    if model.objective == "causal_lm":
        module, inputs = Step(model), (ids, *example_state(model))
    elif not isinstance(config, RnnConfig):
        module, inputs = Whole(model), (ids, example_lengths())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the format is a legacy one, and that shapes are checked
        _trace(module, inputs, check_trace=False).save(str(folder / SCRIPT_FILE))
