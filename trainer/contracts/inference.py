"""Requests, responses and stored records of inference on finished runs: scores, generations, chats, evaluations."""

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter, model_validator

from trainer.contracts.base import (
    Frozen,
    Identifier,
    Positive,
    Timestamp,
    changed,
    describe_fields,
    exactly_one,
    json_schema_rule,
)
from trainer.contracts.baselines import Baseline
from trainer.contracts.completions import CompletionEnd, CompletionRecord
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference_fields import (
    MAX_PROMPT_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    RecordT,
    Response,
    ScoringMethod,
    Seed,
    has_hidden_tokens,
    limited,
)
from trainer.contracts.intervals import LineLosses
from trainer.contracts.items import ItemsRecord
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusName, EvalSummary, Leak
from trainer.contracts.sequences import SequencesRecord

CHAT_EXPIRED = "This chat has expired: start a new one."
NO_RESULT = "No worker has answered; try again in a minute."


DetailLevel = Literal["summary", "per_line", "per_word", "per_char"]


class ScoreRequest(InferenceRequest, json_schema_extra=json_schema_rule(exactly_one("text", "path"))):
    """A request to score a text, or a corpus by its name, line by line, each line from [BOS].

    A run with `documents` stream scores the text as one line, with its newlines as tokens.
    """

    corpus_field: ClassVar[str | None] = "path"

    text: Annotated[str, Field(min_length=1), limited("text", MAX_TEXT_CHARACTERS)] | None = None
    path: CorpusName | None = None
    detail_level: DetailLevel = "summary"
    """Each level adds to the one before: the totals, then a list of lines, then words, then lists of tokens."""
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    """With `per_char`: number of the likeliest tokens to list at each position."""
    context: Literal["bos", "none"] = "bos"
    """`none` reads no [BOS] before a line, so that its first token has no score (causal models only)."""
    pll_within_word: bool = False
    """For masked models: mask the later tokens of a word too (Kauf and Ivanova 2023)."""
    window_tokens: Annotated[int, Field(ge=64, le=65536)] | None = None
    """Score longer lines by windows of this many tokens; None is exact for recurrent models.

    Lines longer than a transformer's context are always scored by windows.
    """
    seed: Seed | None = None
    """Accepted without effect: scoring is deterministic."""

    @classmethod
    def response_type(cls) -> "type[ScoreResponse]":
        return ScoreResponse

    @property
    def has_surprisals(self) -> bool:
        return self.detail_level in ("per_word", "per_char")

    @model_validator(mode="after")
    def _one_text(self) -> "ScoreRequest":
        if (self.text is None) == (self.path is None):
            raise ValueError("give either `text` or `path`")
        return self


class WindowReport(Frozen):
    """The windows of a score, and their measured difference from the exact score."""

    window_tokens: int
    context_tokens: int
    """Tokens that each window except a line's first reads before the scored ones."""
    stride_tokens: int = 0
    """Tokens that each window except a line's first scores; 1 for a masked model."""
    cut_lines: int = 0
    """Lines longer than a window, counting the special tokens that the model reads."""
    compared_tokens: int
    """Tokens of the longest line that were scored both ways; 0 if no line is longer than a window, if the model cannot
    read more than a window, and for a masked model."""
    max_difference_nats: float
    """The largest difference of a token's two surprisals."""


Span = tuple[int, int]
"""A half-open range of the normalized text."""
Expected = tuple[tuple[str, float], ...]
"""Most probable tokens at a position with their probabilities, in descending order."""


class LineScore(Frozen):
    """The totals of one line, or of the complete text with a stream."""

    number: Annotated[int, Field(ge=1)]
    """The number of the line in the text, blank lines included."""
    span: Span
    n_tokens: int
    n_scored: int
    unk_count: int
    unknown_chars: int = 0
    """Characters of its scored tokens that are unknown."""
    nats: float
    """The sum of the surprisals of its scored tokens."""
    end_nats: float | None = None
    """The surprisal of its [EOS]; None for a masked model, and in a stream."""
    n_chars: int
    n_bytes: int

    @property
    def n_ends(self) -> int:
        return int(self.end_nats is not None)


