"""Three workers on machines of their own, with one Valkey and one object store, and faults: `make scale-test RUNS=30`.

All runs complete once, their bytes in the store are right, and they are equal to the same runs undisturbed.
"""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tests.faults import driver
from tests.faults.driver import LEASE_SECONDS, Result, Verdict, attempts_at, completed_faults, event_faults, result_of
from tests.faults.network import Address, Cut, Machine, Network, Servers
from tests.support import ROOT, processes, tiny_request
from tests.support.object_stores import Bucket
from tests.support.waiting import until
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import ENDED, OPEN, Head, Replica
from trainer.artifacts.runs import SEALED_FILES, RunDirectory
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.settings import Settings
from trainer.config.train_request import train_request
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.events import JobStarted
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.queue.queue import JobQueue

CUTS: tuple[Cut, ...] = ("network cut", "Valkey cut", "store cut")
KINDS = ("kill", "new machine", *CUTS, "freeze", "Valkey wiped")
WEIGHTS = {"kill": 3, "network cut": 3, "Valkey wiped": 0}
"""Weights of the kinds that are drawn more than once; Valkey is wiped once."""
MACHINES = 3
_BUCKET, _PASSWORD = "scale", "scale-password"
_SECONDS_A_RUN, _RUNS_A_FAULT = 3.0, 1.2
_AT_ONCE_SHARE, _LAST_SHARE = 0.5, 0.8
_CORPUS_LINES, _STEPS, _ROWS = 800, 120, 2500
_LONG_CURVE, _FROM_TOKENIZER, _FROM_FIRST_RUN = 1, 2, 3
"""The numbers of runs: one has a loss curve that is too long to be stored after each change."""
_WATCH_SECONDS = 0.3
_VICTIM_SECONDS = 5.0
"""So long a fault waits until its machine trains a run."""
_PER_ATTEMPT = ("started", "reading", "config", "evaluating")
"""Events whose id ends with the number of their attempt."""


class Fault(NamedTuple):
    """Something that is done to a machine, or to Valkey."""

    at_seconds: float
    kind: str
    machine: int
    chance: float
    """From 0 to 1: how long it takes."""


class Submission(NamedTuple):
    """A run that the queueing machine asks for; its request lacks the id of what the run starts from."""

    at_seconds: float
    number: int
    request: TrainRequest


class Plan(NamedTuple):
    faults: Sequence[Fault]
    submissions: Sequence[Submission]


def make_plan(seed: int, runs: int) -> Plan:
    """Every kind of fault once, then as the weights say, at random moments; half of the runs are queued at once."""
    chance = random.Random(seed)
    seconds = _SECONDS_A_RUN * runs
    kinds = [*KINDS, *chance.choices(KINDS, [WEIGHTS.get(kind, 1) for kind in KINDS], k=round(runs / _RUNS_A_FAULT))]
    faults = sorted(
        Fault(chance.uniform(0.05, 1.0) * seconds, kind, chance.randrange(MACHINES), chance.random()) for kind in kinds
    )
    at_once = round(runs * _AT_ONCE_SHARE)
    moments = [0.0] * at_once + sorted(chance.uniform(0, _LAST_SHARE * seconds) for _ in range(runs - at_once))
    return Plan(faults, [Submission(at, number, _request(number, seed)) for number, at in enumerate(moments)])


def _request(number: int, seed: int) -> TrainRequest:
    """A training of some seconds, of the small families in turn, with checkpoints a fraction of a second apart."""
    options: dict[str, object] = {
        **{"corpus": "text", "label": f"scale-{number}", "seed": 1000 * seed + number, "threads": 1, "device": "cpu"},
        **{"num_epochs": 1000, "test_fraction": 0.1, "max_steps": _STEPS},
        **{"checkpoint_every_steps": 4 + number % 3 * 3},
    }
    if number == _LONG_CURVE:
        long: dict[str, object] = {"max_steps": _ROWS, "log_every_steps": 1, "checkpoint_every_steps": 50}
        return tiny_request(**options | long)
    files = sorted({*(ROOT / "configs").glob("test_*_tiny.yaml")} - {ROOT / "configs" / "test_ngram_tiny.yaml"})
    file = files[0 if number == _FROM_FIRST_RUN else number % len(files)]
    return train_request(read_experiment(read_yaml(file), options).fields)


