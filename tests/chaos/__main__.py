"""A campaign of random faults against the whole product: `make chaos MINUTES=10 SEED=1`.

Nothing may be lost, wrong, missing or twice, whatever is killed, wiped, frozen or refused; exits 1 where something is,
and keeps the campaign's folder then. The same seed makes the same plan.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.campaign import Campaign, requests
from tests.chaos.deploys import DEPLOYS, deploy
from tests.chaos.plan import REQUESTS, USERS, make_plan
from tests.chaos.system import started
from tests.chaos.verdict import Verdict, judge, show

_LONG_MINUTES = 5
"""A campaign of so many minutes is followed by twenty deploys in a row."""


class Arguments(argparse.Namespace):
    minutes: float
    seed: int


async def hold(
    folder: Path, seed: int, seconds: float, console: Console, *, number_of_requests: int = REQUESTS
) -> Verdict:
    """Hold one campaign in a folder of its own, and print what came of it."""
    plan = make_plan(seed, seconds, requests=number_of_requests)
    async with started(folder, USERS) as system:
        campaign = Campaign(plan, system, requests(number_of_requests))
        await campaign.run()
        exit_codes = await system.stop()
        verdict = judge(campaign, exit_codes, await system.left())
    show(campaign, verdict, console)
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(description="A campaign of random faults against the whole product.")
    parser.add_argument("--minutes", type=float, default=os.environ.get("MINUTES") or 10)
    parser.add_argument("--seed", type=int, default=os.environ.get("SEED") or random.randrange(10**6))
    arguments = parser.parse_args(namespace=Arguments())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=120)
    folder = Path(tempfile.mkdtemp(prefix="mt-chaos-"))
    console.print(f"seed {arguments.seed}, {arguments.minutes:g} min, in {folder}")
    try:
        verdicts = [asyncio.run(hold(folder, arguments.seed, 60 * arguments.minutes, console))]
        if arguments.minutes >= _LONG_MINUTES:
            (folder / "deploys").mkdir()
            verdicts.append(asyncio.run(deploy(folder / "deploys")))
            console.print(f"{DEPLOYS} deploys in a row: {verdicts[1].in_words or 'the run has ended right'}")
    except KeyboardInterrupt:
        console.print(f"Interrupted; nothing is left running. What there was is in {folder}")
        return 130
    if not all(verdict.holds for verdict in verdicts):
        console.print(f"Something does not hold; what there was is in {folder}", style="bold red")
        return 1
    shutil.rmtree(folder)
    console.print("Everything held.", style="bold green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
