"""The typed core of Model Trainer and its worker; in a notebook, `trainer.load` gives a model to ask."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.api import LoadedModel


def load(source: "str | Path") -> "LoadedModel":
    """Load a finished run by its id or its folder, or a folder that `mt export --format hf` wrote; needs no server.

    `trainer.load("RUN").surprisal("text")` gives the surprisal of each token in nats, with its place in the text.
    Raises `trainer.contracts.errors.AppError`, whose message says what is wrong.
    """
    from trainer.api import load_model  # takes torch along, which only this function needs

    return load_model(source)
