"""A queue of runs that a test works by hand: no Redis, no workers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from trainer.artifacts.runs import RunStore
from trainer.contracts.runs import RunStatus


class HandQueue:
    """Names the runs that a test puts into `signals`, and adds to statuses what the test says."""

    def __init__(self, runs: RunStore) -> None:
        self.runs = runs
        self.signals: asyncio.Queue[str] = asyncio.Queue()
        self.broken = 0
        self.readings = 0
        """How often statuses were read."""
        self.known: dict[str, object] = {}
        """The state of the queue for every run."""

    async def recent(self, statuses: Sequence[RunStatus]) -> list[RunStatus]:
        self.readings += 1
        return [status.model_copy(update=self.known) for status in statuses]

    def steady(self, status: RunStatus) -> RunStatus:
        return status

    async def wait_message(self, _: str) -> str | None:
        return None

    async def next_run_ids(self) -> AsyncIterator[str]:
        while True:
            run_id = await self.signals.get()
            if self.broken:
                self.broken -= 1
                raise ValueError("the connection is broken")
            yield run_id
