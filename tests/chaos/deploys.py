"""Twenty deploys in a row: the workers are told to end as soon as they have begun, and the run goes on each time."""

import asyncio
import signal
from pathlib import Path

from tests.chaos.campaign import Campaign
from tests.chaos.plan import Plan, Submission
from tests.chaos.system import started
from tests.chaos.verdict import Verdict, judge
from tests.support import tiny_request
from trainer.contracts.events import JobStarted

DEPLOYS = 20
_NEXT_ATTEMPT_SECONDS = 90.0


async def deploy(folder: Path) -> Verdict:
    """Judge a run of which every attempt but the last is told to end; raises TimeoutError where none follows."""
    async with started(folder, users=1) as system:
        request = tiny_request(num_epochs=60, checkpoint_every_steps=10**6, test_fraction=0.1)
        campaign = Campaign(Plan(0, 0, (), ()), system, [request])
        await campaign.train_references()
        await campaign.submit(Submission(at_seconds=0, request=0, user=0))
        [run] = campaign.runs
        for number in range(1, DEPLOYS + 1):
            async with asyncio.timeout(_NEXT_ATTEMPT_SECONDS):
                while sum(isinstance(event, JobStarted) for event in run.reader().read_new()) < number:
                    await asyncio.sleep(0.05)
            for worker in system.workers:
                campaign.faults["worker SIGTERM"] += worker.send(signal.SIGTERM)
        await campaign.settle()
        return judge(campaign, await system.stop(), await system.left())
