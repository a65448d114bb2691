"""`mt demo`: the complete program on this machine, run and checked step by step.

The bot, its embedded Valkey and its worker use a local Discord, and a simulated person types the commands.
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
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from sysconfig import get_path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from local_discord.client import ClientRefusal
from local_discord.driver import LocalDiscord, shown_text
from local_discord.markdown import spans
from local_discord.state import StoredMessage, User
from local_discord.wire import number, text
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.settings import load_settings
from trainer.contracts.errors import AppError
from trainer.contracts.installation import BUNDLED_CORPORA, CHECKOUT
from trainer.contracts.units import loss_number
from trainer.services.embedded import die_with_parent
from trainer.system.python import python_command

TOKEN = "demo-token"  # noqa: S105
CORPUS = "demo"
MARGIN_NATS = 0.3
START_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 300.0, 300.0, 60.0
STANDSTILL_SECONDS = 300.0
"""A training without progress for so long has failed; one that goes on has all the time that the machine needs."""
PROMPT, TEXT = "Мен ", "Бүгін ауа райы жақсы."
_STYLES = {"block": "italic", "code": "cyan", "mention": "blue"}


class Failed(Exception):
    """Raised by a step with a wrong result."""


class Demo:
    """The steps in order, with their output."""

    def __init__(self, discord: LocalDiscord, console: Console, folder: Path) -> None:
        self._discord, self._console, self._folder = discord, console, folder
        self._person: User = discord.add_user("you")

    async def run(self) -> None:
        """Run all steps; raises Failed at the first wrong result."""
        started = time.monotonic()
        async with self._bot() as bot:
            await self._discord.synced(START_SECONDS)
            await self._discord.connected(START_SECONDS)
            self._passed("the bot is running, with an embedded Valkey and a worker")
            self._check_loss(await self._train())
            await self._ask("mt generate", {"prompt": PROMPT, "max_new_tokens": 80, "seed": 7})
            await self._ask("mt score", {"text": TEXT})
            await self._ask("mt status", {})
            stopping = time.monotonic()
            code = await _end(bot)
        if code != 0:
            raise Failed(f"The bot exited with code {code}.")
        self._passed(f"the bot and its services stopped in {time.monotonic() - stopping:.1f} s")
        if self._discord.violations:
            raise Failed(f"Violations of Discord's API: {self._discord.violations[:3]}")
        self._passed(f"{len(self._discord.requests)} requests, all valid by Discord's API description and limits")
        seconds = time.monotonic() - started
        saved = f"Cards and charts: {_shown(self._folder)}/"
        self._console.print(f"\n[bold green]All checks passed in {seconds:.0f} s.[/] {saved}", soft_wrap=True)
        mt = "mt" if CHECKOUT is None else _shown(Path(get_path("scripts"), "mt"))
        self._console.print(f"Next, train on a text of your own:  {mt} train FILE", soft_wrap=True)
        self._console.print(f"or set DISCORD__TOKEN and DISCORD__OWNER_ID in .env:  {mt} up", soft_wrap=True)

    async def _train(self) -> RunDirectory:
        await self._ask("mt train", {"corpus": CORPUS, "quick": True})
        [run] = RunStore(self._folder / "artifacts").all()
        channel = self._discord.dm_channel(self._person)
        card = await self._discord.wait_for_message(channel, timeout=ANSWER_SECONDS)
        await self._watch(run)
        ends = "Completed|Failed|Cancelled"
        final = await self._discord.wait_for_message(channel, ends, after=card, timeout=ANSWER_SECONDS)
        self._show(final)
        for index, message in enumerate((card, final)):
            for attachment in message.attachments:
                file = self._folder / f"{index}-{text(attachment['filename'])}"
                file.write_bytes(self._discord.read(attachment))
        if not list(self._folder.glob("*-loss.png")):
            raise Failed("No loss chart came with the messages.")
        self._passed(f"one card with its loss chart, edited {len(card.edit_seconds)} times, and one final message")
        return run

    async def _watch(self, run: RunDirectory) -> None:
        """Show a progress bar until the run has ended; raises Failed if it stands still."""
        follower, seen, moved = run.follow(), "", time.monotonic()
        now = TextColumn("{task.fields[now]}")
        with Progress(TextColumn("  "), BarColumn(), now, TimeElapsedColumn(), console=self._console) as bar:
            task = bar.add_task("", total=100, now="")
            while not follower.ended:
                status = follower.refresh()
                loss = "" if status.train_loss is None else f"loss {loss_number(status.train_loss, 'bits')} bits"
                where = f"{status.phase or status.status}, epoch {status.epoch} of {status.total_epochs}"
                bar.update(task, completed=status.progress, now=f"{where} {loss}")
                if f"{where}, step {status.step}" != seen:
                    seen, moved = f"{where}, step {status.step}", time.monotonic()
                elif time.monotonic() - moved > STANDSTILL_SECONDS:
                    raise Failed(f"The run has stood still for {STANDSTILL_SECONDS:.0f} s: {seen}.")
                await asyncio.sleep(0.1)

    def _check_loss(self, run: RunDirectory) -> None:
        """Check that the model beats the unigram entropy."""
        manifest = run.completed_manifest()
        test, unigram = manifest.metrics.test, unigram_entropy_nats(BUNDLED_CORPORA / f"{CORPUS}.txt")
        if test is None or unigram - test < MARGIN_NATS:
            raise Failed(f"The test loss {test} is not {MARGIN_NATS} nats under the unigram entropy {unigram:.3f}.")
        loss, less, entropy = (loss_number(nats, "bits") for nats in (test, unigram - test, unigram))
        self._passed(
            f"test loss {loss} bits per token (a character or a line end), {less} under the unigram entropy"
            f" ({entropy}), after {manifest.timings.train_seconds:.0f} s of training"
        )

    async def _ask(self, command: str, options: Mapping[str, str | int | float]) -> None:
        """Type a command and show its answer."""
        typed = " ".join(f"{name}:{value}" for name, value in options.items())
        self._console.print(f"\n[bold cyan]▶ /{command}[/] {typed}", highlight=False)
        call = await self._discord.slash(self._person, command, options)
        answer = await call.reply(ANSWER_SECONDS)
        self._show(answer)
        if not answer.embeds or "✋" in shown_text(answer.payload):
            raise Failed(f"/{command} was not answered.")
        self._passed(f"/{command} answered")

    @contextlib.asynccontextmanager
    async def _bot(self) -> AsyncIterator[Process]:
        """Run the bot as a process with its log in a file, and stop it at the end."""
        environment = {
            "DISCORD__TOKEN": TOKEN,
            "DISCORD__OWNER_ID": str(self._person.id),
            "DISCORD__API_BASE_URL": self._discord.api_base_url,
            "DISCORD__GATEWAY_URL": self._discord.gateway_url,
            "DISCORD__CDN_BASE_URL": self._discord.cdn_base_url,
            "APP__DATA_ROOT": str(self._folder / "data"),
            "APP__ARTIFACTS_ROOT": str(self._folder / "artifacts"),
            "HTTP__PORT": "0",
        }
        with (self._folder / "bot.log").open("wb") as log:
            bot = await asyncio.create_subprocess_exec(
                *(*die_with_parent(), *python_command("-m", "bot")),
                env={**os.environ, **environment},
                stdin=PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield bot
            finally:
                await _end(bot)

    def _show(self, message: StoredMessage) -> None:
        """Print a message's embeds."""
        for embed in message.embeds:
            style = f"#{number(embed.get('color'), 0xFFFFFF):06x}"
            title, _, body = shown_text({"embeds": [embed]}).partition("\n")
            panel = Panel(styled(body), title=styled(title), title_align="left", border_style=style, width=100)
            self._console.print(panel)

    def _passed(self, what: str) -> None:
        self._console.print(f"[green]✔[/] {what}", highlight=False, soft_wrap=True)


