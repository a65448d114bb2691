"""How much people may ask at a time: counted for all bots together, held over a restart, and nothing done above it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from bot.app import build
from bot.limits import Limits
from bot.permissions import Caller, Level
from bot.run_index import RunEntry
from local_discord import LocalDiscord, Upload
from tests.integration.test_bot import GREY, TEXT, TOKEN, Place, settings
from tests.support import settings_in
from tests.support.records import BEGIN
from tests.support.waiting import ANSWER_SECONDS, PATIENCE_SECONDS
from trainer.config.settings import LimitSettings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import Accepted
from trainer.jobs.services import Services
from trainer.store import keys
from trainer.store.rate_limits import Full, Limit
from trainer.store.store import Store, connect

USER, OTHER, ADMIN = Caller(1, Level.USER), Caller(2, Level.USER), Caller(3, Level.ADMIN)
FEW = LimitSettings(runs_per_user=2, runs_in_all=3, asks_per_minute=3, asks_at_once=4)


@asynccontextmanager
async def store(folder: Path) -> AsyncIterator[Store]:
    services = Services(settings_in(folder, embedded_workers=0))
    opened = await connect(await services.start())
    try:
        yield opened
    finally:
        await opened.close()
        await services.stop()


def limits(opened: Store) -> Limits:
    return Limits(FEW, opened, longest_answer_seconds=60)


def entry(run_id: str, user_id: int | None, *, ends_at: float | None = None) -> RunEntry:
    return RunEntry(run_id, user_id, BEGIN, None, "lstm", "text", False, ends_at=ends_at)


async def ttl_ms(opened: Store) -> list[int]:
    """The time to live of every key that there is."""
    listed: Awaitable[list[bytes]] = opened.redis.keys("*")
    found = [opened.redis.pttl(key) for key in await listed]
    return [await one for one in found]


async def test_claim__is_taken_under_all_limits_or_under_none(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        wide, narrow = Limit("wide", 5, 60), Limit("narrow", 1, 60)

        assert await opened.claim("a", [wide, narrow]) is None
        full = await opened.claim("b", [wide, narrow])
        assert full is not None and full.limit == narrow and 0 < full.seconds <= 60
        assert await opened.claim("c", [Limit("wide", 2, 60)]) is None  # "b" took no place there

        await opened.give_back("a", [wide, narrow])
        assert await opened.claim("b", [narrow]) is None


async def test_claim__ends_by_itself_and_leaves_no_key_for_ever(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        short = Limit("short", 1, 3)
        assert await opened.claim("a", [short]) is None
        assert await opened.claim("b", [short]) is not None
        assert await opened.claim("c", [Limit("long", 1, 60)]) is None
        assert await opened.claim("d", [Limit("long", 2, 1)]) is None  # a shorter one takes nothing from the longer
        left = await ttl_ms(opened)

        assert all(0 < milliseconds <= 60_000 for milliseconds in left) and max(left) > 3_000
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await opened.claim("b", [short]) is not None:
                await asyncio.sleep(0.1)


async def test_claim__counts_what_is_held_elsewhere_once(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        assert await opened.claim("a", [Limit("runs", 2, 60, held=("a",))]) is None
        assert await opened.claim("b", [Limit("runs", 2, 60, held=("a", "x"))]) is not None
        assert await opened.claim("b", [Limit("runs", 2, 60, held=("a",))]) is None
        assert await opened.claim("c", [Limit("none", 1, 60, held=("x",))]) == Full(
            Limit("none", 1, 60, held=("x",)), 0
        )


async def test_claims__at_the_same_time_are_never_more_than_allowed(tmp_path: Path) -> None:
    async with store(tmp_path) as one:
        taken = await asyncio.gather(*(one.claim(f"claim-{number}", [Limit("few", 7, 60)]) for number in range(50)))

    assert taken.count(None) == 7


async def test_asking__too_often_within_a_minute_is_refused_with_the_time_to_try_again(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        several = [limits(opened), limits(opened)]  # two bots
        for number in range(3):
            async with several[number % 2].asking(USER, f"ask-{number}"):
                pass
        with pytest.raises(AppError) as refused:
            async with several[0].asking(USER, "ask-3"):
                raise AssertionError
        async with several[0].asking(OTHER, "ask-4"), several[0].asking(ADMIN, "ask-5"):
            pass
        left = await ttl_ms(opened)

    assert refused.value.code is ErrorCode.RATE_LIMIT_EXCEEDED
    again = int(refused.value.message.split("<t:")[1].split(":")[0])
    assert "3 times within a minute" in refused.value.message
    assert 0 < again - time.time() <= 61
    assert all(milliseconds > 0 for milliseconds in left)


async def test_asking__is_bounded_at_once_for_all_and_a_place_is_free_when_an_answer_is_there(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        bounds = limits(opened)
        async with AsyncExitStack() as answering:
            for number in range(4):
                await answering.enter_async_context(bounds.asking(Caller(number, Level.ADMIN), f"ask-{number}"))
            with pytest.raises(AppError, match="as many questions as they take"):
                async with bounds.asking(ADMIN, "ask-5"):
                    raise AssertionError
        async with bounds.asking(ADMIN, "ask-6"):
            pass


class Trainings:
    """What accepts runs, and the disk on which they then are."""

    def __init__(self) -> None:
        self.unfinished: list[RunEntry] = []

    async def give(self, bounds: Limits, caller: Caller, request_id: str, *, seen: list[RunEntry] | None = None) -> str:
        async def accept() -> Accepted:
            await asyncio.sleep(0.01)
            run_id = f"run-{request_id}"
            self.unfinished.append(entry(run_id, caller.user_id))
            return Accepted(run_id=run_id, job_id=run_id, status="queued")

        unfinished = [*self.unfinished] if seen is None else seen
        try:
            await bounds.accepting(caller, request_id, unfinished, accept)
        except AppError as error:
            assert error.code is ErrorCode.RATE_LIMIT_EXCEEDED
            return error.message
        return ""


async def test_training__is_bounded_per_user_and_in_all_and_admins_are_not(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        bounds, trainings = limits(opened), Trainings()
        said = [await trainings.give(bounds, USER, f"u{number}") for number in range(3)]
        said += [await trainings.give(bounds, OTHER, f"o{number}") for number in range(2)]
        by_admin = await trainings.give(bounds, ADMIN, "a0")

        assert [bool(one) for one in said] == [False, False, True, False, True]
        assert said[2].startswith("You have 2 runs queued or running") and "/mt cancel" in said[2]
        assert "try again when one has ended" in said[2]
        assert said[4].startswith("At most 3 runs may be queued or running")
        assert by_admin == ""


async def test_training__tells_when_the_first_of_them_should_end(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        ends = BEGIN.timestamp() + timedelta(hours=2).total_seconds()
        runs = [entry("r1", 1, ends_at=ends + 60), entry("r2", 1, ends_at=ends), entry("r3", 1)]

        assert f"try again <t:{round(ends)}:R>" in await Trainings().give(limits(opened), USER, "u1", seen=runs)


async def test_trainings__at_the_same_time_are_never_more_than_allowed(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        trainings = Trainings()
        said = await asyncio.gather(
            *(trainings.give(limits(opened), USER, f"u{number}", seen=[]) for number in range(20))
        )
        late = await trainings.give(limits(opened), USER, "late", seen=[])  # looked right before they were on the disk

        assert said.count("") == len(trainings.unfinished) == 2
        assert late != ""


async def test_training__that_was_refused_gives_its_place_back(tmp_path: Path) -> None:
    async def refuse() -> Accepted:
        raise AppError(ErrorCode.DATA_NOT_FOUND, "There is no corpus.")

    async with store(tmp_path) as opened:
        for number in range(5):
            with pytest.raises(AppError, match="no corpus"):
                await limits(opened).accepting(USER, f"u{number}", [], refuse)

        assert await ttl_ms(opened) == []


async def test_training__is_bounded_by_what_is_on_the_disk_while_redis_is_away(tmp_path: Path) -> None:
    async with store(tmp_path) as opened:
        pass
    bounds, trainings = limits(opened), Trainings()
    two = [entry("r1", 1), entry("r2", 1)]

    async def ask() -> str:
        try:
            async with bounds.asking(USER, "ask-1"):
                return "asked"
        except AppError as error:
            return error.code

    said = await asyncio.gather(
        trainings.give(bounds, USER, "u1", seen=[]), trainings.give(bounds, USER, "u2", seen=two), ask()
    )

    assert said[0] == "" and "2 runs queued or running" in said[1] and said[2] is ErrorCode.SERVICE_UNAVAILABLE


async def test_training__is_accepted_also_when_redis_goes_away_meanwhile(tmp_path: Path) -> None:
    services = Services(settings_in(tmp_path, embedded_workers=0))
    opened = await connect(await services.start())

    async def accept() -> Accepted:
        await services.stop()
        return Accepted(run_id="run-1", job_id="run-1", status="queued")

    accepted = await limits(opened).accepting(USER, "u1", [], accept)
    await opened.close()

    assert accepted.run_id == "run-1"


async def test_chat__above_a_limit_is_told_in_grey_and_nothing_is_queued(tmp_path: Path) -> None:
    few = LimitSettings(attachment_bytes=5000, runs_per_user=2, asks_per_minute=3)
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        ana, bob = server.add_user("ana"), server.add_user("bob")
        limited: dict[str, object] = {"limits": few}
        chosen = settings(tmp_path, server, owner_id=ana.id, allowed_user_ids=(bob.id,)).model_copy(update=limited)
        async with build(chosen) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await server.connected()
            await server.synced()
            here = Place(server, bot, tmp_path, ana, bob, bob)
            said = [await here.ask(here.bob, "train", {"file": Upload("cats.txt", TEXT)}) for _ in range(3)]
            by_admin = [await here.ask(here.ana, "train", {"file": Upload("cats.txt", TEXT)}) for _ in range(3)]
            asked = [await here.ask(here.bob, "score", {"text": "cat"}) for _ in range(4)]
            public = await here.ask(here.bob, "generate")

        await asyncio.gather(running, return_exceptions=True)
        assert server.violations == []
        assert ["Queued" in one.text for one in said] == [True, True, False]
        assert "⏳ Busy" in said[2].text and said[2].colour == GREY and said[2].is_ephemeral
        assert all("Queued" in one.text for one in by_admin)
        assert len(here.runs()) == 5
        assert "no finished run" in asked[2].text
        assert "3 times within a minute" in asked[3].text and "3 times within a minute" in public.text
        assert public.is_ephemeral


def test_keys__are_of_one_user_or_of_all() -> None:
    assert keys.limit("runs", 7) != keys.limit("runs", None) != keys.limit("asks", None)
