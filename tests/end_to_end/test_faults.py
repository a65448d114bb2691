"""A short campaign of random faults; and bot, workers and Valkey killed at once, in the middle of three runs.

Also campaigns and benchmarks that are interrupted.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from rich.console import Console

from local_discord.driver import shown_text
from tests.faults.chaos import Campaign, Submission, hold, judge, started
from tests.faults.driver import attempts_at
from tests.faults.mutations import mutations
from tests.support import ROOT, processes, run_of, tiny_request
from tests.support.waiting import PATIENCE_SECONDS, until, wait_until
from trainer.contracts.events import CheckpointSaved

SEED, SECONDS, FAULTS = 5, 12.0, 8
USERS = 3


def test_mutations__change_texts_and_name_tests_that_are_there() -> None:
    for mutation in mutations():
        source = (ROOT / mutation.path).read_text(encoding="utf-8")
        file, _, name = mutation.test.partition("::")
        assert mutation.applied(source) != source
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), mutation.test


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "child"),
    [
        ("tests.faults chaos MINUTES=60", "trainer worker"),
        ("tests.faults fuzz CASES=100000", "schemathesis"),
        ("tests.faults scale", "trainer worker"),
        ("benchmarks queue", "valkey"),
    ],
)
def test_interrupted_campaign__ends_in_one_sentence_and_leaves_no_process(
    words: str, child: str, number: signal.Signals
) -> None:
    """Ctrl-C signals the processes of a terminal, `kill` and `make` the campaign alone."""
    with TemporaryDirectory(prefix="mt-") as folder:  # a path that is short enough for sockets below it
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(
            [sys.executable, "-m", *words.split()],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as campaign:
            wait_until(lambda: bool(processes(Path(folder), child)) or campaign.poll() is not None)
            if number is signal.SIGINT:
                os.killpg(campaign.pid, number)
            else:
                campaign.send_signal(number)
            printed, trouble = campaign.communicate(timeout=PATIENCE_SECONDS)
        assert (campaign.returncode, trouble, processes(Path(folder))) == (130, "", [])
        assert ["Interrupted; nothing is left running." in line for line in printed.splitlines()][-1:] == [True]


@pytest.mark.slow
async def test_random_faults__lose_nothing_and_report_everything_once(tmp_path: Path) -> None:
    verdict = await hold(tmp_path / "faults", SEED, SECONDS, Console(), number_of_requests=1)
    assert verdict.holds, verdict.broken
    assert sum(verdict.faults.values()) >= FAULTS


@pytest.mark.slow
async def test_everything_killed__runs_end_as_undisturbed_reported_once(tmp_path: Path) -> None:
    async with started(tmp_path / "killed", USERS, slots=2) as system:
        request = tiny_request(num_epochs=40, checkpoint_every_steps=20, test_fraction=0.1, sample_prompts="none")
        campaign = Campaign(system, [request])
        await campaign.train_references()
        asked = [
            asyncio.create_task(campaign.submit(Submission(at_seconds=user, request=0, user=user)))
            for user in range(USERS)
        ]
        # whichever comes to its middle first stands still there, so that all three are killed in theirs
        standing: set[int] = set()
        await until(lambda: len(stop_in_the_middle(campaign, standing)) == USERS)
        await asyncio.gather(*asked)
        before = [run.manifest() for run in campaign.runs]
        assert campaign.kill_all()
        for pid in standing:
            os.kill(pid, signal.SIGCONT)
        await campaign.settle()
        verdict = await judge(campaign)
        assert before == [None] * USERS
        assert verdict.holds, verdict.broken
        assert [attempts_at(run) for run in campaign.runs] == [2] * USERS
        assert all(run.completed_manifest().files for run in campaign.runs)
        told = [one for user in system.users for one in system.server.messages(system.server.dm_channel(user))]
        texts = [shown_text(one.payload) for one in told if "interaction_metadata" not in one.payload]
        of_runs = [text for text in texts if any(run.run_id in text for run in campaign.runs)]  # without the reference
        assert sum("· result" in text for text in of_runs) == USERS
        assert len(of_runs) == 2 * USERS


def stop_in_the_middle(campaign: Campaign, standing: set[int]) -> set[int]:
    """Stop the training children that have a checkpoint; return all that stand still."""
    for child in processes(campaign.system.folder, "train-child"):
        with contextlib.suppress(OSError):
            run_id = run_of(child)
            if run_id is None or child.pid in standing:
                continue
            run = campaign.system.queue.runs.get(run_id)
            has_checkpoint = any(isinstance(event, CheckpointSaved) for event in run.reader().read_new())
            if has_checkpoint and run.manifest() is None:
                os.kill(child.pid, signal.SIGSTOP)
                standing.add(child.pid)
    return standing
