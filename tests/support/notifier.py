"""The notifier on a local Discord, without the rest of the bot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import discord
from discord.http import Route

from bot.notifications.notifier import Notifier
from bot.people.watchers import HasLedger, read_ledger
from bot.processes.chart_process import ChartProcess
from local_discord import LocalDiscord
from local_discord.driver import shown_text
from local_discord.rest import OVERALL, Limit
from local_discord.state import StoredMessage, User
from tests.support.hand_queue import HandQueue
from tests.support.stories import Story, run_record
from tests.support.waiting import until
from trainer.artifacts.runs import RunStore
from trainer.contracts.units import Unit
from trainer.lab.permissions import Owned
from trainer.queue.run_feeds import RunFeeds
from trainer.reports.score_table import Curve

TOKEN = "test-token"  # noqa: S105
EDIT_INTERVAL_SECONDS = 0.3
MESSAGES_LIMIT = Limit(5, 5.0)
MESSAGES = "/channels/{channel_id}/messages"
MESSAGE = "/channels/{channel_id}/messages/{message_id}"


class HasBase(Protocol):
    """The part of discord.py's Route that is set here."""

    BASE: str


class CountedCharts(ChartProcess):
    """Counts what it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0

    async def loss_chart(
        self,
        train: Curve,
        validation: Curve,
        unit: Unit,
        bits_per_nat: float | None = None,
        counted: float | None = None,
    ) -> bytes | None:
        self.drawn += 1
        return await super().loss_chart(train, validation, unit, bits_per_nat, counted)


class Place:
    """A Discord, a client that is logged in to it, and runs."""

    def __init__(self, discord_server: LocalDiscord, client: discord.Client, root: Path) -> None:
        self.discord = discord_server
        self.ana = discord_server.add_user("ana")
        self.client = client
        self.root = root
        self.queue = HandQueue(RunStore(root))
        self.charts = CountedCharts()
        self.private_to: User | None = None
        """The one who may see runs; None: everybody."""
        self.units: dict[int, Unit] = {}
        """The units of users who have chosen one."""

    def story(self, user: User | None, name: str = "char_lstm-1") -> Story:
        return Story(self.root, run_record(name, user_id=user and user.id))

    @asynccontextmanager
    async def listening(
        self,
        *,
        poll_seconds: float = 0.1,
        steady_seconds: float = 60,
        edit_interval_seconds: float = EDIT_INTERVAL_SECONDS,
    ) -> AsyncIterator[Notifier]:
        listener = Notifier(
            self.root,
            RunFeeds(self.queue),
            self.queue.next_run_ids,
            self.client,
            self.charts,
            self.can_receive,
            lambda user_id: self.units.get(user_id, "bits"),
            edit_interval_seconds=edit_interval_seconds,
            poll_seconds=poll_seconds,
            retry_seconds=0.1,
            steady_seconds=steady_seconds,
        )
        await listener.start()
        try:
            yield listener
        finally:
            await listener.stop()

    def can_receive(self, user_id: int, record: Owned) -> bool:
        return self.private_to is None or self.private_to.id == user_id

    def messages(self, user: User) -> list[StoredMessage]:
        return self.discord.messages(self.discord.dm_channel(user))

    def texts(self, user: User) -> list[str]:
        return [shown_text(message.payload) for message in self.messages(user)]

    async def message(self, user: User, pattern: str) -> StoredMessage:
        return await self.discord.wait_for_message(self.discord.dm_channel(user), pattern)


@asynccontextmanager
async def place(
    root: Path, *, message_limit: Limit = MESSAGES_LIMIT, overall_limit: Limit = OVERALL
) -> AsyncIterator[Place]:
    async with LocalDiscord(token=TOKEN, message_limit=message_limit, overall_limit=overall_limit) as server:
        route: HasBase = Route
        route.BASE = server.api_base_url
        async with discord.Client(intents=discord.Intents.none()) as client:
            await client.login(TOKEN)
            here = Place(server, client, root)
            try:
                yield here
            finally:
                here.charts.close()
        assert server.violations == []


def sent_message_ids(story: Story) -> set[int]:
    """The messages that the ledger knows to have arrived."""
    sent = [sent for watcher in read_ledger(story.run).watchers for sent in (watcher.card, watcher.final)]
    return {one.message_id for one in sent if one is not None and one.message_id is not None}


async def until_delivered(job: HasLedger) -> None:
    """Wait until no message about a job is left to send."""
    await until(lambda: not read_ledger(job).pending)
