"""Bot, workers and Valkey killed at the same moment, in the middle of three runs."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from local_discord.driver import shown_text
from tests.chaos.campaign import Campaign
from tests.chaos.plan import Plan, Submission
from tests.chaos.system import started
from tests.chaos.verdict import judge
from tests.support import processes, run_of, tiny_request
from tests.support.waiting import until
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import CheckpointSaved, JobStarted

pytestmark = pytest.mark.slow

NOTHING = Plan(0, 0, (), ())
USERS = 3


async def test_everything_killed__three_runs_end_exactly_as_undisturbed_and_are_told_once(tmp_path: Path) -> None:
    async with started(tmp_path, USERS, slots=2) as system:
        request = tiny_request(num_epochs=40, checkpoint_every_steps=20, test_fraction=0.1)
        campaign = Campaign(NOTHING, system, [request])
        await campaign.train_references()
        asked = [
            asyncio.create_task(campaign.submit(Submission(at_seconds=user, request=0, user=user)))
            for user in range(USERS)
        ]
        # whichever comes to its middle first stands still there, so that all three are killed in theirs
        standing: set[int] = set()
        await until(lambda: len(stop_in_the_middle(tmp_path, campaign, standing)) == USERS)
        await asyncio.gather(*asked)
        before = [run.manifest() for run in campaign.runs]
        assert await campaign.kill_all()
        for pid in standing:
            os.kill(pid, signal.SIGCONT)
        await campaign.settle()
        verdict = judge(campaign, await system.stop(), await system.left())

        assert before == [None] * USERS
        assert verdict.holds, verdict.failings
        assert [attempts(run) for run in campaign.runs] == [2] * USERS
        assert [len(run.completed_manifest().files) > 0 for run in campaign.runs] == [True] * USERS
        told = [one for user in system.users for one in system.server.messages(system.server.dm_channel(user))]
        of_runs = [shown_text(one.payload) for one in told if "interaction_metadata" not in one.payload]
        assert sum("· result" in text for text in of_runs) == USERS
        assert len(of_runs) == 2 * USERS


def stop_in_the_middle(folder: Path, campaign: Campaign, standing: set[int]) -> set[int]:
    """Stop the training children that have a checkpoint; return all that stand still."""
    for child in processes(folder, "train-child"):
        with contextlib.suppress(OSError):
            run_id = run_of(child)
            if run_id is None or child.pid in standing:
                continue
            run = campaign.system.queue.runs.get(run_id)
            if has_checkpoint(run) and run.manifest() is None:
                os.kill(child.pid, signal.SIGSTOP)
                standing.add(child.pid)
    return standing


def has_checkpoint(run: RunDirectory) -> bool:
    return any(isinstance(event, CheckpointSaved) for event in run.reader().read_new())


def attempts(run: RunDirectory) -> int:
    return sum(isinstance(event, JobStarted) for event in run.reader().read_new())
