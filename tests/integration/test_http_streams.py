"""Streams of events and logs: each event once, until the run ends, at the cost of one reader for all clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError

from tests.support.http import ADMIN, ANA, BOB, Inside, Sent, Site, inside, sent_events, with_api
from tests.support.redis_servers import embedded
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, until
from tests.support.worker_runs import events_of
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.events import Event
from trainer.contracts.parameters import MAX_LINES
from trainer.http.api import HttpTimeouts
from trainer.system.logs import LogReader, readable_line

RUN = "char_lstm-1"
STREAM, LOG = f"/runs/{RUN}/events", f"/runs/{RUN}/logs/stream"


@pytest.fixture(name="idle")
async def idle_fixture(tmp_path: Path) -> AsyncIterator[Inside]:
    """A site of which no worker knows, so that runs are what the test writes."""
    async with embedded(tmp_path) as (settings, queue, _), inside(queue, with_api(settings)) as here:
        yield here


@pytest.fixture(name="story")
def story_fixture(idle: Inside, tmp_path: Path) -> Story:
    return Story(tmp_path / "artifacts", run_record(RUN, user_id=None)).start()


def feeds() -> int:
    """The number of files that are being read for clients."""
    running: set[asyncio.Task[object]] = asyncio.all_tasks()
    return sum("Tail._follow" in repr(task) for task in running)


def end(story: Story) -> None:
    """End a run, with the file that says that nothing follows."""
    story.complete()
    story.run.seal.write_text("")


def sent(events: list[Event]) -> list[Sent]:
    return [Sent(str(event.seq), event.type, event.model_dump_json()) for event in events]


async def test_events__of_an_ended_run_are_all_sent_and_the_stream_ends(here: Site, run: RunDirectory) -> None:
    expected = sent(events_of(here.queue, run.run_id))
    path = f"/runs/{run.run_id}/events"
    assert await here.events(path) == expected
    for last in range(len(expected)):
        assert await here.events(path, last_id=str(last)) == expected[last:]
    for last in (len(expected), len(expected) + 1):
        async with here.stream(path, last_id=str(last)) as answer:
            assert (answer.status, await answer.read()) == (204, b"")  # after which EventSource stops
    for last_id in ("", "x", "-1", "1.0", "9" * 16, "٣"):
        assert await here.events(path, last_id=last_id.encode().decode("latin-1")) == expected
    head = await here.ask("HEAD", path)
    assert (head.status, head.headers["Content-Type"], head.body) == (200, "text/event-stream", b"")


async def test_events__arrive_while_the_run_continues(idle: Inside, story: Story) -> None:
    """It has no log meanwhile."""
    async with idle.site.stream(STREAM) as response:
        events = sent_events(response)
        assert [(await anext(events)).id for _ in range(3)] == ["1", "2", "3"]
        story.step(1, 2.0)
        assert (await anext(events)).event == "trainer.metrics.progress.v1"
        story.step(2, 1.5)
        end(story)
        rest = [event async for event in events]
    assert await idle.site.events(LOG) == []
    assert (await idle.site.get(f"/runs/{RUN}/logs")).text == ""
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["X-Request-ID"]
    names = [(event.id, event.event.split(".")[-2]) for event in rest]
    assert names == [("5", "progress"), ("6", "completed"), ("7", "completed")]


async def test_events__of_a_long_run_are_all_sent_though_memory_has_the_last(idle: Inside, story: Story) -> None:
    for step in range(1, 100):
        story.step(step, 2.0)
    end(story)
    numbers = [event.id for event in await idle.site.events(STREAM)]
    assert len(numbers) > 100
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


async def test_events__after_a_damaged_line_keep_their_numbers(idle: Inside, story: Story) -> None:
    """An event of another release is left out; the ones after it are not sent twice or lost."""
    story.step(1, 2.0).step(2, 2.0)
    log = story.run.path / "events.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join([*lines[:1], "{}\n", *lines[2:]]), encoding="utf-8")
    end(story)
    everything = [event.id for event in await idle.site.events(STREAM)]
    assert everything == ["1", "3", "4", "5", "6", "7"]
    for last in (1, 2, 3, 4, 5):
        assert [event.id for event in await idle.site.events(STREAM, last_id=str(last))] == [
            number for number in everything if int(number) > last
        ]


async def test_two_hundred_clients__share_one_reader_that_ends_with_the_last(idle: Inside, story: Story) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(idle.site.stream(STREAM, key=key)) for key in (ADMIN, ANA) * 100]
        readers = [sent_events(stream) for stream in streams]
        for events in readers:
            await anext(events)
        assert (feeds(), idle.api.open_streams) == (1, 200)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await idle.site.get("/runs")).status == 200
        story.step(1, 2.0)
        for events in readers:
            assert [(await anext(events)).id for _ in range(3)] == ["2", "3", "4"]
    await until(lambda: idle.api.open_streams == 0)
    await until(lambda: feeds() == 0)


async def test_client__that_leaves_or_reads_nothing_is_disconnected(tmp_path: Path) -> None:
    timeouts = HttpTimeouts(send_seconds=0.2)
    async with embedded(tmp_path) as (settings, queue, _), inside(queue, with_api(settings), timeouts) as idle:
        story = Story(tmp_path / "artifacts", run_record(RUN, user_id=None)).start()
        story.run.logs.write_text(f"{'x' * 3000}\n" * 3000, encoding="utf-8")  # more than buffers have room for
        with captured_logs() as logs:
            _, leaving = await idle.site.begin(f"{LOG}?tail={MAX_LINES}")
            while not feeds():
                await asyncio.sleep(0)
            leaving.transport.abort()  # while the log is read
            await until(lambda: bool(logs))
            _, silent = await idle.site.begin(f"{LOG}?tail={MAX_LINES}")
            await until(lambda: len(logs) == 2)
        silent.close()
    assert [(entry["event"], entry["http_status"]) for entry in logs] == [("http_request", 499)] * 2
    assert idle.api.open_streams == 0


async def test_streams__above_a_limit_are_refused_until_one_ends(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, _):
        async with inside(queue, with_api(settings, http={"max_connections": 8})) as idle:
            Story(tmp_path / "artifacts", run_record(RUN, user_id=None)).start()
            async with AsyncExitStack() as stack:
                for key in (ADMIN, ADMIN, ANA):
                    assert (await stack.enter_async_context(idle.site.stream(STREAM, key=key))).status == 200
                own = await idle.site.get(STREAM)
                waiting = await idle.site.get(f"/runs/{RUN}?wait=60")
                assert (await stack.enter_async_context(idle.site.stream(STREAM, key=ANA))).status == 200
                all_taken = await idle.site.get(STREAM, key=BOB)
                assert (await idle.site.get(f"/runs/{RUN}")).status == 200
            assert own.outcome == waiting.outcome == all_taken.outcome == (429, "RATE_LIMIT_EXCEEDED")
            await until(lambda: idle.api.open_streams == 0)
            async with idle.site.stream(STREAM, key=BOB) as response:
                assert response.status == 200


async def test_stream__of_a_file_that_breaks_is_cut(idle: Inside, story: Story) -> None:
    with captured_logs() as logs:
        async with idle.site.stream(STREAM) as response:
            events = sent_events(response)
            for _ in range(3):
                await anext(events)
            log = story.run.path / "events.jsonl"
            log.unlink()
            log.mkdir()
            with pytest.raises(ClientPayloadError):
                await anext(events)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["http_request_failed"]


async def test_log__ends_after_the_last_line_of_the_run(idle: Inside, story: Story) -> None:
    """The lines of the end are written just after the run has ended."""
    log = story.run.logs
    log.write_text("first\nsecond\nthird\n", encoding="utf-8")
    async with idle.site.stream(f"{LOG}?tail=2") as response:
        lines = sent_events(response)
        assert [(await anext(lines)).data for _ in range(2)] == ["second", "third"]
        with log.open("a", encoding="utf-8") as file:
            file.write("fourth\nhalf of")
        assert await anext(lines) == Sent("", "", "fourth")
        end(story)
        with log.open("a", encoding="utf-8") as file:
            file.write(" a line\nlast\n")
        rest = [line.data async for line in lines]
    assert rest == ["half of a line", "last"]


async def test_log__of_an_ended_run_is_as_people_read_it(here: Site, run: RunDirectory) -> None:
    expected = [readable_line(line) for line in LogReader(run.logs).last(10_000)]
    assert [line.data for line in await here.events(f"/runs/{run.run_id}/logs/stream")] == expected
    assert [line.data for line in await here.events(f"/runs/{run.run_id}/logs/stream?tail=1")] == expected[-1:]
    assert await here.events(f"/runs/{run.run_id}/logs/stream?tail=0") == []
    for tail in (0, 1):  # also without lines, the stream has an id, with which EventSource asks once more and stops
        path = f"/runs/{run.run_id}/logs/stream?tail={tail}"
        async with here.stream(path) as answer:
            last = (await answer.read()).decode().split()[-1]
        async with here.stream(path, last_id=last) as answer:
            assert (answer.status, await answer.read()) == (204, b"")


async def test_log__keeps_the_most_lines_that_a_client_can_request(idle: Inside, story: Story) -> None:
    story.run.logs.write_text("".join(f"{number}\n" for number in range(MAX_LINES + 5)), encoding="utf-8")
    async with idle.site.stream(f"{LOG}?tail=1") as response:
        lines = sent_events(response)
        assert (await anext(lines)).data == str(MAX_LINES + 4)
        with story.run.logs.open("a", encoding="utf-8") as file:
            file.write("".join(f"more {number}\n" for number in range(7)))
        end(story)
        assert [line.data async for line in lines] == [f"more {number}" for number in range(7)]


@pytest.mark.parametrize("sign", ["\n", "\r", "\r\n", "\u2028", "\x1b[2J", "\0"], ids=ascii)
async def test_log__with_control_characters_forges_no_event(idle: Inside, story: Story, sign: str) -> None:
    story.run.logs.write_bytes(f"x{sign}event: forged\nlast\n".encode())
    end(story)
    events = await idle.site.events(LOG)
    assert {event.event for event in events} == {""}
    assert events[-1].data == "last"


async def test_server__that_stops_ends_its_streams(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, _):
        Story(tmp_path / "artifacts", run_record(RUN, user_id=None)).start()
        async with inside(queue, with_api(settings), HttpTimeouts(stop_seconds=0.1)) as idle:
            begun = [await idle.site.begin(path) for path in (STREAM, f"/runs/{RUN}?wait=60")]
            await until(lambda: idle.api.open_streams == 2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            streamed, answered = [await reader.read() for reader, _ in begun]
        for _, writer in begun:
            writer.close()
    assert streamed.startswith(b"HTTP/1.1 200 ") and b"id: 3" in streamed
    assert answered == b""
    assert idle.api.open_streams == 0
