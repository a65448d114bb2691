"""Runs large enough to be interrupted."""

from typing import NamedTuple

from tests.support.worker_runs import losses
from trainer.artifacts.runs import RunDirectory

LARGE: dict[str, object] = {"embedding_size": 8, "hidden_size": 256, "num_layers": 1, "dropout": 0.1}
"""Enough for a checkpoint of some MB and for steps of some milliseconds."""


class Outcome(NamedTuple):
    """The result of a training, to the last bit."""

    curve: list[tuple[int, str]]
    weights_sha256: str


def outcome(run: RunDirectory) -> Outcome:
    files = {file.path: file.sha256 for file in run.completed_manifest().files}
    return Outcome(losses(run.loss_curve), files["model.safetensors"])
