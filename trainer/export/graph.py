"""A model as an ONNX graph, with batch and length open: recurrent ones node by node, transformers as torch writes them.

The packages that this needs are the extra `onnx`.
"""

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelConfig, RnnArchitecture, RnnConfig
from trainer.export.steps import Step, Whole, example_ids, example_lengths, example_state, state_names
from trainer.models.base import LanguageModel

GRAPH_FILE = "model.onnx"
_OPSET = 18
_PACKAGES = ("onnx", "onnxscript")


def check_installed() -> None:
    """Raise UNSUPPORTED_BACKEND where the extra is not installed."""
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise AppError(
            ErrorCode.UNSUPPORTED_BACKEND,
            f"`--format onnx` needs {' and '.join(missing)}: install the extra, as in `pip install '.[onnx]'`.",
        )


def write(folder: Path, model: LanguageModel, config: ModelConfig) -> None:
    """Write `model.onnx`, which takes (ids, *state); of a masked model (ids, lengths)."""
    if isinstance(config, RnnConfig):
        _write_recurrent(folder / GRAPH_FILE, model, config)
    else:
        _write_transformer(folder / GRAPH_FILE, model)


class _Part(Protocol):
    """A piece of a graph, of the library's own class."""


class _Helper(Protocol):
    """What is used of `onnx.helper`."""

    def make_node(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **values: object) -> _Part: ...
    def make_tensor_value_info(self, name: str, elem_type: int, shape: Sequence[str | int]) -> _Part: ...
    def make_graph(
        self,
        nodes: Sequence[_Part],
        name: str,
        inputs: Sequence[_Part],
        outputs: Sequence[_Part],
        tensors: Sequence[_Part],
    ) -> _Part: ...
    def make_model(self, graph: _Part, *, opset_imports: Sequence[_Part], ir_version: int) -> _Part: ...
    def make_opsetid(self, domain: str, version: int) -> _Part: ...


class _FromArray(Protocol):
    def __call__(self, array: NDArray[np.float32] | NDArray[np.int64], name: str) -> _Part: ...


class _Save(Protocol):
    def __call__(self, proto: _Part, f: str) -> None: ...


_FLOAT, _INT64 = 1, 7
"""The numbers of two types in the format."""
_IR_VERSION = 10
_GATES: dict[RnnArchitecture, tuple[str, tuple[int, ...]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (1, 0, 2)),
    "rnn": ("RNN", (0,)),
}
"""The operator, and its gates by their places among torch's: input, forget, cell, output; reset, update, new."""


