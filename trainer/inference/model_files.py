"""The files of a trained model: `model.safetensors` and `config.json`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trainer.artifacts.checkpoint_files import check_checkpoint
from trainer.artifacts.checkpoints import NamedModel, checkpoint_folder
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizer_files import MANIFEST_FILE, tokenizer_file
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelConfig, Objective
from trainer.contracts.runs import RunManifest
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.weights import UnfitWeights, read_weights
from trainer.system.files import DISK, Disk, changed_files, read_record, write_atomically
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer, Vocabulary, vocabulary_of

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FOLDER = "tokenizer"


class _Function(Protocol):
    __name__: str

    def __call__(self, *args: object, **keywords: object) -> object: ...


class _NoRandomWeights(TorchFunctionMode):
    """Leaves out the draws of initial weights: without data they do nothing but import torch's compiler."""

    def __torch_function__(
        self,
        func: _Function,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        keywords = kwargs or {}
        if func.__name__ in ("normal_", "uniform_"):
            return keywords["tensor"] if "tensor" in keywords else args[0]
        return func(*args, **keywords)


class ModelFile(Frozen):
    """`config.json`: the architecture and sizes of the model."""

    schema_version: int = 1
    model: ModelConfig
    vocab_size: int
    objective: Objective = "causal_lm"


def model_without_weights(description: ModelFile, vocabulary: Vocabulary) -> LanguageModel:
    """Return a model whose weights have shapes and no data."""
    with torch.device("meta"), _NoRandomWeights():
        return build(description.model, vocabulary, description.objective)


def save_model(folder: Path, model: LanguageModel, config: ModelConfig, disk: Disk = DISK) -> None:
    """Write weights and config, each atomically."""
    weights: dict[str, Tensor] = model.state_dict()
    description = ModelFile(model=config, vocab_size=model.vocab_size, objective=model.objective)
    write_atomically(folder / WEIGHTS_FILE, save_safetensors(weights), disk)
    write_atomically(folder / CONFIG_FILE, description.model_dump_json(indent=2).encode(), disk)


def load_model(run_folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """Read the model of a run and its tokenizer, in evaluation mode.

    Reads no weights file that is larger than the config allows. Raises MODEL_LOAD_FAILED for a file that is damaged or
    does not match the config, MODEL_INCOMPATIBLE for another tokenizer.
    """
    return _load(run_folder, lambda _: read_record(run_folder / CONFIG_FILE, ModelFile), run_folder / WEIGHTS_FILE)


def _load(
    run_folder: Path, describe: Callable[[Tokenizer], ModelFile], weights_file: Path
) -> tuple[LanguageModel, Tokenizer]:
    tokenizer = load_tokenizer(run_folder / TOKENIZER_FOLDER)
    try:
        description = describe(tokenizer)
        if tokenizer.vocab_size != description.vocab_size:
            raise AppError(
                ErrorCode.MODEL_INCOMPATIBLE,
                f"The model has {description.vocab_size} tokens, but the tokenizer has {tokenizer.vocab_size}.",
            )
        model = model_without_weights(description, vocabulary_of(tokenizer))
        expected: dict[str, Tensor] = model.state_dict()
        weights = read_weights(weights_file, expected)
        model.check_weights(weights)
    except UnfitWeights:
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, "The shapes of the weights do not match the config.") from None
    except (OSError, ValueError):
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, "The model's files cannot be read.") from None
    model.load_state_dict(weights, assign=True)
    return model.eval(), tokenizer


def load_run(run: RunDirectory) -> tuple[LanguageModel, Tokenizer]:
    """Check the hashes of a completed run's model and tokenizer files, then read them with `load_model`.

    A flipped bit in a weight would load without an error. Raises RUN_NOT_READY and MODEL_LOAD_FAILED.
    """
    manifest = run.completed_manifest()
    with run.in_use():
        _check_files(run, manifest, WEIGHTS_FILE, CONFIG_FILE)
        return load_model(run.path)


def load_named(named: NamedModel) -> tuple[LanguageModel, Tokenizer]:
    """Read the model of a run's end with `load_run`, or that of a checkpoint, also of a run that has not ended.

    The hashes of all files that have one are checked. Raises CHECKPOINT_CORRUPT too.
    """
    if named.step is None:
        return load_run(named.run)
    run, folder = named.run, checkpoint_folder(named.run, named.step)
    manifest = run.manifest()
    with run.in_use():
        if manifest is not None and manifest.status == "completed":
            _check_files(run, manifest, CONFIG_FILE)
        check_checkpoint(folder)
        return _load(run.path, lambda tokenizer: model_file(named, tokenizer), folder / WEIGHTS_FILE)


def model_file(named: NamedModel, tokenizer: Tokenizer) -> ModelFile:
    """Return the architecture and sizes of a model, which a completed run has in a file."""
    stored = named.run.path / CONFIG_FILE
    if stored.exists():
        return read_record(stored, ModelFile)
    effective = named.effective
    return ModelFile(model=effective.model, vocab_size=tokenizer.vocab_size, objective=effective.objective)


def _check_files(run: RunDirectory, manifest: RunManifest, *names: str) -> None:
    """Raise MODEL_LOAD_FAILED if files of a completed run or of its tokenizer are not those of its manifest."""
    tokenizer_names = (tokenizer_file(manifest.effective.tokenizer.method), MANIFEST_FILE)
    wanted = {*names, *(f"{TOKENIZER_FOLDER}/{name}" for name in tokenizer_names)}
    needed = [record for record in manifest.files if record.path in wanted]
    changed = changed_files(run.path, needed) + sorted(wanted - {record.path for record in needed})
    if changed:
        raise AppError(
            ErrorCode.MODEL_LOAD_FAILED,
            f"Files of the run '{run.run_id}' were changed or deleted after its training: {', '.join(changed)}.",
        )
