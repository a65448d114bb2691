"""Asking a finished run: scores, generations and evaluations, as requests, answers and stored records."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter, model_validator

from trainer.contracts.base import Frozen, Identifier, JobState, Positive, Timestamp, changed
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusName, EvalSummary

MAX_TEXT_CHARACTERS, MAX_PROMPT_CHARACTERS = 2_000_000, 100_000
"""The longest text that is scored at a time, and the longest prompt."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]


CHAT_EXPIRED = "This chat has expired: start a new one."


def check_text_length(what: str, characters: float, most: int) -> None:
    """Raise PAYLOAD_TOO_LARGE where a text has too many characters."""
    if characters > most:
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, f"{what} is too long: at most {most:,} characters are taken.")


def _text(text: str) -> str:
    check_text_length("`text`", len(text), MAX_TEXT_CHARACTERS)
    return text


def _prompt(text: str) -> str:
    check_text_length("`prompt_text`", len(text), MAX_PROMPT_CHARACTERS)
    return text


def _prefix(text: str) -> str:
    check_text_length("`text`", len(text), MAX_PROMPT_CHARACTERS)
    return text


def _message(text: str) -> str:
    check_text_length("`message`", len(text), MAX_PROMPT_CHARACTERS - 1)
    return text


DetailLevel = Literal["summary", "per_line", "per_word", "per_char"]


class ScoreRequest(Frozen):
    """Score a text, or a corpus by its name, line by line, each line from [BOS] (DEC D50)."""

    text: Annotated[str, Field(min_length=1), AfterValidator(_text)] | None = None
    path: CorpusName | None = None
    detail_level: DetailLevel = "summary"
    """Each has what those before it have: the figures, then a list of lines, of words, and lists of tokens."""
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    context: Literal["bos", "none"] = "bos"
    """What stands before a line; with `none` its first token is read and not scored (causal models only)."""
    pll_within_word: bool = False
    """Of masked models: mask the later tokens of a word too (Kauf and Ivanova 2023), so that it does not give itself
    away."""
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
    stride_tokens: int = 0
    """How many tokens every window but a line's first scores; of a masked model 1: each token has its own window."""
    cut_lines: int = 0
    """How many lines are longer than a window, with their begin and end where a masked model reads these."""
    compared_tokens: int
    """The first tokens of the longest line, scored in both ways; 0 where no line is longer than a window, where the
    model cannot read more than a window at once, and of a masked model."""
    max_difference_nats: float
    """The largest that a token's surprisals differ."""


Span = tuple[int, int]
"""A half-open range of the normalized text."""
Expected = tuple[tuple[str, float], ...]
"""The likeliest tokens at a position with their probabilities, likeliest first."""


class LineScore(Frozen):
    """What the tokens of one line add up to."""

    number: Annotated[int, Field(ge=1)]
    """Which line of the text it is; blank ones count, and have no score."""
    span: Span
    n_tokens: int
    n_scored: int
    unk_count: int
    nats: float
    """The surprisal of its scored tokens, added up."""
    end_nats: float | None = None
    """The surprisal of its [EOS]; None with a masked model, which does not score it."""
    n_chars: int
    n_bytes: int

    @property
    def n_ends(self) -> int:
        return int(self.end_nats is not None)


class Totals(NamedTuple):
    """What scored lines, or texts, add up to."""

    nats: float = 0.0
    n_chars: int = 0
    n_bytes: int = 0
    n_tokens: int = 0
    n_scored: int = 0
    unk_count: int = 0
    end_nats: float = 0.0
    """The surprisals of the [EOS] of all lines, added up."""
    n_ends: int = 0
    """Lines whose [EOS] is scored: none with a masked model."""

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
            end_nats=math.fsum(part.end_nats or 0.0 for part in parts),
            n_ends=sum(part.n_ends for part in parts),
        )

    def figures(self) -> dict[str, object]:
        """Return the fields of a response; at least one token must have a score."""
        predicted_nats = self.nats + self.end_nats
        loss = predicted_nats / (self.n_scored + self.n_ends) if self.n_ends else None
        bits = predicted_nats / math.log(2) if self.n_ends else None
        return {
            "nats": self.nats,
            "n_chars": self.n_chars,
            "n_bytes": self.n_bytes,
            "n_tokens": self.n_tokens,
            "n_scored": self.n_scored,
            "unk_count": self.unk_count,
            "end_nats": self.end_nats if self.n_ends else None,
            "n_ends": self.n_ends,
            "loss": loss,
            "perplexity": None if loss is None else perplexity(loss),
            "mean_surprisal": self.nats / self.n_scored,
            "bits_per_char": None if bits is None else bits / self.n_chars,
            "bits_per_byte": None if bits is None else bits / self.n_bytes,
        }


def cancelled_error() -> AppError:
    """How a request ends that was taken back while it was answered."""
    return AppError(ErrorCode.CANCELLED, "Whoever asked for this has gone away.")


def perplexity(loss_nats: float) -> float:
    """Return exp(loss), at most the largest float."""
    return math.exp(min(loss_nats, 709.0))


