"""The unit of losses and surprisals that people read, and the digits of the figures; records and files are in nats."""

from math import log
from typing import Literal

Unit = Literal["bits", "nats"]
UNIT_NOTE = "1 nat = 1.443 bits; one bit is the surprisal of a fair coin's toss."
LOSS_DIGITS = 3
"""Of losses, mean surprisals, figures per character, and their differences and intervals."""
SURPRISAL_DIGITS = 2
"""Of the surprisal of a single token, word or region, and of sums."""
PERPLEXITY_DIGITS = 2
SHARE_DIGITS = 1
"""Of percentages."""


def in_unit(nats: float | None, unit: Unit) -> float:
    """Return a surprisal or loss in a unit; 0 if there is none."""
    return (nats or 0.0) / (log(2) if unit == "bits" else 1.0)


def bits_in_unit(bits: float, unit: Unit) -> float:
    """Return bits, such as those per character, in a unit."""
    return bits if unit == "bits" else bits * log(2)
