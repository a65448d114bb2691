"""Inference requests through real processes: what Redis stores of them expires, and no log shows their text."""

import asyncio
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, running, settings_in, some_text, tiny_request
from tests.support import wait_for_status as wait
from tests.support.redis_servers import address
from tests.support.waiting import PATIENCE_SECONDS
from trainer.config.settings import LoggingSettings
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.scores import ScoreRequest
from trainer.store import keys
from trainer.store.store import connect
from trainer.system.files import changed_files

LINE = "cab bac abc acb"
_STAYS_FOR_EVER = -1  # as Redis says it; -2 is a key that went away meanwhile


async def test_requests__leave_no_text_in_logs_and_no_key_that_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add_corpus(tmp_path, some_text())
    add_corpus(tmp_path, f"{LINE}\n" * 2, "other")
    verbose: dict[str, object] = {"logging": LoggingSettings(level="DEBUG")}
    async with running(settings_in(tmp_path).model_copy(update=verbose)) as queue:
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        await wait(queue, run_id, ended)
        await queue.inference.ask(run_id, ScoreRequest(text=LINE))
        await queue.inference.ask(run_id, ScoreRequest(path="other"))
        await queue.inference.ask(run_id, GenerateRequest(prompt_path="other", max_new_tokens=2))
        for request in (EvalRequest(split="test"), EvalRequest(path_override="other"), EvalRequest()):
            await queue.inference.ask(run_id, request)
        await all_keys_of_requests_expire(tmp_path)
    run = queue.runs.get(run_id)
    manifest = run.completed_manifest()
    assert [(summary.split, summary.dataset) for summary in manifest.eval] == [
        *(("test", None), ("validation", "other"), ("validation", None)),
    ]
    assert changed_files(run.path, manifest.files) == []
    logs = capfd.readouterr().err + run.logs.read_text("utf-8")
    assert "inference_request_ended" in logs
    assert LINE not in logs


async def all_keys_of_requests_expire(folder: Path) -> None:
    """Every key but the common streams, workers and turns of users, also those of runs, which have ended."""
    store = await connect(address(folder))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await store.redis.exists(keys.INTERACTIVE_QUEUE):  # a worker ends a job after its answer is stored
            await asyncio.sleep(0.01)
    stays = {keys.EVENT_STREAM, keys.JOB_NOTIFICATIONS, keys.WORKERS, keys.turns("training")}
    found: list[bytes] = await store.redis.keys("*")
    left: dict[str, int] = {key.decode(): await store.redis.pttl(key) for key in found}
    await store.close()
    assert {key for key, milliseconds in left.items() if milliseconds == _STAYS_FOR_EVER} <= stays, left
    kinds = {key.split(":")[1] for key in left if key.count(":") == 3 and key.startswith("runs:")}
    assert kinds == {"score", "gen", "eval"}