class WordScore(Frozen):
    """A word between white space; what it consists of in tokens does not matter to its surprisal."""

    text: str
    span: Span
    surprisal: float | None
    """In nats; None where its first token has none."""


class ScoreResponse(Frozen):
    """Surprisals in nats; lists of tokens have `n_tokens` entries, None for one that is not scored."""

    request_id: Identifier
    run_id: Identifier
    status: JobState
    loss: float | None = None
    """Mean over the scored tokens and the [EOS] of each line, as an evaluation of the same lines measures it.

    None with a masked model, as are `perplexity`, `bits_per_char` and `bits_per_byte`.
    """
    perplexity: float | None = None
    mean_surprisal: float | None = None
    """Mean over the scored tokens of the text, without [EOS]."""
    bits_per_char: float | None = None
    bits_per_byte: float | None = None
    """Per UTF-8 byte of the normalized lines."""
    nats: float | None = None
    """The surprisal of all scored tokens, added up."""
    end_nats: float | None = None
    """The surprisals of the [EOS] of all lines, added up."""
    n_ends: int | None = None
    n_chars: int | None = None
    """Characters of the normalized lines, without those of tokens that are not scored; so are bytes counted."""
    n_bytes: int | None = None
    n_tokens: int | None = None
    n_scored: int | None = None
    unk_count: int | None = None
    unit: Literal["nats"] = "nats"
    method: Literal["causal", "pseudo_log_likelihood"] = "causal"
    """What a surprisal is given: what stands before the token, or all of its line but the token itself."""
    surprisal: tuple[float | None, ...] | None = None
    rank: tuple[int | None, ...] | None = None
    entropy: tuple[float | None, ...] | None = None
    tokens: tuple[str, ...] | None = None
    unknown_token: str | None = None
    """What stands among the tokens for what the vocabulary has not."""
    char_spans: tuple[Span, ...] | None = None
    """Half-open ranges of the normalized text."""
    topk: tuple[Expected, ...] | None = None
    """`topk[i]`: what was expected in the place of token i, likeliest first, with probabilities; none where it has no
    score."""
    context_tokens: tuple[int, ...] | None = None
    """How many tokens each one is given, [BOS] and [EOS] among them; only where windows cut lines."""
    lines: tuple[LineScore, ...] | None = None
    words: tuple[WordScore, ...] | None = None
    window: WindowReport | None = None
    """None: the scores are exact."""
    error: RunError | None = None

    @property
    def totals(self) -> Totals:
        counts = self.n_chars, self.n_bytes, self.n_tokens, self.n_scored, self.unk_count
        totals = Totals(self.nats or 0.0, *(count or 0 for count in counts))
        return totals._replace(end_nats=self.end_nats or 0.0, n_ends=self.n_ends or 0)


FinishReason = Literal["eos", "stop_sequence", "max_new_tokens", "context_full"]


class SamplingOptions(Frozen):
    """How each token is chosen, and where a continuation ends; equal for every family of models."""

    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    temperature: NonNegativeFloat = 1.0
    """0 is greedy; what is colder than 1e-6 is taken for 1e-6."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """0 is off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop_sequences: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=8)] = ()
    seed: Seed | None = None
    repetition_penalty: Positive | None = None
    repetition_window: Annotated[int, Field(ge=1, le=65_536)] = 80
    banned_tokens: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=64)] = ()
    """Tokens that are never written, each by its name or by its text, with and without the space before it."""
    alphabet: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """Only tokens are written that are made of these characters; None allows all."""


class GenerateRequest(SamplingOptions):
    """Continue a prompt, or a corpus by its name to the last character; an empty prompt starts from [BOS]."""

    prompt_text: Annotated[str, AfterValidator(_prompt)] | None = None
    prompt_path: CorpusName | None = None
    stop_on_eos: bool = True
    num_return_sequences: Annotated[int, Field(ge=1, le=10)] = 1
    logprobs: bool = False
    """Whether the answer says how likely each token was."""

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
    stop_reason: tuple[FinishReason, ...] | None = None
    prompt_tokens: int | None = None
    unk_count: int | None = None
    """Tokens of the prompt that the model does not know."""
    seed_used: int | None = None
    logprobs: tuple[tuple[float, ...], ...] | None = None
    """ln p of each sampled token, `steps` of them, where asked for: given all before it by the model as it is, at
    temperature 1 and over the whole vocabulary, whatever was filtered, penalized or forbidden; -1 times what a score of
    the same text says."""
    error: RunError | None = None


class GenerateChunk(Frozen):
    """A piece of a continuation, told while it is written; the pieces of an index, in order, are its output."""

    kind: Literal["chunk"] = "chunk"
    request_id: Identifier
    index: NonNegativeInt
    """Which of the returned sequences it is of."""
    start: NonNegativeInt
    """How many characters of the output come before it."""
    text: str
    """Never a part of a stop sequence; empty only where it is the last of its sequence."""
    stop_reason: FinishReason | None = None
    """Why the sequence ended with it; None where it goes on."""


