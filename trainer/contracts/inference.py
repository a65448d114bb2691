"""Asking a finished run: scores, generations and evaluations, as requests, answers and stored records."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter, model_validator

from trainer.contracts.base import Frozen, Identifier, JobState, Positive, Timestamp
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusName

MAX_TEXT_CHARACTERS, MAX_PROMPT_CHARACTERS = 2_000_000, 100_000
"""The longest text that is scored at a time, and the longest prompt."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def check_length(what: str, characters: float, most: int) -> None:
    """Raise PAYLOAD_TOO_LARGE where a text has too many characters."""
    if characters > most:
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"{what} is too long: at most {most:,} characters are taken.")


def _text(text: str) -> str:
    check_length("`text`", len(text), MAX_TEXT_CHARACTERS)
    return text


def _prompt(text: str) -> str:
    check_length("`prompt_text`", len(text), MAX_PROMPT_CHARACTERS)
    return text


class ScoreRequest(Frozen):
    """Score a text, or a corpus by its name, line by line, each line from [BOS] (DEC D50)."""

    text: Annotated[str, Field(min_length=1), AfterValidator(_text)] | None = None
    path: CorpusName | None = None
    detail_level: Literal["summary", "per_char"] = "summary"
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    window_tokens: Annotated[int, Field(ge=64, le=65536)] | None = None
    """None carries the state to the end of a line, which is exact; else longer lines are scored by windows.

    A model that reads so many tokens at most scores what is longer by windows of its own context.
    """
    seed: Seed | None = None
    """Changes nothing: a causal model draws nothing to score a text."""

    @model_validator(mode="after")
    def _one_text(self) -> "ScoreRequest":
        if (self.text is None) == (self.path is None):
            raise ValueError("give `text` or `path`, one of both")
        return self


class WindowReport(Frozen):
    """That a score was made by windows, and how far they were from the exact score, measured in the same call."""

    window_tokens: int
    context_tokens: int
    """How many tokens every window but a line's first reads before those that it scores."""
    compared_tokens: int
    """The first tokens of the longest line, scored in both ways; 0 where no line is longer than a window, or where the
    model cannot read more than a window at once."""
    max_difference_nats: float
    """The largest that a token's surprisals differ."""


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
    method: Literal["causal", "pseudo_log_likelihood"] = "causal"
    """What a surprisal is given: what stands before the token, or all of its line but the token itself."""
    surprisal: tuple[float, ...] | None = None
    rank: tuple[int, ...] | None = None
    entropy: tuple[float, ...] | None = None
    tokens: tuple[str, ...] | None = None
    char_spans: tuple[tuple[int, int], ...] | None = None
    """Half-open ranges of the normalized text."""
    topk: tuple[tuple[tuple[str, float], ...], ...] | None = None
    window: WindowReport | None = None
    """None: the scores are exact."""
    error: RunError | None = None


StopReason = Literal["eos", "stop_sequence", "max_new_tokens", "context_full"]


class GenerateRequest(Frozen):
    """Continue a prompt, or a corpus by its name to the last character; an empty prompt starts from [BOS]."""

    prompt_text: Annotated[str, AfterValidator(_prompt)] | None = None
    prompt_path: CorpusName | None = None
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

    @model_validator(mode="after")
    def _one_prompt(self) -> "GenerateRequest":
        if (self.prompt_text is None) == (self.prompt_path is None):
            raise ValueError("give `prompt_text` or `prompt_path`, one of both")
        return self


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
    unk_count: int | None = None
    """Tokens of the prompt that the model does not know."""
    seed_used: int | None = None
    error: RunError | None = None


EvalSplit = Literal["validation", "test"]


class EvalRequest(Frozen):
    """Measure a run on a split of its own, or on the whole of another text in its place."""

    split: EvalSplit = "validation"
    path_override: CorpusName | None = None
    """A corpus name."""


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
    objective: Objective = "causal_lm"
    """With masked_lm the loss and what comes from it are over masked tokens, and nothing is generated."""
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


class _Record(Frozen):
    """What Redis keeps of a request; an error in reading it tells nothing of the text inside (LOG-10)."""

    model_config = ConfigDict(hide_input_in_errors=True)


class ScoreRecord(_Record):
    """A score as Redis keeps it for a while: the only place where its text is."""

    kind: Literal["score"] = "score"
    request: ScoreRequest
    response: ScoreResponse


class GenerateRecord(_Record):
    """A generation as Redis keeps it for a while: the only place where its prompt is."""

    kind: Literal["generate"] = "generate"
    request: GenerateRequest
    response: GenerateResponse


class EvalRecord(_Record):
    """An evaluation as Redis keeps it for a while; its metrics are in the run's directory too."""

    kind: Literal["evaluate"] = "evaluate"
    request: EvalRequest
    response: EvalResponse


InferenceKind = Literal["score", "generate", "evaluate"]
InferenceRecord = ScoreRecord | GenerateRecord | EvalRecord
inference_adapter: TypeAdapter[InferenceRecord] = TypeAdapter(
    Annotated[InferenceRecord, Field(discriminator="kind")], config=ConfigDict(hide_input_in_errors=True)
)


def failed_record(record: InferenceRecord, error: RunError) -> InferenceRecord:
    """The record of a request that could not be answered."""
    ended: dict[str, object] = {"status": "failed", "error": error}
    response: dict[str, object] = {"response": record.response.model_copy(update=ended)}
    return record.model_copy(update=response)
