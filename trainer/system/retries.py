"""Seconds between retries."""

import random
from collections.abc import Iterator


def back_off(first_seconds: float, max_seconds: float) -> Iterator[float]:
    """Yield seconds to wait before each retry: doubled each time, with up to half less at random."""
    seconds = first_seconds
    while True:
        yield seconds * random.uniform(0.5, 1)  # noqa: S311
        seconds = min(max_seconds, seconds * 2)
