"""A bot with a finished run that answers inference requests, for tests of its commands."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from bot.session.client import Bot
from local_discord import LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.limits import walk
from local_discord.state import Call, StoredMessage, User
from local_discord.wire import number, text
from tests.support.bot import EPHEMERAL, TOKEN, read, running_bot, settings
from tests.support.inference import finished_run
from tests.support.lab import running_worker
from tests.support.waiting import ANSWER_SECONDS
from trainer.config.settings import LimitSettings


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
        limits: dict[str, object] = {"limits": LimitSettings(attachment_bytes=90_000, generate_max_new_tokens=100)}
        chosen = settings(self.root, self.discord, workers=workers, **rights).model_copy(
            update=limits | dict(groups or {})
        )
        async with running_bot(chosen, self.discord) as bot:
            yield bot

    async def ask(self, user: User, command: str, **options: str | int | float | Upload) -> StoredMessage:
        return await answer(await self.discord.slash(user, f"mt {command}", options))

    async def click(self, user: User, message: StoredMessage, label: str) -> StoredMessage:
        return await answer(await self.press(user, message, label))

    async def press(self, user: User, message: StoredMessage, label: str) -> Call:
        return await self.discord.click(user, message, buttons(message)[label])


@asynccontextmanager
async def place(root: Path) -> AsyncIterator[Place]:
    if not (root / "artifacts").exists():
        finished_run(root)
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        yield Place(server, root, *(server.add_user(name) for name in ("ana", "bob", "eve")))
        assert server.violations == []


async def answer(call: Call) -> StoredMessage:
    """The message that a person gets in the end; a first answer that is late is a violation."""
    await call.answered()
    await read(call)
    return call.followups[0] if call.followups else await call.reply()


def buttons(message: StoredMessage) -> dict[str, str]:
    """The custom ids of the buttons that can be pressed, by what stands on them."""
    found = (component for _, component in walk([*message.components]) if "label" in component)
    return {text(one["label"]): text(one["custom_id"]) for one in found if one.get("disabled") is not True}


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
