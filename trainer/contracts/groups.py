"""The status of a group of runs over seeds: its members, and the spread of their numbers."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from trainer.contracts.base import Frozen, Identifier, RunState, Timestamp, describe_fields
from trainer.contracts.baselines import Baseline, mean_baseline
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.intervals import Spread, spread
from trainer.contracts.models import ModelFamily, Objective
from trainer.contracts.runs import FINAL_STATES, RunStatus
from trainer.contracts.wording import counted

GroupNumber = Literal[
    "train_loss",
    "best_val_loss",
    "best_val_bits_per_char",
    "test_loss",
    "test_perplexity",
    "bits_per_char",
    "auc",
]
GROUP_NUMBERS: tuple[GroupNumber, ...] = get_args(GroupNumber)
"""Numbers of a run that a group has the spread of."""


class GroupStatus(Frozen, json_schema_extra=describe_fields):
    group_id: Identifier
    label: str | None
    """The name of the runs; of an experiment's group, of the first one."""
    model_family: ModelFamily
    model_size: str | None
    objective: Objective
    status: RunState
    """completed: all runs have ended, and at least one has completed."""
    message: str
    seeds: tuple[int, ...]
    """The seeds of the group, also those whose runs were deleted."""
    n_completed: int
    progress: float
    """Mean of the runs, in percent."""
    members: tuple[RunStatus, ...]
    """The newest run of each seed, in the order of the seeds."""
    numbers: dict[GroupNumber, Spread]
    """The numbers of the completed runs; failed and cancelled ones do not count."""
    created_at: Timestamp
    finished_at: Timestamp | None

    @property
    def has_ended(self) -> bool:
        return all(member.has_ended for member in self.members)

    @property
    def depends_on_seeds(self) -> bool:
        """False for n-grams, which are counted."""
        return self.model_family != "ngram"

    @property
    def unknown_char_share(self) -> float | None:
        """The largest share of unknown characters in a run."""
        return max((one.unknown_char_share or 0.0 for one in self.members), default=None)

    @property
    def baseline(self) -> Baseline | None:
        """The baseline of the completed runs together; None where one of them has none."""
        found = [one.baseline for one in self.of_state("completed")]
        known = [one for one in found if one is not None]
        return mean_baseline(known) if known and len(known) == len(found) else None

    def with_completed(self) -> tuple[RunStatus, ...]:
        """Return the completed runs; raises RUN_NOT_READY if there is none."""
        completed = self.of_state("completed")
        if not completed:
            raise AppError(ErrorCode.RUN_NOT_READY, f"No run of the group '{self.group_id}' has completed.")
        return completed

    def left_out(self) -> tuple[str, ...]:
        """Return the seeds without a completed run, each with the state of its run: `seed 3 (failed)`."""
        states = {member.seed: member.status for member in self.members}
        found = ((seed, states.get(seed, "deleted")) for seed in self.seeds)
        return tuple(f"seed {seed} ({state})" for seed, state in found if state != "completed")

    def of_state(self, *states: RunState) -> tuple[RunStatus, ...]:
        """Return the runs in these states."""
        return tuple(member for member in self.members if member.status in states)


def group_status(group_id: str, statuses: Iterable[RunStatus]) -> GroupStatus:
    """Return the status of a group, given the statuses of all of its runs; raises RUN_NOT_FOUND without any."""
    newest: dict[int | None, RunStatus] = {}
    for status in sorted(statuses, key=_created_at):
        newest[status.seed] = status  # a run that resumes another takes its place
    if not newest:
        raise AppError(
            ErrorCode.RUN_NOT_FOUND, f"There is no run or group '{group_id}': check its id, or list the runs."
        )
    first = next(iter(newest.values()))
    seeds = tuple(seed for seed in newest if seed is not None) if first.group is None else first.group.seeds
    members = tuple(newest[seed] for seed in seeds if seed in newest)
    completed = [member for member in members if member.status == "completed"]
    state = _state(members)
    ends = [member.finished_at for member in members if member.finished_at is not None]
    return GroupStatus(
        group_id=group_id,
        label=first.label,
        model_family=first.model_family,
        model_size=first.model_size,
        objective=first.objective,
        status=state,
        message=_message(members),
        seeds=seeds,
        n_completed=len(completed),
        progress=sum(member.progress for member in members) / len(members),
        members=members,
        numbers=_numbers(completed),
        created_at=min(member.created_at for member in members),
        finished_at=max(ends) if state in FINAL_STATES and ends else None,
    )


def finished_group_error(group_id: str) -> AppError:
    """Return the refusal to cancel a group whose runs have all ended."""
    return AppError(ErrorCode.RUN_FINISHED, f"All runs of the group '{group_id}' have already ended.")


class RunRows:
    """The newest runs of a list, in which the runs of a group are one row."""

    def __init__(self, limit: int, *, by_group: bool) -> None:
        self.runs: list[RunStatus] = []
        self._names: set[str] = set()
        self._limit, self._by_group = limit, by_group

    def take(self, run: RunStatus) -> bool:
        """Add a run; return False, without adding it, if it would begin a row too many."""
        name = run.group.group_id if self._by_group and run.group is not None else run.run_id
        if name not in self._names and len(self._names) == self._limit:
            return False
        self._names.add(name)
        self.runs.append(run)
        return True


def _created_at(status: RunStatus) -> Timestamp:
    return status.created_at


def _state(members: Sequence[RunStatus]) -> RunState:
    """Return the state of the unfinished runs that is nearest to their end; of ended runs, the best."""
    states: set[RunState] = {member.status for member in members}
    order: tuple[RunState, ...] = ("running", "queued", "paused", "completed", "failed", "cancelled")
    return next(state for state in order if state in states)


def _message(members: Sequence[RunStatus]) -> str:
    """Return how many runs there are of each state."""
    states: list[RunState] = ["completed", "running", "queued", "paused", "failed", "cancelled"]
    counts = {state: sum(member.status == state for member in members) for state in states}
    return f"{counted(len(members), 'run')}: {', '.join(f'{n} {state}' for state, n in counts.items() if n)}."


def _numbers(completed: Sequence[RunStatus]) -> dict[GroupNumber, Spread]:
    values: dict[GroupNumber, list[float]] = {}
    for name in GROUP_NUMBERS:
        for run in completed:
            value: float | None = getattr(run, name)
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: spread(found, 1.0 if name == "test_perplexity" else 0.0) for name, found in values.items()}
