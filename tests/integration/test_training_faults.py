"""Training under faults, with real processes: whatever is killed, stopped or full, a run ends once and right."""

import asyncio
import os
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
from arq import Retry

from tests.support import (
    Process,
    add_corpus,
    child_of,
    ended,
    kill,
    processes,
    running,
    settings_in,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.faulty_runs import LARGE, Outcome, outcome
from tests.support.lab import Lab
from tests.support.redis_servers import embedded
from tests.support.waiting import captured_logs, until
from tests.support.worker_runs import events_of, log_of_worker, worker_in
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import CheckpointSaved, JobCancelled, JobCompleted, JobFailed, JobProgress
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.queue.queue import JobQueue
from trainer.queue.resolve import preview_training, resolve_request
from trainer.worker.supervisor import supervise

STALL_SECONDS = 8.0
"""Time after which a child that stands still is stopped, and after which a stopped one is killed."""
FULL_BYTES = 1_000_000
"""The largest file where the disk is full: room for events and logs, but not for a checkpoint."""


def request(**fields: object) -> TrainRequest:
    return tiny_request(model=LARGE, num_epochs=15, **fields)


def settings(folder: Path) -> Settings:
    chosen = settings_in(folder, lease_seconds=1)
    return changed(chosen, queue=changed(chosen.queue, stall_seconds=STALL_SECONDS, retry_seconds=0.2))


@pytest.fixture(scope="module")
def calm(lab: Lab) -> Outcome:
    """The outcome of the request without faults; the checkpoint interval does not change it."""

    async def train() -> Outcome:
        async with lab.queue() as queue:
            run_id = (await queue.train(request(), user_id=None)).run_id
            await wait_for_status(queue, run_id, ended)
            return outcome(queue.runs.get(run_id))

    return asyncio.run(train())


def messages(queue: JobQueue, run_id: str) -> list[str]:
    return [event.message for event in events_of(queue, run_id) if isinstance(event, JobProgress)]


def has_messages(queue: JobQueue, run_id: str, message: str, times: int) -> bool:
    return messages(queue, run_id).count(message) == times


def ends(queue: JobQueue, run_id: str) -> list[str]:
    last = (JobCompleted, JobFailed, JobCancelled)
    return [type(event).__name__ for event in events_of(queue, run_id) if isinstance(event, last)]


def has_attempt(number: int, status: RunStatus) -> bool:
    return status.attempt == number or ended(status)


def trains_in_attempt(number: int, status: RunStatus) -> bool:
    return (status.attempt == number and status.message == "Training.") or ended(status)


def about(process: Process, name: str) -> str:
    """Return the fields of a process from /proc."""
    return Path(f"/proc/{process.pid}/{name}").read_text(encoding="ascii")


@pytest.mark.slow
async def test_stopped_worker_kills_and_a_stall__change_no_loss(tmp_path: Path, calm: Outcome) -> None:
    """A worker that is stopped beyond its lease, for whose run another one waits; then the end of one child after the
    other, before any checkpoint."""
    add_corpus(tmp_path, some_text())
    async with running(settings(tmp_path)) as queue:
        run_id = (await queue.train(request(), user_id=None)).run_id
        await wait_for_status(queue, run_id, partial(trains_in_attempt, 1))
        [first] = processes(tmp_path, "trainer worker --embedded")
        stopped = (child_of(tmp_path, run_id), first)
        for process in stopped:
            os.kill(process.pid, signal.SIGSTOP)
        async with worker_in(tmp_path, QUEUE__LEASE_SECONDS="1", QUEUE__EMBEDDED_WORKERS="0"):
            await until(lambda: "exit_code=75" in log_of_worker(tmp_path))
            for process in stopped:
                os.kill(process.pid, signal.SIGCONT)
            status = await wait_for_status(queue, run_id, ended)
        assert (status.status, status.attempt, outcome(queue.runs.get(run_id))) == ("completed", 1, calm)
        assert ends(queue, run_id) == ["JobCompleted"]
        killed = (await queue.train(request(checkpoint_every_steps=10**6), user_id=None)).run_id
        for attempt in (1, 2, 3):
            await wait_for_status(queue, killed, partial(has_attempt, attempt))
            kill(child_of(tmp_path, killed).pid)
        await wait_for_status(queue, killed, partial(trains_in_attempt, 4))
        os.kill(child_of(tmp_path, killed).pid, signal.SIGSTOP)
        status = await wait_for_status(queue, killed, ended)
        assert (status.status, status.attempt, outcome(queue.runs.get(killed))) == ("completed", 5, calm)
        assert ends(queue, killed) == ["JobCompleted"]
        told = messages(queue, killed)
        assert told.count("The training was killed from outside; it restarts.") == 3
        assert told.count("The training stalled and was stopped; it restarts.") == 1


@pytest.mark.slow
async def test_crash_loop__ends_after_three_crashes_and_keeps_the_last_lines(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(50_000), "one-long-epoch")  # which is killed before its end
    long: dict[str, object] = {"corpus": "one-long-epoch", "batch_size": 1, "checkpoint_every_steps": 10**6}
    async with lab.queue() as queue:
        run_id = (await queue.train(request(**long), user_id=None)).run_id
        for attempt in (1, 2, 3):
            await wait_for_status(queue, run_id, partial(has_attempt, attempt))
            child = child_of(lab.folder, run_id)
            assert about(child, "oom_score_adj") == "500\n"
            os.kill(child.pid, signal.SIGABRT)
        status = await wait_for_status(queue, run_id, ended)
        assert status.error is not None and status.error.code is ErrorCode.CRASH_LOOP
        assert "mt " not in status.message, "it is shown in Discord too"
        assert str(lab.folder) not in status.message
        manifest = queue.runs.get(run_id).manifest()
        assert manifest is not None
        assert "Fatal Python error: Aborted\n" in manifest.last_lines


def limit_files(process: Process, largest_bytes: int) -> None:
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest_bytes, hard))


