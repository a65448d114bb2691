"""Verifications of runs for the HTTP API, in child processes, because they load the model."""

import asyncio

from trainer.artifacts.outcome import without_paths
from trainer.config.settings import Settings
from trainer.config.validation import parse_json
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, RunError
from trainer.contracts.verification import Verification, VerificationStatus
from trainer.services.child_commands import run_command

_VERIFY_SECONDS = 600.0
_KEPT_SECONDS = 600.0
"""Time for which the status of an ended verification can be read."""
_FAILED = "The verification failed. Try again in a minute."


class Verifications:
    """The verifications of a server by id; one runs at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._started: dict[str, asyncio.Task[VerificationStatus]] = {}

    def is_started(self, verification_id: str) -> bool:
        return verification_id in self._started

    def start(self, verification_id: str, run_id: str) -> None:
        """Start the verification of a run, under a new id."""
        self._started[verification_id] = asyncio.create_task(self._status_at_end(verification_id, run_id))

    async def status(self, verification_id: str, run_id: str) -> VerificationStatus:
        """Return the status of a started verification."""
        task = self._started[verification_id]
        return task.result() if task.done() else VerificationStatus(run_id=run_id, status="running")

    async def stop(self) -> None:
        """End the verifications that run."""
        for task in self._started.values():
            task.cancel()
        await asyncio.gather(*self._started.values(), return_exceptions=True)

    async def _status_at_end(self, verification_id: str, run_id: str) -> VerificationStatus:
        try:
            async with self._lock:
                found = await self._verify(run_id)
        except AppError as error:
            shown = AppError(error.code, without_paths(error.message))
            return VerificationStatus(run_id=run_id, status="failed", error=RunError.of(shown))
        finally:
            asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._started.pop, verification_id)
        return VerificationStatus(run_id=run_id, status="completed", verification=found)

    async def _verify(self, run_id: str) -> Verification:
        """Run `mt verify`; raises its error."""
        result = await run_command(["verify", run_id], self._settings, _VERIFY_SECONDS, _FAILED)
        try:
            found = parse_json(Verification, result.output)
        except AppError:
            raise result.error(_FAILED) from None
        return changed(
            found, checks=tuple(changed(check, message=without_paths(check.message)) for check in found.checks)
        )
