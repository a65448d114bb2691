"""Limits on requests and runs, counted in the bot's memory: one bot at a time serves an artifacts folder."""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, count

from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import Accepted
from trainer.contracts.wording import duration
from trainer.lab.language import _, plural
from trainer.lab.permissions import Caller
from trainer.queue.run_index import DAY_SECONDS, RunEntry

_MINUTE_SECONDS = 60.0
_SHORT_SECONDS = 120
_ACCEPTED_SECONDS = 5.0
"""An accepted run keeps its slot for this time, until every list of unfinished runs includes it."""


class LimitReached(AppError):
    """A refusal above a limit, with the time of the next try, which Discord shows in the reader's time zone."""

    def __init__(
        self, reason: str, retry_at: float | None = None, *, otherwise: str = "", has_own_runs: bool = False
    ) -> None:
        self._reason = reason
        self._otherwise = otherwise
        self._has_own_runs = has_own_runs
        self.retry_at = retry_at
        """Unix time; None if it is not known, and then `otherwise` says when."""
        seconds = self.retry_seconds
        when = (
            _("in {seconds} s", seconds=seconds) if seconds < _SHORT_SECONDS else _("in {time}", time=duration(seconds))
        )
        super().__init__(ErrorCode.RATE_LIMIT_EXCEEDED, self.worded(when, _("cancel one")))

    @property
    def retry_seconds(self) -> int:
        """Seconds until the time to try again; 10 if it is not known."""
        return 10 if self.retry_at is None else max(1, math.ceil(self.retry_at - time.time()))

    def worded(self, when: str, cancel: str) -> str:
        """Return the message with the words for a known time, and for cancelling a run."""
        when = self._otherwise if self.retry_at is None else when
        if self._has_own_runs:
            return f"{self._reason} {_('Try again {when}, or {cancel}.', when=when, cancel=cancel)}"
        return f"{self._reason} {_('Try again {when}.', when=when)}"


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
            raise LimitReached(_("The models are busy with other requests."), otherwise=_("in a few seconds"))
        if not caller.is_admin:
            self._count_request(caller.user_id)
        self._active_requests += 1
        try:
            yield
        finally:
            self._active_requests -= 1

    async def accept_run(
        self,
        caller: Caller,
        unfinished: Sequence[RunEntry],
        accept: Callable[[], Awaitable[Accepted]],
        *,
        count: int = 1,
        in_all: int | None = None,
        recent: Iterable[RunEntry] = (),
    ) -> Accepted:
        """Accept a run, or a group of `count` runs, or a study that starts `in_all` runs, a few at a time.

        Refuses them if too many runs, of the caller or in all, would be `unfinished` or being accepted; and if the
        caller's `recent` runs, deleted ones too, have reached a limit of a day.
        """
        if caller.is_admin:
            return await accept()
        own_limit, limit = self._settings.runs_per_user, self._settings.max_active_runs
        self._claims = {name: claim for name, claim in self._claims.items() if claim[1] > self._clock()}
        users = [run.user_id for run in unfinished if run.run_id not in self._claims]
        users += [user_id for user_id, _end in self._claims.values()]
        if users.count(caller.user_id) + count > own_limit:
            own = [run for run in unfinished if run.user_id == caller.user_id]
            reason = plural(
                "You have {count} run queued or running.", "You have {count} runs queued or running.", own_limit
            )
            reason = _with_group(own_limit) if count > 1 else reason
            raise LimitReached(reason, _next_end(own), otherwise=_("when one has ended"), has_own_runs=True)
        if len(users) + count > limit:
            reason = plural(
                "At most {count} run may be queued or running.", "At most {count} runs may be queued or running.", limit
            )
            reason = _with_group(limit) if count > 1 else reason
            raise LimitReached(reason, _next_end(unfinished), otherwise=_("when one has ended"))
        self._check_day(caller, [run for run in recent if run.user_id == caller.user_id], in_all or count)
        numbers = [f"number {next(self._numbers)}" for _run in range(count)]
        self._claims |= dict.fromkeys(numbers, (caller.user_id, math.inf))
        try:
            accepted = await accept()
        finally:
            for number in numbers:
                del self._claims[number]
        self._claims |= dict.fromkeys(accepted.run_ids, (caller.user_id, self._clock() + _ACCEPTED_SECONDS))
        return accepted

    def _check_day(self, caller: Caller, own: Sequence[RunEntry], count: int) -> None:
        """Raise RATE_LIMIT_EXCEEDED if the own runs of the last 24 hours leave no room for `count` more."""
        now, limit, minutes = time.time(), self._settings.runs_per_day, self._settings.minutes_per_day
        if limit is not None:
            ends = sorted(at for run in own if (at := run.created_at.timestamp() + DAY_SECONDS) > now)
            known = {run.run_id for run in own}
            claims = [name for name, (user_id, _end) in self._claims.items() if user_id == caller.user_id]
            ends += [now + DAY_SECONDS for name in claims if name not in known]
            if len(ends) + count > limit:
                reason = plural(
                    "The limit is {count} run per day, and you have started {used}.",
                    "The limit is {count} runs per day, and you have started {used}.",
                    limit,
                    used=len(ends),
                )
                retry_at = ends[len(ends) + count - limit - 1] if count <= limit else None
                raise LimitReached(reason, retry_at, otherwise=_("with fewer runs"))
        if minutes is not None:
            most, counted = minutes * _MINUTE_SECONDS, sorted(_by_day(own, now))
            used = [*accumulate(seconds for _at, seconds in counted)]
            if used and used[-1] >= most:
                reason = _(
                    "The limit is {limit} min of training per day, and you have used {used} min.",
                    limit=f"{minutes:g}",
                    used=f"{used[-1] / _MINUTE_SECONDS:.1f}",
                )
                left = [used[-1] - ended for ended in used]
                raise LimitReached(reason, next(at for (at, _), one in zip(counted, left, strict=True) if one < most))

    def _count_request(self, user_id: int) -> None:
        limit, now = self._settings.requests_per_minute, self._clock()
        self._requests = [(user, at) for user, at in self._requests if at > now - _MINUTE_SECONDS]
        own = [at for user, at in self._requests if user == user_id]
        if len(own) >= limit:
            retry_at = time.time() + own[0] + _MINUTE_SECONDS - now
            reason = plural(
                "The limit is {count} request per minute.", "The limit is {count} requests per minute.", limit
            )
            raise LimitReached(reason, retry_at)
        self._requests.append((user_id, now))


def _by_day(runs: Iterable[RunEntry], now: float) -> Iterator[tuple[float, float]]:
    """Yield the time at which each run of the last 24 hours leaves them, and its seconds of training."""
    return ((run.leaves_day_at(now), run.train_seconds) for run in runs if run.is_of_day(now))


def _with_group(limit: int) -> str:
    return plural(
        "With this group, more than {count} run would be queued or running: give fewer seeds.",
        "With this group, more than {count} runs would be queued or running: give fewer seeds.",
        limit,
    )


def _next_end(runs: Sequence[RunEntry]) -> float | None:
    """Return the expected end of the first run to end, in Unix time, if it is known."""
    return min((run.ends_at for run in runs if run.ends_at is not None), default=None)
