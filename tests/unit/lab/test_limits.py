"""Limits on requests and runs: the counted ones, the refusals, and the time at which to try again."""

import asyncio
import re
import time
from contextlib import ExitStack
from datetime import UTC, datetime

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


def ended_run(run_id: str, hours_ago: float, minutes: float = 0.0) -> RunEntry:
    """A run of the user that was accepted so long ago and trained at once."""
    created = time.time() - hours_ago * 3600
    run = entry(run_id, 1)._replace(created_at=datetime.fromtimestamp(created, UTC), state="completed")
    return run._replace(ended_at=created + minutes * 60, train_seconds=minutes * 60)


async def day_refusal(settings: LimitSettings, recent: list[RunEntry], *, count: int = 1) -> LimitReached | None:
    """The refusal of a limit of a day, which holds for the user alone."""
    bounds, accepted = UsageLimits(settings, Clock()), Accepted(run_id="new", job_id="new", status="queued")

    async def accept() -> Accepted:
        return accepted

    for caller in (OTHER, ADMIN):
        assert await bounds.accept_run(caller, [], accept, recent=recent) == accepted
    try:
        assert await bounds.accept_run(USER, [], accept, count=count, recent=recent) == accepted
    except LimitReached as error:
        return error
    return None


THREE_A_DAY = LimitSettings(runs_per_day=3)


async def test_day__takes_so_many_runs_and_says_when_the_next_one_is_accepted() -> None:
    recent = [ended_run("r1", 23), ended_run("r2", 20), ended_run("r3", 25)]
    assert await day_refusal(THREE_A_DAY, recent) is None
    all_of_day = [*recent, ended_run("r4", 1)]
    ends = [run.created_at.timestamp() + 86400 for run in all_of_day]
    for count, end in ((1, ends[0]), (2, ends[1]), (3, ends[3])):
        refused = await day_refusal(THREE_A_DAY, all_of_day, count=count)
        assert refused is not None and refused.retry_at == end
        assert refused.worded("then", "") == "The limit is 3 runs per day, and you have started 3. Try again then."
    large = await day_refusal(THREE_A_DAY, [], count=4)
    assert large is not None
    assert large.message == "The limit is 3 runs per day, and you have started 0. Try again with fewer runs."


def test_refusal__of_a_day_has_hours_and_minutes() -> None:
    assert re.search(r"Try again in 2 h( 59 min)?\.$|in 1 h 59 min\.$", LimitReached("", time.time() + 7200).message)


async def test_day__counts_a_run_that_is_being_accepted_once() -> None:
    bounds, new = UsageLimits(THREE_A_DAY, Clock()), entry("u1", 1)._replace(created_at=datetime.now(UTC))

    async def accepted() -> Accepted:
        await asyncio.sleep(0)
        return Accepted(run_id="u1", job_id="u1", status="queued")

    async def accept(recent: list[RunEntry]) -> bool:
        try:
            await bounds.accept_run(USER, [], accepted, recent=recent)
        except LimitReached:
            return False
        return True

    assert sorted(await asyncio.gather(*(accept([ended_run("r1", 1)]) for _ in range(4)))) == [False, False, True, True]
    assert await accept([new])


async def test_day__takes_so_many_minutes_of_runs_that_were_started_or_trained_in_it() -> None:
    limited = LimitSettings(minutes_per_day=60)
    old, recent = ended_run("r0", 30, 120), [ended_run("r1", 25, 90), ended_run("r2", 2, 10)]
    running = ended_run("r3", 1)._replace(state="running", ended_at=None, train_seconds=1800.0)
    assert await day_refusal(limited, [old, ended_run("r2", 2, 59.9)]) is None
    refused = await day_refusal(limited, [old, *recent, running])
    assert refused is not None and recent[0].ended_at is not None
    assert refused.retry_at == recent[0].ended_at + 86400
    used = "The limit is 60 min of training per day, and you have used 130.0 min. Try again then."
    assert refused.worded("then", "") == used
    before = time.time()
    alone = await day_refusal(LimitSettings(minutes_per_day=20), [running])
    assert alone is not None and alone.retry_at is not None
    assert before <= alone.retry_at - 86400 <= time.time(), "a day after its end, at the earliest"
