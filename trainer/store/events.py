"""Event streams in Redis: one for each run, and a common one that wakes the bot."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from pydantic import ValidationError
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError
from redis.typing import EncodableT, FieldT

from trainer.contracts.events import RUN_ENDS, Event, event_adapter
from trainer.store import keys
from trainer.store.connection import Connection, Entries, entries_adapter, read_streams

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

EVENT_STREAM_LENGTH = 10_000
_RUN_STREAM_LENGTH = 2_000
_CONSUMER = "bot"
ENDED_SECONDS = 7 * 86_400
"""Time from the end of a run until Redis drops its stream and status; the disk has both."""


class EventStreams(Connection):
    """Events of runs."""

    async def publish(
        self, run_id: str, events: Sequence[Event], status: str, *, is_cancelled: bool, after: int = 0
    ) -> bool:
        """Add the new events of a run to its stream and to the common one; store its status and its cancel request.

        The entry ids of a run's stream are the sequence numbers of its events, so an event is published once, by
        one of several publishers: each watches the stream and starts again after a change.

        The stream and the status of an ended run expire, as the disk has both.

        `events` are those after the sequence number `after`. Returns False, having published nothing, if the stream
        does not have the events up to `after`: the caller then publishes from the first event.
        """
        key = keys.run_events(run_id)

        async def append(pipe: Pipeline) -> bool:
            last: Awaitable[object] = pipe.xrevrange(key, count=1)
            published = _last_published(run_id, entries_adapter.validate_python(await last))
            if published < after:
                return False
            begin: Callable[[], None] = pipe.multi
            begin()
            if published == 0:  # a stream that is not ours may refuse our entry ids
                pipe.delete(key)
            for event in events:
                if event.seq > published:
                    body = event.model_dump_json()
                    pipe.xadd(key, {"event": body}, id=f"{event.seq}-0", maxlen=_RUN_STREAM_LENGTH)
                    fields: dict[FieldT, EncodableT] = {"run_id": run_id, "seq": event.seq, "event": body}
                    pipe.xadd(keys.EVENT_STREAM, fields, maxlen=EVENT_STREAM_LENGTH)
            if events and events[-1].seq >= published:
                _set_state(pipe, run_id, status, is_cancelled=is_cancelled, has_ended=isinstance(events[-1], RUN_ENDS))
            return True

        published: Awaitable[bool] = self.redis.transaction(append, key, value_from_callable=True)
        return await published

    async def unpublished(self, run_ids: Sequence[str]) -> list[str]:
        """Return the runs that have no event stream in Redis."""
        if not run_ids:
            return []
        streams = [keys.run_events(run_id) for run_id in run_ids]
        counted: Awaitable[int] = self.redis.exists(*streams)
        if await counted == len(streams):
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.exists(stream)
            executed: Awaitable[list[int]] = pipe.execute()
            return [run_id for run_id, exists in zip(run_ids, await executed, strict=True) if not exists]

    async def next_run_ids(self, *, wait_seconds: float) -> list[str]:
        """Wait for events that no bot has received yet, and return the ids of their runs."""
        try:
            reply: Awaitable[object] = self.redis.xreadgroup(
                keys.EVENT_GROUP,
                _CONSUMER,
                {keys.EVENT_STREAM: ">"},
                count=100,
                block=int(wait_seconds * 1000),
                noack=True,  # else the server would keep what a killed bot has not acknowledged
            )
            streams = read_streams(await reply)
        except ResponseError:  # there is no group yet; any other error occurs again here
            created: Awaitable[object] = self.redis.xgroup_create(
                keys.EVENT_STREAM, keys.EVENT_GROUP, id="0", mkstream=True
            )
            await created
            return []
        entries = [entry for _, entries in streams for entry in entries]
        # a trimmed entry has no fields; the event log on disk still has its event
        with_fields = [(entry_id, fields) for entry_id, fields in entries if fields]
        for entry_id, fields in with_fields:
            if b"run_id" not in fields and b"request_id" not in fields:
                log.warning("malformed_event", entry_id=entry_id.decode())
        return [fields[b"run_id"].decode(errors="replace") for _, fields in with_fields if b"run_id" in fields]


def _set_state(pipe: Pipeline, run_id: str, status: str, *, is_cancelled: bool, has_ended: bool) -> None:
    pipe.set(keys.status(run_id), status, ex=ENDED_SECONDS if has_ended else None)
    if has_ended:
        pipe.expire(keys.run_events(run_id), ENDED_SECONDS)
    if is_cancelled:
        pipe.set(keys.cancelled(run_id), 1)
    else:
        pipe.delete(keys.cancelled(run_id))


def _last_published(run_id: str, last: Entries) -> int:
    """Return the sequence number of the last event on a run's stream; 0 if the last entry is no event of the run."""
    for entry_id, fields in last:
        try:
            event = event_adapter.validate_json((fields or {}).get(b"event", b""))
        except ValidationError:
            return 0
        return event.seq if (event.job_id, f"{event.seq}-0".encode()) == (run_id, entry_id) else 0
    return 0
