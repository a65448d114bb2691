"""Inference requests through real processes: by corpus name, in windows, repeatedly; no log shows their text."""

import asyncio
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, mt, running, settings_in, some_text, tiny_request, twin
from tests.support import wait_for_status as wait
from tests.support.redis_servers import address
from tests.support.waiting import PATIENCE_SECONDS
from trainer.config.settings import LoggingSettings
from trainer.contracts.evaluations import EvalMetrics, EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.scores import ScoreRequest
from trainer.reports.comparison import Comparison
from trainer.store import keys
from trainer.store.store import connect
from trainer.system.files import changed_files

LINE = "cab bac abc acb"
_STAYS_FOR_EVER = -1  # as Redis says it; -2 is a key that went away meanwhile


async def test_finished_run__answers_by_corpus_name_in_windows_and_repeatedly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add_corpus(tmp_path, some_text())
    add_corpus(tmp_path, f"{LINE}\n" * 2 + f"{LINE} " * 20, "other")
    (tmp_path / "mine.txt").write_text(f"{LINE}\n", encoding="utf-8")
    verbose: dict[str, object] = {"logging": LoggingSettings(level="DEBUG")}
    async with running(settings_in(tmp_path).model_copy(update=verbose)) as queue:
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        await wait(queue, run_id, ended)
        text = (tmp_path / "data" / "corpus" / "other.txt").read_text(encoding="utf-8")
        named = await queue.inference.ask(run_id, ScoreRequest(path="other"))
        typed = await queue.inference.ask(run_id, ScoreRequest(text=text, window_tokens=64))
        assert (named.n_scored, named.window) == (typed.n_scored, None)
        assert typed.window is not None and typed.window.compared_tokens == len(LINE) * 20 + 20
        await queue.inference.ask(run_id, GenerateRequest(prompt_path="other", max_new_tokens=2))
        measured = [(await queue.inference.ask(run_id, EvalRequest(split="test"))).measured() for _ in range(3)]
        assert len({(metrics.loss, metrics.top1_accuracy, metrics.distinct_2) for metrics in measured}) == 1

        async def mt_output(*words: str) -> str:
            return (await asyncio.to_thread(mt, tmp_path, *words, QUEUE__EMBEDDED_WORKERS="0")).stdout

        shown = await mt_output("score", run_id, "--path", "other", "--max-window", "64")
        assert "64 tokens, of which 16 are context only" in shown and "bits in 320 tokens" in shown
        exact = await mt_output("score", run_id, LINE, "--max-window", "64")
        assert "none: no line is longer than 64 tokens" in exact
        text_of_both = ("--path", "mine.txt", "--json")
        twin(queue.runs.get(run_id), "other-1")
        compared = await mt_output("compare", run_id, "other-1", *text_of_both)
        [against] = Comparison.model_validate_json(compared).against
        assert (against.basis, against.rise) == ("loss", 0.0)
        summaries = queue.runs.get("other-1").completed_manifest().eval
        assert against.delta.loss == 0 and summaries[-1].dataset is not None
        await all_keys_of_requests_expire(tmp_path)
        mine = await mt_output("eval", run_id, "--path", "mine.txt", "--json")
        metrics = EvalMetrics.model_validate_json(mine)
        assert (metrics.n_chars, metrics.n_tokens) == (len(LINE), len(LINE) + 1)
    manifest = queue.runs.get(run_id).completed_manifest()
    measured_on = [(summary.split, summary.dataset) for summary in manifest.eval]
    assert measured_on == [("test", None), ("validation", metrics.dataset)]
    assert manifest.eval[0].loss == measured[0].loss
    evaluations = [file for file in manifest.files if file.path.startswith("eval/")]
    assert len(evaluations) == 2
    assert changed_files(queue.runs.get(run_id).path, evaluations) == []
    logs = capfd.readouterr().err + queue.runs.get(run_id).logs.read_text("utf-8")
    assert "inference_request_ended" in logs
    assert LINE not in logs


async def all_keys_of_requests_expire(folder: Path) -> None:
    """Every key but the common streams, workers and turns of users, also those of runs, which have ended."""
    store = await connect(address(folder))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await store.redis.exists(keys.INTERACTIVE_QUEUE):  # a worker ends a job after its answer has rung
            await asyncio.sleep(0.01)
    stays = {keys.EVENT_STREAM, keys.JOB_NOTIFICATIONS, keys.WORKERS, keys.turns("training")}
    found: list[bytes] = await store.redis.keys("*")
    left: dict[str, int] = {key.decode(): await store.redis.pttl(key) for key in found}
    await store.close()
    assert {key for key, milliseconds in left.items() if milliseconds == _STAYS_FOR_EVER} <= stays, left
    kinds = {key.split(":")[1] for key in left if key.count(":") == 3 and key.startswith("runs:")}
    assert kinds == {"score", "gen", "eval"}
