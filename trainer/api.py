"""A finished model to ask in a notebook or a program, without a server: what `trainer.load` gives."""

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
from trainer.inference.prediction import Prefixes, predict
from trainer.inference.scoring import read_text, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer


class Surprisal(NamedTuple):
    """How surprising a token is: -ln p, given what stands before it in its line; of a masked model, all around it."""

    token: str
    nats: float
    start: int
    """Where the token begins in the normalized text (NFC), in characters."""
    end: int


class LoadedModel:
    """A model in memory with its tokenizer; what it answers is what `mt` and the bot answer."""

    def __init__(self, run_id: str, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.run_id = run_id
        self.model = model
        self.tokenizer = tokenizer
        self._prefixes = Prefixes()

    def surprisal(self, text: str) -> list[Surprisal]:
        """Return the surprisal of every token, line by line; raises INVALID_INPUT for a blank text."""
        scored = self.score(text)
        columns = zip(scored.tokens or (), scored.surprisal or (), scored.char_spans or (), strict=True)
        return [Surprisal(token, nats, *span) for token, nats, span in columns if nats is not None]

    def score(self, text: str, **options: object) -> ScoreResponse:
        """Score a text, by the options of ScoreRequest: `detail_level` (per_char), `top_k`, `window_tokens`, …

        Raises INVALID_INPUT for a wrong option, and MODEL_INCOMPATIBLE for one that the model cannot fulfil.
        """
        request = parse(ScoreRequest, {"text": text, "detail_level": "per_char", **options})
        check_scores(request, self.model.objective)
        response = ScoreResponse(request_id=new_request_id(), run_id=self.run_id, status="queued")
        to_score = read_text(self.tokenizer, request, response)
        [scored] = score_texts(self.model, self.tokenizer, [to_score])
        return scored

    def generate(self, prompt: str = "", **options: object) -> list[str]:
        """Continue a prompt, by the options of GenerateRequest: `max_new_tokens`, `temperature`, `top_k`, `seed`, …

        Raises INVALID_INPUT for a wrong option, and MODEL_INCOMPATIBLE where the model fills gaps only.
        """
        check_generates(self.model.objective)
        if prompt and "prompt_text" in options:
            raise AppError(ErrorCode.INVALID_INPUT, "Give the prompt once: as the first argument or as `prompt_text`.")
        request = parse(GenerateRequest, {"prompt_text": prompt, **options})
        response = generate(self.model, self.tokenizer, request, run_id=self.run_id, request_id=new_request_id())
        return list(response.outputs or ())

    def predict_next(self, prefix: str, k: int = 5) -> list[Suggestion]:
        """Return the k likeliest next tokens with p and ln p; none for a prefix without tokens.

        A prefix that grows is read on from where it was. Raises INVALID_INPUT for one beyond the model's context, and
        MODEL_INCOMPATIBLE where the model fills gaps only.
        """
        check_generates(self.model.objective)
        request = parse(PredictRequest, {"text": prefix, "k": k})
        response = PredictResponse(request_id=new_request_id(), run_id=self.run_id, status="queued")
        return list(predict(self.model, self.tokenizer, request, response, self._prefixes).suggestions or ())


def load_model(source: str | Path) -> LoadedModel:
    """Load a run by its id or folder, or an exported folder; raises RUN_NOT_FOUND and what reading it raises."""
    folder = Path(source)
    run = RunDirectory(folder)
    if not os.path.isfile(folder / "request.json"):  # unlike a Path's own, it takes a name of any length
        if str(source) and os.path.exists(folder):
            record, model, tokenizer = load_export(folder)
            return LoadedModel(record.run_id, model, tokenizer)
        run = _run_of(str(source))
    return LoadedModel(run.completed_manifest().run_id, *load_run(run))


def _run_of(run_id: str) -> RunDirectory:
    try:
        return RunStore(load_settings().app.artifacts_root).get(run_id)
    except AppError as error:
        if error.code is not ErrorCode.RUN_NOT_FOUND:
            raise
        raise AppError(error.code, f"There is no run, and no folder, '{run_id}'.") from None
