"""A run directory that the first release wrote is read, asked, started from and gone on with as if it were ours."""

import shutil
from pathlib import Path

from tests.support import ended, running, settings_in, tiny_request, wait_for_status
from trainer.checkpoint import CheckpointStore
from trainer.contracts.events import CheckpointSaved
from trainer.contracts.presets import request_hash
from trainer.model_artifact import load_run
from trainer.runs import RunDirectory, RunStore
from trainer.scoring import surprisals

STORED = Path(__file__).parents[1] / "fixtures" / "first_release"


def old_run(folder: Path) -> RunDirectory:
    shutil.copytree(STORED, folder, dirs_exist_ok=True)
    [run] = RunStore(folder / "artifacts").all()
    return run


def test_files__are_read(tmp_path: Path) -> None:
    run = old_run(tmp_path)

    record, manifest = run.record(), run.completed_manifest()
    assert request_hash(record.effective) == record.request_hash == manifest.request_hash
    assert (manifest.status, manifest.steps, manifest.metrics.initial) == ("completed", 34, None)
    assert manifest.data is not None and manifest.data.train.unknown_tokens is None
    assert run.follow().refresh().status == "completed"
    model, tokenizer = load_run(run)
    assert len(surprisals(model, tokenizer.encode("abc cab"))) == 7
    checkpoint = CheckpointStore(run.checkpoints).recover().checkpoint
    assert checkpoint is not None
    assert (checkpoint.state.step, checkpoint.state.initial_loss_nats) == (34, None)


async def test_run_that_was_interrupted__goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    expected, curve = run.completed_manifest(), run.loss_curve.read_text(encoding="utf-8")
    events = run.reader().read_new()
    saved = next(e.seq for e in events if isinstance(e, CheckpointSaved) and e.step == 17)
    log = run.path / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:saved]))
    shutil.rmtree(run.checkpoints / "step-34")
    for name in ("manifest.json", "model.safetensors", "config.json"):
        (run.path / name).unlink()

    async with running(settings_in(tmp_path)) as queue:
        await wait_for_status(queue, run.run_id, ended)

    manifest = run.completed_manifest()
    assert manifest.metrics == expected.metrics
    assert figures(run.loss_curve.read_text(encoding="utf-8")) == figures(curve)


def figures(curve: str) -> list[str]:
    """The rows of a loss curve without the clock."""
    return [row.split('"elapsed_seconds"')[0] for row in curve.splitlines()]


async def test_run_whose_last_event_was_never_written__is_ended(tmp_path: Path) -> None:
    """As after a child that was killed between its manifest and its last event, the last thing but the seal."""
    run = old_run(tmp_path)
    log = run.path / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert run.follow().refresh().status == "running"

    async with running(settings_in(tmp_path)) as queue:
        status = await wait_for_status(queue, run.run_id, ended)

    assert (status.status, status.attempt) == ("completed", 1)


async def test_run__is_started_from(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    async with running(settings_in(tmp_path)) as queue:
        accepted = await queue.train(tiny_request(init_from_run_id=run.run_id), user_id=None)
        await wait_for_status(queue, accepted.run_id, ended)
        child = queue.runs.get(accepted.run_id).completed_manifest()

    assert child.metrics.initial == run.completed_manifest().metrics.best
