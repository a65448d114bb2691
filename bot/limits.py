"""Limits on requests and runs, counted in the bot's memory: one bot at a time serves an artifacts folder."""

import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from bot.embeds.text import relative_time
from bot.permissions import Caller
from bot.run_index import RunEntry
from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import Accepted
from trainer.contracts.wording import counted

_MINUTE_SECONDS = 60.0
_ACCEPTED_SECONDS = 5.0
"""An accepted run keeps its slot for this time, until every list of unfinished runs includes it."""


class UsageLimits:
    """Counts requests and new runs; raises RATE_LIMIT_EXCEEDED, before any work is done, above a limit.

    `clock` returns seconds that never go back.
    """

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._active_requests = 0
        self._requests: list[tuple[int, float]] = []
        """User and clock time of the requests within the last minute."""
        self._claims: dict[str, tuple[int, float]] = {}
        """User and end of the slot of each run that is being accepted, by a number, or was accepted, by run id."""
        self._numbers = count()

    @contextmanager
    def request(self, caller: Caller) -> Iterator[None]:
        """Count an inference request: for one minute for its user, until it is answered for all users together."""
        if self._active_requests >= self._settings.max_concurrent_requests:
            raise _refusal("The models are busy with other requests. Try again in a few seconds.")
        if not caller.is_admin:
            self._count_request(caller.user_id)
        self._active_requests += 1
        try:
            yield
        finally:
            self._active_requests -= 1

    async def accept_run(
        self, caller: Caller, unfinished: Sequence[RunEntry], accept: Callable[[], Awaitable[Accepted]]
    ) -> Accepted:
        """Accept a run unless too many runs, of the caller or in all, are `unfinished` or being accepted."""
        if caller.is_admin:
            return await accept()
        own_limit, limit = self._settings.runs_per_user, self._settings.max_active_runs
        self._claims = {name: claim for name, claim in self._claims.items() if claim[1] > self._clock()}
        users = [run.user_id for run in unfinished if run.run_id not in self._claims]
        users += [user_id for user_id, _ in self._claims.values()]
        if users.count(caller.user_id) >= own_limit:
            when = _next_end([run for run in unfinished if run.user_id == caller.user_id])
            raise _refusal(f"You have {counted(own_limit, 'run')} queued or running. {when}, or use `/mt cancel`.")
        if len(users) >= limit:
            raise _refusal(f"At most {counted(limit, 'run')} may be queued or running. {_next_end(unfinished)}.")
        number = f"number {next(self._numbers)}"
        self._claims[number] = caller.user_id, math.inf
        try:
            accepted = await accept()
        finally:
            del self._claims[number]
        self._claims[accepted.run_id] = caller.user_id, self._clock() + _ACCEPTED_SECONDS
        return accepted

    def _count_request(self, user_id: int) -> None:
        limit, now = self._settings.requests_per_minute, self._clock()
        self._requests = [(user, at) for user, at in self._requests if at > now - _MINUTE_SECONDS]
        own = [at for user, at in self._requests if user == user_id]
        if len(own) >= limit:
            when = relative_time(time.time() + own[0] + _MINUTE_SECONDS - now)
            raise _refusal(f"The limit is {counted(limit, 'request')} per minute. Try again {when}.")
        self._requests.append((user_id, now))


def _refusal(message: str) -> AppError:
    return AppError(ErrorCode.RATE_LIMIT_EXCEEDED, message)


def _next_end(runs: Sequence[RunEntry]) -> str:
    """Return when to try again: at the expected end of the first run, if it is known."""
    ends = [run.ends_at for run in runs if run.ends_at is not None]
    return f"Try again {relative_time(min(ends)) if ends else 'when one has ended'}"
