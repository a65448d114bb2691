"""Counts of the training text of a run as models: unigrams, and the best n-gram."""

from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import Settings
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import references_of, split_rule
from trainer.models.ngram import CountedText
from trainer.tokenizers import load_tokenizer
from trainer.training.baseline import count_corpus


def text_key(run: RunDirectory) -> object:
    """Return what is equal for runs whose training texts have the same counts."""
    effective = run.record().effective
    texts = tuple(reference and reference.sha256 for reference in references_of(effective))
    vocabulary = tuple(file.sha256 for file in load_tokenizer(run.tokenizer).manifest.files)
    return texts, split_rule(effective), effective.documents, vocabulary


def count_text(run: RunDirectory, settings: Settings) -> CountedText:
    """Count the training text of a run by its tokenizer; raises DATA_NOT_FOUND if it is gone or has changed."""
    corpora, cache = CorpusStore(settings), settings.app.corpus_cache
    return count_corpus(run.record().effective, corpora, cache, load_tokenizer(run.tokenizer))
