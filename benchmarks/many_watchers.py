"""Pace of the bot's messages while twenty users watch fifty runs, each of them several.

    python -m benchmarks.many_watchers

Runs the real bot without a worker on a local Discord: the events of the runs are written by hand, faster than any
message may be edited. Prints the least time between two edits in a channel, the most requests in a window of Discord's
limit, and the final messages, and exits 1 if a goal is missed.
"""

import asyncio
import os
import sys
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.many_users import TOKEN, start_bot
from local_discord import LocalDiscord
from local_discord.driver import shown_text
from local_discord.rest import MESSAGES
from local_discord.state import User
from tests.support.stories import Story, run_record

USERS, RUNS, STEPS = 20, 50, 40
MANY = 8
"""Runs of the first user, who gets a digest; the others watch five each."""
EDIT_SECONDS, STEP_SECONDS, PATIENCE_SECONDS = 5.0, 1.0, 300.0


async def measure() -> int:
    os.environ["QUEUE__EMBEDDED_WORKERS"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        async with LocalDiscord(token=TOKEN) as discord:
            users = [discord.add_user(f"user-{number}") for number in range(USERS)]
            bot = await start_bot(Path(folder), discord, users)
            try:
                await discord.synced(60)
                await discord.connected(60)
                names = [f"char_lstm-{number}" for number in range(RUNS)]
                root = Path(folder) / "artifacts"
                stories = [Story(root, run_record(name, user_id=None, label=name)).start() for name in names]
                watched = {
                    user: stories[:MANY] if number == 0 else stories[number % 10 :: 10]
                    for number, user in enumerate(users)
                }
                await _watch(discord, watched)
                await _run(stories)
                seconds = await _finals(discord, watched)
            finally:
                bot.terminate()
                await bot.wait()
            return _print(discord, watched, seconds)


async def _watch(discord: LocalDiscord, watched: Mapping[User, Sequence[Story]]) -> None:
    """Let each user type `/mt watch` for each run."""

    async def watch(user: User, story: Story) -> None:
        await (await discord.slash(user, "mt watch", {"run": story.record.run_id})).reply(PATIENCE_SECONDS)

    await asyncio.gather(*(watch(user, story) for user, followed in watched.items() for story in followed))


async def _run(stories: Sequence[Story]) -> None:
    """Let all runs train at the same time, then end."""
    for step in range(1, STEPS + 1):
        for story in stories:
            story.step(step, 3.0 - step / STEPS)
        await asyncio.sleep(STEP_SECONDS)
    for story in stories:
        story.cancel()


async def _finals(discord: LocalDiscord, watched: Mapping[User, Sequence[Story]]) -> float:
    """Wait until each user has a final message of each run; return the seconds."""
    begin = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(_count(discord, user, one) == 0 for user, followed in watched.items() for one in followed):
            await asyncio.sleep(0.2)
    seconds = time.monotonic() - begin
    await asyncio.sleep(4 * EDIT_SECONDS)  # in which a message would come twice
    return seconds


def _count(discord: LocalDiscord, user: User, story: Story) -> int:
    """Return the number of final messages of a run to a user."""
    messages = discord.messages(discord.dm_channel(user))
    return sum(f"{story.record.run_id} · result" in shown_text(message.payload) for message in messages)


def _print(discord: LocalDiscord, watched: Mapping[User, Sequence[Story]], seconds: float) -> int:
    edits: list[float] = []
    for user in watched:
        messages = discord.messages(discord.dm_channel(user))
        times = sorted(at_seconds for message in messages for at_seconds in message.edit_seconds)
        edits += [later - earlier for earlier, later in pairwise(times)]
    counts = [_count(discord, user, story) for user, followed in watched.items() for story in followed]
    refused = [request for request in discord.requests if request.status == 429]
    goals = {
        "most requests in a window of Discord's limit": (_most_in_window(discord), MESSAGES.requests - 1),
        "final messages missing or sent twice": (sum(count != 1 for count in counts), 0),
        "violations of Discord's rules": (len(discord.violations), 0),
        "requests refused as too many (429)": (len(refused), 0),
    }
    is_slow = min(edits) >= EDIT_SECONDS
    print(
        f"{'ok  ' if is_slow else 'MISS'} least time between two of {len(edits)} edits in a channel: {min(edits):.2f} s"
        f" (at least {EDIT_SECONDS:g})"
    )
    for name, (value, goal) in goals.items():
        print(f"{'ok  ' if value <= goal else 'MISS'} {name}: {value} (at most {goal})")
    print(f"{len(counts)} final messages after {seconds:.0f} s, to {len(watched)} users of {RUNS} runs")
    return 0 if is_slow and all(value <= goal for value, goal in goals.values()) else 1


def _most_in_window(discord: LocalDiscord) -> int:
    """Return the most requests to create, or to edit, messages of one channel within a window of Discord's limit."""
    buckets: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for request in discord.requests:
        if request.operation_id in ("create_message", "update_message"):
            channel = request.path.split("/channels/")[1].split("/")[0]
            buckets[request.operation_id, channel].append(request.at_seconds)
    return max(
        bisect_right(times, begin + MESSAGES.window_seconds) - index
        for times in buckets.values()
        for index, begin in enumerate(times)
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