class PredictRequest(Frozen):
    """Which tokens may come next after a text; its last line is open, as in a prompt."""

    text: Annotated[str, AfterValidator(_prefix)]
    k: Annotated[int, Field(ge=1, le=100)] = 5


class Suggestion(Frozen):
    """A token as people see it, and its probability and ln probability by the model as it is."""

    token: str
    prob: float
    logp: float


class PredictResponse(Frozen):
    """The likeliest next tokens, likeliest first; none for a text without tokens."""

    request_id: Identifier
    run_id: Identifier
    status: JobState
    suggestions: tuple[Suggestion, ...] | None = None
    unk_count: int | None = None
    """Tokens of the text that the model does not know."""
    error: RunError | None = None


class ChatRequest(SamplingOptions):
    """Say something in a chat, or begin one where no session is named; the answer is one line."""

    session_id: Identifier | None = None
    message: Annotated[str, Field(min_length=1), AfterValidator(_message)]


class ChatTurn(Frozen):
    """Something that was said in a chat, and what was answered."""

    request_id: Identifier
    message: str
    answer: str


class ChatHistory(Frozen):
    """A chat as far as it is kept: its turns, the oldest first."""

    run_id: Identifier
    session_id: Identifier
    turns: tuple[ChatTurn, ...]


class ChatResponse(Frozen):
    """An answer in a chat."""

    request_id: Identifier
    run_id: Identifier
    session_id: Identifier
    status: JobState
    answer: str | None = None
    steps: int | None = None
    stop_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    """Tokens of all that was read: the turns that had room, and the message."""
    unk_count: int | None = None
    turns_dropped: int | None = None
    """How many turns, the oldest ones, the model did not read: they had no room."""
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


class Sample(Frozen):
    """A line of `samples.jsonl`: what the model of a run writes after a prompt."""

    prompt: str
    text: str
    seed: int
    steps: int
    stop_reason: FinishReason


class EvalMetrics(Frozen):
    """`eval/metrics.json`: what the saved model does on one split; docs/evaluation.md says what each number is."""

    run_id: Identifier
    split: EvalSplit
    objective: Objective = "causal_lm"
    """With masked_lm the loss and what comes from it are over masked tokens, and nothing is generated."""
    dataset: str
    status: Literal["completed"] = "completed"
    unit: Literal["nats"] = "nats"
    """Of `loss`, per predicted token."""
    loss: float
    perplexity: float
    bits_per_char: float | None
    """None of a masked model."""
    bits_per_byte: float | None = None
    """None of a masked model, and, as the next ones, where a version measured that did not know of it."""
    top1_accuracy: float
    top5_accuracy: float
    n_tokens: int
    n_chars: int
    n_bytes: int | None = None
    unknown_share: float | None = None
    """Of the tokens of the text, [EOS] not counted, those that the tokenizer does not know."""
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


def summary_of(metrics: EvalMetrics, dataset: str | None = None) -> EvalSummary:
    """What a manifest keeps of an evaluation; `dataset` is the text that was measured in place of a split."""
    return EvalSummary(
        split=metrics.split,
        dataset=dataset,
        loss=metrics.loss,
        perplexity=metrics.perplexity,
        bits_per_char=metrics.bits_per_char,
        top1_accuracy=metrics.top1_accuracy,
        top5_accuracy=metrics.top5_accuracy,
        unknown_share=metrics.unknown_share,
    )


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

    user_id: int | None = None
    """Who asks, in chat; None at a terminal."""


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
    is_streamed: bool = False
    """Whether its asker reads along while it is written."""


class PredictRecord(_Record):
    """A question for what comes next, as Redis keeps it for a while: the only place where its text is."""

    kind: Literal["predict"] = "predict"
    request: PredictRequest
    response: PredictResponse


class ChatRecord(_Record):
    """A message and its answer as Redis keeps them for a while."""

    kind: Literal["chat"] = "chat"
    request: ChatRequest
    response: ChatResponse
    turns: tuple[ChatTurn, ...] = ()
    """What was said before, while it is answered; the history keeps it otherwise."""


class EvalRecord(_Record):
    """An evaluation as Redis keeps it for a while; its metrics are in the run's directory too."""

    kind: Literal["evaluate"] = "evaluate"
    request: EvalRequest
    response: EvalResponse


InferenceKind = Literal["score", "generate", "predict", "chat", "evaluate"]
InferenceRecord = ScoreRecord | GenerateRecord | PredictRecord | ChatRecord | EvalRecord
UNBOUNDED_KINDS: frozenset[InferenceKind] = frozenset({"score", "evaluate"})
"""What takes the time that its text takes; all others have a limit that their requests name."""
inference_adapter: TypeAdapter[InferenceRecord] = TypeAdapter(
    Annotated[InferenceRecord, Field(discriminator="kind")], config=ConfigDict(hide_input_in_errors=True)
)


def failed_record(record: InferenceRecord, error: RunError) -> InferenceRecord:
    """The record of a request that could not be answered."""
    return changed(record, response=changed(record.response, status="failed", error=error))
