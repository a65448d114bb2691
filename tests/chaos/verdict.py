"""Judges a campaign by what is on the disk and in the chat: every number of the verdict has to be zero."""

import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from bot.messages.run_card import final_footer
from bot.people.watchers import read_ledger
from local_discord.state import Channel
from local_discord.wire import mapping, text
from tests.chaos.campaign import Campaign, Kill, result_of
from tests.chaos.plan import KINDS
from tests.support import Process
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import JobStarted

_FAILINGS = {
    "lost": "accepted, and not ended",
    "wrong": "ended otherwise than the same training undisturbed",
    "failed": "ended as failed",
    "gaps": "event logs with a number left out or given twice",
    "missing": "a person without a card or a final message",
    "duplicate": "a person with more than one",
    "doubled": "accepted more often than it was asked for",
    "violations": "requests against Discord's rules, or commands without an answer",
    "left running": "processes that did not end",
}
_SEEN_SECONDS = 15.0
"""A run during which the bot was there for so long has to have a card; a shorter one may be told by its end alone."""


class Verdict(NamedTuple):
    """Faults by kind, and the figures of a campaign."""

    failings: dict[str, list[str]]
    """The broken promises, in words."""
    figures: dict[str, str]
    faults: int

    @property
    def holds(self) -> bool:
        return not any(self.failings.values())

    @property
    def in_words(self) -> str:
        """Return the faults, one per line."""
        return "\n".join(f"{name}: {fault}" for name, faults in self.failings.items() for fault in faults)


def judge(campaign: Campaign, exit_codes: dict[str, int | None], left: Sequence[Process]) -> Verdict:
    """Compare all runs and messages with what was promised; the system has been stopped before."""
    found: dict[str, list[str]] = {name: [] for name in _FAILINGS}
    statuses: Counter[str] = Counter()
    resumed = 0
    for run in campaign.runs:
        manifest = run.manifest()
        status = "lost" if manifest is None or not run.seal.exists() else manifest.status
        statuses[status] += 1
        if status == "lost":
            found["lost"].append(f"{run.run_id}: {run.follow().refresh().message}")
        elif status == "completed":
            reference = campaign.references.get(run.record().request_hash)
            attempts = sum(isinstance(event, JobStarted) for event in run.reader().read_new())
            resumed += attempts > 1
            if result_of(run) != reference:
                found["wrong"].append(f"{run.run_id}: another result, after {attempts} attempts")
        elif status == "failed":
            error = manifest and manifest.error
            found["failed"].append(f"{run.run_id}: {error and error.code}")
        elif run.run_id not in campaign.to_be_cancelled:
            found["wrong"].append(f"{run.run_id}: cancelled by nobody")
        found["gaps"] += event_faults(run)
        _look_at_messages(campaign, run, found)
    _look_at_requests(campaign, found)
    _look_at_discord(campaign, found)
    found["left running"] += [process.command for process in left]
    found["left running"] += [f"{name} exited with {code}" for name, code in exit_codes.items() if code != 0]
    return Verdict(found, _figures(campaign, statuses, resumed), campaign.faults.total())


def show(campaign: Campaign, verdict: Verdict, console: Console) -> None:
    """Print the faults by kind, the figures, and what is wrong."""
    table = Table("fault", "times", title=f"seed {campaign.plan.seed}, {campaign.plan.seconds / 60:g} min")
    for kind in KINDS:
        table.add_row(kind, str(campaign.faults[kind]))
    table.add_row("all", str(campaign.faults.total()), style="bold")
    console.print(table)
    table = Table("figure", "value")
    for name, value in verdict.figures.items():
        table.add_row(name, value)
    console.print(table)
    table = Table("must be 0", "", "what it counts")
    for name, what in _FAILINGS.items():
        table.add_row(name, str(len(verdict.failings[name])), what, style="red" if verdict.failings[name] else "green")
    console.print(table)
    console.print(verdict.in_words, style="red", markup=False)


def event_faults(run: RunDirectory) -> list[str]:
    """Return the faults of a run's event log."""
    data = (run.path / "events.jsonl").read_bytes()
    try:
        events = run.reader().read_new()
    except ValidationError as error:
        return [f"{run.run_id}: {error}"]
    numbers = [event.seq for event in events]
    right = list(range(1, data.count(b"\n") + 1))
    if numbers != right or not data.endswith(b"\n"):
        return [f"{run.run_id}: {numbers}"]
    repeated = [event_id for event_id, times in Counter(event.event_id for event in events).items() if times > 1]
    return [f"{run.run_id}: {event_id} twice" for event_id in repeated]


