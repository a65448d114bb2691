"""Train and query small language models: `trainer.load` returns a model, `trainer.Client` those of a server."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainer.api import Model
    from trainer.client.client import Client as Client


def load(source: "str | Path") -> "Model":
    """Load a finished run by its name, its id, `last` or its folder, or a folder of `mt export --format hf`.

    Needs no server.
    `trainer.load("RUN").surprisal("text")` returns the surprisal of each token in nats with its position in the text.
    Raises `trainer.contracts.errors.AppError`.
    """
    from trainer.contracts.errors import AppError

    try:
        with _naming_extra("train"):
            from trainer.api import Model  # imports torch

            return Model.load(source)
    except AppError as error:  # its sentence tells a user all that its traceback would
        raise error.with_traceback(None) from None


@contextmanager
def _naming_extra(extra: str) -> "Iterator[None]":
    """Raise UNSUPPORTED_BACKEND with the command that installs an extra, where a library of it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        from trainer.contracts.installation import extras_needed, missing_extras

        if extra not in missing_extras():
            raise
        raise extras_needed(extra) from error


def __getattr__(name: str) -> object:
    """Import `Client` at its first use."""
    if name == "Client":
        from trainer.client.client import Client

        return Client
    raise AttributeError(f"module 'trainer' has no attribute '{name}'")
