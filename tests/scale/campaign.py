"""Carries a plan out: runs are queued, machines fail in every way, then everything must come to its end."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.chaos.campaign import Row, result_of
from tests.scale.plan import CORPUS, Fault, Plan, Submission
from tests.scale.system import LEASE_SECONDS, System, undisturbed_queue
from tests.support.waiting import until
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import OPEN, Head
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.validation import parse
from trainer.contracts.errors import AppError
from trainer.contracts.runs import RunMetrics, TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.queue.queue import JobQueue

_SETTLE_SECONDS = 120.0
"""So long no run may end while one has not ended."""
_WATCH_SECONDS = 0.3
_VICTIM_SECONDS = 5.0
"""So long a fault waits until its machine trains a run."""


class Result(NamedTuple):
    """The result of a training, to the last bit."""

    curve: list[Row]
    files: dict[str, str]
    """The SHA-256 of weights, samples and tokenizer."""
    metrics: RunMetrics


class Writer(NamedTuple):
    """A machine that may write a run, and the counter of its claim."""

    counter: int
    machine: str


def outcome(run: RunDirectory) -> Result:
    return Result(*result_of(run), run.completed_manifest().metrics)


class Campaign:
    """One plan on one system, and all that is needed to judge what came of it."""

    def __init__(self, plan: Plan, system: System) -> None:
        self.plan, self.system = plan, system
        self.faults: Counter[str] = Counter()
        self.hits = 0
        """Faults of a machine that was writing a run."""
        self.labels: dict[str, str] = {}
        """The label of each accepted run, by id."""
        self.writers: dict[str, list[Writer]] = {}
        """The writers of each run, as the store has named them one after the other."""
        self.publications = 0
        """Notifications of new events that the queueing machine received."""
        self.settled_seconds: float | None = None
        """After the last fault; None: it did not settle."""

    async def run(self) -> None:
        """Carry the plan out, and wait until each run has ended on the queueing machine's disk."""
        begin = time.monotonic()
        beside = [asyncio.create_task(self._follow()), asyncio.create_task(self._watch())]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._queue(begin))
                for fault in self.plan.faults:
                    group.create_task(self._hurt(fault, begin))
            await self._settle()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _queue(self, begin: float) -> None:
        async for label, run_id in queued(self.system.queue, self.plan, begin):
            self.labels[run_id] = label

    async def _follow(self) -> None:
        """Follow the runs as the bot does."""
        async for _ in self.system.queue.next_run_ids():
            self.publications += 1

    async def _watch(self) -> None:
        """Note each writer of each run."""
        objects = self.system.bucket.objects
        seen: dict[str, str] = {}
        while True:
            with contextlib.suppress(AppError):  # the store is busy
                tags = await asyncio.to_thread(objects.tags, OPEN)
                for key, tag in tags.items():
                    if "/models/" in key and seen.get(key) != tag:
                        await asyncio.to_thread(self._note, objects, key)
                seen = tags
            await asyncio.sleep(_WATCH_SECONDS)

    def _note(self, objects: ObjectStore, key: str) -> None:
        found = objects.get(key)
        if found is not None:
            self.note(key.rpartition("/")[2], Head.model_validate_json(found.data))

    def note(self, run_id: str, head: Head) -> None:
        """Note the writer of a run, unless it is the one before."""
        writers = self.writers.setdefault(run_id, [])
        writer = Writer(head.counter, head.writer)
        if writers[-1:] != [writer]:
            writers.append(writer)

    async def _settle(self) -> None:
        """Wait until every run has ended; gives up where none ends any more."""
        begin = last_ended = time.monotonic()
        before = -1
        while (left := self._left()) and time.monotonic() < last_ended + _SETTLE_SECONDS:
            if left != before:
                before, last_ended = left, time.monotonic()
            await asyncio.sleep(0.25)
        self.settled_seconds = None if left else time.monotonic() - begin

    def _left(self) -> int:
        return sum(not self.system.queue.runs.get(run_id).seal.exists() for run_id in self.labels)

    async def _hurt(self, fault: Fault, begin: float) -> None:
        await asyncio.sleep(max(0.0, begin + fault.at_seconds - time.monotonic()))
        machine = self.system.machines[fault.machine]
        longer_than_a_lease = LEASE_SECONDS + 2 + 4 * fault.chance
        if fault.kind == "Valkey wiped":
            self.system.wipe_valkey()
            self.faults[fault.kind] += 1
            return
        async with machine.busy:
            if not self._left():
                return  # it would meet nothing
            deadline = time.monotonic() + _VICTIM_SECONDS
            while not (hit := await asyncio.to_thread(machine.is_training)) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            self.faults[fault.kind] += 1
            self.hits += hit
            match fault.kind:
                case "kill" | "new machine":
                    await machine.kill(2 * LEASE_SECONDS * fault.chance, is_replaced=fault.kind == "new machine")
                case "freeze":
                    await machine.freeze(longer_than_a_lease)
                case _:
                    await machine.wire.cut_for(fault.kind, longer_than_a_lease)


async def queued(queue: JobQueue, plan: Plan, begin: float | None) -> AsyncIterator[tuple[str, str]]:
    """Queue the runs of a plan, at their times after `begin` or all at once; yield the label and the id of each."""
    tokenizer = TokenizerTrainRequest(method="bpe", corpora=(CORPUS,), vocab_size=300, threads=1)
    tokenizer_id = (await queue.train_tokenizer(tokenizer)).tokenizer_id
    waiting: list[Submission] = []
    first: RunDirectory | None = None
    for submission in plan.submissions:
        if submission.start != "from nothing":
            waiting.append(submission)
            continue
        if begin is not None:
            await asyncio.sleep(max(0.0, begin + submission.at_seconds - time.monotonic()))
        run_id = (await queue.train(submission.request, user_id=None)).run_id
        yield str(submission.request.label), run_id
        first = first or queue.runs.get(run_id)
    for submission in waiting:
        fields: dict[str, object] = submission.request.model_dump(exclude_unset=True)
        if submission.start == "from the first run" and first is not None:
            await until(first.seal.exists)
            fields |= {"init_from_run_id": first.run_id}
        else:
            stored = queue.tokenizers.get(tokenizer_id)
            await until(partial(_has_ended, stored))
            fields |= {"tokenizer_id": tokenizer_id}
        del fields["tokenizer"]
        yield str(submission.request.label), (await queue.train(parse(TrainRequest, fields), user_id=None)).run_id


def _has_ended(tokenizer: TokenizerDirectory) -> bool:
    return not tokenizer.is_unfinished()


async def undisturbed(folder: Path, plan: Plan) -> dict[str, Result]:
    """Train the runs of a plan by one worker without faults; return their results by label."""
    async with undisturbed_queue(folder) as queue:
        runs = {label: queue.runs.get(run_id) async for label, run_id in queued(queue, plan, None)}
        await until(lambda: all(run.seal.exists() for run in runs.values()))
    return {label: outcome(run) for label, run in runs.items()}
