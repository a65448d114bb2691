"""The finished model as files: `model.safetensors`, and `config.json` that says what it is."""

from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizer_files import MANIFEST_FILE, tokenizer_file
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelConfig, Objective
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.weights import UnfitWeights, read_weights
from trainer.system.files import DISK, Disk, changed_files, read_record, write_atomically
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FOLDER = "tokenizer"


class ModelFile(Frozen):
    """`config.json`: what the weights are the weights of."""

    schema_version: int = 1
    model: ModelConfig
    vocab_size: int
    objective: Objective = "causal_lm"


def save_model(folder: Path, model: LanguageModel, config: ModelConfig, disk: Disk = DISK) -> None:
    """Write weights and config, each whole or not at all."""
    weights: dict[str, Tensor] = model.state_dict()
    description = ModelFile(model=config, vocab_size=model.vocab_size, objective=model.objective)
    write_atomically(folder / WEIGHTS_FILE, save_safetensors(weights), disk)
    write_atomically(folder / CONFIG_FILE, description.model_dump_json(indent=2).encode(), disk)


def load_model(run_folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """Read the model of a run and its tokenizer, ready to be asked.

    Raises MODEL_LOAD_FAILED where a file is broken or does not fit the config, MODEL_INCOMPATIBLE where the tokenizer
    is another one. Nothing is allocated before the header of the weights was found to fit.
    """
    tokenizer = load_tokenizer(run_folder / TOKENIZER_FOLDER)
    try:
        description = read_record(run_folder / CONFIG_FILE, ModelFile)
    except (OSError, ValueError):
        raise _unreadable() from None
    if tokenizer.vocab_size != description.vocab_size:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"The model knows {description.vocab_size} tokens, but the tokenizer has {tokenizer.vocab_size}.",
        )
    with torch.device("meta"):
        model = build(description.model, vocabulary_of(tokenizer), description.objective)
    expected: dict[str, Tensor] = model.state_dict()
    try:
        weights = read_weights(run_folder / WEIGHTS_FILE, expected)
    except UnfitWeights:
        raise AppError(
            ErrorCode.MODEL_LOAD_FAILED, "The weights do not have the shapes that the config says."
        ) from None
    except (OSError, ValueError):
        raise _unreadable() from None
    model.load_state_dict(weights, assign=True)
    return model.eval(), tokenizer


def load_run(run: RunDirectory) -> tuple[LanguageModel, Tokenizer]:
    """Read the model of a completed run as `load_model` does, once its files were found to be what it left.

    One flipped bit in a weight would load without a word. Raises RUN_NOT_READY and MODEL_LOAD_FAILED.
    """
    manifest = run.completed_manifest()
    of_tokenizer = (tokenizer_file(manifest.effective.tokenizer.method), MANIFEST_FILE)
    names = {WEIGHTS_FILE, CONFIG_FILE, *(f"{TOKENIZER_FOLDER}/{name}" for name in of_tokenizer)}
    needed = [record for record in manifest.files if record.path in names]
    changed = changed_files(run.path, needed) + sorted(names - {record.path for record in needed})
    if changed:
        raise AppError(
            ErrorCode.MODEL_LOAD_FAILED,
            f"The model of '{run.run_id}' is not as its training left it: {', '.join(changed)} has changed or is gone.",
        )
    return load_model(run.path)


def _unreadable() -> AppError:
    return AppError(ErrorCode.MODEL_LOAD_FAILED, "The files of the model cannot be read.")