class Totals(NamedTuple):
    """The totals of scored lines or texts."""

    nats: float = 0.0
    n_chars: int = 0
    n_bytes: int = 0
    n_tokens: int = 0
    n_scored: int = 0
    unk_count: int = 0
    unknown_chars: int = 0
    end_nats: float = 0.0
    """The sum of the surprisals of each line's [EOS]."""
    n_ends: int = 0
    """Lines with a scored [EOS]; 0 for a masked model, and in a stream."""

    @classmethod
    def of(cls, lines: "Iterable[LineScore | Totals]") -> "Totals":
        parts = list(lines)
        return cls(
            nats=math.fsum(part.nats for part in parts),
            n_chars=sum(part.n_chars for part in parts),
            n_bytes=sum(part.n_bytes for part in parts),
            n_tokens=sum(part.n_tokens for part in parts),
            n_scored=sum(part.n_scored for part in parts),
            unk_count=sum(part.unk_count for part in parts),
            unknown_chars=sum(part.unknown_chars for part in parts),
            end_nats=math.fsum(part.end_nats or 0.0 for part in parts),
            n_ends=sum(part.n_ends for part in parts),
        )

    def figures(self, method: ScoringMethod) -> dict[str, object]:
        """Return the fields of a response. At least one token must have a score."""
        fields: dict[str, object] = {
            **self._asdict(),
            "unknown_char_share": self.unknown_chars / self.n_chars,
            "mean_surprisal": self.nats / self.n_scored,
        }
        if not self.n_ends:
            fields["end_nats"] = None
        if method == "pseudo_log_likelihood":
            return fields
        nats = self.nats + self.end_nats
        loss = nats / (self.n_scored + self.n_ends)
        bits = nats / math.log(2)
        return fields | {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_char": bits / self.n_chars,
            "bits_per_byte": bits / self.n_bytes,
        }


def cancelled_error() -> AppError:
    """Return the error of a request that its client withdrew."""
    return AppError(ErrorCode.CANCELLED, "The client withdrew this request.")


def perplexity(loss_nats: float) -> float:
    """Return exp(loss), at most the largest float."""
    return math.exp(min(loss_nats, 709.0))


class WordScore(Frozen):
    """A word between white space; its surprisal does not depend on how the tokenizer splits it."""

    text: str
    span: Span
    surprisal: float | None
    """In nats; None if its first token is not scored."""


class ScoreResponse(Response):
    """Scores in nats. Lists of tokens have `n_tokens` entries, None for a token that is not scored."""

    loss: float | None = None
    """Mean over the scored tokens and the [EOS] of each line, as in an evaluation; a stream has no [EOS].

    None for a masked model, as are `perplexity`, `bits_per_char` and `bits_per_byte`.
    """
    perplexity: float | None = None
    mean_surprisal: float | None = None
    """Mean over the scored tokens, without [EOS]."""
    bits_per_char: float | None = None
    bits_per_byte: float | None = None
    """Bits per UTF-8 byte of the normalized lines."""
    nats: float | None = None
    """The sum of the surprisals of all scored tokens."""
    end_nats: float | None = None
    """The sum of the surprisals of each line's [EOS]."""
    n_ends: int | None = None
    n_chars: int | None = None
    """Characters of the scored tokens in the normalized lines; bytes are counted the same way."""
    n_bytes: int | None = None
    n_tokens: int | None = None
    n_scored: int | None = None
    unk_count: int | None = None
    unknown_chars: int | None = None
    """Characters of the scored tokens that the tokenizer does not know."""
    unknown_char_share: float | None = None
    """Their share of `n_chars`; above 0.001, `bits_per_char` is too low to compare."""
    unit: Literal["nats"] = "nats"
    method: ScoringMethod = "causal"
    """The context of a surprisal: the tokens before it, or all other tokens of its line."""
    surprisal: tuple[float | None, ...] | None = None
    rank: tuple[int | None, ...] | None = None
    entropy: tuple[float | None, ...] | None = None
    tokens: tuple[str, ...] | None = None
    unknown_token: str | None = None
    char_spans: tuple[Span, ...] | None = None
    """Half-open character ranges of the tokens in the normalized text."""
    topk: tuple[Expected, ...] | None = None
    """`topk[i]`: the prediction at the position of token i; empty for a token that is not scored."""
    context_tokens: tuple[int, ...] | None = None
    """The number of context tokens of each token, special ones included; None if no line was cut."""
    lines: tuple[LineScore, ...] | None = None
    words: tuple[WordScore, ...] | None = None
    window: WindowReport | None = None
    """None for exact scores."""

    @property
    def totals(self) -> Totals:
        counts = self.n_chars, self.n_bytes, self.n_tokens, self.n_scored, self.unk_count, self.unknown_chars
        totals = Totals(self.nats or 0.0, *(count or 0 for count in counts))
        return totals._replace(end_nats=self.end_nats or 0.0, n_ends=self.n_ends or 0)


