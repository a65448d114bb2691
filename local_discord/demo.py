"""`mt demo`: the complete program on this machine, run and checked step by step.

The bot, its embedded Valkey and its worker use a local Discord, and a simulated person types the commands. With
DISCORD__TOKEN, the bot uses the real Discord, and you type.
"""

import asyncio
import contextlib
import math
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from local_discord.client import ClientRefusal
from local_discord.driver import LocalDiscord, shown_text
from local_discord.state import Call, StoredMessage, User
from local_discord.wire import rows, text
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import Settings, load_settings
from trainer.contracts.errors import AppError
from trainer.data.corpora import BUNDLED
from trainer.jobs.services import die_with_parent

OUTPUT = Path("demo-out")
CORPUS = "demo"
MARGIN_NATS = 0.3
START_SECONDS, TRAIN_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 300.0, 600.0, 300.0, 60.0
PROMPT, TEXT = "Мен ", "Бүгін ауа райы жақсы."


class Failed(Exception):
    """Raised by a step with a wrong result."""


class Demo:
    """The steps in order, with their output."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._on_real_discord = settings.discord.token is not None
        self._folder = OUTPUT.resolve()
        self._runs = RunStore(self._folder / "artifacts")

    async def run(self) -> None:
        """Run all steps; raises Failed at the first wrong result."""
        if self._on_real_discord:
            await self._on_discord()
        else:
            await self._on_this_machine()
        seconds = time.monotonic() - self._started
        self._console.print(f"\n[bold green]All checks passed in {seconds:.0f} s.[/] Cards and charts: {OUTPUT}/")
        self._console.print("Next: put a bot token and your user id into .env (see .env.example) and run  make up")
        self._console.print("      train on a text of your own:  mt train --corpus PATH   ·   tests:  make test")

    async def _on_this_machine(self) -> None:
        async with LocalDiscord(token="demo-token") as discord:  # noqa: S106
            person = discord.add_user("you")
            environment = {
                "DISCORD__TOKEN": "demo-token",
                "DISCORD__OWNER_ID": str(person.id),
                "DISCORD__API_BASE_URL": discord.api_base_url,
                "DISCORD__GATEWAY_URL": discord.gateway_url,
                "DISCORD__CDN_BASE_URL": discord.cdn_base_url,
            }
            async with self._bot(environment) as bot:
                await discord.synced(START_SECONDS)
                await discord.connected(START_SECONDS)
                self._passed("the bot is running, with an embedded Valkey and a worker")
                run = await self._train(discord, person)
                self._check_loss(run)
                await self._ask(discord, person, "mt generate", {"prompt": PROMPT, "max_new_tokens": 80, "seed": 7})
                await self._ask(discord, person, "mt score", {"text": TEXT})
                await self._ask(discord, person, "mt status", {})
                await self._stop(bot)
            if discord.violations:
                raise Failed(f"Violations of Discord's API: {discord.violations[:3]}")
            self._passed(f"{len(discord.requests)} requests, all valid by Discord's API description and limits")

    async def _train(self, discord: LocalDiscord, person: User) -> RunDirectory:
        call = await self._type(discord, person, "mt train", {"corpus": CORPUS})
        self._show(await call.reply())
        [run] = self._runs.all()
        channel = discord.dm_channel(person)
        card = await discord.wait_for_message(channel, timeout=ANSWER_SECONDS)
        await self._watch(run)
        ends = "Completed|Failed|Cancelled"
        final = await discord.wait_for_message(channel, ends, after=card, timeout=ANSWER_SECONDS)
        self._show(final)
        for number, message in enumerate((card, final)):
            for attachment in message.attachments:
                (self._folder / f"{number}-{text(attachment['filename'])}").write_bytes(discord.read(attachment))
        edits = len(card.versions) - 1
        if not list(self._folder.glob("*-loss.png")):
            raise Failed("No loss chart came with the messages.")
        self._passed(f"one card with its loss chart, edited {edits} times, and one final message")
        return run

    async def _watch(self, run: RunDirectory) -> None:
        """Show a progress bar until the run has ended."""
        follower = run.follow()
        now = TextColumn("{task.fields[now]}")
        with Progress(TextColumn("  "), BarColumn(), now, TimeElapsedColumn(), console=self._console) as bar:
            task = bar.add_task("", total=100, now="")
            async with asyncio.timeout(TRAIN_SECONDS):
                while not follower.ended:
                    status = follower.refresh()
                    loss = "" if status.train_loss is None else f"loss {status.train_loss:.3f}"
                    epoch = f"epoch {status.epoch}/{status.total_epochs}"
                    bar.update(task, completed=status.progress, now=f"{epoch} {loss}")
                    await asyncio.sleep(0.1)
            bar.update(task, completed=follower.refresh().progress)

    def _check_loss(self, run: RunDirectory) -> None:
        """Check that the model beats the unigram entropy."""
        manifest = run.completed_manifest()
        test, unigram = manifest.metrics.test, unigram_entropy_nats(BUNDLED / f"{CORPUS}.txt")
        if test is None or unigram - test < MARGIN_NATS:
            raise Failed(f"The test loss {test} is not {MARGIN_NATS} nats under the unigram entropy {unigram:.3f}.")
        seconds = manifest.timings.train_seconds
        self._passed(
            f"test loss {test:.3f} nats per character, {unigram - test:.2f} under the unigram entropy"
            f" ({unigram:.3f}), after {seconds:.0f} s of training"
        )

    async def _ask(
        self, discord: LocalDiscord, person: User, command: str, options: dict[str, str | int | float]
    ) -> None:
        call = await self._type(discord, person, command, options)
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await call.reply()
        self._show(answer)
        if call.original is None or not rows(answer.payload.get("embeds")) or "✋" in shown_text(answer.payload):
            raise Failed(f"/{command} was not answered.")
        self._passed(f"/{command} answered")

    async def _type(
        self, discord: LocalDiscord, person: User, command: str, options: dict[str, str | int | float]
    ) -> Call:
        typed = " ".join(f"{name}:{value}" for name, value in options.items())
        self._console.print(f"\n[bold cyan]▶ /{command}[/] {typed}", highlight=False)
        call = await discord.slash(person, command, options)
        await call.answered()
        return call

    async def _on_discord(self) -> None:
        async with self._bot({}) as bot:
            self._console.print(f"The bot is starting. Write on Discord:  [bold cyan]/mt train corpus:{CORPUS}[/]")
            while not self._runs.all():
                if bot.returncode is not None:
                    raise Failed("The bot stopped. Its output above has the reason.")
                await asyncio.sleep(0.5)
            run = self._runs.all()[0]
            await self._watch(run)
            self._check_loss(run)
            self._console.print("The result is in your direct messages. Try /mt generate and /mt score there.")
            await self._stop(bot)

    @contextlib.asynccontextmanager
    async def _bot(self, environment: dict[str, str]) -> AsyncIterator[Process]:
        """Run the bot as a process with its log in a file, and stop it at the end."""
        folders = {"APP__DATA_ROOT": str(self._folder / "data"), "APP__ARTIFACTS_ROOT": str(self._folder / "artifacts")}
        with (self._folder / "bot.log").open("wb") as log:
            bot = await asyncio.create_subprocess_exec(
                *die_with_parent(),
                sys.executable,
                "-m",
                "bot",
                env={**os.environ, **folders, **environment},
                stdin=PIPE,
                stdout=None if self._on_real_discord else log,
                stderr=None if self._on_real_discord else log,
                start_new_session=True,
            )
            try:
                yield bot
            finally:
                await _end(bot)

    async def _stop(self, bot: Process) -> None:
        started = time.monotonic()
        code = await _end(bot)
        if code != 0:
            raise Failed(f"The bot exited with code {code}.")
        self._passed(f"the bot and its services stopped in {time.monotonic() - started:.1f} s")

    def _show(self, message: StoredMessage) -> None:
        """Print a message's embeds."""
        for embed in rows(message.payload.get("embeds")):
            colour = embed.get("color")
            style = f"#{colour:06x}" if isinstance(colour, int) else "white"
            title, _, body = shown_text({"embeds": [embed]}).partition("\n")
            self._console.print(Panel(Text(body), title=Text(title), title_align="left", border_style=style, width=100))

    def _passed(self, what: str) -> None:
        self._console.print(f"[green]✔[/] {what}", highlight=False)


def unigram_entropy_nats(path: Path) -> float:
    """Return the unigram entropy of a text per symbol, with one symbol per line end."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    counts = Counter("".join(lines))
    total = sum(counts.values()) + len(lines)
    shares = [count / total for count in (*counts.values(), len(lines))]
    return -sum(share * math.log(share) for share in shares)


async def _end(bot: Process) -> int:
    if bot.returncode is None:
        bot.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            return await bot.wait()
    except TimeoutError:
        os.killpg(bot.pid, signal.SIGKILL)
        return await bot.wait()


def _clean(folder: Path) -> None:
    """Empty the output folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def main() -> int:
    """Run the demo: return 0, 1 for a failed step, 130 after Ctrl-C."""
    console = Console(highlight=False)
    _clean(OUTPUT)
    try:
        asyncio.run(Demo(load_settings(), console).run())
    except (Failed, TimeoutError, ClientRefusal, AppError) as error:
        console.print(f"[bold red]✘ {str(error) or 'A step timed out.'}[/]  The bot's log is {OUTPUT}/bot.log")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. The bot and its services have stopped.")
        return 130
    return 0


sys.exit(main())
