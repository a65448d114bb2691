"""Asking a finished run: scores, generations and evaluations, as requests, answers and stored records."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, TypeAdapter

from trainer.contracts.base import Frozen, Identifier, JobState, Positive, Timestamp
from trainer.contracts.errors import RunError

MAX_TEXT_CHARACTERS = 2_000_000
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class ScoreRequest(Frozen):
    """Score a text line by line, each line from [BOS] (DEC D50)."""

    text: Text
    detail_level: Literal["summary", "per_char"] = "summary"
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None


class ScoreResponse(Frozen):
    """Surprisals in nats; the lists have `n_tokens` entries and are None for a summary."""

    request_id: Identifier
    run_id: Identifier
    status: JobState
    loss: float | None = None
    perplexity: float | None = None
    bits_per_char: float | None = None
    n_tokens: int | None = None
    n_scored: int | None = None
    unk_count: int | None = None
    unit: Literal["nats"] = "nats"
    method: Literal["causal"] = "causal"
    surprisal: tuple[float, ...] | None = None
    rank: tuple[int, ...] | None = None
    entropy: tuple[float, ...] | None = None
    tokens: tuple[str, ...] | None = None
    char_spans: tuple[tuple[int, int], ...] | None = None
    """Half-open ranges of the normalized text."""
    topk: tuple[tuple[tuple[str, float], ...], ...] | None = None
    error: RunError | None = None


StopReason = Literal["eos", "stop_sequence", "max_new_tokens"]


class GenerateRequest(Frozen):
    """Continue a prompt; an empty prompt starts from [BOS]."""

    prompt_text: Annotated[str, Field(max_length=100_000)] = ""
    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    temperature: NonNegativeFloat = 1.0
    """0 is greedy."""
    top_k: NonNegativeInt = 0
    """0 is off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop_on_eos: bool = True
    stop_sequences: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=8)] = ()
    seed: Seed | None = None
    num_return_sequences: Annotated[int, Field(ge=1, le=10)] = 1
    repetition_penalty: Positive | None = None
    repetition_window: Annotated[int, Field(ge=1)] = 80


class GenerateResponse(Frozen):
    """Continuations without the prompt; one entry per returned sequence in every list."""

    request_id: Identifier
    run_id: Identifier
    status: JobState
    outputs: tuple[str, ...] | None = None
    steps: tuple[int, ...] | None = None
    eos_terminated: tuple[bool, ...] | None = None
    stop_reason: tuple[StopReason, ...] | None = None
    prompt_tokens: int | None = None
    seed_used: int | None = None
    error: RunError | None = None


EvalSplit = Literal["validation", "test"]


class EvalRequest(Frozen):
    split: EvalSplit = "validation"


class SequenceLengths(Frozen):
    """Tokens per line."""

    min: int
    p50: float
    p95: float
    max: int


class EvalMetrics(Frozen):
    """`eval/metrics.json`: what the saved model does on one split, in nats per predicted token."""

    run_id: Identifier
    split: EvalSplit
    dataset: str
    status: Literal["completed"] = "completed"
    loss: float
    perplexity: float
    bits_per_char: float
    top1_accuracy: float
    top5_accuracy: float
    n_tokens: int
    n_chars: int
    tokens_per_char: float
    tokens_per_word: float
    seq_len: SequenceLengths
    distinct_1: float
    distinct_2: float
    repetition_rate: float
    seed: int
    checkpoint: str
    created_at: Timestamp
    artifacts: tuple[str, ...] = ()


class EvalResponse(Frozen):
    """An evaluation on its way, or its metrics."""

    request_id: Identifier
    run_id: Identifier
    status: JobState
    metrics: EvalMetrics | None = None
    error: RunError | None = None


class ScoreRecord(Frozen):
    """A score as Redis keeps it for a while: the only place where its text is."""

    kind: Literal["score"] = "score"
    request: ScoreRequest
    response: ScoreResponse


class GenerateRecord(Frozen):
    """A generation as Redis keeps it for a while: the only place where its prompt is."""

    kind: Literal["generate"] = "generate"
    request: GenerateRequest
    response: GenerateResponse


class EvalRecord(Frozen):
    """An evaluation as Redis keeps it for a while; its metrics are in the run's directory too."""

    kind: Literal["evaluate"] = "evaluate"
    request: EvalRequest
    response: EvalResponse


InferenceKind = Literal["score", "generate", "evaluate"]
InferenceRecord = ScoreRecord | GenerateRecord | EvalRecord
inference_adapter: TypeAdapter[InferenceRecord] = TypeAdapter(Annotated[InferenceRecord, Field(discriminator="kind")])


def failed_record(record: InferenceRecord, error: RunError) -> InferenceRecord:
    """The record of a request that could not be answered."""
    ended: dict[str, object] = {"status": "failed", "error": error}
    response: dict[str, object] = {"response": record.response.model_copy(update=ended)}
    return record.model_copy(update=response)
