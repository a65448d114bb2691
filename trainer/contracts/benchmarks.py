"""Records of `mt bench`: the plan, the result of each training, and the stored table."""

from trainer.contracts.base import Count, Frozen, Identifier, Sha256, Timestamp
from trainer.contracts.environment import Environment
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusRef, EffectiveRequest, SplitSizes


class BenchmarkPlan(Frozen):
    """Trainings by name; they differ only in model, objective and learning rate."""

    tokens: Count
    """Fewest tokens that each training reads."""
    requests: dict[str, EffectiveRequest]


class PreparedBenchmark(Frozen):
    """Facts shared by all trainings of a plan."""

    steps: int
    epochs: int
    """Epochs that the steps take; the last may be partial."""
    tokens: int
    """Tokens that a causal model predicts in these steps; a masked model predicts some of the same tokens."""
    tokenizer_id: str
    tokenizer_sha256: Sha256
    vocab_size: int
    train: SplitSizes
    test: SplitSizes
    environment: Environment


class BenchmarkPoint(Frozen):
    """A point of a training's curve: mean losses in nats per predicted token."""

    step: int
    train_loss: float
    val_loss: float | None


class BenchmarkRow(Frozen):
    """Result of a training; losses in nats per predicted token, for masked_lm per masked token."""

    name: str
    objective: Objective
    params: int
    learning_rate: float
    test_loss: float
    bits_per_char: float | None
    """Bits per character of the test split; masked_lm: by pseudo-log-likelihood, None if that would take long."""
    tokens_per_second: float
    """Training tokens per second, without evaluation and checkpoints."""
    train_seconds: float
    peak_memory_bytes: int
    """Peak memory of the training process, libraries included."""
    request: EffectiveRequest
    curve: tuple[BenchmarkPoint, ...]


class BenchmarkTable(Frozen):
    """`table.json`: the complete comparison, with all values needed to repeat it."""

    schema_version: int = 1
    benchmark_id: Identifier
    created_at: Timestamp
    corpus: CorpusRef
    model_size: str
    seed: int
    shared: PreparedBenchmark
    rows: tuple[BenchmarkRow, ...]