def styled(markdown: str, style: str = "") -> Text:
    """Return a text with styles instead of the marks of Discord's Markdown."""
    shown = Text(style=style)
    for span in spans(markdown):
        if span.kind == "bold":
            shown.append_text(styled(span.text, "bold"))
        else:
            shown.append(span.text, style=f"link {span.url}" if span.url else _STYLES.get(span.kind, ""))
    return shown


def unigram_entropy_nats(path: Path) -> float:
    """Return the unigram entropy of a text per symbol, with one symbol per line end."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    counts = Counter("\n".join([*lines, ""]))
    shares = [count / counts.total() for count in counts.values()]
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


def _shown(path: Path) -> str:
    """Return a path as it is short: below the working folder relative to it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


async def _run(console: Console, folder: Path) -> None:
    async with LocalDiscord(token=TOKEN) as discord:
        await Demo(discord, console, folder).run()


def main() -> int:
    """Run the demo: return 0, 1 for a failed step, 130 after Ctrl-C."""
    console = Console(highlight=False)
    folder = (load_settings().app.data_root / "demo").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        asyncio.run(_run(console, folder))
    except (Failed, TimeoutError, ClientRefusal, AppError) as error:
        console.print(f"[bold red]✘ {error}[/]  The bot's log is {_shown(folder)}/bot.log")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. The bot and its services have stopped.")
        return 130
    return 0


sys.exit(main())
