"""The unit of losses and surprisals that people read, and the digits of the figures; records and files are in nats."""

from math import exp, log
from typing import Literal, get_args

Unit = Literal["bits", "nats"]
UNITS: tuple[Unit, ...] = get_args(Unit)
UNIT_NOTE = "1 nat = 1.443 bits; one bit is the surprisal of a fair coin's toss."
LOSS_DIGITS = 3
"""Decimals of losses, mean surprisals and figures per character, also of their differences and intervals."""
SURPRISAL_DIGITS = 2
"""Decimals of the surprisal of one token, word or region, and of sums of surprisals."""
PERPLEXITY_DIGITS = 2
SHARE_DIGITS = 1
"""Decimals of percentages."""


def in_unit(nats: float | None, unit: Unit) -> float:
    """Return a surprisal or loss in a unit; 0 if there is none."""
    return (nats or 0.0) / (log(2) if unit == "bits" else 1.0)


def bits_in_unit(bits: float, unit: Unit) -> float:
    """Return bits, such as those per character, in a unit."""
    return bits if unit == "bits" else bits * log(2)


def loss_number(nats: float, unit: Unit, sign: str = "") -> str:
    """Return a loss, a mean surprisal or a difference of them in a unit; `sign="+"` shows the sign of positive ones."""
    return f"{in_unit(nats, unit):{sign}z.{LOSS_DIGITS}f}"


def per_char_number(bits: float, unit: Unit, sign: str = "") -> str:
    """Return bits per character, or a difference of them, as a number in a unit."""
    return f"{bits_in_unit(bits, unit):{sign}z.{LOSS_DIGITS}f}"


def surprisal_number(nats: float, unit: Unit) -> str:
    """Return a surprisal of a token, word or region, or a sum of surprisals, as a number in a unit."""
    return f"{in_unit(nats, unit):z.{SURPRISAL_DIGITS}f}"


def perplexity_number(perplexity: float, sign: str = "") -> str:
    return f"{perplexity:{sign}z.{PERPLEXITY_DIGITS}f}"


def share_number(share: float, sign: str = "") -> str:
    """Return a share in percent."""
    return f"{share:{sign}z.{SHARE_DIGITS}%}"


def perplexity(loss_nats: float) -> float:
    """Return exp(loss), at most the largest float."""
    return exp(min(loss_nats, 709.0))
