"""Limits on requests and runs, counted in the bot's memory: one bot at a time serves an artifacts folder."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple, Protocol, TypeVar

from bot.permissions import Caller
from bot.run_index import RunEntry
from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import counted

_MINUTE_SECONDS = 60.0
_ACCEPTED_SECONDS = 5.0
"""An accepted run keeps its slot for this time, until every list of unfinished runs includes it."""


class HasRunId(Protocol):
    @property
    def run_id(self) -> str: ...


AcceptedT = TypeVar("AcceptedT", bound=HasRunId)


class _Claim(NamedTuple):
    """A run slot of a user until the clock reaches `end`."""

    user_id: int
    end: float


class UsageLimits:
    """Counts requests and new runs; raises RATE_LIMIT_EXCEEDED, before any work is done, above a limit.

    `clock` returns seconds that never go back.
    """

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._active_requests = 0
        self._request_times: defaultdict[int, deque[float]] = defaultdict(deque)
        """Clock times of each user's requests within the last minute."""
        self._claims: dict[str, _Claim] = {}
        """Runs that are being accepted, by a number, and runs that were accepted just now, by run id."""
        self._numbers = count()

    @contextmanager
    def request(self, caller: Caller) -> Iterator[None]:
        """Count an inference request: for one minute for its user, until it is answered for all users together."""
        if self._active_requests >= self._settings.max_concurrent_requests:
            raise _refusal("The models are busy with other requests. Try again in a few seconds.")
        if not caller.is_admin:
            self._count_request(self._request_times[caller.user_id])
        self._active_requests += 1
        try:
            yield
        finally:
            self._active_requests -= 1

    async def accept_run(
        self, caller: Caller, unfinished: Sequence[RunEntry], accept: Callable[[], Awaitable[AcceptedT]]
    ) -> AcceptedT:
        """Accept a run unless too many runs, of the caller or in all, are `unfinished` or being accepted."""
        if caller.is_admin:
            return await accept()
        own_limit, limit = self._settings.runs_per_user, self._settings.max_active_runs
        now = self._clock()
        self._claims = {name: claim for name, claim in self._claims.items() if claim.end > now}
        users = [run.user_id for run in unfinished if run.run_id not in self._claims]
        users += [claim.user_id for claim in self._claims.values()]
        if users.count(caller.user_id) >= own_limit:
            when = _next_end([run for run in unfinished if run.user_id == caller.user_id])
            raise _refusal(f"You have {counted(own_limit, 'run')} queued or running. {when}, or use `/mt cancel`.")
        if len(users) >= limit:
            raise _refusal(f"At most {counted(limit, 'run')} may be queued or running. {_next_end(unfinished)}.")
        number = f"number {next(self._numbers)}"
        self._claims[number] = _Claim(caller.user_id, math.inf)
        try:
            accepted = await accept()
        finally:
            del self._claims[number]
        self._claims[accepted.run_id] = _Claim(caller.user_id, self._clock() + _ACCEPTED_SECONDS)
        return accepted

    def _count_request(self, times: deque[float]) -> None:
        limit, now = self._settings.requests_per_minute, self._clock()
        while times and times[0] <= now - _MINUTE_SECONDS:
            times.popleft()
        if len(times) >= limit:
            when = _relative(time.time() + times[0] + _MINUTE_SECONDS - now)
            raise _refusal(f"The limit is {counted(limit, 'request')} per minute. Try again {when}.")
        times.append(now)


def _refusal(message: str) -> AppError:
    return AppError(ErrorCode.RATE_LIMIT_EXCEEDED, message)


def _next_end(runs: Sequence[RunEntry]) -> str:
    """Return when to try again: at the expected end of the first run, if it is known."""
    ends = [run.ends_at for run in runs if run.ends_at is not None]
    return f"Try again {_relative(min(ends)) if ends else 'when one has ended'}"


def _relative(unix_seconds: float) -> str:
    """Return a time that each reader's client shows as 'in 5 minutes'."""
    return f"<t:{round(unix_seconds)}:R>"
