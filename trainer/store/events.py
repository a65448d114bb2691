"""The streams of events: one of each run, and a common one that wakes the bot."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog
from pydantic import ValidationError
from redis.exceptions import ResponseError, WatchError
from redis.typing import EncodableT, FieldT

from trainer.contracts.events import Event, event_adapter
from trainer.store import keys
from trainer.store.connection import Connection, Entries, entries_adapter, read_streams

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

EVENT_STREAM_LENGTH = 10_000
"""So many events are kept on the common stream."""
_RUN_STREAM_LENGTH = 2_000


class EventStreams(Connection):
    """What is told of runs, and the ring that whoever shows them waits for."""

    async def tell(self, run_id: str, events: Sequence[Event], status: str, *, is_cancelled: bool) -> None:
        """Put those of a run's events that have not been told on its own stream and on the common one (R7).

        With them, unless somebody has told more, how the run stands and whether it is to be cancelled.

        The ids of a run's stream are the sequence numbers, so it knows what has been told; whoever tells watches it,
        so of several who do at once only one tells each event.
        """

        async def command() -> None:
            has_told = False
            while not has_told:
                with suppress(WatchError):  # somebody else has told some, or the connection broke: look again
                    await self._tell(run_id, events, status, is_cancelled=is_cancelled)
                    has_told = True

        # where one of the two is mended, the run is told anew
        await self._with({keys.EVENT_STREAM: "stream", keys.run_events(run_id): ""}, command)

    async def untold(self, run_ids: Sequence[str]) -> list[str]:
        """Those of these runs of which the store knows no event."""
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
            return [run_id for run_id, there in zip(run_ids, await executed, strict=True) if not there]

    async def _tell(self, run_id: str, events: Sequence[Event], status: str, *, is_cancelled: bool) -> None:
        key = keys.run_events(run_id)
        async with self.redis.pipeline(transaction=True) as pipe:
            watched: Awaitable[object] = pipe.watch(key)
            await watched
            last: Awaitable[object] = pipe.xrevrange(key, count=1)
            told = _last_told(run_id, entries_adapter.validate_python(await last))
            begin: Callable[[], None] = pipe.multi
            begin()
            if told == 0:  # nothing, all trimmed, or not ours: its ids may be higher than those to come
                pipe.delete(key)
            for event in events:
                if event.seq > told:
                    body = event.model_dump_json()
                    pipe.xadd(key, {"event": body}, id=f"{event.seq}-0", maxlen=_RUN_STREAM_LENGTH)
                    fields: dict[FieldT, EncodableT] = {"run_id": run_id, "seq": event.seq, "event": body}
                    pipe.xadd(keys.EVENT_STREAM, fields, maxlen=EVENT_STREAM_LENGTH)
            if events and events[-1].seq >= told:
                pipe.set(keys.status(run_id), status)
                if is_cancelled:
                    pipe.set(keys.cancelled(run_id), 1)
                else:
                    pipe.delete(keys.cancelled(run_id))
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def next_rings(self, consumer: str, *, wait_seconds: float) -> list[str]:
        """Wait for events, acknowledge them, and return the ids of their runs."""

        async def command() -> list[str]:
            return await self._next_rings(consumer, wait_seconds)

        return await self._with({keys.EVENT_STREAM: "stream"}, command)

    async def _next_rings(self, consumer: str, wait_seconds: float) -> list[str]:
        try:
            reply: Awaitable[object] = self.redis.xreadgroup(
                keys.EVENT_GROUP, consumer, {keys.EVENT_STREAM: ">"}, count=100, block=int(wait_seconds * 1000)
            )
            streams = read_streams(await reply)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            created: Awaitable[object] = self.redis.xgroup_create(
                keys.EVENT_STREAM, keys.EVENT_GROUP, id="0", mkstream=True
            )
            await created
            return []
        entries = [entry for _, entries in streams for entry in entries]
        if entries:
            acknowledged: Awaitable[object] = self.redis.xack(
                keys.EVENT_STREAM, keys.EVENT_GROUP, *(entry_id for entry_id, _ in entries)
            )
            await acknowledged
        # an entry that was trimmed while it waited has no body: the runs on disk still have it
        with_body = [(entry_id, fields) for entry_id, fields in entries if fields]
        for entry_id, fields in with_body:
            if b"run_id" not in fields and b"request_id" not in fields:  # what happens to short jobs rings for no run
                log.warning("malformed event on the stream left out", entry_id=entry_id.decode())
        return [fields[b"run_id"].decode(errors="replace") for _, fields in with_body if b"run_id" in fields]


def _last_told(run_id: str, last: Entries) -> int:
    """The sequence number of the event that a run's stream ends with; 0 for an end that is none of its events."""
    for entry_id, fields in last:
        try:
            event = event_adapter.validate_json((fields or {}).get(b"event", b""))
        except ValidationError:
            return 0
        return event.seq if (event.job_id, f"{event.seq}-0".encode()) == (run_id, entry_id) else 0
    return 0