def _look_at_messages(campaign: Campaign, run: RunDirectory, found: dict[str, list[str]]) -> None:
    """One card and one final message a watcher; the ledger says where, the channel what is there."""
    record, ledger = run.record(), read_ledger(run)
    users = {user.id: user for user in campaign.system.users}
    if record.user_id is not None and ledger.of(record.user_id) is None:
        found["missing"].append(f"{run.run_id}: its starter is not in the ledger")
    for watcher in ledger.watchers:
        channel = campaign.system.server.dm_channel(users[watcher.user_id])
        cards, finals = (_count(campaign, channel, footer) for footer in (run.run_id, final_footer(run.run_id)))
        if finals != 1:
            found["missing" if finals == 0 else "duplicate"].append(f"{run.run_id}: {finals} final messages")
        if cards > 1:
            found["duplicate"].append(f"{run.run_id}: {cards} cards")
        if cards == 0 and (watcher.card is not None or _was_seen(campaign, run)):
            found["missing"].append(f"{run.run_id}: no card")


def _count(campaign: Campaign, channel: Channel, footer: str) -> int:
    """The messages with a footer in somebody's channel, answers to commands left out."""
    return sum(
        any(text(mapping(embed.get("footer")).get("text")) == footer for embed in message.embeds)
        for message in campaign.system.server.messages(channel)
        if "interaction_metadata" not in message.payload
    )


def _was_seen(campaign: Campaign, run: RunDirectory) -> bool:
    """Return True if the bot ran long enough without interruption during the run."""
    manifest = run.manifest()
    if manifest is None:
        return True
    clock = time.time() - time.monotonic()
    begin, end = (moment.timestamp() - clock for moment in (manifest.timings.created, manifest.timings.finished))
    return campaign.system.longest_connected_seconds(begin, end) > _SEEN_SECONDS


def _look_at_requests(campaign: Campaign, found: dict[str, list[str]]) -> None:
    """Check that each reported run exists, and that there are no more runs than requests."""
    labels = Counter(run.record().effective.label for run in campaign.runs)
    there = {run.run_id for run in campaign.runs}
    for asked in campaign.asked:
        if asked.told is not None and asked.told not in there:
            found["lost"].append(f"{asked.told}: accepted in the chat, and not on the disk")
        if labels[asked.label] > asked.tries:
            found["doubled"].append(f"{asked.label}: asked {asked.tries} times, accepted {labels[asked.label]} times")


def _look_at_discord(campaign: Campaign, found: dict[str, list[str]]) -> None:
    """Check the violations that local Discord recorded; an answer may be missing only if the bot was killed."""
    system = campaign.system
    of_calls = ("unanswered", "unresolved")
    found["violations"] += [
        f"{one.kind} {one.where}: {one.detail}" for one in system.server.violations if one.kind not in of_calls
    ]
    for call in system.calls:
        if (call.expired or call.is_unresolved) and not system.is_excused(call):
            found["violations"].append(f"{call.name}: {'unanswered' if call.expired else 'never filled'}")


def _figures(campaign: Campaign, statuses: Counter[str], resumed: int) -> dict[str, str]:
    system, runs = campaign.system, campaign.runs
    worker_kills = [kill for kill in campaign.kills if kill.kind == "worker SIGKILL"]
    taken_up = [(seconds, kill.run_id) for kill in worker_kills if (seconds := _taken_up(runs, kill)) is not None]
    slowest_seconds, slowest = max(taken_up, default=(0, ""))
    answers = [call.answered_seconds for call in system.calls if call.answered_seconds is not None]
    cardless = [run for run in runs if any(watcher.card is None for watcher in read_ledger(run).watchers)]
    by_itself = Counter(
        f"{process.name} ({one.code})"
        for process in (system.bot, *system.workers, system.valkey)
        for one in process.exits
        if one.is_by_itself
    )
    settled = "it did not" if campaign.settled_seconds is None else f"{campaign.settled_seconds:.1f} s"
    return {
        "faults": str(campaign.faults.total()),
        "runs": f"{len(runs)}: " + ", ".join(f"{number} {status}" for status, number in statuses.items()),
        "SIGKILLs that hit a run in progress": str(len(campaign.kills)),
        "runs that were resumed and compared, to the last bit": str(resumed),
        "settled after the last fault in": settled,
        "worker SIGKILL to the next child with the lock": f"{median(seconds for seconds, _ in taken_up):.1f} s in the"
        f" median of {len(taken_up)}, at most {slowest_seconds:.1f} s ({slowest})"
        if taken_up
        else "none",
        "answers to commands": f"{len(answers)} within {max(answers, default=0):.1f} s,"
        f" {sum(call.expired or call.is_unresolved for call in system.calls)} cut off",
        "told by the final message alone, while the bot was away": str(len(cardless)),
        "processes that ended by themselves": ", ".join(f"{name}: {n}" for name, n in by_itself.items()) or "none",
    }


def _taken_up(runs: Sequence[RunDirectory], kill: Kill) -> float | None:
    """Seconds from a kill to the next attempt of its run; None where another process had ended it."""
    for run in runs:
        if run.run_id == kill.run_id:
            starts = (event.ts.timestamp() for event in run.reader().read_new() if isinstance(event, JobStarted))
            return next((start - kill.at for start in starts if start > kill.at), None)
    return None
