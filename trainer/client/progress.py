"""Progress bars of `trainer.Client`, for terminals and notebooks."""

import sys
from collections.abc import Callable
from typing import TextIO

_WIDTH = 20


def transfer_bar(title: str) -> Callable[[int, int], None]:
    """Return a function that draws the progress of a transfer, given the bytes done and all bytes."""
    return work_bar(title, lambda total: f"{total / 1e6:,.1f} MB")


def work_bar(title: str, size: Callable[[int], str] = "{:,}".format) -> Callable[[int, int], None]:
    """Return a function that draws the progress of a job in one line, given what is done and all there is to do.

    It writes to standard error of a terminal or a notebook; elsewhere it writes nothing.
    """
    stream: TextIO = sys.stderr
    if not stream.isatty() and "ipykernel" not in sys.modules:
        return lambda done, total: None

    drawn: tuple[int, int] | None = None

    def draw(done: int, total: int) -> None:
        nonlocal drawn
        if drawn == (done, total):
            return
        drawn = done, total
        share = done / total if total else 1.0
        bar = "█" * round(share * _WIDTH)
        end = "\n" if done >= total else ""
        stream.write(f"\r{title} {bar:·<{_WIDTH}} {share:4.0%} of {size(total)}{end}")
        stream.flush()

    return draw