class _Graph:
    """A graph as it grows."""

    def __init__(self) -> None:
        self._helper: _Helper = import_module("onnx.helper")
        self._from_array: _FromArray = import_module("onnx.numpy_helper").from_array
        self._nodes: list[_Part] = []
        self._tensors: list[_Part] = []
        self._count = 0

    def add(self, operator: str, *inputs: str, outputs: int = 1, **values: object) -> list[str]:
        """Add a node; return the names of its outputs."""
        names = [self._name() for _ in range(outputs)]
        self._nodes.append(self._helper.make_node(operator, inputs, names, **values))
        return names

    def floats(self, tensor: Tensor) -> str:
        values: NDArray[np.float32] = tensor.detach().contiguous().numpy()
        return self._constant(values)

    def integers(self, values: Sequence[int]) -> str:
        return self._constant(np.array(values, dtype=np.int64))

    def rename(self, name: str, to: str) -> None:
        """Give an output of the graph its name."""
        self._nodes.append(self._helper.make_node("Identity", [name], [to]))

    def save(
        self,
        path: Path,
        inputs: Mapping[str, tuple[int, Sequence[str | int]]],
        outputs: Mapping[str, Sequence[str | int]],
    ) -> None:
        of = self._helper.make_tensor_value_info
        given = [of(name, kind, shape) for name, (kind, shape) in inputs.items()]
        found = [of(name, _FLOAT, shape) for name, shape in outputs.items()]
        graph = self._helper.make_graph(self._nodes, "language_model", given, found, self._tensors)
        opset = [self._helper.make_opsetid("", _OPSET)]
        save: _Save = import_module("onnx").save
        save(self._helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION), str(path))

    def _constant(self, array: "NDArray[np.float32] | NDArray[np.int64]") -> str:
        name = self._name()
        self._tensors.append(self._from_array(array, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"n{self._count}"


def _write_recurrent(path: Path, model: LanguageModel, config: RnnConfig) -> None:
    weights: dict[str, Tensor] = model.state_dict()
    graph = _Graph()
    is_causal = model.objective == "causal_lm"
    embedding = graph.floats(weights["embedding.weight"])
    [embedded] = graph.add("Gather", embedding, "ids")
    [inputs] = graph.add("Transpose", embedded, perm=[1, 0, 2])  # (T, B, E)
    names = state_names(1 + (config.architecture == "lstm")) if is_causal else []
    lengths = "" if is_causal else graph.add("Cast", "lengths", to=6)[0]
    before = [_split(graph, name, config.num_layers) for name in names]
    after: list[list[str]] = [[] for _ in names]
    for layer in range(config.num_layers):
        inputs, *state = _layer(graph, weights, config, layer, inputs, lengths, [parts[layer] for parts in before])
        for parts, part in zip(after, state, strict=False):  # a masked model has no names for its state
            parts.append(part)
    for name, parts in zip(names, after, strict=True):
        graph.rename(graph.add("Concat", *parts, axis=0)[0], f"{name}_after")
    [found] = graph.add("Transpose", inputs, perm=[1, 0, 2])  # (B, T, H)
    logits = _linear(graph, found, weights["projection.weight"], weights["projection.bias"])
    if config.tie_word_embeddings:
        logits = _linear(graph, logits, weights["embedding.weight"], weights["head_bias"])
    graph.rename(logits, "logits")
    state_shape = (config.num_layers, "batch", config.hidden_size)
    more = {name: (_FLOAT, state_shape) for name in names} if is_causal else {"lengths": (_INT64, ("batch",))}
    outputs = {"logits": ("batch", "length", model.vocab_size)} | {f"{name}_after": state_shape for name in names}
    graph.save(path, {"ids": (_INT64, ("batch", "length")), **more}, outputs)


def _layer(
    graph: _Graph,
    weights: Mapping[str, Tensor],
    config: RnnConfig,
    layer: int,
    inputs: str,
    lengths: str,
    state: Sequence[str],
) -> list[str]:
    """Add a layer in its directions; return what it gives (T, B, H) and its state after the last token."""
    operator, gates = _GATES[config.architecture]

    def stacked(*names: str) -> str:
        """The weights of both directions, gates in the operator's order; biases of a direction one after another."""
        sides = [suffix for suffix in ("", "_reverse")[: 1 + config.bidirectional]]
        of_sides = [
            torch.cat([chunk for name in names for chunk in _in_order(weights[f"layers.{name}_l{layer}{side}"], gates)])
            for side in sides
        ]
        return graph.floats(torch.stack(of_sides))

    values: dict[str, object] = {"hidden_size": config.hidden_size}
    if config.bidirectional:
        values["direction"] = "bidirectional"
    if config.architecture == "gru":
        values["linear_before_reset"] = 1
    operands = [stacked("weight_ih"), stacked("weight_hh"), stacked("bias_ih", "bias_hh"), lengths, *state]
    count = 2 + (config.architecture == "lstm")
    found, *after = graph.add(operator, inputs, *operands, outputs=count, **values)  # (T, directions, B, H)
    [sides_last] = graph.add("Transpose", found, perm=[0, 2, 1, 3])
    return [*graph.add("Reshape", sides_last, graph.integers((0, 0, -1))), *after]


def _in_order(weight: Tensor, gates: Sequence[int]) -> Iterable[Tensor]:
    size = len(weight) // len(gates)
    return (weight[gate * size : (gate + 1) * size] for gate in gates)


def _split(graph: _Graph, name: str, parts: int) -> list[str]:
    return graph.add("Split", name, graph.integers([1] * parts), outputs=parts, axis=0)


def _linear(graph: _Graph, inputs: str, weight: Tensor, bias: Tensor) -> str:
    [product] = graph.add("MatMul", inputs, graph.floats(weight.T))
    return graph.add("Add", product, graph.floats(bias))[0]


class _Export(Protocol):
    def __call__(self, model: torch.nn.Module, args: tuple[Tensor, ...], f: str, **options: object) -> object: ...


def _write_transformer(path: Path, model: LanguageModel) -> None:
    """Let torch write the graph; the sizes that it finds in the example stay open."""
    export: _Export = getattr(torch.onnx, "export")  # noqa: B009  (its own type is one of Any)
    open_size: object = getattr(torch.export.Dim, "DYNAMIC")  # noqa: B009
    ids, row = example_ids(model), {0: open_size, 1: open_size}
    module: torch.nn.Module
    inputs: tuple[Tensor, ...]
    if model.objective == "causal_lm":
        module, state = Step(model), example_state(model)
        names, inputs = ["ids", *state_names(len(state))], (ids, *state)
        shapes: dict[str, object] = {"ids": row, "state": tuple({1: open_size, 2: open_size} for _ in state)}
        outputs = ["logits", *(f"{name}_after" for name in names[1:])]
    else:
        module, names, inputs = Whole(model), ["ids", "lengths"], (ids, example_lengths())
        shapes, outputs = {"ids": row, "lengths": {0: open_size}}, ["logits"]
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # of torchvision's absence
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch uses inside itself
        export(
            module.eval(),
            inputs,
            str(path),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=names,
            output_names=outputs,
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
