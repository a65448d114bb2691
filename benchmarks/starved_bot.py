"""Time to the first answer of the bot beside processes that use every core.

    python -m benchmarks.starved_bot [PROCESSES]

Runs the real bot with its embedded Valkey and worker on a local Discord. One person types commands, opens forms and
gets suggestions, one after the other, alone and then beside PROCESSES busy ones (default: 10) of the same priority. The
local Discord, which stands for another machine, has a higher priority where the system permits that. Prints quantiles,
and exits 1 if a first answer came after the three seconds that Discord waits.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles
from time import monotonic

from benchmarks.busy import busy_processes
from benchmarks.command_mix import Options
from benchmarks.many_users import PATIENCE_SECONDS, TOKEN, start_bot
from local_discord import LocalDiscord
from local_discord.state import User

BUSY, INTERACTIONS = 10, 50
FIRST_ANSWER_SECONDS = 3.0
_PAUSE_SECONDS = 0.2
_COMMANDS: Sequence[tuple[str, Options]] = (
    ("mt runs", {}),
    ("mt status", {}),
    ("mt queue", {}),
    ("mt annotate", {}),
    ("mt settings", {}),
)
"""Commands with an answer that follows "thinking…", and with a form, which is a first answer itself."""
_SUGGESTED = ("mt status", "run")


async def measure(n_busy: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with LocalDiscord(token=TOKEN) as discord:
            user = discord.add_user("ana")
            bot = await start_bot(Path(folder), discord, [user])
            with suppress(PermissionError):
                os.nice(-10)
            try:
                await discord.synced(60)
                await discord.connected(60)
                started = await discord.slash(user, "mt train", {"corpus": "demo", "size": "tiny", "epochs": 1})
                await started.reply(PATIENCE_SECONDS)
                await asyncio.sleep(20)  # until the run has ended, its cards too
                latest = 0.0
                for n_processes in (0, n_busy):
                    with busy_processes(n_processes):
                        latest = await _report(discord, user, n_processes)
                return 0 if latest <= FIRST_ANSWER_SECONDS else 1
            finally:
                bot.terminate()
                await bot.wait()


async def _report(discord: LocalDiscord, user: User, n_processes: int) -> float:
    """Print the quantiles of one load, and return the latest first answer."""
    seconds: dict[str, list[float]] = {}
    for number in range(INTERACTIONS):
        name, options = [*_COMMANDS, ("suggestions", {})][number % (len(_COMMANDS) + 1)]
        begin = monotonic()
        if name == "suggestions":
            await discord.autocomplete(user, *_SUGGESTED, "", PATIENCE_SECONDS)
            first = monotonic() - begin
        else:
            first = await (await discord.slash(user, name, options)).answered(PATIENCE_SECONDS)
        seconds.setdefault(name, []).append(first)
        await asyncio.sleep(_PAUSE_SECONDS)
    every = sorted(one for found in seconds.values() for one in found)
    print(f"beside {n_processes} busy processes, load {os.getloadavg()[0]:.1f}:")
    for name, found in [*seconds.items(), ("all", every)]:
        p90 = quantiles(found, n=10)[-1]
        print(f"  {name:<12} median {median(found):.3f} s, p90 {p90:.3f} s, latest {max(found):.3f} s")
    return every[-1]


if __name__ == "__main__":
    sys.exit(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else BUSY)))
