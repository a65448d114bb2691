"""The finished model as files: `model.safetensors`, and `config.json` that says what it is."""

from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelConfig
from trainer.files import write_atomically
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FOLDER = "tokenizer"


class ModelFile(Frozen):
    """`config.json`: what the weights are the weights of."""

    schema_version: int = 1
    model: ModelConfig
    vocab_size: int


def save_model(folder: Path, model: LanguageModel, config: ModelConfig) -> None:
    """Write weights and config, each whole or not at all."""
    weights: dict[str, Tensor] = model.state_dict()
    description = ModelFile(model=config, vocab_size=model.vocab_size)
    write_atomically(folder / WEIGHTS_FILE, save_safetensors(weights))
    write_atomically(folder / CONFIG_FILE, description.model_dump_json(indent=2).encode())


def load_model(run_folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """Read the model of a run and its tokenizer, ready to be asked.

    Raises MODEL_LOAD_FAILED where a file is broken or does not fit the config, MODEL_INCOMPATIBLE where the tokenizer
    is another one. Nothing is allocated before the header of the weights was found to fit.
    """
    tokenizer = load_tokenizer(run_folder / TOKENIZER_FOLDER)
    try:
        description = ModelFile.model_validate_json((run_folder / CONFIG_FILE).read_bytes())
        content = (run_folder / WEIGHTS_FILE).read_bytes()
        shapes = _shapes(content)
    except (OSError, ValueError):
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, "The files of the model cannot be read.") from None
    if tokenizer.vocab_size != description.vocab_size:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"The model knows {description.vocab_size} tokens, but the tokenizer has {tokenizer.vocab_size}.",
        )
    with torch.device("meta"):
        model = build(description.model, description.vocab_size)
    expected: dict[str, Tensor] = model.state_dict()
    if shapes != {name: tuple(weight.shape) for name, weight in expected.items()}:
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, "The weights do not have the shapes that the config says.")
    try:
        weights: dict[str, Tensor] = load_safetensors(content)
    except SafetensorError:
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, "The files of the model cannot be read.") from None
    model.load_state_dict(weights, assign=True)
    return model.eval(), tokenizer


class _TensorHeader(Frozen):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_header = TypeAdapter(dict[str, _TensorHeader])


def _shapes(content: bytes) -> dict[str, tuple[int, ...]]:
    """Read the shapes from a safetensors header: its length in eight bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    return {name: tensor.shape for name, tensor in _header.validate_json(content[8 : 8 + length]).items()}
