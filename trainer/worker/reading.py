"""Explains reading times in the worker: asks each model for the scores of the units, then a child fits the times."""

import asyncio
from collections.abc import Sequence

from trainer.artifacts.readings import ReadingDirectory
from trainer.contracts.job_status import StepProgress
from trainer.contracts.sequences import SequencesRequest, SequencesResponse
from trainer.reading.scoring import portions, scores_of, times_of
from trainer.worker.steps import Steps

_REQUESTS_AT_ONCE = 2
"""While one is answered, the next one waits at the model."""


class ReadingSteps:
    """The steps of one job."""

    def __init__(self, reading: ReadingDirectory, steps: Steps) -> None:
        self._reading = reading
        self._steps = steps
        self._record = reading.record()

    async def run(self) -> None:
        """Do all steps that have not been done yet; what is scored stays when the job is cancelled."""
        self._steps.check_cancelled()
        times = await asyncio.to_thread(times_of, self._reading)
        asked = [*portions(times, self._record.options.tokenizations)]
        for number, run in enumerate(self._record.runs):
            await self._write_progress(number)
            if not await asyncio.to_thread(self._reading.has_scores, run.name):
                responses = await self._ask(run.name, [portion.request for portion in asked])
                scores = scores_of(len(times.units), asked, responses)
                await asyncio.to_thread(self._reading.add_scores, run.name, scores)
        await self._write_progress(len(self._record.runs))
        await self._steps.run_child("reading")

    async def _ask(self, model: str, requests: Sequence[SequencesRequest]) -> list[SequencesResponse]:
        """Return the answers of a model, some of which are asked for at the same time."""
        free = asyncio.Semaphore(_REQUESTS_AT_ONCE)

        async def ask(request: SequencesRequest) -> SequencesResponse:
            async with free:
                return await self._steps.ask(model, request, model, is_kept=False)

        return await self._steps.wait_for(asyncio.ensure_future(asyncio.gather(*map(ask, requests))))

    async def _write_progress(self, done: int) -> None:
        progress = StepProgress(done=done, total=self._record.n_steps)
        await asyncio.to_thread(self._reading.write_progress, progress)
