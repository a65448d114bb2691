"""Leaks between the splits of a run: held-out text that stands in the training split as well."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.contracts.base import Frozen, describe_fields

HeldOutSplit = Literal["validation", "test"]
HELD_OUT_SPLITS: tuple[HeldOutSplit, ...] = ("validation", "test")
LEAK_WORDS, LEAK_CHARACTERS = 13, 50
"""Lengths of the n-grams that are compared."""
MAX_LEAK_SHARE = 0.01
"""Larger shares of held-out text in the training split are warned of."""
_Share = Annotated[float, Field(ge=0, le=1)]


class Leak(Frozen, json_schema_extra=describe_fields):
    """Shares of a held-out split that stand in the training split; of a long split, of a sample drawn by seed."""

    lines: _Share
    """Share of the lines that are equal to a training line."""
    words: _Share | None = None
    """Share of the 13-grams of words that stand in training text; None if the split has none."""
    characters: _Share | None = None
    """Share of the 50-grams of characters that stand in training text; None if the split has none or many words."""

    @property
    def is_large(self) -> bool:
        return max(self.lines, self.words or 0.0, self.characters or 0.0) > MAX_LEAK_SHARE

    def shares(self) -> str:
        """Return the shares that are known, in words."""
        shares = (
            (self.lines, "lines"),
            (self.words, f"{LEAK_WORDS}-grams of words"),
            (self.characters, f"{LEAK_CHARACTERS}-grams of characters"),
        )
        *first, last = [f"{share:.1%} of the {what}" for share, what in shares if share is not None]
        return f"{', '.join(first)} and {last}" if first else last


Leaks = dict[HeldOutSplit, Leak]
