"""Draws the pictures of docs/discord.md from a conversation with the real bot: python -m scripts.pictures [FOLDER].

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
from trainer.artifacts.runs import RunStore
from trainer.jobs.services import die_with_parent

TARGET = Path("docs/pictures")
TOKEN = "picture-token"  # noqa: S105
PATIENCE_SECONDS = 600.0
TEXT = "Бүгін ауа райы жақсы."
Options = Mapping[str, OptionValue]


class Pictures:
    """A person's conversation with the bot, with a picture of each step."""

    def __init__(self, discord: LocalDiscord, target: Path, artifacts: Path) -> None:
        self._discord, self._target = discord, target
        self._runs = RunStore(artifacts)
        self._person = discord.add_user("aigul")
        self._channel = discord.dm_channel(self._person)
        self._names = {str(self._person.id): self._person.name}

    @property
    def owner_id(self) -> int:
        return self._person.id

    async def draw_all(self) -> None:
        """Hold the conversation: train, watch, use and compare a model, fail, and run an experiment."""
        await self._discord.synced(PATIENCE_SECONDS)
        await self._discord.connected(PATIENCE_SECONDS)
        await self._ask("help", "mt help", {})
        settings = await self._discord.slash(self._person, "mt settings", {})
        await self._form("settings", settings)
        await self._ask("train", "mt train", {"corpus": "demo", "name": "kazakh", "epochs": 10})
        await self._trained("kazakh", "training", "completed")
        await self._ask("score", "mt score", {"text": TEXT})
        await self._ask("report", "mt score", {"text": TEXT, "detail": "per_char"})
        generated = await self._ask("generate", "mt generate", {"prompt": "Мен ", "max_new_tokens": 80, "seed": 7})
        await self._press("generate-form", generated, "Edit…")
        await self._ask("predict", "mt predict", {"text": "Бүгін ауа рай"})
        await self._ask("eval", "mt eval", {"split": "validation"}, until="Test|Loss|nats")
        await self._ask("", "mt train", {"corpus": "demo", "name": "tiny", "size": "tiny", "epochs": 3})
        tiny = await self._trained("tiny", "", "")
        first, second = (run.run_id for run in self._runs.all())
        await self._ask("compare", "mt compare", {"a": second, "b": first})
        await self._ask("runs", "mt runs", {})
        await self._ask("", "mt train", {"corpus": "demo", "name": "cancelled", "epochs": 50})
        await self._ask("queue", "mt queue", {})
        await self._cancelled(tiny)
        await self._ask("mistake", "mt train", {"corpus": "demo", "init_from": "no-such-run"})
        await self._ask("corpus", "mt corpus show", {"corpus": "demo"})
        await self._experiment()

    async def _trained(self, name: str, training: str, completed: str) -> StoredMessage:
        """Follow a run to its end, with a picture of its card and of its final message."""
        card = await self._message_of(f"{name}")
        if training:
            await self._edited(card, "epoch ([2-9]|10)/")
            await self._draw(training, card)
        final = await self._message_of(f"Completed: {name}", after=card)
        if completed:
            await self._draw(completed, final)
        return final

    async def _cancelled(self, after: StoredMessage) -> None:
        card = await self._message_of("cancelled", after=after)
        await self._edited(card, "Training")
        run = self._runs.all()[0]
        await self._ask("", "mt cancel", {"run": run.run_id})
        await self._draw("cancelled", await self._message_of("Cancelled", after=card))

    async def _experiment(self) -> None:
        answer = await self._ask("", "mt experiment start", {"recipe": "smoke"})
        card = await self._message_of("experiment", after=answer)
        await self._edited(card, "Running")
        await self._draw("experiment-running", card)
        await self._draw("experiment", await self._message_of("Completed: experiment", after=card))

    async def _message_of(self, pattern: str, *, after: StoredMessage | None = None) -> StoredMessage:
        return await self._discord.wait_for_message(self._channel, pattern, after=after, timeout=PATIENCE_SECONDS)

    async def _edited(self, message: StoredMessage, pattern: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._discord.wait_for_edit(message, pattern)

    async def _ask(self, name: str, command: str, options: Options, *, until: str = "") -> StoredMessage:
        """Type a command, and draw its answer, once it has the text `until`."""
        call = await self._discord.slash(self._person, command, options)
        answer = await call.reply(PATIENCE_SECONDS)
        if until:
            await self._discord.wait_for_edit(answer, until)
        typed = " ".join(f"{option}:{value}" for option, value in options.items())
        if name:
            await self._draw(name, answer, asked=f"{self._person.name} used <b>/{command}</b> {escape(typed)}")
        return answer

    async def _press(self, name: str, message: StoredMessage, label: str) -> None:
        """Press a button by its label, and draw the form that it opens."""
        items = [item for _, item in limits.walk([*message.components])]
        [custom_id] = [text(item["custom_id"]) for item in items if text(item.get("label")) == label]
        await self._form(name, await self._discord.click(self._person, message, custom_id))

    async def _form(self, name: str, call: Call) -> None:
        await asyncio.to_thread(draw, form_html(await call.form()), self._target / f"{name}.png")

    async def _draw(self, name: str, message: StoredMessage, *, asked: str = "") -> None:
        html = message_html(message.payload, self._discord.read, asked=asked, names=self._names)
        await asyncio.to_thread(draw, html, self._target / f"{name}.png")
        print(f"{name}.png", flush=True)


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
            pictures = Pictures(discord, target, Path(folder) / "artifacts")
            async with running_bot(discord, Path(folder), pictures.owner_id):
                await pictures.draw_all()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
