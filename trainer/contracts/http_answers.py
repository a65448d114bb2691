"""Answers of the HTTP API that are no other record: pages and reports of runs, files, accepted cancellations."""

from typing import Literal

from pydantic import Field, JsonValue

from trainer.contracts.base import FileRecord, Frozen, Identifier, KindName
from trainer.contracts.generations import TrainingSample
from trainer.contracts.intervals import Spread
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.parameters import NumberField
from trainer.contracts.reports import Report
from trainer.contracts.runs import EffectiveRequest, RunStatus, SentRequest
from trainer.contracts.training_options import ChosenValue


class ValueTotals(Frozen):
    """All runs of a list that have one value of the setting by which it is sorted."""

    value: str
    """The value; empty for runs without the setting."""
    n_runs: int
    n_completed: int
    numbers: dict[NumberField, Spread]
    """The numbers of the completed runs; the progress is that of all."""


class RunPage(Frozen):
    """Runs in the order that was asked for."""

    runs: tuple[RunStatus, ...]
    total: int
    """Number of runs on all pages, with those that cannot be read; with `by_group`, of groups and single runs."""
    next_cursor: str | None
    """None on the last page."""
    unreadable: tuple[UnreadableJob, ...] = ()
    """The runs that this version of the program cannot read: all of them on the first page of a list of all runs."""
    settings: dict[str, dict[str, str]] = Field(default_factory=dict)
    """The values of the settings that were asked for, by run and name; lists are JSON."""
    varied_settings: tuple[str, ...] = ()
    """The settings that differ among the runs of all pages; only where settings were asked for."""
    totals: tuple[ValueTotals, ...] = ()
    """The values that the runs of this page have of the setting by which they are sorted, each over all pages."""


class RunReport(Report):
    """The report of a run, and the status that it was made from."""

    run: RunStatus


class CheckedTraining(Frozen):
    """A train request that would be accepted, with its estimated cost; nothing was started."""

    request: dict[str, JsonValue]
    """The fields of the request that were given."""
    effective: EffectiveRequest
    """The request of the first run, with all values."""
    seeds: tuple[int, ...]
    chosen: tuple[ChosenValue, ...]
    """The values that the request leaves out and rules have chosen, with their reasons."""
    cost: tuple[str, ...]
    """The estimated time, memory and disk, as sentences."""
    warnings: tuple[str, ...]
    """Warnings about the numbers of the run."""
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out, in sentences."""


class CancelAnswer(Frozen):
    status: Literal["cancellation-requested"] = "cancellation-requested"


class ArtifactFiles(Frozen):
    """The files of a completed run or other job."""

    kind: KindName
    id: Identifier
    files: tuple[FileRecord, ...]
    result_bytes: int
    """Size of these files together."""


class RunRequest(Frozen):
    """The request of a run, and the runs, the experiment and the study that it comes from."""

    run_id: Identifier
    request: SentRequest
    parent_run_id: Identifier | None
    """The run whose weights the training started from."""
    resumed_from_run_id: Identifier | None
    experiment_id: Identifier | None
    study_id: Identifier | None = None


class TrainingSamples(Frozen):
    """Samples that a run has generated during its training, in the order of their steps."""

    run_id: Identifier
    samples: tuple[TrainingSample, ...]
    total: int
    """Number of all samples so far."""


class Curve(Frozen):
    """The curves of a run: pairs of step and number, in the order of the steps.

    Losses are in nats per token. Once the run has ended, losses, gradient norm, learning rate and seconds have a point
    for each row of `loss_curve.jsonl`, and the other curves one for each report. A run on the CPU has no
    `gpu_memory_bytes`, and a run of an older version no `tokens`, `words`, `cpu_cores` and `memory_bytes`: these curves
    are empty.
    """

    run_id: Identifier
    last_event_id: int
    """Number of the last event that the curves have; `Last-Event-ID` of a stream of the events after it."""
    total_points: int
    """Points of the training loss, before the range and the thinning."""
    train: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    grad_norm: tuple[tuple[int, float], ...] = ()
    """Norm of the gradient before clipping."""
    learning_rate: tuple[tuple[int, float], ...] = ()
    tokens_per_second: tuple[tuple[int, float], ...] = ()
    gpu_memory_bytes: tuple[tuple[int, float], ...] = ()
    """Highest use of memory so far, on the GPU that uses most."""
    cpu_cores: tuple[tuple[int, float], ...] = ()
    """Mean number of CPU cores that the training process has used since its report before."""
    memory_bytes: tuple[tuple[int, float], ...] = ()
    """Resident memory of the training process."""
    tokens: tuple[tuple[int, float], ...] = ()
    """Tokens of the training text read so far, over all epochs."""
    words: tuple[tuple[int, float], ...] = ()
    """Words of the training text read so far, over all epochs."""
    seconds: tuple[tuple[int, float], ...] = ()
    """Seconds of all attempts so far, without the time between them."""


class CurveBand(Frozen):
    """Mean, lowest and highest number of several runs, as pairs of step and number.

    Where a run has no number at a step, it has that on the line between its numbers before and after.
    """

    mean: tuple[tuple[int, float], ...]
    low: tuple[tuple[int, float], ...]
    high: tuple[tuple[int, float], ...]


class GroupCurve(Frozen):
    """Bands of the numbers of a group, as in the curves of a run; tokens, words and seconds are means."""

    group_id: Identifier
    total_points: int
    """Points of the longest training loss of a run, before the range and the thinning."""
    train: CurveBand
    validation: CurveBand
    grad_norm: CurveBand
    learning_rate: CurveBand
    tokens_per_second: CurveBand
    gpu_memory_bytes: CurveBand
    cpu_cores: CurveBand
    memory_bytes: CurveBand
    tokens: tuple[tuple[int, float], ...]
    words: tuple[tuple[int, float], ...]
    seconds: tuple[tuple[int, float], ...]
