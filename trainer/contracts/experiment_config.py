"""The YAML form of a training: read strictly, and mapped onto the one train request."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trainer.contracts.base import Frozen, Positive, Probability
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import Architecture
from trainer.contracts.validation import parse

_ARCHITECTURES = ("gpt2", "bert", "lstm", "gru", "rnn", "llama", "qwen")
_AVAILABLE = ("lstm", "gru", "rnn")

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


def _inside(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.replace("\\", "/").split("/"):
        raise ValueError("must be a relative path without `..`")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class DataBlock(Frozen):
    source_corpus: str
    training_corpus: str
    validation_corpus: str | None = None
    test_corpus: str | None = None
    batch_size: PositiveInt
    max_sequence_length: Annotated[int, Field(ge=8)]


class TokenizerBlock(Frozen):
    output_dir: RelativePath
    vocab_size: PositiveInt
    tokenizer_type: Literal["sentencepiece", "wordpiece", "bpe", "character", "word"] = "sentencepiece"
    special_tokens: None = None


class RnnBlock(Frozen):
    embedding_size: PositiveInt
    hidden_size: PositiveInt
    num_layers: PositiveInt
    bidirectional: bool = False
    dropout: Probability = 0.0
    tied: bool = False
    rnn_type: Architecture | None = None


class ArchitectureBlock(Frozen):
    architecture: Architecture
    rnn: RnnBlock


class TrainingBlock(Frozen):
    objective: Literal["causal_lm", "masked_lm"] = "causal_lm"
    mlm_probability: Annotated[float, Field(ge=0, le=1)] = 0.15
    output_dir: RelativePath
    learning_rate: Positive
    adam_beta1: Probability
    adam_beta2: Probability
    adam_epsilon: Positive
    epochs: PositiveInt
    train_steps: PositiveInt | None = None
    warmup_steps: NonNegativeInt | None = None
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    use_amp: bool = False
    use_tf32: bool = True
    use_gradient_checkpointing: Literal[False] = False
    gradient_accumulation_steps: PositiveInt = 1
    max_grad_norm: Positive | None = None
    resume_from_checkpoint: Literal[False] = False
    checkpoint_schedule: Annotated[tuple[int, ...], Field(max_length=0)] = ()
    auto_generate_checkpoints: Literal[False] = False
    first_epoch_checkpoints: PositiveInt = 20
    subsequent_epochs_spacing: Literal["linear", "log"] = "log"
    log_base: Annotated[int, Field(ge=2)] = 2
    linear_interval: PositiveInt | None = None
    min_checkpoint_interval: PositiveInt = 100
    min_checkpoints_per_epoch: NonNegativeInt = 5


class LoggingBlock(Frozen):
    console_level: LogLevel = "INFO"
    level: LogLevel = "INFO"
    file_level: LogLevel = "DEBUG"
    dir: RelativePath = "logs"
    use_structured_logging: bool = True
    use_wandb: Literal[False] = False
    wandb_project: str | None = None
    max_log_files: PositiveInt = 10
    max_log_size_mb: PositiveInt = 100
    log_metrics_every_n_steps: PositiveInt = 10
    log_detailed_metrics_every_n_steps: PositiveInt = 100
    log_memory_every_n_steps: PositiveInt = 100
    profile_performance: bool = False
    max_errors_to_track: PositiveInt = 1000


class ExperimentConfig(Frozen):
    """A YAML file as `yaml_config.md` describes it, as far as recurrent character models need it."""

    experiment_name: Slug
    random_seed: NonNegativeInt
    dataset_manipulation: Annotated[tuple[str, ...], Field(max_length=0)] = ()
    data: DataBlock
    tokenizer: TokenizerBlock
    model: ArchitectureBlock
    training: TrainingBlock
    logging: LoggingBlock
    run: dict[str, object] = Field(default_factory=dict)
    """Fields of the train request under its own names; given here they win over what the blocks imply."""


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML mapping; raises CONFIG_INVALID with the line of what is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise AppError(ErrorCode.CONFIG_INVALID, f"The file '{path.name}' cannot be read as UTF-8 text.") from None
    loaded = parse_yaml(text, path.name)
    if not isinstance(loaded, dict):
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{path.name}' must hold a mapping of names to values.")
    return {str(name): value for name, value in loaded.items()}


def parse_yaml(text: str, name: str) -> object:
    """Read YAML 1.2; a name given twice is an error; raises CONFIG_INVALID."""
    try:
        loaded: object = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())[:200]
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is not YAML: {reason}.") from None
    return loaded


def train_fields(document: dict[str, object]) -> dict[str, object]:
    """Map an experiment file onto the fields of a train request; raises CONFIG_INVALID with every wrong field."""
    _check_model_block(document.get("model"))
    config = parse(ExperimentConfig, document, ErrorCode.CONFIG_INVALID)
    rnn, training, data = config.model.rnn, config.training, config.data
    _check_available(config)
    optimizer: dict[str, object] = {
        "name": "adamw",
        "betas": [training.adam_beta1, training.adam_beta2],
        "eps": training.adam_epsilon,
    }
    sizes: dict[str, object] = rnn.model_dump(exclude={"bidirectional", "rnn_type"})
    warmup: dict[str, object] = (
        {"warmup_ratio": training.warmup_ratio}
        if training.warmup_steps is None
        else {"warmup_steps": training.warmup_steps}
    )
    fields: dict[str, object] = {
        "model_family": config.model.architecture,
        "label": config.experiment_name,
        "seed": config.random_seed,
        "corpus": data.training_corpus,
        "validation_corpus": data.validation_corpus,
        "test_corpus": data.test_corpus,
        "provenance": {"source_corpus": data.source_corpus},
        "batch_size": data.batch_size,
        "max_seq_len": data.max_sequence_length,
        "tokenizer": {"method": "char", "vocab_size": config.tokenizer.vocab_size},
        "model": sizes,
        "optimizer": optimizer,
        "learning_rate": training.learning_rate,
        "lr_schedule": "linear",
        "num_epochs": training.epochs,
        "max_steps": training.train_steps,
        "gradient_accumulation": training.gradient_accumulation_steps,
        "gradient_clipping": training.max_grad_norm,
        "precision": "auto" if training.use_amp else "fp32",
        "log_every_steps": config.logging.log_metrics_every_n_steps,
    }
    if not {"warmup_steps", "warmup_ratio"} & set(config.run):
        fields |= warmup
    return fields | config.run


def requested_paths(document: dict[str, object]) -> tuple[str, ...]:
    """The output folders that a file names: recorded, never used, since a run has its own directory."""
    config = parse(ExperimentConfig, document, ErrorCode.CONFIG_INVALID)
    return (config.tokenizer.output_dir, config.training.output_dir, config.logging.dir)


def _check_model_block(model: object) -> None:
    """Refuse what people get wrong most often, in the words that the requirements fix (MF-03, MF-51, MF-56)."""
    if not isinstance(model, dict):
        return
    architecture: object = model.get("architecture")
    if architecture is None:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "Missing required field 'architecture' in model config. Must be one of: " + ", ".join(_ARCHITECTURES),
        )
    if architecture in _ARCHITECTURES and architecture not in _AVAILABLE:
        raise AppError(
            ErrorCode.UNSUPPORTED_BACKEND,
            f"`model.architecture` '{architecture}' is not available yet; available are {', '.join(_AVAILABLE)}.",
        )
    if architecture in _AVAILABLE and "rnn" not in model:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            f"`model.rnn` is required for {architecture}; write the sizes under it:"
            f" model: {{architecture: {architecture}, rnn: {{embedding_size: 128, hidden_size: 256, num_layers: 2}}}}.",
        )


def _check_available(config: ExperimentConfig) -> None:
    """Refuse combinations that cannot be trained, before anything is queued."""
    architecture, rnn = config.model.architecture, config.model.rnn
    if rnn.rnn_type not in (None, architecture):
        raise AppError(ErrorCode.CONFIG_INVALID, f"`model.rnn.rnn_type` must equal the architecture, '{architecture}'.")
    if config.training.objective == "masked_lm" or rnn.bidirectional:
        raise AppError(
            ErrorCode.UNSUPPORTED_BACKEND,
            "Masked and two-way models are not available yet; use objective 'causal_lm' with `bidirectional: false`.",
        )
    if config.tokenizer.tokenizer_type != "character":
        raise AppError(
            ErrorCode.UNSUPPORTED_BACKEND,
            f"`tokenizer.tokenizer_type` '{config.tokenizer.tokenizer_type}' is not available yet; 'character' is.",
        )
