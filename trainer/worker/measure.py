"""A run's texts found again, and a run measured on one of its splits."""

from pathlib import Path

from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.contracts.settings import Settings
from trainer.corpora import CorpusStore
from trainer.data.tokens import CorpusPaths


def places(settings: Settings, effective: EffectiveRequest) -> tuple[CorpusPaths, Path]:
    """Where a run's texts are, and the folder that keeps them encoded; raises DATA_NOT_FOUND."""
    corpora = CorpusStore(settings)

    def find(reference: CorpusRef | None) -> Path | None:
        return None if reference is None else corpora.find(reference.name)

    paths = CorpusPaths(
        corpora.find(effective.corpus.name), find(effective.validation_corpus), find(effective.test_corpus)
    )
    return paths, settings.app.data_root / "corpus_cache"
