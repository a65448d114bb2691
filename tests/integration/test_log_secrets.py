"""No secret and nothing of a text stands in a log or an event, whatever goes right or wrong."""

import asyncio
from pathlib import Path

from pydantic import TypeAdapter

from tests.support import add_corpus, child_of, ended, kill, settings_in, some_text, tiny_request, wait_for_status
from tests.support.log_secrets import CORPUS, PROMPT, TEXT, address, has_secret, worker
from tests.support.waiting import until
from trainer.contracts.errors import AppError
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.jobs import InferenceJobPayload
from trainer.contracts.scores import ScoreRequest
from trainer.export.verification import verify_run
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.store.store import connect
from trainer.system.logs import LogReader

_line = TypeAdapter(dict[str, object])


async def test_words_and_secrets__are_in_no_log_and_no_event(tmp_path: Path) -> None:
    add_corpus(tmp_path, "\n".join(f"{CORPUS} {line}" for line in some_text().splitlines()))
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        async with worker(tmp_path, out.fileno(), err.fileno()) as queue:
            await what_goes_right(queue, tmp_path)
            await what_goes_wrong(queue, tmp_path)
    logs = [*(tmp_path / "artifacts").rglob("logs.jsonl*"), *(tmp_path / "artifacts").rglob("events.jsonl")]
    assert len(logs) >= 6
    told = {path: path.read_text(encoding="utf-8") for path in (*logs, tmp_path / "out", tmp_path / "err")}
    leaks = [(path.name, line) for path, text in told.items() for line in text.splitlines() if has_secret(line)]
    assert leaks == []
    assert "run_failed" in told[tmp_path / "err"]
    assert "training_child_failed" in told[tmp_path / "err"]


async def what_goes_right(queue: JobQueue, folder: Path) -> None:
    run_id = (await queue.train(tiny_request(num_epochs=2), user_id=7)).run_id
    assert (await wait_for_status(queue, run_id, ended)).status == "completed"
    log = [_line.validate_json(line) for line in LogReader(queue.runs.get(run_id).logs).last(1000)]
    assert {line["run_id"] for line in log} == {run_id}
    assert [line["epoch"] for line in log if line["message"] == "epoch_ended"] == [1, 2]
    assert [line["split"] for line in log if line["message"] == "evaluated"] == ["validation", "validation", "test"]
    await queue.inference.ask(run_id, ScoreRequest(text=TEXT, detail_level="per_char", top_k=3))
    await queue.inference.ask(run_id, GenerateRequest(prompt_text=PROMPT, max_new_tokens=20, stop_sequences=(TEXT,)))
    (await queue.inference.ask(run_id, EvalRequest())).measured()
    verified = await asyncio.to_thread(verify_run, queue.runs.get(run_id), settings_in(folder))
    assert verified.ok, verified


async def what_goes_wrong(queue: JobQueue, folder: Path) -> None:
    """A crash, a text that is lost, requests that cannot be answered or read."""
    crashing = (await queue.train(tiny_request(num_epochs=1000), user_id=7)).run_id
    lost = (await queue.train(tiny_request(), user_id=7)).run_id
    await wait_for_status(queue, crashing, lambda status: status.step > 0)
    child = child_of(folder, crashing)
    kill(child.pid)
    await until(lambda: "training_child_failed" in (folder / "err").read_text(encoding="utf-8"))
    (folder / "data" / "corpus" / "text.txt").write_text(f"{CORPUS} another\n", encoding="utf-8")
    await queue.states.cancel(crashing)
    assert (await wait_for_status(queue, lost, ended)).status == "failed"
    [done] = [run.run_id for run in queue.runs.all() if run.run_id not in (crashing, lost)]
    try:
        (await queue.inference.ask(done, EvalRequest(split="test"))).measured()
    except AppError as error:
        assert not has_secret(error.message)
    await ask_what_cannot_be_read(done, folder)


async def ask_what_cannot_be_read(run_id: str, folder: Path) -> None:
    """A request as another release may have stored it."""
    store = await connect(address(folder))
    job = InferenceJobPayload(kind="score", run_id=run_id, request_id="other")
    stored = f'{{"kind": "score", "request": {{"text": "{TEXT}", "new": 1}}}}'
    await store.put(keys.inference(job.kind, job.run_id, job.request_id), stored, ttl_seconds=60)
    await store.enqueue(keys.INTERACTIVE_QUEUE, "infer", job.request_id, job)
    while await store.get(keys.definition(job.request_id)):
        await asyncio.sleep(0.05)
    await store.close()
