"""How much people may ask at a time, each and all together; counted in Redis, so that several bots count as one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import structlog

from bot.permissions import Caller, Level
from bot.run_index import RunEntry
from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.wording import counted
from trainer.store import keys
from trainer.store.connection import STORE_ERRORS
from trainer.store.rate_limits import Full, Limit
from trainer.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MINUTE_SECONDS = 60.0
_ACCEPTING_SECONDS = 300.0
"""After this time a request to train that was neither accepted nor refused counts no more."""
_ACCEPTED_SECONDS = 5.0
"""How long an accepted run is remembered for a bot that looked at the disk right before it was there."""
_PATIENCE_SECONDS = 3.0
"""So long a store that is away is waited for: people have waited enough."""
_ANY_NUMBER = 1 << 30
_WHEN = "{when}"


class HasRun(Protocol):
    """What an accepted run is told by."""

    @property
    def run_id(self) -> str: ...


AcceptedT = TypeVar("AcceptedT", bound=HasRun)


class Limits:
    """Claims a place for each request; raises RATE_LIMIT_EXCEEDED, before anything is done, where there is none."""

    def __init__(self, settings: LimitSettings, store: Store, *, longest_answer_seconds: float) -> None:
        self._settings = settings
        self._store = store
        self._longest_answer_seconds = longest_answer_seconds

    async def close(self) -> None:
        await self._store.close()

    @asynccontextmanager
    async def asking(self, caller: Caller, request_id: str) -> AsyncIterator[None]:
        """Count a question to a model: for a minute as one of the asker's, and as one of all's until it is answered.

        Raises SERVICE_UNAVAILABLE while the store is away, since the answer would have to come from there.
        """
        most = self._settings.asks_per_minute
        own = Limit(keys.limit("asks", caller.user_id), most, _MINUTE_SECONDS)
        at_once = Limit(keys.limit("asks", None), self._settings.asks_at_once, self._longest_answer_seconds)
        limits = {at_once: "The models are answering as many questions as they take: try again in some seconds."}
        if caller.level is not Level.ADMIN:
            limits[own] = (
                f"You have asked {counted(most, 'time')} within a minute, as often as one may: try again {_WHEN}."
            )
        if not await self._claim(request_id, limits):
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The queue does not answer just now: try again in a minute.")
        try:
            yield
        finally:
            await self._settle(request_id, [at_once])

    async def accepting(
        self,
        caller: Caller,
        request_id: str,
        unfinished: Sequence[RunEntry],
        accept: Callable[[], Awaitable[AcceptedT]],
    ) -> AcceptedT:
        """Accept a run, unless too many of the caller's, or of all, are `unfinished` or being accepted elsewhere."""
        if caller.level is Level.ADMIN:
            return await accept()
        own = [run for run in unfinished if run.user_id == caller.user_id]
        most, most_in_all = self._settings.runs_per_user, self._settings.runs_in_all
        runs, runs_in_all = counted(most, "run"), counted(most_in_all, "run")
        limits = {
            _unfinished(caller.user_id, most, own): f"You have {runs} queued or running, as many as one may:"
            f" try again {_next_end(own)}, or end one with `/mt cancel`.",
            _unfinished(None, most_in_all, unfinished): f"At most {runs_in_all} may be queued or running:"
            f" try again {_next_end(unfinished)}.",
        }
        is_counted = await self._claim(request_id, limits)
        accepted: AcceptedT | None = None
        try:
            accepted = await accept()
        finally:
            if is_counted:
                await self._settle(request_id, [*limits], accepted)
        return accepted

    async def _claim(self, claim: str, limits: Mapping[Limit, str]) -> bool:
        """Claim a place under each limit, which comes with what is said where it has none; False: not counted."""
        is_counted = True
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                full = await self._store.claim(claim, [*limits])
        except STORE_ERRORS as error:
            log.warning("limits are not counted while the store is away", error=type(error).__name__)
            full = next((Full(limit, 0) for limit in limits if len(limit.held) >= limit.most), None)
            is_counted = False
        if full is not None:
            message = limits[full.limit].replace(_WHEN, _relative(time.time() + full.seconds))
            raise AppError(ErrorCode.RATE_LIMIT_EXCEEDED, message)
        return is_counted

    async def _settle(self, claim: str, limits: Sequence[Limit], accepted: HasRun | None = None) -> None:
        """End a claim; an accepted run, which is on the disk from now on, goes on counting for some seconds."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                if accepted is not None:
                    shortly = [one._replace(most=_ANY_NUMBER, seconds=_ACCEPTED_SECONDS) for one in limits]
                    await self._store.claim(accepted.run_id, shortly)
                await self._store.give_back(claim, limits)
        except STORE_ERRORS as error:
            log.warning("a claim ends by its time while the store is away", error=type(error).__name__)


def _unfinished(user_id: int | None, most: int, runs: Sequence[RunEntry]) -> Limit:
    held = tuple(run.run_id for run in runs)
    return Limit(keys.limit("runs", user_id), most, _ACCEPTING_SECONDS, held)


def _next_end(runs: Sequence[RunEntry]) -> str:
    """When the first of these runs should end."""
    ends = [run.ends_at for run in runs if run.ends_at is not None]
    return _relative(min(ends)) if ends else "when one has ended"


def _relative(unix_seconds: float) -> str:
    """A time that each reader's client shows as 'in 5 minutes'."""
    return f"<t:{round(unix_seconds)}:R>"
