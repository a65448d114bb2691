"""Reading of safetensors weights; sizes and shapes are checked before the weights are loaded."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from trainer.contracts.base import Frozen
from trainer.system.files import read_regular

_MAX_HEADER_BYTES = 4 << 20
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_UNFIT = "the weights do not match the shapes in the config"


class UnfitWeights(ValueError):
    """Valid weights with other names, shapes or dtypes than the model's."""


class _TensorHeader(Frozen):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_header = TypeAdapter(dict[str, _TensorHeader | dict[str, str]])
"""Tensor headers by name; the entry `__metadata__` holds strings."""


def weight_bytes(expected: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() * weight.itemsize for weight in expected.values())


def max_file_bytes(expected: Mapping[str, Tensor]) -> int:
    """Return the maximum file size of weights with these shapes and dtypes."""
    return weight_bytes(expected) + _MAX_HEADER_BYTES


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read weights with the names, shapes and dtypes of `expected`, whose values are ignored.

    Raises UnfitWeights if they differ, ValueError if the file is invalid, and OSError.
    """
    if path.stat().st_size > max_file_bytes(expected):
        raise UnfitWeights(_UNFIT)
    return parse_weights(read_regular(path, max_file_bytes(expected)), expected)


def parse_weights(content: bytes, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Parse weights as `read_weights` does; None accepts all names, shapes and dtypes."""
    length = int.from_bytes(content[:8], "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError("the header is too large")
    header = _header.validate_json(content[8 : 8 + length])
    if expected is not None:
        tensors = {name: tensor for name, tensor in header.items() if isinstance(tensor, _TensorHeader)}
        found = {name: (_DTYPES.get(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
        if found != {name: (_name(weight), tuple(weight.shape)) for name, weight in expected.items()}:
            raise UnfitWeights(_UNFIT)
    try:
        weights: dict[str, Tensor] = load_safetensors(content)
    except SafetensorError as error:
        raise ValueError("the weights are invalid") from error
    return weights


def _name(weight: Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")
