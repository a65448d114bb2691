"""What a run has stored, over HTTP: the request that trains it again, its training samples, and its verification."""

import asyncio
import os

import pytest

from tests.support.http import Site
from tests.support.lab import Lab
from tests.support.stored_jobs import is_free
from tests.support.waiting import until
from trainer.artifacts.command_jobs import VerificationRecord, VerificationStore
from trainer.artifacts.kinds import VERIFICATIONS
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import now
from trainer.contracts.errors import ErrorCode
from trainer.contracts.generations import Sample, TrainingSample
from trainer.contracts.http_answers import TrainingSamples

SAMPLES = [
    TrainingSample(step=step, sample=Sample(prompt="a", text=f"b{step}", seed=1, steps=2, stop_reason="eos"))
    for step in (10, 20, 30)
]


async def test_samples__of_a_training_are_read_while_it_writes_them(here: Site, copied: RunDirectory) -> None:
    path = f"/runs/{copied.run_id}/samples"
    assert (await here.get(path)).record(TrainingSamples) == TrainingSamples(run_id=copied.run_id, samples=(), total=0)
    lines = "".join(sample.model_dump_json() + "\n" for sample in SAMPLES)
    copied.training_samples.write_text(lines + '{"step": 40, "sam', encoding="utf-8")
    answer = (await here.get(f"{path}?limit=2")).record(TrainingSamples)
    assert (answer.samples, answer.total) == (tuple(SAMPLES[1:]), 3)


@pytest.mark.slow
async def test_verification__that_fails_says_why_and_is_deleted_after_a_day(
    here: Site, run: RunDirectory, lab: Lab
) -> None:
    store = VerificationStore(lab.settings.app.artifacts_root)
    wanted = VerificationRecord(created_at=now(), run_id="nowhere")
    job = await here.queue.jobs.accept(VERIFICATIONS, lambda: store.create("nowhere", wanted))
    while not (status := job.status()).has_ended:
        await asyncio.sleep(0.01)
    assert (status.status, status.error and status.error.code) == ("failed", ErrorCode.RUN_NOT_FOUND)
    await until(lambda: is_free(job))  # the worker's last change of the folder makes it young
    os.utime(job.path, (0, 0))
    await here.post(f"/runs/{run.run_id}/verify?wait=60")
    assert not job.exists()
