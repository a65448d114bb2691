"""The child process that answers score, generate and evaluate requests, one after another, seen from the worker."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process

import structlog

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import InferenceRecord, inference_adapter
from trainer.contracts.settings import Settings
from trainer.services import end, pipe
from trainer.worker.environment import ANSWER_REQUESTS, tuned_environment

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_LONGEST_ANSWER_BYTES = 1 << 30


class InferenceChild:
    """Starts the child at the first request and again after it died; a line of JSON in, a line of JSON out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def answer(self, record: InferenceRecord) -> InferenceRecord:
        """Hand a request to the child and wait; raises SERVICE_UNAVAILABLE where the child dies of it."""
        async with self._turn:
            process = self._process
            if process is None or process.returncode is not None:
                process = await self._start()
            self._process = None  # ours again only once it has answered: a child in mid-request is of no use
            try:
                line = await _exchange(process, record.model_dump_json().encode() + b"\n")
            except asyncio.CancelledError:
                await end(process, 0)
                raise
            if not line.endswith(b"\n"):
                code = await process.wait()
                log.error("inference child died", exit_code=code)
                raise AppError(
                    ErrorCode.SERVICE_UNAVAILABLE, "The worker ended while it answered; try again, or ask for less."
                )
            self._process = process
        return inference_adapter.validate_json(line)

    async def stop(self) -> None:
        if self._process is not None:
            await end(self._process, 3)

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trainer",
            ANSWER_REQUESTS,
            stdin=PIPE,
            stdout=PIPE,
            env=tuned_environment(self._settings),
            limit=_LONGEST_ANSWER_BYTES,
        )


async def _exchange(process: Process, request: bytes) -> bytes:
    """One line to the child, one line back; what comes back is not a whole line when the child has died."""
    requests = pipe(process.stdin)
    requests.write(request)
    with contextlib.suppress(ConnectionError):  # a child that is gone is seen by its answer
        await requests.drain()
    return await pipe(process.stdout).readline()
