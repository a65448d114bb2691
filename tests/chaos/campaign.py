"""Carries a plan out: people ask for runs, everything is killed again and again, then it must settle."""

import asyncio
import contextlib
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter
from redis.exceptions import RedisError

from bot.messages.buttons import custom_id
from bot.people.watchers import read_ledger
from local_discord import Upload
from local_discord.client import ClientRefusal
from local_discord.driver import shown_text
from local_discord.rest import FaultAction
from local_discord.state import Call, StoredMessage, User
from tests.chaos.plan import Fault, Kind, Plan, Submission
from tests.chaos.supervised import Supervised
from tests.chaos.system import LEASE_SECONDS, System
from tests.support import kill, processes, run_of, tiny_request
from trainer.artifacts.runs import RunDirectory
from trainer.config.experiment_file import experiment_yaml
from trainer.contracts.events import CheckpointSaved, JobProgress
from trainer.contracts.runs import RunRecord, TrainRequest
from trainer.store import keys

T = TypeVar("T")
Row = dict[str, str | None]

_row_adapter: TypeAdapter[dict[str, float | None]] = TypeAdapter(dict[str, float | None])

MESSAGES = "/channels/{channel_id}/messages"
MESSAGE = "/channels/{channel_id}/messages/{message_id}"
RUN_ID = re.compile(r"(char_)?lstm-\d{8}-[0-9a-f]{8}")
_REFERENCE_SECONDS = 600.0
_REPLY_SECONDS = 25.0
_VICTIM_SECONDS = 4.0
_TRIES = 6
_SETTLE_SECONDS = 300.0
"""So long nothing at all may come to its end while something is still to."""
_IN_VAIN = 1
"""A child that has crashed so often since its last checkpoint is left alone: three times would be its end by right."""


class Kill(NamedTuple):
    """A SIGKILL that hit a run in progress."""

    kind: Kind
    run_id: str
    at: float
    """In seconds since 1970."""


class Result(NamedTuple):
    """The result of a training, to the last bit."""

    curve: list[Row]
    files: dict[str, str]


class Asked(NamedTuple):
    """A run as somebody asked for it."""

    label: str
    tries: int
    told: str | None
    """The run's id, as the answer says it."""


def requests(number: int) -> list[TrainRequest]:
    """Trainings of a few seconds that differ in what a resume has to bring back."""
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 8, "num_layers": 1, "dropout": 0.0}
    deeper = sizes | {"num_layers": 2, "dropout": 0.2}
    fields: list[dict[str, object]] = [
        {"model": deeper, "lr_schedule": "cosine"},
        {"model": sizes},
        {"model": deeper, "seed": 7, "gradient_accumulation": 2, "num_epochs": 16},
        {"model": sizes, "seed": 8, "early_stopping": {"enabled": True, "patience": 8}},
    ]
    common: dict[str, object] = {"num_epochs": 10, "checkpoint_every_steps": 20, "test_fraction": 0.1}
    return [tiny_request(**common | own) for own in fields[:number]]


def result_of(run: RunDirectory) -> Result:
    """The loss curve with its numbers as hex, times left out, and the hashes of weights and samples."""
    curve: list[Row] = []
    for line in run.loss_curve.read_text(encoding="utf-8").splitlines():
        row = _row_adapter.validate_json(line)
        curve.append(
            {name: None if value is None else value.hex() for name, value in row.items() if name != "elapsed_seconds"}
        )
    manifest = run.completed_manifest()
    same = ("model.safetensors", "eval/samples.jsonl", "tokenizer/tokenizer.json")
    return Result(curve, {file.path: file.sha256 for file in manifest.files if file.path in same})


def _moment(step: Fault | Submission) -> float:
    return step.at_seconds


