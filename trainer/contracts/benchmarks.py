"""What a comparison of architectures is made of: its plan, what each training gave, and the table as it is stored."""

from trainer.contracts.base import Count, Frozen, Identifier, Sha256, Timestamp
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusRef, EffectiveRequest, Environment, SplitSizes


class BenchmarkPlan(Frozen):
    """What is to be trained, by name; equal but for the model, its objective and its rate."""

    tokens: Count
    """How many each training reads at least."""
    requests: dict[str, EffectiveRequest]


class PreparedBenchmark(Frozen):
    """What all trainings of a plan share."""

    steps: int
    epochs: int
    """That those steps take, the last one perhaps in part."""
    tokens: int
    """Predicted by a causal model in so many steps; a masked one reads the same rows and predicts some of them."""
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
    """What one training gave; the losses are in nats per predicted token, which for masked_lm is a masked one."""

    name: str
    objective: Objective
    params: int
    learning_rate: float
    test_loss: float
    bits_per_char: float | None
    """Of the test split. masked_lm: by pseudo-log-likelihood, None where that would take long."""
    tokens_per_second: float
    """Read in the steps of the training, without validation and saving."""
    train_seconds: float
    peak_memory_bytes: int
    """Of the process that trained, libraries included."""
    request: EffectiveRequest
    curve: tuple[BenchmarkPoint, ...]


class BenchmarkTable(Frozen):
    """`table.json`: the whole comparison, with all that is needed to repeat it."""

    schema_version: int = 1
    benchmark_id: Identifier
    created_at: Timestamp
    corpus: CorpusRef
    model_size: str
    seed: int
    shared: PreparedBenchmark
    rows: tuple[BenchmarkRow, ...]
