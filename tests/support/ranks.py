"""Trainings by several processes of torchrun, on the CPU: `python -m tests.support.ranks FOLDER CASES`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import TypeAdapter

from tests.support.tiny_models import Run, make_run
from tests.support.trainings import TEXT, after
from trainer.training.checkpoint import CheckpointStore
from trainer.training.loop import TrainingCallbacks, train
from trainer.training.processes import ONE_PROCESS, Processes
from trainer.training.progress import CurveRow

PAUSED_AFTER = 13
"""Calls of `should_stop` before a pause."""
_ROWS = TypeAdapter(list[CurveRow])


class Case(NamedTuple):
    """A training; its folder has a checkpoint if it resumes."""

    name: str
    fields: dict[str, object]
    pauses: bool = False
    resumes: bool = False


_CASES = TypeAdapter(list[Case])


def trained(folder: Path, case: Case, processes: Processes = ONE_PROCESS) -> list[CurveRow]:
    """Train a case and return its curve; the last row has the test loss as its validation loss."""
    run = run_of_case(folder, case, processes.rank)
    store = CheckpointStore(folder / case.name / "checkpoints")
    rows: list[CurveRow] = []
    callbacks = TrainingCallbacks(rows.append)
    if case.pauses and processes.is_first:
        callbacks = TrainingCallbacks(rows.append, should_stop=after(PAUSED_AFTER, "pause"))
    checkpoint = store.recover().checkpoint if case.resumes else None
    result = train(
        run.fresh_model(),
        run.corpus,
        run.effective,
        run.compute,
        store,
        resume=checkpoint,
        callbacks=callbacks,
        processes=processes,
    )
    if result.test is not None:
        rows.append(CurveRow(step=-1, epoch=0, lr=0, tokens=0, elapsed_seconds=0, val_loss=result.test.loss_nats))
    return rows


def run_of_case(folder: Path, case: Case, rank: int) -> Run:
    own = folder / case.name / f"rank-{rank}"
    own.mkdir(parents=True, exist_ok=True)
    return make_run(own, TEXT, **case.fields)


def trained_by_two(folder: Path, cases: list[Case]) -> dict[str, list[CurveRow]]:
    """Train cases, one after another, in two processes; return their curves by name."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    given = _CASES.dump_json(cases).decode()
    subprocess.run([*torchrun, "-m", "tests.support.ranks", str(folder), given], check=True)
    return {case.name: _ROWS.validate_json((folder / f"{case.name}.json").read_bytes()) for case in cases}


def main() -> None:
    from trainer.training.distributed import DistributedProcesses

    torch.set_num_threads(1)
    folder, processes = Path(sys.argv[1]), DistributedProcesses(torch.device("cpu"))
    for case in _CASES.validate_json(sys.argv[2]):
        rows = trained(folder, case, processes)
        if processes.is_first:
            (folder / f"{case.name}.json").write_bytes(_ROWS.dump_json(rows))
    assert processes.each(10 + processes.rank) == (10, 11)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
