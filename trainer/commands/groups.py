"""A group of runs over seeds in the terminal: its runs, and mean, deviation, interval and range of their numbers."""

import asyncio
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from trainer.commands.connection import Installation, hint_name
from trainer.commands.terminal import EXIT_FAILED, Listing, Terminal
from trainer.contracts.groups import GroupNumber, GroupStatus
from trainer.contracts.intervals import Spread
from trainer.contracts.parameters import GroupPath, RunPath
from trainer.contracts.runs import describe_unknown, has_unknown_text
from trainer.contracts.units import (
    LOSS_DIGITS,
    PERPLEXITY_DIGITS,
    SURPRISAL_DIGITS,
    Unit,
    bits_in_unit,
    in_unit,
    loss_number,
)
from trainer.contracts.wording import counted
from trainer.lab.calls import GET_GROUP, GET_RUN

_TITLES: dict[GroupNumber, str] = {
    "train_loss": "training, {unit} per token",
    "best_val_loss": "best validation, {unit} per token",
    "best_val_bits_per_char": "best validation, {unit} per character",
    "test_loss": "test, {unit} per token",
    "bits_per_char": "test, {unit} per character",
    "test_perplexity": "test, perplexity",
    "auc": "area under the training loss curve, {unit} · steps",
}


def show_group(group: GroupStatus, terminal: Terminal, *after: str) -> None:
    """Show the runs of a group and the spread of the numbers of those that have completed."""
    unit = terminal.unit
    titles = ("run", "seed", "status", "progress", f"best validation ({unit})", "test")
    members = [
        (
            *(one.run_id, str(one.seed), one.status, f"{one.progress:.0f} %"),
            *("" if loss is None else loss_number(loss, unit) for loss in (one.best_val_loss, one.test_loss)),
        )
        for one in group.members
    ]
    head = Text(f"{group.group_id}: {group.status}. {group.message}")
    parts: list[RenderableType] = [head, Listing([titles, *members])]
    if group.numbers:
        rows = [_row(name, group.numbers[name], unit) for name in _TITLES if name in group.numbers]
        parts.append(Listing([(f"{counted(group.n_completed, 'run')}", "mean", "sd", "95 % interval", "range"), *rows]))
    if (share := group.unknown_char_share) is not None and has_unknown_text(share):
        parts.append(Text(f"unknown: {describe_unknown(share)}"))
    parts += [Text(f"{one.run_id}: {one.message}") for one in group.of_state("failed")]
    spaced = [part for one in parts for part in (one, Text())]
    terminal.show(group, *spaced[:-1], *map(Text, after))


def _row(name: GroupNumber, found: Spread, unit: Unit) -> tuple[str, ...]:
    mean, deviation, low, high, least, most = _numbers(name, found, unit)
    interval = f"{low} to {high}" if low and high else ""
    return _TITLES[name].format(unit=unit), mean, deviation, interval, f"{least} to {most}"


def _numbers(name: GroupNumber, found: Spread, unit: Unit) -> list[str]:
    """Return mean, deviation, the ends of the interval and the range in a unit; an unknown number is empty."""
    digits = {"test_perplexity": PERPLEXITY_DIGITS, "auc": SURPRISAL_DIGITS}.get(name, LOSS_DIGITS)
    scale = _scale(name, unit)
    numbers = (found.mean, found.deviation, found.low, found.high, found.minimum, found.maximum)
    return ["" if number is None else f"{number * scale:.{digits}f}" for number in numbers]


def _scale(name: GroupNumber, unit: Unit) -> float:
    """Return the number by which a figure of runs is multiplied to have it in a unit."""
    if name == "test_perplexity":
        return 1.0
    is_in_bits = name in ("bits_per_char", "best_val_bits_per_char")
    return bits_in_unit(1.0, unit) if is_in_bits else in_unit(1.0, unit)


async def follow_group_to_end(group_id: str, terminal: Terminal, installation: Installation) -> int:
    """Show the progress of all runs of a group until they have ended, then its numbers; return the exit code."""
    path = GroupPath(group_id=group_id)
    group = await installation.call(GET_GROUP, path)
    async with asyncio.TaskGroup() as following:
        for member in group.members:
            following.create_task(_follow(member.run_id, terminal, installation))
    group = await installation.call(GET_GROUP, path)
    show_group(group, terminal, *_next(group, await hint_name(group_id, group.label, installation)))
    return 0 if group.n_completed == len(group.members) else EXIT_FAILED


async def _follow(run_id: str, terminal: Terminal, installation: Installation) -> None:
    async for status in installation.follow(GET_RUN, RunPath(run_id=run_id)):
        terminal.progress(status)


def _next(group: GroupStatus, name: str) -> Iterable[str]:
    yield f"next: mt compare {name} OTHER   ·   mt status {name}"
    if group.of_state("failed"):
        yield f"`mt resume {name}` resumes its failed runs."


def short_spread(name: GroupNumber, found: Spread | None, unit: Unit) -> str:
    """Return a mean in a unit with its deviation and range in a few characters; empty if it is not known."""
    if found is None:
        return ""
    mean, deviation, _, _, least, most = _numbers(name, found, unit)
    return f"{mean} ± {deviation} ({least}–{most})" if deviation else mean
