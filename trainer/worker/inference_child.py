"""The child process that answers score, generate and evaluate requests, seen from the worker."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from typing import NamedTuple

import structlog

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import EvalRecord, InferenceRecord, ScoreRecord, inference_adapter
from trainer.contracts.settings import Settings
from trainer.services import end, pipe
from trainer.worker.environment import ANSWER_REQUESTS, tuned_environment

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MOST_TOGETHER = 16
"""Requests that are answered side by side."""

_MOST_CHARACTERS_TOGETHER = 20_000  # of one of them: a longer text is answered alone, and keeps nobody but the next
_LONGEST_ANSWER_BYTES = 1 << 30
_END_SECONDS = 3.0


class _Asked(NamedTuple):
    """A request, and where its asker waits."""

    record: InferenceRecord
    answer: asyncio.Future[InferenceRecord]


class InferenceChild:
    """Starts the child at the first request and again after it died; ends it when nobody has asked for some time.

    The child gets a line of JSON at a time, the request that has waited longest with those that can be answered
    together with it, and writes a line for each as soon as it is answered. Its models leave the memory with it: what a
    process frees stays its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: Process | None = None
        self._waiting: list[_Asked] = []
        self._arrived = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def answer(self, record: InferenceRecord) -> InferenceRecord:
        """Have a request answered; raises SERVICE_UNAVAILABLE where the child dies of it.

        Who is cancelled gives up no request but this one: the child, which cannot stop in the middle, goes on while
        somebody waits for an answer that it was asked for together with this one, and is ended otherwise.
        """
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        answer: asyncio.Future[InferenceRecord] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(record, answer))
        self._arrived.set()
        return await answer

    async def stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        await self._end(_END_SECONDS)

    async def _serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.queue.warm_model_seconds):
                    await self._arrived.wait()
            except TimeoutError:
                await self._end(_END_SECONDS)
                await self._arrived.wait()
            self._arrived.clear()
            while batch := self._take():
                await self._answer_together(batch)

    def _take(self) -> list[_Asked]:
        """Take the request that has waited longest, and those that can be answered together with it."""
        batch: list[_Asked] = []
        others: list[_Asked] = []
        for asked in self._waiting:
            if not asked.answer.done():
                fits = not batch or (len(batch) < MOST_TOGETHER and _go_together(batch[0].record, asked.record))
                (batch if fits else others).append(asked)
        self._waiting = others
        return batch

    async def _answer_together(self, batch: list[_Asked]) -> None:
        exchange = asyncio.create_task(self._exchange(batch))

        def end_unless_awaited(_: asyncio.Future[InferenceRecord]) -> None:
            if all(asked.answer.done() for asked in batch):
                exchange.cancel()

        for asked in batch:
            asked.answer.add_done_callback(end_unless_awaited)
        try:
            await asyncio.wait([exchange])
        finally:
            exchange.cancel()
        error = None if exchange.cancelled() else exchange.exception()
        if exchange.cancelled() or error is not None:
            await self._end(0)
        for asked in batch:
            if error is not None and not asked.answer.done():
                asked.answer.set_exception(error)

    async def _exchange(self, batch: list[_Asked]) -> None:
        """One line to the child, a line for each request back; what is not a whole line says that it has died."""
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        requests = pipe(process.stdin)
        requests.write(b"[%b]\n" % b",".join(asked.record.model_dump_json().encode() for asked in batch))
        with contextlib.suppress(ConnectionError):  # a child that is gone is seen by its answer
            await requests.drain()
        missing = {asked.record.response.request_id: asked.answer for asked in batch}
        while missing:
            line = await pipe(process.stdout).readline()
            if not line.endswith(b"\n"):
                log.error("inference child died", exit_code=await process.wait())
                raise AppError(
                    ErrorCode.SERVICE_UNAVAILABLE, "The worker ended while it answered; try again, or ask for less."
                )
            record = inference_adapter.validate_json(line)
            answer = missing.pop(record.response.request_id)
            if not answer.done():
                answer.set_result(record)

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trainer.worker",
            ANSWER_REQUESTS,
            stdin=PIPE,
            stdout=PIPE,
            env=tuned_environment(self._settings),
            limit=_LONGEST_ANSWER_BYTES,
        )

    async def _end(self, seconds: float) -> None:
        if self._process is not None:
            await end(self._process, seconds)
            self._process = None


def _go_together(first: InferenceRecord, other: InferenceRecord) -> bool:
    """Whether two requests ask one model the same kind of question, and both are short."""
    return (
        (first.kind, first.response.run_id) == (other.kind, other.response.run_id)
        and _is_short(first)
        and _is_short(other)
    )


def _is_short(record: InferenceRecord) -> bool:
    if isinstance(record, EvalRecord):
        return False
    text = record.request.text if isinstance(record, ScoreRecord) else record.request.prompt_text
    return text is not None and len(text) <= _MOST_CHARACTERS_TOGETHER