class Campaign:
    """One plan on one system, and all that is needed to judge what came of it."""

    def __init__(self, plan: Plan, system: System, requests: Sequence[TrainRequest]) -> None:
        self.plan, self.system = plan, system
        self.references: dict[str, Result] = {}
        """By the request's hash: the same training, undisturbed."""
        self.faults: Counter[Kind] = Counter()
        self.kills: list[Kill] = []
        self.asked: list[Asked] = []
        self.to_be_cancelled: set[str] = set()
        self.settled_seconds: float | None = None
        """After the last fault; None: it did not settle."""
        self._requests = requests
        self._records: list[RunRecord] = []
        self._do: dict[Kind, Callable[[float], Awaitable[bool]]] = {
            "child SIGKILL": self._kill_child,
            "worker SIGKILL": self._kill_worker,
            "bot SIGKILL": lambda _: self._send(system.bot, signal.SIGKILL),
            "Valkey SIGKILL": lambda _: self._send(system.valkey, signal.SIGKILL),
            "Valkey wiped": self._wipe_valkey,
            "Valkey SIGSTOP": lambda _: self._freeze(system.valkey, 2.5),
            "worker SIGSTOP": lambda chance: self._freeze(self._worker(chance), LEASE_SECONDS + 2),
            "worker SIGTERM": lambda chance: self._send(self._worker(chance), signal.SIGTERM),
            "bot SIGTERM": lambda _: self._send(system.bot, signal.SIGTERM),
            "all SIGKILL": self.kill_all,
            "cancel": self._cancel,
            "Discord 429": lambda chance: self._fail_discord(429, chance),
            "Discord 500": lambda chance: self._fail_discord(500, chance),
            "Discord 503": lambda chance: self._fail_discord(503, chance),
            "Discord reset": lambda chance: self._fail_discord("reset", chance),
            "Discord reply lost": lambda chance: self._fail_discord("reply_lost", chance),
            "gateway abort": lambda _: self._drop_gateway("abort"),
            "gateway reconnect": lambda _: self._drop_gateway("reconnect"),
            "gateway invalidate": lambda _: self._drop_gateway("invalidate"),
            "stream trimmed": self._trim_stream,
            "group destroyed": self._destroy_group,
            "stale marks planted": self._plant_marks,
        }

    @property
    def runs(self) -> list[RunDirectory]:
        """Every accepted run but the references, oldest first."""
        known = {record.run_id for record in self._records}
        return [run for run in reversed(self.system.queue.runs.all()) if run.run_id not in known]

    async def run(self) -> None:
        """Train the references, carry the plan out, and wait until all has settled."""
        await self.train_references()
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            steps: list[Fault | Submission] = [*self.plan.faults, *self.plan.submissions]
            for step in sorted(steps, key=_moment):
                await asyncio.sleep(begin + step.at_seconds - time.monotonic())
                group.create_task(self._hurt(step) if isinstance(step, Fault) else self.submit(step))
        self.faults.subtract(self._unmet_faults())
        await self.settle()

    async def train_references(self) -> None:
        """Train each request undisturbed."""
        queue = self.system.queue
        accepted = [await queue.train(request, user_id=None) for request in self._requests]
        async with asyncio.timeout(_REFERENCE_SECONDS):
            for one in accepted:
                run = queue.runs.get(one.run_id)
                while not run.seal.exists():
                    await asyncio.sleep(0.1)
                self._records.append(run.record())
                self.references[run.record().request_hash] = result_of(run)

    async def settle(self) -> None:
        """Wait until every run has ended and everybody has been told; gives up where nothing moves any more."""
        begin = last_moved = time.monotonic()
        before = -1
        while (left := self._unsettled()) and time.monotonic() - last_moved < _SETTLE_SECONDS:
            if left != before:
                before, last_moved = left, time.monotonic()
            await asyncio.sleep(0.25)
        self.settled_seconds = None if left else time.monotonic() - begin

    def _unsettled(self) -> int:
        runs = sum((not run.seal.exists()) + len(read_ledger(run).pending) for run in self.runs)
        return runs + sum(call.is_unresolved and not self.system.is_excused(call) for call in self.system.calls)

    # What people do

    async def submit(self, wanted: Submission) -> None:
        """Ask for a run, and where no answer comes, ask again."""
        label = f"s{round(wanted.at_seconds * 1000)}"
        record = self._records[wanted.request]
        if wanted.user is None:
            named: dict[str, object] = {"label": label}
            accepted = await self.system.queue.train(record.request.model_copy(update=named), user_id=None)
            self.asked.append(Asked(label, 1, accepted.run_id))
            return
        yaml = Upload("chaos.yaml", experiment_yaml(record).encode())
        user = self.system.users[wanted.user]
        for tries in range(1, _TRIES + 1):
            answer = await self._answer(
                lambda: self.system.server.slash(user, "mt train", {"config": yaml, "name": label})
            )
            found = RUN_ID.search(shown_text(answer.payload)) if answer else None
            if found is not None:
                self.asked.append(Asked(label, tries, found[0]))
                return
            await asyncio.sleep(1)
        self.asked.append(Asked(label, _TRIES, None))

    async def _cancel(self, chance: float) -> bool:
        run = self._pick([run for run in self.runs if run.manifest() is None], chance)
        if run is None:
            return False
        self.to_be_cancelled.add(run.run_id)
        user = next((user for user in self.system.users if user.id == run.record().user_id), None)
        if user is None:
            await self.system.queue.cancel(run.run_id)
            return True
        card = self._card(user, run.run_id)
        own_id = custom_id("cancel", run.run_id)
        if card is not None and chance * 100 % 1 < 0.5:
            return await self._answer(lambda: self.system.server.click(user, card, own_id)) is not None
        return await self._answer(lambda: self.system.server.slash(user, "mt cancel", {"run": run.run_id})) is not None

    def _card(self, user: User, run_id: str) -> StoredMessage | None:
        """Somebody's card of a run, while it has its cancel button."""
        for message in self.system.server.messages(self.system.server.dm_channel(user)):
            if custom_id("cancel", run_id) in json.dumps(message.components):
                return message
        return None

    async def _answer(self, do: Callable[[], Awaitable[Call]]) -> StoredMessage | None:
        """Return the answer to an interaction; None after a timeout."""
        try:
            await self.system.server.connected(_REPLY_SECONDS)
            call = await do()
            self.system.calls.append(call)
            return await call.reply(_REPLY_SECONDS)
        except (TimeoutError, ClientRefusal):  # nobody was there, or the button has gone
            return None

    # What is done to them

    async def _hurt(self, fault: Fault) -> None:
        if await self._do[fault.kind](fault.chance):
            self.faults[fault.kind] += 1

    def _worker(self, chance: float) -> Supervised:
        return self.system.workers[int(chance * len(self.system.workers))]

    async def _send(self, process: Supervised, number: signal.Signals) -> bool:
        return process.send(number)

    async def _freeze(self, process: Supervised, seconds: float) -> bool:
        if not process.send(signal.SIGSTOP):
            return False
        await asyncio.sleep(seconds)
        process.send(signal.SIGCONT)
        return True

    async def _kill_child(self, chance: float) -> bool:
        """Kill a training child, as far as one comes in time of which that is no end by right."""
        deadline = time.monotonic() + _VICTIM_SECONDS
        while time.monotonic() < deadline:
            children = processes(self.system.folder, "train-child")
            with contextlib.suppress(OSError):  # it has ended
                of_runs = [(child, run_id) for child in children if (run_id := run_of(child)) is not None]
                victim = self._pick([(child, run_id) for child, run_id in of_runs if self._may_crash(run_id)], chance)
                if victim is not None:
                    child, run_id = victim
                    kill(child.pid)
                    self.kills.append(Kill("child SIGKILL", run_id, time.time()))
                    return True
            await asyncio.sleep(0.2)
        return False

    def _may_crash(self, run_id: str) -> bool:
        crashes = 0
        for event in self.system.queue.runs.get(run_id).reader().read_new():
            if isinstance(event, CheckpointSaved):
                crashes = 0
            elif isinstance(event, JobProgress) and "crashed" in event.event_id:
                crashes += 1
        return crashes <= _IN_VAIN

    async def _kill_worker(self, chance: float) -> bool:
        worker = self._worker(chance)
        run_id = self.system.training_of(worker)
        if not worker.send(signal.SIGKILL):
            return False
        if run_id is not None:
            self.kills.append(Kill("worker SIGKILL", run_id, time.time()))
        return True

    async def kill_all(self, chance: float = 0) -> bool:
        """Kill bot, workers and Valkey at the same moment."""
        system = self.system
        running = [run_id for worker in system.workers if (run_id := system.training_of(worker)) is not None]
        hit = [one.send(signal.SIGKILL) for one in (system.valkey, system.bot, *system.workers)]
        self.kills += [Kill("all SIGKILL", run_id, time.time()) for run_id in running]
        return any(hit)

    async def _wipe_valkey(self, chance: float) -> bool:
        return self.system.wipe_valkey()

    async def _fail_discord(self, action: FaultAction, chance: float) -> bool:
        method, template = ("POST", MESSAGES) if chance < 0.5 else ("PATCH", MESSAGE)
        self.system.server.fail_next(method, template, action)
        return True

    async def _drop_gateway(self, how: str) -> bool:
        self.system.drop_gateway(how)
        return True

    async def _trim_stream(self, chance: float) -> bool:
        trimmed: Awaitable[object] = self.system.store.redis.xtrim(keys.EVENT_STREAM, maxlen=0, approximate=False)
        return await self._store(trimmed)

    async def _destroy_group(self, chance: float) -> bool:
        destroyed: Awaitable[object] = self.system.store.redis.xgroup_destroy(keys.EVENT_STREAM, keys.EVENT_GROUP)
        return await self._store(destroyed)

    async def _plant_marks(self, chance: float) -> bool:
        """An abort marker of a run and a result of an earlier job with its id, as arq may leave them."""
        run = self._pick([run for run in self.runs if run.manifest() is None], chance)
        if run is None:
            return False
        redis = self.system.store.redis
        marked: Awaitable[object] = redis.zadd("arq:abort", {run.run_id: time.time() * 1000})
        kept: Awaitable[object] = redis.set(f"arq:result:{run.run_id}", b"stale", ex=60)
        return await self._store(marked) and await self._store(kept)

    async def _store(self, command: Awaitable[object]) -> bool:
        """Return True if the server answered a command."""
        try:
            await command
        except (RedisError, OSError):
            return False
        return True

    def _unmet_faults(self) -> Counter[Kind]:
        """Faults of Discord that no request has met."""
        names: dict[FaultAction, Kind] = {
            **{429: "Discord 429", 500: "Discord 500", 503: "Discord 503"},
            **{"reset": "Discord reset", "reply_lost": "Discord reply lost"},
        }
        return Counter(names[fault.action] for fault in self.system.server.faults)

    def _pick(self, among: Sequence[T], chance: float) -> T | None:
        return among[int(chance * len(among))] if among else None
