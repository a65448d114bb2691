"""The workers of one installation: which run, what they lack, the load of their queues, and orders to them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import NamedTuple

from trainer.artifacts.artifacts_id import artifacts_id
from trainer.artifacts.kinds import JOB_KINDS
from trainer.artifacts.runs import RunStore
from trainer.config.settings import Settings
from trainer.config.validation import safe_name
from trainer.contracts.base import WaitReason, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import JobNeeds, WorkerAction, WorkerInfo, WorkersState
from trainer.queue.cost import check_workers, unmet
from trainer.services.embedded import embedded_worker_lives, worker_problem
from trainer.store import keys
from trainer.store.connection import LIMIT_SECONDS, require_redis, tolerate_outage, value_or
from trainer.store.store import Store
from trainer.system.hardware import package_version

_CHECK_SECONDS = 1.0
_ORDER_SECONDS = 3600.0
"""Time in which a worker learns of an order, also if Redis is unavailable meanwhile."""
_VERSION_SECONDS = 60.0


class QueueLoad(NamedTuple):
    """The state of all queues."""

    is_reachable: bool
    """False while Redis is unavailable."""
    has_worker: bool = False
    depths: Mapping[str, int] = MappingProxyType({})
    """Jobs by queue, running ones included."""


class Workers:
    """The workers that take the jobs of one artifacts folder."""

    def __init__(self, settings: Settings, store: Store, runs: RunStore) -> None:
        self._settings = settings
        self._store = store
        self._runs = runs

    async def exist(self) -> bool:
        """Return whether at least one worker runs or is starting; True also while Redis is unavailable."""
        return await value_or(True, self._store.has_worker()) or embedded_worker_lives(self._settings)

    async def absence(self) -> WaitReason | None:
        """Return why no worker takes jobs: none is running, or each one is broken; None if one takes jobs."""
        workers = await value_or((), self._running(), seconds=_CHECK_SECONDS)
        if any(worker.is_broken for worker in workers) and not any(worker.state == "ready" for worker in workers):
            return "broken"
        return None if await self.exist() else "worker"

    async def load(self) -> QueueLoad:
        """Return the number of jobs in each queue, and whether a worker is running."""
        return await value_or(QueueLoad(is_reachable=False), self._load())

    async def _load(self) -> QueueLoad:
        names = [*(kind.queue(self._settings.queue) for kind in JOB_KINDS), keys.INTERACTIVE_QUEUE]
        depths = {name: await self._store.queue_length(name) for name in names}
        return QueueLoad(is_reachable=True, has_worker=await self._store.has_worker(), depths=depths)

    async def pause(self, *, is_paused: bool) -> None:
        """Let the workers start no further run, or start them again; raises SERVICE_UNAVAILABLE without Redis."""
        await asyncio.to_thread(self._runs.mark_paused, is_paused=is_paused)
        async with require_redis():
            await self._store.set_paused(self._settings.queue.name, is_paused=is_paused)

    async def are_paused(self) -> bool:
        """Return whether no further run starts; False while Redis is unavailable."""
        return await value_or(False, self._store.is_paused(self._settings.queue.name))

    async def check(self, needs: JobNeeds) -> None:
        """Refuse a training that no running worker can hold; accept it while Redis is unavailable."""
        check_workers(needs, await value_or((), self._running(), seconds=_CHECK_SECONDS))

    async def state(self, run_ids: Sequence[str]) -> WorkersState:
        """Return the running workers and those of the runs that they train; raises SERVICE_UNAVAILABLE."""
        async with require_redis():
            workers, holders = await self._running(), await self._store.holders(run_ids)
            is_paused = await self._store.is_paused(self._settings.queue.name)
            names = [keys.drain(worker.name) for worker in workers]
            orders = await self._store.get_all(*names, keys.WORKER)  # one more: MGET needs a key
        shown = [_as_ordered(worker, order, is_paused) for worker, order in zip(workers, orders, strict=False)]
        problem = None if shown else worker_problem(self._settings)
        is_starting = not shown and problem is None and embedded_worker_lives(self._settings)
        return WorkersState(
            workers=tuple(shown), runs=holders, is_paused=is_paused, is_starting=is_starting, problem=problem
        )

    def problem(self) -> str | None:
        """Return a sentence if the embedded worker ends again and again before it is ready."""
        return worker_problem(self._settings)

    async def order(self, action: WorkerAction | None, name: str | None) -> None:
        """Pause or resume the queue, or drain or undrain the workers of a name; raises INVALID_INPUT, as `drain`."""
        has_name = action in ("drain", "undrain")
        if action is None or (name is not None) != has_name:
            message = "Name a worker with `drain` and `undrain`; `pause` and `resume` are for all workers."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        if name is None:
            await self.pause(is_paused=action == "pause")
        else:
            await self.drain(name, is_draining=action == "drain")

    async def drain(self, name: str, *, is_draining: bool) -> Sequence[str]:
        """Let a worker, or all workers of a host, claim no further job, or claim jobs again; return their names.

        Raises INVALID_INPUT if no running worker has the name, and SERVICE_UNAVAILABLE.
        """
        async with require_redis():
            running = await self._running()
            names = [worker.name for worker in running if name in (worker.name, worker.host)]
            await self._store.order_drain(names, is_draining=is_draining, seconds=_ORDER_SECONDS)
        if not names:
            known = ", ".join(worker.name for worker in running) or "none"
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"No running worker has the name or host '{safe_name(name)}'; running: {known}.",
            )
        return names

    async def newly_broken(self) -> list[WorkerInfo]:
        """Return the workers that have broken since the last call, of any process; empty while Redis is unavailable."""
        return await value_or([], self._newly_broken())

    async def _newly_broken(self) -> list[WorkerInfo]:
        broken = {worker.name: worker for worker in await self._running() if worker.is_broken}
        return [broken[name] for name in await self._store.report_broken(broken)]

    async def names(self) -> list[str]:
        """Return the running workers and their hosts; empty while Redis is unavailable."""
        workers = await value_or((), self._running(), seconds=_CHECK_SECONDS)
        return sorted({worker.host for worker in workers} | {worker.name for worker in workers})

    async def _running(self) -> Sequence[WorkerInfo]:
        return await self._store.workers()

    @asynccontextmanager
    async def version_published(self, *, replaces: bool) -> AsyncGenerator[None, None]:
        """Keep the version of this program published: workers of another version claim no job meanwhile.

        Without `replaces`, the version of another program stays.
        """
        publishing = asyncio.create_task(self._publish_version(replaces=replaces))
        try:
            yield
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])

    async def _publish_version(self, *, replaces: bool) -> None:
        version = package_version("model-trainer")
        while True:
            artifacts = await asyncio.to_thread(artifacts_id, self._settings.app.artifacts_root)
            async with tolerate_outage(seconds=LIMIT_SECONDS):
                await self._store.publish_version(version, artifacts, seconds=_VERSION_SECONDS, replaces=replaces)
            await asyncio.sleep(_VERSION_SECONDS / 3 if artifacts else 1.0)  # the first job gives the folder an id

    async def unmet(self, run_ids: Sequence[str], *, has_worker: bool) -> dict[str, WaitReason | None]:
        """Return what no running worker has for these queued runs."""
        workers = await self._running()
        if not has_worker and not any(worker.is_broken for worker in workers):
            is_coming = embedded_worker_lives(self._settings) and self.problem() is None
            return {} if is_coming else dict.fromkeys(run_ids, "worker")
        needs = await self._store.needs(run_ids)
        return {run_id: unmet(one, workers) for run_id, one in needs.items()}


def _as_ordered(worker: WorkerInfo, order: bytes | None, is_paused: bool) -> WorkerInfo:
    """Return a worker with the state that it will have once it has read the orders to it."""
    if order == b"1" and worker.state in ("ready", "refuses"):
        return changed(worker, state="draining")
    return changed(worker, state="paused") if is_paused and worker.state == "ready" else worker
