"""Reading of safetensors weights with known names, shapes and dtypes."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from trainer.system.files import read_regular

_MAX_HEADER_BYTES = 4 << 20


class UnfitWeights(ValueError):
    """Valid weights with other names, shapes or dtypes than the model's."""


def weight_bytes(expected: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() * weight.itemsize for weight in expected.values())


def max_file_bytes(expected: Mapping[str, Tensor]) -> int:
    """Return the maximum file size of weights with these shapes and dtypes."""
    return weight_bytes(expected) + _MAX_HEADER_BYTES


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read weights with the names, shapes and dtypes of `expected`, whose values are ignored.

    Raises UnfitWeights if they differ, for a larger file without reading it, ValueError if the file is invalid, and
    OSError.
    """
    if path.stat().st_size > max_file_bytes(expected):
        raise UnfitWeights
    return parse_weights(read_regular(path, max_file_bytes(expected)), expected)


def parse_weights(content: bytes, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Parse weights as `read_weights` does; None accepts all names, shapes and dtypes."""
    try:
        weights: dict[str, Tensor] = load_safetensors(content)
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that torch lacks
        raise ValueError("the weights are invalid") from error
    if expected is not None and _forms(weights) != _forms(expected):
        raise UnfitWeights
    return weights


def _forms(weights: Mapping[str, Tensor]) -> dict[str, object]:
    return {name: (weight.dtype, weight.shape) for name, weight in weights.items()}
