"""A run's texts found again, and a run measured on one of its splits."""

from pathlib import Path

from trainer.contracts.inference import EvalMetrics, EvalSplit
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.contracts.settings import Settings
from trainer.corpora import CorpusStore
from trainer.data.tokens import CorpusPaths, TokenizedCorpus
from trainer.device import Compute
from trainer.evaluation import Evaluation, measure
from trainer.files import write_atomically
from trainer.models.base import LanguageModel
from trainer.runs import RunDirectory
from trainer.tokenizers.base import Tokenizer


def places(settings: Settings, effective: EffectiveRequest) -> tuple[CorpusPaths, Path]:
    """Where a run's texts are, and the folder that keeps them encoded; raises DATA_NOT_FOUND."""
    corpora = CorpusStore(settings)

    def find(reference: CorpusRef | None) -> Path | None:
        return None if reference is None else corpora.find(reference.name)

    paths = CorpusPaths(
        corpora.find(effective.corpus.name), find(effective.validation_corpus), find(effective.test_corpus)
    )
    return paths, settings.app.data_root / "corpus_cache"


def measure_run(
    run: RunDirectory,
    effective: EffectiveRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    split: EvalSplit,
    compute: Compute,
    *,
    found: Evaluation | None = None,
) -> EvalMetrics:
    """Measure a run's model and keep the numbers, and samples of what it writes, beside it.

    What training has just `found` on the split is not computed again.
    """
    artifacts = tuple(str(path.relative_to(run.path)) for path in (run.metrics, run.samples))
    measured = measure(
        model,
        tokenizer,
        corpus,
        split,
        effective,
        compute,
        found=found,
        run_id=run.run_id,
        checkpoint="model.safetensors",
        artifacts=artifacts,
    )
    run.metrics.parent.mkdir(exist_ok=True)
    samples = "".join(sample.model_dump_json() + "\n" for sample in measured.samples)
    write_atomically(run.samples, samples.encode())
    write_atomically(run.metrics, measured.metrics.model_dump_json(indent=1).encode())
    return measured.metrics
