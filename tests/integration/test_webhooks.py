"""Webhooks between a sender and real receivers: signed, in order, tried again, and confirmed events never again."""

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from bot.app import build
from local_discord import LocalDiscord
from tests.support.bot import TOKEN, settings
from tests.support.disk_failures import FailingDisk
from tests.support.stories import Story
from tests.support.waiting import ANSWER_SECONDS, captured_logs, until
from tests.support.webhooks import QUICK, Body, Received, Receiver, new_story, receiver, sending, webhook_settings
from trainer.artifacts.runs import manifest_of
from trainer.http.webhooks.ledger import read_webhooks

END = "trainer.job.cancelled.v1"


@pytest.fixture(name="here")
async def here_fixture() -> AsyncIterator[Receiver]:
    async with receiver() as here:
        yield here


def has_ended(story: Story) -> bool:
    """True once every address is known to have the last event."""
    progress = read_webhooks(story.run).addresses
    return bool(progress) and all(address.has_ended for address in progress)


def last_confirmed(story: Story) -> int:
    """The number of the last event that the only address is known to have."""
    return max((address.seq for address in read_webhooks(story.run).addresses), default=0)


async def test_end_of_a_run__is_sent_once(here: Receiver, tmp_path: Path) -> None:
    async with sending(tmp_path, here.url) as sender:
        story = new_story(tmp_path).start().step(1, 2.0)
        sender.wake("char_lstm-1")
        story.step(2, 1.9).cancel()
        sender.wake("char_lstm-1")
        await until(lambda: has_ended(story))
        sender.wake("char_lstm-1")
    [received] = here.received
    assert received.path == "/hook"
    assert received.body == Body(run_id="char_lstm-1", type=END, seq=6, event_id="char_lstm-1:cancelled")


async def test_failed_requests__are_sent_again_with_the_same_id(here: Receiver, tmp_path: Path) -> None:
    answers = [
        web.Response(status=500),
        web.Response(status=503, headers={"Retry-After": "0"}),
        web.Response(status=404, headers={"Retry-After": "Sun, 22 Nov 2026 00:00:00 GMT"}),
        web.Response(status=307, headers={"Location": "/elsewhere"}),
        web.Response(status=204),
    ]
    async with sending(tmp_path, here.url) as sender:
        here.answer = lambda received: answers.pop(0)
        story = new_story(tmp_path).cancel()
        with captured_logs() as lines:
            sender.wake("char_lstm-1")
            await until(lambda: has_ended(story))
    assert here.events == [("char_lstm-1", 2)] * 5
    assert {received.path for received in here.received} == {"/hook"}, "a redirect is not followed"
    assert len({received.message_id for received in here.received}) == 1
    assert [line["error"] for line in lines] == ["HTTP 500", "HTTP 503", "HTTP 404", "HTTP 307"]
    assert read_webhooks(story.run).addresses[0].failing_since is None


