"""Runs batteries in the worker: asks each run for the scores of the items, then computes the results in a child."""

import asyncio
from collections import deque

from trainer.artifacts.batteries import BatteryDirectory
from trainer.batteries.controls import items_of, variants
from trainer.batteries.scoring import Portion, portions, scores_of
from trainer.config.settings import Settings
from trainer.contracts.batteries import BatteryItem, BatteryProgress, BatteryRun, Variant
from trainer.contracts.sequences import SequencesResponse
from trainer.store.store import Store
from trainer.worker.steps import Cancelled, Steps

_REQUESTS_AT_ONCE = 2
"""While one is answered, the next one waits at the model."""

_Pending = deque[tuple[Portion, asyncio.Task[SequencesResponse]]]


async def drive(battery: BatteryDirectory, settings: Settings, store: Store) -> None:
    """Run batteries until the job ends; raises Retry while another process runs it, or if the disk is full."""
    steps = Steps(battery, settings, store)
    await steps.run(lambda: _Battery(battery, steps).run())


class _Battery:
    """The steps of one job."""

    def __init__(self, battery: BatteryDirectory, steps: Steps) -> None:
        self._battery = battery
        self._steps = steps
        self._record = battery.record()
        self._done = 0

    async def run(self) -> None:
        """Do all steps that have not been done yet."""
        try:
            self._steps.check_cancelled()
            items = await asyncio.to_thread(self._battery.items)
            scored = variants(self._record.options)
            per_run = sum(len(items_of(variant, items)) for variant in scored)
            progress = BatteryProgress(done=0, total=per_run * len(self._record.runs))
            await asyncio.to_thread(self._battery.write_progress, progress)
            for run in self._record.runs:
                for variant in scored:
                    await self._score(run, variant, items, progress)
            await self._steps.run_child("battery")
        except Cancelled:
            pass  # what was scored stays, and another attempt continues with it

    async def _score(
        self, run: BatteryRun, variant: Variant, items: list[BatteryItem], progress: BatteryProgress
    ) -> None:
        """Score the items of a variant that have no scores yet."""
        n_scored = await asyncio.to_thread(self._battery.count_scores, run.name, variant)
        self._done += n_scored
        pending: _Pending = deque()
        try:
            for portion, request in portions(variant, items, self._record.options, run.seed, n_scored):
                asking = self._steps.ask(run.name, request, run.name, is_kept=False)
                pending.append((portion, asyncio.create_task(asking)))
                if len(pending) == _REQUESTS_AT_ONCE:
                    await self._store_next(run, variant, pending, progress)
            while pending:
                await self._store_next(run, variant, pending, progress)
        finally:
            for _, task in pending:
                task.cancel()
            await asyncio.gather(*(task for _, task in pending), return_exceptions=True)

    async def _store_next(
        self, run: BatteryRun, variant: Variant, pending: _Pending, progress: BatteryProgress
    ) -> None:
        portion, task = pending[0]
        await self._steps.wait_for(task)
        pending.popleft()
        scores = scores_of(portion, task.result())
        await asyncio.to_thread(self._battery.add_scores, run.name, variant, scores)
        self._done += len(scores)
        await asyncio.to_thread(self._battery.write_progress, BatteryProgress(done=self._done, total=progress.total))
