"""What the store keeps of questions to runs: answers and their bells, pieces of a text that is being written, chats."""

from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from redis.typing import EncodableT, FieldT

from trainer.contracts.events import InferenceEvent
from trainer.store import keys
from trainer.store.connection import Connection, read_streams
from trainer.store.events import EVENT_STREAM_LENGTH

_ANSWER_BELL_MS = 10_000
_MOST_TURNS = 200


class Heard(NamedTuple):
    """What was heard of a text that is being written."""

    pieces: list[bytes]
    position: str
    """Where to read on from."""
    has_ended: bool
    """Whether the answer is there, which comes after the last piece."""


class Said(NamedTuple):
    """A turn of a chat, as JSON, and how long the chat is kept from now on."""

    chat: str
    turn: str
    ttl_seconds: float


class Answers(Connection):
    """Answers, whole and in pieces, and the chats they belong to."""

    async def tell_inference(self, event: InferenceEvent) -> None:
        """Put what happens to a short job on the common stream, where it rings for no run."""
        reply: Awaitable[object] = self.redis.xadd(keys.EVENT_STREAM, _fields(event), maxlen=EVENT_STREAM_LENGTH)
        await reply

    async def put_answer(
        self,
        key: str,
        bell: str,
        value: str,
        event: InferenceEvent,
        *,
        ttl_seconds: float,
        said: Said | None = None,
    ) -> None:
        """Put an answer in the place of its request, ring the bell of who waits for it, and tell that it has ended.

        What was said in a chat is added to it, unless that is no longer kept.
        """
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.set(key, value, px=int(ttl_seconds * 1000))
            pipe.delete(bell)  # whatever it holds: it is rung once
            pipe.xadd(bell, {"answered": 1})
            pipe.pexpire(bell, _ANSWER_BELL_MS)
            if said is not None:
                pipe.lpushx(said.chat, said.turn)
                pipe.ltrim(said.chat, 0, _MOST_TURNS - 1)
                pipe.pexpire(said.chat, int(said.ttl_seconds * 1000))
            pipe.xadd(keys.EVENT_STREAM, _fields(event), maxlen=EVENT_STREAM_LENGTH)
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def wait_for_answer(self, bell: str, *, wait_seconds: float) -> None:
        """Wait until a bell has rung, but not for ever: a server that was away may have forgotten that it has."""

        async def command() -> None:
            reply: Awaitable[object] = self.redis.xread({bell: "0-0"}, block=int(wait_seconds * 1000))
            await reply

        await self._with({bell: "stream"}, command)

    async def put_pieces(self, request_id: str, pieces: Sequence[str], *, ttl_seconds: float) -> bool:
        """Tell pieces of a text that is being written; False where nobody reads them any more."""
        stream = keys.pieces(request_id)

        async def command() -> list[int | bytes]:
            async with self.redis.pipeline(transaction=True) as pipe:
                for piece in pieces:
                    pipe.xadd(stream, {"piece": piece})
                pipe.pexpire(stream, int(ttl_seconds * 1000))
                pipe.exists(keys.reader(request_id))
                executed: Awaitable[list[int | bytes]] = pipe.execute()
                return await executed

        return (await self._with({stream: "stream"}, command))[-1] == 1

    async def read_pieces(self, request_id: str, after: str, *, wait_seconds: float, keep_seconds: float) -> Heard:
        """Wait for pieces after a position ('0-0' for the first), or for the end; say that somebody reads them."""
        stream, bell = keys.pieces(request_id), keys.answer_bell(request_id)
        await self.put(keys.reader(request_id), "1", ttl_seconds=keep_seconds)

        async def command() -> Heard:
            reply: Awaitable[object] = self.redis.xread({stream: after, bell: "0-0"}, block=int(wait_seconds * 1000))
            found = {name.decode(): entries for name, entries in read_streams(await reply)}
            entries = found.get(stream, [])
            pieces = [fields[b"piece"] for _, fields in entries if fields and b"piece" in fields]
            return Heard(pieces, entries[-1][0].decode() if entries else after, bell in found)

        return await self._with({stream: "stream", bell: "stream"}, command)

    async def begin_chat(self, chat: str, *, ttl_seconds: float) -> None:
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.lpush(chat, "")
            pipe.pexpire(chat, int(ttl_seconds * 1000))
            executed: Awaitable[object] = pipe.execute()
            await executed

    async def turns(self, chat: str) -> list[bytes] | None:
        """What was said in a chat, the oldest first; None where it is not kept, or no more."""

        async def command() -> list[bytes]:
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.lrange(chat, 0, -1)
                executed: Awaitable[list[list[bytes]]] = pipe.execute()
                [kept] = await executed
                return kept

        kept = await self._with({chat: "list"}, command)
        once: dict[bytes, None] = dict.fromkeys(reversed(kept))  # a turn is put there again where the reply was lost
        return [turn for turn in once if turn] if kept else None


def _fields(event: InferenceEvent) -> dict[FieldT, EncodableT]:
    return {"request_id": event.request_id, "event": event.model_dump_json(by_alias=True)}
