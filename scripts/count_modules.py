"""Counts the modules that one `/mt train` and one `/mt score` run through: python -m scripts.count_modules [--names]

The real bot and its worker run against the local Discord with a profiler in each of their processes. A module counts if
one of its functions ran because of the command: functions that run while nothing is asked of the bot are left out, and
so is the code that runs when a module is imported.
"""

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from pathlib import Path

from local_discord.driver import LocalDiscord

ROOT = Path(__file__).resolve().parent.parent
IDLE_SECONDS = 8.0
ANSWER_SECONDS = 300.0
TEXT = "\n".join(f"ab {'abc' * (number % 5)} c{number}" for number in range(60))

# Each process notes every function of ours once per phase; the phase is the first byte of a file that all map.
PROFILER = """
import mmap, os, sys, threading
HERE = os.path.dirname(os.path.abspath(__file__))
ROOTS = tuple(os.path.join({root!r}, folder) + os.sep for folder in ("bot", "trainer"))
with open(os.path.join(HERE, "phase"), "rb") as file:
    phase = mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ)
notes = os.open(os.path.join(HERE, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
seen = set()
def profile(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_flags & 1 and code.co_filename.startswith(ROOTS):
        key = (phase[0], code)
        if key not in seen:
            seen.add(key)
            os.write(notes, f"{{phase[0]}}\\t{{os.getpid()}}\\t{{code.co_filename}}\\t{{code.co_qualname}}\\n".encode())
threading.setprofile(profile)
sys.setprofile(profile)
"""
START, IDLE, QUEUE, TRAIN, SCORE = range(5)
WALKS = {'/mt train until "Queued"': {QUEUE}, "/mt train": {QUEUE, TRAIN}, "/mt score": {SCORE}}


async def walks(folder: Path) -> dict[int, set[tuple[str, str]]]:
    """Return the functions that ran in each phase, as pairs of a module and a function."""
    (folder / "sitecustomize.py").write_text(PROFILER.format(root=str(ROOT)), encoding="utf-8")
    phase = folder / "phase"
    phase.write_bytes(bytes([START]))
    corpora = folder / "data" / "corpus"
    corpora.mkdir(parents=True)
    (corpora / "text.txt").write_text(TEXT, encoding="utf-8")
    async with LocalDiscord(token="counted", answer_seconds=ANSWER_SECONDS) as discord:  # noqa: S106
        person = discord.add_user("you")
        environment = {
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "APP__DATA_ROOT": str(folder / "data"),
            "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
            "DISCORD__TOKEN": "counted",
            "DISCORD__OWNER_ID": str(person.id),
            "DISCORD__API_BASE_URL": discord.api_base_url,
            "DISCORD__GATEWAY_URL": discord.gateway_url,
            "DISCORD__CDN_BASE_URL": discord.cdn_base_url,
        }
        bot = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot"), env=os.environ | environment, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            await discord.synced(ANSWER_SECONDS)
            await discord.connected(ANSWER_SECONDS)
            _enter(phase, IDLE)
            await asyncio.sleep(IDLE_SECONDS)
            _enter(phase, QUEUE)
            await (await discord.slash(person, "mt train", {"corpus": "text", "epochs": 1})).reply()
            _enter(phase, TRAIN)
            channel = discord.dm_channel(person)
            await discord.wait_for_message(channel, "Completed|Failed", timeout=ANSWER_SECONDS)
            await asyncio.sleep(IDLE_SECONDS)  # the last edits of the card
            _enter(phase, IDLE)
            await asyncio.sleep(IDLE_SECONDS)
            _enter(phase, SCORE)
            await (await discord.slash(person, "mt score", {"text": "ab abc c1"})).reply()
            await asyncio.sleep(IDLE_SECONDS)
            _enter(phase, START)
        finally:
            bot.terminate()
            await bot.wait()
    ran: dict[int, set[tuple[str, str]]] = {number: set() for number in range(5)}
    for line in (folder / "notes").read_text(encoding="utf-8").splitlines():
        number, process, file, function = line.split("\t")
        late = int(number) == QUEUE and int(process) != bot.pid  # the worker may start before the bot has answered
        ran[TRAIN if late else int(number)].add((Path(file).relative_to(ROOT).as_posix(), function))
    return ran


def _enter(phase: Path, number: int) -> None:
    with phase.open("r+b") as file:
        file.write(bytes([number]))


def main(words: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        ran = asyncio.run(walks(Path(folder)))
    for name, phases in WALKS.items():
        modules = sorted({module for phase in phases for module, _ in ran[phase] - ran[IDLE]})
        print(f"{name}: {len(modules)} modules")
        if "--names" in words:
            print("\n".join(f"    {module}" for module in modules))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
