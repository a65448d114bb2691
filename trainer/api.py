"""Models for notebooks and programs, without a server: `trainer.load` returns a `Model`."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from trainer.artifacts.replication import complete_run, full_run_id
from trainer.artifacts.runs import RunDirectory
from trainer.client.notebook import NotebookModel, Surprisal
from trainer.config.settings import load_settings
from trainer.contracts.base import narrowed
from trainer.contracts.errors import AppError, new_request_id
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import training_text
from trainer.export.folders import load_export
from trainer.inference.frequencies import Frequencies
from trainer.inference.kinds import COMPUTE
from trainer.inference.model_files import load_run
from trainer.inference.prediction import PrefixCache
from trainer.models.base import LanguageModel
from trainer.queue.inference_kinds import new_record
from trainer.tokenizers.base import Tokenizer

__all__ = ["Model", "Surprisal"]
_RUN_FILES = ("request.json", "manifest.json")


class Model(NotebookModel):
    """A model in memory with its tokenizer."""

    def __init__(
        self,
        run_id: str,
        model: LanguageModel,
        tokenizer: Tokenizer,
        training_text: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self.run_id = run_id
        self.model = model
        self.tokenizer = tokenizer
        self._objective = model.objective
        self.prefixes = PrefixCache()
        """The states of the texts whose next tokens were predicted last."""
        self.frequencies = Frequencies(tokenizer, training_text)

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
            run = complete_run(settings, full_run_id(settings, str(source), place))
        manifest = run.completed_manifest()
        text = partial(training_text, CorpusStore(load_settings()), manifest.effective)
        return cls(manifest.run_id, *load_run(run), text)

    def _answer(self, request: Asks[ResponseT]) -> ResponseT:
        response, record = new_record(request, request_id=new_request_id(), run_id=self.run_id)
        [answered] = COMPUTE[record.kind](self, [record], tuple)
        completed = narrowed(type(response), answered)
        if completed.error is not None:
            raise AppError(completed.error.code, completed.error.message)
        return completed
