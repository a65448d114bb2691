"""Train and query small language models. `trainer.load` returns a model for notebooks."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.api import Model


def load(source: "str | Path") -> "Model":
    """Load a finished run by its id or folder, or a folder of `mt export --format hf`. Needs no server.

    `trainer.load("RUN").surprisal("text")` returns the surprisal of each token in nats with its position in the text.
    Raises `trainer.contracts.errors.AppError`.
    """
    from trainer.api import Model  # imports torch

    return Model.load(source)
