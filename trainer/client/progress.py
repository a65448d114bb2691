"""Progress bars of `trainer.Client`, for terminals and notebooks."""

import sys
from collections.abc import Callable
from typing import TextIO

_WIDTH = 20


def transfer_bar(title: str) -> Callable[[int, int], None]:
    """Return a function that draws the progress of a transfer in one line, given the bytes done and all bytes.

    It writes to standard error of a terminal or a notebook; elsewhere it writes nothing.
    """
    stream: TextIO = sys.stderr
    if not stream.isatty() and "ipykernel" not in sys.modules:
        return lambda done, total: None

    def draw(done: int, total: int) -> None:
        share = done / total if total else 1.0
        bar = "█" * round(share * _WIDTH)
        end = "\n" if done >= total else ""
        stream.write(f"\r{title} {bar:·<{_WIDTH}} {share:4.0%} of {total / 1e6:,.1f} MB{end}")
        stream.flush()

    return draw
