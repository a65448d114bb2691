"""Cost of the product's own work at one size: processor time and memory. Each function runs in a process of its own."""

import asyncio
import logging
import random
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import count, islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple, Protocol

import discord
import structlog
from discord.http import Route
from pydantic import TypeAdapter

from bot.notifications.notifier import Notifier
from bot.people.watchers import read_ledger
from bot.processes.chart_process import ChartProcess
from local_discord import LocalDiscord
from trainer.artifacts.run_status import RunFollower
from trainer.artifacts.runs import SEALED_FILES, RunDirectory, RunStore
from trainer.config.presets import request_hash, resolve
from trainer.config.settings import AppSettings, QueueSettings, Settings
from trainer.config.validation import parse
from trainer.contracts.base import now
from trainer.contracts.events import JobCancelled, JobStarted, MetricsProgress, stamp
from trainer.contracts.jobs import FolderJobPayload
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord, RunStatus, TrainRequest
from trainer.data.run_corpora import CorpusPaths
from trainer.data.text import corpus_sha256
from trainer.models import build
from trainer.queue.enqueue import EventPublisher
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds
from trainer.queue.run_index import RunIndex
from trainer.services.embedded import Services
from trainer.store.store import Store, connect
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import TokenizedCorpus, prepare
from trainer.training.device import resolve as resolve_compute
from trainer.training.device import seed_everything
from trainer.training.loop import TrainingCallbacks, train
from trainer.worker.reconciler import reconcile

STEPS, JOBS, EVENTS, REPETITIONS = 6, 100, 50, 6
WIDTH_TOKENS = 32
"""Context at every width."""
TOKEN, QUEUE = "growth", "growth"
_SAMPLE_SECONDS = 0.003
_info_adapter: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class Cost(NamedTuple):
    """Processor time in seconds, and the peak of private memory above its level before, in bytes."""

    seconds: float
    memory_bytes: float


class Meter:
    """Measures a block: its processor time, of all threads but the meter's own, and its peak of private memory.

    Mapped files do not count: the kernel drops their pages when it needs memory.
    """

    cost = Cost(0.0, 0.0)

    def __enter__(self) -> "Meter":
        self._own_seconds = 0.0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._before = self._peak = private_bytes()
        self._sampler.start()
        self._start = time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        seconds = time.process_time() - self._start
        peak = max(self._peak, private_bytes())
        self._stop.set()
        self._sampler.join()
        self.cost = Cost(seconds - self._own_seconds, max(self._peak, peak) - self._before)

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, private_bytes())
            self._own_seconds = time.thread_time()


def private_bytes() -> int:
    """Return the private resident memory of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kibibytes] = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kibibytes) * 1024


def quiet() -> None:
    """Log warnings only, so that the output is the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def lstm_of_width(width: int) -> Cost:
    return _training(8, WIDTH_TOKENS, {"model_family": "char_lstm", "model": _lstm(width)})


def gpt2_of_width(width: int) -> Cost:
    return _training(8, WIDTH_TOKENS, {"model_family": "gpt2", "model": _gpt2(width, WIDTH_TOKENS)})


def lstm_of_context(tokens: int) -> Cost:
    return _training(32, tokens, {"model_family": "char_lstm", "model": _lstm(64)})


