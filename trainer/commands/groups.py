"""A group of runs over seeds in the terminal: its runs, and mean, deviation, interval and range of their numbers."""

import asyncio
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from trainer.commands.connection import Installation
from trainer.commands.terminal import EXIT_FAILED, Listing, Terminal
from trainer.contracts.groups import GroupNumber, GroupStatus
from trainer.contracts.intervals import Spread
from trainer.contracts.runs import describe_unknown, has_unknown_text
from trainer.contracts.wording import counted

_TITLES: dict[GroupNumber, str] = {
    "train_loss": "training, nats per token",
    "best_val_loss": "best validation, nats per token",
    "best_val_bits_per_char": "best validation, bits per character",
    "test_loss": "test, nats per token",
    "bits_per_char": "test, bits per character",
    "test_perplexity": "test, perplexity",
    "auc": "area under the training loss curve",
}


def show_group(group: GroupStatus, terminal: Terminal, *after: str) -> None:
    """Show the runs of a group and the spread of the numbers of those that have completed."""
    titles = ("run", "seed", "status", "progress", "best validation", "test")
    members = [
        (one.run_id, str(one.seed), one.status, f"{one.progress:.0f} %", _loss(one.best_val_loss), _loss(one.test_loss))
        for one in group.members
    ]
    head = Text(f"{group.group_id}: {group.status}. {group.message}")
    parts: list[RenderableType] = [head, Listing([titles, *members])]
    if group.numbers:
        rows = [_row(title, group.numbers[name]) for name, title in _TITLES.items() if name in group.numbers]
        parts.append(Listing([(f"{counted(group.n_completed, 'run')}", "mean", "sd", "95 % interval", "range"), *rows]))
    if (share := group.unknown_char_share) is not None and has_unknown_text(share):
        parts.append(Text(f"unknown: {describe_unknown(share)}"))
    parts += [Text(f"{one.run_id}: {one.message}") for one in group.of_state("failed")]
    spaced = [part for one in parts for part in (one, Text())]
    terminal.show(group, *spaced[:-1], *map(Text, after))


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _row(title: str, found: Spread) -> tuple[str, ...]:
    interval = "" if found.low is None or found.high is None else f"{found.low:.4f} to {found.high:.4f}"
    deviation = "" if found.deviation is None else f"{found.deviation:.4f}"
    return title, f"{found.mean:.4f}", deviation, interval, f"{found.minimum:.4f} to {found.maximum:.4f}"


async def follow_group_to_end(group_id: str, terminal: Terminal, installation: Installation) -> int:
    """Show the progress of all runs of a group until they have ended, then its numbers; return the exit code."""
    group = await installation.group(group_id)
    async with asyncio.TaskGroup() as following:
        for member in group.members:
            following.create_task(_follow(member.run_id, terminal, installation))
    group = await installation.group(group_id)
    show_group(group, terminal, *_next(group))
    return 0 if group.n_completed == len(group.members) else EXIT_FAILED


async def _follow(run_id: str, terminal: Terminal, installation: Installation) -> None:
    async for status in installation.follow(run_id):
        terminal.progress(status)


def _next(group: GroupStatus) -> Iterable[str]:
    yield f"next: mt compare {group.group_id} OTHER   ·   mt status {group.group_id}"
    if group.of_state("failed"):
        yield f"`mt resume {group.group_id}` resumes its failed runs."


def short_spread(found: Spread | None, digits: int = 3) -> str:
    """Return a mean with its deviation and range in a few characters; empty if it is not known."""
    if found is None:
        return ""
    deviation = "" if found.deviation is None else f" ± {found.deviation:.{digits}f}"
    several = "" if found.deviation is None else f" ({found.minimum:.{digits}f}–{found.maximum:.{digits}f})"
    return f"{found.mean:.{digits}f}{deviation}{several}"
