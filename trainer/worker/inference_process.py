"""The child process that answers score, generate and evaluate requests, seen from the worker."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Annotated, NamedTuple

import structlog
from pydantic import ConfigDict, Field, TypeAdapter

from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    ChatRecord,
    EvalRecord,
    GenerateChunk,
    GenerateRecord,
    InferenceRecord,
)
from trainer.worker.child_process import ChildProcess, start_child
from trainer.worker.heartbeat import processor_ticks

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MOST_TOGETHER = 16
"""Requests that are answered side by side."""

_line_adapter: TypeAdapter[InferenceRecord | GenerateChunk] = TypeAdapter(
    Annotated[InferenceRecord | GenerateChunk, Field(discriminator="kind")],
    config=ConfigDict(hide_input_in_errors=True),
)
_MOST_CHARACTERS_TOGETHER = 20_000  # of one of them: a longer text is answered alone, and keeps nobody but the next
_END_SECONDS = 3.0
_STOP_SECONDS = 5.0


class _Asked(NamedTuple):
    """A request, and where its asker waits."""

    record: InferenceRecord
    answer: asyncio.Future[InferenceRecord]
    on_chunk: Callable[[GenerateChunk], None]


def _ignore(chunk: GenerateChunk) -> None:
    """What is done with the pieces of a text that nobody wants piece by piece: there are none."""


class InferenceChild:
    """Starts the child at the first request and again after it died; ends it when nobody has asked for some time.

    The child gets a line of JSON at a time, the request that has waited longest with those that can be answered
    together with it, and writes a line for each as soon as it is answered. Its models leave the memory with it: what a
    process frees stays its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: ChildProcess | None = None
        self._waiting: list[_Asked] = []
        self._arrived = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def answer(
        self, record: InferenceRecord, on_chunk: Callable[[GenerateChunk], None] = _ignore
    ) -> InferenceRecord:
        """Have a request answered; raises SERVICE_UNAVAILABLE where the child dies of it.

        The pieces of a text that is streamed come before its answer. Who is cancelled gives up no request but this one:
        the child goes on while somebody waits for an answer that it was asked for together with this one. What is being
        written ends with the token at hand; else the child, which cannot stop in the middle, is ended.
        """
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        answer: asyncio.Future[InferenceRecord] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(record, answer, on_chunk))
        self._arrived.set()
        return await answer

    def processor_ticks(self) -> float:
        """The processor time that the child has used; it seems to use some all the time while there is none."""
        return monotonic() if self._process is None else processor_ticks(self._process.pid)

    async def stop(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        await self._end(_END_SECONDS)

    async def _serve(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.queue.model_cache_seconds):
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

        patience_seconds = _STOP_SECONDS if isinstance(batch[0].record, GenerateRecord | ChatRecord) else 0.0
        ending: list[asyncio.TimerHandle] = []

        def give_up() -> None:
            exchange.cancel()

        def end_unless_awaited(_: asyncio.Future[InferenceRecord]) -> None:
            self._withdraw(asked.record.response.request_id for asked in batch if asked.answer.cancelled())
            if all(asked.answer.done() for asked in batch):
                ending.append(asyncio.get_running_loop().call_later(patience_seconds, give_up))

        for asked in batch:
            asked.answer.add_done_callback(end_unless_awaited)
        try:
            await asyncio.wait([exchange])
        finally:
            exchange.cancel()
            await asyncio.gather(exchange, return_exceptions=True)  # it may be starting the child just now
            for timer in ending:
                timer.cancel()
        error = None if exchange.cancelled() else exchange.exception()
        if exchange.cancelled() or error is not None:
            await self._end(0)
        for asked in batch:
            if error is not None and not asked.answer.done():
                asked.answer.set_exception(error)

    def _withdraw(self, request_ids: Iterable[str]) -> None:
        """Tell the child, if it is there, what nobody waits for any more."""
        if self._process is not None and self._process.is_running:
            for request_id in request_ids:
                self._process.stdin.write(f"{request_id}\n".encode())

    async def _exchange(self, batch: list[_Asked]) -> None:
        """One line to the child, a line for each request back; what is not a whole line says that it has died."""
        process = self._process
        if process is None or not process.is_running:
            process = self._process = await start_child("answer-requests", self._settings)
        process.stdin.write(b"[%b]\n" % b",".join(asked.record.model_dump_json().encode() for asked in batch))
        with contextlib.suppress(ConnectionError):  # a child that is gone is seen by its answer
            await process.stdin.drain()
        missing = {asked.record.response.request_id: asked for asked in batch}
        while missing:
            line = await process.stdout.readline()
            if not line.endswith(b"\n"):
                log.error("inference_child_died", exit_code=await process.wait())
                raise AppError(
                    ErrorCode.SERVICE_UNAVAILABLE, "The worker ended while it answered; try again, or ask for less."
                )
            told = _line_adapter.validate_json(line)
            if isinstance(told, GenerateChunk):
                missing[told.request_id].on_chunk(told)
                continue
            answer = missing.pop(told.response.request_id).answer
            if not answer.done():
                answer.set_result(told)

    async def _end(self, seconds: float) -> None:
        if self._process is not None:
            await self._process.end(seconds)
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
    if isinstance(record, ChatRecord):
        text: str | None = record.request.message
    else:
        text = record.request.prompt_text if isinstance(record, GenerateRecord) else record.request.text
    return text is not None and len(text) <= _MOST_CHARACTERS_TOGETHER
