"""The block form of experiment files (`data:`, `model:`, `training:` ...), converted to fields of a train request."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field

from trainer.config.train_request import (
    CORPORA,
    RequestDraft,
    not_available,
    override,
    problem_paths,
    without_problems_at,
)
from trainer.config.validation import block, format_value, has_path, merged, parse, safe_name, set_path, value_at
from trainer.contracts import models
from trainer.contracts.base import Count, Frozen, Positive, Probability, Seed, requires
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, refusal
from trainer.contracts.runs import Setting, TrainRequest
from trainer.contracts.seeds import Seeds
from trainer.contracts.tokenizers import RenamedTokens, VocabularySize
from trainer.contracts.training_options import BlockSchedule, CheckpointRule, LogLevel


def _is_relative(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return parts[0] != "" and ".." not in parts


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
Slug = Annotated[str, requires(_NAME.fullmatch, "1 to 64 letters (a-z, A-Z), digits, '_', '.' or '-'")]
_RELATIVE = "a relative path without `..`"
RelativePath = Annotated[str, requires(_is_relative, _RELATIVE)]


class DataBlock(Frozen):
    source_corpus: str
    training_corpus: RelativePath
    validation_corpus: RelativePath | None = None
    test_corpus: RelativePath | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    max_sequence_length: Annotated[int, Field(ge=8, le=4096)]


class TokenizerBlock(Frozen):
    output_dir: RelativePath
    vocab_size: VocabularySize
    tokenizer_type: Literal["sentencepiece", "wordpiece", "bpe", "character", "byte", "word"] = "sentencepiece"
    special_tokens: RenamedTokens = None


class RnnBlock(Frozen):
    embedding_size: models.Width
    hidden_size: models.Width
    num_layers: models.Few
    bidirectional: bool | None = None
    dropout: Probability = 0.0
    dropout_places: models.DropoutPlaces | None = None
    """Default: between_layers with a tied output layer, else all."""
    initialization: models.Initialization | None = None
    """Default: keyboard with a tied output layer, else torch."""
    tied: bool = False
    rnn_type: models.RnnArchitecture | None = None


class TransformerBlock(Frozen):
    layers: models.Few
    embedding_size: models.Width
    hidden_size: models.Width
    intermediate_hidden_size: models.InnerWidth
    attention_heads: models.Few
    num_key_value_heads: models.Few | None = None
    """llama and qwen only; default: those of the preset base."""
    activation_function: models.Activation | None = None
    """Default: gelu, for llama and qwen silu."""
    dropout: Probability
    attention_dropout: Probability
    tie_word_embeddings: bool | None = None
    """llama and qwen only."""


class BertBlock(Frozen):
    type_vocab_size: models.Few = 2


class ArchitectureBlock(Frozen):
    """The architecture and its sizes in a block of their own: `rnn`, or `transformer` and `bert`."""

    architecture: models.Architecture
    rnn: RnnBlock | None = None
    transformer: TransformerBlock | None = None
    bert: BertBlock | None = None


class TrainingBlock(CheckpointRule):
    objective: Literal["causal_lm", "masked_lm"] = "causal_lm"
    mlm_probability: Annotated[float, Field(ge=0, le=1)] = 0.15
    output_dir: RelativePath
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    adam_beta1: Probability
    adam_beta2: Probability
    adam_epsilon: Positive
    epochs: Annotated[int, Field(ge=1, le=1000)]
    train_steps: Count | None = None
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    use_amp: bool = False
    use_tf32: bool = True
    use_gradient_checkpointing: bool = False
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=1024)] = 1
    max_grad_norm: Positive | None = None
    resume_from_checkpoint: bool = False
    checkpoint_schedule: BlockSchedule = ()
    auto_generate_checkpoints: bool = False
    """Build the schedule from the fields of CheckpointRule, which are without effect otherwise."""


class LoggingBlock(Frozen):
    console_level: LogLevel = "INFO"
    level: LogLevel = "INFO"
    file_level: LogLevel = "DEBUG"
    dir: RelativePath = "logs"
    use_structured_logging: bool = True
    use_wandb: Literal[False] = False
    wandb_project: str | None = None
    max_log_files: Count = 10
    max_log_size_mb: Count = 100
    log_metrics_every_n_steps: Count = 10
    log_detailed_metrics_every_n_steps: Count = 100
    log_memory_every_n_steps: Count = 100
    profile_performance: bool = False
    max_errors_to_track: Count = 1000


class BlockFile(Frozen):
    """A complete file."""

    experiment_name: Slug
    random_seed: Seed
    seeds: Seeds | None = None
    dataset_manipulation: Annotated[tuple[dict[str, object], ...], Field(max_length=0)] = ()
    data: DataBlock
    tokenizer: TokenizerBlock
    model: ArchitectureBlock
    training: TrainingBlock
    logging: LoggingBlock
    run: dict[str, object] = Field(default_factory=dict)
    """Fields of the train request; they replace values of the blocks."""


_PLACES = {
    "model_family": "model.architecture",
    "label": "experiment_name",
    "seed": "random_seed",
    "seeds": "seeds",
    "corpus": "data.training_corpus",
    "validation_corpus": "data.validation_corpus",
    "test_corpus": "data.test_corpus",
    "provenance.source_corpus": "data.source_corpus",
    "batch_size": "data.batch_size",
    "max_seq_len": "data.max_sequence_length",
    "tokenizer.method": "tokenizer.tokenizer_type",
    "tokenizer.vocab_size": "tokenizer.vocab_size",
    "tokenizer.special_tokens": "tokenizer.special_tokens",
    "objective": "training.objective",
    "mlm_probability": "training.mlm_probability",
    "learning_rate": "training.learning_rate",
    "optimizer.betas.0": "training.adam_beta1",
    "optimizer.betas.1": "training.adam_beta2",
    "optimizer.eps": "training.adam_epsilon",
    "num_epochs": "training.epochs",
    "max_steps": "training.train_steps",
    "warmup_steps": "training.warmup_steps",
    "warmup_ratio": "training.warmup_ratio",
    "gradient_accumulation": "training.gradient_accumulation_steps",
    "gradient_clipping": "training.max_grad_norm",
    "precision": "training.use_amp",
    "compute.gradient_checkpointing": "training.use_gradient_checkpointing",
    "compute.tf32": "training.use_tf32",
    "resume": "training.resume_from_checkpoint",
    "checkpoint_schedule": "training.checkpoint_schedule",
    **{f"checkpoint_schedule.{name}": f"training.{name}" for name in CheckpointRule.model_fields},
    "log_every_steps": "logging.log_metrics_every_n_steps",
    "logging.level": "logging.level",
}
"""Path in a file of each field of the train request, without the sizes of the model."""

_SIZE_NAMES = {
    "layers": "num_layers",
    "attention_heads": "num_attention_heads",
    "intermediate_hidden_size": "intermediate_size",
    "tied": "tie_word_embeddings",
}
"""Sizes with another name in a request."""
_LOGGING_WITH_EFFECT = {"level", "log_metrics_every_n_steps", "use_wandb"}
_KNOWN: tuple[models.Architecture, ...] = get_args(models.Architecture)
_ARCHITECTURES = [name for name in _KNOWN if name != "ngram"]
_EXAMPLES = {
    "rnn": ("lstm", "embedding_size: 128, hidden_size: 256, num_layers: 2"),
    "transformer": (
        "gpt2",
        "layers: 2, embedding_size: 64, hidden_size: 64, intermediate_hidden_size: 256, attention_heads: 2,"
        " dropout: 0.1, attention_dropout: 0.1",
    ),
}
"""An architecture of each block of sizes, and sizes."""


def has_blocks(document: Mapping[str, object]) -> bool:
    """Return True for a file in block form; `tokenizer`, `model` and `logging` are names of both forms."""
    if (BlockFile.model_fields.keys() - TrainRequest.model_fields.keys()) & document.keys():
        return True
    paths = ("tokenizer.tokenizer_type", "tokenizer.output_dir", "model.rnn", "model.transformer", "model.bert")
    return any(value_at(document, path) is not None for path in paths)


def read_blocks(document: dict[str, object], options: Mapping[str, object]) -> RequestDraft:
    """Convert a file in block form to the fields of a train request; options replace its values."""
    run = block(document, "run")
    places = _places(value_at(document, "model.architecture"))
    errors, checked = _model_errors(document.get("model"))
    errors += _contradictions(document, run)
    source: dict[str, object] = document
    requested_paths: tuple[str, ...] | None = None
    unused_settings: dict[str, Setting] = {}
    try:
        config = parse(BlockFile, document, ErrorCode.CONFIG_INVALID)
    except AppError as error:
        reworded = refusal(error.code, *map(_reword, error.details))
        errors += without_problems_at([*problem_paths(errors), *checked], reworded)
    else:
        source = config.model_dump(mode="json")
        requested_paths = (config.tokenizer.output_dir, config.training.output_dir, config.logging.dir)
        settings: dict[str, Setting] = config.logging.model_dump(exclude_unset=True, exclude=_LOGGING_WITH_EFFECT)
        unused_settings = {"training.output_dir": config.training.output_dir}
        unused_settings |= {f"logging.{name}": value for name, value in settings.items()}

    def place(path: str) -> str:
        if has_path(options, path):
            return path
        if has_path(run, path):
            return f"run.{path}"
        parent, _, last = path.rpartition(".")
        return places.get(path, f"{places[parent]}.{last}" if parent in places else path)  # or an item of a list

    fields = merged(_fields(source, merged(run, options), places), run)
    is_in_file = is_stated(document, options)
    return RequestDraft(override(fields, options), tuple(errors), requested_paths, unused_settings, place, is_in_file)


def is_stated(document: Mapping[str, object], options: Mapping[str, object]) -> Callable[[str], bool]:
    """Return a test whether a file has a value at a path that no option replaces."""
    return lambda path: has_path(document, path) and not has_path(options, path)


def corpus_path_errors(fields: Mapping[str, object], prefix: str = "") -> Iterator[AppError]:
    """Yield an error for each corpus of a file that is not a relative path."""
    for field in CORPORA:
        name, path = fields.get(field), f"{prefix}{field}"
        if isinstance(name, str) and not _is_relative(name):
            yield _error(path, f" must be {_RELATIVE}", value=name, allowed=_RELATIVE)


def _places(architecture: object) -> dict[str, str]:
    """Return the path in a file of this architecture for each field of the train request."""
    if _size_block(architecture) == "rnn":
        sizes = {name: f"model.rnn.{name}" for name in RnnBlock.model_fields if name != "rnn_type"}
    else:
        names = [name for name in TransformerBlock.model_fields if name != "embedding_size"]  # equals hidden_size
        sizes = {name: f"model.transformer.{name}" for name in names}
        sizes |= {name: f"model.bert.{name}" for name in BertBlock.model_fields}
    return _PLACES | {f"model.{_SIZE_NAMES.get(name, name)}": place for name, place in sizes.items()}


def _size_block(architecture: object) -> str:
    attends = [name for name, config in models.CONFIGS.items() if issubclass(config, models.TransformerConfig)]
    return "transformer" if architecture in attends else "rnn"


def _fields(source: Mapping[str, object], direct: Mapping[str, object], places: Mapping[str, str]) -> dict[str, object]:
    """Convert the values of the blocks; `direct` are the fields given under their own names."""
    adamw: dict[str, object] = {"name": "adamw"}  # whose settings the blocks hold
    fields: dict[str, object] = {"lr_schedule": "linear", "optimizer": adamw}
    for field, place in places.items():
        value = value_at(source, place)
        if has_path(source, place) and not (field.startswith("model.") and value is None):
            set_path(fields, field, value)
    if value_at(fields, "tokenizer.method") == "character":
        set_path(fields, "tokenizer.method", "char")
    if "precision" in fields:
        fields["precision"] = "auto" if fields["precision"] is True else "fp32"
    training = block(source, "training")
    if training.get("auto_generate_checkpoints") is True:
        names = CheckpointRule.model_fields.keys() & training.keys()
        fields["checkpoint_schedule"] = {name: training[name] for name in names}
    else:
        fields["checkpoint_schedule"] = training.get("checkpoint_schedule") or None
    betas = block(fields, "optimizer").get("betas")
    if isinstance(betas, dict):
        set_path(fields, "optimizer.betas", [betas.get("0"), betas.get("1")])
    dropped = {"warmup_steps" if fields.get("warmup_steps") is None else "warmup_ratio"}
    if {"warmup_steps", "warmup_ratio"} & set(direct):
        dropped = {"warmup_steps", "warmup_ratio"}
    if value_at(direct, "optimizer.name") == "sgd":  # the blocks hold settings of Adam
        dropped.add("optimizer")
    if any(direct.get(name) is not None for name in ("tokenizer_id", "init_from_run_id")):
        dropped.add("tokenizer")
    return {name: value for name, value in fields.items() if name not in dropped}


def _model_errors(model: object) -> tuple[list[AppError], list[str]]:
    """Return the errors of the model block with an example each, and the paths that need no other error."""
    if not isinstance(model, dict):
        return [], []
    errors: list[AppError] = []
    architecture: object = model.get("architecture")
    if architecture is None:
        listed = ", ".join(_ARCHITECTURES)
        message = f"Missing required field 'architecture' in model config. Must be one of: {listed}"
        problem = FieldProblem(path="model.architecture", message=message, allowed=f"one of {listed}")
        errors.append(refusal(ErrorCode.CONFIG_INVALID, problem))
    elif architecture == "ngram":
        message = (
            " 'ngram' is for a file without blocks: write `model_family: ngram` and the fields of the train request"
        )
        return [_error("model.architecture", message, value=architecture)], ["model"]
    elif missing := not_available({"model": model}, "model.architecture", _ARCHITECTURES):
        return missing, ["model"]
    name = _size_block(architecture)
    usual, sizes = _EXAMPLES[name]
    shown = architecture if isinstance(architecture, str) else usual
    example = f"model: {{architecture: {shown}, {name}: {{{sizes}}}}}"
    misplaced = [size for size in (*RnnBlock.model_fields, *TransformerBlock.model_fields) if size in model]
    if misplaced:
        path = f"model.{misplaced[0]}"
        message = f" must be in the block `model.{name}`: {example}"
        errors.append(_error(path, message, value=model[misplaced[0]], allowed=example))
    elif name not in model and architecture is not None:
        errors.append(_error(f"model.{name}", f" is missing: {example}", allowed=example))
    for other in ("rnn", "transformer", "bert"):
        is_right = other == name or (other == "bert" and architecture == "bert")
        if other in model and architecture is not None and not is_right:
            message = f" belongs to another architecture: {architecture} takes `model.{name}`"
            errors.append(_error(f"model.{other}", message))
            misplaced.append(other)
    errors += _unequal(model, "rnn.rnn_type", "architecture")
    errors += _unequal(model, "transformer.embedding_size", "transformer.hidden_size")
    return errors, [f"model.{path}" for path in misplaced] + ([] if name in model else [f"model.{name}"])


def _unequal(model: Mapping[str, object], path: str, other: str) -> Iterator[AppError]:
    value, expected = value_at(model, path), value_at(model, other)
    if isinstance(value, str | int) and isinstance(expected, str | int) and value != expected:
        allowed = format_value(expected)
        message = f" must equal `model.{other}`, {allowed}, you gave {format_value(value)}"
        yield _error(f"model.{path}", message, value=value, allowed=allowed)


def _contradictions(document: Mapping[str, object], run: Mapping[str, object]) -> Iterator[AppError]:
    """Yield errors about values that contradict each other, and about corpora that are not relative paths."""
    precision, use_amp = run.get("precision"), value_at(document, "training.use_amp")
    if isinstance(precision, str) and isinstance(use_amp, bool) and use_amp == (precision == "fp32"):
        problem = f"contradicts `training.use_amp` {format_value(use_amp)}: give only one of them"
        message = f" '{safe_name(precision)}' {problem}"
        allowed = "'auto', 'fp16' or 'bf16'" if use_amp else "'fp32'"
        yield _error("run.precision", message, value=precision, allowed=allowed)
    path = "training.auto_generate_checkpoints"
    if value_at(document, path) is True and value_at(document, "training.checkpoint_schedule") not in (None, []):
        message = " contradicts `training.checkpoint_schedule`: give only one of them"
        yield _error(path, message, value=True, allowed="false")
    yield from corpus_path_errors(run, "run.")


def _reword(problem: FieldProblem) -> FieldProblem:
    """Reword an error that pydantic words badly."""
    message = {
        "dataset_manipulation": " is not supported: it must be []",
        "logging.use_wandb": " must be false: the tracker wandb is not installed",
    }.get(problem.path)
    if problem.path in TrainRequest.model_fields.keys() - BlockFile.model_fields.keys():
        message = " is a field of the train request: in a file with blocks write it under `run`"
    if message is None:
        return problem
    return FieldProblem.of(problem.path, message, value=problem.value, allowed=problem.allowed)


def _error(path: str, message: str, *, value: object = None, allowed: str | None = None) -> AppError:
    shown = None if value is None else format_value(value)
    return refusal(ErrorCode.CONFIG_INVALID, FieldProblem.of(path, message, value=shown, allowed=allowed))
