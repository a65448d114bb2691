"""The table of inference kinds: what a request needs, and what limits it.

`trainer/inference/kinds.py` has the other half, which computes the responses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

from trainer.contracts.base import narrowed
from trainer.contracts.chats import ChatRecord, ChatRequest
from trainer.contracts.completions import CompletionRecord, CompletionRequest
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.evaluations import EvalRecord, EvalRequest
from trainer.contracts.generations import GenerateRecord, GenerateRequest
from trainer.contracts.inference import KindName
from trainer.contracts.inference_fields import EMPTY_PREFIX, Asks, InferenceRecord, InferenceRequest, ResponseT
from trainer.contracts.items import ItemsRecord, ItemsRequest
from trainer.contracts.models import Objective
from trainer.contracts.predictions import PredictRecord, PredictRequest
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.contracts.sections import SectionsRecord, SectionsRequest
from trainer.contracts.segmentation import SegmentRecord, SegmentRequest
from trainer.contracts.sequences import SequencesRecord, SequencesRequest, Tokenizations
from trainer.data.corpora import CorpusStore
from trainer.data.input_text import load_input
from trainer.data.normalization import documents

RequestT = TypeVar("RequestT", bound=InferenceRequest)


def check_generates(objective: Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for a model that cannot generate text."""
    if objective == "masked_lm":
        message = "This run was trained with masked_lm and cannot generate text. Score text instead."
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, message)


def check_scores(request: ScoreRequest, objective: Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for options that the model does not support."""
    if objective == "masked_lm" and request.context == "none":
        message = "'none' is for causal models only; this run was trained with masked_lm."
        raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "context", message)
    _check_pll(objective, within_word=request.pll_within_word)


def _check_pll(objective: Objective, *, within_word: bool) -> None:
    """Raise MODEL_INCOMPATIBLE if a causal model is to hide the rest of a word."""
    if objective == "causal_lm" and within_word:
        message = "is for masked models only; this run was trained with causal_lm."
        raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "pll_within_word", message)


def _check_sequences(request: SequencesRequest, objective: Objective) -> None:
    _check_pll(objective, within_word=request.pll_within_word)
    if objective == "masked_lm" and request.has_end:
        message = "(the measure `end` of batteries) is for causal models only; this run was trained with masked_lm."
        raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "has_end", message)
    _check_tokenizations(objective, request.tokenizations)


def _check_items(request: ItemsRequest, objective: Objective) -> None:
    _check_pll(objective, within_word=request.pll_within_word)
    _check_tokenizations(objective, request.tokenizations)


def _check_segments(request: SegmentRequest, objective: Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for a masked model, whose predictions know the text after a place."""
    if objective == "masked_lm":
        message = "This run was trained with masked_lm. Word segmentation needs a run trained with causal_lm."
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, message)


def _check_tokenizations(objective: Objective, tokenizations: Tokenizations) -> None:
    """Raise MODEL_INCOMPATIBLE if a masked model is to sum over tokenizations."""
    if objective == "masked_lm" and tokenizations == "marginal":
        message = "'marginal' is for causal models only; this run was trained with masked_lm."
        raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "tokenizations", message)


class InferenceKind(NamedTuple):
    """One kind of inference request."""

    name: KindName
    request: type[InferenceRequest]
    record: type[InferenceRecord]
    supports: Callable[[object, Objective], None]
    """Raises MODEL_INCOMPATIBLE for a request that no model with this objective answers."""
    check: Callable[[object, EffectiveRequest, CorpusStore], Awaitable[None]]
    """Raises an error for a request whose text a worker would refuse."""
    is_unbounded: bool
    """It has no time limit, because its time depends on the text."""
    writes_run: bool
    """It adds files to its run, may take hours, and is answered alone."""
    reads_training_text: bool
    """It needs the corpora of its run."""
    is_slow: bool
    """It may take minutes: a process of its own answers it, while other people's requests go on."""
    is_generated: bool
    """Once its client has left, it ends after the current token."""


