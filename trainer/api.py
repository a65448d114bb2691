"""Models for notebooks and programs, without a server: `trainer.load` returns a `Model`."""

import os
from pathlib import Path
from typing import NamedTuple

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import load_settings
from trainer.contracts.compatibility import check_generates, check_scores
from trainer.contracts.errors import AppError, ErrorCode, new_request_id
from trainer.contracts.inference import (
    GenerateRequest,
    PredictRequest,
    PredictResponse,
    ScoreRequest,
    ScoreResponse,
    Suggestion,
)
from trainer.contracts.validation import parse
from trainer.export.folders import load_export
from trainer.inference.generation import generate
from trainer.inference.model_files import load_run
from trainer.inference.prediction import PrefixCache, predict
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer


class Surprisal(NamedTuple):
    """The surprisal of a token: -ln p given the tokens before it in its line, or around it for a masked model."""

    token: str
    nats: float
    start: int
    """The position of its first character in the normalized text (NFC)."""
    end: int


class Model:
    """A model in memory with its tokenizer. Its numbers are those of `mt` and of the bot."""

    def __init__(self, run_id: str, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.run_id = run_id
        self.model = model
        self.tokenizer = tokenizer
        self._prefixes = PrefixCache()

    @classmethod
    def load(cls, source: str | Path) -> "Model":
        """Load a run by its id or folder, or an exported folder.

        Raises RUN_NOT_FOUND, RUN_NOT_READY, and MODEL_LOAD_FAILED for a damaged or changed file.
        """
        folder = Path(source)
        run = RunDirectory(folder)
        if not os.path.isfile(folder / "request.json"):  # unlike Path.is_file, it accepts a name of any length
            if str(source) and os.path.exists(folder):
                record, model, tokenizer = load_export(folder)
                return cls(record.run_id, model, tokenizer)
            run = _find_run(str(source))
        return cls(run.completed_manifest().run_id, *load_run(run))

    def surprisal(self, text: str) -> list[Surprisal]:
        """Return the surprisal of every token, line by line. Raises INVALID_INPUT for a blank text."""
        scored = self.score(text)
        columns = zip(scored.tokens or (), scored.surprisal or (), scored.char_spans or (), strict=True)
        return [Surprisal(token, nats, *span) for token, nats, span in columns if nats is not None]

    def score(self, text: str, **options: object) -> ScoreResponse:
        """Score a text with the options of ScoreRequest: `detail_level` (per_char), `top_k`, `window_tokens`, …

        Raises INVALID_INPUT for a wrong option, and MODEL_INCOMPATIBLE for one that the model does not support.
        """
        request = parse(ScoreRequest, {"text": text, "detail_level": "per_char", **options})
        check_scores(request, self.model.objective)
        response = ScoreResponse(request_id=new_request_id(), run_id=self.run_id, status="queued")
        [scored] = score_texts(self.model, self.tokenizer, [ScoringJob.of(self.tokenizer, request, response)])
        return scored

    def generate(self, prompt: str = "", **options: object) -> list[str]:
        """Continue a prompt with the options of GenerateRequest: `max_new_tokens`, `temperature`, `top_k`, `seed`, …

        Raises INVALID_INPUT for a wrong option, and MODEL_INCOMPATIBLE for a masked model.
        """
        check_generates(self.model.objective)
        if prompt and "prompt_text" in options:
            raise AppError(ErrorCode.INVALID_INPUT, "Give the prompt once: as the first argument or as `prompt_text`.")
        request = parse(GenerateRequest, {"prompt_text": prompt, **options})
        response = generate(self.model, self.tokenizer, request, run_id=self.run_id, request_id=new_request_id())
        return list(response.outputs or ())

    def predict_next(self, prefix: str, k: int = 5) -> list[Suggestion]:
        """Return the k likeliest next tokens with p and ln p; none for a prefix without tokens.

        A longer prefix reuses the state of the shorter one. Raises INVALID_INPUT for a prefix beyond the model's
        context, and MODEL_INCOMPATIBLE for a masked model.
        """
        check_generates(self.model.objective)
        request = parse(PredictRequest, {"text": prefix, "k": k})
        response = PredictResponse(request_id=new_request_id(), run_id=self.run_id, status="queued")
        return list(predict(self.model, self.tokenizer, request, response, self._prefixes).suggestions or ())


def _find_run(run_id: str) -> RunDirectory:
    try:
        return RunStore(load_settings().app.artifacts_root).get(run_id)
    except AppError as error:
        if error.code is not ErrorCode.RUN_NOT_FOUND:
            raise
        raise AppError(error.code, f"There is no run and no folder '{run_id}'.") from None
