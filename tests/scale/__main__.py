"""Three workers on machines of their own, with one Valkey and one object store, and faults: `make scale-test`.

All runs complete once, their bytes in the store are right, and they are equal to the same runs undisturbed; exits 1
if something does not hold, and keeps the campaign's folder then. SEED and RUNS say which campaign, and how long.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.scale.campaign import Campaign, undisturbed
from tests.scale.plan import make_plan
from tests.scale.system import MACHINES, started
from tests.scale.verdict import judge, left_behind, show, work_of

_SEED, _RUNS = 13, 30


class Arguments(argparse.Namespace):
    runs: int
    seed: int


async def hold(folder: Path, seed: int, runs: int, console: Console) -> bool:
    """Hold one campaign in a folder of its own and print what came of it; return whether everything held."""
    begin = time.monotonic()
    plan = make_plan(seed, runs=runs, machines=MACHINES)
    references = await undisturbed(folder / "undisturbed", plan)
    console.print(f"{len(references)} runs undisturbed: {time.monotonic() - begin:.0f} s")
    async with started(folder) as system:
        console.print(f"{MACHINES} machines: {system.network.words}")
        campaign = Campaign(plan, system)
        await campaign.run()
        codes = await system.stop()
        verdict = await asyncio.to_thread(judge, campaign, references, folder / "fetched")
    left = [*left_behind(campaign), *(f"a worker exited with {code}" for code in codes if code != 0)]
    verdict.broken.extend(left)
    work = work_of(campaign)
    show(campaign, verdict, work, console)
    seconds, faults = time.monotonic() - begin, campaign.faults.total()
    console.print(
        f"{verdict.completed} of {verdict.runs} runs completed once on {MACHINES} machines"
        f" ({system.network.words}) under {faults} faults in {seconds:.0f} s, in {work.attempts} attempts;"
        f" {work.moved} were trained by more than one, and {verdict.files} files in the store were verified:"
        f" {_finding(len(verdict.broken), folder)}.",
        style="bold red" if verdict.broken else "bold green",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return not verdict.broken


def _finding(broken: int, folder: Path) -> str:
    if broken == 0:
        return "all results are equal to undisturbed ones bit for bit"
    return f"{broken} promises are broken, see the lines above and {folder}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Machines that fail, with one Valkey and one object store.")
    parser.add_argument("--runs", type=int, default=os.environ.get("RUNS") or _RUNS)
    parser.add_argument("--seed", type=int, default=os.environ.get("SEED") or _SEED)
    arguments = parser.parse_args(namespace=Arguments())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=120)
    folder = Path(tempfile.mkdtemp(prefix="mt-scale-"))
    console.print(f"seed {arguments.seed}, {arguments.runs} runs, in {folder}")
    try:
        holds = asyncio.run(hold(folder, arguments.seed, arguments.runs, console))
    except KeyboardInterrupt:
        console.print(f"Interrupted; nothing is left running. What there was is in {folder}")
        return 130
    if not holds:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
