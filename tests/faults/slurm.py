"""Tries `deploy/slurm` with Debian's Slurm, as root: `make slurm-test`.

Twelve runs train on two nodes; one worker is preempted, and the node of another one goes down. Every run must complete
once, equal to the same training without Slurm.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel
from rich.console import Console

from tests.faults import driver
from tests.faults.cluster import NODE_LOSS, NODES, PREEMPTION, Cluster, started
from tests.faults.driver import Verdict, attempts_at, completed_faults, event_faults
from tests.support import ROOT, ended, gone, processes, tiny_request, wait_for_status
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import CheckpointSaved, JobProgress, JobStarted
from trainer.contracts.runs import TrainRequest
from trainer.queue.queue import JobQueue
from trainer.store.store import Store, connect

RUNS = 12
_EPOCHS, _LONG_EPOCHS = 2, 40
_IDLE_SECONDS = 20
"""Longer than a lease, so that a worker waits for the run of a lost node."""
_CORPUS_LINES, _LONGEST_SECONDS = 120, 900.0
_EARLY_PERCENT = 50.0
"""A worker is interrupted before this share of its run, because the interruption takes some seconds."""


class StuckError(Exception):
    """The campaign cannot continue; the message is a sentence for its user."""


class Interruption(NamedTuple):
    """A worker that lost its node in the middle of a run."""

    run: RunDirectory
    job_id: str
    """The worker's job in Slurm."""
    is_preemption: bool


def requests() -> list[TrainRequest]:
    """Return trainings of some seconds, of four families; the first four are longer, to be interrupted."""
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 2, "dropout": 0.2}
    common: dict[str, object] = {"model": sizes, "checkpoint_every_steps": 50, "log_every_steps": 1}
    kinds: list[dict[str, object]] = [
        {"model_family": "char_lstm", "lr_schedule": "cosine"},
        {"model_family": "gru", "gradient_accumulation": 2, "tokenizer": {"method": "char"}},
        {"model_family": "rnn", "early_stopping": {"enabled": True, "patience": 60}, "tokenizer": {"method": "char"}},
        {"model_family": "lstm", "tokenizer": {"method": "char"}},
    ]
    return [
        tiny_request(
            **common | kinds[number % len(kinds)],
            seed=number,
            num_epochs=_LONG_EPOCHS if number < len(kinds) else _EPOCHS,
            test_fraction=0.1,
        )
        for number in range(RUNS)
    ]


class Campaign:
    """Runs on the nodes of a cluster, one worker of which is preempted, and another one's node lost."""

    def __init__(self, folder: Path, queue: JobQueue, store: Store, cluster: Cluster, runs: list[RunDirectory]) -> None:
        self.folder, self.queue, self.store, self.cluster, self.runs = folder, queue, store, cluster, runs
        self.interruptions: list[Interruption] = []

    async def run(self, environment: Mapping[str, str]) -> None:
        """Submit the array job of `deploy/slurm` as a user does, disturb it, and wait for the end of all."""
        names = ("PYTHONPATH", "REDIS__URL", "APP__DATA_ROOT", "APP__ARTIFACTS_ROOT", "QUEUE__LEASE_SECONDS")
        values = {name: environment[name] for name in (*names, "QUEUE__STALL_SECONDS")}
        values |= {"MT": str(Path(sys.executable).with_name("mt")), "MT_UNTIL_IDLE": f"{_IDLE_SECONDS}s"}
        file = self.folder / "worker.env"
        file.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
        script = str(ROOT / "deploy" / "slurm" / "worker.sbatch")
        await self.cluster.command("sbatch", f"--array=1-{len(NODES)}", script, MT_ENV=str(file))
        await self._preempt(NODES[0])
        await self._lose(NODES[1])
        async with _patience("not all runs ended"):
            for run in self.runs:
                await wait_for_status(self.queue, run.run_id, ended, _LONGEST_SECONDS)
        async with _patience("the workers did not end by themselves"):
            while await self.cluster.jobs():
                await asyncio.sleep(0.5)

    async def _preempt(self, node: str) -> None:
        """Preempt the worker of a node by a job with a higher priority, and wait until the run continues."""
        run = await self._interrupt(node, is_preemption=True)
        urgent = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--job-name=urgent", "--wrap=sleep 5"]
        await self.cluster.command("sbatch", *urgent)
        await self._wait_for_next_attempt(run)

    async def _lose(self, node: str) -> None:
        """Kill everything on a node, tell Slurm that it is down, and bring it back when the run continues."""
        run = await self._interrupt(node, is_preemption=False)
        await self.cluster.end(node)
        await self.cluster.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        await self._wait_for_next_attempt(run)
        await self.cluster.start_node(node)
        await self.cluster.command("scontrol", "update", f"nodename={node}", "state=resume")

    async def _interrupt(self, node: str, *, is_preemption: bool) -> RunDirectory:
        """Wait until a node trains a run that has a checkpoint and is not half done; note it as interrupted now."""
        known = [one.run.run_id for one in self.interruptions]
        run_ids = [run.run_id for run in self.runs if run.run_id not in known]
        async with _patience(f"no run on {node} could be interrupted"):
            while not all(self.queue.runs.get(run_id).seal.exists() for run_id in run_ids):
                for run_id, holder in (await self.store.holders(run_ids)).items():
                    run = self.queue.runs.get(run_id)
                    if not holder.startswith(f"{node}:") or attempts_at(run) != 1:
                        continue
                    status = await self.queue.states.status(run_id)
                    is_early = bool(status.last_checkpoint_step) and status.progress < _EARLY_PERCENT
                    if status.status == "running" and is_early:
                        jobs = await self.cluster.jobs()
                        job_id = next((job.job_id for job in jobs if job.node == node), "unknown")
                        self.interruptions.append(Interruption(run, job_id, is_preemption))
                        return run
                await asyncio.sleep(0.1)
        raise StuckError(f"All runs ended before one on {node} could be interrupted.")

    async def _wait_for_next_attempt(self, run: RunDirectory) -> None:
        async with _patience(f"no worker continued the interrupted run {run.run_id}"):
            while attempts_at(run) < 2 and not run.seal.exists():
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _patience(trouble: str) -> AsyncIterator[None]:
    """Limit the time of a wait; `trouble` says what is wrong after that time."""
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            yield
    except TimeoutError as error:
        raise StuckError(f"After {_LONGEST_SECONDS:.0f} s {trouble}.") from error


