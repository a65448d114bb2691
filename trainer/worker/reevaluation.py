"""Evaluates a run: on a split at its end, and later on request."""

import asyncio
from pathlib import Path

from trainer.artifacts.runs import RunDirectory
from trainer.config.settings import Settings
from trainer.contracts.inference import EvalMetrics, EvalRequest, EvalSplit, summary_of
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.models.base import LanguageModel
from trainer.system.files import write_atomically
from trainer.tokenizers.base import Tokenizer
from trainer.training.dataset import CorpusPaths, TokenizedCorpus, prepare
from trainer.training.device import Compute, resolve
from trainer.training.evaluation import Evaluation, Measured, measure
from trainer.worker.model_cache import LoadedRun

_LOCK_SECONDS = 10.0
_IN_FP32: dict[str, object] = {"precision": "fp32"}
"""Precision of all later evaluations, so that a CPU can evaluate a run trained in fp16 on a GPU."""


def data_paths(settings: Settings, effective: EffectiveRequest) -> tuple[CorpusPaths, Path]:
    """Return the paths of a run's corpora and the cache folder of encoded corpora; raises DATA_NOT_FOUND."""
    return corpus_paths(CorpusStore(settings), effective), settings.app.data_root / "corpus_cache"


def corpus_paths(corpora: CorpusStore, effective: EffectiveRequest) -> CorpusPaths:
    """Return the paths of a training's corpora; raises DATA_NOT_FOUND."""

    def find(reference: CorpusRef | None) -> Path | None:
        return None if reference is None else corpora.find(reference.name)

    return CorpusPaths(
        corpora.find(effective.corpus.name), find(effective.validation_corpus), find(effective.test_corpus)
    )


def measure_run(
    run: RunDirectory,
    effective: EffectiveRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    split: EvalSplit,
    compute: Compute,
    *,
    precomputed: Evaluation | None = None,
) -> EvalMetrics:
    """Evaluate a run's model and store metrics and samples in its folder; the caller holds the run's lock.

    `precomputed` is the evaluation that training has just done on the split.
    """
    measured = _measure(run, effective, model, tokenizer, corpus, split, compute, precomputed)
    _keep(run, measured)
    return measured.metrics


def reevaluate(loaded: LoadedRun, request: EvalRequest, settings: Settings) -> EvalMetrics:
    """Evaluate a completed run on a split or on another corpus; store the metrics and add them to the manifest."""
    run, split = loaded.run, request.split
    effective = loaded.manifest.effective
    if request.path_override is not None:
        effective = _on_text(effective, request.path_override, settings)
    compute = resolve(effective.model_copy(update=_IN_FP32))
    _, corpus = prepare(effective, *data_paths(settings, effective), loaded.tokenizer)
    if request.path_override is not None:
        corpus = TokenizedCorpus(
            {split: corpus.ids["train"]},
            {split: corpus.sizes["train"]},
            {split: corpus.words["train"]},
            corpus.special_ids,
        )
    measured = _measure(run, effective, loaded.model, loaded.tokenizer, corpus, split, compute, None)
    with run.wait_for_lock(_LOCK_SECONDS):
        _keep(run, measured)
        run.add_evaluation(summary_of(measured.metrics, request.path_override))
    return measured.metrics


def _on_text(effective: EffectiveRequest, name: str, settings: Settings) -> EffectiveRequest:
    """Return a run's request with another corpus and without held-out splits."""
    text = asyncio.run(CorpusStore(settings).describe(name))
    alone: dict[str, object] = {
        "corpus": text,
        "validation_corpus": None,
        "test_corpus": None,
        "split_by": "line",
        "holdout_fraction": 0.0,
        "test_fraction": 0.0,
    }
    return effective.model_copy(update=alone)


def _measure(
    run: RunDirectory,
    effective: EffectiveRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    split: EvalSplit,
    compute: Compute,
    found: Evaluation | None,
) -> Measured:
    artifacts = tuple(str(path.relative_to(run.path)) for path in (run.metrics, run.samples))
    return measure(
        model,
        tokenizer,
        corpus,
        split,
        effective,
        compute,
        evaluation=found,
        run_id=run.run_id,
        checkpoint="model.safetensors",
        artifacts=artifacts,
    )


def _keep(run: RunDirectory, measured: Measured) -> None:
    run.metrics.parent.mkdir(exist_ok=True)
    samples = "".join(sample.model_dump_json() + "\n" for sample in measured.samples)
    write_atomically(run.samples, samples.encode())
    write_atomically(run.metrics, measured.metrics.model_dump_json(indent=1).encode())
