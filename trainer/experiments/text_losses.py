"""The losses of a text by one run, token by token: what all modes, tables and intervals are computed from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.system.files import write_atomically

_COLUMNS = 5


class TextLosses(NamedTuple):
    """The tokens of all sections of a text, in order: arrays of equal length."""

    section: NDArray[np.int64]
    """Number of the token's section, from 0."""
    start: NDArray[np.int64]
    """First character of the token in its section."""
    end: NDArray[np.int64]
    """The character behind its last one."""
    loss_nats: NDArray[np.float64]
    """-ln p of the token given the tokens before it in the section; NaN for the first token, which is not scored."""
    is_unknown: NDArray[np.bool_]
    """The token is the model's unknown token."""

    def save(self, path: Path) -> None:
        """Write the losses, column by column as 64-bit floats; the file appears complete."""
        path.parent.mkdir(exist_ok=True)
        columns: NDArray[np.float64] = np.stack(
            (self.section, self.start, self.end, self.loss_nats, self.is_unknown), dtype=np.float64
        )
        write_atomically(path, columns.tobytes())

    @classmethod
    def load(cls, path: Path) -> "TextLosses":
        """Read stored losses; raises DATA_NOT_FOUND for a damaged file."""
        stored: NDArray[np.float64] = np.fromfile(path, dtype=np.float64)
        if len(stored) % _COLUMNS or path.stat().st_size % (8 * _COLUMNS):
            raise AppError(ErrorCode.DATA_NOT_FOUND, "Stored losses of an experiment are damaged: run it again.")
        section, start, end, loss_nats, is_unknown = stored.reshape(_COLUMNS, -1)
        return cls(
            section.astype(np.int64),
            start.astype(np.int64),
            end.astype(np.int64),
            loss_nats,
            is_unknown.astype(np.bool_),
        )
