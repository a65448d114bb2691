"""Runs batteries in the worker: asks each model for the scores of the items, then computes the results in a child.

A development measures the checkpoints of one run, and looks for new ones until there are none.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from trainer.artifacts.batteries import BatteryDirectory
from trainer.batteries.controls import items_of, variants
from trainer.batteries.scoring import Portion, portions, scores_of
from trainer.batteries.word_contexts import contexts_of, line_portions, mean_surprisals, scored_lines_of
from trainer.contracts.batteries import BatteryItem, DevelopmentOptions, Variant
from trainer.contracts.development import ModelWords, WordTexts
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics, EvalRequest
from trainer.contracts.inference_fields import ResponseT
from trainer.contracts.job_status import StepProgress
from trainer.contracts.runs import RunModel
from trainer.contracts.scores import ScoreRequest, ScoreResponse
from trainer.contracts.sequences import SequencesResponse
from trainer.queue.batteries import kept_models
from trainer.reports.score_table import ScoredLine
from trainer.worker.steps import Steps

_REQUESTS_AT_ONCE = 2
"""While one is answered, the next one waits at the model."""
_LOOK_SECONDS = 1.0
"""Time between two looks for new checkpoints of a run that trains."""
_LINES_AT_ONCE = 16
"""Lines of a stream, each of which is a text of its own."""

_Pending = deque[tuple[Portion, asyncio.Task[SequencesResponse]]]


class BatterySteps:
    """The steps of one job."""

    def __init__(self, battery: BatteryDirectory, steps: Steps) -> None:
        self._battery = battery
        self._steps = steps
        self._record = battery.record()
        self._done = 0
        self._total = 0

    async def run(self) -> None:
        """Do all steps that have not been done yet; what is scored stays when the job is cancelled."""
        options = self._record.options.development
        self._steps.check_cancelled()
        if self._record.to_fetch:
            await self._steps.run_child("battery")
            self._steps.check_cancelled()
            self._record = self._battery.record()
        items = await asyncio.to_thread(self._battery.items)
        if options is None:
            await self._score_all(self._record.runs, items)
        else:
            await self._develop(options, items)
        await self._steps.run_child("battery")

    async def _score_all(self, runs: Sequence[RunModel], items: list[BatteryItem], n_measured: int = 0) -> None:
        """Score the items by some models that have no scores yet; of each, some other things are to be measured."""
        scored = variants(self._record.options)
        per_run = sum(len(items_of(variant, items)) for variant in scored) + n_measured
        self._total = per_run * len(self._record.runs)
        await self._write_progress()
        for run in runs:
            for variant in scored:
                await self._score(run, variant, items)

    async def _develop(self, options: DevelopmentOptions, items: list[BatteryItem]) -> None:
        """Measure the checkpoints of a run, those that it keeps meanwhile too, until there are no more."""
        queue, run_id = self._steps.queue, self._record.development_of or ""
        if options.has_words and await asyncio.to_thread(self._battery.word_texts) is None:
            await self._steps.run_child("battery")  # which chooses them
        texts = await asyncio.to_thread(self._battery.word_texts)
        measured: set[str] = set()
        while True:
            await queue.replication.fetch("models", run_id)
            has_ended = not queue.runs.get(run_id).is_unfinished()
            known = self._record.runs
            found = await asyncio.to_thread(kept_models, run_id, self._record.options, queue.runs, known)
            if [run.name for run in found] != [run.name for run in known]:
                await asyncio.to_thread(self._battery.extend, found)
                self._record = self._battery.record()
            if options.split == "test" and options.reads_split:
                effective, models = queue.runs.get(run_id).record().effective, [run.name for run in found]
                looks, by = queue.stores.looks, self._record.owner
                await asyncio.to_thread(looks.record, effective.test_id, models, "evaluation", by)
            for run in found:
                if run.name not in measured:
                    await self._score_all([run], items, options.has_loss + options.has_words)
                    await self._measure(run, options, texts)
                    measured.add(run.name)
            if has_ended or not options.follows:
                break
            await asyncio.sleep(_LOOK_SECONDS)
            self._steps.check_cancelled()
        if not measured:
            message = f"The run '{run_id}' has ended without a kept checkpoint."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)

    async def _measure(self, run: RunModel, options: DevelopmentOptions, texts: WordTexts | None) -> None:
        """Measure the loss and the words by a checkpoint, unless that is done."""
        if options.has_loss:
            if await asyncio.to_thread(self._battery.measured, run.name, EvalMetrics) is None:
                request = EvalRequest(split=options.split)
                asking = asyncio.create_task(self._steps.ask(run.name, request, run.name, is_kept=False))
                response = await self._steps.wait_for(asking)
                await asyncio.to_thread(self._battery.add_measured, run.name, response.measured())
            await self._count(1)
        if texts is not None:
            if await asyncio.to_thread(self._battery.measured, run.name, ModelWords) is None:
                await asyncio.to_thread(self._battery.add_measured, run.name, await self._score_words(run, texts))
            await self._count(1)

    async def _score_words(self, run: RunModel, texts: WordTexts) -> ModelWords:
        """Return the mean surprisals of words, each in the lines in which it stands."""
        pending: deque[tuple[str, asyncio.Task[ScoreResponse]]] = deque()
        scored: list[ScoredLine] = []

        async def take() -> None:
            text, asking = pending.popleft()
            scored.extend(scored_lines_of(text, await self._steps.wait_for(asking)))

        effective = self._steps.queue.runs.get(run.run_id).record().effective
        at_once = _REQUESTS_AT_ONCE if effective.documents == "line" else _LINES_AT_ONCE
        within_word = self._record.options.pll_within_word
        try:
            for text in line_portions(texts.lines, effective.documents):
                request = ScoreRequest(text=text, detail_level="per_word", pll_within_word=within_word)
                asking = asyncio.create_task(self._steps.ask(run.name, request, run.name, is_kept=False))
                pending.append((text, asking))
                if len(pending) == at_once:
                    await take()
            while pending:
                await take()
        finally:
            await _cancelled(asking for _, asking in pending)
        return mean_surprisals(run.checkpoint or 0, contexts_of(texts), scored)

    async def _score(self, run: RunModel, variant: Variant, items: list[BatteryItem]) -> None:
        """Score the items of a variant that have no scores yet."""
        n_scored = await asyncio.to_thread(self._battery.count_scores, run.name, variant)
        self._done += n_scored
        pending: _Pending = deque()
        try:
            for portion, request in portions(variant, items, self._record.options, run.seed, n_scored):
                asking = self._steps.ask(run.name, request, run.name, is_kept=False)
                pending.append((portion, asyncio.create_task(asking)))
                if len(pending) == _REQUESTS_AT_ONCE:
                    await self._store_next(run, variant, pending)
            while pending:
                await self._store_next(run, variant, pending)
        finally:
            await _cancelled(task for _, task in pending)

    async def _store_next(self, run: RunModel, variant: Variant, pending: _Pending) -> None:
        portion, task = pending.popleft()
        scores = scores_of(portion, await self._steps.wait_for(task))
        await asyncio.to_thread(self._battery.add_scores, run.name, variant, scores)
        await self._count(len(scores))

    async def _count(self, done: int) -> None:
        self._done += done
        await self._write_progress()

    async def _write_progress(self) -> None:
        progress = StepProgress(done=self._done, total=self._total)
        await asyncio.to_thread(self._battery.write_progress, progress)


async def _cancelled(tasks: Iterable[asyncio.Task[ResponseT]]) -> None:
    """Cancel requests and wait for their end."""
    given = [*tasks]
    for task in given:
        task.cancel()
    await asyncio.gather(*given, return_exceptions=True)
