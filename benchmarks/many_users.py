"""Latency of the bot for twenty users and two hundred commands at once, while a training runs.

    python -m benchmarks.many_users

Runs the real bot with its embedded Valkey and worker on a local Discord that checks every request. Prints the time to
the first response and to the content, and exits 1 if a goal is missed.
"""

import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from local_discord import LocalDiscord
from local_discord.state import Call, User
from trainer.artifacts.runs import RunStore

USERS, COMMANDS_EACH = 20, 10
FIRST_ANSWER_SECONDS, CONTENT_SECONDS = 1.5, 5.0
TOKEN = "benchmark-token"  # noqa: S105
Options = Mapping[str, str | int | float]
MIX: tuple[tuple[str, Options], ...] = (
    ("mt status", {}),
    ("mt runs", {"mine": False}),
    ("mt score", {"text": "Бүгін ауа райы жақсы."}),
    ("mt generate", {"prompt": "Мен ", "max_new_tokens": 32, "seed": 7}),
    ("mt help", {}),
    ("mt status", {}),
    ("mt score", {"text": "Мен кітап оқимын."}),
    ("mt generate", {"prompt": "Ол ", "max_new_tokens": 32}),
    ("mt runs", {"mine": False}),
    ("mt status", {}),
)


class Answered(NamedTuple):
    """Seconds from a command to its first response and to its content."""

    name: str
    first_seconds: float
    content_seconds: float


async def measure() -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with LocalDiscord(token=TOKEN) as discord:
            users = [discord.add_user(f"user-{number}") for number in range(USERS)]
            bot = await start_bot(Path(folder), discord, users)
            try:
                return await _with_bot(discord, users, RunStore(Path(folder) / "artifacts"), bot)
            finally:
                bot.terminate()
                await bot.wait()


async def _with_bot(discord: LocalDiscord, users: list[User], runs: RunStore, bot: Process) -> int:
    await discord.synced(60)
    await discord.connected(60)
    idle = resident_mebibytes(bot.pid)
    small: Options = {"corpus": "demo", "size": "tiny", "epochs": 1, "name": "small"}
    await _ended(await discord.slash(users[0], "mt train", small), runs)
    long = await discord.slash(users[0], "mt train", {"corpus": "demo", "epochs": 1000, "name": "long"})
    await long.reply(30)
    await asyncio.sleep(5)  # until it trains
    before = len(discord.requests)
    mix = [(user, *MIX[number]) for user, number in itertools.product(users, range(COMMANDS_EACH))]
    random.Random(1).shuffle(mix)
    answered = await asyncio.gather(*(_type(discord, user, name, options) for user, name, options in mix))
    refused = [request for request in discord.requests[before:] if request.status == 429]
    busy = resident_mebibytes(bot.pid)

    first = sorted(one.first_seconds for one in answered)
    content = sorted(one.content_seconds for one in answered)
    goals = {
        f"first answer, p99 of {len(first)}": (_p99(first), FIRST_ANSWER_SECONDS, "s"),
        "content, the latest": (content[-1], CONTENT_SECONDS, "s"),
        "violations of Discord's rules": (float(len(discord.violations)), 0.0, ""),
        "answers that never came": (float(len(discord.unresolved)), 0.0, ""),
        "requests refused as too many (429)": (float(len(refused)), 0.0, ""),
        "bot's memory, idle": (idle, 90.0, "MiB"),
    }
    for name, (value, goal, unit) in goals.items():
        print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value:.2f} {unit} (at most {goal:g})")
    print(f"medians: first answer {median(first):.3f} s, content {median(content):.3f} s; memory after {busy:.0f} MiB")
    for name in sorted({one.name for one in answered}):
        seconds = sorted(one.content_seconds for one in answered if one.name == name)
        print(f"  {name:<12} content median {median(seconds):.3f} s, latest {seconds[-1]:.3f} s")
    return 0 if all(value <= goal for value, goal, _ in goals.values()) else 1


async def _type(discord: LocalDiscord, user: User, name: str, options: Options) -> Answered:
    begin = time.monotonic()
    call = await discord.slash(user, name, options)
    first = await call.answered(60)
    while call.is_unresolved and not call.followups:
        await asyncio.sleep(0.01)
    return Answered(name, first, time.monotonic() - begin)


async def _ended(call: Call, runs: RunStore) -> None:
    await call.reply(30)
    while runs.unfinished():
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
