"""Runs an experiment in the worker: prepares texts, starts trainings, scores and batteries, computes the report.

Everything that has been done is read from the disk, so that a worker that was killed is continued by the next one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from trainer.artifacts.attempts import was_never_trained
from trainer.artifacts.experiments import ExperimentDirectory, cell_keys, seed_group
from trainer.artifacts.kinds import BATTERIES
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.batteries.reading import Battery, with_items
from trainer.config.presets import request_hash
from trainer.contracts.base import HttpOrigin, changed
from trainer.contracts.batteries import BatteryOptions, BatteryRecord, DevelopmentOptions
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.experiments import CellBattery, CellKey, CellRun, ExperimentTexts
from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.sections import SectionsRequest
from trainer.queue.batteries import Items, new_job
from trainer.queue.experiments import Start, shared_tokenizer, training_request
from trainer.queue.resolve import preview_training
from trainer.worker.steps import POLL_SECONDS, Cancelled, Steps

KeyT = TypeVar("KeyT")


class ExperimentSteps:
    """The steps of one experiment."""

    def __init__(self, experiment: ExperimentDirectory, steps: Steps) -> None:
        self._experiment = experiment
        self._steps = steps
        self._settings = steps.settings
        self._queue = steps.queue
        self._record = experiment.record()
        self._keys = cell_keys(self._record.request)
        self._runs = experiment.runs()
        self._batteries = experiment.batteries()
        self._developments = experiment.developments()
        self._completed: dict[CellKey, RunDirectory] = {}
        self._tries = Counter[CellKey]()
        """The runs that ended before their first step."""
        http = self._record.http
        self._http = None if http is None else HttpOrigin(api_key=http.api_key)
        self._tokenizers: dict[str, str] = {}
        """The id of the tokenizer that the languages of a model share, by model."""

    async def run(self) -> None:
        """Do all steps that have not been done yet."""
        try:
            self._steps.check_cancelled()
            if self._experiment.texts() is None:
                await self._steps.run_child("experiment")
                self._record = self._experiment.record()  # with the batteries that the child has fetched
            texts = self._experiment.texts()
            if texts is not None:
                await self._train_tokenizers()
                await self._train_and_score(texts)
                for model, seed in {(key.model, key.seed): key for key in self._keys if self._record.batteries}:
                    await self._score_batteries(model, seed)
                if self._record.request.development is not None:
                    for key in self._keys:
                        await self._develop(key, self._record.request.development)
                await self._steps.run_child("experiment")
        except Cancelled:
            for cell in self._runs.values():
                if not cell.is_reused:
                    with suppress(AppError):  # it has just ended
                        await self._queue.states.cancel(cell.run_id)
            for battery in self._experiment.own_batteries():
                with suppress(AppError):
                    await self._queue.jobs.cancel(BATTERIES, battery.battery_id)
            raise

    async def _train_tokenizers(self) -> None:
        """Train the tokenizers that languages share, and wait for them."""
        for model, options in self._record.request.models.items():
            if options.has_shared_tokenizer:
                accepted = await self._queue.train_tokenizer(shared_tokenizer(self._record.request, model))
                tokenizer = self._queue.tokenizers.get(accepted.tokenizer_id)
                while tokenizer.is_unfinished():
                    self._steps.check_cancelled()
                    await asyncio.sleep(POLL_SECONDS)
                tokenizer.completed_manifest()
                self._tokenizers[model] = accepted.tokenizer_id

    async def _train_and_score(self, texts: ExperimentTexts) -> None:
        """Start trainings, a few at a time, and let each completed run score the texts, one at a time."""
        unscored = list(self._keys)
        scoring: asyncio.Task[None] | None = None
        try:
            while True:
                self._steps.check_cancelled()
                if scoring is not None and scoring.done():
                    scoring.result()
                    scoring = None
                await asyncio.to_thread(self._find_completed)
                await self._start_runs()
                while scoring is None and (ready := next((key for key in unscored if key in self._completed), None)):
                    unscored.remove(ready)
                    if not self._experiment.is_scored(self._completed[ready].path, texts):
                        scoring = asyncio.create_task(self._score(ready))
                if scoring is None and not unscored:
                    return
                await asyncio.sleep(POLL_SECONDS)
        finally:
            if scoring is not None:
                scoring.cancel()
                await asyncio.wait([scoring])

    def _find_completed(self) -> None:
        """Find the runs that have completed since the last call; raises AppError where one has failed.

        One that ended before its first step, by no fault of its setting, is started again some times.
        """
        for key in self._runs.keys() - self._completed.keys():
            run_id = self._runs[key].run_id
            run = self._queue.runs.get(run_id)
            end = run.manifest()
            if end is None:
                continue
            if self._may_try_again(key, run):
                del self._runs[key]
                continue
            if end.status != "completed":
                raise _early_end(f"The training of {key} ({run_id})", end.error)
            self._completed[key] = run

    def _may_try_again(self, key: CellKey, run: RunDirectory) -> bool:
        if self._tries[key] == self._settings.queue.max_attempts - 1 or not was_never_trained(run):
            return False
        self._tries[key] += 1
        return True

    async def _start_runs(self) -> None:
        """Start trainings while only a few have not ended: other people's runs wait in the same queue."""
        for key in self._keys:
            if len(self._runs) - len(self._completed) > self._settings.queue.training_slots:
                return
            if key in self._runs:
                continue
            transfer = self._record.request.models[key.model].transfer
            parent: RunDirectory | None = None
            if transfer is not None and key.language != transfer.first:
                parent = self._completed.get(key._replace(language=transfer.first))
                if parent is None:
                    continue
            start = Start(self._tokenizers.get(key.model), None if parent is None else parent.run_id)
            cell = await self._start_run(key, start)
            if cell is not None:
                self._runs[key] = cell
                self._write_runs()

    async def _start_run(self, key: CellKey, start: Start) -> CellRun | None:
        """Find a completed or unfinished run with the same request, or start one, from the checkpoint of a failed one.

        Return None while an equal run is just being cancelled.
        """
        request = changed(training_request(self._record.request, key, start), resume=True)
        try:
            preview = await preview_training(request, self._queue.corpora, self._settings)
            run_id = await asyncio.to_thread(_find_run, self._queue.runs, preview.effective)
            is_reused = run_id is not None
            if run_id is None:
                accepted = await self._queue.accept(
                    preview,
                    user_id=self._record.user_id,
                    http=self._http,
                    experiment_id=self._record.experiment_id,
                    group=seed_group(self._record, key),
                )
                run_id = accepted.run_id
        except AppError as error:
            if error.code is ErrorCode.RUN_NOT_READY:
                return None
            raise AppError(error.code, f"The training of {key} cannot start: {error.message}") from error
        self._steps.log.info("experiment_run_started", run_id=run_id, is_reused=is_reused)
        return CellRun(model=key.model, language=key.language, seed=key.seed, run_id=run_id, is_reused=is_reused)

    def _write_runs(self) -> None:
        self._experiment.write_runs(self._runs.values(), [*self._batteries.values(), *self._developments.values()])

    async def _score_batteries(self, model: str, seed: int) -> None:
        """Let the runs of a model and seed score all batteries in a job of their own, and wait for it."""
        run_ids = {self._runs[key].run_id: key for key in self._keys if (key.model, key.seed) == (model, seed)}

        def new() -> tuple[BatteryRecord, Items]:
            return new_job(BatteryOptions(), [*run_ids], self._stored_batteries(), self._queue.stores)

        cell: dict[str, object] = {"model": model, "seed": seed}
        await self._run_battery(self._batteries, (model, seed), cell, new, f"The battery of {model}, seed {seed}")

    async def _develop(self, key: CellKey, options: DevelopmentOptions) -> None:
        """Measure the checkpoints of a run with the batteries of its language, and wait for it."""
        names = {info.name for info in self._record.batteries.get(key.language, ())}

        def new() -> tuple[BatteryRecord, Items]:
            batteries = [one for one in self._stored_batteries() if one.info.name in names]
            run_id = self._runs[key].run_id
            return new_job(BatteryOptions(development=options), [run_id], batteries, self._queue.stores)

        cell: dict[str, object] = {"model": key.model, "language": key.language, "seed": key.seed}
        await self._run_battery(self._developments, key, cell, new, f"The development of {key}")

    async def _run_battery(
        self,
        cells: dict[KeyT, CellBattery],
        key: KeyT,
        cell: dict[str, object],
        new: Callable[[], tuple[BatteryRecord, Items]],
        what: str,
    ) -> None:
        """Start a job unless it runs or has completed, store that it belongs to a cell, and wait for its results."""
        job: tuple[BatteryRecord, Items] = await asyncio.to_thread(new)
        record, items = changed(job[0], user_id=self._record.user_id, http=self._http), job[1]
        await self._queue.replication.fetch("batteries", record.battery_id)
        battery = self._queue.batteries.directory(record.battery_id)
        if key not in cells:
            is_reused = battery.exists() and not battery.may_begin()
            started: dict[str, object] = {"battery_id": record.battery_id, "is_reused": is_reused}
            cells[key] = CellBattery.model_validate(cell | started)
            self._write_runs()
        await self._queue.jobs.accept(BATTERIES, lambda: self._queue.batteries.create(record, items))
        while battery.is_unfinished():
            self._steps.check_cancelled()
            await asyncio.sleep(POLL_SECONDS)
        if not battery.has_completed():
            raise _early_end(f"{what} ({battery.battery_id})", battery.failure())

    def _stored_batteries(self) -> list[Battery]:
        """Return the batteries of all languages, each once, as they were when the experiment was accepted."""
        infos = {info.name: info for of_language in self._record.batteries.values() for info in of_language}
        return with_items(infos.values(), self._experiment.items())

    async def _score(self, key: CellKey) -> None:
        """Let a run score all texts."""
        request = SectionsRequest(experiment_id=self._experiment.experiment_id)
        await self._steps.ask(self._runs[key].run_id, request, f"{key}")


def _early_end(job: str, error: RunError | None) -> AppError:
    """Return the error of an experiment whose job has failed or was cancelled."""
    code = ErrorCode.CANCELLED if error is None else error.code
    return AppError(code, f"{job} has ended: {'it was cancelled.' if error is None else error.message}")


def _find_run(runs: RunStore, wanted: EffectiveRequest) -> str | None:
    """Return the newest completed or unfinished run with this request, whose test split is as open."""
    wanted_hash = request_hash(wanted)
    for run in runs.all():
        record = run.record()
        if record.request_hash == wanted_hash and record.effective.test == wanted.test:
            end = run.manifest()
            if end.status == "completed" if end is not None else not run.cancel_requested():
                return run.run_id
    return None