FinishReason = Literal["eos", "stop_sequence", "max_new_tokens", "context_full"]


class SamplingOptions(InferenceRequest, json_schema_extra=describe_fields):
    """Options that choose each token and end a continuation."""

    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    temperature: NonNegativeFloat = 1.0
    """0 is greedy; lower values than 1e-6 count as 1e-6."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """0: off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop_sequences: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=8)] = ()
    seed: Seed | None = None
    repetition_penalty: Positive | None = None
    repetition_window: Annotated[int, Field(ge=1, le=65_536)] = 80
    banned_tokens: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=64)] = ()
    """Excluded tokens, by name or by text, with and without a space before it."""
    alphabet: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """The characters that the output may have; None allows all."""


GenerationPrecision = Literal["fp32", "bf16"]
"""bf16: each matrix of the model is rounded to bf16; all else is computed in fp32."""
DecodeStep = Literal["compiled", "torch"]
"""The code that reads a token: C, or the forward pass where no compiled step serves."""


class GenerateRequest(SamplingOptions, json_schema_extra=json_schema_rule(exactly_one("prompt_text", "prompt_path"))):
    """A request to continue a prompt, or a corpus by its name; an empty prompt starts from [BOS].

    With a stream, it starts from a newline, and nothing but the other options ends a continuation.
    """

    corpus_field: ClassVar[str | None] = "prompt_path"

    prompt_text: Annotated[str, limited("prompt_text", MAX_PROMPT_CHARACTERS)] | None = None
    prompt_path: CorpusName | None = None
    stop_on_eos: bool = True
    """Stop at the end of a line; without effect in a stream, which has no [EOS]."""
    num_return_sequences: Annotated[int, Field(ge=1, le=10)] = 1
    logprobs: bool = False
    """Return the log probability of each token."""
    top_logprobs: Annotated[int, Field(ge=0, le=50)] = 0
    """Above 0: return the tokens of each continuation, and at each step this number of likeliest tokens."""
    precision: GenerationPrecision = "fp32"
    """bf16 reads half as many bytes for each token after the prompt, on a CPU."""

    @classmethod
    def response_type(cls) -> "type[GenerateResponse]":
        return GenerateResponse

    @property
    def has_surprisals(self) -> bool:
        is_changed = self.repetition_penalty is not None or self.alphabet is not None or bool(self.banned_tokens)
        is_greedy = self.temperature == 0 and not is_changed
        return (self.logprobs or self.top_logprobs > 0) and has_hidden_tokens(self.top_logprobs, is_greedy=is_greedy)

    @model_validator(mode="after")
    def _one_prompt(self) -> "GenerateRequest":
        if (self.prompt_text is None) == (self.prompt_path is None):
            raise ValueError("give either `prompt_text` or `prompt_path`")
        return self


class GenerateResponse(Response):
    """Continuations without the prompt; one entry per returned sequence in every list."""

    outputs: tuple[str, ...] | None = None
    steps: tuple[int, ...] | None = None
    eos_terminated: tuple[bool, ...] | None = None
    stop_reason: tuple[FinishReason, ...] | None = None
    prompt_tokens: int | None = None
    unk_count: int | None = None
    """Unknown tokens in the prompt."""
    seed_used: int | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    """ln p of each sampled token, at temperature 1 over the complete vocabulary, before filters and penalties: -1 times
    the surprisal of the token in a score. In bf16, those of the model in bf16; scores are always in fp32."""
    tokens: tuple[tuple[str, ...], ...] | None = None
    """With `top_logprobs`: the names of the sampled tokens, `steps` of each sequence."""
    text_offsets: tuple[tuple[int, ...], ...] | None = None
    """The position in the output, before a stop sequence cuts it, at which each token begins."""
    top_logprobs: tuple[tuple[tuple[tuple[str, float], ...], ...], ...] | None = None
    """The likeliest tokens of each step with ln p as in `logprobs`, the likeliest first."""
    precision: GenerationPrecision | None = None
    """The precision that the tokens after the prompt were generated in."""
    decode_step: DecodeStep | None = None
    """The code that read the tokens after the prompt; None if there were none."""
    notes: tuple[str, ...] = ()
    """Sentences about how the prompt was read."""


