"""Streamed generation, chats and predictions over Redis, with a real inference process."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.inference import RUN, OnChunk, Place
from tests.support.inference import place as instant_place
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, until
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.chats import ChatRecord, ChatRequest, ChatResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateChunk, GenerateRecord, GenerateRequest, GenerateResponse
from trainer.contracts.inference_fields import InferenceRecord
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.store import keys
from trainer.worker.children.inference_server import Requests
from trainer.worker.inference_jobs import InferenceJobs
from trainer.worker.inference_process import InferenceChild


@asynccontextmanager
async def place(folder: Path, child_of: Callable[[Settings], InferenceChild] = InferenceChild) -> AsyncIterator[Place]:
    """A finished run, and a worker with a child of this kind."""
    async with instant_place(folder) as here:
        child = child_of(here.settings)
        jobs = InferenceJobs(here.settings, here.store, child, child)
        working = asyncio.create_task(here._replace(jobs=jobs).work())
        try:
            yield here
        finally:
            working.cancel()
            await child.stop()


async def code_of(ask: Awaitable[object]) -> ErrorCode:
    """The code of the error that a question ends with."""
    with pytest.raises(AppError) as caught:
        await ask
    return caught.value.code


async def first_of(told: AsyncIterator[GenerateChunk | GenerateResponse]) -> GenerateChunk:
    async for piece in told:
        assert isinstance(piece, GenerateChunk)
        return piece
    raise AssertionError("nothing was told")


async def all_of(told: AsyncIterator[GenerateChunk | GenerateResponse]) -> list[GenerateChunk | GenerateResponse]:
    return [piece async for piece in told]


def long_text(**values: object) -> GenerateRequest:
    fields: dict[str, object] = {"prompt_text": "the ", "stop_on_eos": False, "max_new_tokens": 200, **values}
    return GenerateRequest.model_validate(fields)


async def test_stream__is_the_text_written_without_it_and_ends_with_its_reader(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        request = long_text(seed=3, num_return_sequences=3, stop_sequences=("th", "e\ns"))
        whole = await here.queue.inference.ask(RUN, request)
        told = [piece async for piece in here.queue.inference.stream(RUN, request)]
        kept = (keys.JOB_NOTIFICATIONS, keys.DELETED, keys.WORKER)
        left = [key for key in await here.keys("trainer:*") if "answered" not in key and key not in kept]
        await check_that_a_disconnected_reader_ends_the_generation(here, tmp_path)
    *pieces, response = told
    assert isinstance(response, GenerateResponse) and whole.outputs is not None
    assert (response.outputs, response.stop_reason) == (whole.outputs, whole.stop_reason)
    chunks = [piece for piece in pieces if isinstance(piece, GenerateChunk)]
    assert len(chunks) == len(pieces) > 3
    for index, output in enumerate(whole.outputs):
        own = [chunk for chunk in chunks if chunk.index == index]
        assert "".join(chunk.text for chunk in own) == output
        assert [chunk.start for chunk in own] == [sum(len(c.text) for c in own[:n]) for n in range(len(own))]
        assert [chunk.stop_reason is None for chunk in own] == [True] * (len(own) - 1) + [False]
    assert left == [keys.EVENT_STREAM]


async def check_that_a_disconnected_reader_ends_the_generation(here: Place, folder: Path) -> None:
    [process] = processes(folder, "answer-requests")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (left := await response_without_reader(here, process.pid)).status == "completed":
            pass  # all was written before the reader went away
    after = await here.queue.inference.ask(RUN, long_text(max_new_tokens=1))
    assert [one.pid for one in processes(folder, "answer-requests")] == [process.pid]
    assert left.error is not None and left.error.code is ErrorCode.CANCELLED
    assert after.status == "completed"


async def response_without_reader(here: Place, pid: int) -> GenerateResponse:
    """Read the first piece of a long text and go away, while the process that writes it stands still."""
    request = long_text(max_new_tokens=512, num_return_sequences=10, seed=1)
    async with contextlib.aclosing(here.queue.inference.stream(RUN, request)) as told:
        first = await first_of(told)
        os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)
    while (record := await here.queue.inference.get(GenerateRecord, RUN, first.request_id)).response.status == "queued":
        await asyncio.sleep(0.02)
    return record.response


class Patchy(InferenceChild):
    """Tells pieces twice, with gaps, and not all; or fails."""

    async def answer(self, record: InferenceRecord, on_chunk: OnChunk | None = None) -> InferenceRecord:
        assert isinstance(record, GenerateRecord) and on_chunk is not None
        request_id = record.response.request_id
        if record.request.prompt_text == "bad":
            raise AppError(ErrorCode.MODEL_LOAD_FAILED, "Its weights are gone.")
        for index, start, text in ((0, 0, "ab"), (1, 0, "x"), (0, 0, "ab"), (0, 5, "fg"), (0, 1, "bc"), (0, 0, "")):
            on_chunk(GenerateChunk(request_id=request_id, index=index, start=start, text=text))
        on_chunk(GenerateChunk(request_id=request_id, index=1, start=1, text="", stop_reason="eos"))
        if pause := {"quiet": 0.5, "silent": 3.0}.get(record.request.prompt_text or ""):
            await asyncio.sleep(pause)
            on_chunk(GenerateChunk(request_id=request_id, index=0, start=3, text="d"))
        reasons = ("max_new_tokens", "eos")
        response = changed(record.response, status="completed", outputs=("abcdefg", "x"), stop_reason=reasons)
        return changed(record, response=response)


async def test_lost_or_repeated_chunks__are_delivered_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.queue.inference_client._POLL_SECONDS", 0.1)  # so that it looks during the pause
    async with place(tmp_path, Patchy) as here:
        told = await all_of(here.queue.inference.stream(RUN, long_text(prompt_text="quiet")))
        with pytest.raises(AppError, match="Its weights are gone"):
            await all_of(here.queue.inference.stream(RUN, long_text(prompt_text="bad")))
    pieces = [(piece.index, piece.start, piece.text) for piece in told if isinstance(piece, GenerateChunk)]
    assert pieces == [(0, 0, "ab"), (1, 0, "x"), (0, 2, "c"), (1, 1, ""), (0, 3, "d"), (0, 4, "efg")]
    assert isinstance(told[-1], GenerateResponse)


@pytest.mark.slow
async def test_server_that_stops__is_reported_to_every_request(tmp_path: Path) -> None:
    async with place(tmp_path, Patchy) as here:
        reading = here.queue.inference.stream(RUN, long_text(prompt_text="silent"))
        await first_of(reading)
        with captured_logs() as logs:
            await here.services.stop()
            client = here.queue.inference
            asked: tuple[Awaitable[object], ...] = (
                *(all_of(reading), client.ask(RUN, ChatRequest(message="a")), client.get_chat(RUN, "a")),
                *(client.submit(RUN, ScoreRequest(text="a")), client.get(ScoreRecord, RUN, "a")),
            )
            codes = await asyncio.gather(*map(code_of, asked))
            await until(lambda: any(line["event"] == "chunk_publication_failed" for line in logs))
    assert codes == [ErrorCode.SERVICE_UNAVAILABLE] * 5


async def test_chats__have_separate_histories(tmp_path: Path) -> None:
    async with place(tmp_path) as here:

        async def say(message: str, session_id: str | None = None) -> ChatResponse:
            request = ChatRequest(message=message, session_id=session_id, seed=1, max_new_tokens=20, temperature=2.0)
            return await here.queue.inference.ask(RUN, request)

        first, second = await asyncio.gather(say("the sun"), say("the moon"))
        again = await say("the sea", first.session_id)
        history = await here.queue.inference.get_chat(RUN, first.session_id)
        other = await here.queue.inference.get_chat(RUN, second.session_id)
        written = f"the sun\n{first.answer}\nthe sea\n"
        alone = await here.queue.inference.ask(
            RUN, long_text(prompt_text=written, stop_on_eos=True, seed=1, max_new_tokens=20, temperature=2.0)
        )
        lives: list[int] = [await here.store.redis.ttl(key) for key in await here.keys("runs:[ct][hu][ar][tn]*")]
        await here.store.delete(keys.chat(RUN, first.session_id))
        gone = [
            await code_of(here.queue.inference.get_chat(RUN, first.session_id)),
            await code_of(say("more", first.session_id)),
        ]
        unwritable = ChatRequest(message="the sun", alphabet="Ж")
        assert await code_of(here.queue.inference.ask(RUN, unwritable)) is ErrorCode.INVALID_INPUT
    assert first.session_id != second.session_id
    assert [(turn.message, turn.answer) for turn in history.turns] == [
        ("the sun", first.answer),
        ("the sea", again.answer),
    ]
    assert [(turn.message, turn.answer) for turn in other.turns] == [("the moon", second.answer)]
    assert alone.outputs == (again.answer,)
    assert again.turns_dropped == 0 and again.seed_used == 1 and again.steps == (alone.steps or ())[0]
    assert len(lives) == 5 and all(3590 < life <= 3600 for life in lives)
    assert gone == [ErrorCode.DATA_NOT_FOUND] * 2


class Echo(InferenceChild):
    """Says what was said, and how many turns there were before."""

    async def answer(self, record: InferenceRecord, on_chunk: OnChunk | None = None) -> InferenceRecord:
        assert isinstance(record, ChatRecord)
        answer = f"{len(record.turns)} {record.request.message}"
        return changed(record, response=changed(record.response, status="completed", answer=answer))


async def test_chat__that_expires_while_it_waits_does_not_restart(tmp_path: Path) -> None:
    async with place(tmp_path, Echo) as here:
        first = await here.queue.inference.ask(RUN, ChatRequest(message="a"))
        again = await here.queue.inference.ask(RUN, ChatRequest(message="b", session_id=first.session_id))
        await here.store.redis.pexpire(keys.chat(RUN, first.session_id), 1)
        await asyncio.sleep(0.1)
        expired = await code_of(here.queue.inference.ask(RUN, ChatRequest(message="c", session_id=first.session_id)))
        asking = asyncio.create_task(here.queue.inference.ask(RUN, ChatRequest(message="d")))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (begun := await here.keys(keys.chat(RUN, "*"))):
                await asyncio.sleep(0)
            await here.store.delete(*begun)
            await asyncio.wait([asking])
        left = await here.keys(keys.chat(RUN, "*"))
    assert (first.answer, again.answer) == ("0 a", "1 b")
    assert expired is ErrorCode.DATA_NOT_FOUND
    assert left == []
    forgotten = asking.exception()  # None if the worker saw the chat before
    assert forgotten is None or (isinstance(forgotten, AppError) and forgotten.code is ErrorCode.DATA_NOT_FOUND)


def test_lines_between_requests__are_ids_of_withdrawn_requests() -> None:
    reading, writing = os.pipe()
    requests = Requests(reading)
    os.write(writing, b"old\n[1]\ngone\n[")
    batches = requests.batches()
    assert next(batches) == b"[1]"
    assert requests.withdrawn() == {"old", "gone"}
    os.write(writing, b"2]\n")
    assert next(batches) == b"[2]"
    assert requests.withdrawn() == set()
    os.write(writing, b"late")
    assert requests.withdrawn() == set()
    os.write(writing, b"r\n[3]\n[4]\n")
    os.close(writing)
    assert requests.withdrawn() == {"later"}
    assert [*batches] == [b"[3]", b"[4]"]
    os.close(reading)
