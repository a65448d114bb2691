"""Work on what a run has stored besides its status: its request, its training samples, and its verification."""

import asyncio
from pathlib import Path

from trainer.artifacts.command_jobs import VerificationRecord, VerificationStore
from trainer.artifacts.kinds import VERIFICATIONS
from trainer.contracts.base import now
from trainer.contracts.generations import TrainingSample
from trainer.contracts.http_answers import RunRequest, TrainingSamples
from trainer.contracts.parameters import NoBody, NoQuery, RunPath, SamplesQuery, WaitQuery
from trainer.contracts.verification import VerificationStatus
from trainer.lab.lab import Asked, Lab
from trainer.lab.waits import accept_keyed, at_end


async def get_request(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> RunRequest:
    """Read the request of a run as it was sent, which trains the run again."""
    record = await asyncio.to_thread(lab.stores.runs.get(asked.path.run_id).record)
    return RunRequest(
        run_id=record.run_id,
        request=record.request,
        parent_run_id=record.effective.parent_run_id,
        resumed_from_run_id=record.resumed_from_run_id,
        experiment_id=record.experiment_id,
        study_id=record.study_id,
    )


async def get_samples(lab: Lab, asked: Asked[RunPath, SamplesQuery, NoBody]) -> TrainingSamples:
    """Read the samples of a run with `sample_every_steps`, also while it trains."""
    run = lab.stores.runs.get(asked.path.run_id)
    lines = await asyncio.to_thread(_complete_lines, run.training_samples)
    samples = tuple(TrainingSample.model_validate_json(line) for line in lines[-asked.query.limit :])
    return TrainingSamples(run_id=run.run_id, samples=samples, total=len(lines))


def _complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a growing file, whose last line may still be incomplete."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


async def verify_run(lab: Lab, asked: Asked[RunPath, WaitQuery, NoBody]) -> VerificationStatus:
    """Check every file of a run against its recorded hash, and with `wait` answer at the end or after this time.

    A request with the same Idempotency-Key asks for the same verification, whose result is kept for a day.
    """
    record = VerificationRecord(created_at=now(), run_id=asked.path.run_id)
    store = VerificationStore(lab.settings.app.artifacts_root)
    job = await accept_keyed(lab, asked, VERIFICATIONS, store, record)
    return await at_end(lambda: asyncio.to_thread(job.status), asked.query.wait)
