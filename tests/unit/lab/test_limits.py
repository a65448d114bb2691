"""Limits on requests and runs: the counted ones, the refusals, and the time at which to try again."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from bot.messages.answers import error_answer
from tests.support.stories import BEGIN
from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import Accepted
from trainer.contracts.seeds import RunGroup
from trainer.lab.limits import LimitReached, UsageLimits
from trainer.lab.permissions import Caller
from trainer.queue.run_index import RunEntry

USER, OTHER, ADMIN = Caller(1), Caller(2), Caller(3, is_admin=True)
FEW = LimitSettings(runs_per_user=2, max_active_runs=3, requests_per_minute=3, max_concurrent_requests=4)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def limits(clock: Clock | None = None) -> UsageLimits:
    return UsageLimits(FEW, clock or Clock())


def entry(run_id: str, user_id: int | None, *, ends_at: float | None = None) -> RunEntry:
    return RunEntry(run_id, user_id, BEGIN, None, "lstm", "text", False, ends_at=ends_at)


def send(bounds: UsageLimits, caller: Caller) -> str:
    """Send a request that is answered at once; return the refusal, or an empty text."""
    try:
        with bounds.request(caller):
            return ""
    except LimitReached as error:
        return shown(error)


def shown(error: AppError) -> str:
    """The refusal as Discord shows it."""
    assert error.code is ErrorCode.RATE_LIMIT_EXCEEDED
    return error_answer(error, "0").description or ""


async def accept(bounds: UsageLimits, caller: Caller, run_id: str, unfinished: list[RunEntry]) -> str:
    """Accept a run; return the refusal, or an empty text."""

    async def accepted() -> Accepted:
        await asyncio.sleep(0)
        return Accepted(run_id=run_id, job_id=run_id, status="queued")

    try:
        await bounds.accept_run(caller, unfinished, accepted)
    except LimitReached as error:
        return shown(error)
    return ""


def test_requests__above_the_limit_are_refused_with_the_time_to_try_again() -> None:
    clock = Clock()
    bounds = limits(clock)
    answers = [send(bounds, USER) for _ in range(3)]
    clock.seconds = 20
    refused = send(bounds, USER)
    others = [send(bounds, OTHER), *(send(bounds, ADMIN) for _ in range(5))]
    clock.seconds = 60
    later = send(bounds, USER)
    assert answers == [""] * 3 and others == [""] * 6 and later == ""
    assert "The limit is 3 requests per minute" in refused
    assert 38 <= int(refused.split("<t:")[1].split(":")[0]) - time.time() <= 41


def test_requests__are_bounded_for_all_users_together() -> None:
    bounds = limits()
    with ExitStack() as answering:
        for number in range(4):
            answering.enter_context(bounds.request(Caller(number, is_admin=True)))
        assert "busy with other requests" in send(bounds, ADMIN)
    assert send(bounds, ADMIN) == ""


def test_requests__a_failed_one_frees_its_slot() -> None:
    bounds = limits()
    for _ in range(5):
        with pytest.raises(ValueError, match="failed"), bounds.request(ADMIN):
            raise ValueError("failed")


async def test_runs__are_bounded_per_user_and_in_all_and_admins_are_not() -> None:
    bounds = limits()
    by_user = [await accept(bounds, USER, f"u{number}", []) for number in range(3)]
    by_other = [await accept(bounds, OTHER, f"o{number}", []) for number in range(2)]
    assert by_user[:2] == ["", ""] and by_other[0] == ""
    assert by_user[2].startswith("You have 2 runs queued or running. Try again when one has ended")
    assert "`/mt cancel`" in by_user[2]
    assert by_other[1].startswith("At most 3 runs may be queued or running")
    assert await accept(bounds, ADMIN, "a0", []) == ""


async def test_runs__at_the_same_time_are_never_more_than_allowed() -> None:
    bounds = limits()
    answers = await asyncio.gather(*(accept(bounds, USER, f"u{number}", []) for number in range(20)))
    assert answers.count("") == 2


async def test_runs__an_accepted_one_counts_once_and_by_itself_for_some_seconds() -> None:
    clock = Clock()
    bounds = limits(clock)
    assert await accept(bounds, USER, "u1", []) == ""
    assert await accept(bounds, USER, "u2", [entry("u1", 1)]) == ""
    assert await accept(bounds, USER, "u3", []) != ""
    clock.seconds = 6
    assert await accept(bounds, USER, "u3", [entry("u2", 1)]) == ""


async def test_runs__a_refused_request_frees_its_slot() -> None:
    async def refuse() -> Accepted:
        raise AppError(ErrorCode.DATA_NOT_FOUND, "There is no corpus.")

    bounds = limits()
    for _ in range(5):
        with pytest.raises(AppError, match="no corpus"):
            await bounds.accept_run(USER, [], refuse)


@pytest.mark.parametrize(("count", "is_accepted"), [(1, True), (2, True), (3, False)])
async def test_group__counts_with_all_of_its_runs(count: int, is_accepted: bool) -> None:
    bounds, group = limits(), RunGroup(group_id="g", seeds=tuple(range(count)))

    async def accepted() -> Accepted:
        return Accepted(run_id=group.first_id, job_id=group.first_id, status="queued", group=group)

    try:
        await bounds.accept_run(USER, [], accepted, count=count)
    except LimitReached as error:
        assert not is_accepted
        assert error.message.startswith("With this group, more than 2 runs would be queued or running: give fewer")
        return
    assert is_accepted
    assert (await accept(bounds, USER, "next", [])).startswith("" if count == 1 else "You have 2 runs")
    with pytest.raises(LimitReached, match="more than 3 runs"):
        await bounds.accept_run(OTHER, [entry("r1", 3), entry("r2", 3)], refuse_all, count=2)


async def test_refusal__outside_of_discord_gives_the_seconds() -> None:
    ends = time.time() + 90
    bounds = limits()
    with pytest.raises(LimitReached) as known:
        await bounds.accept_run(USER, [entry("r1", 1, ends_at=ends), entry("r2", 1)], refuse_all)
    with pytest.raises(LimitReached) as unknown:
        await bounds.accept_run(USER, [entry("r1", 2), entry("r2", 2), entry("r3", 2)], refuse_all)
    assert known.value.message in [
        f"You have 2 runs queued or running. Try again in {seconds} s, or cancel one." for seconds in (89, 90, 91)
    ]
    assert known.value.retry_seconds in (89, 90, 91)
    assert unknown.value.message == "At most 3 runs may be queued or running. Try again when one has ended."
    assert unknown.value.retry_seconds == 10


async def refuse_all() -> Accepted:
    raise AssertionError("the limit has been reached")
