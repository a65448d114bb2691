"""Latency of the bot for twenty users and two hundred different commands at once, while a training runs.

    python -m benchmarks.many_users

Runs the real bot with its embedded Valkey and worker on a local Discord that checks every request. The calls are those
of `benchmarks.command_mix`. Prints the time to the first response and to the first content, and exits 1 if a goal is
missed. The first content of a long command is a message that its work has been accepted or runs; such commands are
marked with `*`.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.command_mix import BUTTONS, LONG_WORK, PRESSING_USERS, SENTENCES, Options, Prepared, Typed, calls
from local_discord import LocalDiscord, Upload
from local_discord.driver import shown_text
from local_discord.limits import walk
from local_discord.state import Call, Guild, StoredMessage, User
from local_discord.wire import text
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerStore

USERS, QUEUED = 20, 8
FIRST_ANSWER_SECONDS, CONTENT_SECONDS = 1.0, 6.0
PATIENCE_SECONDS = 300.0
TOKEN = "benchmark-token"  # noqa: S105
_DEFERRED_EDIT, _FORM = 6, 9  # types of a first answer


class Answered(NamedTuple):
    """Seconds from a call to its first response and to its content, and the text of the content."""

    name: str
    first_seconds: float
    content_seconds: float
    content: str

    @property
    def is_refusal(self) -> bool:
        return self.has_failed or any(sign in self.content for sign in ("✋", "🔒"))

    @property
    def has_failed(self) -> bool:
        """Return whether the answer is about an overload or a fault, not about a mistake of the user."""
        return any(title in self.content for title in ("❌ Internal error", "⏳ Rate limit", "⏳ Service unavailable"))


async def measure() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with LocalDiscord(token=TOKEN) as discord:
            users = [discord.add_user(f"user-{number}") for number in range(USERS)]
            guild = discord.add_guild("lab", users)
            bot = await start_bot(Path(folder), discord, users)
            try:
                await discord.synced(60)
                await discord.connected(60)
                return await _Session(discord, users, guild, Path(folder) / "artifacts").measure(bot)
            finally:
                bot.terminate()
                await bot.wait()


class _Session:
    """The users of a bot, and what they have prepared."""

    def __init__(self, discord: LocalDiscord, users: list[User], guild: Guild, artifacts: Path) -> None:
        self._discord, self._users, self._guild = discord, users, guild
        self._runs, self._artifacts = RunStore(artifacts), artifacts
        self._messages: dict[int, list[StoredMessage]] = {user.id: [] for user in users}
        """Messages of each user with the menus and the buttons of the calls."""

    async def measure(self, bot: Process) -> int:
        idle = resident_mebibytes(bot.pid)
        known = await self._prepare()
        typed = calls(self._users, known)
        random.Random(1).shuffle(typed)
        before = len(self._discord.requests)
        answered = await asyncio.gather(*(self._answered(call, known) for call in typed))
        refused = [request for request in self._discord.requests[before:] if request.status == 429]
        busy = resident_mebibytes(bot.pid)

        first = sorted(one.first_seconds for one in answered)
        content = sorted(one.content_seconds for one in answered)
        goals = {
            f"first answer, p99 of {len(first)}": (_p99(first), FIRST_ANSWER_SECONDS, "s"),
            "content, the latest": (content[-1], CONTENT_SECONDS, "s"),
            "violations of Discord's rules": (float(len(self._discord.violations)), 0.0, ""),
            "answers that never came": (float(len(self._discord.unresolved)), 0.0, ""),
            "answers about an overload or a fault": (float(sum(one.has_failed for one in answered)), 0.0, ""),
            "requests refused as too many (429)": (float(len(refused)), 0.0, ""),
            "bot's memory, idle": (idle, 90.0, "MiB"),
        }
        for name, (value, goal, unit) in goals.items():
            print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value:.2f} {unit} (at most {goal:g})")
        print(f"medians: first answer {median(first):.3f} s, content {median(content):.3f} s; after {busy:.0f} MiB")
        for name in sorted({one.name for one in answered}):
            ours = [one for one in answered if one.name == name]
            seconds = sorted(one.content_seconds for one in ours)
            mark, refusals = "*" if name in LONG_WORK else " ", sum(one.is_refusal for one in ours)
            line = (
                f"{mark} {name:<26} {len(ours):>3} content median {median(seconds):.3f} s, latest {seconds[-1]:.3f} s"
            )
            print(line + (f", {refusals} refused" if refusals else ""))
        for violation in self._discord.violations[:5]:
            print(violation)
        return 0 if all(value <= goal for value, goal, _ in goals.values()) else 1

    async def _prepare(self) -> Prepared:
        """Train and cancel runs, finish an experiment, and let a training run with others behind it in the queue."""
        owner, starter, *others = self._users
        demo: Options = {"corpus": "demo", "size": "tiny", "epochs": 1}
        long: Options = {"corpus": "demo", "epochs": 1000}
        for name in ("small", "second"):
            await self._reply(owner, "mt train", {**demo, "name": name, "seed": len(name)})
        await self._reply(owner, "mt tokenizer train", {"corpora": "demo", "method": "bpe", "vocab_size": 300})
        await self._reply(owner, "mt-experiment start", {"recipe": "smoke"})
        experiments = ExperimentStore(self._artifacts)
        [experiment] = [experiments.get(name) for name in experiments.names()]
        await _until(lambda: experiment.result.exists() and not self._runs.unfinished())
        await self._reply(starter, "mt train", {**long, "name": "cancelled", "size": "tiny"})
        cancelled = self._named("cancelled")
        checkpoints = self._runs.get(cancelled)
        await _until(lambda: checkpoints.follow().refresh().last_checkpoint_ts is not None)
        await self._reply(starter, "mt cancel", {"run": cancelled})
        await _until(lambda: not self._runs.unfinished())
        await self._reply(owner, "mt train", {**long, "name": "long"})
        for number, user in enumerate(others[:QUEUED]):
            await self._reply(user, "mt train", {**demo, "name": f"waiting-{number}"})
        small = self._named("small")
        shown: tuple[tuple[str, Options], ...] = (
            ("mt queue", {}),
            ("mt runs", {"query": "small", "mine": False}),
            ("mt status", {"run": small}),
        )
        for user in others[:PRESSING_USERS]:
            self._messages[user.id] += [await self._reply(user, name, options) for name, options in shown]
        await asyncio.sleep(10)  # until the cards of these runs are sent
        tokenizers = TokenizerStore(self._artifacts)
        return Prepared(
            small=small,
            second=self._named("second"),
            running=self._named("long"),
            cancelled=cancelled,
            queued=[self._named(f"waiting-{number}") for number in range(QUEUED)],
            tokenizer=tokenizers.all()[0].tokenizer_id,
            experiment=experiment.experiment_id,
        )

    def _named(self, name: str) -> str:
        [run_id] = [run.run_id for run in self._runs.all() if run.record().effective.label == name]
        return run_id

    async def _reply(self, user: User, name: str, options: Options) -> StoredMessage:
        return await (await self._discord.slash(user, name, options)).reply(PATIENCE_SECONDS)

    async def _answered(self, typed: Typed, known: Prepared) -> Answered:
        begin = time.monotonic()
        call = await self._begin(typed, known)
        first = await call.answered(PATIENCE_SECONDS)
        await call.changes.until(lambda: _has_content(call), PATIENCE_SECONDS, f"The content of {typed.name}")
        seconds = time.monotonic() - begin
        message = call.followups[0] if call.followups else call.original
        return Answered(typed.name, first, seconds, "" if message is None else shown_text(message.payload))

    async def _begin(self, typed: Typed, known: Prepared) -> Call:
        user, name = typed.user, typed.name
        if typed.kind == "menu":
            file = Upload("lines.txt", "\n".join([*SENTENCES] * 30).encode())
            message = self._discord.say(user, self._discord.dm_channel(user), SENTENCES[-1], file)
            return await self._discord.choose(user, message, name)
        if typed.kind == "button":
            message = self._messages[user.id][BUTTONS.index(name)]
            parts = [part for _, part in walk([*message.components])]
            [part] = [part for part in parts if name in (part.get("label"), part.get("placeholder"))]
            values = [known.small] if "placeholder" in part else None
            return await self._discord.click(user, message, text(part["custom_id"]), values)
        guild = self._guild if name.startswith("mt-admin") else None
        return await self._discord.slash(user, name, typed.options, guild=guild)


def _has_content(call: Call) -> bool:
    """Return whether there is a form, a message that does not show "thinking…", or a change of the pressed message."""
    if call.callback_type == _FORM or call.followups:
        return True
    message = call.original
    if message is None or message.is_loading:
        return False
    return call.callback_type != _DEFERRED_EDIT or message.versions[-1].at_seconds > call.created_seconds


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.2)


async def start_bot(folder: Path, discord: LocalDiscord, users: list[User]) -> Process:
    environment = {
        **os.environ,
        "HTTP__PORT": "",
        "APP__DATA_ROOT": str(folder / "data"),
        "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
        "DISCORD__TOKEN": TOKEN,
        "DISCORD__OWNER_ID": str(users[0].id),
        "DISCORD__ALLOWED_USER_IDS": ",".join(str(user.id) for user in users[1:]),
        "DISCORD__API_BASE_URL": discord.api_base_url,
        "DISCORD__GATEWAY_URL": discord.gateway_url,
        "DISCORD__CDN_BASE_URL": discord.cdn_base_url,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", env=environment, stdout=DEVNULL, stderr=DEVNULL
    )


def _p99(ordered: list[float]) -> float:
    return ordered[int(0.99 * (len(ordered) - 1))]


def resident_mebibytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [kibibytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kibibytes) / 1024


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
