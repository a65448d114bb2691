"""The corpora of a training: where they are, and their splits."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import Split, SplitCorpus, SplitRule
from trainer.data.text import corpus_sha256


class CorpusPaths(NamedTuple):
    """Paths of a run's corpora. A validation or test corpus replaces that split of the training corpus."""

    corpus: Path
    validation: Path | None = None
    test: Path | None = None


def corpus_paths(corpora: CorpusStore, effective: EffectiveRequest) -> CorpusPaths:
    """Return the paths of a training's corpora; raises DATA_NOT_FOUND."""

    def find(reference: CorpusRef | None) -> Path | None:
        return None if reference is None else corpora.find_exact(reference)

    return CorpusPaths(
        corpora.find_exact(effective.corpus), find(effective.validation_corpus), find(effective.test_corpus)
    )


def references_of(effective: EffectiveRequest) -> tuple[CorpusRef | None, ...]:
    """Return the corpora of a training in the order of their paths."""
    return effective.corpus, effective.validation_corpus, effective.test_corpus


def check_unchanged(effective: EffectiveRequest, paths: CorpusPaths) -> None:
    """Raise DATA_NOT_FOUND if a corpus has changed since the run was accepted."""
    for reference, path in zip(references_of(effective), paths, strict=True):
        if reference is not None and (path is None or corpus_sha256(path) != reference.sha256):
            raise AppError(
                ErrorCode.DATA_NOT_FOUND,
                f"The corpus '{reference.name}' has changed since the run was accepted. Start a new run.",
            )


def split_rule(effective: EffectiveRequest) -> SplitRule:
    return SplitRule(effective.holdout_fraction, effective.test_fraction, effective.split_seed, effective.split_by)


def split_paths(effective: EffectiveRequest, paths: CorpusPaths, scratch: Path | None = None) -> SplitCorpus:
    """Split the corpora of a training; `scratch` is the folder for temporary files."""
    return SplitCorpus(
        paths.corpus,
        effective.tokenizer.normalization,
        split_rule(effective),
        documents=effective.documents,
        validation=paths.validation,
        test=paths.test,
        scratch=scratch,
    )


def split_corpus(corpora: CorpusStore, effective: EffectiveRequest) -> SplitCorpus:
    """Split the corpora of a training, without its tokenizer.

    Raises DATA_NOT_FOUND if one is gone or has changed since the run was accepted.
    """
    paths = corpus_paths(corpora, effective)
    check_unchanged(effective, paths)
    return split_paths(effective, paths)


class ReadText(NamedTuple):
    """The training and validation texts of a run and of its ancestors."""

    corpora: tuple[SplitCorpus, ...] = ()
    ancestors: tuple[str, ...] = ()
    """The ancestors whose text is here."""
    missing: tuple[str, ...] = ()
    """Runs whose text is deleted or has changed."""

    def blocks(self) -> Iterator[tuple[Split, str]]:
        """Yield the lines of the training and validation splits in blocks."""
        for corpus in self.corpora:
            yield from corpus.blocks(["train", "validation"])


def read_text(
    corpora: CorpusStore,
    ancestors: Iterable[tuple[str, EffectiveRequest | None]],
    own: tuple[str, EffectiveRequest] | None = None,
) -> ReadText:
    """Return what a run and its ancestors have read, equal splits once; without the request of a run it is missing."""
    splits: dict[object, SplitCorpus] = {}
    missing: list[str] = []
    known = [*ancestors]
    for name, effective in [own, *known] if own is not None else known:
        if effective is None:
            missing.append(name)
            continue
        form = effective.tokenizer.normalization, effective.documents
        key = split_rule(effective), *form, *(text and text.sha256 for text in references_of(effective))
        try:
            if key not in splits:
                splits[key] = split_corpus(corpora, _without_test(effective, corpora))
        except AppError:
            missing.append(name)
    here = tuple(name for name, _ in known if name not in missing)
    return ReadText(tuple(splits.values()), here, tuple(missing))


def _without_test(effective: EffectiveRequest, corpora: CorpusStore) -> EffectiveRequest:
    """Return a request with the splits that a run has read, without a validation corpus that is not here any more."""
    own, validation = effective.test_corpus, effective.validation_corpus
    changes: dict[str, object] = {} if own is None else {"test_corpus": None, "test_fraction": 0.0}
    if validation is not None and not _is_unchanged(corpora, validation):
        changes |= {"validation_corpus": None, "holdout_fraction": 0.0}
    return changed(effective, **changes)


def _is_unchanged(corpora: CorpusStore, reference: CorpusRef) -> bool:
    """Return True if a corpus is still here with the same content."""
    try:
        return corpus_sha256(corpora.find_exact(reference)) == reference.sha256
    except AppError:
        return False


def training_text(corpora: CorpusStore, effective: EffectiveRequest) -> Iterator[str]:
    """Yield the training split in blocks of normalized lines; raises DATA_NOT_FOUND as `split_corpus` does."""
    yield from split_corpus(corpora, effective).lines("train")
