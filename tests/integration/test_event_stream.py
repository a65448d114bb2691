"""The event stream that wakes the bot, on a real Valkey: foreign entries are logged and skipped."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from redis.typing import EncodableT, FieldT

from tests.support.redis_servers import embedded
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS, captured_logs
from trainer.artifacts.runs import cancel_idle_run
from trainer.contracts.runs import RunStatus
from trainer.queue.enqueue import EventPublisher, publish_events
from trainer.store import keys


async def test_status_key__follows_the_run_and_cancel_key_lasts_until_its_end(tmp_path: Path) -> None:
    story = Story(tmp_path / "artifacts", run_record()).start()
    run_id = story.run.run_id
    seen: list[tuple[bytes | None, bytes | None]] = []
    async with embedded(tmp_path) as (_, _, store):

        async def see() -> None:
            seen.append((await store.get(f"runs:status:{run_id}"), await store.get(f"runs:{run_id}:cancelled")))

        await publish_events(store, story.run)
        await see()
        story.run.request_cancel()
        earlier = story.run.reader().read_new()
        await publish_events(store, story.run)
        await see()
        assert cancel_idle_run(story.run)
        await publish_events(store, story.run)
        await see()
        await store.publish(run_id, earlier, "of somebody who is late", is_cancelled=True)
        await see()
    statuses = [RunStatus.model_validate_json(status or b"").status for status, _ in seen]
    assert statuses == ["running", "running", "cancelled", "cancelled"]
    assert [flag for _, flag in seen] == [None, b"1", None, None]


async def test_garbage_on_the_stream__is_logged_and_skipped(tmp_path: Path) -> None:
    story = Story(tmp_path / "artifacts", run_record()).start()
    garbage: list[dict[FieldT, EncodableT]] = [{"junk": b"\xff"}, {"run_id": b"\xff\xfe"}]
    async with embedded(tmp_path) as (_, queue, store):
        rings = queue.states.next_run_ids()
        with captured_logs() as logs:
            for fields in garbage:
                put: Awaitable[object] = store.redis.xadd(keys.EVENT_STREAM, fields)
                await put
            await publish_events(store, story.run)
            async with asyncio.timeout(PATIENCE_SECONDS):
                rung = [await anext(rings) for _ in range(4)]
    assert rung[1:] == [story.record.run_id] * 3
    assert [line["event"] for line in logs] == ["malformed_event"]


async def test_publisher__reads_each_event_once_and_refills_an_emptied_server(tmp_path: Path) -> None:
    story = Story(tmp_path / "artifacts", run_record()).start()
    path = story.run.path / "events.jsonl"
    lengths: list[list[int]] = []
    async with embedded(tmp_path) as (_, _, store):
        publisher, streams = EventPublisher(store, story.run), (keys.run_events(story.run.run_id), keys.EVENT_STREAM)

        async def publish() -> None:
            await publisher.publish()
            lengths.append([await store.redis.xlen(key) for key in streams])

        await publish()
        story.step(1, 3.0)
        whole = path.read_bytes()
        *earlier, last = whole.splitlines(keepends=True)  # the earlier ones become as long and no events
        path.write_bytes(b"".join(b"?" * (len(line) - 1) + b"\n" for line in earlier) + last)
        with captured_logs() as logs:
            await publish()
        path.write_bytes(whole)
        story.step(2, 2.9)
        await store.redis.flushall()
        await publish()
    assert lengths == [[3, 3], [4, 4], [5, 5]]
    assert logs == [], "the earlier lines were not read again"
