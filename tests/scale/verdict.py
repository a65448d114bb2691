"""Judges a campaign by what the store and the folder of the queueing machine hold."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.scale.campaign import Campaign, Result, outcome
from tests.scale.plan import KINDS
from tests.support import processes
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import ENDED, OPEN, Head, Replica
from trainer.artifacts.runs import SEALED_FILES, RunDirectory
from trainer.contracts.errors import AppError
from trainer.contracts.events import Event, JobCompleted, JobStarted

_PER_ATTEMPT = ("started", "reading", "config", "evaluating")
"""Events whose id ends with the number of their attempt."""


class Verdict(NamedTuple):
    """The broken promises in words, and the figures of a campaign."""

    broken: list[str]
    runs: int
    completed: int
    files: int
    """Files whose bytes in the store were compared with their hashes."""
    resumed: int
    """Runs with more than one attempt in their event log, which lacks those that ended before they were stored."""
    claims: int
    """Changes of a run's writer, as the store showed them."""


class Work(NamedTuple):
    """Attempts at runs, from the logs of the workers."""

    attempts: int
    moved: int
    """Runs that more than one machine has trained."""
    lost: int
    """How often a worker noticed that another machine had become the writer of its run."""


def work_of(campaign: Campaign) -> Work:
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
    return Work(attempts, sum(len(found) > 1 for found in machines.values()), lost)


def judge(campaign: Campaign, references: dict[str, Result], folder: Path) -> Verdict:
    """Pull every run into a new folder, and compare it with what was promised; the workers have been stopped before."""
    objects, local = campaign.system.bucket.objects, campaign.system.queue.runs
    broken = [f"{key} is still open" for key in objects.tags(OPEN)]
    completed = files = resumed = claims = 0
    if campaign.settled_seconds is None:
        broken.append("the runs did not all end")
    for run_id, label in campaign.labels.items():
        try:
            head = _ended_head(objects, run_id)
            replica = Replica(objects, folder, "models", run_id)
            replica.pull(is_whole=True)
        except (AppError, LookupError) as error:
            broken.append(f"{run_id}: {error}")
            continue
        campaign.note(run_id, head)
        run = RunDirectory(replica.path)
        faults = _byte_faults(run, head)
        manifest = run.manifest()
        if manifest is None or manifest.status != "completed":
            faults.append(f"ended as {manifest and (manifest.status, manifest.error)}")
        else:
            completed += 1
            faults += [
                f"its {field} differs from the undisturbed run" for field in _differences(run, references[label])
            ]
        for place, one in (("in the store", run), ("on the queueing machine", local.get(run_id))):
            faults += [f"{fault} {place}" for fault in _event_faults(one)]
        faults += _writer_faults(campaign, run_id)
        broken += [f"{run_id} ({label}): {fault}" for fault in faults]
        files += len(head.files)
        resumed += _attempts(run) > 1
        claims += len(campaign.writers[run_id]) - 1
    return Verdict(broken, len(campaign.labels), completed, files, resumed, claims)


def _ended_head(objects: ObjectStore, run_id: str) -> Head:
    """Return the head of an ended run; raises LookupError if there is none."""
    found = objects.get(f"{ENDED}models/{run_id}")
    if found is None:
        raise LookupError("it has not ended in the store")
    return Head.model_validate_json(found.data)


def _byte_faults(run: RunDirectory, head: Head) -> list[str]:
    """Compare all files with the hashes in the head, in the manifest and in SHA256SUMS."""
    hashes = {
        path.relative_to(run.path).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in run.path.rglob("*")
        if path.is_file()
    }
    expected = [(file.path, file.sha256, "head") for file in head.files]
    manifest = run.manifest()
    expected += [(file.path, file.sha256, "manifest") for file in (manifest.files if manifest else ())]
    lines = run.seal.read_text(encoding="utf-8").splitlines() if run.seal.exists() else []
    sums = [(path, digest, "SHA256SUMS") for digest, _, path in (line.partition("  ") for line in lines)]
    faults = [f"{path} is not what the {by} says" for path, digest, by in expected + sums if hashes.get(path) != digest]
    if {path for path, _, _ in sums} != set(SEALED_FILES):
        faults.append("SHA256SUMS is not complete")
    return faults


def _differences(run: RunDirectory, reference: Result) -> list[str]:
    """Return the fields in which the result of a run differs from the reference."""
    result = outcome(run)
    found = ["loss curve"] if result.curve != reference.curve else []
    found += [name for name, digest in reference.files.items() if result.files.get(name) != digest]
    return found + (["metrics"] if result.metrics != reference.metrics else [])


def _event_faults(run: RunDirectory) -> list[str]:
    """Return the faults of an event log: numbers, repetitions, ends, and attempts at the same time."""
    if not (run.path / "events.jsonl").exists():
        return ["no event log"]
    events = run.reader().read_new()
    faults = [] if all(event.seq == place for place, event in enumerate(events, 1)) else ["events with a gap"]
    ids = Counter(event.event_id for event in events)
    faults += [f"{event_id} {times} times" for event_id, times in ids.items() if times > 1]
    ends = sum(isinstance(event, JobCompleted) for event in events)
    if ends != 1 or not isinstance(events[-1], JobCompleted):
        faults.append(f"{ends} events of its end")
    numbers = [event.attempt for event in events if isinstance(event, JobStarted)]
    if any(number != place for place, number in enumerate(numbers, 1)):
        faults.append(f"attempts {numbers}")
    tagged = [int(parts[2]) for parts in map(_parts, events) if parts[1] in _PER_ATTEMPT]
    if any(later < earlier for earlier, later in pairwise(tagged)):
        faults.append(f"an event of an older attempt after one of a newer attempt {tagged}")
    return faults


def _parts(event: Event) -> Sequence[str]:
    return event.event_id.split(":")


def _attempts(run: RunDirectory) -> int:
    return sum(isinstance(event, JobStarted) for event in run.reader().read_new())


def _writer_faults(campaign: Campaign, run_id: str) -> list[str]:
    """Each claim has one writer, and no writer came back after a later claim."""
    writers = campaign.writers[run_id]
    if all(earlier.counter < later.counter for earlier, later in pairwise(writers)):
        return []
    return [f"two writers at the same time: {writers}"]


def left_behind(campaign: Campaign) -> list[str]:
    """Return the processes and networks that are left after the end of a campaign."""
    system = campaign.system
    return [f"{process.command} still runs" for process in processes(system.folder)] + [
        f"{line} is left behind" for line in system.network.left()
    ]


def show(campaign: Campaign, verdict: Verdict, work: Work, console: Console) -> None:
    """Print the faults by kind, the figures, and every broken promise."""
    table = Table("fault", "times")
    for kind in KINDS:
        table.add_row(kind, str(campaign.faults[kind]))
    table.add_row("all", str(campaign.faults.total()), style="bold")
    console.print(table)
    settled = "did not settle" if campaign.settled_seconds is None else f"{campaign.settled_seconds:.0f} s"
    figures = {
        "faults that hit a machine in training": campaign.hits,
        "attempts": work.attempts,
        "runs with more than one attempt in their event log": verdict.resumed,
        "claims by workers that were seen in the store": verdict.claims,
        "runs that more than one machine trained": work.moved,
        "workers that noticed that another machine had taken their run": work.lost,
        "notifications of the queueing machine": campaign.publications,
        "from the last fault to the last end": settled,
    }
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, str(value))
    console.print(table)
    for fault in verdict.broken:
        console.print(fault, style="red", markup=False)
