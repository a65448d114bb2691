"""A child of `mt bench`: prepares the corpus for all trainings of a plan, or runs one of them."""

import sys
from pathlib import Path

from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.benchmarks import BenchmarkPlan, BenchmarkPoint, BenchmarkRow, PreparedBenchmark
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.models import build
from trainer.system.child_environment import BENCHMARK_ERROR, BENCHMARK_PLAN, BENCHMARK_PREPARED
from trainer.system.files import read_record, to_app_error, write_atomically
from trainer.system.hardware import most_memory_bytes
from trainer.system.logs import setup_logging
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import vocabulary_of
from trainer.training.batches import epoch_order, masking
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import prepare
from trainer.training.device import environment, resolve, seed_everything
from trainer.training.evaluation import evaluate
from trainer.training.loop import TrainingCallbacks, train
from trainer.training.progress import CurveRow
from trainer.worker.children.evaluate_run import data_paths


def run_benchmark_child(settings: Settings, folder: Path, name: str) -> int:
    """Run the part of the plan in `folder` that has this name; return 1 after writing an error."""
    setup_logging(settings, "model-trainer-benchmark", sys.stderr)
    plan = read_record(folder / f"{BENCHMARK_PLAN}.json", BenchmarkPlan)
    try:
        done = prepare_all(settings, folder, plan) if name == BENCHMARK_PREPARED else train_one(settings, folder, name)
    except (AppError, OSError) as error:
        reason = RunError.of(to_app_error(error, settings.app.folders()))
        write_atomically(folder / f"{BENCHMARK_ERROR}.json", reason.model_dump_json().encode())
        return 1
    write_atomically(folder / f"{name}.json", done.model_dump_json().encode())
    return 0


def prepare_all(settings: Settings, folder: Path, plan: BenchmarkPlan) -> PreparedBenchmark:
    """Train the tokenizer of all models on the training split, encode the corpus, and count the steps."""
    effective = next(iter(plan.requests.values()))
    tokenizer, corpus = prepare(effective, *data_paths(settings, effective))
    tokenizer.save(folder / "tokenizer")
    compute = resolve(effective)
    rows = corpus.rows("train", effective.max_seq_len)
    most_tokens = _MAX_EPOCHS * corpus.sizes["train"].tokens
    if plan.tokens > most_tokens:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`--tokens` must be {most_tokens:,} at most, which is this text {_MAX_EPOCHS:,} times over.",
        )
    steps = tokens = epochs = 0
    while tokens < plan.tokens:
        order = epoch_order(len(rows), effective.seed, epochs)
        epochs += 1
        for start in range(0, len(order), compute.batch_size):
            tokens += rows.batch(order[start : start + compute.batch_size]).tokens
            steps += 1
            if tokens >= plan.tokens:
                break
    return PreparedBenchmark(
        steps=steps,
        epochs=epochs,
        tokens=tokens,
        tokenizer_id=tokenizer.manifest.tokenizer_id,
        tokenizer_sha256=tokenizer.manifest.files[0].sha256,
        vocab_size=tokenizer.vocab_size,
        train=corpus.sizes["train"],
        test=corpus.sizes["test"],
        environment=environment(compute),
    )


_MAX_EPOCHS = 1000


def train_one(settings: Settings, folder: Path, name: str) -> BenchmarkRow:
    """Train one model of the plan, and evaluate the weights with the best validation loss on the test split."""
    shared = read_record(folder / f"{BENCHMARK_PREPARED}.json", PreparedBenchmark)
    planned = read_record(folder / f"{BENCHMARK_PLAN}.json", BenchmarkPlan).requests[name]
    effective = changed(planned, num_epochs=shared.epochs, max_steps=shared.steps)
    tokenizer, corpus = prepare(effective, *data_paths(settings, effective), load_tokenizer(folder / "tokenizer"))
    compute = resolve(effective)
    seed_everything(effective.seed)
    model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
    curve: list[BenchmarkPoint] = []

    def add(row: CurveRow) -> None:
        values: dict[str, object] = row.model_dump(include={"step", "train_loss", "val_loss"})
        curve.append(BenchmarkPoint.model_validate(values))

    store = CheckpointStore(folder / name)
    untested = corpus._replace(ids={split: ids for split, ids in corpus.ids.items() if split != "test"})
    result = train(model, untested, effective, compute, store, callbacks=TrainingCallbacks(on_row=add))
    peak_memory_bytes = most_memory_bytes()
    test = evaluate(
        model, corpus.documents("test", masking(effective, model.vocabulary, effective.split_seed)), compute
    )
    return BenchmarkRow(
        name=name,
        objective=effective.objective,
        params=model.parameter_count(),
        learning_rate=effective.learning_rate,
        test_loss=test.loss_nats,
        bits_per_char=corpus.sizes["test"].bits_per_char(test.loss_nats, effective.objective),
        tokens_per_second=shared.tokens / result.state.train_seconds,
        train_seconds=result.state.train_seconds,
        peak_memory_bytes=peak_memory_bytes,
        request=effective,
        curve=tuple(curve),
    )