async def queued(queue: JobQueue, plan: Plan, begin: float | None) -> AsyncIterator[tuple[str, str]]:
    """Queue the runs of a plan, at their times after `begin` or all at once; yield the label and the id of each."""
    tokenizer = TokenizerTrainRequest(method="bpe", corpora=("text",), vocab_size=300, threads=1)
    stored = queue.tokenizers.get((await queue.train_tokenizer(tokenizer)).tokenizer_id)
    first: RunDirectory | None = None
    by_dependence = sorted(plan.submissions, key=_starts_from_another)
    for one in by_dependence:
        request = one.request
        if _starts_from_another(one):
            fields: dict[str, object] = request.model_dump(exclude_unset=True, exclude={"tokenizer"})
            if one.number == _FROM_FIRST_RUN and first is not None:
                await until(first.seal.exists)
                fields |= {"init_from_run_id": first.run_id}
            else:
                await until(lambda: not stored.is_unfinished())
                fields |= {"tokenizer_id": stored.tokenizer_id}
            request = parse(TrainRequest, fields)
        elif begin is not None:
            await asyncio.sleep(max(0.0, begin + one.at_seconds - time.monotonic()))
        run_id = (await queue.train(request, user_id=None)).run_id
        first = first or queue.runs.get(run_id)
        yield str(request.label), run_id


def _starts_from_another(submission: Submission) -> bool:
    return submission.number in (_FROM_TOKENIZER, _FROM_FIRST_RUN)


class System(driver.System):
    """Servers, machines, and the queue of a machine of its own that only asks for runs."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.network = network
        folder.mkdir()
        users = folder / "users.acl"
        users.write_text(f"user default off\n{_rules()}\n", encoding="utf-8")
        host, port = network.servers.valkey
        options = {"bind": host, "port": str(port), "aclfile": str(users), "protected-mode": "no"}
        super().__init__(folder, _CORPUS_LINES, options)
        self.undo.push_async_callback(asyncio.to_thread, network.close)
        self.url = _url(network.servers)
        self._is_ready = partial(_answers, network.servers.valkey)
        host, port = network.servers.store
        self._store = self.python("store", "moto.server", "--host", host, "--port", str(port))
        wires = [network.wire(number) for number in range(MACHINES)]
        self.machines = [
            Machine(folder, number, wire, self.environment | self._addresses(wire.servers))
            for number, wire in enumerate(wires)
        ]
        for machine in self.machines:
            self.undo.push_async_callback(machine.end)

    @property
    def settings(self) -> Settings:
        return changed(super().settings, object_store=self.bucket.settings)

    async def start(self) -> None:
        """Start everything; returns when each worker is ready."""
        self._store.start()
        await until(partial(_answers, self.network.servers.store))
        self.bucket = Bucket(*self.network.servers.store, _BUCKET)
        self.queue = await self.connect()
        for machine in self.machines:
            await machine.wire.start()
            machine.start()
        for machine in self.machines:
            log = machine.worker.log
            await until(lambda: log.exists() and b"worker_ready" in log.read_bytes())  # noqa: B023  awaited at once

    def _addresses(self, servers: Servers) -> dict[str, str]:
        """The servers, for a worker."""
        return {
            "REDIS__URL": _url(servers),
            "OBJECT_STORE__URL": f"s3://{_BUCKET}/lab",
            "OBJECT_STORE__ENDPOINT": f"http://{servers.store.host}:{servers.store.port}",
            "OBJECT_STORE__ACCESS_KEY_ID": "a key of the tests",
            "OBJECT_STORE__SECRET_ACCESS_KEY": "a key of the tests",
        }


def _rules() -> str:
    """The user that has no more rights than the manual says."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md"))).splitlines()
    [rules] = [line for line in pages if line.startswith("user trainer on >PASSWORD ")]
    return rules.replace("PASSWORD", _PASSWORD, 1)


def _url(servers: Servers) -> str:
    return f"redis://trainer:{_PASSWORD}@{servers.valkey.host}:{servers.valkey.port}/0"


def _answers(address: Address) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


class Writer(NamedTuple):
    """A machine that may write a run, and the counter of its claim."""

    counter: int
    machine: str


