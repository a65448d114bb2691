"""Jobs through real processes: a run ends once and right, whatever is killed; short jobs are answered once."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import add_corpus, child_of, ended, kill, processes, running, settings_in, some_text, tiny_request
from tests.support import wait_for_status as wait
from tests.support.inference import RUN, finished_run
from tests.support.lab import Lab
from tests.support.redis_servers import embedded, served
from tests.support.refusals import refused
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import LONG, events_of, training, with_redis, worker_in
from trainer.artifacts.attempts import LOCKED_EXIT_CODE, record_end
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.events import CheckpointSaved, JobProgress, JobStarted, MetricsProgress, stamp
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.queue.enqueue import publish_events
from trainer.store import keys
from trainer.store.connection import entries_adapter
from trainer.store.store import Store, connect
from trainer.worker.child_process import start_child


async def count_published_events(store: Store, run_id: str) -> int:
    length: int = await store.redis.xlen(keys.run_events(run_id))
    return length


async def test_run__from_request_to_answers(lab: Lab) -> None:
    async with lab.queue() as queue, lab.store() as store:
        accepted = await queue.train(tiny_request(), user_id=7)
        assert (accepted.status, accepted.job_id) == ("queued", accepted.run_id)
        assert await queue.workers.exist()
        status = await wait(queue, accepted.run_id, ended)
        assert (status.status, status.progress, status.error, status.user_id) == ("completed", 100.0, None, 7)
        manifest = queue.runs.get(accepted.run_id).completed_manifest()
        assert manifest.metrics.test == status.test_loss
        assert manifest.determinism == "bit_exact"
        assert {file.path for file in manifest.files} == {
            "config.json",
            "eval/metrics.json",
            "eval/samples.jsonl",
            "loss_curve.jsonl",
            "model.safetensors",
            "tokenizer/manifest.json",
            "tokenizer/tokenizer.json",
        }
        measured = (await queue.inference.ask(accepted.run_id, EvalRequest(split="test"))).measured()
        assert status.test_loss is not None
        assert abs(measured.loss - status.test_loss) < 1e-6
        validated = (await queue.inference.ask(accepted.run_id, EvalRequest())).measured()
        assert status.best_val_loss is not None
        assert abs(validated.loss - status.best_val_loss) < 1e-6
        scored = await queue.inference.ask(accepted.run_id, ScoreRequest(text="abc"))
        assert (scored.n_scored, scored.surprisal) == (3, None)
        asked = GenerateRequest(prompt_text="", seed=5, max_new_tokens=9)
        again = [await queue.inference.ask(accepted.run_id, asked) for _ in range(2)]
        assert again[0].outputs == again[1].outputs
        of_run, of_five_short_jobs = len(events_of(queue, accepted.run_id)), 2 * 5
        async with asyncio.timeout(PATIENCE_SECONDS):  # an event is on disk before it is told
            while (of_its_stream := await count_published_events(store, accepted.run_id)) < of_run:
                await asyncio.sleep(0.05)
        assert of_its_stream == of_run
        reading: Awaitable[object] = store.redis.xrange(keys.EVENT_STREAM)  # other tests share it
        told = [entry for entry in entries_adapter.validate_python(await reading) if accepted.run_id in str(entry)]
        assert len(told) == of_run + of_five_short_jobs


async def test_run__outlives_a_stop_a_broken_checkpoint_and_a_kill(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with served(tmp_path) as server, server.queue(tmp_path) as queue:
        store = await connect(server.url)
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        run = queue.runs.get(run_id)
        async with worker_in(
            tmp_path, "--until-idle", "1h", REDIS__URL=server.url, QUEUE__LEASE_SECONDS="600"
        ) as stopped:
            await wait(queue, run_id, lambda s: (s.last_checkpoint_step or 0) >= 60)
            assert await store.get(keys.lease(run_id)) is not None
            assert len((await queue.workers.state([])).workers) == 1
        assert await store.get_all(keys.in_progress(run_id), keys.lease(run_id)) == [None, None]
        assert (stopped.returncode, (await queue.workers.state([])).workers) == (0, ())
        told = [event for event in events_of(queue, run_id) if isinstance(event, (CheckpointSaved, JobProgress))]
        assert [type(event).__name__ for event in told[-2:]] == ["CheckpointSaved", "JobProgress"]
        left = run.follow().refresh()
        assert left.last_checkpoint_step == left.step
        weights = run.checkpoints / f"step-{left.step}" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[::-1])
        async with running(changed(settings_in(tmp_path), **with_redis(server.url))):
            waiting = (await queue.train(tiny_request(), user_id=None)).run_id
            waits_for = (await queue.states.status(waiting)).waits_for
            assert waits_for != "worker" and await queue.workers.exist(), "it only starts"
            await wait(queue, run_id, lambda s: s.attempt == 2 and s.message == "Training.")
            kill(processes(tmp_path, "trainer worker --embedded")[0].pid)
            resumed = await wait(queue, run_id, lambda s: s.attempt == 3 or ended(s))
            further = await wait(queue, run_id, lambda s: s.step > resumed.step or ended(s))
            assert (further.status, (await queue.states.status(waiting)).status) == ("running", "queued")
            await queue.states.cancel(run_id)
            assert (await wait(queue, run_id, ended)).status == "cancelled"
        await store.close()
    assert [path.name.split("-")[2] for path in run.checkpoints.glob("broken-step-*")] == [str(left.step)]
    steps = [event.step for event in events_of(queue, run_id) if isinstance(event, MetricsProgress)]
    assert steps == sorted(set(steps))


async def test_running_run__is_paused_resumed_and_cancelled_with_a_checkpoint(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        assert (await wait(queue, run_id, training)).reachable
        await queue.states.pause(run_id)
        paused = await wait(queue, run_id, lambda s: s.status == "paused")
        assert paused.last_checkpoint_step == paused.step > 0
        with pytest.raises(AppError, match="is paused: resume it without `epochs`"):
            await queue.resume(run_id, user_id=None, epochs=3)
        assert (await queue.resume(run_id, user_id=None)).run_id == run_id
        await wait(queue, run_id, lambda s: s.step > paused.step)
        await queue.states.cancel(run_id)
        cancelled = await wait(queue, run_id, ended)
        assert cancelled.status == "cancelled" and (cancelled.last_checkpoint_step or 0) > paused.step
        with pytest.raises(AppError, match="has already ended"):
            await queue.states.cancel(run_id)
        with pytest.raises(AppError, match="has been cancelled"):
            await queue.inference.ask(run_id, ScoreRequest(text="a"))


async def test_paused_runs__stay_paused_after_kills_and_lost_queues(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (_, queue, store):
        lost, unwritten = [(await queue.train(tiny_request(), user_id=None)).run_id for _ in range(2)]
        await queue.states.pause(lost)
        await store.redis.flushall()
        queue.runs.get(unwritten).request_pause()  # and then the command was killed
    async with running(settings_in(tmp_path)) as queue:
        later = (await queue.train(tiny_request(), user_id=None)).run_id
        assert (await wait(queue, later, ended)).status == "completed"
        for run_id in (lost, unwritten):
            assert (await wait(queue, run_id, lambda s: s.status == "paused")).attempt == 0
            await queue.resume(run_id, user_id=None)
        for run_id in (lost, unwritten):
            assert (await wait(queue, run_id, ended)).status == "completed"
            kinds = [type(event).__name__ for event in events_of(queue, run_id)[:4]]
            assert kinds == ["JobQueued", "JobPaused", "JobQueued", "JobStarted"]


@pytest.mark.slow
async def test_waiting_run__is_cancelled_paused_or_fails_in_the_queue(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(61), "lost")  # the server may have the text of other tests by its hash
    texts = ("lost", "text", "text", "text", "text", "text")
    async with lab.queue() as queue:
        async with lab.worker_busy(queue):
            lost, cancelled, asked, faulty, held, paused = [
                queue.runs.get((await queue.train(tiny_request(corpus=text), user_id=None)).run_id) for text in texts
            ]
            (lab.folder / "data" / "corpus" / "lost.txt").unlink()
            assert (await queue.states.status(cancelled.run_id)).queue_position == 3
            await queue.states.cancel(cancelled.run_id)
            assert cancelled.manifest() is not None, "it ends at once"
            asked.request_cancel()  # and then the bot died
            faulty.checkpoints.touch()  # a file where a folder belongs
            lock = held.lock()
            assert lock is not None
            assert record_end(held, "crashed", ()) == 1.0
            paused.request_pause()
        await wait(queue, paused.run_id, lambda status: status.status == "paused")
        assert paused.is_paused and await queue.states.cancel(paused.run_id)
        end = paused.manifest()
        late = await start_child("train-child", lab.settings, paused.run_id)
        assert (await late.wait(), paused.manifest()) == (0, end), "a child changes nothing of a run that has ended"
        with lock:
            await until(lambda: lab.logged("child_ended", f"run_id={held.run_id}", f"exit_code={LOCKED_EXIT_CODE}"))
            assert [event.seq for event in events_of(queue, held.run_id)] == [1]
        of_lost, of_faulty = [await wait(queue, run.run_id, ended) for run in (lost, faulty)]
        ends = [(await wait(queue, run.run_id, ended)).status for run in (cancelled, asked, paused, held)]
        await until(lambda: lab.logged("child_ended", f"run_id={asked.run_id}", "exit_code=0"))
    assert ends == ["cancelled"] * 3 + ["completed"]
    assert of_lost.error is not None and of_lost.error.code is ErrorCode.DATA_NOT_FOUND
    assert (of_lost.status, of_lost.attempt) == ("failed", 1)
    assert not any(isinstance(event, JobStarted) for event in events_of(queue, cancelled.run_id))
    assert of_faulty.error is not None and of_faulty.error.code is ErrorCode.MODEL_TRAIN_FAILED
    assert "Traceback" in faulty.logs.read_text(encoding="utf-8")
    assert str(lab.folder) not in of_lost.message + of_faulty.message


@pytest.mark.slow
async def test_run_taken_over_by_a_machine_beyond_its_lock__is_left_to_it(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        run, child = queue.runs.get(run_id), child_of(lab.folder, run_id)
        os.kill(child.pid, signal.SIGSTOP)
        (run.path / "lock").unlink()
        lock = run.lock()
        assert lock is not None
        with lock, run.open_log() as log:
            log.append(JobStarted(**stamp(run_id, None, "started:2"), queue="training", attempt=2))
            os.kill(child.pid, signal.SIGCONT)
            await until(lambda: "run_taken_over" in run.logs.read_text(encoding="utf-8"))
        await wait(queue, run_id, lambda s: s.attempt == 3 and s.message == "Training.")
        await queue.states.cancel(run_id)
        assert (await wait(queue, run_id, ended)).status == "cancelled"
    events = events_of(queue, run_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.attempt for event in events if isinstance(event, JobStarted)] == [1, 2, 3]
    steps = [event.step for event in events if isinstance(event, MetricsProgress)]
    assert steps == sorted(set(steps))


@pytest.mark.slow
async def test_limits__of_time_and_of_tries_end_a_request_and_a_training(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    finished_run(tmp_path)
    async with embedded(tmp_path) as (settings, queue, store):
        twice = (await queue.inference.submit(RUN, ScoreRequest(text="a"))).request_id
        await store.redis.set(keys.tries(twice), 2)
    hasty = changed(settings_in(tmp_path).queue, interactive_timeout_seconds=0.2, training_timeout_seconds=3)
    async with running(changed(settings, queue=hasty)) as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        slow = GenerateRequest(prompt_text="abc", max_new_tokens=512, num_return_sequences=8)
        with pytest.raises(AppError, match="took too long"):
            await queue.inference.ask(RUN, slow)
        while (response := (await queue.inference.get(ScoreRecord, RUN, twice)).response).status == "queued":
            await asyncio.sleep(0.05)
        failed = await wait(queue, run_id, ended)
    assert response.error is not None and response.error.code is ErrorCode.SERVICE_UNAVAILABLE
    assert response.error.message.startswith("The worker ended twice before the answer")
    assert failed.status == "failed" and failed.error is not None
    assert "longer than 3 s (QUEUE__TRAINING_TIMEOUT_SECONDS)" in failed.error.message
    assert failed.step == 0 or newest_whole(queue.runs.get(run_id).checkpoints) is not None


async def test_run_with_a_deleted_folder__leaves_the_queue(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, lab.store() as store:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        run, child = queue.runs.get(run_id), child_of(lab.folder, run_id)
        run.path.rename(tmp_path / run_id)
        run.checkpoints.mkdir(parents=True, exist_ok=True)  # as its training does when it saves a checkpoint
        with suppress(ProcessLookupError):  # it has found its folder gone, and ended by itself
            kill(child.pid)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while waiting := await queued_at(store):
                assert max(waiting) < 1000 * (time.time() + 30), "a failed attempt is tried again after a minute"
                await asyncio.sleep(0.02)


async def queued_at(store: Store) -> list[float]:
    """Return the times from which the queued trainings may start, in milliseconds since 1970."""
    queued: list[tuple[bytes, float]] = await store.redis.zrange("training", 0, -1, withscores=True)
    return [at_ms for _, at_ms in queued]


async def test_events__published_by_many_at_once_are_there_once_in_order(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (_, queue, store):
        run = queue.runs.get((await queue.train(tiny_request(), user_id=None)).run_id)
        with run.open_log() as log:
            for number in range(40):
                log.append(JobProgress(**stamp(run.run_id, None, f"phase:{number}"), progress=0.0, message="x"))
        await asyncio.gather(*(publish_events(store, run) for _ in range(6)))
        streams = keys.run_events(run.run_id), keys.EVENT_STREAM
        lengths: list[int] = [await store.redis.xlen(key) for key in streams]
        assert lengths == [41, 41]


async def test_full_disk__nothing_is_accepted(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "models").touch()  # no folder can be made in it
    async with embedded(tmp_path) as (_, queue, _):
        with refused(ErrorCode.INSUFFICIENT_STORAGE, "nothing was queued"):
            await queue.train(tiny_request(), user_id=None)
