"""A bot with a finished run that answers inference requests, for tests of its commands."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.session.client import Bot
from local_discord import LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.state import Call, StoredMessage, User
from local_discord.wire import number
from tests.support.bot import EPHEMERAL, buttons, discord_alone, read, running_bot, settings
from tests.support.inference import finished_run
from tests.support.lab import running_worker
from tests.support.redis_servers import address
from trainer.config.settings import LimitSettings
from trainer.contracts.base import changed
from trainer.lab.permissions import typed_command
from trainer.store.store import Store, connect


class Place(NamedTuple):
    """A Discord with a finished run; ana owns the bot, bob may use it, eve may not."""

    discord: LocalDiscord
    root: Path
    ana: User
    bob: User
    eve: User

    @asynccontextmanager
    async def bot(
        self, *, workers: int = 1, groups: Mapping[str, object] | None = None, **changes: object
    ) -> AsyncIterator[Bot]:
        """A bot with changed settings of Discord, and other groups of settings."""
        rights: dict[str, object] = {"owner_id": self.ana.id, "allowed_user_ids": (self.bob.id,), **changes}
        limits = LimitSettings(attachment_bytes=90_000, generate_max_new_tokens=100)
        chosen = settings(self.root, self.discord, workers=workers, **rights)
        chosen = changed(chosen, **{"limits": limits, **(groups or {})})
        async with running_bot(chosen, self.discord) as bot:
            yield bot

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The server of the bot."""
        store = await connect(address(self.root))
        try:
            yield store
        finally:
            await store.close()

    async def ask(self, user: User, command: str, **options: str | int | float | Upload) -> StoredMessage:
        return await answer(await self.discord.slash(user, typed_command(command)[1:], options))

    async def click(self, user: User, message: StoredMessage, label: str) -> StoredMessage:
        return await answer(await self.press(user, message, label))

    async def press(self, user: User, message: StoredMessage, label: str) -> Call:
        return await self.discord.click(user, message, buttons(message)[label])


@asynccontextmanager
async def place(root: Path) -> AsyncIterator[Place]:
    if not (root / "artifacts").exists():
        finished_run(root)
    async with discord_alone() as server:
        yield Place(server, root, *(server.add_user(name) for name in ("ana", "bob", "eve")))


async def answer(call: Call) -> StoredMessage:
    """The message that a person gets in the end; a first answer that is late is a violation."""
    await call.answered()
    await read(call)
    return call.followups[0] if call.followups else await call.reply()


def said(message: StoredMessage) -> str:
    return shown_text(message.payload)


def is_hidden(message: StoredMessage) -> bool:
    return number(message.payload["flags"]) & EPHEMERAL != 0


@pytest.fixture(scope="session", name="answers")
def answers_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run and a worker, for all tests that add no run."""
    root = tmp_path_factory.mktemp("answers")
    finished_run(root)
    with running_worker(root):
        yield root
