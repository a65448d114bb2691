"""Trains runs on the nodes of a Slurm cluster, preempts one worker, and takes the node of another one down."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.chaos.campaign import Result, result_of
from tests.slurm.cluster import NODES, Cluster, started
from tests.support import ROOT, add_corpus, ended, environment_in, settings_in, some_text, tiny_request, wait_for_status
from tests.support.redis_servers import Server, served
from tests.support.worker_runs import with_redis
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import JobStarted
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.queue.queue import JobQueue
from trainer.store.store import connect

RUNS = 12
_EPOCHS, _LONG_EPOCHS = 2, 40
_LEASE_SECONDS = 5
_IDLE_SECONDS = 20
"""Longer than a lease, so that a worker waits for the run of a lost node."""
_CORPUS_LINES = 120
_LONGEST_SECONDS = 900.0
_EARLY_PERCENT = 50.0
"""A worker is interrupted before this share of its run, because the interruption takes some seconds."""
_MT = Path(sys.executable).with_name("mt")
_SCRIPT = ROOT / "deploy" / "slurm" / "worker.sbatch"


class StuckError(Exception):
    """The campaign cannot continue; the message is a sentence for its user."""


class Interruption(NamedTuple):
    """A worker that lost its node in the middle of a run."""

    run_id: str
    job_id: str
    """The worker's job in Slurm."""
    at: float
    """In seconds since 1970."""


class Outcome(NamedTuple):
    """The runs with the results of the same requests without Slurm, and what happened to the workers."""

    runs: list[RunDirectory]
    references: list[Result]
    preempted: Interruption
    lost: Interruption
    preempted_jobs: list[str]
    """The jobs that Slurm's own log calls preempted."""
    jobs_of_lost_nodes: list[str]
    """The jobs that Slurm's own log calls requeued by the failure of a node."""
    worker_logs: list[str]
    seconds: float


def requests() -> list[TrainRequest]:
    """Return trainings of some seconds, of four families; the first four are longer, to be interrupted."""
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 16, "num_layers": 2, "dropout": 0.2}
    kinds: list[dict[str, object]] = [
        {"model_family": "char_lstm", "lr_schedule": "cosine"},
        {"model_family": "gru", "gradient_accumulation": 2, "tokenizer": {"method": "char"}},
        {"model_family": "rnn", "early_stopping": {"enabled": True, "patience": 60}, "tokenizer": {"method": "char"}},
        {"model_family": "lstm", "tokenizer": {"method": "char"}},
    ]
    common: dict[str, object] = {
        "model": sizes,
        "checkpoint_every_steps": 50,
        "log_every_steps": 1,
        "test_fraction": 0.1,
    }
    return [
        tiny_request(
            **common | kinds[number % len(kinds)], seed=number, num_epochs=_LONG_EPOCHS if number < 4 else _EPOCHS
        )
        for number in range(RUNS)
    ]


async def train_without_slurm(folder: Path, requests: Sequence[TrainRequest]) -> list[Result]:
    """Train each request with one undisturbed worker of this machine."""
    add_corpus(folder, some_text(_CORPUS_LINES))
    async with served(folder) as server:
        queue = await _connect(folder, server)
        try:
            run_ids = [(await queue.train(request, user_id=None)).run_id for request in requests]
            with (folder / "worker.log").open("wb") as log:
                worker = await asyncio.create_subprocess_exec(
                    *(_MT, "worker", "--until-idle", "1s"),
                    env=environment_in(folder, REDIS__URL=server.url, PYTHONPATH=str(ROOT), QUEUE__TRAINING_SLOTS="2"),
                    stderr=log,
                )
                await worker.wait()
        finally:
            await queue.close()
    return [result_of(queue.runs.get(run_id)) for run_id in run_ids]


async def train_on_slurm(folder: Path, requests: Sequence[TrainRequest], references: list[Result]) -> Outcome:
    """Train each request on the cluster, disturbed; the workers and Slurm's queue have ended afterwards."""
    add_corpus(folder, some_text(_CORPUS_LINES))
    begin = time.monotonic()
    async with served(folder) as server, started(folder / "slurm") as cluster:
        queue = await _connect(folder, server)
        try:
            run_ids = [(await queue.train(request, user_id=None)).run_id for request in requests]
            await _submit_workers(folder, cluster, server)
            preempted = await _preempt(cluster, queue, server, run_ids)
            lost = await _lose_node(cluster, queue, server, [one for one in run_ids if one != preempted.run_id])
            async with _patience("not all runs ended"):
                for run_id in run_ids:
                    await wait_for_status(queue, run_id, ended, _LONGEST_SECONDS)
            await _wait_for_empty_queue(cluster)
        finally:
            await queue.close()
    logs = [file.read_text(encoding="utf-8") for file in sorted((folder / "slurm").glob("mt-worker-*.log"))]
    runs = [queue.runs.get(run_id) for run_id in run_ids]
    jobs = cluster.preempted_jobs(), cluster.jobs_of_lost_nodes()
    return Outcome(runs, references, preempted, lost, *jobs, logs, time.monotonic() - begin)


