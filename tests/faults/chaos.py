"""Random faults while people ask for runs: `make chaos MINUTES=10 SEED=1`.

Nothing may be lost, wrong, missing or twice, whatever is killed, wiped, frozen or refused.
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple, TypeVar

from redis.exceptions import RedisError
from rich.console import Console

from bot.messages.buttons import custom_id
from bot.people.watchers import read_ledger
from local_discord import LocalDiscord, Upload
from local_discord.client import ClientRefusal
from local_discord.driver import shown_text
from local_discord.rest import FaultAction
from local_discord.state import Call, Channel, StoredMessage, User
from local_discord.wire import mapping, text
from tests.faults import driver
from tests.faults.driver import LEASE_SECONDS, Supervised, Verdict, attempts_at, completed_faults, event_faults
from tests.support import gone, kill, parent_of, processes, run_of, tiny_request
from tests.support.bot import TOKEN
from tests.support.waiting import ANSWER_SECONDS, PATIENCE_SECONDS, until
from trainer.artifacts.runs import RunDirectory
from trainer.config.experiment_file import experiment_yaml
from trainer.contracts.events import CheckpointSaved, JobProgress, JobStarted
from trainer.contracts.runs import RunRecord, TrainRequest
from trainer.store import keys
from trainer.store.store import connect

T = TypeVar("T")

DISCORD: dict[str, FaultAction] = {"Discord 429": 429, "Discord 500": 500, "Discord 503": 503}
DISCORD |= {"Discord reset": "reset", "Discord reply lost": "reply_lost"}
GATEWAY: dict[str, Literal["abort", "reconnect", "invalidate"]] = {
    "gateway abort": "abort",
    "gateway reconnect": "reconnect",
    "gateway invalidate": "invalidate",
}
WEIGHTS = {"child SIGKILL": 14, "worker SIGKILL": 9, "bot SIGKILL": 4, "Valkey SIGKILL": 2}
"""Weights of the kinds that are drawn more than once."""
KINDS = (
    *(*WEIGHTS, "Valkey wiped", "Valkey SIGSTOP", "worker SIGSTOP", "worker SIGTERM", "bot SIGTERM", "all SIGKILL"),
    *("cancel", *DISCORD, *GATEWAY, "stream trimmed", "group destroyed", "stale marks planted"),
)
MESSAGES = "/channels/{channel_id}/messages"
RUN_ID = re.compile(r"(char_)?lstm-\d{8}-[0-9a-f]{8}")
USERS = REQUESTS = 4
DEPLOYS, LONG_MINUTES = 20, 5
"""A campaign of so many minutes is followed by so many deploys in a row."""
_WORKERS, _CORPUS_LINES = 2, 120
_SECONDS_A_RUN, _SECONDS_A_FAULT = 11.0, 2.1
_SUBMITTING_SHARE = 0.75
"""In the last part of the time nothing new is submitted, so that faults meet runs that are about to end."""
_REPLY_SECONDS, _TRIES = 25.0, 6
_VICTIM_SECONDS = 4.0
_SAMPLE_SECONDS, SEEN_SECONDS = 0.2, 15.0
"""A run during which the bot was there for so long has to have a card; a shorter one may be told by its end alone."""
_IN_VAIN = 1
"""A child that has crashed so often since its last checkpoint is left alone: three times would be its end by right."""


class Fault(NamedTuple):
    """Something that is done to the system."""

    at_seconds: float
    kind: str
    chance: float
    """From 0 to 1: who or what is hit, among those that can be."""


class Submission(NamedTuple):
    """A run that somebody asks for: in the chat, or (without a user) as `mt train` does."""

    at_seconds: float
    request: int
    user: int | None


class Plan(NamedTuple):
    faults: Sequence[Fault] = ()
    submissions: Sequence[Submission] = ()


def make_plan(seed: int, seconds: float, requests: int) -> Plan:
    """Every kind of fault as far as there is time, then as the weights say, at random moments.

    Valkey is wiped in the first half only: what is rebuilt from the disk then would hide what had been lost before.
    """
    chance = random.Random(seed)
    number = max(round(seconds / _SECONDS_A_FAULT), min(round(seconds), len(KINDS)))
    kinds = chance.sample(KINDS, min(number, len(KINDS)))
    kinds += chance.choices(KINDS, [WEIGHTS.get(kind, 1) for kind in KINDS], k=number - len(kinds))
    chance.shuffle(kinds)
    moments = sorted(chance.uniform(0.05 * seconds, seconds) for _ in kinds)
    faults = [
        Fault(moment / 2 if kind == "Valkey wiped" else moment, kind, chance.random())
        for moment, kind in zip(moments, kinds, strict=True)
    ]
    runs = max(4, round(seconds / _SECONDS_A_RUN))
    moments = [(place + chance.random() / 2) * _SUBMITTING_SHARE * seconds / runs for place in range(runs)]
    users = [None if chance.random() < 0.2 else chance.randrange(USERS) for _ in moments]
    return Plan(
        faults, [Submission(at, chance.randrange(requests), user) for at, user in zip(moments, users, strict=True)]
    )


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
    common: dict[str, object] = {
        "num_epochs": 10,
        "checkpoint_every_steps": 20,
        "test_fraction": 0.1,
        "sample_prompts": "none",  # what users get on the corpus of the operator, who trains the references
    }
    return [tiny_request(**common | own) for own in fields[:number]]


class System(driver.System):
    """Valkey, two workers, the bot on a local Discord, and the people who use it."""

    def __init__(self, folder: Path, server: LocalDiscord, users: int, slots: int) -> None:
        super().__init__(folder, _CORPUS_LINES)
        self.server = server
        self.users: list[User] = [server.add_user(f"user-{number}") for number in range(users)]
        self.workers = [
            self.python(f"worker-{number}", "trainer", "worker", QUEUE__TRAINING_SLOTS=str(slots))
            for number in range(_WORKERS)
        ]
        settings = {
            "LIMITS__RUNS_PER_USER": "100",
            "DISCORD__TOKEN": TOKEN,
            "DISCORD__OWNER_ID": str(self.users[0].id),
            "DISCORD__ALLOWED_USER_IDS": ",".join(str(user.id) for user in self.users),
            "DISCORD__API_BASE_URL": server.api_base_url,
            "DISCORD__GATEWAY_URL": server.gateway_url,
            "DISCORD__EDIT_INTERVAL_SECONDS": "1",
        }
        self.bot = self.python("bot", "bot", **settings)
        self.calls: list[Call] = []
        self.gateway_drops: list[float] = []
        self.connected_seconds: list[float] = []
        """Monotonic times at which the bot was seen at the gateway."""

    async def start(self) -> None:
        """Start everything; returns when the bot has told its commands."""
        self.queue = await self.connect()
        self.store = await connect(self.url)
        self.undo.push_async_callback(self.store.close)
        for process in (*self.workers, self.bot):
            process.start()
        sampling = asyncio.create_task(self._sample())
        self.undo.callback(lambda: sampling.cancel())
        await self.server.synced(PATIENCE_SECONDS)
        await self.server.connected(PATIENCE_SECONDS)

    async def stop(self) -> list[str]:
        """Ask all to end; return what did not end well, and helper processes that remain some seconds later."""
        users = (self.bot, *self.workers)
        codes = [*await asyncio.gather(*(process.stop() for process in users)), await self.valkey.stop()]
        ended = zip((*users, self.valkey), codes, strict=True)
        faults = [f"{process.name} exited with {code}" for process, code in ended if code != 0]
        is_gone = await gone(self.folder)
        return faults if is_gone else [*faults, *(process.command for process in processes(self.folder))]

    def training_of(self, worker: Supervised) -> str | None:
        """The run that a worker has a child for."""
        for process in processes(self.folder, "train-child"):
            with contextlib.suppress(OSError):
                if parent_of(parent_of(process.pid)) == worker.pid:  # between them is the server that forks
                    return run_of(process)
        return None

    def is_excused(self, call: Call) -> bool:
        """Return True if the bot or its connection was down while a user waited for this answer."""
        broken = [*self.gateway_drops, *(one.at_seconds for one in self.bot.exits)]
        return any(call.created_seconds - 1 <= moment <= call.created_seconds + 60 for moment in broken)

    def longest_connected_seconds(self, begin: float, end: float) -> float:
        """For how long in one piece the bot was at the gateway between two monotonic times."""
        longest, first, last = 0.0, begin, float("-inf")
        for moment in (moment for moment in self.connected_seconds if begin <= moment <= end):
            first = moment if moment - last > 3 * _SAMPLE_SECONDS else first
            last = moment
            longest = max(longest, last - first)
        return longest

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await self.server.connected(_SAMPLE_SECONDS)
                self.connected_seconds.append(time.monotonic())
            await asyncio.sleep(_SAMPLE_SECONDS)


@contextlib.asynccontextmanager
async def started(folder: Path, users: int, slots: int = 1) -> AsyncIterator[System]:
    """A system that runs; whatever happens, it runs no more afterwards."""
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        async with System(folder, server, users, slots) as system:
            await system.start()
            yield system


class Kill(NamedTuple):
    """A SIGKILL that hit a run in progress."""

    kind: str
    run_id: str
    at: float
    """In seconds since 1970."""


class Asked(NamedTuple):
    """A run as somebody asked for it."""

    label: str
    tries: int
    told: str | None
    """The run's id, as the answer says it."""


