"""A group of runs over seeds in the terminal: its runs, and mean, deviation, interval and range of their numbers."""

import asyncio
from collections.abc import Iterable

from rich.text import Text

from trainer.commands.connection import Installation, hint_name
from trainer.commands.terminal import EXIT_FAILED, Terminal
from trainer.contracts.groups import GroupNumber, GroupStatus
from trainer.contracts.intervals import Spread
from trainer.contracts.parameters import GroupPath, RunPath
from trainer.contracts.units import Unit
from trainer.lab.calls import GET_GROUP, GET_RUN
from trainer.reports.group_report import GROUP_NUMBERS, group_report
from trainer.reports.report_text import Reader


def show_group(group: GroupStatus, terminal: Terminal, *after: str) -> None:
    """Show the runs of a group and the spread of the numbers of those that have completed."""
    terminal.show_report(group, group_report(group), *map(Text, after))


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
    reader, (_, form) = Reader(unit), GROUP_NUMBERS[name]
    mean, least, most = (reader.number(one, form) for one in (found.mean, found.minimum, found.maximum))
    return mean if found.deviation is None else f"{mean} ± {reader.number(found.deviation, form)} ({least}–{most})"
