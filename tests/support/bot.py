"""The real bot on a local Discord, in this process or as a process of its own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import discord
import pytest

from bot.app import build
from bot.session.client import Bot
from local_discord import Choice, LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.state import Call, Channel, Guild, StoredMessage, User
from local_discord.wire import Json, number, rows, text
from tests.support.stories import Story, run_record
from tests.support.waiting import ANSWER_SECONDS, PATIENCE_SECONDS, until
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.events import InferenceCompleted
from trainer.lab.permissions import typed_command
from trainer.services.embedded import answering_server
from trainer.store import keys
from trainer.store.store import Store, connect

TOKEN = "test-token"  # noqa: S105
EPHEMERAL = 1 << 6
BUTTON = 2
FORM = 9  # the type of an answer that opens a form
AMBER, GREY, RED = 0xFAA61A, 0x95A5A6, 0xED4245
TEXT = "\n".join(f"the cat sat on mat {index % 7}" for index in range(120)).encode()


class Place(NamedTuple):
    """A bot on a Discord; ana owns it, bob may use it, eve may not."""

    discord: LocalDiscord
    bot: Bot
    root: Path
    ana: User
    bob: User
    eve: User

    def runs(self) -> list[Path]:
        return sorted((self.root / "artifacts").glob("models/*"))

    async def inference_requests(self) -> list[tuple[str, int | None]]:
        """Return the run and user of each completed inference request, by its events."""
        async with self.store() as store:
            entries: list[tuple[bytes, dict[bytes, bytes]]] = await store.redis.xrange(keys.EVENT_STREAM)
        told = [fields[b"event"] for _, fields in entries if b"inference.job.completed.v1" in fields[b"event"]]
        events = [InferenceCompleted.model_validate_json(event) for event in told]
        return [(event.job_id, event.user_id) for event in events]

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        address = await answering_server(self.bot.settings)
        assert address is not None
        store = await connect(address)
        try:
            yield store
        finally:
            await store.close()

    def story(self, user: User | None, name: str = "char_lstm-1", **changes: object) -> Story:
        """A run whose record has these changes."""
        return Story(self.root / "artifacts", changed(run_record(name, user_id=user and user.id), **changes))

    async def suggested(self, user: User, command: str, option: str, typed: str = "") -> list[Choice]:
        """The suggestions once the bot has seen what is there, for which it keeps nobody waiting who types."""
        await self.bot.lab.index.refresh()
        return await self.discord.autocomplete(user, typed_command(command).removeprefix("/"), option, typed)

    async def ask(
        self, user: User, command: str, options: Mapping[str, str | int | float | Upload] | None = None
    ) -> "Read":
        """Send a command and return its answer; a late first answer is a violation."""
        call = await self.discord.slash(user, typed_command(command).removeprefix("/"), options or {})
        await call.answered()
        return await read(call)

    async def reply(
        self,
        user: User,
        command: str,
        options: Mapping[str, str | int | float | Upload] | None = None,
        guild: Guild | None = None,
    ) -> StoredMessage:
        """Send a command and return the message that answers it."""
        typed = typed_command(command).removeprefix("/")
        return await (await self.discord.slash(user, typed, options or {}, guild=guild)).reply()

    async def click(
        self, user: User, message: StoredMessage, custom_id: str, values: list[str] | None = None
    ) -> "Read":
        """Press a button, or choose from a list, and return the answer."""
        return await read(await self.discord.click(user, message, custom_id, values))

    async def submit(self, opened_by: Call, values: Mapping[str, str]) -> "Read":
        """Send the form that a call has opened, and return the answer."""
        return await read(await self.discord.submit_modal(opened_by, values))

    async def message_with(self, user: User, *custom_ids: str) -> StoredMessage:
        """A direct message of the bot with these buttons."""
        return await with_buttons(self.discord, self.bot, self.discord.dm_channel(user), *custom_ids)

    async def message(self, user: User, pattern: str) -> StoredMessage:
        """The newest direct message to a person that matches, when it is there."""
        return await self.discord.wait_for_message(self.discord.dm_channel(user), pattern)


class Read(NamedTuple):
    text: str
    colour: int
    is_ephemeral: bool


def left(root: Path) -> list[Path]:
    """All files that the bot has left."""
    return [path for path in (root / "artifacts").rglob("*") if path.is_file()]


async def read(call: Call) -> Read:
    """The answer: the filled defer, or the follow-up that replaced it."""
    await until(lambda: bool(call.followups) or (call.original is not None and not call.original.is_loading))
    message = call.followups[0] if call.followups else await call.reply()
    flags = number(message.payload["flags"])
    return Read(shown_text(message.payload), number(message.embeds[0]["color"]), flags & EPHEMERAL != 0)


async def with_buttons(
    server: LocalDiscord, bot: Bot, channel: Channel, *custom_ids: str, lists: Mapping[str, str] = {}
) -> StoredMessage:
    """A message of the bot with these buttons, whatever stands in them, and lists in place of some, with an option."""
    view = discord.ui.View()
    for custom_id in custom_ids:
        odd: discord.ui.Item[discord.ui.View] = discord.ui.Button(label=custom_id[:80], custom_id=custom_id)
        if custom_id in lists:
            odd = discord.ui.Select(custom_id=custom_id, options=[discord.SelectOption(label=lists[custom_id])])
        view.add_item(odd)
    sent = await bot.get_partial_messageable(channel.id).send("Look!", view=view)
    return next(message for message in server.messages(channel) if message.id == sent.id)


async def is_allowed(call: Call) -> bool:
    """Return True unless the answer is a refusal for missing permissions; a form counts as allowed."""

    def is_answered() -> bool:
        one = call.original
        is_new = one is not None and not one.is_loading and one.versions[-1].at_seconds > call.created_seconds
        return is_new or bool(call.followups) or call.callback_type == FORM

    # at once: many calls wait here
    await call.changes.until(is_answered, PATIENCE_SECONDS, f"An answer to {call.name}")
    message = call.followups[0] if call.followups else call.original
    return message is None or "🔒 Forbidden" not in shown_text(message.payload)


def components(message: StoredMessage) -> list[Json]:
    """The buttons and lists of a message."""
    return [part for row in message.components for part in rows(row.get("components"))]


def labels(message: StoredMessage) -> list[str]:
    """The labels of the buttons and lists of a message."""
    return [text(one.get("label") or one["placeholder"]) for one in components(message)]


def buttons(message: StoredMessage) -> dict[str, str]:
    """The custom ids of the buttons that can be pressed, by label."""
    parts = [part for part in components(message) if part["type"] == BUTTON and part.get("disabled") is not True]
    return {text(part["label"]): text(part["custom_id"]) for part in parts}


def settings(root: Path, server: LocalDiscord, *, workers: int = 0, **changes: object) -> Settings:
    group: dict[str, object] = {
        "token": TOKEN,
        "api_base_url": server.api_base_url,
        "gateway_url": server.gateway_url,
        "cdn_base_url": server.cdn_base_url,
        "edit_interval_seconds": 1,
        **changes,
    }
    values: dict[str, object] = {
        "app": {"data_root": str(root / "data"), "artifacts_root": str(root / "artifacts")},
        "queue": {"embedded_workers": workers},
        "limits": {"attachment_bytes": 5000, "generate_max_new_tokens": 20},
        "http": {"port": None},
        "discord": group,
    }
    return Settings.model_validate(values)


@asynccontextmanager
async def discord_alone() -> AsyncIterator[LocalDiscord]:
    """A Discord for bots of which none may violate its rules."""
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        yield server
        assert server.violations == []


@asynccontextmanager
async def place(
    root: Path, *, workers: int = 0, groups: Mapping[str, object] = MappingProxyType({}), **changes: object
) -> AsyncIterator[Place]:
    async with discord_alone() as server:
        ana, bob, eve = (server.add_user(name) for name in ("ana", "bob", "eve"))
        rights: dict[str, object] = {"owner_id": ana.id, "allowed_user_ids": (bob.id,), **changes}
        chosen = changed(settings(root, server, workers=workers, **rights), **groups)
        async with running_bot(chosen, server) as bot:
            yield Place(server, bot, root, ana, bob, eve)


@asynccontextmanager
async def running_bot(chosen: Settings, server: LocalDiscord) -> AsyncIterator[Bot]:
    """A bot that is connected and has sent its commands; it ends with the block."""
    async with build(chosen) as bot:
        running = asyncio.create_task(bot.start(TOKEN))
        await server.connected()
        await server.synced()
        yield bot
    await asyncio.gather(running, return_exceptions=True)
    await server.disconnected()


def environment_on(server: LocalDiscord, **changes: str) -> dict[str, str]:
    """The environment of a bot of its own process, without a worker, whose owner has the id 7."""
    return {
        "DISCORD__TOKEN": TOKEN,
        "DISCORD__OWNER_ID": "7",
        "DISCORD__API_BASE_URL": server.api_base_url,
        "DISCORD__GATEWAY_URL": server.gateway_url,
        "QUEUE__EMBEDDED_WORKERS": "0",
        **changes,
    }


def log_of(root: Path) -> Path:
    """The log of `start_bot`, beside the folder of the bot."""
    return root.with_name(f"{root.name}.log")


async def start_bot(root: Path, environment: Mapping[str, str]) -> Process:
    """`python -m bot` with only these DISCORD__ settings, in a folder of its own."""
    kept = {name: value for name, value in os.environ.items() if "__" not in name and "DISCORD" not in name}
    source = str(Path(__file__).parents[2])
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, which may run the tests, is not for the bot
    with log_of(root).open("wb") as log:
        bot = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bot",
            cwd=root,
            env={**kept, "HTTP__PORT": "", "PYTHONPATH": source, **environment},
            stdout=log,
            stderr=PIPE,
        )
    signal.signal(signal.SIGHUP, ignored)
    _started.append(bot)
    return bot


@pytest.fixture(name="_no_bot_is_left", autouse=True)
def no_bot_is_left_fixture() -> Iterator[None]:
    """Kill the bots that a failed test has left."""
    yield
    for bot in _started:
        if bot.returncode is None:
            os.kill(bot.pid, signal.SIGKILL)
    _started.clear()


_started: list[Process] = []


async def ended(bot: Process, seconds: float = PATIENCE_SECONDS) -> tuple[int | None, str]:
    """The exit code and what was said on standard error, within a time."""
    async with asyncio.timeout(seconds):
        _, errors = await bot.communicate()
    return bot.returncode, errors.decode()


ORIGINAL = "/webhooks/{webhook_id}/{webhook_token}/messages/@original"