class Campaign(driver.Campaign):
    """One plan on one system, and all that is needed to judge what came of it."""

    def __init__(self, plan: Plan, system: System) -> None:
        super().__init__()
        self.plan, self.system = plan, system
        self.hits = 0
        """Faults of a machine that was writing a run."""
        self.labels: dict[str, str] = {}
        """The label of each accepted run, by id."""
        self.writers: dict[str, list[Writer]] = {}
        """The writers of each run, as the store has named them one after the other."""
        self.publications = 0
        """Notifications of new events that the queueing machine received."""

    async def run(self) -> None:
        """Carry the plan out, and wait until each run has ended on the queueing machine's disk."""
        beside = [asyncio.create_task(self._follow()), asyncio.create_task(self._watch())]
        try:
            steps = [(fault.at_seconds, partial(self._hurt, fault)) for fault in self.plan.faults]
            await self.carry_out([(0.0, partial(self._queue, time.monotonic())), *steps])
            await self.settle()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def _queue(self, begin: float) -> None:
        async for label, run_id in queued(self.system.queue, self.plan, begin):
            self.labels[run_id] = label

    async def _follow(self) -> None:
        """Follow the runs as the bot does."""
        async for _ in self.system.queue.states.next_run_ids():
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

    def left(self) -> int:
        return sum(not self.system.queue.runs.get(run_id).seal.exists() for run_id in self.labels)

    async def _hurt(self, fault: Fault) -> None:
        machine = self.system.machines[fault.machine]
        longer_than_a_lease = LEASE_SECONDS + 2 + 4 * fault.chance
        if fault.kind == "Valkey wiped":
            self.system.wipe_valkey()
            self.faults[fault.kind] += 1
            return
        async with machine.busy:
            if not self.left():
                return  # it would meet nothing
            deadline = time.monotonic() + _VICTIM_SECONDS
            while not (hit := await asyncio.to_thread(machine.is_training)) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            self.faults[fault.kind] += 1
            self.hits += hit
            if fault.kind == "freeze":
                await machine.freeze(longer_than_a_lease)
            elif fault.kind in CUTS:
                await machine.wire.cut_for(CUTS[CUTS.index(fault.kind)], longer_than_a_lease)
            else:
                await machine.kill(2 * LEASE_SECONDS * fault.chance, is_replaced=fault.kind == "new machine")


def judge(campaign: Campaign, references: dict[str, Result], folder: Path) -> Verdict:
    """Pull every run into a new folder, and compare it with what was promised; the workers have been stopped before."""
    objects, local = campaign.system.bucket.objects, campaign.system.queue.runs
    broken = {"store": [f"{key} is still open" for key in objects.tags(OPEN)]}
    if campaign.settled_seconds is None:
        broken["runs"] = ["they did not all end"]
    files = resumed = claims = 0
    for run_id, label in campaign.labels.items():
        faults = broken[f"{run_id} ({label})"] = []
        try:
            head = _ended_head(objects, run_id)
            replica = Replica(objects, folder, "models", run_id)
            replica.pull(with_weights=True)
        except (AppError, LookupError) as error:
            faults.append(str(error))
            continue
        campaign.note(run_id, head)
        run, writers = RunDirectory(replica.path), campaign.writers[run_id]
        faults += _byte_faults(run, head) + completed_faults(run, references[label])
        for place, one in (("in the store", run), ("on the queueing machine", local.get(run_id))):
            faults += [f"{fault} {place}" for fault in event_faults(one) or _order_faults(one)]
        if not all(earlier.counter < later.counter for earlier, later in pairwise(writers)):
            faults.append(f"two writers at the same time: {writers}")
        files += len(head.files)
        resumed += attempts_at(run) > 1
        claims += len(writers) - 1
    settled = campaign.settled_seconds
    figures = {
        "runs": len(campaign.labels),
        "files in the store whose bytes were compared with their hashes": files,
        "faults that hit a machine in training": campaign.hits,
        "runs with more than one attempt in their event log": resumed,
        "claims by workers that were seen in the store": claims,
        **_work_of(campaign),
        "notifications of the queueing machine": campaign.publications,
        "from the last fault to the last end": "did not settle" if settled is None else f"{settled:.0f} s",
    }
    return Verdict(broken, figures, campaign.faults)


