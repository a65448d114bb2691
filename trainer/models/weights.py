"""Weights as safetensors, measured before they are loaded: a header may promise more than there is."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from trainer.contracts.base import Frozen
from trainer.system.files import read_regular

_MOST_HEADER_BYTES = 4 << 20
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_UNFIT = "the weights do not have the shapes that the config says"


class UnfitWeights(ValueError):
    """Weights that are whole, but of other names, shapes or dtypes than their model."""


class _TensorHeader(Frozen):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_header = TypeAdapter(dict[str, _TensorHeader | dict[str, str]])
"""Under `__metadata__` a file may say texts of itself."""


def weight_bytes(expected: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() * weight.itemsize for weight in expected.values())


def most_file_bytes(expected: Mapping[str, Tensor]) -> int:
    """The size that a file of such weights has at most."""
    return weight_bytes(expected) + _MOST_HEADER_BYTES


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read weights that have these names, shapes and dtypes; the values of `expected` are not looked at.

    Raises UnfitWeights, ValueError for a file that is broken, and OSError.
    """
    if path.stat().st_size > most_file_bytes(expected):
        raise UnfitWeights(_UNFIT)
    return parse_weights(read_regular(path, most_file_bytes(expected)), expected)


def parse_weights(content: bytes, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The same of bytes; without `expected`, of any weights."""
    length = int.from_bytes(content[:8], "little")
    if length > _MOST_HEADER_BYTES:
        raise ValueError("the header is larger than it can be")
    header = _header.validate_json(content[8 : 8 + length])
    if expected is not None:
        tensors = {name: tensor for name, tensor in header.items() if isinstance(tensor, _TensorHeader)}
        found = {name: (_DTYPES.get(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
        if found != {name: (_name(weight), tuple(weight.shape)) for name, weight in expected.items()}:
            raise UnfitWeights(_UNFIT)
    try:
        weights: dict[str, Tensor] = load_safetensors(content)
    except SafetensorError as error:
        raise ValueError("the weights are broken") from error
    return weights


def _name(weight: Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")