@pytest.mark.slow
async def test_full_disk__run_continues_from_its_checkpoint_when_there_is_room(lab: Lab, calm: Outcome) -> None:
    async with lab.queue() as queue:
        run_id = (await queue.train(request(checkpoint_every_steps=40), user_id=None)).run_id
        await wait_for_status(queue, run_id, lambda s: s.last_checkpoint_step is not None or ended(s))
        full = "The disk is full; the training continues when there is space."
        for attempt in (1, 2, 3):  # the last of which is waited for outside of the slot
            await wait_for_status(queue, run_id, partial(has_attempt, attempt))
            limit_files(child_of(lab.folder, run_id), FULL_BYTES)
            await until(partial(has_messages, queue, run_id, full, attempt))
        run = queue.runs.get(run_id)
        saved = [event.step for event in events_of(queue, run_id) if isinstance(event, CheckpointSaved)]
        assert (run.checkpoints / f"step-{saved[-1]}").is_dir()
        assert run.manifest() is None
        status = await wait_for_status(queue, run_id, ended)
        assert status.status == "completed"
        assert outcome(run) == calm


@pytest.mark.slow
async def test_no_memory__is_final_at_once_with_advice(lab: Lab) -> None:
    """The address space ends where the first batch begins."""
    add_corpus(lab.folder, some_text(20_000), "long")
    sizes: dict[str, object] = {"embedding_size": 1024, "hidden_size": 8, "num_layers": 1, "dropout": 0.0}
    async with lab.queue() as queue:
        greedy = tiny_request(corpus="long", model=sizes, max_seq_len=512, batch_size=4096)
        run_id = (await queue.train(greedy, user_id=None)).run_id
        await wait_for_status(queue, run_id, lambda s: s.attempt == 1)
        child = child_of(lab.folder, run_id)
        used_bytes = int(about(child, "statm").split()[0]) * resource.getpagesize()
        resource.prlimit(child.pid, resource.RLIMIT_AS, (used_bytes + 10**9, resource.RLIM_INFINITY))
        status = await wait_for_status(queue, run_id, ended)
        assert status.error is not None and status.error.code is ErrorCode.OUT_OF_MEMORY
        assert status.attempt == 1
        assert "Use `batch_size` 2048 with `gradient_accumulation` 2," in status.message


async def test_model_beyond_all_memory__is_final_at_once_with_advice(lab: Lab) -> None:
    """A run that the cost preview would refuse, accepted nevertheless."""
    async with lab.queue() as queue:
        greedy = tiny_request(model={"embedding_size": 8, "hidden_size": 500_000, "num_layers": 1})
        with pytest.raises(AppError, match="GiB of memory"):
            await queue.train(greedy, user_id=None)
        preview = await preview_training(tiny_request(), queue.corpora, lab.settings)
        greedy_preview = preview._replace(
            request=greedy, effective=await resolve_request(greedy, queue.corpora, lab.settings)
        )
        run_id = (await queue.accept(greedy_preview, user_id=None)).run_id
        status = await wait_for_status(queue, run_id, ended)
    assert status.error is not None and status.error.code is ErrorCode.OUT_OF_MEMORY
    assert (status.status, status.attempt) == ("failed", 1)


async def test_cancel__twice_and_of_a_finishing_run_leaves_one_end(lab: Lab) -> None:
    async with lab.queue() as queue:
        running_one = (await queue.train(tiny_request(num_epochs=1000), user_id=None)).run_id
        await wait_for_status(queue, running_one, partial(trains_in_attempt, 1))
        child = child_of(lab.folder, running_one)
        os.kill(child.pid, signal.SIGSTOP)
        for _ in range(2):
            await queue.states.cancel(running_one)
        os.kill(child.pid, signal.SIGCONT)
        assert (await wait_for_status(queue, running_one, ended)).status == "cancelled"
        finishing = (await queue.train(tiny_request(), user_id=None)).run_id
        await wait_for_status(queue, finishing, lambda s: s.progress == 100.0)
        try:
            await queue.states.cancel(finishing)
        except AppError as error:
            assert error.code is ErrorCode.RUN_FINISHED
        assert (await wait_for_status(queue, finishing, ended)).status in ("completed", "cancelled")
        assert [len(ends(queue, run_id)) for run_id in (running_one, finishing)] == [1, 1]


async def test_end_that_cannot_be_recorded__is_retried(tmp_path: Path) -> None:
    """The request is lost, so there is nobody to tell; the run is not forgotten either."""
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (alone, queue, store):
        run = queue.runs.get((await queue.train(request(), user_id=None)).run_id)
        (run.path / "request.json").unlink()
        with captured_logs() as logs, pytest.raises(Retry) as later:
            await supervise(run, alone, store)
    assert later.value.defer_score == 60_000
    assert "attempt_end_unrecorded" in [line["event"] for line in logs]
