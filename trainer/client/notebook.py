"""Methods of a model in a notebook: the same for a model in memory and for one on a server."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable
from warnings import warn

from trainer.batteries.reading import with_distinct_names
from trainer.batteries.scoring import score_batteries
from trainer.batteries.sources import battery_at
from trainer.config.settings import load_settings
from trainer.config.validation import parse, safe_name
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryOptions, BatterySummary
from trainer.contracts.cells import ABSENT
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.items import Cell, ItemOptions, item_notes
from trainer.contracts.models import Objective
from trainer.contracts.predictions import PredictRequest, Suggestion
from trainer.contracts.reports import note
from trainer.contracts.runs import RunModel, largest_leak
from trainer.contracts.scores import ScoreRequest, ScoreResponse
from trainer.contracts.segmentation import SegmentationResult, SegmentRequest
from trainer.data.item_tables import item_requests
from trainer.queue.inference_kinds import kind_of
from trainer.reports.leak_notes import unit_leak_notes
from trainer.reports.report_text import ENGLISH


class Frame(Protocol):
    """A table with named columns, made from a mapping of columns: a frame of pandas or of polars."""

    def __init__(self, columns: Mapping[str, Sequence[object]], /) -> None: ...

    @property
    def columns(self) -> Iterable[str]: ...

    def __getitem__(self, column: str, /) -> Iterable[object]: ...


FrameT = TypeVar("FrameT", bound=Frame)


class _Index(Protocol):
    def take(self, rows: Sequence[int], /) -> "_Index": ...


@runtime_checkable
class _IndexedFrame(Protocol):
    """A frame of pandas, whose rows have names."""

    index: _Index


class Surprisal(NamedTuple):
    """The surprisal of a token: -ln p given the tokens before it in its line, or around it for a masked model."""

    token: str
    nats: float
    start: int
    """The position of its first character in the normalized text (NFC)."""
    end: int


class NotebookModel(ABC):
    """A trained model. Its numbers are those of `mt` and of the bot."""

    run_id: str
    checkpoint: int | None
    """The step of the checkpoint; None for the model of the run."""
    _objective: Objective

    def surprisal(self, text: str) -> list[Surprisal]:
        """Return the surprisal of every token, line by line. Raises INVALID_INPUT for a blank text."""
        scored = self.score(text)
        columns = zip(scored.tokens or (), scored.surprisal or (), scored.char_spans or (), strict=True)
        return [Surprisal(token, nats, *span) for token, nats, span in columns if nats is not None]

    def score(self, text: str, **options: object) -> ScoreResponse:
        """Score a text with the options of ScoreRequest: `detail_level` (per_char), `top_k`, `window_tokens`, …

        Raises INVALID_INPUT for a wrong option, and MODEL_INCOMPATIBLE for one that the model does not support.
        """
        return self.ask(parse(ScoreRequest, {"text": text, "detail_level": "per_char", **options}))

    def generate(self, prompt: str = "", **options: object) -> list[str]:
        """Continue a prompt with the options of GenerateRequest: `max_new_tokens`, `temperature`, `top_k`, `seed`, …

        Raises INVALID_INPUT for a wrong option, and MODEL_INCOMPATIBLE for a masked model.
        """
        if prompt and "prompt_text" in options:
            raise AppError(ErrorCode.INVALID_INPUT, "Give the prompt once: as the first argument or as `prompt_text`.")
        response = self.ask(parse(GenerateRequest, {"prompt_text": prompt, **options}))
        return list(response.outputs or ())

    def predict_next(self, prefix: str, k: int = 5) -> list[Suggestion]:
        """Return the k likeliest next tokens with p and ln p; none for a prefix without tokens.

        Raises INVALID_INPUT for a prefix beyond the model's context, and MODEL_INCOMPATIBLE for a masked model.
        """
        response = self.ask(parse(PredictRequest, {"text": prefix, "k": k}))
        return list(response.suggestions or ())

    def segment(self, text: str, **options: object) -> SegmentationResult:
        """Find the word boundaries of lines with spaces, which are removed first; the option is `seed`.

        Raises INVALID_INPUT for fewer than ten lines or too few spaces, PAYLOAD_TOO_LARGE, and MODEL_INCOMPATIBLE for a
        masked model or one of words.
        """
        return self.ask(parse(SegmentRequest, {"text": text, **options})).result()

    def battery(self, *batteries: str | Path, **options: object) -> BatterySummary:
        """Score batteries: files, folders or names such as `blimp:passive_1`, with the options of BatteryOptions.

        The training text is not searched, as `mt battery run` does. Raises DATA_NOT_FOUND, INVALID_INPUT, and
        MODEL_INCOMPATIBLE for an option that the model does not support.
        """
        chosen, settings = parse(BatteryOptions, options), load_settings()
        found = [battery_at(one, chosen, settings) for one in batteries]
        return score_batteries(
            self.ask,
            RunModel(run_id=self.run_id, checkpoint=self.checkpoint, seed=0),
            with_distinct_names(found),
            chosen,
        )

    def items(self, frame: FrameT, **options: object) -> FrameT:
        """Score a table of items with the options of ItemOptions: `text_column`, `region_columns`, `per`, …

        Returns a frame of the same library with the columns of this one beside the scores, as `mt score --items`
        does; a frame of pandas keeps its index. What is guessed about the table is a warning, as are
        leaks. Raises INVALID_INPUT for a wrong option or an item that cannot be scored, and MODEL_INCOMPATIBLE for an
        option that the model does not support.
        """
        chosen = parse(ItemOptions, options)
        texts = {chosen.text_column, chosen.context_column, *chosen.region_columns}
        names = [*frame.columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise AppError(ErrorCode.INVALID_INPUT, f"The table names the column '{safe_name(twice)}' more than once.")
        given = {name: list(frame[name]) for name in names}
        # only what is read is sent: other values may be of any type, and stay as they are
        keys = {chosen.occurrence_column, *chosen.group_columns}
        table: dict[str, list[Cell]] = {name: [None] * len(values) for name, values in given.items()}
        table |= {name: [_key(value) for value in given[name]] for name in names if name in keys}
        table |= {name: [_text(name, value) for value in given[name]] for name in names if name in texts}
        requests = [*item_requests(table, chosen)]
        for sentence in item_notes(requests):
            warn(sentence, stacklevel=2)
        responses = [self.ask(request) for request in requests]
        leak = largest_leak(changed(one.leak, unsearched=()) for one in responses if one.leak is not None)
        for warning in unit_leak_notes(leak, note("the text of the table")):
            warn(ENGLISH.note(warning), stacklevel=2)
        answers = [response.table or {} for response in responses]
        columns: dict[str, list[object]] = {
            name: [value for answer in answers for value in answer[name]] for name in answers[0]
        }
        rows = [row - 1 for answer in answers for row in answer["source_row"] if isinstance(row, int)]
        scored = type(frame)(columns | {name: [values[row] for row in rows] for name, values in given.items()})
        _keep_index(frame, scored, rows)
        return scored

    def ask(self, request: Asks[ResponseT]) -> ResponseT:
        """Answer a request of any kind; raises MODEL_INCOMPATIBLE for one that the model does not support."""
        kind_of(request).supports(request, self._objective)
        return self._answer(request)

    @abstractmethod
    def _answer(self, request: Asks[ResponseT]) -> ResponseT: ...


def _keep_index(frame: object, scored: object, rows: Sequence[int]) -> None:
    """Give the rows of a frame of pandas the names of the rows that they come from."""
    if isinstance(frame, _IndexedFrame) and isinstance(scored, _IndexedFrame):
        scored.index = frame.index.take(rows)


def _key(value: object) -> Cell:
    """Return a value of any type as a text; None for a missing value of pandas."""
    return value if isinstance(value, str) else None if value is None or str(value) in ABSENT else str(value)


def _text(name: str, value: object) -> Cell:
    if _key(value) is None:
        return None
    if isinstance(value, (str, int, float)):
        return value
    kind = type(value).__name__
    raise AppError(ErrorCode.INVALID_INPUT, f"The column '{safe_name(name)}' must have texts, and has a {kind}.")
