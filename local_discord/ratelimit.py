"""Discord's rate limits: fixed windows per route and major parameter, and one for everything."""

import hashlib
import math
import time
from typing import NamedTuple


class Limit(NamedTuple):
    """A number of `requests` in `window_seconds`."""

    requests: int
    window_seconds: float


# What Discord's headers say for one channel's messages; and the documented 50 a second for everything.
MESSAGES = Limit(5, 5.0)
OVERALL = Limit(50, 1.0)


class Verdict(NamedTuple):
    """Headers to send, and for a refused request the seconds to wait."""

    headers: dict[str, str]
    retry_after_seconds: float | None
    is_global: bool


class _Window:
    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._ends_seconds = 0.0
        self._used = 0

    def take(self, now_seconds: float) -> tuple[int, float]:
        """What is left (negative: refused) and the seconds until the window ends."""
        if now_seconds >= self._ends_seconds:
            self._ends_seconds = now_seconds + self._limit.window_seconds
            self._used = 0
        left = self._limit.requests - self._used - 1
        if left >= 0:
            self._used += 1
        return left, self._ends_seconds - now_seconds


class RateLimiter:
    """Counts requests; `limits` are by operation id, every other route has `default` for itself."""

    def __init__(self, limits: dict[str, Limit], default: Limit, overall: Limit) -> None:
        self._limits, self._default = limits, default
        self._windows: dict[str, _Window] = {}
        self._overall = _Window(overall)

    def take(self, operation_id: str, major: str, *, counts_overall: bool) -> Verdict:
        now = time.monotonic()
        if counts_overall:
            left, ends = self._overall.take(now)
            if left < 0:
                return Verdict({"X-RateLimit-Global": "true", **_refused(ends, "global")}, ends, True)
        limit = self._limits.get(operation_id, self._default)
        left, ends = self._windows.setdefault(f"{operation_id}:{major}", _Window(limit)).take(now)
        headers = {
            "X-RateLimit-Limit": str(limit.requests),
            "X-RateLimit-Remaining": str(max(left, 0)),
            "X-RateLimit-Reset": f"{time.time() + ends:.3f}",
            "X-RateLimit-Reset-After": f"{ends:.3f}",
            "X-RateLimit-Bucket": hashlib.blake2b(operation_id.encode(), digest_size=16).hexdigest(),
        }
        if left < 0:
            return Verdict({**headers, **_refused(ends, "user")}, ends, False)
        return Verdict(headers, None, False)


def _refused(retry_after_seconds: float, scope: str) -> dict[str, str]:
    return {"Retry-After": str(math.ceil(retry_after_seconds)), "X-RateLimit-Scope": scope}