async def hold(folder: Path) -> Verdict:
    """Train each request without Slurm and on the cluster, and compare; all has ended afterwards."""
    asked = requests()
    async with driver.undisturbed(folder / "without", _CORPUS_LINES) as queue:
        alone = [queue.runs.get((await queue.train(request, user_id=None)).run_id) for request in asked]
        for run in alone:
            await wait_for_status(queue, run.run_id, ended, _LONGEST_SECONDS)
    begin = time.monotonic()
    async with driver.System(folder / "with", _CORPUS_LINES) as system, started(folder / "slurm") as cluster:
        queue, store = await system.connect(), await connect(system.url)
        system.undo.push_async_callback(store.close)
        runs = [queue.runs.get((await queue.train(request, user_id=None)).run_id) for request in asked]
        campaign = Campaign(folder, queue, store, cluster, runs)
        await campaign.run(system.environment)
        await system.valkey.stop()
    logs = [file.read_text(encoding="utf-8") for file in sorted((folder / "slurm").glob("mt-worker-*.log"))]
    broken = {
        run.run_id: completed_faults(run, driver.result_of(other)) + event_faults(run)
        for run, other in zip(runs, alone, strict=True)
    }
    jobs = {True: cluster.jobs_in_log(PREEMPTION), False: cluster.jobs_in_log(NODE_LOSS)}
    for one in campaign.interruptions:
        broken[one.run.run_id] += _resume_faults(one)
        if one.job_id not in jobs[one.is_preemption]:
            broken[one.run.run_id].append(f"Slurm's log has no interruption of job {one.job_id}, which trained it")
    tasks = ["one ended otherwise than by --until-idle" for log in logs if "worker_idle" not in log]
    left = [] if await gone(folder) else [process.command for process in processes(folder)]
    figures = {
        "runs": len(runs),
        "attempts": sum(map(attempts_at, runs)),
        "seconds": round(time.monotonic() - begin),
        "jobs preempted, by Slurm's log": len(jobs[True]),
        "jobs on a lost node, by Slurm's log": len(jobs[False]),
    }
    return Verdict({**broken, "workers": tasks, "still running": left}, figures)


def _resume_faults(one: Interruption) -> list[str]:
    """Return what is wrong with the pause and the resume of an interrupted run."""
    is_paused = one.is_preemption
    events = one.run.reader().read_new()
    starts = [number for number, event in enumerate(events) if isinstance(event, JobStarted)]
    if len(starts) < 2:
        return ["it ended before its worker was interrupted"]
    first = events[starts[0] : starts[1]]
    saved = [event.step for event in first if isinstance(event, CheckpointSaved)]
    if not saved:
        return ["it had no checkpoint when its worker was interrupted"]
    was_paused = any(isinstance(event, JobProgress) and event.cause == "worker_ended" for event in first)
    if not is_paused and was_paused:
        return ["it was paused, although its node was lost"]
    if is_paused and not was_paused:
        return ["it was not paused when its worker was preempted"]
    steps = _steps_of_attempts(one.run)
    last, resumed = steps[0][-1], steps[1][0]
    if is_paused and saved[-1] < last:
        return [f"it was paused after step {last}, but saved only step {saved[-1]}"]
    if resumed <= min(saved[-1], last) or (is_paused and resumed != last + 1):
        return [f"it continued with step {resumed} after step {last}, with a checkpoint of step {saved[-1]}"]
    return []


class _Line(BaseModel):
    """A line of a run's log."""

    message: str
    step: int = 0


def _steps_of_attempts(run: RunDirectory) -> list[list[int]]:
    """Return the steps that each attempt trained, from the run's log."""
    steps: list[list[int]] = []
    for text in run.logs.read_text(encoding="utf-8").splitlines():
        line = _Line.model_validate_json(text)
        if line.message == "attempt_started":
            steps.append([])
        if line.message == "training":
            steps[-1].append(line.step)
    return steps


def _hold(folder: Path, numbers: Mapping[str, float], console: Console) -> bool:
    try:
        verdict = asyncio.run(hold(folder))
    except StuckError as error:
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        return False
    verdict.show(console)
    return verdict.holds


KIT = driver.Kit(_hold)
