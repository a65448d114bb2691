"""A model as a traced graph for other programs: `torch.export`, TorchScript or ONNX, with batch size and length open.

A causal model takes ids (B, T) and the state before them, and returns logits (B, T, V) and the state after them. A
masked model takes ids (B, T) and the length of each row (B,), and returns logits (B, T, V). A program of `torch.export`
has no state: a causal model takes the ids of complete texts.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainer.models.base import LanguageModel

PROGRAM_FILE, SCRIPT_FILE, GRAPH_FILE = "model.pt2", "model.pt", "model.onnx"
_OPSET = 18


class _Traced(Protocol):
    def save(self, path: str) -> None: ...


class _Trace(Protocol):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], *, check_trace: bool) -> _Traced: ...


class _Export(Protocol):
    def __call__(self, model: nn.Module, args: tuple[Tensor, ...], f: str, **options: object) -> object: ...


class _ExportProgram(Protocol):
    def __call__(
        self, mod: nn.Module, args: tuple[Tensor, ...], *, dynamic_shapes: tuple[dict[int, Dim], ...]
    ) -> ExportedProgram: ...


_export_program: _ExportProgram = torch.export.export
_save_program: Callable[[ExportedProgram, str], None] = torch.export.save
_trace: _Trace = getattr(torch.jit, "trace")  # noqa: B009  (untyped in torch)
_export: _Export = getattr(torch.onnx, "export")  # noqa: B009


class _Traceable(nn.Module):
    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model


class _CausalStep(_Traceable):
    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, after = self.model.forward_with_state(ids, state)
        return (logits, *after)


class _CausalForward(_Traceable):
    def forward(self, ids: Tensor) -> Tensor:
        # without a state the library looks whether one row packs several texts, which fixes that a batch has more rows
        logits, _ = self.model.forward_with_state(ids, self.model.initial_state(ids.shape[0]))
        return logits


class _MaskedForward(_Traceable):
    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.model.forward(ids, lengths)


class _Graph(NamedTuple):
    """A module, example inputs to trace it with, and the names of its inputs and outputs."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    names: list[str]
    outputs: list[str]


def write_pt2(folder: Path, model: LanguageModel) -> None:
    """Write `model.pt2`, a transformer for complete texts, which PyTorch loads without our classes."""
    graph = _graph_of(model)
    batch, length = Dim("batch"), Dim("length", min=2, max=model.context_tokens)
    with _without_warnings():
        if model.objective == "masked_lm":
            program = _export_program(graph.module, graph.inputs, dynamic_shapes=({0: batch, 1: length}, {0: batch}))
        else:
            module, [ids, *_] = _CausalForward(model).eval(), graph.inputs
            program = _export_program(module, (ids,), dynamic_shapes=({0: batch, 1: length},))
        _save_program(program, str(folder / PROGRAM_FILE))


def write_torchscript(folder: Path, model: LanguageModel) -> None:
    """Write `model.pt`, which PyTorch loads without our classes."""
    graph = _graph_of(model)
    with _without_warnings():
        _trace(graph.module, graph.inputs, check_trace=False).save(str(folder / SCRIPT_FILE))


def write_onnx(folder: Path, model: LanguageModel) -> None:
    """Write `model.onnx`."""
    graph = _graph_of(model)
    with _without_warnings():
        _export(
            graph.module,
            graph.inputs,
            str(folder / GRAPH_FILE),
            dynamo=False,  # torch.export cannot trace rows of different lengths
            dynamic_axes={name: _open_sizes(model, name) for name in graph.names + graph.outputs},
            input_names=graph.names,
            output_names=graph.outputs,
            opset_version=_OPSET,
        )


def _open_sizes(model: LanguageModel, name: str) -> dict[int, str]:
    """Return the names of the dimensions of an input or output that may have any size."""
    if name in ("ids", "logits"):
        return {0: "batch", 1: "length"}
    if name == "lengths":
        return {0: "batch"}
    if model.context_tokens is None:
        return {1: "batch"}
    return {1: "batch", 2: "positions_after" if name.endswith("_after") else "positions"}


def _graph_of(model: LanguageModel) -> _Graph:
    """Return the function to trace, with sizes in its example inputs that all differ."""
    ids = torch.arange(2 * 5).reshape(2, 5) % model.vocab_size
    if model.objective == "masked_lm":
        lengths: list[int] = [5, 4]
        return _Graph(_MaskedForward(model).eval(), (ids, torch.tensor(lengths)), ["ids", "lengths"], ["logits"])
    with torch.inference_mode():
        _, after = model.forward_with_state(ids[:, :3], model.initial_state(2))
    state = tuple(part.clone() for part in after)
    names = state_names(len(state))
    return _Graph(
        _CausalStep(model).eval(), (ids, *state), ["ids", *names], ["logits", *(f"{name}_after" for name in names)]
    )


def state_names(count: int) -> list[str]:
    """Return the names of the tensors of a state: hidden and cell, or the positions read, then keys and values."""
    if count <= 2:
        return ["hidden", "cell"][:count]
    return ["read", *(f"{part}_{layer}" for layer in range(count // 2) for part in ("key", "value"))]


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Discard warnings about the format, and those that torch's C++ code writes to standard error."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
