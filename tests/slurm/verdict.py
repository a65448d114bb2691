"""Judges the runs of a campaign on Slurm: each completed once, and equal to the same training without Slurm."""

from collections.abc import Sequence

from pydantic import BaseModel

from tests.chaos.campaign import result_of
from tests.chaos.verdict import event_faults
from tests.slurm.campaign import Interruption, Outcome
from tests.support import Process
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import CheckpointSaved, JobCompleted, JobProgress, JobStarted


def faults_of(outcome: Outcome, left: Sequence[Process]) -> list[str]:
    """Return the broken promises in words."""
    faults: list[str] = []
    for run, reference in zip(outcome.runs, outcome.references, strict=True):
        manifest = run.manifest()
        if manifest is None or manifest.status != "completed":
            faults.append(f"{run.run_id} did not complete: {manifest and manifest.error}")
            continue
        completed = sum(isinstance(event, JobCompleted) for event in run.reader().read_new())
        if completed != 1:
            faults.append(f"{run.run_id} completed {completed} times")
        faults += event_faults(run)
        if result_of(run) != reference:
            faults.append(f"{run.run_id} has another result than the same training without Slurm")
    runs = {run.run_id: run for run in outcome.runs}
    preempted, lost = outcome.preempted, outcome.lost
    if preempted.job_id not in outcome.preempted_jobs:
        faults.append(f"Slurm's log has no preemption of job {preempted.job_id}, which trained {preempted.run_id}")
    if lost.job_id not in outcome.jobs_of_lost_nodes:
        faults.append(f"Slurm's log has no lost node of job {lost.job_id}, which trained {lost.run_id}")
    faults += _resume_faults(runs[preempted.run_id], preempted, is_paused=True)
    faults += _resume_faults(runs[lost.run_id], lost, is_paused=False)
    if restarts := [log for log in outcome.worker_logs if "worker_idle" not in log]:
        faults.append(f"{len(restarts)} tasks of the array ended otherwise than by --until-idle")
    return faults + [f"still running: {process.command}" for process in left]


def attempts_of(run: RunDirectory) -> int:
    return sum(isinstance(event, JobStarted) for event in run.reader().read_new())


def _resume_faults(run: RunDirectory, interruption: Interruption, *, is_paused: bool) -> list[str]:
    """Return what is wrong with the pause and the resume of an interrupted run."""
    name = run.run_id
    events = run.reader().read_new()
    starts = [number for number, event in enumerate(events) if isinstance(event, JobStarted)]
    if len(starts) < 2:
        return [f"{name} ended before its worker was interrupted"]
    first = events[starts[0] : starts[1]]
    saved = [event.step for event in first if isinstance(event, CheckpointSaved)]
    if not saved:
        return [f"{name} had no checkpoint when its worker was interrupted"]
    paused = [event for event in first if isinstance(event, JobProgress) and event.event_id == f"{name}:paused:1:1"]
    if not is_paused and paused:
        return [f"{name} was paused, although its node was lost"]
    if is_paused and (not paused or paused[0].ts.timestamp() < interruption.at):
        return [f"{name} was not paused when its worker was preempted"]
    steps = _steps_of_attempts(run)
    last, resumed = steps[0][-1], steps[1][0]
    if is_paused and saved[-1] < last:
        return [f"{name} was paused after step {last}, but saved only step {saved[-1]}"]
    if resumed <= min(saved[-1], last) or (is_paused and resumed != last + 1):
        return [f"{name} continued with step {resumed} after step {last}, with a checkpoint of step {saved[-1]}"]
    return []


class _Line(BaseModel):
    """A line of a run's log."""

    message: str
    step: int = 0


def _steps_of_attempts(run: RunDirectory) -> list[list[int]]:
    """Return the steps that each attempt trained, from the run's log."""
    steps: list[list[int]] = []
    for text in run.logs.read_text(encoding="utf-8").splitlines():
        line = _Line.model_validate_json(text)
        if line.message == "attempt_started":
            steps.append([])
        if line.message == "training":
            steps[-1].append(line.step)
    return steps
