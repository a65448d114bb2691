"""The blocks of a YAML experiment file, as `yaml_config.md` describes them, as far as they can be trained yet."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from trainer.contracts.base import Count, Frozen, Positive, Probability
from trainer.contracts.models import (
    Activation,
    Architecture,
    DropoutPlaces,
    Few,
    Initialization,
    InnerWidth,
    RnnArchitecture,
    Width,
)
from trainer.contracts.runs import CheckpointRule, LogLevel, ScheduledSteps
from trainer.contracts.tokenizers import RenamedTokens, VocabularySize


def _slug(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError("must be 1 to 64 letters (a-z, A-Z), digits, '_', '.' or '-'")
    return name


def relative_path(path: str) -> str:
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts:
        raise ValueError("must be a relative path without `..`")
    return path


LOGS = "logs"
Slug = Annotated[str, AfterValidator(_slug)]
RelativePath = Annotated[str, AfterValidator(relative_path)]


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
    tokenizer_type: Literal["sentencepiece", "wordpiece", "bpe", "character", "word"] = "sentencepiece"
    special_tokens: RenamedTokens = None


class RnnBlock(Frozen):
    embedding_size: Width
    hidden_size: Width
    num_layers: Few
    bidirectional: bool | None = None
    dropout: Probability = 0.0
    dropout_places: DropoutPlaces | None = None
    """between_layers for a tied head, all for another, without it."""
    initialization: Initialization | None = None
    """keyboard for a tied head, torch for another, without it."""
    tied: bool = False
    rnn_type: RnnArchitecture | None = None


class TransformerBlock(Frozen):
    layers: Few
    embedding_size: Width
    hidden_size: Width
    intermediate_hidden_size: InnerWidth
    attention_heads: Few
    num_key_value_heads: Few | None = None
    """Of llama and qwen; those of the preset without it."""
    activation_function: Activation | None = None
    """gelu without it, silu for llama and qwen."""
    dropout: Probability
    attention_dropout: Probability
    tie_word_embeddings: bool | None = None
    """Of llama and qwen: whether the embedding is the head, too."""


class BertBlock(Frozen):
    type_vocab_size: Few = 2


class ArchitectureBlock(Frozen):
    """One block for the architecture's sizes; which of them it takes is checked beside."""

    architecture: Architecture
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
    checkpoint_schedule: ScheduledSteps = ()
    auto_generate_checkpoints: bool = False
    """The schedule is made by the fields of CheckpointRule, which mean nothing otherwise."""


class LoggingBlock(Frozen):
    console_level: LogLevel = "INFO"
    level: LogLevel = "INFO"
    file_level: LogLevel = "DEBUG"
    dir: RelativePath = LOGS
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


class ExperimentConfig(Frozen):
    """A whole file."""

    experiment_name: Slug
    random_seed: Annotated[int, Field(ge=0, lt=2**32)]
    dataset_manipulation: Annotated[tuple[dict[str, object], ...], Field(max_length=0)] = ()
    data: DataBlock
    tokenizer: TokenizerBlock
    model: ArchitectureBlock
    training: TrainingBlock
    logging: LoggingBlock
    run: dict[str, object] = Field(default_factory=dict)
    """Fields of the train request under its own names; given here they win over what the blocks imply."""