def gpt2_of_context(tokens: int) -> Cost:
    return _training(8192 // tokens, tokens, {"model_family": "gpt2", "model": _gpt2(32, tokens)})


def corpus_of_megabytes(megabytes: int) -> Cost:
    """Cost of preparing a corpus and of one training step on it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        fields: dict[str, object] = {"model_family": "char_lstm", "model": _lstm(16), "max_seq_len": 32, "max_steps": 1}
        _warm_up(fields)
        effective = _request(folder, fields, megabytes)
        with Meter() as meter:
            _train(folder, effective, *_prepared(folder, effective), lambda: None)
    return meter.cost


def _lstm(width: int) -> dict[str, object]:
    return {"embedding_size": width, "hidden_size": width, "num_layers": 1, "dropout": 0.0}


def _gpt2(width: int, tokens: int) -> dict[str, object]:
    sizes: dict[str, object] = {"hidden_size": width, "num_layers": 1, "num_attention_heads": 2}
    return {**sizes, "max_position_embeddings": tokens, "dropout": 0.0, "attention_dropout": 0.0}


def _training(rows: int, tokens: int, fields: dict[str, object]) -> Cost:
    """Train on batches of `rows` times `tokens`; return the time of the fastest step per token, and the peak memory."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        sizes: dict[str, object] = {"batch_size": rows, "max_seq_len": tokens, "max_steps": STEPS}
        _warm_up({**fields, "model": _lstm(8) if fields["model_family"] == "char_lstm" else _gpt2(8, 32)})
        effective = _request(folder, {**fields, **sizes}, 1.5e-6 * rows * tokens * STEPS)
        times: list[float] = []
        tokenizer, corpus = _prepared(folder, effective)
        with Meter() as meter:
            _train(folder, effective, tokenizer, corpus, lambda: times.append(time.process_time()))
    fastest = min(later - earlier for earlier, later in pairwise(times))
    return Cost(fastest / (rows * tokens), meter.cost.memory_bytes)


def _warm_up(fields: dict[str, object]) -> None:
    """Load the libraries that the first training of a process loads, which are no part of the growth."""
    with TemporaryDirectory() as name:
        small = _request(Path(name), {**fields, "max_seq_len": 32, "max_steps": 2}, 0.05)
        _train(Path(name), small, *_prepared(Path(name), small), lambda: None)


def _request(folder: Path, fields: dict[str, object], megabytes: float) -> EffectiveRequest:
    """Write a corpus of random lines, and return a request to train on it."""
    path, letters = folder / "corpus.txt", (b"abcdefghijklmnopqrstuvwxyz      " * 8)[:256]
    generator = random.Random(1)
    with path.open("wb") as file:
        for _ in range(round(megabytes * 1e6 / 64)):
            file.write(b"x" + generator.randbytes(62).translate(letters) + b"\n")
    usual: dict[str, object] = {
        "corpus": path.name,
        "tokenizer": {"method": "char"},
        "batch_size": 4,
        "learning_rate": 1e-6,
        "log_every_steps": 1000,
        "threads": 1,
        "test_fraction": 0.01,
        "device": "cpu",
    }
    request = parse(TrainRequest, {**usual, **fields})
    corpus = CorpusRef(name=path.name, sha256=corpus_sha256(path), bytes=path.stat().st_size)
    return resolve(request, corpus=corpus)


def _prepared(folder: Path, effective: EffectiveRequest) -> tuple[Tokenizer, TokenizedCorpus]:
    return prepare(effective, CorpusPaths(folder / effective.corpus.name), folder / "cache")


def _train(
    folder: Path,
    effective: EffectiveRequest,
    tokenizer: Tokenizer,
    corpus: TokenizedCorpus,
    on_step: Callable[[], None],
) -> None:
    seed_everything(effective.seed)
    model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
    callbacks = TrainingCallbacks(on_step=lambda numbers: on_step())
    store = CheckpointStore(folder / "checkpoints")
    train(model, corpus, effective, resolve_compute(effective), store, callbacks=callbacks)


def listing_of_runs(runs: int) -> Cost:
    """Cost of `mt runs`: all runs and their status."""

    async def measure(folder: Path, settings: Settings, store: Store) -> Cost:
        _add_runs(folder, runs)

        async def read() -> None:
            statuses = [run.follow().refresh() for run in RunStore(settings.app.artifacts_root).all()]
            if len(statuses) != runs:
                raise ValueError(f"{len(statuses)} of {runs} runs were listed")

        return await _repeated(read, store)

    return _with_server(measure)


def index_of_runs(runs: int) -> Cost:
    """Cost of the bot's first index of all runs, for `/mt runs` and suggestions."""

    async def measure(folder: Path, settings: Settings, store: Store) -> Cost:
        _add_runs(folder, runs)
        queue = JobQueue(settings, store)
        return await _repeated(
            lambda: RunIndex(queue.stores, RunFeeds(queue.states), settings.app.artifacts_root).refresh(), store
        )

    return _with_server(measure)


def reconciliation_of_runs(runs: int) -> Cost:
    """Cost of one of the worker's regular comparisons of Redis with the disk, with every run in the queue.

    The memory is that of the first comparison, which enqueues the runs.
    """

    async def measure(folder: Path, settings: Settings, store: Store) -> Cost:
        _add_runs(folder, runs)
        return await _repeated(lambda: reconcile(settings, store), store)

    return _with_server(measure)


def reading_of_events(events: int) -> Cost:
    """Cost of reading the event log of a run and folding its status."""

    async def measure(folder: Path, settings: Settings, store: Store) -> Cost:
        run = _run_with_events(folder, events)
        held: list[RunFollower] = []

        async def read() -> None:
            held[:] = [run.follow()]
            held[0].refresh()

        return await _repeated(read, store)

    return _with_server(measure)


def next_of_events(events: int) -> Cost:
    """Cost of one more event of a run: written by the training, published by the worker, read by the bot."""

    async def measure(folder: Path, settings: Settings, store: Store) -> Cost:
        run = _run_with_events(folder, events)
        publisher, follower, numbers = EventPublisher(store, run), run.follow(), count(events)
        await publisher.publish()
        follower.refresh()
        with run.open_log() as log:

            async def add() -> None:
                for number in islice(numbers, EVENTS):
                    log.append(progress_event(run.run_id, number))
                    await publisher.publish()
                    follower.refresh()

            cost = await _repeated(add, store)
        return Cost(cost.seconds / EVENTS, cost.memory_bytes)

    return _with_server(measure)


def job_of_queue(waiting: int) -> Cost:
    """Cost of enqueueing, claiming and ending a job while others wait; the memory is that of the server."""

    async def measure(folder: Path, settings: Settings, store: Store) -> Cost:
        empty = await _server_info(store, "used_memory")
        names = [f"waiting-{number}" for number in range(waiting)]
        for start in range(0, waiting, 256):
            await asyncio.gather(*(_enqueue(store, name) for name in names[start : start + 256]))
        full, numbers = await _server_info(store, "used_memory"), count()

        async def pass_jobs() -> None:
            for number in islice(numbers, JOBS):
                await _enqueue(store, f"next-{number}")
                [(job_id, _)] = await store.claim_jobs(QUEUE, 1, "growth", lease_seconds=15)
                await store.dequeue(QUEUE, job_id)

        cost = await _repeated(pass_jobs, store)
        return Cost(cost.seconds / JOBS, full - empty)

    return _with_server(measure)


def end_of_watched_run(watchers: int) -> Cost:
    """Cost of the last event of a run: each watcher gets a final message and an edit of the card.

    Includes the work and the memory of the local Discord.
    """
    return asyncio.run(_deliver_end(watchers))


async def _deliver_end(watchers: int) -> Cost:
    # a save of the ledger can outlive the notifier
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        artifacts = Path(name)
        run = RunStore(artifacts).create(_record("char_lstm-1"))
        async with LocalDiscord(token=TOKEN) as server, discord.Client(intents=discord.Intents.none()) as client:
            route: _HasBase = Route
            route.BASE = server.api_base_url
            await client.login(TOKEN)
            charts = ChartProcess()
            queue = _NoEvents(artifacts)
            notifier = Notifier(
                *(artifacts, RunFeeds(queue), queue.next_run_ids, client, charts),
                lambda user_id, record: True,
                lambda user_id: "bits",
                edit_interval_seconds=1.0,
                poll_seconds=600.0,
            )
            users = [server.add_user(f"user-{number}") for number in range(watchers)]
            before = private_bytes()
            with run.open_log() as log:
                log.append(JobStarted(**stamp(run.run_id, None, "started"), queue="training", attempt=1))
            await asyncio.gather(*(notifier.watch(run.run_id, user.id, None) for user in users))
            while len(read_ledger(run).watchers) < watchers or any(
                watcher.card is None or watcher.card.message_id is None for watcher in read_ledger(run).watchers
            ):
                await asyncio.sleep(0.25)
            with run.open_log() as log, Meter() as meter:
                log.append(JobCancelled(**stamp(run.run_id, None, "cancelled")))
                notifier.follow(run.run_id)
                while read_ledger(run).pending:
                    await asyncio.sleep(0.25)
            held = private_bytes() - before
            await notifier.stop()
            charts.close()
    return Cost(meter.cost.seconds, held)


class _HasBase(Protocol):
    """The part of discord.py's Route that is set here."""

    BASE: str


class _NoEvents:
    """The queue of a notifier that is called directly."""

    def __init__(self, root: Path) -> None:
        self.runs = RunStore(root)

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        return [*statuses]

    def steady(self, status: RunStatus) -> RunStatus:
        return status

    async def wait_message(self, job_id: str) -> str | None:
        return None

    async def next_run_ids(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""


async def _repeated(work: Callable[[], Coroutine[None, None, None]], store: Store) -> Cost:
    """Return the least processor time of some repetitions, with the server's, and the memory of the first one."""
    costs: list[Cost] = []
    for _ in range(REPETITIONS):
        before = await _server_seconds(store)
        with Meter() as meter:
            await work()
        costs.append(Cost(meter.cost.seconds + await _server_seconds(store) - before, meter.cost.memory_bytes))
    return Cost(min(cost.seconds for cost in costs), costs[0].memory_bytes)


def _with_server(measure: Callable[[Path, Settings, Store], Coroutine[None, None, Cost]]) -> Cost:
    """Measure with an embedded Valkey and an empty folder."""

    async def run() -> Cost:
        with TemporaryDirectory() as name:
            folder = Path(name)
            settings = Settings(
                app=AppSettings(data_root=folder / "data", artifacts_root=folder / "artifacts"),
                queue=QueueSettings(embedded_workers=0),
            )
            async with _served(settings) as store:
                return await measure(folder, settings, store)

    return asyncio.run(run())


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Store]:
    services = Services(settings)
    store = await connect(await services.start())
    try:
        yield store
    finally:
        await store.close()
        await services.stop()


async def _enqueue(store: Store, name: str) -> None:
    await store.enqueue(QUEUE, "train", name, FolderJobPayload(job_id=name))


async def _server_info(store: Store, name: str) -> float:
    reply: Awaitable[object] = store.redis.info()
    return float(str(_info_adapter.validate_python(await reply)[name]))


async def _server_seconds(store: Store) -> float:
    return await _server_info(store, "used_cpu_user") + await _server_info(store, "used_cpu_sys")


def _record(run_id: str) -> RunRecord:
    request = TrainRequest(model_family="char_lstm", corpus="text")
    corpus = CorpusRef(name="text", sha256="c" * 64, bytes=1_000_000)
    effective = resolve(request, corpus=corpus)
    return RunRecord(
        run_id=run_id,
        user_id=None,
        created_at=now(),
        request=request,
        effective=effective,
        request_hash=request_hash(effective),
    )


def _add_runs(folder: Path, runs: int) -> None:
    """Add queued runs: one, and copies of it, because creating a run waits for the disk."""
    copy_run(RunStore(folder / "artifacts").create(_record("char_lstm-0")), runs - 1)


def copy_run(run: RunDirectory, copies: int) -> None:
    """Add copies of a run with other ids."""
    for number in range(1, copies + 1):
        copy = run.path.with_name(f"char_lstm-{number}")
        shutil.copytree(run.path, copy)
        for path in filter(Path.exists, (copy / name for name in SEALED_FILES)):
            path.write_text(path.read_text(encoding="utf-8").replace(run.run_id, copy.name), encoding="utf-8")


def _run_with_events(folder: Path, events: int) -> RunDirectory:
    run = RunStore(folder / "artifacts").create(_record("char_lstm-1"))
    with run.open_log() as log:
        for number in range(events - 1):
            log.append(progress_event(run.run_id, number))
    return run


def progress_event(run_id: str, step: int) -> MetricsProgress:
    """Return the progress of a run at a step, with all usual numbers."""
    return MetricsProgress(
        **stamp(run_id, None, f"progress:{step}"),
        epoch=1,
        total_epochs=1,
        step=step,
        total_steps=1_000_000,
        progress=50.0,
        train_loss=2.5,
        train_perplexity=12.18,
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens_per_second=1e4,
        chars_per_second=1e4,
        eta_seconds=60.0,
    )
