"""Draws messages of a conversation with the real bot into pictures-out/: python -m scripts.pictures [FOLDER].

The bot, its Valkey and its worker use a local Discord. A person types the commands; each picture is a message that
Discord has received from the bot.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from html import escape
from pathlib import Path

from local_discord import LocalDiscord, limits
from local_discord.client import OptionValue
from local_discord.state import Call, StoredMessage
from local_discord.wire import text
from scripts.message_picture import draw, form_html, message_html
from trainer.jobs.services import die_with_parent

TARGET = Path("pictures-out")
TOKEN = "picture-token"  # noqa: S105
PATIENCE_SECONDS = 600.0
Options = Mapping[str, OptionValue]


class Pictures:
    """A person's conversation with the bot, with a picture of each step."""

    def __init__(self, discord: LocalDiscord, target: Path) -> None:
        self._discord, self._target = discord, target
        self._person = discord.add_user("aigul")
        self._channel = discord.dm_channel(self._person)
        self._names = {str(self._person.id): self._person.name}

    @property
    def owner_id(self) -> int:
        return self._person.id

    async def draw_all(self) -> None:
        """Hold the conversation: train, follow the run, and use its model."""
        await self._discord.synced(PATIENCE_SECONDS)
        await self._discord.connected(PATIENCE_SECONDS)
        await self._ask("help", "mt help", {})
        await self._trained()
        await self._ask("runs", "mt runs", {})
        await self._ask("status", "mt status", {})
        await self._ask("score", "mt score", {"text": "Бүгін ауа райы жақсы."})
        await self._ask("report", "mt score", {"text": "Бүгін ауа райы жақсы.", "detail": "per_char"})
        generated = await self._ask("generate", "mt generate", {"prompt": "Мен ", "max_new_tokens": 80, "seed": 7})
        await self._press("generate-form", generated, "Edit…")
        await self._ask("mistake", "mt train", {"corpus": "demo", "init_from": "no-such-run"})

    async def _trained(self) -> None:
        """Train on the bundled text, with a picture of each state of the card."""
        await self._ask("train", "mt train", {"corpus": "demo", "name": "kazakh", "epochs": 10})
        card = await self._discord.wait_for_message(self._channel, timeout=PATIENCE_SECONDS)
        await self._edited(card, r"Training: kazakh(.|\n)*epoch ([2-9]|10)/")
        await self._message("training", card)
        final = await self._final("Completed", card)
        await self._message("completed", final)

    async def _final(self, state: str, card: StoredMessage) -> StoredMessage:
        return await self._discord.wait_for_message(self._channel, state, after=card, timeout=PATIENCE_SECONDS)

    async def _edited(self, message: StoredMessage, pattern: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._discord.wait_for_edit(message, pattern)

    async def _ask(self, name: str, command: str, options: Options) -> StoredMessage:
        """Type a command, and draw its answer."""
        call = await self._discord.slash(self._person, command, options)
        answer = await call.reply(PATIENCE_SECONDS)
        typed = " ".join(f"{option}:{value}" for option, value in options.items())
        if name:
            await self._message(name, answer, asked=f"{self._person.name} used <b>/{command}</b> {escape(typed)}")
        return answer

    async def _press(self, name: str, message: StoredMessage, label: str) -> Call:
        """Press a button by its label, and draw the form that it opens."""
        items = [item for _, item in limits.walk([*message.components])]
        [custom_id] = [text(item["custom_id"]) for item in items if text(item.get("label")) == label]
        call = await self._discord.click(self._person, message, custom_id)
        await asyncio.to_thread(draw, form_html(await call.form()), self._target / f"{name}.png")
        return call

    async def _message(self, name: str, message: StoredMessage, *, asked: str = "") -> None:
        html = message_html(message.payload, self._discord.read, asked=asked, names=self._names)
        await asyncio.to_thread(draw, html, self._target / f"{name}.png")
        print(f"{name}.png")


@contextlib.asynccontextmanager
async def running_bot(discord: LocalDiscord, folder: Path, owner_id: int) -> AsyncIterator[None]:
    """Run the bot as a process, and stop it at the end."""
    environment = {
        "DISCORD__TOKEN": TOKEN,
        "DISCORD__OWNER_ID": str(owner_id),
        "DISCORD__API_BASE_URL": discord.api_base_url,
        "DISCORD__GATEWAY_URL": discord.gateway_url,
        "DISCORD__CDN_BASE_URL": discord.cdn_base_url,
        "APP__DATA_ROOT": str(folder / "data"),
        "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
        "HTTP__PORT": "0",
    }
    bot = await asyncio.create_subprocess_exec(
        *(*die_with_parent(), sys.executable, "-m", "bot"),
        env={**os.environ, **environment},
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        bot.send_signal(signal.SIGTERM)
        await bot.wait()


async def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with LocalDiscord(token=TOKEN) as discord:
            pictures = Pictures(discord, target)
            async with running_bot(discord, Path(folder), pictures.owner_id):
                await pictures.draw_all()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
