"""Runs a study in the worker: starts its trainings, has the winner's measured on the test split, writes the result.

Everything that has been done is read from the disk, so that a worker that was killed is continued by the next one.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from trainer.artifacts.attempts import was_never_trained
from trainer.artifacts.job_folder import REPORT_FILE
from trainer.artifacts.studies import StudyDirectory
from trainer.config.studies import Trials, finalists_of, loss_of, of_trial, planned, variant_of, winner_of
from trainer.config.winner_differences import winner_differences
from trainer.contracts.base import HttpOrigin, changed
from trainer.contracts.baselines import Baseline, mean_baseline
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.intervals import LineLosses
from trainer.contracts.runs import HeldOutSplit, RunManifest, TrainRequest
from trainer.contracts.seeds import RunGroup, listed_seeds
from trainer.contracts.studies import LossEstimate, StudyFinalist, StudyResult, StudyTest, TrialKey, WinnerDifference
from trainer.queue.resolution import gather
from trainer.queue.resolve import TrainingPreview
from trainer.queue.speed import measure_pace
from trainer.queue.studies import resolve_study
from trainer.reports.report_html import report_html
from trainer.reports.study_report import study_report
from trainer.worker.steps import POLL_SECONDS, Cancelled, Steps


class StudySteps:
    """The steps of one study."""

    def __init__(self, study: StudyDirectory, steps: Steps) -> None:
        self._study = study
        self._steps = steps
        self._queue = steps.queue
        self._record = study.record()
        http = self._record.http
        self._http = None if http is None else HttpOrigin(api_key=http.api_key)

    async def run(self) -> None:
        """Do all steps that have not been done yet."""
        try:
            self._steps.check_cancelled()
            await self._measure()
            trials = await self._train()
            winner = winner_of(self._record, trials)
            if winner is None:
                raise _without_winner(trials)
            await self._read_test(trials)
            await asyncio.to_thread(self._write_result, trials, winner)
        except Cancelled:
            for run in await asyncio.to_thread(self._study.unfinished_runs):
                with suppress(AppError):  # it has just ended
                    await self._queue.states.cancel(run.run_id)
            raise

    async def _measure(self) -> None:
        """Measure trainings that have `minutes`, before the first, so that all have the size that this machine can."""
        record, queue = self._record, self._queue
        request = record.variants[0].request
        trials: Trials = await asyncio.to_thread(self._study.trials)
        if request.minutes is None or record.pace is not None or trials:
            return
        settings, corpora = self._steps.settings, queue.corpora

        async def allow(training: TrainRequest) -> TrainRequest:
            """Return a training as it was allowed when the study was accepted."""
            return changed(training, sample_prompts=request.sample_prompts)

        facts = await gather(request, corpora, settings)
        pace = await asyncio.to_thread(measure_pace, request, facts, settings)
        if pace is not None:
            found = await resolve_study(
                record.request, corpora, settings, allow, user_id=record.user_id, http=record.http, pace=pace
            )
            self._record = changed(record, variants=found.variants, pace=pace)
            await asyncio.to_thread(self._study.replace_record, self._record)

    async def _train(self) -> Trials:
        """Start trainings, a few at a time, until no more are needed and all have ended; return them."""
        slots = self._steps.settings.queue.training_slots + 1
        while True:
            self._steps.check_cancelled()
            trials: Trials = await asyncio.to_thread(self._study.trials)
            open_keys = [key for key in planned(self._record, trials) if key not in trials]
            n_unfinished = sum(not trial.has_ended for trial in trials.values())
            if not open_keys and not n_unfinished:
                return trials
            for key in open_keys[: max(0, slots - n_unfinished)]:
                await self._start(key)
            await asyncio.sleep(POLL_SECONDS)

    async def _start(self, key: TrialKey) -> None:
        """Start a training; one that another machine has started before is that run."""
        record, run_id = self._record, await self._next_run_id(key)
        variant, effective = variant_of(record, key), of_trial(record, key)
        request = changed(variant.request, seed=effective.seed, label=effective.label, tags=effective.tags)
        if key.phase == "round":
            length: dict[str, object] = effective.model_dump(include={"max_steps", "minutes", "max_seconds"})
            request = changed(request, early_stopping=effective.early_stopping, **length)
        preview = TrainingPreview(
            request=request,
            effective=effective,
            cost=variant.cost,
            leaks={},
            notes=variant.notes,
            corpora=self._queue.corpora,
            requested_paths=None,
            unused_settings={},
            seeds=(effective.seed,),
            chosen=variant.chosen,
            pace=record.pace,
        )
        await self._queue.accept(
            preview,
            user_id=record.user_id,
            http=self._http,
            study=(record.study_id, run_id),
            group=self._group(key),
        )
        self._steps.log.info("study_run_started", run_id=run_id)

    async def _next_run_id(self, key: TrialKey) -> str:
        """Return the id of the run of a training: another one if the last one ended before its first step."""
        run_ids = key.tries(self._record, self._record.attempt)
        for run_id in run_ids:
            await self._queue.replication.fetch("models", run_id)
            run = self._queue.runs.find(run_id)
            if run is None or not await asyncio.to_thread(was_never_trained, run):
                return run_id
        return run_ids[-1]

    def _group(self, key: TrialKey) -> RunGroup | None:
        """Return the group of the full trainings of a setting, which differ in their seeds."""
        asked = self._record.request
        number = {"round": 1, "final": asked.seeds, "test": asked.test_seeds}[key.phase]
        if number == 1:
            return None
        first = asked.seed + (1 if key.phase == "final" else asked.seeds + 1)
        name = f"{self._record.study_id}-{key.phase}-v{key.variant}"
        return RunGroup(group_id=name, seeds=listed_seeds(number, first))

    async def _read_test(self, trials: Trials) -> None:
        """Count the look at the test split by the winner's trainings together, then let each be measured on it."""
        runs = _of_test(trials)
        if not runs:
            return
        effective = (await asyncio.to_thread(self._queue.runs.get(runs[0]).record)).effective
        looks = self._queue.stores.looks
        await asyncio.to_thread(looks.record, effective.test_id, runs, "study", self._record.owner)
        await self._queue.replication.share_looks()
        for run_id in runs:
            manifest: RunManifest = await asyncio.to_thread(self._queue.runs.get(run_id).completed_manifest)
            if manifest.evaluation("test") is None:
                await self._steps.ask(run_id, EvalRequest(split="test"), f"the winner's run {run_id}")
                await self._queue.replication.fetch("models", run_id)

    def _write_result(self, trials: Trials, winner: int) -> None:
        """Write the result and the report of the study."""
        record, runs = self._record, _of_test(trials)
        if record.request.read_test and not runs:
            raise _without_test(trials)
        settings = {variant.number: variant.setting for variant in record.variants}
        differences = self._differences(trials, winner)
        result = StudyResult(
            study_id=record.study_id,
            name=record.request.name,
            objective=record.variants[0].effective.objective,
            variants=tuple(settings.values()),
            trials=tuple(trials.values()),
            finalists=tuple(
                self._finalist(number, trials, differences.get(number)) for number in finalists_of(record, trials)
            ),
            winner=settings[winner],
            test=self._test(runs) if runs else None,
        )
        report = study_report(result, record.request)
        files = {"report.html": report_html(report, {}), REPORT_FILE: report.model_dump_json()}
        self._study.write_result(result, files)

    def _differences(self, trials: Trials, winner: int) -> dict[int, WinnerDifference]:
        """Return the difference of the winner from each finalist that knows as much of the text, by its number."""
        losses, shares, is_causal = dict[int, dict[int, LineLosses]](), dict[int, float](), True
        for key, trial in trials.items():
            if (key.phase, trial.status) == ("final", "completed"):
                manifest = self._queue.runs.get(trial.run_id).completed_manifest()
                is_causal = manifest.effective.objective == "causal_lm"
                if (measured := manifest.evaluation("validation")) is not None:
                    losses.setdefault(key.variant, {})[trial.seed] = measured.lines
                    shares[key.variant] = trial.unknown
        comparable = {number: one for number, one in losses.items() if shares[number] == shares[winner]}
        return winner_differences(comparable, winner, per_char=is_causal)

    def _finalist(self, number: int, trials: Trials, difference: WinnerDifference | None) -> StudyFinalist:
        own = [trial for key, trial in trials.items() if (key.phase, key.variant) == ("final", number)]
        completed = [trial.run_id for trial in own if trial.status == "completed"]
        loss, bits_per_char = self._losses(completed, "validation") if completed else (None, None)
        return StudyFinalist(
            variant=number,
            name=own[0].name,
            n_completed=len(completed),
            n_lost=sum(trial.is_measured for trial in own) - len(completed),
            val_loss=loss,
            val_bits_per_char=bits_per_char,
            winner_difference=difference,
            baseline=self._baseline(completed, "validation"),
        )

    def _test(self, runs: Sequence[str]) -> StudyTest:
        loss, bits_per_char = self._losses(runs, "test")
        effective = self._queue.runs.get(runs[0]).completed_manifest().effective
        return StudyTest(
            run_ids=tuple(runs),
            test_loss=loss,
            bits_per_char=bits_per_char,
            looks=self._queue.stores.looks.count(effective),
            baseline=self._baseline(runs, "test"),
        )

    def _baseline(self, runs: Sequence[str], split: HeldOutSplit) -> Baseline | None:
        """Return counting beside the mean of runs; None without runs, and for masked models."""
        manifests = [self._queue.runs.get(run_id).completed_manifest() for run_id in runs]
        baselines = [one.baselines[split] for one in manifests if split in one.baselines]
        return mean_baseline(baselines) if baselines else None

    def _losses(self, runs: Sequence[str], split: HeldOutSplit) -> tuple[LossEstimate, LossEstimate | None]:
        """Return the losses of runs on a split in nats per token and, of a causal model, in bits per character."""
        manifests = [self._queue.runs.get(run_id).completed_manifest() for run_id in runs]
        lines = [measured.lines for one in manifests if (measured := one.evaluation(split)) is not None]
        is_causal = manifests[0].effective.objective == "causal_lm"
        return loss_of(lines), loss_of(lines, per_char=True) if is_causal else None


def _of_test(trials: Trials) -> list[str]:
    """Return the runs of the winner that are measured on the test split."""
    return [one.run_id for key, one in trials.items() if (key.phase, one.status) == ("test", "completed")]


def _without_winner(trials: Trials) -> AppError:
    """Return the error of a study none of whose settings could be trained."""
    reasons = [one.reason for one in trials.values() if one.reason is not None]
    reason = f" The last one: {reasons[-1]}" if reasons else ""
    return AppError(ErrorCode.MODEL_TRAIN_FAILED, f"No setting is left, because its trainings failed.{reason}")


def _without_test(trials: Trials) -> AppError:
    """Return the error of a study whose winner could not be trained again."""
    reason = next((one.reason for key, one in trials.items() if key.phase == "test" and one.reason is not None), "")
    return AppError(ErrorCode.MODEL_TRAIN_FAILED, f"The winner could not be trained for the test. {reason}")
