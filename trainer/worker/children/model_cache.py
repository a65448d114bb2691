"""Cache of loaded models; the least recently used model leaves first."""

import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainer.artifacts.checkpoints import NamedModel, checkpoint_folder, named_model
from trainer.artifacts.runs import RunStore
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import training_text
from trainer.inference.frequencies import Frequencies
from trainer.inference.leaks import LeakSearch
from trainer.inference.model_files import CONFIG_FILE, TOKENIZER_FOLDER, WEIGHTS_FILE, load_named
from trainer.inference.prediction import PrefixCache
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, ids_type
from trainer.training.baseline import KeptCounts

_MODEL_FILES = (WEIGHTS_FILE, CONFIG_FILE, f"{TOKENIZER_FOLDER}/*")


class LoadedRun(NamedTuple):
    """A run with one of its models in memory."""

    named: NamedModel
    model: LanguageModel
    tokenizer: Tokenizer
    prefixes: PrefixCache
    frequencies: Frequencies
    count_text: KeptCounts
    find_leak: LeakSearch

    def memory_bytes(self) -> int:
        """Return the size of the model, of the tokenizer's two code point tables, and of what requests have left."""
        table_bytes = np.zeros(sys.maxunicode + 1, dtype=ids_type(self.tokenizer.vocab_size)).nbytes
        left_bytes = self.prefixes.memory_bytes + self.frequencies.memory_bytes + self.count_text.memory_bytes
        return self.model.memory_bytes() + 2 * table_bytes + left_bytes


_Seen = tuple[tuple[Path, int, int], ...]
"""Files of a model with modification time in ns and size in bytes."""


class ModelCache:
    """Loaded models up to a number of bytes; the most recently used model stays whatever its size."""

    def __init__(self, runs: RunStore, corpora: CorpusStore, corpus_cache: Path, max_bytes: int) -> None:
        self._runs = runs
        self._corpora = corpora
        self._corpus_cache = corpus_cache
        self._max_bytes = max_bytes
        self._loaded: OrderedDict[str, tuple[LoadedRun, _Seen]] = OrderedDict()

    def get(self, name: str) -> LoadedRun:
        """Return the model of a name, loaded again if changed. Raises as `named_model` and `load_named` do."""
        named = named_model(self._runs, name)
        files = _files(named)
        loaded, seen = self._loaded.pop(named.name, (None, ()))
        if loaded is None or seen != files:
            model, tokenizer = load_named(named)
            text = partial(training_text, self._corpora, named.effective)
            counts = KeptCounts(named.effective, self._corpora, self._corpus_cache, tokenizer)
            frequencies = Frequencies(tokenizer, text)
            search = LeakSearch(named.run.run_id, named.effective, self._runs, self._corpora)
            loaded = LoadedRun(named, model, tokenizer, PrefixCache(), frequencies, counts, search)
        self._loaded[named.name] = loaded, files
        while len(self._loaded) > 1 and self._memory_bytes() > self._max_bytes:
            self._loaded.popitem(last=False)
        return loaded

    def _memory_bytes(self) -> int:
        return sum(loaded.memory_bytes() for loaded, _ in self._loaded.values())


def _files(named: NamedModel) -> _Seen:
    run = named.run.path
    paths = [path for pattern in _MODEL_FILES for path in sorted(run.glob(pattern))]
    if named.step is not None:
        paths += sorted(checkpoint_folder(named.run, named.step).glob("*"))
    found = [(path, path.stat()) for path in paths]
    return tuple((path, state.st_mtime_ns, state.st_size) for path, state in found)
