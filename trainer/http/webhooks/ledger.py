"""A run's `webhooks.json`: the last event that each address has received."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Literal

import structlog

from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen, Timestamp, now
from trainer.system.files import DISK, BrokenFile, find_record, read_record, write_atomically

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Progress(Frozen):
    """Delivery of a run's events to one address."""

    address: str
    """Hash of the address, which may be a secret."""
    seq: int = 0
    """Number of the last event that was confirmed or given up."""
    given_up: int = 0
    """Number of events that were given up; the log names them."""
    failing_since: Timestamp | None = None
    """Time of the first failure after the last confirmed event."""
    has_ended: bool = False
    """The run's last event was confirmed or given up, or this address does not receive it."""


class WebhookRecord(Frozen):
    schema_version: Literal[1] = 1
    addresses: tuple[Progress, ...] = ()

    def of(self, address: str) -> Progress:
        return next((known for known in self.addresses if known.address == address), Progress(address=address))


def read_webhooks(run: RunDirectory) -> WebhookRecord:
    """Read a run's `webhooks.json`; raises BrokenFile for a damaged file."""
    return find_record(run.webhook_ledger, WebhookRecord) or WebhookRecord()


class WebhookLedger:
    """The `webhooks.json` of a run in memory and on disk; all deliveries of the run share one instance."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        for leftover in run.path.glob(f".{run.webhook_ledger.name}.*.tmp"):  # of a bot that was killed
            run.disk.remove(leftover)
        self.current = self._saved = read_webhooks(run)
        self._saving = Lock()

    async def update(self, address: str, **changes: object) -> None:
        """Change the progress of an address; the change is durable on return.

        A change that could not be written stays in memory; the next `save` writes it.
        """
        changed = self.current.of(address).model_copy(update=changes)
        others = (known for known in self.current.addresses if known.address != address)
        self.current = WebhookRecord(addresses=(*others, changed))
        await self.save()

    async def save(self) -> None:
        """Write the current progress unless it is on disk."""
        await asyncio.to_thread(self._save)

    def _save(self) -> None:
        with self._saving:
            current = self.current
            if current != self._saved:
                write_atomically(self.run.webhook_ledger, current.model_dump_json().encode(), self.run.disk)
                self._saved = current


class _FirstSeen(Frozen):
    """`webhooks.json` of the artifacts folder."""

    schema_version: Literal[1] = 1
    since: dict[str, Timestamp]


def first_seen(file: Path, addresses: Iterable[str]) -> dict[str, datetime]:
    """Return since when each address is in the settings, by its hash, and store it; other addresses are forgotten.

    An address receives no events from before that time.
    """
    try:
        known = read_record(file, _FirstSeen).since
    except FileNotFoundError:
        known = {}
    except BrokenFile:
        log.error("webhook_addresses_unreadable")
        known = {}
    since = {address: known.get(address) or now() for address in addresses}
    if since != known:
        DISK.make_folder(file.parent)
        write_atomically(file, _FirstSeen(since=since).model_dump_json().encode())
    return since
