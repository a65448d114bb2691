"""Many completed runs with their events and manifests, and one run with many events."""

import math
import random
from datetime import timedelta
from pathlib import Path

from pydantic_core import to_json

from tests.support.stories import BEGIN, run_record
from tests.support.unsynced_disk import UnsyncedDisk
from trainer.artifacts.runs import RunDirectory, RunStore, manifest_of
from trainer.contracts.base import changed
from trainer.contracts.events import ArtifactRef, JobCompleted, JobStarted, MetricsCompleted, MetricsProgress, stamp
from trainer.contracts.runs import RunManifest, RunMetrics, RunRecord, Timings
from trainer.contracts.seeds import RunGroup

SEEDS, STEPS = 5, 30
FAMILIES = ("char_lstm", "gpt2", "gru", "llama")


def write_runs(root: Path, count: int) -> None:
    """Write completed runs with their events and manifests; of each 50 runs, the first 5 are a group over seeds."""
    store = RunStore(root, UnsyncedDisk())
    draw = random.Random(1)
    for number in range(count):
        place = number % (10 * SEEDS)
        first = number - place if place < SEEDS else number
        group = None if place >= SEEDS else RunGroup(group_id=f"group-{first}", seeds=tuple(range(SEEDS)))
        record = run_record(f"run-{number}", user_id=None, label=f"experiment {first} of the lab")
        effective = changed(record.effective, model_family=FAMILIES[first % len(FAMILIES)], seed=number % SEEDS)
        created = BEGIN + timedelta(minutes=number)
        run = store.create(changed(record, created_at=created, effective=effective, group=group))
        _complete(run, draw.uniform(1.0, 4.0))


def write_long_run(root: Path, run_id: str, steps: int) -> None:
    """Write a completed run with an event for each step; its loss falls to 2 nats, with noise."""
    store, draw = RunStore(root, UnsyncedDisk()), random.Random(1)
    record = changed(run_record(run_id, user_id=None, label="a long run"), created_at=BEGIN)
    run = store.create(record)
    first = changed(_progress(record, 1, 2.0), val_loss=None, seq=1, tokens=1000, words=200)
    fields: dict[str, object] = first.model_dump(mode="json")
    with (run.path / "events.jsonl").open("wb") as log:
        for step in range(1, steps + 1):
            at = BEGIN + timedelta(seconds=step)
            counts = {"seq": step, "step": step, "tokens": 1000 * step, "words": 200 * step, "total_steps": steps}
            loss = 2 + 3 / (1 + step / 1000) + draw.gauss(0, 0.1)
            numbers = {"ts": at, "event_id": f"{run_id}:progress:{step}", "train_loss": loss}
            log.write(to_json(fields | counts | numbers) + b"\n")
    _complete(run, 2.0)


def _complete(run: RunDirectory, loss: float) -> None:
    """Write the events and the manifest of a run with this loss at its end."""
    record = run.record()
    end = record.created_at + timedelta(hours=1)
    artifact = ArtifactRef(id=run.run_id, bytes=1, sha256="a" * 64)
    bits = 2 * loss / math.log(2)
    with run.open_log() as log:
        log.append(JobStarted(**stamp(run.run_id, None, "started"), queue="training", attempt=1))
        for step in range(1, STEPS + 1):
            log.append(_progress(record, step, loss * (1 + 1 / step)))
        result = MetricsCompleted(
            **stamp(run.run_id, None, "metrics"),
            test_loss=loss,
            test_perplexity=math.exp(loss),
            bits_per_char=bits,
            artifact=artifact,
            train_loss=loss,
        )
        log.append(result)
        log.append(JobCompleted(**stamp(run.run_id, None, "completed", end), result_id=run.run_id, result_bytes=1))
    metrics = RunMetrics(train=loss, val=loss, best=loss, test=loss, bits_per_char=bits)
    run.write_manifest(_manifest(record, metrics))


def _manifest(record: RunRecord, metrics: RunMetrics) -> RunManifest:
    timings = Timings(created=record.created_at, finished=record.created_at + timedelta(hours=1))
    return changed(manifest_of(record, "completed"), metrics=metrics, timings=timings)


def _progress(record: RunRecord, step: int, loss: float) -> MetricsProgress:
    return MetricsProgress(
        **stamp(record.run_id, None, f"progress:{step}"),
        epoch=1,
        total_epochs=1,
        step=step,
        total_steps=STEPS,
        progress=100.0 * step / STEPS,
        train_loss=loss,
        train_perplexity=math.exp(loss),
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens_per_second=1e4,
        chars_per_second=5e3,
        eta_seconds=60.0,
        val_loss=loss,
        best_val_loss=loss,
    )
