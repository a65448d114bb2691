"""Tries `deploy/slurm` with Debian's Slurm, as root: `make slurm-test`.

Twelve runs train on two nodes; one worker is preempted, and the node of another one goes down. Every run must complete
once, equal to the same training without Slurm. Exits 1 where one does not, and keeps the folder then.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.slurm.campaign import StuckError, requests, train_on_slurm, train_without_slurm
from tests.slurm.verdict import attempts_of, faults_of
from tests.support import gone, processes

_LINGER_SECONDS = 30.0


async def hold(folder: Path, console: Console) -> bool:
    """Hold the campaign in a folder of its own, and print what came of it."""
    asked = requests()
    begin = time.monotonic()
    references = await train_without_slurm(folder / "without", asked)
    console.print(f"{len(references)} runs without Slurm: {time.monotonic() - begin:.0f} s")
    outcome = await train_on_slurm(folder, asked, references)
    left = [] if await gone(folder, _LINGER_SECONDS) else processes(folder)
    for run in outcome.runs:
        console.print(f"{run.run_id}: {run.follow().refresh().status}, {attempts_of(run)} attempts")
    faults = faults_of(outcome, left)
    for fault in faults:
        console.print(fault, style="red", markup=False)
    attempts = sum(map(attempts_of, outcome.runs))
    console.print(
        f"{len(outcome.runs)} runs in {attempts} attempts over two nodes in {outcome.seconds:.0f} s; by Slurm's log"
        f" {len(outcome.preempted_jobs)} job preempted, {len(outcome.jobs_of_lost_nodes)} job on a lost node: "
        + (f"{len(faults)} broken promises; see {folder}" if faults else "each completed once, equal bit for bit."),
        style="bold red" if faults else "bold green",
    )
    return not faults


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=160)
    folder = Path(tempfile.mkdtemp(prefix="mt-slurm-"))
    try:
        holds = asyncio.run(hold(folder, console))
    except StuckError as error:
        console.print(f"{error} What there was is in {folder}", style="bold red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f"Interrupted; nothing is left running. What there was is in {folder}")
        return 130
    if not holds:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