def completion_end(reason: FinishReason | None) -> CompletionEnd:
    """Return the end of a completion's choice; None: nothing was to be generated."""
    return "stop" if reason in ("eos", "stop_sequence") else "length"


class GenerateChunk(Frozen):
    """A chunk of a streamed continuation; the chunks of an index, in order, are its output."""

    kind: Literal["chunk"] = "chunk"
    request_id: Identifier
    index: NonNegativeInt
    """The number of the sequence, from 0."""
    start: NonNegativeInt
    """The position of its first character in the output, or in the text of a completion."""
    text: str
    """Has no part of a stop sequence; empty only in the last chunk of a sequence."""
    stop_reason: FinishReason | None = None
    """The reason of the end in the last chunk, else None."""


class PredictRequest(InferenceRequest, json_schema_extra=describe_fields):
    """A request for the likeliest next tokens after a text, whose last line is open."""

    text: Annotated[str, limited("text", MAX_PROMPT_CHARACTERS)]
    k: Annotated[int, Field(ge=1, le=100)] = 5

    @classmethod
    def response_type(cls) -> "type[PredictResponse]":
        return PredictResponse

    @property
    def has_surprisals(self) -> bool:
        return has_hidden_tokens(self.k, is_greedy=True)


class Suggestion(Frozen):
    """A token with its probability and log probability at temperature 1.

    After a text that ends with the space of the next token, they are over the tokens that begin with that space.
    """

    token: str
    prob: float
    logp: float


class PredictResponse(Response):
    """Most probable next tokens, in descending order; empty for a text without tokens."""

    suggestions: tuple[Suggestion, ...] | None = None
    unk_count: int | None = None
    """Unknown tokens in the text."""


class ChatRequest(SamplingOptions):
    """A message of a chat; without a session id it starts one. The answer is one line."""

    session_id: Identifier | None = None
    message: Annotated[str, Field(min_length=1), limited("message", MAX_PROMPT_CHARACTERS - 1)]

    @classmethod
    def response_type(cls) -> "type[ChatResponse]":
        return ChatResponse


class ChatTurn(Frozen):
    request_id: Identifier
    message: str
    answer: str


class ChatHistory(Frozen):
    """The stored turns of a chat, the oldest first."""

    run_id: Identifier
    session_id: Identifier
    turns: tuple[ChatTurn, ...]


class ChatResponse(Response):
    session_id: Identifier
    answer: str | None = None
    steps: int | None = None
    stop_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    """Tokens of the message and of the turns that fitted."""
    unk_count: int | None = None
    turns_dropped: int | None = None
    """The number of oldest turns that did not fit."""
    seed_used: int | None = None

    @property
    def place(self) -> tuple[str, ...]:
        return (self.session_id, self.request_id)


EvalSplit = Literal["validation", "test"]


class EvalRequest(InferenceRequest, json_schema_extra=describe_fields):
    """A request to evaluate a run on one of its splits, or on another corpus."""

    corpus_field: ClassVar[str | None] = "path_override"

    split: EvalSplit = "validation"
    path_override: CorpusName | None = None

    @classmethod
    def response_type(cls) -> "type[EvalResponse]":
        return EvalResponse


class SequenceLengths(Frozen):
    """Tokens per line."""

    min: int
    p50: float
    p95: float
    max: int


class Sample(Frozen):
    """A line of `samples.jsonl`: a continuation of a prompt."""

    prompt: str
    text: str
    seed: int
    steps: int
    stop_reason: FinishReason


class TrainingSample(Frozen):
    """A line of `training_samples.jsonl`: a sample that the model generated after a step."""

    step: int
    sample: Sample


