"""The computing half of the table of inference kinds, for all kinds that need only a model and its tokenizer."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar, get_args

from trainer.contracts.base import changed, narrowed
from trainer.contracts.chats import ChatRecord, ChatResponse
from trainer.contracts.completions import CompletionRecord
from trainer.contracts.errors import AppError, RunError
from trainer.contracts.generations import GenerateChunk, GenerateRecord, GenerateResponse, GenerationPrecision
from trainer.contracts.inference_fields import InferenceRecord, RecordT, Response
from trainer.contracts.items import ItemsRecord
from trainer.contracts.predictions import PredictRecord
from trainer.contracts.reports import note
from trainer.contracts.scores import ScoreRecord
from trainer.contracts.segmentation import SegmentRecord
from trainer.contracts.sequences import SequencesRecord
from trainer.data.normalization import normalized
from trainer.inference.chat import chat_answer, chat_prompt
from trainer.inference.completion import CompletionJob, complete_together
from trainer.inference.frequencies import Frequencies
from trainer.inference.generation import GenerationJob, generate_together
from trainer.inference.items import score_items
from trainer.inference.leaks import LeakSearch, leak_of_lines
from trainer.inference.prediction import PrefixCache, predict
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.inference.segmentation import segment
from trainer.inference.sequences import score_parts
from trainer.models import untrained
from trainer.models.base import LanguageModel
from trainer.models.ngram import CountedText
from trainer.reports.leak_notes import leak_notes, training_text_note, unit_leak_notes
from trainer.reports.report_text import ENGLISH
from trainer.system.files import to_app_error
from trainer.tokenizers.base import Tokenizer


class LoadedModel(Protocol):
    """A model in memory."""

    @property
    def model(self) -> LanguageModel: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def prefixes(self) -> PrefixCache: ...

    @property
    def frequencies(self) -> Frequencies: ...

    @property
    def count_text(self) -> Callable[[], CountedText] | None:
        """Counts the training text; raises DATA_NOT_FOUND if it is deleted or has changed."""

    @property
    def find_leak(self) -> LeakSearch | None:
        """Searches what the run has read; None for a model without a run."""


LoadedT = TypeVar("LoadedT")
JobT = TypeVar("JobT")
Answers = Iterator[Response | GenerateChunk]
Withdrawn = Callable[[], Collection[str]]
"""Returns the ids of withdrawn requests."""
Compute = Callable[[LoadedT, Sequence[InferenceRecord], Withdrawn], Answers]
"""Answers requests of one kind to one run; the chunks of a streamed text come before its response."""
_ChatJob = tuple[GenerationJob, ChatResponse]
"""A generation, and the response of the chat without its answer."""


def together(
    model: type[RecordT],
    prepare: Callable[[LoadedT, RecordT], JobT],
    answer: Callable[[LoadedT, list[JobT], Withdrawn], Answers],
    folders: Mapping[str, Path] = MappingProxyType({}),
) -> Compute[LoadedT]:
    """Return the function of a kind whose requests are answered side by side.

    A request that cannot be prepared fails alone; `folders` are those that an error of the disk may name.
    """

    def compute(loaded: LoadedT, records: Sequence[InferenceRecord], withdrawn: Withdrawn) -> Answers:
        jobs: list[JobT] = []
        for record in records:
            try:
                jobs.append(prepare(loaded, narrowed(model, record)))
            except (AppError, OSError) as error:
                yield changed(record.response, status="failed", error=RunError.of(to_app_error(error, folders)))
        if jobs:
            yield from answer(loaded, jobs, withdrawn)

    return compute


def alone(
    model: type[RecordT],
    respond: Callable[[LoadedT, RecordT], Response],
    folders: Mapping[str, Path] = MappingProxyType({}),
) -> Compute[LoadedT]:
    """Return the function of a kind whose requests are answered one after the other."""
    return together(model, respond, lambda _, responses, __: iter(responses), folders)


def _scoring(loaded: LoadedModel, record: ScoreRecord) -> ScoringJob:
    return ScoringJob.of(loaded.tokenizer, record.request, record.response)


def _score(loaded: LoadedModel, jobs: list[ScoringJob], withdrawn: Withdrawn) -> Answers:
    for job, response in zip(jobs, score_texts(loaded.model, loaded.tokenizer, jobs), strict=True):
        search = loaded.find_leak if job.request.is_searched else None
        leak = leak_of_lines(search, [line.text for line in job.lines])
        notes = () if leak is None else leak_notes(leak, note("this text"), training_text_note(response.run_id))
        yield changed(response, leak=leak, notes=tuple(notes))


def _sequences(loaded: LoadedModel, record: SequencesRecord) -> Response:
    seed = record.request.untrained_seed
    model = loaded.model if seed is None else untrained(loaded.model, seed)
    return score_parts(model, loaded.tokenizer, record.request, record.response)


def _items(loaded: LoadedModel, record: ItemsRecord) -> Response:
    is_without = record.request.has_counts is False
    frequencies = Frequencies(loaded.tokenizer) if is_without else loaded.frequencies
    response = score_items(loaded.model, loaded.tokenizer, record.request, record.response, frequencies)
    texts = [normalized(text.text, loaded.tokenizer.normalization) for text in record.request.texts()]
    leak = leak_of_lines(None if is_without else loaded.find_leak, texts)
    warnings = map(ENGLISH.note, unit_leak_notes(leak, note("the text of the table"), response.run_id))
    return changed(response, leak=leak, notes=(*response.notes, *warnings))


def _segment(loaded: LoadedModel, record: SegmentRecord) -> Response:
    is_without = record.request.has_counts is False
    count_text, search = (None, None) if is_without else (loaded.count_text, loaded.find_leak)
    return segment(loaded.model, loaded.tokenizer, record.request, record.response, count_text, search)


def _generation(loaded: LoadedModel, record: GenerateRecord) -> GenerationJob:
    return GenerationJob(
        loaded.model, loaded.tokenizer, record.request, record.response, is_streamed=record.is_streamed
    )


def _generate(loaded: LoadedModel, jobs: list[GenerationJob], withdrawn: Withdrawn) -> Answers:
    """Continue prompts, those of each precision together."""
    precisions: tuple[GenerationPrecision, ...] = get_args(GenerationPrecision)
    for precision in precisions:
        alike = [job for job in jobs if job.request.precision == precision]
        yield from generate_together(loaded.model, alike, withdrawn=withdrawn)


def _chat(loaded: LoadedModel, record: ChatRecord) -> _ChatJob:
    chat = record.response
    prompt, dropped = chat_prompt(loaded.model, loaded.tokenizer, record.request, record.turns)
    queued = GenerateResponse(request_id=chat.request_id, run_id=chat.run_id, status="queued")
    return GenerationJob(loaded.model, loaded.tokenizer, prompt, queued), changed(chat, turns_dropped=dropped)


def _continue_chats(loaded: LoadedModel, jobs: list[_ChatJob], withdrawn: Withdrawn) -> Answers:
    chats = {job.request_id: chat for job, chat in jobs}
    for written in generate_together(loaded.model, [job for job, _ in jobs], withdrawn=withdrawn):
        yield chat_answer(chats[written.request_id], narrowed(GenerateResponse, written))


def _completion(loaded: LoadedModel, record: CompletionRecord) -> CompletionJob:
    return CompletionJob(
        loaded.model, loaded.tokenizer, record.request, record.response, is_streamed=record.is_streamed
    )


def _complete(loaded: LoadedModel, jobs: list[CompletionJob], withdrawn: Withdrawn) -> Answers:
    yield from complete_together(loaded.model, jobs, withdrawn=withdrawn)


def _predict(loaded: LoadedModel, record: PredictRecord) -> Response:
    return predict(loaded.model, loaded.tokenizer, record.request, record.response, loaded.prefixes)


COMPUTE: Mapping[str, Compute[LoadedModel]] = {
    "score": together(ScoreRecord, _scoring, _score),
    "sequences": alone(SequencesRecord, _sequences),
    "items": alone(ItemsRecord, _items),
    "segment": alone(SegmentRecord, _segment),
    "generate": together(GenerateRecord, _generation, _generate),
    "complete": together(CompletionRecord, _completion, _complete),
    "predict": alone(PredictRecord, _predict),
    "chat": together(ChatRecord, _chat, _continue_chats),
}
"""The functions by the names of their kinds."""
