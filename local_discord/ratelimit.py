"""Discord's rate limits: fixed windows per channel for messages, and one for all requests."""

import math
import time
from typing import NamedTuple


class Limit(NamedTuple):
    """A number of `requests` in `window_seconds`."""

    requests: int
    window_seconds: float


# Discord's headers for one channel's messages; and the documented 50 per second for all requests.
MESSAGES = Limit(5, 5.0)
OVERALL = Limit(50, 1.0)
_LIMITED = ("create_message", "update_message")


class _Window:
    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._ends_seconds = 0.0
        self._left = 0

    def take(self, now_seconds: float) -> tuple[int, float]:
        """Return the number of requests left (negative: refused) and the seconds until the window ends."""
        if now_seconds >= self._ends_seconds:
            self._ends_seconds = now_seconds + self._limit.window_seconds
            self._left = self._limit.requests
        self._left -= 1
        return self._left, self._ends_seconds - now_seconds


class RateLimiter:
    """Counts requests; each message operation has the limit `messages` per channel, all requests that of `overall`."""

    def __init__(self, messages: Limit, overall: Limit) -> None:
        self._messages = messages
        self._windows: dict[str, _Window] = {}
        self._overall = _Window(overall)

    def take(self, operation_id: str, channel: str, *, counts_overall: bool) -> tuple[dict[str, str], float | None]:
        """Return the headers to send, and for a refused request the seconds to wait."""
        now = time.monotonic()
        if counts_overall:
            left, ends = self._overall.take(now)
            if left < 0:
                headers = {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
                return {**headers, "Retry-After": str(math.ceil(ends))}, ends
        if operation_id not in _LIMITED:
            return {}, None
        left, ends = self._windows.setdefault(f"{operation_id}:{channel}", _Window(self._messages)).take(now)
        headers = {
            "X-RateLimit-Limit": str(self._messages.requests),
            "X-RateLimit-Remaining": str(max(left, 0)),
            "X-RateLimit-Reset": f"{time.time() + ends:.3f}",
            "X-RateLimit-Reset-After": f"{ends:.3f}",
            "X-RateLimit-Bucket": operation_id,
        }
        if left >= 0:
            return headers, None
        return {**headers, "Retry-After": str(math.ceil(ends)), "X-RateLimit-Scope": "user"}, ends
