"""Each interaction gets its first answer while disk and Redis answer nothing: the bot defers first, then works."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

from bot.app import BUTTONS
from bot.commands.help import all_commands
from local_discord import Choice, Upload
from local_discord.client import OptionValue, find_command
from local_discord.limits import MESSAGE_MENU
from local_discord.state import Call, StoredMessage
from local_discord.wire import Json, number, rows, text
from tests.integration.test_command_permissions import DETAILS, MAX_BUTTONS, RUN
from tests.support import processes
from tests.support.bot import FORM, Place, place, read, with_buttons
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.runs import manifest_of

_THREADS = 100
"""More than the bot has for work on the disk."""
_MESSAGE, _DEFERRED, _DEFERRED_EDIT = 4, 5, 6
"""Types of a first answer, besides a form."""


@asynccontextmanager
async def hanging(root: Path) -> AsyncIterator[None]:
    """Let no work on the disk begin, and let Redis answer nothing."""
    release, loop = Event(), asyncio.get_running_loop()
    servers = processes(root, "valkey")
    assert servers
    hung = [loop.run_in_executor(None, release.wait) for _ in range(_THREADS)]
    try:
        for server in servers:
            os.kill(server.pid, signal.SIGSTOP)
        yield
    finally:
        for server in servers:
            os.kill(server.pid, signal.SIGCONT)
        release.set()
        await asyncio.gather(*hung)


def required(here: Place, options: Mapping[str, Json]) -> dict[str, OptionValue]:
    """A value for each option that a command needs."""
    values: dict[int, OptionValue] = {3: RUN, 4: 1, 5: True, 6: here.bob, 10: 1.0, 11: Upload("a.txt", b"a b c\n")}
    found: dict[str, OptionValue] = {}
    for name, option in options.items():
        if option.get("required") is True:
            choices = rows(option.get("choices"))
            found[name] = text(choices[0]["value"]) if choices else values[number(option["type"])]
    return found


async def test_first_answer__of_all_commands_buttons_menus_and_suggestions_waits_for_no_disk(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        story = here.story(here.ana, RUN)
        story.run.write_manifest(manifest_of(story.record, "completed"))
        guild = here.discord.add_guild("lab", [here.ana])
        runs = {action: "q" if action in ("runs", "runspage") else RUN for action in sorted(BUTTONS)}
        ids = [f"mt:{action}:{run}" for action, run in runs.items()]
        ids = [f"{one}:{DETAILS[action]}" if action in DETAILS else one for action, one in zip(runs, ids, strict=True)]
        channel = here.discord.dm_channel(here.ana)
        messages = list[tuple[StoredMessage, str]]()
        for start in range(0, len(ids), MAX_BUTTONS):
            shown = ids[start : start + MAX_BUTTONS]
            message = await with_buttons(here.discord, here.bot, channel, *shown)
            messages += [(message, custom_id) for custom_id in shown]
        said = here.discord.say(here.ana, channel, "a b c", Upload("lines.txt", b"a\n"))
        await here.bot.lab.index.refresh()
        first, typed = dict[str, Call](), list[Coroutine[None, None, list[Choice]]]()
        async with hanging(tmp_path):
            for command in all_commands(here.bot):
                name = command.qualified_name
                options = find_command(here.discord.commands, name).options
                of_guild = guild if name.startswith("mt-admin") else None
                values = required(here, options)
                first[name] = await here.discord.slash(here.ana, name, values, guild=of_guild)
                typed += [
                    here.discord.autocomplete(here.ana, name, option, "", PATIENCE_SECONDS, guild=of_guild)
                    for option, about in options.items()
                    if about.get("autocomplete") is True
                ]
            for message, custom_id in messages:
                first[custom_id] = await here.discord.click(here.ana, message, custom_id)
            for menu in [text(one["name"]) for one in here.discord.commands if one["type"] == MESSAGE_MENU]:
                first[menu] = await here.discord.choose(here.ana, said, menu)
            await asyncio.gather(*typed)
            for name, call in first.items():
                await call.answered(PATIENCE_SECONDS)
                assert call.callback_type in (_MESSAGE, _DEFERRED, _DEFERRED_EDIT, FORM), name
        kinds = {name: call.callback_type for name, call in first.items()}
        assert kinds["mt runs"] == kinds["mt status"] == _DEFERRED
        assert {kinds[name] for name in ("mt score", "mt generate", "mt settings", "mt-admin delete")} == {FORM}
        late = await read(first["mt annotate"])  # its form shows the note, which is on the disk
        assert late.is_ephemeral and "the form could not be opened in time. Try again." in late.text
