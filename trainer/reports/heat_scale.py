"""Colours of numbers on a scale from light to dark, with a text colour that can be read on each of them."""

from math import pow
from typing import NamedTuple

SCALE_COLOURS = ("#fdfdf0", "#e3f4c1", "#b4e0ba", "#6fc5bf", "#35a1c3", "#2279b5", "#25509c", "#1f2f7a", "#0b1a4f")
"""From low to high. Their lightness falls evenly, so that the order is seen without colours too."""
_DARK, _LIGHT = "#000000", "#ffffff"


class HeatScale(NamedTuple):
    """A range of numbers that is drawn in colours."""

    low: float
    high: float

    def colour(self, value: float) -> str:
        """Return the colour of a number; numbers outside the range have the colour of its end."""
        position = min(max(self._share(value), 0.0), 1.0) * (len(SCALE_COLOURS) - 1)
        lower = min(int(position), len(SCALE_COLOURS) - 2)
        first, second = (bytes.fromhex(colour[1:]) for colour in SCALE_COLOURS[lower : lower + 2])
        mixed = bytes(round(a + (b - a) * (position - lower)) for a, b in zip(first, second, strict=True))
        return f"#{mixed.hex()}"

    def text_colour(self, value: float) -> str:
        """Return black or white, whichever has the higher contrast on the number's colour."""
        behind = luminance(self.colour(value))
        is_dark_better = contrast(behind, luminance(_DARK)) >= contrast(behind, luminance(_LIGHT))
        return _DARK if is_dark_better else _LIGHT

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as the Web Content Accessibility Guidelines define it."""
    parts = [part / 255 for part in bytes.fromhex(colour[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else pow((part + 0.055) / 1.055, 2.4) for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: float, second: float) -> float:
    """Return the contrast ratio of two luminances, from 1 to 21."""
    lighter, darker = max(first, second), min(first, second)
    return (lighter + 0.05) / (darker + 0.05)
