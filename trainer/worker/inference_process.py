"""The child process that answers score, generate and evaluate requests, seen from the worker."""

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic
from typing import Annotated, NamedTuple

import structlog
from pydantic import ConfigDict, Field, TypeAdapter

from trainer.artifacts.attempts import ChildEnd, cause_of
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateChunk
from trainer.contracts.inference import AnyRecord
from trainer.contracts.inference_fields import InferenceRecord
from trainer.queue.inference_kinds import kind_of
from trainer.system.heartbeat import processor_ticks
from trainer.worker.child_process import ChildProcess, start_child
from trainer.worker.starts import Starts

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MAX_BATCH_REQUESTS = 16
"""Maximum number of requests in one batch."""

_line_adapter: TypeAdapter[AnyRecord | GenerateChunk] = TypeAdapter(
    Annotated[AnyRecord | GenerateChunk, Field(discriminator="kind")],
    config=ConfigDict(hide_input_in_errors=True),
)
_MAX_BATCH_BYTES = 20_000  # of each request as JSON; a longer one is answered alone
_DIED = "The inference process ended before the answer. Try again, or request less."
_END_SECONDS = 3.0
_STOP_SECONDS = 5.0


class DiedAtStart(AppError):
    """The child died before its first answer."""


class _Request(NamedTuple):
    """A request, also as JSON, with the future of its answer."""

    record: InferenceRecord
    line: bytes
    answer: asyncio.Future[InferenceRecord]
    on_chunk: Callable[[GenerateChunk], None]


class InferenceChild:
    """Starts the child at the first request and after a crash; ends it after `idle_seconds` without requests.

    The child gets one batch of requests at a time as a line of JSON and writes one line for each answer. Ending the
    child returns the memory of its models to the system.
    """

    def __init__(self, settings: Settings, idle_seconds: float = 900.0, starts: Starts | None = None) -> None:
        self._settings, self._idle_seconds = settings, idle_seconds
        self._starts = starts or Starts(settings)
        self._process: ChildProcess | None = None
        self._has_answered = False
        """True once the process has written an answer, which is its first step."""
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def answer(
        self, record: InferenceRecord, on_chunk: Callable[[GenerateChunk], None] = lambda chunk: None
    ) -> InferenceRecord:
        """Return the answer to a request; raises SERVICE_UNAVAILABLE if the child dies,
        `DiedAtStart` if that was before its first answer.

        Chunks of a streamed generation come before the answer. Cancelling withdraws this request only. When all
        requests of a batch are withdrawn, a generation ends after the current token; any other child is ended.
        """
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        answer: asyncio.Future[InferenceRecord] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(record, record.model_dump_json().encode(), answer, on_chunk))
        self._arrived.set()
        return await answer

    def processor_ticks(self) -> float:
        """Return the child's processor time in ticks; without a child, a value that always grows."""
        return monotonic() if self._process is None else processor_ticks(self._process.pid)

    async def stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        await self._end(_END_SECONDS)

    async def _serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    await self._arrived.wait()
            except TimeoutError:
                await self._end(_END_SECONDS)
                await self._arrived.wait()
            self._arrived.clear()
            while batch := self._take():
                await self._answer_together(batch)

    def _take(self) -> list[_Request]:
        """Take the oldest request and the requests that fit into one batch with it."""
        batch: list[_Request] = []
        others: list[_Request] = []
        for request in self._waiting:
            if not request.answer.done():
                fits = not batch or (len(batch) < MAX_BATCH_REQUESTS and _go_together(batch[0], request))
                (batch if fits else others).append(request)
        self._waiting = others
        return batch

    async def _answer_together(self, batch: list[_Request]) -> None:
        exchange = asyncio.create_task(self._exchange(batch))
        answered = asyncio.create_task(asyncio.wait([request.answer for request in batch]))
        patience_seconds = _STOP_SECONDS if kind_of(batch[0].record).is_generated else 0.0

        def withdraw(_: asyncio.Future[InferenceRecord]) -> None:
            for request in batch:
                if request.answer.cancelled() and self._process is not None and self._process.is_running:
                    self._process.stdin.write(f"{request.record.response.request_id}\n".encode())

        for request in batch:
            request.answer.add_done_callback(withdraw)
        try:
            await asyncio.wait([exchange, answered], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([exchange], timeout=patience_seconds)
        finally:
            answered.cancel()
            exchange.cancel()
            await asyncio.gather(exchange, return_exceptions=True)  # it may be starting the child just now
        error = None if exchange.cancelled() else exchange.exception()
        if exchange.cancelled() or error is not None:
            await self._end(0)
        for request in batch:
            if error is not None and not request.answer.done():
                request.answer.set_exception(error)

    async def _exchange(self, batch: list[_Request]) -> None:
        """Send a batch to the child and read its answers; an incomplete line means that the child died."""
        process = await self._send(batch)
        missing = {request.record.response.request_id: request for request in batch}
        while missing:
            line = await process.stdout.readline()
            if not line.endswith(b"\n"):
                raise self._died(batch[0].record.response.run_id, await process.wait(), process)
            self._has_answered = True
            self._starts.child_began()
            received = _line_adapter.validate_json(line)
            if isinstance(received, GenerateChunk):
                missing[received.request_id].on_chunk(received)
                continue
            answer = missing.pop(received.response.request_id).answer
            if not answer.done():
                answer.set_result(received)

    def _died(self, run_id: str, exit_code: int, process: ChildProcess) -> AppError:
        """Return the error of requests whose child has died."""
        end = ChildEnd(exit_code, tuple(process.last_lines), cause_of(exit_code), has_begun=self._has_answered)
        log.error("inference_child_died", **end.description())
        self._starts.child_ended(run_id, end)
        return (DiedAtStart if end.died_at_start else AppError)(ErrorCode.SERVICE_UNAVAILABLE, _DIED)

    async def _send(self, batch: list[_Request]) -> ChildProcess:
        """Send a batch and return its child, which takes it with an empty line.

        A child that was idle may have died unseen, before it takes the batch; then another one gets the batch.
        """
        line = b"[%b]\n" % b",".join(request.line for request in batch)
        while True:
            process, is_new = self._process, False
            if process is None or not process.is_running:
                process, is_new = await start_child("answer-requests", self._settings), True
                self._process, self._has_answered = process, False
            process.stdin.write(line)
            with contextlib.suppress(ConnectionError):  # a child that is gone is seen by its answer
                await process.stdin.drain()
            if await process.stdout.readline() or is_new:
                return process
            log.warning("idle_inference_child_died", exit_code=await process.wait())

    async def _end(self, seconds: float) -> None:
        if self._process is not None:
            await self._process.end(seconds)
            self._process = None


def _go_together(first: _Request, other: _Request) -> bool:
    """Return True if two requests have the same model and kind and are both short."""
    is_same = (first.record.kind, first.record.response.model) == (other.record.kind, other.record.response.model)
    return is_same and all(
        len(one.line) <= _MAX_BATCH_BYTES and one.record.request.corpus is None and not kind_of(one.record).writes_run
        for one in (first, other)
    )
