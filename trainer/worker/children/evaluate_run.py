"""Evaluates a run: on a split at its end, and later on request."""

import asyncio
from pathlib import Path

from trainer.artifacts.checkpoints import checkpoint_folder
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baselines
from trainer.contracts.evaluations import EvalMetrics, EvalRequest, summary_of
from trainer.contracts.reports import note
from trainer.contracts.runs import EffectiveRequest, Leaks, RunManifest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus import read_blocks
from trainer.data.leaks import measure_leaks
from trainer.data.line_keys import keys_of, lines_of_corpus
from trainer.data.run_corpora import CorpusPaths, ReadText, corpus_paths, read_text, split_corpus
from trainer.system.files import write_atomically
from trainer.tokenizers.base import Tokenizer
from trainer.training.baseline import compared, measure_baselines
from trainer.training.counted_splits import SplitCounts, count_splits
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import resolve
from trainer.training.evaluation import Measured, measure
from trainer.worker.children.model_cache import LoadedRun

_LOCK_SECONDS = 10.0


def data_paths(settings: Settings, effective: EffectiveRequest) -> tuple[CorpusPaths, Path]:
    """Return the paths of a run's corpora and the cache folder of encoded corpora; raises DATA_NOT_FOUND."""
    return corpus_paths(CorpusStore(settings), effective), settings.app.corpus_cache


def reevaluate(loaded: LoadedRun, request: EvalRequest, settings: Settings) -> EvalMetrics:
    """Evaluate a model on a split or on another corpus, and look for the text in what the run has read.

    The metrics of a completed run are stored and added to its manifest, unless the request forbids it. Those of a
    checkpoint are not stored.
    """
    (run, step, effective), split = loaded.named, request.split
    looks, own = LookLedger.of(settings), effective
    if request.sample_prompts is not None:
        effective = changed(effective, sample_prompts=request.sample_prompts)
    if request.path_override is not None:
        effective = _on_text(effective, request.path_override, settings)
        text = lines_of_corpus(CorpusStore(settings).find_exact(effective.corpus))
        looks.read_text([(loaded.named.name, own)], text, "evaluation", None)
    elif split == "test":
        store_test_lines(own, settings)
        looks.read(own, loaded.named.name, "evaluation", None)
    # in fp32, so that a CPU can evaluate a run trained in fp16 on a GPU
    compute = resolve(changed(effective, precision="fp32"))
    _, corpus = prepare(effective, *data_paths(settings, effective), loaded.tokenizer)
    if request.path_override is not None:
        corpus = TokenizedCorpus(
            {split: corpus.ids["train"]},
            {split: corpus.sizes["train"]},
            {split: corpus.words["train"]},
            corpus.special_ids,
            {split: corpus.line_chars["train"]},
        )
    corpus = corpus.with_leaks(_leaks(loaded, effective, request, corpus, settings))
    what = None if request.path_override is None else note("this text")
    measured = measure(loaded.model, loaded.tokenizer, corpus, split, effective, compute, run_id=run.run_id, what=what)
    baselines: Baselines = {}
    if request.path_override is None and step is None and run.completed_manifest().is_unread(split):
        counts = counts_of_run(corpus, loaded.tokenizer, run.run_id, effective, settings)
        baselines, metrics = measure_baselines(counts, corpus, effective, measured.metrics, None)
        measured = measured._replace(metrics=metrics)
    elif request.path_override is None:
        measured = measured._replace(metrics=_beside_baseline(measured.metrics, run.manifest()))
    if step is not None:
        folder = checkpoint_folder(run, step).relative_to(run.path)
        return changed(measured.metrics, checkpoint=folder.as_posix(), artifacts=())
    if not request.is_stored:
        return changed(measured.metrics, artifacts=())
    with run.wait_for_lock(_LOCK_SECONDS):
        store_evaluation(run, measured)
        run.add_evaluation(summary_of(measured.metrics, request.path_override), baselines, looks.count(own))
    return measured.metrics


def store_test_lines(effective: EffectiveRequest, settings: Settings) -> None:
    """Store the lines of the test split of a run for its looks and locks, unless they are; raises DATA_NOT_FOUND."""
    looks, test_id = LookLedger.of(settings), effective.test_id
    if test_id is not None and not looks.has_lines(test_id):
        blocks = split_corpus(CorpusStore(settings), effective).lines("test")
        looks.add_lines(test_id, keys_of(line for block in blocks for line in block.split("\n")))


def _leaks(
    loaded: LoadedRun, effective: EffectiveRequest, request: EvalRequest, corpus: TokenizedCorpus, settings: Settings
) -> Leaks:
    """Return how much of the evaluated text the run and its ancestors have read; nothing for one without counts."""
    if request.has_counts is False and request.path_override is not None:
        return {}
    own = loaded.named.effective
    if request.path_override is None:
        return leaks_of_run(corpus, own, settings)
    path = CorpusStore(settings).find_exact(effective.corpus)
    return {request.split: loaded.find_leak(read_blocks(path, own.tokenizer.normalization, own.documents))}


def leaks_of_run(corpus: TokenizedCorpus, effective: EffectiveRequest, settings: Settings) -> Leaks:
    """Return the leaks of a run's splits, which were measured in its own text, in that of its ancestors too."""
    if effective.init_from_run_id is None:
        return corpus.leaks
    corpora, runs = CorpusStore(settings), RunStore(settings.app.artifacts_root)
    ancestors = read_text(corpora, runs.ancestors(effective))
    return measure_leaks(split_corpus(corpora, effective), effective.documents, effective.split_seed, ancestors)


def counts_of_run(
    corpus: TokenizedCorpus, tokenizer: Tokenizer, run_id: str, effective: EffectiveRequest, settings: Settings
) -> SplitCounts | None:
    """Count the training text of a run, and that of its ancestors where it is another one."""
    ancestors = ReadText()
    if effective.init_from_run_id is not None:
        found = RunStore(settings.app.artifacts_root).ancestors(effective)
        ancestors = read_text(CorpusStore(settings), found, (run_id, effective))
        ancestors = ancestors._replace(corpora=ancestors.corpora[1:])  # the first one is the run's own
    return count_splits(corpus, tokenizer, effective, *data_paths(settings, effective), ancestors)


def _beside_baseline(metrics: EvalMetrics, manifest: RunManifest | None) -> EvalMetrics:
    """Return an evaluation of a split with the baseline that the run has measured on it, if it has."""
    baseline = None if manifest is None else manifest.baselines.get(metrics.split)
    if manifest is None or baseline is None:
        return metrics
    earlier = manifest.evaluation(metrics.split)
    return compared(baseline, metrics, None if earlier is None else earlier.lines.ngram_nats)[1]


def _on_text(effective: EffectiveRequest, name: str, settings: Settings) -> EffectiveRequest:
    """Return a run's request with another corpus, all lines of it in their order, and without held-out splits."""
    return changed(
        effective,
        corpus=asyncio.run(CorpusStore(settings).describe(name, "path_override")),
        validation_corpus=None,
        test_corpus=None,
        split_by="position",
        holdout_fraction=0.0,
        test_fraction=0.0,
    )


def store_evaluation(run: RunDirectory, measured: Measured) -> None:
    """Store metrics and samples in a run's folder; the caller holds the run's lock."""
    run.metrics.parent.mkdir(exist_ok=True)
    samples = "".join(sample.model_dump_json() + "\n" for sample in measured.samples)
    write_atomically(run.samples, samples.encode())
    write_atomically(run.metrics, measured.metrics.model_dump_json(indent=1).encode())
