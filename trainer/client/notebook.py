"""Methods of a model in a notebook: the same for a model in memory and for one on a server."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from trainer.batteries.reading import read_battery, with_distinct_names
from trainer.batteries.scoring import score_batteries
from trainer.batteries.sources import find_battery
from trainer.config.settings import load_settings
from trainer.config.validation import parse
from trainer.contracts.batteries import BatteryOptions, BatteryRun, BatterySummary
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateRequest, PredictRequest, ScoreRequest, ScoreResponse, Suggestion
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.models import Objective
from trainer.queue.inference_kinds import kind_of


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

    def battery(self, *batteries: str | Path, **options: object) -> BatterySummary:
        """Score batteries: files, folders or names such as `blimp:passive_1`, with the options of BatteryOptions.

        The training text is not searched, as `mt battery run` does. Raises DATA_NOT_FOUND, INVALID_INPUT, and
        MODEL_INCOMPATIBLE for an option that the model does not support.
        """
        chosen, settings = parse(BatteryOptions, options), load_settings()
        found = [
            read_battery(Path(one), chosen) if Path(one).exists() else find_battery(str(one), chosen, settings)
            for one in batteries
        ]
        return score_batteries(self.ask, BatteryRun(run_id=self.run_id, seed=0), with_distinct_names(found), chosen)

    def ask(self, request: Asks[ResponseT]) -> ResponseT:
        """Answer a request of any kind; raises MODEL_INCOMPATIBLE for one that the model does not support."""
        kind_of(request).supports(request, self._objective)
        return self._answer(request)

    @abstractmethod
    def _answer(self, request: Asks[ResponseT]) -> ResponseT: ...