def _ended_head(objects: ObjectStore, run_id: str) -> Head:
    """Return the head of an ended run; raises LookupError if there is none."""
    found = objects.get(f"{ENDED}models/{run_id}")
    if found is None:
        raise LookupError("it has not ended in the store")
    return Head.model_validate_json(found.data)


def _byte_faults(run: RunDirectory, head: Head) -> list[str]:
    """Compare all files with the hashes in the head, in the manifest and in SHA256SUMS."""
    paths = (path for path in run.path.rglob("*") if path.is_file())
    hashes = {path.relative_to(run.path).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}
    manifest = run.manifest()
    expected = [(file.path, file.sha256, "head") for file in head.files]
    expected += [(file.path, file.sha256, "manifest") for file in (manifest.files if manifest else ())]
    lines = run.seal.read_text(encoding="utf-8").splitlines() if run.seal.exists() else []
    sums = [(path, digest, "SHA256SUMS") for digest, _, path in (line.partition("  ") for line in lines)]
    faults = [f"{path} is not what the {by} says" for path, digest, by in expected + sums if hashes.get(path) != digest]
    if {path for path, _, _ in sums} != set(SEALED_FILES):
        faults.append("SHA256SUMS is not complete")
    return faults


def _order_faults(run: RunDirectory) -> list[str]:
    """Return the faults in the order of an event log's attempts."""
    events = run.reader().read_new()
    numbers = [event.attempt for event in events if isinstance(event, JobStarted)]
    faults = [f"attempts {numbers}"] if numbers and numbers != list(range(1, len(numbers) + 1)) else []
    tagged = [int(parts[2]) for parts in (event.event_id.split(":") for event in events) if parts[1] in _PER_ATTEMPT]
    if any(later < earlier for earlier, later in pairwise(tagged)):
        faults.append(f"an event of an older attempt after one of a newer attempt {tagged}")
    return faults


def _work_of(campaign: Campaign) -> Mapping[str, int]:
    """Count the attempts at runs in the logs of the workers."""
    machines: dict[str, set[str]] = {run_id: set() for run_id in campaign.labels}
    attempts = lost = 0
    for log in campaign.system.folder.glob("machine-*.log"):
        text = log.read_text(encoding="utf-8", errors="replace")
        lost += text.count("writer_changed")
        for line in text.splitlines():
            run_id = line.partition(" run_id=")[2].partition(" ")[0]
            if "attempt_started" in line and run_id in machines:
                attempts += 1
                machines[run_id].add(log.stem)
    return {
        "attempts": attempts,
        "runs that more than one machine trained": sum(len(found) > 1 for found in machines.values()),
        "workers that noticed that another machine had taken their run": lost,
    }


async def hold(folder: Path, plan: Plan, console: Console) -> Verdict:
    """Hold one campaign in a folder of its own."""
    async with driver.undisturbed(folder / "undisturbed", _CORPUS_LINES) as queue:
        runs = {label: queue.runs.get(run_id) async for label, run_id in queued(queue, plan, None)}
        for run in runs.values():
            await until(run.seal.exists)
    references = {label: result_of(run) for label, run in runs.items()}
    network = Network()
    console.print(f"{MACHINES} machines: {network.words}")
    async with System(folder / "disturbed", network) as system:
        await system.start()
        campaign = Campaign(plan, system)
        await campaign.run()
        codes = await asyncio.gather(*(machine.worker.stop() for machine in system.machines))
        verdict = await asyncio.to_thread(judge, campaign, references, folder / "fetched")
    left = [f"{process.command} still runs" for process in processes(system.folder)] + network.left()
    unwell = [f"one exited with {code}" for code in codes if code != 0]
    return verdict._replace(broken={**verdict.broken, "workers": [*left, *unwell]})


def _hold(folder: Path, numbers: Mapping[str, float], console: Console) -> bool:
    verdict = asyncio.run(hold(folder, make_plan(int(numbers["SEED"]), int(numbers["RUNS"])), console))
    verdict.show(console, KINDS)
    return verdict.holds


KIT = driver.Kit(_hold, {"SEED": 13, "RUNS": 30})