class EvalMetrics(Frozen, json_schema_extra=describe_fields):
    """`eval/metrics.json`: the metrics of the saved model on one split; docs/evaluation.md defines them."""

    run_id: Identifier
    split: EvalSplit
    objective: Objective = "causal_lm"
    """With masked_lm, the loss is over masked tokens, and there are no samples."""
    dataset: str
    status: Literal["completed"] = "completed"
    unit: Literal["nats"] = "nats"
    """The unit of `loss`, per predicted token."""
    loss: float
    perplexity: float
    bits_per_char: float | None
    """None for a masked model."""
    bits_per_byte: float | None = None
    """None for a masked model."""
    top1_accuracy: float
    top5_accuracy: float
    n_tokens: int
    n_chars: int
    n_bytes: int | None = None
    lines: LineLosses | None = None
    """Losses of the lines, from which a comparison computes its interval."""
    unknown_share: float | None = None
    """The share of unknown tokens in the text, without [EOS]."""
    unknown_chars: int | None = None
    """Characters that the unknown tokens stand for."""
    unknown_char_share: float | None = None
    """Their share of the text; above 0.001, `bits_per_char` is too low to compare."""
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
    baseline: Baseline | None = None
    """Losses of counting on the split; None for another text, a masked model, and in runs of older versions."""
    leak: Leak | None = None
    """What of the text the run and its ancestors have trained on; None in evaluations of older versions."""
    notes: tuple[str, ...] = ()
    """Warnings about the text: how much of it was trained on, and what was not searched."""


def summary_of(metrics: EvalMetrics, dataset: str | None = None) -> EvalSummary:
    """Return the entry of a manifest for an evaluation; `dataset` is the corpus measured instead of a split."""
    fields: dict[str, object] = metrics.model_dump(include=set(EvalSummary.model_fields))
    return EvalSummary.model_validate(fields | {"dataset": dataset})


class EvalResponse(Response):
    metrics: EvalMetrics | None = None

    def measured(self) -> EvalMetrics:
        """Return the metrics; raises SERVICE_UNAVAILABLE if it has none."""
        if self.metrics is None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, NO_RESULT)
        return self.metrics


class SectionsRequest(InferenceRequest):
    """A request to score the texts of an experiment; the losses are files in the folder of the run."""

    experiment_id: Identifier

    @classmethod
    def response_type(cls) -> "type[SectionsResponse]":
        return SectionsResponse


class SectionsResponse(Response):
    n_texts: int | None = None


class ScoreRecord(InferenceRecord):
    kind: Literal["score"] = "score"
    request: ScoreRequest
    response: ScoreResponse


class GenerateRecord(InferenceRecord):
    kind: Literal["generate"] = "generate"
    request: GenerateRequest
    response: GenerateResponse


class PredictRecord(InferenceRecord):
    kind: Literal["predict"] = "predict"
    request: PredictRequest
    response: PredictResponse


class ChatRecord(InferenceRecord):
    kind: Literal["chat"] = "chat"
    request: ChatRequest
    response: ChatResponse
    turns: tuple[ChatTurn, ...] = ()
    """The earlier turns, while the request is active; the chat history stores them otherwise."""


class EvalRecord(InferenceRecord):
    """A stored evaluation request. The run's folder has its metrics too."""

    kind: Literal["evaluate"] = "evaluate"
    request: EvalRequest
    response: EvalResponse


class SectionsRecord(InferenceRecord):
    kind: Literal["sections"] = "sections"
    request: SectionsRequest
    response: SectionsResponse


KindName = Literal["score", "sequences", "items", "generate", "complete", "predict", "chat", "evaluate", "sections"]
AnyRecord = (
    ScoreRecord
    | SequencesRecord
    | ItemsRecord
    | GenerateRecord
    | CompletionRecord
    | PredictRecord
    | ChatRecord
    | EvalRecord
    | SectionsRecord
)
inference_adapter: TypeAdapter[AnyRecord] = TypeAdapter(
    Annotated[AnyRecord, Field(discriminator="kind")],
    config=ConfigDict(defer_build=True, hide_input_in_errors=True),
)


def failed_record(record: RecordT, error: RunError) -> RecordT:
    """Return the record of a failed request."""
    return changed(record, response=changed(record.response, status="failed", error=error))
