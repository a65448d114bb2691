"""Experiments and batteries of a server, over HTTP."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol, TypeVar

from trainer.client.downloads import Progress, download_artifact
from trainer.client.http_api import HttpApi, RecordT, address
from trainer.contracts.base import FileRecord
from trainer.contracts.batteries import BatteryList, BatteryRequest, BatteryStatus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentList, ExperimentRequest, ExperimentResult, ExperimentStatus
from trainer.contracts.http_answers import JobKindName
from trainer.contracts.tokenizer_jobs import TokenizerStatus

_PROGRESS_SECONDS = 1.0
"""Time between two statuses of a job."""


class _Status(Protocol):
    @property
    def has_ended(self) -> bool: ...


StatusT = TypeVar("StatusT", bound=_Status)


async def follow(
    read: Callable[[float], Awaitable[StatusT]], wait_seconds: float = _PROGRESS_SECONDS
) -> AsyncGenerator[StatusT, None]:
    """Yield the status of a job until it has ended; `read` returns it at the end or after the given seconds."""
    status = await read(0.0)
    yield status
    while not status.has_ended:
        status = await read(wait_seconds)
        yield status


class RemoteJobs:
    """Experiments and batteries of a server."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api

    async def start_experiment(self, request: ExperimentRequest) -> ExperimentStatus:
        """Start an experiment on corpora of the server; an equal request names the same experiment."""
        return await self._api.post(ExperimentStatus, "/experiments", request)

    async def experiments(self) -> ExperimentList:
        return await self._api.get(ExperimentList, "/experiments")

    async def experiment(self, experiment_id: str, *, wait: float = 0.0) -> ExperimentStatus:
        """Return the status of an experiment at its end, or after `wait` seconds."""
        return await self._api.get(ExperimentStatus, address("experiments", experiment_id), wait=wait)

    def follow_experiment(self, experiment_id: str) -> AsyncGenerator[ExperimentStatus, None]:
        return follow(lambda wait: self.experiment(experiment_id, wait=wait))

    async def cancel_experiment(self, experiment_id: str) -> ExperimentStatus:
        return await self._api.post(ExperimentStatus, address("experiments", experiment_id, "cancel"))

    async def start_battery(self, request: BatteryRequest) -> BatteryStatus:
        """Start a job that scores batteries; an equal request names the same job."""
        return await self._api.post(BatteryStatus, "/batteries", request)

    async def batteries(self) -> BatteryList:
        return await self._api.get(BatteryList, "/batteries")

    async def battery(self, battery_id: str, *, wait: float = 0.0) -> BatteryStatus:
        """Return the status of a battery at its end, or after `wait` seconds."""
        return await self._api.get(BatteryStatus, address("batteries", battery_id), wait=wait)

    def follow_battery(self, battery_id: str) -> AsyncGenerator[BatteryStatus, None]:
        return follow(lambda wait: self.battery(battery_id, wait=wait))

    async def cancel_battery(self, battery_id: str) -> BatteryStatus:
        return await self._api.post(BatteryStatus, address("batteries", battery_id, "cancel"))

    async def read(self, kind: JobKindName, job_id: str, name: str, record: type[RecordT]) -> RecordT:
        return await self._api.get(record, address("artifacts", kind, job_id, "download"), path=name)

    async def export(self, kind: JobKindName, job_id: str, folder: Path) -> tuple[FileRecord, ...]:
        return await download_artifact(self._api, kind, job_id, folder)

    def page(self, kind: JobKindName, job_id: str) -> Path | None:
        """Return None: the page is on the server."""
        return None

    async def experiment_result(self, request: ExperimentRequest, report: Progress) -> ExperimentResult:
        """Run an experiment to its end and return its result; raises the error that it ended with."""
        experiment_id = (await self.start_experiment(request)).experiment_id
        async with aclosing(self.follow_experiment(experiment_id)) as statuses:
            async for status in statuses:
                report(status.cells_done, status.n_cells)
        check_completed_job(status)
        return await self.read("experiments", experiment_id, "result.json", ExperimentResult)

    async def battery_result(self, request: BatteryRequest, report: Progress, record: type[RecordT]) -> RecordT:
        """Score batteries; return the BatterySummary or the Development, or raise the error that the job ended with."""
        battery_id = (await self.start_battery(request)).battery_id
        async with aclosing(self.follow_battery(battery_id)) as statuses:
            async for status in statuses:
                report(status.done, status.total)
        check_completed_job(status)
        name = "result.json" if request.development is None else "development.json"
        return await self.read("batteries", battery_id, name, record)


def check_completed_job(status: ExperimentStatus | BatteryStatus | TokenizerStatus) -> None:
    """Raise the error that a job has ended with, and CANCELLED for a cancelled one."""
    if status.error is not None:
        raise AppError(status.error.code, status.error.message)
    if status.status != "completed":
        raise AppError(ErrorCode.CANCELLED, status.message)
