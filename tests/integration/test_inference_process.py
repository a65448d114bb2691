"""The inference process: requests in batches, each with its own answer; it ends when idle."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import environment_in, processes, settings_in
from tests.support.inference import RUN, finished_run
from tests.support.waiting import until
from trainer.config.validation import parse
from trainer.contracts.chats import ChatRecord, ChatRequest
from trainer.contracts.completions import CompletionRecord, CompletionRequest
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRecord, GenerateRequest
from trainer.contracts.inference_fields import InferenceRecord, InferenceRequest
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.queue.inference_kinds import new_record
from trainer.system.hardware import memory_held_bytes, most_memory_bytes
from trainer.system.heartbeat import processor_ticks
from trainer.worker.inference_process import InferenceChild

LINE = "the quick brown fox\n"


@asynccontextmanager
async def child_in(folder: Path, idle_seconds: float = 900.0) -> AsyncIterator[InferenceChild]:
    finished_run(folder)
    child = InferenceChild(settings_in(folder), idle_seconds)
    try:
        yield child
    finally:
        await child.stop()


def asking(name: str, request: InferenceRequest, run_id: str = RUN) -> InferenceRecord:
    session = {"session_id": "s"} if isinstance(request, ChatRequest) else {}
    return new_record(request, request_id=name, run_id=run_id, **session)[1]


def to_score(name: str, text: str, run_id: str = RUN) -> InferenceRecord:
    return asking(name, ScoreRequest(text=text, detail_level="per_char"), run_id)


async def test_batched_requests__have_the_answers_of_single_requests(tmp_path: Path) -> None:
    asked: list[InferenceRecord] = [
        *(to_score(f"score-{number}", LINE[: 3 + number % 15] * (1 + number % 3)) for number in range(20)),
        to_score("long", LINE * 1_500),
        to_score("nowhere", "abc", "no-such-run"),
        *(asking(f"measure-{number}", EvalRequest()) for number in range(2)),
        to_score("last", "the end"),
    ]
    for seed in range(4):
        of_kinds: dict[str, InferenceRequest] = {
            "generate": GenerateRequest(prompt_text="the ", seed=seed, max_new_tokens=9),
            "chat": ChatRequest(message="the sun", seed=seed, max_new_tokens=9),
            "complete": CompletionRequest(prompts=("the ", (5, 6)), seed=seed, max_tokens=9, n=2),
        }
        asked += [asking(f"{kind}-{seed}", request) for kind, request in of_kinds.items()]
    async with child_in(tmp_path) as child:
        together = await asyncio.gather(*(child.answer(record) for record in asked))
        pids = [process.pid for process in processes(tmp_path, "answer-requests")]
        alone = [await child.answer(record) for record in asked]
        assert [process.pid for process in processes(tmp_path, "answer-requests")] == pids
    assert len(pids) == 1
    for record, here, there in zip(asked, together, alone, strict=True):
        assert here.response.request_id == there.response.request_id == record.response.request_id
        if isinstance(here, ScoreRecord) and isinstance(there, ScoreRecord) and here.response.surprisal is not None:
            assert here.response.surprisal == pytest.approx(there.response.surprisal, abs=1e-5)
            assert len(here.response.surprisal) == len((here.request.text or "").replace("\n", ""))
        elif isinstance(here, ChatRecord | CompletionRecord) and isinstance(there, ChatRecord | CompletionRecord):
            assert here.response == there.response
            assert here.response.status == "completed"
        elif isinstance(here, GenerateRecord) and isinstance(there, GenerateRecord):
            assert here.response.outputs == there.response.outputs
        else:
            assert here.response.request_id in ("nowhere", "measure-0", "measure-1")
            assert here.response.error == there.response.error is not None


@pytest.mark.slow
async def test_idle_process__ends_and_the_next_request_starts_another(tmp_path: Path) -> None:
    async with child_in(tmp_path, idle_seconds=0.5) as child:
        first = await child.answer(to_score("first", "abc"))
        await until(lambda: not processes(tmp_path, "answer-requests"))
        second = await child.answer(to_score("second", "abc"))
    assert first.response.status == second.response.status == "completed"
    assert not processes(tmp_path, "answer-requests")


@pytest.mark.slow
async def test_withdrawn_request_or_death__ends_its_own_batch_only(tmp_path: Path) -> None:
    async with child_in(tmp_path) as child:
        tasks = [asyncio.create_task(child.answer(to_score(name, "abc"))) for name in ("gone", "stays", "waits")]
        await until(lambda: len(processes(tmp_path, "answer-requests")) == 1)
        tasks[0].cancel()
        stays = await tasks[1]
        alone = asyncio.create_task(child.answer(to_score("alone", LINE * 20_000)))
        impatient, queued = [
            asyncio.create_task(child.answer(to_score(name, "abc"))) for name in ("impatient", "queued")
        ]
        [before] = processes(tmp_path, "answer-requests")
        used = processor_ticks(before.pid)
        await until(lambda: processor_ticks(before.pid) > used + 5)
        impatient.cancel()
        alone.cancel()
        after = await queued
        [process] = processes(tmp_path, "answer-requests")
        batch = [asyncio.create_task(child.answer(to_score(str(number), LINE * 900))) for number in range(16)]
        used = processor_ticks(process.pid)
        await until(lambda: processor_ticks(process.pid) > used + 5)
        waits = asyncio.create_task(child.answer(to_score("waits", "abc")))
        await asyncio.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        ends = await asyncio.gather(*batch, return_exceptions=True)
        again = await waits
    assert {one.response.status for one in (stays, after, again)} == {"completed"}
    assert process.pid != before.pid, "it was in the middle of what nobody wanted any more"
    assert [end.code for end in ends if isinstance(end, AppError)] == [ErrorCode.SERVICE_UNAVAILABLE] * 16


async def test_child_that_dies_while_idle__loses_no_request(tmp_path: Path) -> None:
    async with child_in(tmp_path) as child:
        answered = [await child.answer(to_score("first", "abc"))]
        [stopped] = processes(tmp_path, "answer-requests")
        os.kill(stopped.pid, signal.SIGSTOP)  # so that it dies before it takes what it is sent
        tasks = [asyncio.create_task(child.answer(to_score(name, "abc"))) for name in ("one", "two", "withdrawn")]
        for _ in range(20):  # after which the child has been sent all of them
            await asyncio.sleep(0)
        tasks[2].cancel()
        os.kill(stopped.pid, signal.SIGKILL)
        answered += await asyncio.gather(*tasks[:2])
        [idle] = processes(tmp_path, "answer-requests")
        os.kill(idle.pid, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{idle.pid}").exists())  # asyncio may not know it yet
        answered.append(await child.answer(to_score("later", "abc")))
    assert [one.response.status for one in answered] == ["completed"] * 4


@pytest.mark.slow
async def test_long_line__leaves_no_memory_behind_in_the_process_that_answered(tmp_path: Path) -> None:
    async with child_in(tmp_path) as child:
        await child.answer(to_score("short", "abc"))
        [process] = processes(tmp_path, "answer-requests")
        status = Path(f"/proc/{process.pid}/status")
        before = memory_held_bytes(status)
        long: dict[str, object] = {"text": "the cat sat " * 160_000, "detail_level": "summary"}
        asked: dict[str, object] = {"request": parse(ScoreRequest, long)}
        answered = await child.answer(to_score("long", "abc").model_copy(update=asked))
        await until(lambda: memory_held_bytes(status) < before + (100 << 20))
        most = most_memory_bytes(status)
    assert answered.response.status == "completed"
    assert most > before + (100 << 20)  # which it would have kept


@pytest.mark.slow
def test_threads__are_those_of_the_setting_or_of_the_environment(tmp_path: Path) -> None:
    code = """
import os, sys, torch
from trainer.config.settings import load_settings
from trainer.worker.children.inference_server import answer_requests
for environment in ({}, {"QUEUE__INFERENCE_THREADS": "3"}):
    os.environ.update(environment)
    answer_requests(load_settings())
    print(torch.get_num_threads(), file=sys.stderr)
"""
    environ = {**environment_in(tmp_path), "MKL_NUM_THREADS": "", "OMP_NUM_THREADS": "2"}
    words, nothing = [sys.executable, "-c", code], subprocess.DEVNULL
    child = subprocess.run(words, env=environ, stdin=nothing, capture_output=True, text=True, check=True)
    assert child.stderr == "2\n3\n"