async def test_receiver_that_is_down__gets_the_event_later_and_delays_no_other(here: Receiver, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # refuses connections until it listens
        port: int = bound.getsockname()[1]
        async with sending(tmp_path, f"http://127.0.0.1:{port}/", here.url) as sender:
            story = new_story(tmp_path).cancel()
            with captured_logs() as lines:
                sender.wake("char_lstm-1")
                await until(lambda: here.events == [("char_lstm-1", 2)] and bool(lines))
            assert not has_ended(story)
            runner = web.ServerRunner(web.Server(here.handle), shutdown_timeout=0.1)
            await runner.setup()
            await web.SockSite(runner, bound).start()
            await until(lambda: has_ended(story))
            await runner.cleanup()
    assert sorted(received.path for received in here.received) == ["/", "/hook"]
    assert "Connect call failed" in str(lines[0]["error"])


async def test_events_of_a_run__come_in_order_and_those_of_others_meanwhile(here: Receiver, tmp_path: Path) -> None:
    refused = 0

    def answer(received: Received) -> web.Response:
        nonlocal refused
        if received.body.run_id == "char_lstm-1" and received.body.seq == 3 and not has_ended(other):
            refused += 1
            return web.Response(status=500)
        return web.Response()

    async with sending(tmp_path, here.url, events="trainer") as sender:
        here.answer = answer
        story, other = new_story(tmp_path), new_story(tmp_path, "char_lstm-2")
        story.start().step(1, 2.0).cancel()
        sender.wake("char_lstm-1")
        await until(lambda: refused > 0)
        other.start().cancel()
        sender.wake("char_lstm-2")
        await until(lambda: has_ended(story))
    first = [seq for run_id, seq in here.events if run_id == "char_lstm-1"]
    assert first == [1, 2, *[3] * (refused + 1), 4, 5]
    assert [seq for run_id, seq in here.events if run_id == "char_lstm-2"] == [1, 2, 3, 4]


async def test_restart__sends_what_is_left_and_nothing_twice(here: Receiver, tmp_path: Path) -> None:
    async with sending(tmp_path, here.url, events="trainer") as sender:
        story = new_story(tmp_path).start()
        sender.wake("char_lstm-1")
        await until(lambda: last_confirmed(story) == 3)
    story.step(1, 2.0)
    async with sending(tmp_path, here.url, events="trainer"):
        await until(lambda: last_confirmed(story) == 4)
    story.cancel()
    async with sending(tmp_path, here.url, events="trainer"):
        await until(lambda: has_ended(story))
    async with sending(tmp_path, here.url, events="trainer"):
        other = new_story(tmp_path, "char_lstm-2").cancel()
        await until(lambda: has_ended(other))
    assert here.events == [*(("char_lstm-1", seq) for seq in range(1, 6)), ("char_lstm-2", 1), ("char_lstm-2", 2)]


async def test_restart_during_failures__sends_the_event_until_it_is_confirmed(here: Receiver, tmp_path: Path) -> None:
    here.answer = lambda received: web.Response(status=502)
    async with sending(tmp_path, here.url) as sender:
        story = new_story(tmp_path).cancel()
        sender.wake("char_lstm-1")
        await until(lambda: len(here.received) > 1)
    failing_since = read_webhooks(story.run).addresses[0].failing_since
    sent = len(here.received)
    here.answer = lambda received: web.Response()
    async with sending(tmp_path, here.url):
        await until(lambda: has_ended(story))
    assert failing_since is not None
    assert len(here.received) == sent + 1


async def test_stop__waits_for_an_answer_that_is_under_way(here: Receiver, tmp_path: Path) -> None:
    here.may_answer.clear()
    async with sending(tmp_path, here.url, timeouts=QUICK._replace(stop=300.0)) as sender:
        story = new_story(tmp_path).cancel()
        sender.wake("char_lstm-1")
        await until(lambda: bool(here.received))
        stopping = asyncio.create_task(sender.stop())
        await asyncio.sleep(0)
        here.may_answer.set()
        await stopping
    assert has_ended(story)


async def test_stop__does_not_wait_long_and_the_next_bot_sends_the_same_message(here: Receiver, tmp_path: Path) -> None:
    here.may_answer.clear()
    async with sending(tmp_path, here.url, timeouts=QUICK._replace(stop=0.01)) as sender:
        story = new_story(tmp_path).cancel()
        sender.wake("char_lstm-1")
        await until(lambda: bool(here.received))
    here.may_answer.set()
    async with sending(tmp_path, here.url):
        await until(lambda: has_ended(story))
    assert len(here.received) == 2
    assert len({received.message_id for received in here.received}) == 1


async def test_slow_receiver__is_tried_again(here: Receiver, tmp_path: Path) -> None:
    async with sending(tmp_path, here.url, timeouts=QUICK._replace(request=0.2)) as sender:
        here.may_answer.clear()
        story = new_story(tmp_path).cancel()
        with captured_logs() as lines:
            sender.wake("char_lstm-1")
            await until(lambda: bool(lines))
        here.may_answer.set()
        await until(lambda: has_ended(story))
    assert "Timeout" in str(lines[0]["error"])
    assert not any("127.0.0.1:" in str(line) for line in lines), "the address may be a secret"


async def test_gone__ends_webhooks_to_this_address_until_the_next_start(here: Receiver, tmp_path: Path) -> None:
    async with receiver() as other:
        here.answer = lambda received: web.Response(status=410)
        async with sending(tmp_path, here.url, other.url, events="trainer") as sender:
            story = new_story(tmp_path).start()
            with captured_logs() as lines:
                sender.wake("char_lstm-1")
                await until(lambda: len(other.received) == 3 and bool(lines))
            later = new_story(tmp_path, "char_lstm-2").cancel()
            story.cancel()
            sender.wake("char_lstm-1")
            sender.wake("char_lstm-2")
            await until(lambda: len(other.received) == 6)
        assert here.events == [("char_lstm-1", 1)]
        here.answer = lambda received: web.Response()
        async with sending(tmp_path, here.url, other.url, events="trainer"):
            await until(lambda: has_ended(story) and has_ended(later) and len(here.received) == 7)
    assert [(line["event"], line["host"]) for line in lines] == [("webhook_address_gone", "127.0.0.1")]
    assert [seq for run_id, seq in here.events if run_id == "char_lstm-1"] == [1, 1, 2, 3, 4]
    assert len(other.received) == 6


async def test_receiver__gets_four_requests_at_a_time(here: Receiver, tmp_path: Path) -> None:
    names = [f"char_lstm-{number}" for number in range(6)]
    here.may_answer.clear()
    here.answer = lambda received: web.Response(status=410)
    async with sending(tmp_path, here.url) as sender:
        for name in names:
            new_story(tmp_path, name).cancel()
            sender.wake(name)
        await until(lambda: len(here.received) == 4)
        with captured_logs() as lines:
            here.may_answer.set()
            await until(lambda: here.answered == 4 and bool(lines))
    assert [line["event"] for line in lines] == ["webhook_address_gone"]
    assert len(here.received) == 4


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0"])
async def test_address_of_this_machine__is_refused_before_any_connection(host: str, tmp_path: Path) -> None:
    connections = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        url = f"https://{host}:{port}/"
        new_story(tmp_path)
        async with sending(tmp_path, url, events="trainer", allow_private=False) as sender:
            new_story(tmp_path, "char_lstm-2").cancel()
            with captured_logs() as lines:
                sender.wake("char_lstm-2")
                await until(lambda: len(lines) > 1)
    assert connections == 0
    assert "WEBHOOKS__ALLOW_PRIVATE is false" in str(lines[0]["error"])


async def test_new_address__gets_no_events_of_before(here: Receiver, tmp_path: Path) -> None:
    ended, running = new_story(tmp_path).cancel(), new_story(tmp_path, "char_lstm-2").start()
    sealed = new_story(tmp_path, "char_lstm-3").cancel().run
    sealed.write_manifest(manifest_of(sealed.record(), "cancelled"))
    sealed.write_seal()
    os.utime(sealed.seal, (0, 0))
    async with sending(tmp_path, here.url, events="trainer"):
        await until(lambda: has_ended(ended))
        later = new_story(tmp_path, "char_lstm-4").cancel()
    async with sending(tmp_path, here.url, events="trainer"):
        await until(lambda: has_ended(later))
    assert here.events == [("char_lstm-4", 1), ("char_lstm-4", 2)]
    assert not sealed.webhook_ledger.exists()
    assert not has_ended(running)


async def test_receiver_that_fails_for_a_day__loses_the_event_and_gets_the_next(here: Receiver, tmp_path: Path) -> None:
    times = QUICK._replace(give_up=0)
    async with sending(tmp_path, here.url, events="trainer", timeouts=times) as sender:
        here.answer = lambda received: web.Response(status=500 if received.body.seq == 1 else 200)
        story = new_story(tmp_path).cancel()
        with captured_logs() as lines:
            sender.wake("char_lstm-1")
            await until(lambda: has_ended(story))
    assert here.events == [("char_lstm-1", 1), ("char_lstm-1", 2)]
    assert [(line["event"], line["event_id"]) for line in lines] == [("webhook_given_up", "char_lstm-1:queued:0")]
    [progress] = read_webhooks(story.run).addresses
    assert (progress.given_up, progress.failing_since) == (1, None)


async def test_full_disk__sends_nothing_twice(here: Receiver, tmp_path: Path) -> None:
    disk = FailingDisk(1, errno.ENOSPC)
    async with sending(tmp_path, here.url):
        pass  # the address is known
    async with sending(tmp_path, here.url, disk=disk) as sender:
        story = new_story(tmp_path).cancel()
        with captured_logs() as lines:
            sender.wake("char_lstm-1")
            await until(lambda: has_ended(story))
    assert [line["event"] for line in lines] == ["webhook_ledger_failed"]
    assert "The disk is full" in str(lines[0]["error"])
    assert len(here.received) == 1


async def test_runs_that_cannot_be_read__are_logged_once_and_hold_up_no_other(here: Receiver, tmp_path: Path) -> None:
    damaged, replaced = new_story(tmp_path).cancel(), new_story(tmp_path, "char_lstm-2").cancel()
    damaged.run.webhook_ledger.write_bytes(b"{")
    (replaced.run.path / "events.jsonl").unlink()
    (replaced.run.path / "events.jsonl").mkdir()
    with captured_logs() as lines:
        async with sending(tmp_path, here.url, timeouts=QUICK._replace(scan=0.05)) as sender:
            sender.wake("../char_lstm-1")
            sender.wake("char_lstm-99")
            await until(lambda: len(lines) == 2)
            story = new_story(tmp_path, "char_lstm-3").cancel()
            await until(lambda: has_ended(story))
    unreadable = [("run_unreadable", "char_lstm-1"), ("run_unreadable", "char_lstm-2")]
    assert sorted((line["event"], line["run_id"]) for line in lines) == unreadable
    assert here.events == [("char_lstm-3", 2)]


async def test_deleted_run__is_left_alone(here: Receiver, tmp_path: Path) -> None:
    async with sending(tmp_path, here.url) as sender:
        here.may_answer.clear()
        story = new_story(tmp_path).cancel()
        with captured_logs() as lines:
            sender.wake("char_lstm-1")
            await until(lambda: bool(here.received))
            shutil.rmtree(story.run.path)
            here.may_answer.set()
            await until(lambda: bool(lines))
    assert [(line["event"], line["run_id"]) for line in lines] == [("run_deleted", "char_lstm-1")]
    assert not story.run.path.exists()
    assert len(here.received) == 1


async def test_lost_notification__is_found_by_a_scan(here: Receiver, tmp_path: Path) -> None:
    times = QUICK._replace(scan=0.05)
    async with sending(tmp_path, here.url, events="trainer", timeouts=times):
        story = new_story(tmp_path).start()
        await until(lambda: last_confirmed(story) == 3)
        story.cancel()
        await until(lambda: has_ended(story))
    assert [seq for _, seq in here.events] == [1, 2, 3, 4]


async def test_ledger_that_cannot_be_opened__is_tried_again(here: Receiver, tmp_path: Path) -> None:
    story = new_story(tmp_path).start()
    leftover = story.run.path / ".webhooks.json.0.tmp"
    leftover.mkdir()
    async with sending(tmp_path, here.url, timeouts=QUICK._replace(scan=0.05)):
        with captured_logs() as lines:
            await until(lambda: bool(lines))
        leftover.rmdir()
        story.cancel()
        await until(lambda: has_ended(story))
    assert (lines[0]["event"], lines[0]["task"]) == ("task_failed", "webhooks")


async def test_without_an_address__nothing_is_sent_or_stored(tmp_path: Path) -> None:
    new_story(tmp_path).cancel()
    async with sending(tmp_path) as sender:
        sender.wake("char_lstm-1")
    assert os.listdir(tmp_path) == ["models"]


async def test_bot__sends_the_end_of_a_run_that_is_cancelled(here: Receiver, tmp_path: Path) -> None:
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        webhooks: dict[str, object] = {"webhooks": webhook_settings(here.url)}
        async with build(settings(tmp_path, server, owner_id=7).model_copy(update=webhooks)) as bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await server.connected()
            await server.synced()
            new_story(tmp_path / "artifacts")
            await bot.lab.queue.states.cancel("char_lstm-1")
            await until(lambda: bool(here.received))
        await asyncio.gather(running, return_exceptions=True)
    assert [received.body.type for received in here.received] == [END]
