"""Losses of the sections of a text, given token by token."""

import numpy as np

from trainer.experiments.sections import TextLosses

Token = tuple[int, int, int, float, bool]
"""Section, start, end, loss, unknown."""


def losses_of(tokens: list[Token]) -> TextLosses:
    section, start, end = ([int(token[column]) for token in tokens] for column in (0, 1, 2))
    nats, is_unknown = [token[3] for token in tokens], [token[4] for token in tokens]
    return TextLosses(
        np.array(section, dtype=np.int64),
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.array(nats, dtype=np.float64),
        np.array(is_unknown, dtype=np.bool_),
    )
