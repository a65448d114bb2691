"""Runs large enough to be interrupted."""

from typing import NamedTuple

from trainer.artifacts.runs import RunDirectory
from trainer.training.progress import CurveRow

LARGE: dict[str, object] = {"embedding_size": 8, "hidden_size": 256, "num_layers": 1, "dropout": 0.1}
"""Enough for a checkpoint of some MB and for steps of some milliseconds."""


class Outcome(NamedTuple):
    """The result of a training, to the last bit."""

    curve: list[tuple[int, str]]
    weights_sha256: str


def outcome(run: RunDirectory) -> Outcome:
    rows = [CurveRow.model_validate_json(line) for line in run.loss_curve.read_text(encoding="utf-8").splitlines()]
    files = {file.path: file.sha256 for file in run.completed_manifest().files}
    curve = [(row.step, row.train_loss.hex()) for row in rows if row.train_loss is not None]
    return Outcome(curve, files["model.safetensors"])
