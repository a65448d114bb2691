"""Models for notebooks and programs, without a server: `trainer.load` returns a `Model`."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from trainer.artifacts.checkpoints import model_of
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.replication import complete_run, full_run_id
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.client.notebook import NotebookModel, Surprisal
from trainer.config.settings import load_settings
from trainer.contracts.base import narrowed
from trainer.contracts.errors import AppError, ErrorCode, new_request_id
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import training_text
from trainer.export.folders import load_export
from trainer.inference.frequencies import Frequencies
from trainer.inference.kinds import COMPUTE
from trainer.inference.leaks import LeakSearch
from trainer.inference.model_files import load_named
from trainer.inference.prediction import PrefixCache
from trainer.models.base import LanguageModel
from trainer.models.ngram import CountedText
from trainer.queue.inference_kinds import new_record
from trainer.queue.request_looks import count_look
from trainer.tokenizers.base import Tokenizer
from trainer.training.baseline import KeptCounts

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
        checkpoint: int | None = None,
        count_text: Callable[[], CountedText] | None = None,
        count_look: Callable[[object], None] | None = None,
        find_leak: LeakSearch | None = None,
    ) -> None:
        self.run_id = run_id
        self.checkpoint = checkpoint
        self.model = model
        self.tokenizer = tokenizer
        self._objective = model.objective
        self.prefixes = PrefixCache()
        """The states of the texts whose next tokens were predicted last."""
        self.frequencies = Frequencies(tokenizer, training_text)
        self.count_text = count_text
        self._count_look = count_look
        self.find_leak = find_leak

    @classmethod
    def load(cls, source: str | Path) -> "Model":
        """Load a run by its id, its label, `last` or the beginning of its id, its folder or an exported folder.

        `RUN@1200`, `RUN@best`, `RUN@words:1M` and `RUN@epoch:2` are checkpoints of a run. Raises RUN_NOT_FOUND,
        RUN_NOT_READY, DATA_NOT_FOUND for a checkpoint that was not kept, and MODEL_LOAD_FAILED or CHECKPOINT_CORRUPT
        for a damaged or changed file.
        """
        folder, checkpoint, name = Path(source), None, str(source)
        if not os.path.lexists(folder) and "@" in str(source):
            given, _, checkpoint = name.rpartition("@")
            source, folder = given, Path(given)
        run = RunDirectory(folder)
        if not any(os.path.isfile(folder / name) for name in _RUN_FILES):  # unlike Path.is_file, for long names too
            if str(source) and os.path.exists(folder):
                if checkpoint is not None:
                    raise AppError(ErrorCode.INVALID_INPUT, f"'{folder}' holds one model: leave out '@{checkpoint}'.")
                record, model, tokenizer = load_export(folder)
                return cls(record.run_id, model, tokenizer, checkpoint=record.checkpoint)
            settings = load_settings()
            place = f" in '{settings.app.artifacts_root.absolute()}', and no such folder"
            run_id, at, checkpoint = full_run_id(settings, name, place, or_checkpoint=True).partition("@")
            checkpoint = checkpoint if at else None
            run = complete_run(settings, run_id)
        named, manifest = model_of(run, checkpoint), run.manifest()
        run_id = (run.record() if manifest is None else manifest).run_id  # a downloaded folder has no request
        settings, (model, tokenizer) = load_settings(), load_named(named)
        corpora = CorpusStore(settings)
        text = partial(training_text, corpora, named.effective)
        counts = KeptCounts(named.effective, corpora, settings.app.corpus_cache, tokenizer)
        look = partial(count_look, LookLedger.of(settings), corpora, named)
        search = LeakSearch(run_id, named.effective, RunStore(settings.app.artifacts_root), corpora)
        return cls(run_id, model, tokenizer, text, named.step, counts, look, search)

    def _answer(self, request: Asks[ResponseT]) -> ResponseT:
        if self._count_look is not None:
            self._count_look(request)
        response, record = new_record(
            request, request_id=new_request_id(), run_id=self.run_id, checkpoint=self.checkpoint
        )
        [answered] = COMPUTE[record.kind](self, [record], tuple)
        completed = narrowed(type(response), answered)
        if completed.error is not None:
            raise AppError(completed.error.code, completed.error.message)
        return completed