class Campaign(driver.Campaign):
    """One plan on one system, and all that is needed to judge what came of it."""

    def __init__(self, system: System, requests: Sequence[TrainRequest], plan: Plan = Plan()) -> None:  # noqa: B008
        super().__init__()
        self.plan, self.system = plan, system
        self.references: dict[str, driver.Result] = {}
        """By the request's hash: the same training, undisturbed."""
        self.kills: list[Kill] = []
        self.asked: list[Asked] = []
        self.to_be_cancelled: set[str] = set()
        self._requests = requests
        self._records: list[RunRecord] = []
        redis, stream = system.store.redis, keys.EVENT_STREAM
        self._do: dict[str, Callable[[float], Awaitable[bool]]] = {
            "child SIGKILL": self._kill_child,
            "cancel": self._cancel,
            "stream trimmed": lambda _: _has_answered(redis.xtrim(stream, maxlen=0, approximate=False)),
            "group destroyed": lambda _: _has_answered(redis.xgroup_destroy(stream, keys.EVENT_GROUP)),
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
        steps = [(fault.at_seconds, partial(self._hurt, fault)) for fault in self.plan.faults]
        await self.carry_out([*steps, *((one.at_seconds, partial(self.submit, one)) for one in self.plan.submissions)])
        names = {action: name for name, action in DISCORD.items()}
        self.faults.subtract(names[fault.action] for fault in self.system.server.faults)  # no request has met them
        await self.settle()

    async def train_references(self) -> None:
        """Train each request undisturbed."""
        queue = self.system.queue
        accepted = [await queue.train(request, user_id=None) for request in self._requests]
        for run in [queue.runs.get(one.run_id) for one in accepted]:
            await until(run.seal.exists, 2 * PATIENCE_SECONDS)
            self._records.append(run.record())
            self.references[run.record().request_hash] = driver.result_of(run)

    def left(self) -> int:
        runs = sum((not run.seal.exists()) + len(read_ledger(run).pending) for run in self.runs)
        return runs + sum(call.is_unresolved and not self.system.is_excused(call) for call in self.system.calls)

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
        tries, found = 0, None
        while found is None and tries < _TRIES:
            await asyncio.sleep(min(tries, 1))
            tries += 1
            answer = await self._answer(
                lambda: self.system.server.slash(user, "mt train", {"config": yaml, "name": label})
            )
            found = RUN_ID.search(shown_text(answer.payload)) if answer else None
        self.asked.append(Asked(label, tries, found and found[0]))

    async def _cancel(self, chance: float) -> bool:
        run = self._unfinished(chance)
        if run is None:
            return False
        self.to_be_cancelled.add(run.run_id)
        user = next((user for user in self.system.users if user.id == run.record().user_id), None)
        if user is None:
            await self.system.queue.states.cancel(run.run_id)
            return True
        server = self.system.server
        own_id = custom_id("cancel", run.run_id)
        channel = server.messages(server.dm_channel(user))
        card = next((message for message in channel if own_id in json.dumps(message.components)), None)
        if card is not None and chance * 100 % 1 < 0.5:
            return await self._answer(lambda: server.click(user, card, own_id)) is not None
        return await self._answer(lambda: server.slash(user, "mt cancel", {"run": run.run_id})) is not None

    async def _answer(self, do: Callable[[], Awaitable[Call]]) -> StoredMessage | None:
        """Return the answer to an interaction; None after a timeout."""
        try:
            await self.system.server.connected(_REPLY_SECONDS)
            call = await do()
            self.system.calls.append(call)
            return await call.reply(_REPLY_SECONDS)
        except (TimeoutError, ClientRefusal):  # nobody was there, or the button has gone
            return None

    async def _hurt(self, fault: Fault) -> None:
        self.faults[fault.kind] += await self._met(fault.kind, fault.chance)

    async def _met(self, kind: str, chance: float) -> bool:
        """Do a fault; return whether there was what it hits."""
        system = self.system
        worker = system.workers[int(chance * len(system.workers))]
        if kind in self._do:
            return await self._do[kind](chance)
        if kind in DISCORD:
            method, path = ("POST", MESSAGES) if chance < 0.5 else ("PATCH", f"{MESSAGES}/{{message_id}}")
            system.server.fail_next(method, path, DISCORD[kind])
            return True
        if kind in GATEWAY:
            system.gateway_drops.append(time.monotonic())
            system.server.drop_gateway(GATEWAY[kind])
            return True
        match kind:
            case "worker SIGKILL":
                return self._kill(kind, [worker], [worker])
            case "all SIGKILL":
                return self.kill_all()
            case "Valkey wiped":
                return system.wipe_valkey()
            case "Valkey SIGSTOP":
                return await system.valkey.freeze(2.5)
            case "worker SIGSTOP":
                return await worker.freeze(LEASE_SECONDS + 2)
            case _:
                name, signal_name = kind.split()
        return {"worker": worker, "bot": system.bot, "Valkey": system.valkey}[name].send(signal.Signals[signal_name])

    async def _kill_child(self, chance: float) -> bool:
        """Kill a training child, as far as one comes in time of which that is no end by right."""
        deadline = time.monotonic() + _VICTIM_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # it has ended
                of_runs = [(child, run_of(child)) for child in processes(self.system.folder, "train-child")]
                victims = [(child, run_id) for child, run_id in of_runs if run_id and self._may_crash(run_id)]
                if (victim := _pick(victims, chance)) is not None:
                    kill(victim[0].pid)
                    self.kills.append(Kill("child SIGKILL", victim[1], time.time()))
                    return True
            await asyncio.sleep(0.2)
        return False

    def _may_crash(self, run_id: str) -> bool:
        crashes = 0
        for event in self.system.queue.runs.get(run_id).reader().read_new():
            if isinstance(event, CheckpointSaved):
                crashes = 0
            elif isinstance(event, JobProgress) and event.cause == "crashed":
                crashes += 1
        return crashes <= _IN_VAIN

    def kill_all(self) -> bool:
        """Kill bot, workers and Valkey at the same moment."""
        system = self.system
        return self._kill("all SIGKILL", system.workers, [system.valkey, system.bot, *system.workers])

    def _kill(self, kind: str, workers: Sequence[Supervised], killed: Sequence[Supervised]) -> bool:
        running = [run_id for worker in workers if (run_id := self.system.training_of(worker)) is not None]
        if not any([one.send(signal.SIGKILL) for one in killed]):
            return False
        self.kills += [Kill(kind, run_id, time.time()) for run_id in running]
        return True

    async def _plant_marks(self, chance: float) -> bool:
        """An abort marker of a run and a result of an earlier job with its id, as arq may leave them."""
        run = self._unfinished(chance)
        if run is None:
            return False
        redis = self.system.store.redis
        is_marked = await _has_answered(redis.zadd("arq:abort", {run.run_id: time.time() * 1000}))
        return is_marked and await _has_answered(redis.set(f"arq:result:{run.run_id}", b"stale", ex=60))

    def _unfinished(self, chance: float) -> RunDirectory | None:
        return _pick([run for run in self.runs if run.manifest() is None], chance)


def _pick(among: Sequence[T], chance: float) -> T | None:
    return among[int(chance * len(among))] if among else None


async def _has_answered(command: Awaitable[object]) -> bool:
    """Return True if the server answered a command."""
    with contextlib.suppress(RedisError, OSError):
        await command
        return True
    return False


async def judge(campaign: Campaign) -> Verdict:
    """Stop the system, and compare all runs and messages with what was promised."""
    kinds = "lost wrong failed gaps missing duplicate doubled violations".split()
    found: dict[str, list[str]] = {"left running": await campaign.system.stop()} | {kind: [] for kind in kinds}
    statuses: Counter[str] = Counter()
    resumed = 0
    for run in campaign.runs:
        manifest = run.manifest()
        status = "lost" if manifest is None or not run.seal.exists() else manifest.status
        statuses[status] += 1
        if status == "lost":
            found["lost"].append(f"{run.run_id}: {run.follow().refresh().message}")
        elif status == "completed":
            resumed += attempts_at(run) > 1
            reference = campaign.references[run.record().request_hash]
            found["wrong"] += [f"{run.run_id}: {fault}" for fault in completed_faults(run, reference)]
        elif status == "failed":
            error = manifest and manifest.error
            found["failed"].append(f"{run.run_id}: {error and error.code}")
        elif run.run_id not in campaign.to_be_cancelled:
            found["wrong"].append(f"{run.run_id}: cancelled by nobody")
        found["gaps"] += [f"{run.run_id}: {fault}" for fault in event_faults(run)]
        _look_at_messages(campaign, run, found)
    _look_at_requests(campaign, found)
    _look_at_discord(campaign, found)
    return Verdict(found, _figures(campaign, statuses, resumed), campaign.faults)


def _look_at_messages(campaign: Campaign, run: RunDirectory, found: Mapping[str, list[str]]) -> None:
    """One card, or a line of a digest, and one final message a watcher; the ledger says where, the channel what."""
    record, ledger = run.record(), read_ledger(run)
    users = {user.id: user for user in campaign.system.users}
    if record.user_id is not None and ledger.of(record.user_id) is None:
        found["missing"].append(f"{run.run_id}: its starter is not in the ledger")
    for watcher in ledger.watchers:
        channel = campaign.system.server.dm_channel(users[watcher.user_id])
        cards, finals = (_count(campaign, channel, footer) for footer in (run.run_id, f"{run.run_id} · result"))
        if finals != 1:
            found["missing" if finals == 0 else "duplicate"].append(f"{run.run_id}: {finals} final messages")
        if cards > 1:
            found["duplicate"].append(f"{run.run_id}: {cards} cards")
        is_due = watcher.card is not None or (_was_seen(campaign, run) and not _is_in_digest(campaign, run, channel))
        if cards == 0 and is_due:
            found["missing"].append(f"{run.run_id}: no card")


def _count(campaign: Campaign, channel: Channel, footer: str) -> int:
    """The messages with a footer in somebody's channel, answers to commands left out."""
    return sum(
        any(text(mapping(embed.get("footer")).get("text")) == footer for embed in message.embeds)
        for message in campaign.system.server.messages(channel)
        if "interaction_metadata" not in message.payload
    )


def _is_in_digest(campaign: Campaign, run: RunDirectory, channel: Channel) -> bool:
    """Return True if a user's digest has had a line about the run: many unfinished runs have no cards of their own."""
    line = f"**{run.record().effective.label}**"
    return any(
        line in (shown := shown_text(version.payload)) and "digest-" in shown
        for message in campaign.system.server.messages(channel)
        for version in message.versions
    )


def _was_seen(campaign: Campaign, run: RunDirectory) -> bool:
    """Return True if the bot ran long enough without interruption during the run."""
    manifest = run.manifest()
    if manifest is None:
        return True
    clock = time.time() - time.monotonic()
    begin, end = (moment.timestamp() - clock for moment in (manifest.timings.created, manifest.timings.finished))
    return campaign.system.longest_connected_seconds(begin, end) > SEEN_SECONDS


def _look_at_requests(campaign: Campaign, found: Mapping[str, list[str]]) -> None:
    """Check that each reported run exists, and that there are no more runs than requests."""
    labels = Counter(run.record().effective.label for run in campaign.runs)
    there = {run.run_id for run in campaign.runs}
    for asked in campaign.asked:
        if asked.told is not None and asked.told not in there:
            found["lost"].append(f"{asked.told}: accepted in the chat, and not on the disk")
        if labels[asked.label] > asked.tries:
            found["doubled"].append(f"{asked.label}: asked {asked.tries} times, accepted {labels[asked.label]} times")


def _look_at_discord(campaign: Campaign, found: Mapping[str, list[str]]) -> None:
    """Check the violations that local Discord recorded; an answer may be missing only if the bot was killed."""
    system = campaign.system
    found["violations"] += [
        f"{one.kind} {one.where}: {one.detail}"
        for one in system.server.violations
        if one.kind not in ("unanswered", "unresolved")
    ]
    found["violations"] += [
        f"{call.name}: {'unanswered' if call.expired else 'never filled'}"
        for call in system.calls
        if (call.expired or call.is_unresolved) and not system.is_excused(call)
    ]


def _figures(campaign: Campaign, statuses: Counter[str], resumed: int) -> Mapping[str, object]:
    system, runs = campaign.system, campaign.runs
    killed = [one for one in campaign.kills if one.kind == "worker SIGKILL"]
    continued = [(seconds, one.run_id) for one in killed if (seconds := _pause_after(runs, one)) is not None]
    slowest, run_id = max(continued, default=(0.0, ""))
    answers = [call.answered_seconds for call in system.calls if call.answered_seconds is not None]
    ends = [(process.name, end) for process in (system.bot, *system.workers, system.valkey) for end in process.exits]
    by_itself = Counter(f"{name} ({end.code})" for name, end in ends if end.is_by_itself)
    settled = "it did not" if campaign.settled_seconds is None else f"{campaign.settled_seconds:.1f} s"
    return {
        "faults": campaign.faults.total(),
        "runs": f"{len(runs)}: " + ", ".join(f"{number} {status}" for status, number in statuses.items()),
        "SIGKILLs that hit a run in progress": len(campaign.kills),
        "runs that were resumed and compared, to the last bit": resumed,
        "settled after the last fault in": settled,
        "worker SIGKILL to the next child with the lock": continued
        and f"{median(seconds for seconds, _ in continued):.1f} s in the median of {len(continued)}, at most"
        f" {slowest:.1f} s ({run_id})",
        "answers to commands": f"{len(answers)} within {max(answers, default=0):.1f} s,"
        f" {sum(call.expired or call.is_unresolved for call in system.calls)} cut off",
        "told by the final message alone, while the bot was away": sum(
            any(watcher.card is None for watcher in read_ledger(run).watchers) for run in runs
        ),
        "processes that ended by themselves": ", ".join(f"{name}: {n}" for name, n in by_itself.items()) or "none",
    }


def _pause_after(runs: Sequence[RunDirectory], killed: Kill) -> float | None:
    """Seconds from a kill to the next attempt of its run; None where another process had ended it."""
    events = [event for run in runs if run.run_id == killed.run_id for event in run.reader().read_new()]
    starts = (event.ts.timestamp() for event in events if isinstance(event, JobStarted))
    return next((start - killed.at for start in starts if start > killed.at), None)


async def hold(folder: Path, seed: int, seconds: float, console: Console, number_of_requests: int) -> Verdict:
    """Hold one campaign in a folder of its own, and print what came of it."""
    async with started(folder, USERS) as system:
        plan = make_plan(seed, seconds, number_of_requests)
        campaign = Campaign(system, requests(number_of_requests), plan)
        await campaign.run()
        verdict = await judge(campaign)
    verdict.show(console, KINDS)
    return verdict


async def deploy(folder: Path, console: Console) -> Verdict:
    """Judge a run of which every attempt but the last is told to end as soon as it has begun."""
    async with started(folder, users=1) as system:
        request = tiny_request(num_epochs=60, checkpoint_every_steps=10**6, test_fraction=0.1)
        campaign = Campaign(system, [request])
        await campaign.train_references()
        await campaign.submit(Submission(at_seconds=0, request=0, user=0))
        [run] = campaign.runs
        for number in range(1, DEPLOYS + 1):
            await until(lambda: attempts_at(run) >= number)  # noqa: B023  awaited at once
            for worker in system.workers:
                campaign.faults["worker SIGTERM"] += worker.send(signal.SIGTERM)
        await campaign.settle()
        verdict = await judge(campaign)
    verdict.show(console, ["worker SIGTERM"])
    return verdict


def _hold(folder: Path, numbers: Mapping[str, float], console: Console) -> bool:
    minutes, seed = numbers["MINUTES"], int(numbers["SEED"])
    verdicts = [asyncio.run(hold(folder / "faults", seed, 60 * minutes, console, REQUESTS))]
    if minutes >= LONG_MINUTES:
        verdicts.append(asyncio.run(deploy(folder / "deploys", console)))
    return all(verdict.holds for verdict in verdicts)


KIT = driver.Kit(_hold, {"MINUTES": 10, "SEED": driver.seed()})
