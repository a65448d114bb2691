"""Models for notebooks and programs, without a server: `trainer.load` returns a `Model`."""

import os
from pathlib import Path

from trainer.artifacts.replication import full_run_id, whole_run
from trainer.artifacts.runs import RunDirectory
from trainer.client.notebook import NotebookModel, Surprisal
from trainer.config.settings import load_settings
from trainer.contracts.errors import new_request_id
from trainer.contracts.inference import (
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    ScoreRequest,
    ScoreResponse,
)
from trainer.contracts.models import Objective
from trainer.export.folders import load_export
from trainer.inference.generation import generate
from trainer.inference.model_files import load_run
from trainer.inference.prediction import PrefixCache, predict
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

__all__ = ["Model", "Surprisal"]
_RUN_FILES = ("request.json", "manifest.json")


class Model(NotebookModel):
    """A model in memory with its tokenizer."""

    def __init__(self, run_id: str, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.run_id = run_id
        self.model = model
        self.tokenizer = tokenizer
        self._prefixes = PrefixCache()

    @classmethod
    def load(cls, source: str | Path) -> "Model":
        """Load a run by its id or the beginning of it, its folder or a downloaded folder of it, or an exported folder.

        Raises RUN_NOT_FOUND, RUN_NOT_READY, and MODEL_LOAD_FAILED for a damaged or changed file.
        """
        folder = Path(source)
        run = RunDirectory(folder)
        if not any(os.path.isfile(folder / name) for name in _RUN_FILES):  # unlike Path.is_file, for long names too
            if str(source) and os.path.exists(folder):
                record, model, tokenizer = load_export(folder)
                return cls(record.run_id, model, tokenizer)
            settings = load_settings()
            place = f" in '{settings.app.artifacts_root.absolute()}', and no such folder"
            run = whole_run(settings, full_run_id(settings, str(source), place))
        return cls(run.completed_manifest().run_id, *load_run(run))

    @property
    def _objective(self) -> Objective:
        return self.model.objective

    def _score(self, request: ScoreRequest) -> ScoreResponse:
        response = ScoreResponse(request_id=new_request_id(), run_id=self.run_id, status="queued")
        [scored] = score_texts(self.model, self.tokenizer, [ScoringJob.of(self.tokenizer, request, response)])
        return scored

    def _generate(self, request: GenerateRequest) -> GenerateResponse:
        return generate(self.model, self.tokenizer, request, run_id=self.run_id, request_id=new_request_id())

    def _predict(self, request: PredictRequest) -> PredictResponse:
        """Predict with the state of an earlier, shorter prefix."""
        response = PredictResponse(request_id=new_request_id(), run_id=self.run_id, status="queued")
        return predict(self.model, self.tokenizer, request, response, self._prefixes)
