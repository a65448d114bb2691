"""Inference requests in Redis: results and their notifications, chunks of a generation, chats."""

from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from redis.typing import EncodableT, FieldT

from trainer.contracts.events import InferenceEvent
from trainer.store import keys
from trainer.store.connection import Connection, read_streams
from trainer.store.events import EVENT_STREAM_LENGTH

_NOTIFICATION_MS = 10_000
_MAX_TURNS = 200


class PieceBatch(NamedTuple):
    """Chunks of a generation that were read at once."""

    pieces: list[bytes]
    position: str
    """Position of the last chunk in the stream."""
    has_ended: bool
    """True if the result is stored, which happens after the last chunk."""


class ChatAppend(NamedTuple):
    """A turn to add to a chat, as JSON, and the new time to live of the chat."""

    chat: str
    turn: str
    ttl_seconds: float


class Answers(Connection):
    """Results of inference requests, and chats."""

    async def publish_inference(self, event: InferenceEvent) -> None:
        """Add an event of an inference request to the common stream."""
        reply: Awaitable[object] = self.redis.xadd(keys.EVENT_STREAM, _fields(event), maxlen=EVENT_STREAM_LENGTH)
        await reply

    async def put_answer(
        self,
        key: str,
        request_id: str,
        value: str,
        event: InferenceEvent,
        *,
        ttl_seconds: float,
        appended: ChatAppend | None = None,
    ) -> None:
        """Store a result in place of its request, notify the client, and publish the event, all at once.

        A turn is appended to its chat unless the chat has expired.
        """
        ready = keys.answer_ready(request_id)
        async with self.transaction() as pipe:
            pipe.set(key, value, px=int(ttl_seconds * 1000))
            pipe.delete(ready)
            pipe.xadd(ready, {"answered": 1})
            pipe.pexpire(ready, _NOTIFICATION_MS)
            if appended is not None:
                pipe.lpushx(appended.chat, appended.turn)
                pipe.ltrim(appended.chat, 0, _MAX_TURNS - 1)
                pipe.pexpire(appended.chat, int(appended.ttl_seconds * 1000))
            pipe.xadd(keys.EVENT_STREAM, _fields(event), maxlen=EVENT_STREAM_LENGTH)

    async def wait_for_answer(self, request_id: str, *, wait_seconds: float) -> None:
        """Wait for the notification of a result, for a limited time: a restarted server may have lost it."""
        reply: Awaitable[object] = self.redis.xread(
            {keys.answer_ready(request_id): "0-0"}, block=int(wait_seconds * 1000)
        )
        await reply

    async def put_pieces(self, request_id: str, pieces: Sequence[str], *, ttl_seconds: float) -> bool:
        """Publish chunks of a generation; return False if no client reads them any more."""
        stream = keys.pieces(request_id)
        async with self.redis.pipeline(transaction=True) as pipe:
            for piece in pieces:
                pipe.xadd(stream, {"piece": piece})
            pipe.pexpire(stream, int(ttl_seconds * 1000))
            pipe.exists(keys.reader(request_id))
            executed: Awaitable[list[int | bytes]] = pipe.execute()
            return (await executed)[-1] == 1

    async def read_pieces(self, request_id: str, after: str, *, wait_seconds: float, keep_seconds: float) -> PieceBatch:
        """Wait for chunks after a position ('0-0' for the first) or for the result; renew the mark of the reader."""
        stream, ready = keys.pieces(request_id), keys.answer_ready(request_id)
        await self.put(keys.reader(request_id), "1", ttl_seconds=keep_seconds)
        reply: Awaitable[object] = self.redis.xread({stream: after, ready: "0-0"}, block=int(wait_seconds * 1000))
        found = {name.decode(): entries for name, entries in read_streams(await reply)}
        entries = found.get(stream, [])
        pieces = [fields[b"piece"] for _, fields in entries if fields and b"piece" in fields]
        return PieceBatch(pieces, entries[-1][0].decode() if entries else after, ready in found)

    async def begin_chat(self, chat: str, *, ttl_seconds: float) -> None:
        async with self.transaction() as pipe:
            pipe.lpush(chat, "")
            pipe.pexpire(chat, int(ttl_seconds * 1000))

    async def turns(self, chat: str) -> list[bytes] | None:
        """Return the turns of a chat, oldest first; None if the chat does not exist or has expired."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.lrange(chat, 0, -1)
            executed: Awaitable[list[list[bytes]]] = pipe.execute()
            [stored] = await executed
        unique: dict[bytes, None] = dict.fromkeys(reversed(stored))  # a lost reply makes the worker add a turn twice
        return [turn for turn in unique if turn] if stored else None


def _fields(event: InferenceEvent) -> dict[FieldT, EncodableT]:
    return {"request_id": event.request_id, "event": event.model_dump_json(by_alias=True)}
