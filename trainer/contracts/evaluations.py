"""Requests, responses and records of evaluations, and the metrics that they measure."""

from typing import ClassVar, Literal, Self

from trainer.contracts.base import CountOptions, Frozen, Identifier, Timestamp, changed, describe_fields
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import NO_RESULT, InferenceRecord, InferenceRequest, Response
from trainer.contracts.intervals import LineLosses
from trainer.contracts.models import Objective
from trainer.contracts.reports import Note
from trainer.contracts.runs import CorpusName, EvalSummary, KnownFigures, Leak
from trainer.contracts.training_options import SamplePrompts

EvalSplit = Literal["validation", "test"]


class EvalRequest(CountOptions, InferenceRequest, json_schema_extra=describe_fields):
    """A request to evaluate a run on one of its splits, or on another corpus."""

    corpus_field: ClassVar[str | None] = "path_override"

    split: EvalSplit = "validation"
    path_override: CorpusName | None = None
    sample_prompts: SamplePrompts | None = None
    """The texts that samples continue: the first words of lines of the text, or none; default: as in training."""
    is_stored: bool = True
    """Add the metrics and samples to the run. Only its owner does; admins do too, for its splits. The metrics of others
    are in the response only."""

    @classmethod
    def response_type(cls) -> "type[EvalResponse]":
        return EvalResponse

    @property
    def reads_own_text(self) -> bool:
        return self.path_override is None

    def without_quotes(self) -> Self | None:
        return None if self.sample_prompts == "held_out" else changed(self, sample_prompts="none")


class SequenceLengths(Frozen):
    """Tokens per line."""

    min: int
    p50: float
    p95: float
    max: int


class EvalMetrics(Frozen, json_schema_extra=describe_fields):
    """`eval/metrics.json`: the metrics of the saved model on one split; docs/evaluation.md defines them."""

    schema_version: Literal[4] = 4
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
    lines: LineLosses
    """Losses of the lines, from which a comparison computes its interval."""
    unknown_share: float | None = None
    """The share of unknown tokens in the text, without [EOS]."""
    unknown_chars: int | None = None
    """Characters that the unknown tokens stand for."""
    unknown_char_share: float | None = None
    """Their share of the text; above 0.001, all figures are too low to compare with other tokenizers."""
    known: KnownFigures | None = None
    """The figures over known tokens; None of earlier versions, and of text without any known token."""
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
    """Losses of counting on the split; None for another text, and for a masked model."""
    leak: Leak | None = None
    """The shares of the text that the run and its ancestors have trained on; None if they were not measured."""
    notes: tuple[Note, ...] = ()
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


class EvalRecord(InferenceRecord):
    """A stored evaluation request. The run's folder has its metrics too."""

    kind: Literal["evaluate"] = "evaluate"
    request: EvalRequest
    response: EvalResponse
