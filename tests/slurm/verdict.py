"""Judges the runs of a campaign on Slurm: each completed once, and equal to the same training without Slurm."""

from collections.abc import Sequence

from tests.chaos.campaign import result_of
from tests.chaos.verdict import event_faults
from tests.slurm.campaign import Interruption, Outcome
from tests.support import Process
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import CheckpointSaved, JobCompleted, JobStarted, MetricsProgress


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
    faults += _resume_faults(runs[outcome.preempted.run_id], outcome.preempted, saves_at_end=True)
    faults += _resume_faults(runs[outcome.lost.run_id], outcome.lost, saves_at_end=False)
    if restarts := [log for log in outcome.worker_logs if "worker_idle" not in log]:
        faults.append(f"{len(restarts)} tasks of the array ended otherwise than by --until-idle")
    return faults + [f"still running: {process.command}" for process in left]


def attempts_of(run: RunDirectory) -> int:
    return sum(isinstance(event, JobStarted) for event in run.reader().read_new())


def _resume_faults(run: RunDirectory, interruption: Interruption, *, saves_at_end: bool) -> list[str]:
    """Return what is wrong with the resume of an interrupted run."""
    events = run.reader().read_new()
    starts = [number for number, event in enumerate(events) if isinstance(event, JobStarted)]
    if len(starts) < 2:
        return [f"{run.run_id} ended before its worker was interrupted"]
    saved = [event for event in events[: starts[1]] if isinstance(event, CheckpointSaved)]
    if not saved:
        return [f"{run.run_id} had no checkpoint when its worker was interrupted"]
    if saves_at_end and saved[-1].ts.timestamp() < interruption.at:
        return [f"{run.run_id} saved no checkpoint when its worker was preempted"]
    steps = [event.step for event in events[starts[1] :] if isinstance(event, MetricsProgress)]
    if steps[0] <= saved[-1].step:
        return [f"{run.run_id} repeated step {steps[0]}, although it had a checkpoint of step {saved[-1].step}"]
    return []
