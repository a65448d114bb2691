"""A worker's presence in Redis: its host, devices and state, why it refuses jobs, and the drain orders of admins."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from trainer.artifacts.artifacts_id import artifacts_id
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.jobs import Refusal, WorkerInfo, WorkerState
from trainer.store import keys
from trainer.store.connection import tolerate_no_redis, tolerate_outage
from trainer.store.store import Store
from trainer.system.gpus import find_gpus
from trainer.system.hardware import may_have_cuda, memory_bytes, package_version, process_name
from trainer.worker.starts import Starts

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERVAL_SHARE = 0.2
"""Interval of the worker's record, as a share of a lease."""
_OTHER_FOLDER = (
    "APP__ARTIFACTS_ROOT is another folder than that of the bot or `mt` that queued them: mount theirs, or set it to"
    " theirs. The jobs wait for a worker that has it."
)
_OTHER_VERSION = (
    "This worker is version {own}, and the bot or `mt` that queues jobs is version {other}: install that version and"
    " restart the worker. Its runs continue until then; it starts no job."
)
_MATCHED: dict[Refusal, str] = {
    "artifacts_folder_mismatch": "artifacts_folder_matched",
    "version_mismatch": "version_matched",
    "children_die_at_start": "worker_mended",
}
"""The event in the log that ends each kind of refusal; its own name is the event that starts it."""


class Presence:
    """The record that a worker publishes of itself, and the last drain order to it.

    The order to drain is kept here: it outlasts a wipe of Redis.
    """

    def __init__(self, settings: Settings, store: Store, info: WorkerInfo, starts: Starts | None = None) -> None:
        self.info = info
        self.is_draining = False
        self._settings, self._store = settings, store
        self._starts = starts or Starts(settings)
        self._refusals: Mapping[Refusal, str] = {}
        self._order: bytes | None = None

    @property
    def takes_jobs(self) -> bool:
        """False while the worker is being drained, and while its children end before their first step."""
        return not self.is_draining and self._starts.reason is None

    async def show(self, has_jobs: Callable[[], bool], on_drain: Callable[[], None]) -> None:
        """Renew the worker's record at each interval, and at once when the worker breaks, without end."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.queue.lease_seconds * _INTERVAL_SHARE):
                    await self._starts.broke.wait()
            self._starts.broke.clear()
            await self.renew(has_jobs, on_drain)

    async def renew(self, has_jobs: Callable[[], bool], on_drain: Callable[[], None]) -> None:
        """Renew the record once; log a change of the worker's state, and call `on_drain` while it takes no jobs."""
        async with tolerate_outage():
            await self._renew(has_jobs, on_drain)

    async def end(self) -> None:
        """Remove the worker's record."""
        async with tolerate_no_redis("worker_presence_failed"):
            await self._store.remove_worker(self.info.name)

    async def _renew(self, has_jobs: Callable[[], bool], on_drain: Callable[[], None]) -> None:
        artifacts = await asyncio.to_thread(artifacts_id, self._settings.app.artifacts_root)
        version, order = await self._store.get_all(keys.version(artifacts), keys.drain(self.info.name))
        self._follow(order)
        if not self.takes_jobs:
            on_drain()
        await self._find_refusals(artifacts, version)
        state: WorkerState = "ready"
        if self.is_draining:
            state = "draining" if has_jobs() else "drained"
        elif self._refusals:
            state = "refuses"
        if state == "drained" != self.info.state:
            log.info("worker_drained")
        reason = " ".join(self._refusals.values()) or None
        refusals = tuple(self._refusals)
        self.info = changed(self.info, state=state, refusals=refusals, reason=reason, seen_at=time.time())
        await self._store.renew_worker(seconds=self._settings.queue.lease_seconds, worker=self.info)

    def _follow(self, order: bytes | None) -> None:
        is_draining = self.is_draining if order is None else order == b"1"
        if order not in (None, b"1", self._order):
            self._starts.mend()
        self._order = order
        if is_draining != self.is_draining:
            log.info("worker_drains" if is_draining else "worker_undrained")
        self.is_draining = is_draining

    async def _find_refusals(self, artifacts: str, version: bytes | None) -> None:
        refusals: dict[Refusal, str] = {}
        queued = await self._store.recent_artifacts_ids()
        if queued and artifacts not in queued:
            refusals["artifacts_folder_mismatch"] = _OTHER_FOLDER
        if version not in (None, self.info.version.encode()):
            other = (version or b"").decode(errors="replace")
            refusals["version_mismatch"] = _OTHER_VERSION.format(own=self.info.version, other=other)
        if self._starts.reason is not None:
            refusals["children_die_at_start"] = self._starts.reason
        for event, reason in refusals.items():
            if self._refusals.get(event) != reason:
                log.error(event, reason=reason)
        for event in self._refusals.keys() - refusals.keys():
            log.info(_MATCHED[event])
        self._refusals = refusals


async def own_info(settings: Settings) -> WorkerInfo:
    """Describe this worker and its machine."""
    uses_gpus = settings.queue.devices != "cpu" and may_have_cuda()
    gpus = await asyncio.to_thread(find_gpus) if uses_gpus else []
    return WorkerInfo(
        name=process_name(),
        version=package_version("model-trainer"),
        slots=settings.queue.training_slots,
        started_at=(at := time.time()),
        seen_at=at,
        devices=tuple(f"cuda:{number} {gpu.name}" for number, gpu in enumerate(gpus)) or ("cpu",),
        gpu_memory_bytes=tuple(gpu.memory_bytes for gpu in gpus),
        memory_bytes=memory_bytes(),
        takes=settings.queue.devices,
    )
