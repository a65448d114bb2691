"""Figures for Prometheus: requests to the API, the queue, the runs and the calls to Discord."""

import asyncio
import collections
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trainer.contracts.base import RunState
from trainer.queue.queue import JobQueue
from trainer.queue.run_index import RunIndex

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATES: tuple[RunState, ...] = get_args(RunState)
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The registry of one process."""

    def __init__(self, discord_answers: collections.Counter[int]) -> None:
        """Take the numbers of answers of Discord by status, which go on to grow."""
        self._registry = CollectorRegistry()
        self._answers, self._shown = discord_answers, collections.Counter[int]()
        self.requests = Counter(
            "mt_http_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "mt_http_request_seconds",
            "Time to the end of an answer, without streams.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._discord = Counter(
            "mt_discord_requests", "Requests to Discord by status; 0: no answer.", ["status"], registry=self._registry
        )
        self._streams = Gauge("mt_http_streams", "Open streams and waiting requests.", registry=self._registry)
        self._queue = Gauge(
            "mt_queue_depth", "Jobs in a queue, running ones included.", ["queue"], registry=self._registry
        )
        self._workers = Gauge("mt_workers", "1 while at least one worker is running.", registry=self._registry)
        self._runs = Gauge("mt_runs", "Runs by state.", ["state"], registry=self._registry)
        self._speed = Gauge(
            "mt_training_tokens_per_second", "Predicted tokens per second of all running runs.", registry=self._registry
        )

    async def text(self, queue: JobQueue, index: RunIndex, speed: float, open_streams: int) -> bytes:
        """Return all figures in Prometheus' text format."""
        new = self._answers - self._shown
        for status, number in new.items():
            self._discord.labels(str(status)).inc(number)
        self._shown += new
        self._streams.set(open_streams)
        self._speed.set(speed)
        states = [run.state for run in index.runs]
        for state in _STATES:
            self._runs.labels(state).set(states.count(state))
        load = await queue.workers.load()
        self._workers.set(int(load.has_worker))
        self._queue.clear()  # unknown without Redis
        for name, depth in load.depths.items():
            self._queue.labels(name).set(depth)
        return await asyncio.to_thread(generate_latest, self._registry)
