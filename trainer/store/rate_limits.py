"""Places that are claimed in the store, so many at a time under each key."""

import json
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from pydantic import TypeAdapter

from trainer.store.connection import Connection, Kind, Script

_full_adapter: TypeAdapter[tuple[int, int]] = TypeAdapter(tuple[int, int])

_CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limits = cjson.decode(ARGV[2])
for place, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  local count = redis.call('ZCARD', key)
  for _, member in ipairs(limits[place].held) do
    if not redis.call('ZSCORE', key, member) then count = count + 1 end
  end
  if count >= limits[place].most then
    local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    return {place, oldest and oldest - now or 0}
  end
end
for place, key in ipairs(KEYS) do
  local milliseconds = limits[place].milliseconds
  redis.call('ZADD', key, now + milliseconds, ARGV[1])
  redis.call('PEXPIRE', key, math.max(milliseconds, redis.call('PTTL', key)))
end
return {0, 0}
"""
"""Claim a place under every key, or under none and say which is full: its number, and the time of its oldest claim."""


class Limit(NamedTuple):
    """At most so many claims under a key at a time; one that is not given back ends after some seconds."""

    key: str
    most: int
    seconds: float
    held: tuple[str, ...] = ()
    """Claims that count though the store may have forgotten them."""


class Full(NamedTuple):
    """A limit that has no place left, and in how many seconds its oldest claim ends; 0 where that is not known."""

    limit: Limit
    seconds: float


class Limits(Connection):
    """The limits of what is done at a time."""

    async def claim(self, claim: str, limits: Sequence[Limit]) -> Full | None:
        """Take one place under each limit at once, or none where one is full; what is claimed again is prolonged."""
        script: Script = self.redis.register_script(_CLAIM)
        bounds = [{"most": a.most, "milliseconds": int(a.seconds * 1000), "held": a.held} for a in limits]

        async def command() -> tuple[int, int]:
            return _full_adapter.validate_python(
                await script(keys=[limit.key for limit in limits], args=[claim, json.dumps(bounds)])
            )

        full: tuple[int, int] = await self._with(_sorted_sets(limits), command)
        place, milliseconds = full
        return Full(limits[place - 1], milliseconds / 1000) if place else None

    async def give_back(self, claim: str, limits: Sequence[Limit]) -> None:
        """End a claim before its time."""

        async def command() -> None:
            async with self.redis.pipeline(transaction=True) as pipe:
                for limit in limits:
                    pipe.zrem(limit.key, claim)
                executed: Awaitable[object] = pipe.execute()
                await executed

        await self._with(_sorted_sets(limits), command)


def _sorted_sets(limits: Sequence[Limit]) -> dict[str, Kind]:
    return {limit.key: "zset" for limit in limits}
