"""Models that were asked a moment ago, kept loaded: the least recently used one goes first."""

from collections import OrderedDict
from typing import NamedTuple

from trainer.contracts.runs import RunManifest
from trainer.model_artifact import load_model
from trainer.models.base import LanguageModel
from trainer.runs import RunDirectory, RunStore
from trainer.tokenizers.base import Tokenizer

_KEPT_MODELS = 4


class LoadedRun(NamedTuple):
    """A completed run with its model in memory."""

    run: RunDirectory
    manifest: RunManifest
    model: LanguageModel
    tokenizer: Tokenizer


class WarmModels:
    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._loaded: OrderedDict[str, LoadedRun] = OrderedDict()

    def get(self, run_id: str) -> LoadedRun:
        """Return a run's model, warm or newly loaded; raises RUN_NOT_FOUND, RUN_NOT_READY, MODEL_LOAD_FAILED."""
        loaded = self._loaded.pop(run_id, None) or self._load(run_id)
        self._loaded[run_id] = loaded
        if len(self._loaded) > _KEPT_MODELS:
            self._loaded.popitem(last=False)
        return loaded

    def _load(self, run_id: str) -> LoadedRun:
        run = self._runs.get(run_id)
        manifest = run.completed_manifest()
        model, tokenizer = load_model(run.path)
        return LoadedRun(run, manifest, model, tokenizer)
