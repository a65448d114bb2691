"""Workers that end: when they have had no job for a while, or politely, so that others can continue at once."""

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support import (
    add_corpus,
    child_of,
    environment_in,
    processes,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.cross_language import add_languages, plan_with
from tests.support.redis_servers import claiming_worker, embedded, served
from tests.support.started_jobs import started_battery, started_experiment
from tests.support.stored_jobs import is_free
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import LONG, events_of, log_of_worker, worker_in
from trainer.commands.main import main
from trainer.commands.start import duration_seconds
from trainer.contracts.batteries import BatteryRequest, DevelopmentOptions
from trainer.contracts.events import JobProgress
from trainer.contracts.jobs import FolderJobPayload
from trainer.contracts.runs import RunStatus
from trainer.store import keys
from trainer.worker.process import WakingWorker, wait_until_idle


async def test_worker_until_idle__trains_what_waits_and_ends_with_0(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    large = {"embedding_size": 64, "hidden_size": 160, "num_layers": 1}  # not too small for them
    requests = (tiny_request(seed=1), tiny_request(model=large, batch_size=16, max_steps=1, threads=0))
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        run_ids = [(await queue.train(request, user_id=None)).run_id for request in requests]
        async with (
            worker_in(tmp_path, "--until-idle", "1s", REDIS__URL=server.url, OMP_NUM_THREADS="3") as worker,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            await worker.wait()
        states = [(await queue.states.status(run_id)).status for run_id in run_ids]
        manifests = [queue.runs.get(run_id).manifest() for run_id in run_ids]
    assert (worker.returncode, states) == (0, ["completed", "completed"])
    assert "worker_idle" in log_of_worker(tmp_path)
    ran = [manifest.environment for manifest in manifests if manifest is not None and manifest.environment is not None]
    assert [(each.threads, each.mean_threads) for each in ran] == [(1, None), (3, 3.0)]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_jobs_of_a_worker_that_has_ended__are_shown_as_queued(
    end: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_languages(tmp_path)
    request = plan_with({**LONG, "checkpoint_schedule": [1]})
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        async with worker_in(tmp_path, REDIS__URL=server.url, QUEUE__TRAINING_SLOTS="2") as worker:
            experiment = await started_experiment(queue, request)
            experiment_id = experiment.experiment_id
            await until(lambda: len(experiment.runs()) == 2)
            runs = [queue.runs.get(cell.run_id) for cell in experiment.runs().values()]
            run_id = runs[0].run_id
            await wait_for_status(queue, run_id, lambda status: status.step > 1)
            options = DevelopmentOptions(split="validation", follows=True)
            battery = await started_battery(queue, BatteryRequest(runs=(run_id,), development=options))
            jobs = [experiment, battery, runs[0]]
            await until(lambda: [job.state() for job in jobs] == ["running"] * 3)
            before = experiment.status()
            worker.send_signal(end)
            await worker.wait()
            await until(lambda: all(map(is_free, runs)))  # the children die with their worker
        states = [battery.state()]
        after = experiment.status()
    assert "running" in [cell.status for cell in before.cells]
    assert (states, after.status, {cell.status for cell in after.cells}) == (["queued"], "queued", {"queued"})
    for name, value in environment_in(tmp_path, COLUMNS="200").items():
        monkeypatch.setenv(name, value)
    for words in (("runs",), ("experiment", "list"), ("experiment", "show", experiment_id), ("battery", "list")):
        assert await asyncio.to_thread(main, words) == 0
        shown = capsys.readouterr().out
        assert "running" not in shown and "queued" in shown, words


def has_stepped(attempt: int, status: RunStatus) -> bool:
    return status.attempt == attempt and status.step > (status.last_checkpoint_step or 0)


async def test_warnings_of_a_batch_system__save_a_checkpoint_as_the_end_of_the_worker_does(tmp_path: Path) -> None:
    """The training child alone gets the first two signals, the worker and all that it has started the last one."""
    add_corpus(tmp_path, some_text())
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        run_id = (await queue.train(tiny_request(**{**LONG, "checkpoint_every_steps": 10**6}), user_id=None)).run_id
        async with worker_in(tmp_path, REDIS__URL=server.url) as worker, asyncio.timeout(PATIENCE_SECONDS):
            for attempt, warning in enumerate((signal.SIGUSR1, signal.SIGUSR2, None), start=1):
                await wait_for_status(queue, run_id, partial(has_stepped, attempt))
                if warning is not None:
                    os.kill(child_of(tmp_path, run_id).pid, warning)
            for process in processes(tmp_path):
                if process.pid != worker.pid and "--port" not in process.command:  # the server is another machine's
                    os.kill(process.pid, signal.SIGXCPU)
            worker.send_signal(signal.SIGXCPU)
            await worker.wait()
        told = events_of(queue, run_id)
        status = (await queue.states.status(run_id)).status
    ends = [index for index, event in enumerate(told) if isinstance(event, JobProgress) and event.cause is not None]
    assert [told[index - 1].type for index in ends] == ["trainer.checkpoint.saved.v1"] * 3
    assert {event.cause for event in told if isinstance(event, JobProgress)} == {None, "worker_ended"}
    assert (worker.returncode, status) == (0, "queued")


async def test_release__leaves_the_job_of_another_process_alone(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (_, _, store):
        for run_id, holder in (("run-1", "box:1"), ("run-2", "box:2")):
            await store.renew_lease(run_id, holder, seconds=60)
        await store.release_own(["run-1", "run-2"], "box:1")
        assert await store.holders(["run-1", "run-2"]) == {"run-2": "box:2"}
        assert await store.get_all(keys.lease("run-1"), keys.lease("run-2")) == [None, b"box:2"]


async def test_job_claimed_at_the_last_moment__is_done_before_the_worker_ends(tmp_path: Path) -> None:
    done: list[float] = []

    async def job(ctx: dict[str, object], payload: object) -> None:
        await asyncio.sleep(0.3)
        done.append(time.monotonic())

    class GetsAJobLate(WakingWorker):
        async def set_claiming(self, *, may_claim: bool) -> None:
            if not done and not may_claim:
                await store.enqueue("training", "train", "run-1", FolderJobPayload(job_id="run-1"))
                self.wake.set()
                await until(lambda: bool(self.running))
            await super().set_claiming(may_claim=may_claim)

    async with embedded(tmp_path) as (settings, _, store):
        async with claiming_worker(settings, store, job, GetsAJobLate) as (worker, presence):
            await wait_until_idle([worker], 0.5, presence)
            ended_at = time.monotonic()
    assert len(done) == 1
    assert ended_at >= done[0] + 0.5


@pytest.mark.parametrize("given", ["10", "0m", "1d", "-5s", "ten minutes", ""])
def test_time_until_idle__must_be_a_duration(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["worker", f"--until-idle={given}"])
    sentence = f"mt: `--until-idle` must be a duration such as 90s, 10m or 1h, you gave '{given}'.\n"
    assert (code, capsys.readouterr().err) == (2, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "seconds"), [("90s", 90.0), ("10m", 600.0), ("2h", 7200.0)])
def test_duration__is_in_seconds_minutes_or_hours(given: str, seconds: float) -> None:
    assert duration_seconds(given) == seconds