async def _check_nothing(request: InferenceRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    """Leave a request to the worker."""


def _kind(
    request: type[RequestT],
    record: type[InferenceRecord],
    *,
    supports: Callable[[RequestT, Objective], None] = lambda _, objective: check_generates(objective),
    check: Callable[[RequestT, EffectiveRequest, CorpusStore], Awaitable[None]] = _check_nothing,
    is_unbounded: bool = False,
    writes_run: bool = False,
    reads_training_text: bool = False,
    is_slow: bool = False,
    is_generated: bool = False,
) -> InferenceKind:
    def supports_any(given: object, objective: Objective) -> None:
        supports(narrowed(request, given), objective)

    def check_any(given: object, effective: EffectiveRequest, corpora: CorpusStore) -> Awaitable[None]:
        return check(narrowed(request, given), effective, corpora)

    flags = is_unbounded or writes_run, writes_run, reads_training_text, is_slow or writes_run, is_generated
    name: KindName = record.model_fields["kind"].default
    return InferenceKind(name, request, record, supports_any, check_any, *flags)


def _answers_all(request: InferenceRequest, objective: Objective) -> None:
    """Accept every model."""


async def _check_prompt(request: GenerateRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    await asyncio.to_thread(load_input, request, corpora)


async def _check_score(request: ScoreRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    loaded = await asyncio.to_thread(load_input, request, corpora)
    _check_not_blank(effective, "`text` has nothing to score: it is blank.", loaded.text)


async def _check_completion(request: CompletionRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    texts = [prompt for prompt in request.prompts if isinstance(prompt, str)]
    _check_not_blank(effective, "`prompt` has nothing to read: it is blank.", *texts)


async def _check_prediction(request: PredictRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    _check_not_blank(effective, EMPTY_PREFIX, request.text)


async def _check_lines(request: SegmentRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    def check() -> None:
        from trainer.reading.segmentation import lines_of  # NumPy, which the bot needs for nothing else

        lines_of(request, effective.tokenizer.method, effective.tokenizer.normalization)

    await asyncio.to_thread(check)


async def _check_evaluation(request: EvalRequest, effective: EffectiveRequest, corpora: CorpusStore) -> None:
    if request.path_override is not None:
        await corpora.describe(request.path_override, "path_override")


def _check_not_blank(effective: EffectiveRequest, message: str, *texts: str | None) -> None:
    """Raise INVALID_INPUT if a text has no document: an empty one in a stream, else one of blank lines."""
    for text in texts:
        if not any(document.text for document in documents(text or "", effective.documents)):
            raise AppError(ErrorCode.INVALID_INPUT, message)


_KINDS = (
    _kind(
        ScoreRequest,
        ScoreRecord,
        supports=check_scores,
        check=_check_score,
        is_unbounded=True,
    ),
    _kind(
        SequencesRequest,
        SequencesRecord,
        supports=_check_sequences,
        is_unbounded=True,
    ),
    _kind(
        ItemsRequest,
        ItemsRecord,
        supports=_check_items,
        is_unbounded=True,
        reads_training_text=True,
    ),
    _kind(
        SegmentRequest,
        SegmentRecord,
        supports=_check_segments,
        check=_check_lines,
        is_unbounded=True,
        reads_training_text=True,
        is_slow=True,
    ),
    _kind(
        GenerateRequest,
        GenerateRecord,
        check=_check_prompt,
        is_generated=True,
    ),
    _kind(CompletionRequest, CompletionRecord, check=_check_completion, is_generated=True),
    _kind(
        PredictRequest,
        PredictRecord,
        check=_check_prediction,
    ),
    _kind(
        ChatRequest,
        ChatRecord,
        is_generated=True,
    ),
    _kind(
        EvalRequest,
        EvalRecord,
        supports=_answers_all,
        check=_check_evaluation,
        writes_run=True,
    ),
    _kind(SectionsRequest, SectionsRecord, supports=_answers_all, writes_run=True),
)
KINDS: Mapping[str, InferenceKind] = {kind.name: kind for kind in _KINDS}
_BY_CLASS: Mapping[type[object], InferenceKind] = {
    part: kind for kind in _KINDS for part in (kind.request, kind.request.response_type(), kind.record)
}


def kind_of(part: object) -> InferenceKind:
    """Return the kind of a request, a response or a record."""
    return _BY_CLASS[type(part)]


def new_record(request: Asks[ResponseT], **fields: object) -> tuple[ResponseT, InferenceRecord]:
    """Return the queued response of a request, made of these fields, and their record."""
    fields["status"] = "queued"
    response = request.response_type().model_validate(fields)
    parts: dict[str, object] = {"request": request, "response": response}
    return response, kind_of(request).record.model_validate(parts)