async def _connect(folder: Path, server: Server) -> JobQueue:
    settings = settings_in(folder, embedded_workers=0, lease_seconds=_LEASE_SECONDS)
    return await JobQueue.connect(settings.model_copy(update=with_redis(server.url)), server.url)


async def _submit_workers(folder: Path, cluster: Cluster, server: Server) -> None:
    """Submit the array job of `deploy/slurm` as a user does."""
    values = {
        "MT": _MT,
        "MT_UNTIL_IDLE": f"{_IDLE_SECONDS}s",
        "PYTHONPATH": ROOT,
        "REDIS__URL": server.url,
        "APP__DATA_ROOT": folder / "data",
        "APP__ARTIFACTS_ROOT": folder / "artifacts",
        "QUEUE__LEASE_SECONDS": _LEASE_SECONDS,
        "QUEUE__STALL_SECONDS": 3600,  # a busy machine may give a training no time for minutes
    }
    file = folder / "worker.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    await cluster.command("sbatch", f"--array=1-{len(NODES)}", str(_SCRIPT), MT_ENV=str(file))


async def _preempt(cluster: Cluster, queue: JobQueue, server: Server, run_ids: Sequence[str]) -> Interruption:
    """Preempt the worker of the first node by a job with a higher priority, and wait until the run continues."""
    run_id = await _run_in_progress(queue, server, NODES[0], run_ids)
    job_id = await _job_on(cluster, NODES[0])
    at = time.time()
    urgent = ["--partition=urgent", f"--nodelist={NODES[0]}", "--exclusive", "--job-name=urgent", "--wrap=sleep 5"]
    await cluster.command("sbatch", *urgent)
    await _wait_for_next_attempt(queue, run_id)
    return Interruption(run_id, job_id, at)


async def _lose_node(cluster: Cluster, queue: JobQueue, server: Server, run_ids: Sequence[str]) -> Interruption:
    """Kill everything on the second node, tell Slurm that it is down, and bring it back when the run continues."""
    node = NODES[1]
    run_id = await _run_in_progress(queue, server, node, run_ids)
    job_id = await _job_on(cluster, node)
    at = time.time()
    await cluster.end(node)
    await cluster.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    await _wait_for_next_attempt(queue, run_id)
    await cluster.start_node(node)
    await cluster.command("scontrol", "update", f"nodename={node}", "state=resume")
    return Interruption(run_id, job_id, at)


async def _run_in_progress(queue: JobQueue, server: Server, node: str, run_ids: Sequence[str]) -> str:
    """Wait until a node trains a run that has a checkpoint and is not half done; return the run."""

    def is_early(status: RunStatus) -> bool:
        return status.status == "running" and bool(status.last_checkpoint_step) and status.progress < _EARLY_PERCENT

    store = await connect(server.url)
    try:
        async with _patience(f"no run on {node} could be interrupted"):
            while True:
                if all(queue.runs.get(run_id).seal.exists() for run_id in run_ids):
                    raise StuckError(f"All runs ended before one on {node} could be interrupted.")
                holders = await store.holders(run_ids)
                for run_id in (run_id for run_id, holder in holders.items() if holder.startswith(f"{node}:")):
                    if _attempts(queue, run_id) == 1 and is_early(await queue.status(run_id)):
                        return run_id
                await asyncio.sleep(0.1)
    finally:
        await store.close()


async def _job_on(cluster: Cluster, node: str) -> str:
    """Return the job that a node runs."""
    for job in await cluster.jobs():
        if job.node == node:
            return job.job_id
    raise StuckError(f"Slurm lists no job on {node}, although a worker trains there.")


async def _wait_for_next_attempt(queue: JobQueue, run_id: str) -> None:
    async with _patience(f"no worker continued the interrupted run {run_id}"):
        while _attempts(queue, run_id) < 2 and not queue.runs.get(run_id).seal.exists():
            await asyncio.sleep(0.1)


def _attempts(queue: JobQueue, run_id: str) -> int:
    return sum(isinstance(event, JobStarted) for event in queue.runs.get(run_id).reader().read_new())


@contextlib.asynccontextmanager
async def _patience(trouble: str) -> AsyncIterator[None]:
    """Limit the time of a wait; `trouble` says what is wrong after that time."""
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            yield
    except TimeoutError as error:
        raise StuckError(f"After {_LONGEST_SECONDS:.0f} s {trouble}.") from error


async def _wait_for_empty_queue(cluster: Cluster) -> None:
    """Wait until the workers have ended by themselves."""
    async with _patience("the workers did not end by themselves"):
        while await cluster.jobs():
            await asyncio.sleep(0.5)
