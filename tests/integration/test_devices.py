"""Trainings by several processes: the numbers of one process, and an end without leftovers whatever is killed."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support import (
    add_corpus,
    ended,
    gone,
    is_running,
    kill,
    parent_of,
    processes,
    running,
    settings_in,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.checkpoints import kept_states
from tests.support.ranks import Case, trained, trained_by_two
from tests.support.waiting import until
from tests.support.worker_runs import events_of, losses, training
from trainer.artifacts.checkpoint_files import TextSeen
from trainer.contracts.errors import ErrorCode
from trainer.contracts.events import JobProgress
from trainer.contracts.runs import RunStatus
from trainer.training.progress import CurveRow

pytestmark = pytest.mark.process

_TOLERANCE = 1e-5
_STEPS = 50
_SIZES: dict[str, object] = {"hidden_size": 16, "num_layers": 2, "num_attention_heads": 2}
_SIZES |= {"dropout": 0.0, "attention_dropout": 0.0}
_SHARED: dict[str, object] = {"max_steps": _STEPS, "num_epochs": 20, "log_every_steps": 1}
_SHARED |= {"batch_size": 5, "checkpoint_every_steps": 20, "checkpoint_schedule": {"words": [50, 999]}}
"""With 5 rows in a batch, no process has as many rows as the other."""
_TRANSFORMER: dict[str, object] = {**_SHARED, "model": _SIZES}
_AVERAGED: dict[str, object] = {"optimizer": {"name": "muon"}, "ema_decay": 0.9}
_FAMILIES: dict[str, dict[str, object]] = {
    "lstm": {**_SHARED, "gradient_accumulation": 2, "gradient_clipping": 0.5},
    "gpt2": {**_TRANSFORMER, "model_family": "gpt2", "sample_every_steps": 25, **_AVERAGED},
    "bert": {**_TRANSFORMER, "model_family": "bert", "gradient_accumulation": 2, "optimizer": {"name": "sgd"}},
}
_STRATEGIES = {"lstm-ddp": "lstm", "gpt2-ddp": "gpt2", "gpt2-fsdp": "gpt2", "bert-ddp": "bert", "bert-fsdp": "bert"}


def _two(name: str, family: str, **more: bool) -> Case:
    strategy = name.split("-")[1]
    return Case(name, {**_FAMILIES[family], "devices": 2, "strategy": strategy}, **more)


def _kept(folder: Path) -> list[tuple[int, TextSeen]]:
    found = [(state.step, state.seen) for state in kept_states(folder / "checkpoints")]
    assert len(found) == 3
    return found


def _far(one: list[CurveRow], two: list[CurveRow]) -> float:
    """Return the largest difference of losses; both curves must have the same rows."""
    assert [row.step for row in one] == [row.step for row in two]
    pairs = [(a.train_loss, b.train_loss) for a, b in zip(one, two, strict=True)]
    pairs += [(a.val_loss, b.val_loss) for a, b in zip(one, two, strict=True)]
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a - b) for a, b in pairs if a is not None and b is not None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategies", "names"),
    [
        ({"lstm-ddp": "lstm"}, {}),
        (_STRATEGIES, {"gpt2-ddp": "gpt2", "gpt2-fsdp": "gpt2"}),
    ],
    ids=["one", "all"],
)
def test_devices__two_processes_have_the_losses_of_one(
    strategies: dict[str, str], names: dict[str, str], tmp_path: Path
) -> None:
    """Over 50 steps, their validation and the test; a pause of one training is resumed by the other number."""
    one = {family: trained(tmp_path, Case(family, _FAMILIES[family])) for family in {*strategies.values()}}
    first = {name: trained(tmp_path, Case(f"{name}-later", _FAMILIES["gpt2"], pauses=True)) for name in names}
    cases = [_two(name, family) for name, family in strategies.items()]
    cases += [_two(name, family)._replace(name=f"{name}-paused", pauses=True) for name, family in names.items()]
    cases += [_two(name, family)._replace(name=f"{name}-later", resumes=True) for name, family in names.items()]
    two = trained_by_two(tmp_path, cases)
    for name, family in strategies.items():
        assert len([row for row in two[name] if row.train_loss is not None]) == _STEPS
        assert _far(one[family], two[name]) < _TOLERANCE, name
        assert _kept(tmp_path / family) == _kept(tmp_path / name)
    for name in names:
        paused = two[f"{name}-paused"]
        rest = trained(tmp_path, Case(f"{name}-paused", _FAMILIES["gpt2"], resumes=True))
        assert 0 < len(paused) < _STEPS
        assert _far(one["gpt2"], paused + rest) < _TOLERANCE, name
        assert _far(one["gpt2"], first[name] + two[f"{name}-later"]) < _TOLERANCE, name


_LONG: dict[str, object] = {"num_epochs": 1000, "devices": 2, "threads": 2}


@pytest.mark.slow
async def test_devices__killed_cancelled_or_stopped_resume_or_end_whole(tmp_path: Path) -> None:
    """Each rank is killed, then the parent of all ranks; a run is cancelled; at last the worker is stopped."""
    add_corpus(tmp_path, some_text())
    fields: dict[str, object] = {"num_epochs": 30, "checkpoint_every_steps": 20, "log_every_steps": 5, "threads": 2}
    async with running(settings_in(tmp_path)) as queue:
        one = (await queue.train(tiny_request(**fields), user_id=None)).run_id
        await wait_for_status(queue, one, ended)
        two = (await queue.train(tiny_request(**fields, devices=2), user_id=None)).run_id
        for attempt, rank, step in ((1, 1, 20), (2, 0, 40)):
            await wait_for_status(queue, two, partial(_has_saved, attempt, step))
            kill(_rank_pid(tmp_path, rank))
        status = await wait_for_status(queue, two, ended)
        curves = [dict(losses(queue.runs.get(run_id).path / "loss_curve.jsonl")) for run_id in (one, two)]
        told, environment = events_of(queue, two), queue.runs.get(two).completed_manifest().environment
        assert (status.status, status.attempt) == ("completed", 3)
        assert any(isinstance(event, JobProgress) and "was killed" in event.message for event in told)
        assert environment is not None
        assert (environment.devices, environment.backend, environment.threads) == (2, "gloo", 1)
        assert _apart(*curves) < 1e-5

        cancelled = (await queue.train(tiny_request(**_LONG, checkpoint_every_steps=20), user_id=None)).run_id
        await wait_for_status(queue, cancelled, training)
        ranks = [_rank_pid(tmp_path, rank) for rank in (0, 1)]
        kill(parent_of(ranks[0]))
        await until(lambda: not any(is_running(rank) for rank in ranks))
        status = await wait_for_status(queue, cancelled, partial(_has_saved, 2, 1))
        assert not ended(status)
        await queue.states.cancel(cancelled)
        assert (await wait_for_status(queue, cancelled, ended)).status == "cancelled"

        stopped = (await queue.train(tiny_request(**_LONG, checkpoint_every_steps=10**6), user_id=None)).run_id
        await wait_for_status(queue, stopped, training)
    assert await gone(tmp_path)
    assert all(any(queue.runs.get(run_id).checkpoints.glob("step-*")) for run_id in (cancelled, stopped))
    assert isinstance(events_of(queue, stopped)[-1], JobProgress)


def _has_saved(attempt: int, step: int, status: RunStatus) -> bool:
    """Return True if an attempt of a run goes on from a checkpoint of a step or a later one, or the run has ended."""
    return (status.attempt == attempt and (status.last_checkpoint_step or 0) >= step) or ended(status)


def _rank_pid(folder: Path, rank: int) -> int:
    """Return the process with a rank."""
    [pid] = [
        process.pid
        for process in processes(folder, "trainer.worker.children.rank")
        if f"RANK={rank}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    ]
    return pid


def _apart(one: dict[int, str], two: dict[int, str]) -> float:
    """Return the largest difference of losses at the same steps."""
    assert one.keys() == two.keys()
    return max(abs(float.fromhex(one[step]) - float.fromhex(two[step])) for step in one)


@pytest.mark.slow
async def test_devices__error_of_a_process_is_the_end_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of all processes, and a fault of the second process's device, which Python is told at its start."""
    add_corpus(tmp_path, some_text())
    wide = {**_SIZES, "hidden_size": 64}
    diverging: dict[str, object] = {"model_family": "gpt2", "model": wide, "optimizer": {"name": "adamw"}}
    diverging |= {"learning_rate": 1.0, "gradient_clipping": None}
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(_FAULT_OF_THE_SECOND, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"), prepend=os.pathsep)
    codes: list[ErrorCode] = []
    async with running(settings_in(tmp_path)) as queue:
        for fields in (diverging, {"label": "a fault"}):
            run_id = (await queue.train(tiny_request(**fields | _LONG, log_every_steps=1), user_id=None)).run_id
            status = await wait_for_status(queue, run_id, ended)
            assert status.error is not None
            codes.append(status.error.code)
            assert status.attempt == 1
    assert codes == [ErrorCode.TRAINING_NAN_LOSS, ErrorCode.MODEL_TRAIN_FAILED]
    assert await gone(tmp_path)


_FAULT_OF_THE_SECOND = """
import os

if os.environ.get("RANK") == "1":
    from torch.nn import functional

    cross_entropy, calls = functional.cross_entropy, 0

    def fail_later(logits, *rest, **more):
        global calls
        calls += 1
        if calls > 20:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return cross_entropy(logits, *rest, **more)

    functional.cross_entropy = fail_later
"""


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
async def test_devices__two_gpus_have_the_losses_of_one(tmp_path: Path, strategy: str) -> None:
    add_corpus(tmp_path, some_text())
    fields: dict[str, object] = {"model_family": "gpt2", "model": _SIZES, "device": "cuda", "precision": "fp32"}
    curves: list[dict[int, str]] = []
    async with running(settings_in(tmp_path)) as queue:
        for devices in (1, 2):
            spread: dict[str, object] = {"devices": devices, "strategy": strategy}
            run_id = (await queue.train(tiny_request(**fields, **spread), user_id=None)).run_id
            await wait_for_status(queue, run_id, ended)
            environment = queue.runs.get(run_id).completed_manifest().environment
            assert environment is not None
            assert environment.backend == (None if devices == 1 else "nccl")
            memory = queue.runs.get(run_id).follow().refresh().gpu_memory_bytes
            assert memory is not None and len(memory) == devices and min(memory) > 0
            curves.append(dict(losses(queue.runs.get(run_id).path / "loss_curve.jsonl")))
    assert _apart(*curves) < 1e-4
