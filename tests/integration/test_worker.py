"""Jobs through real processes: a run ends once and right, whatever is killed; short jobs are answered once."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support import add_corpus, ended, gone, kill, processes, running, settings_in, some_text, tiny_request
from tests.support import wait_for_status as wait
from tests.support.inference import RUN, finished_run
from tests.support.lab import Lab
from tests.support.redis_servers import embedded
from tests.support.waiting import captured_logs, until
from tests.support.worker_runs import LONG, events_of, training
from trainer.artifacts.attempts import LOCKED_EXIT_CODE, record_end
from trainer.artifacts.checkpoint_files import newest_whole
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import CheckpointSaved, JobProgress, JobStarted, MetricsProgress, stamp
from trainer.contracts.inference import (
    EvalRecord,
    EvalRequest,
    EvalResponse,
    GenerateRequest,
    ScoreRecord,
    ScoreRequest,
)
from trainer.queue.enqueue import publish_events
from trainer.services.embedded import Services
from trainer.store import keys
from trainer.store.store import Store, connect
from trainer.system.heartbeat import processor_ticks
from trainer.worker.child_process import start_child
from trainer.worker.supervisor import supervise


async def test_run__from_request_to_answers(lab: Lab) -> None:
    async with lab.queue() as queue, lab.store() as store:
        told_before: int = await store.redis.xlen(keys.EVENT_STREAM)
        accepted = await queue.train(tiny_request(), user_id=7)
        assert (accepted.status, accepted.job_id) == ("queued", accepted.run_id)
        assert await queue.has_worker()
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
        told: list[int] = [await store.redis.xlen(key) for key in (keys.run_events(accepted.run_id), keys.EVENT_STREAM)]
        of_run, of_five_short_jobs = len(events_of(queue, accepted.run_id)), 2 * 5
        assert told == [of_run, told_before + of_run + of_five_short_jobs]


async def test_worker_killed__another_takes_the_run_up_before_any_that_waits(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with running(settings_in(tmp_path)) as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        waiting = (await queue.train(tiny_request(), user_id=None)).run_id
        [worker] = processes(tmp_path, "trainer worker --embedded")
        kill(worker.pid)
        status = await wait(queue, run_id, lambda s: s.attempt == 2 or ended(s))
        before = status.step
        status = await wait(queue, run_id, lambda s: s.step > before or ended(s))
        assert (status.status, (await queue.status(waiting)).status) == ("running", "queued")
        await queue.cancel(run_id)
        assert (await wait(queue, run_id, ended)).status == "cancelled"


async def test_cancel__running_run_stops_and_keeps_its_checkpoint(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        assert (await queue.status(run_id)).reachable
        await queue.cancel(run_id)
        status = await wait(queue, run_id, ended)
        assert status.status == "cancelled"
        assert any(queue.runs.get(run_id).checkpoints.glob("step-*"))
        with pytest.raises(AppError, match="has already ended"):
            await queue.cancel(run_id)
        with pytest.raises(AppError, match="has been cancelled"):
            await queue.inference.ask(run_id, ScoreRequest(text="a"))


async def test_cancel__queued_run_ends_at_once_and_never_starts(lab: Lab) -> None:
    async with lab.queue() as queue:
        async with lab.worker_busy(queue) as first:
            second = (await queue.train(tiny_request(), user_id=None)).run_id
            assert (await queue.status(second)).queue_position == 2
            await queue.cancel(second)
        await wait(queue, first, ended)
        assert (await queue.status(second)).status == "cancelled"
        assert not any(isinstance(event, JobStarted) for event in events_of(queue, second))


async def test_pause__stops_a_run_with_a_checkpoint_until_it_is_resumed(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        await queue.pause_run(run_id)
        paused = await wait(queue, run_id, lambda s: s.status == "paused")
        assert paused.last_checkpoint_step == paused.step > 0
        with pytest.raises(AppError, match="is paused: resume it without `epochs`"):
            await queue.resume(run_id, user_id=None, epochs=3)
        assert (await queue.resume(run_id, user_id=None)).run_id == run_id
        await wait(queue, run_id, lambda s: s.step > paused.step)
        await queue.pause_run(run_id)
        await wait(queue, run_id, lambda s: s.status == "paused")
        await queue.cancel(run_id)
        assert (await wait(queue, run_id, ended)).status == "cancelled"


@pytest.mark.parametrize("is_written", [True, False])
async def test_paused_run__is_started_by_no_worker_whatever_was_killed_or_lost(
    tmp_path: Path, is_written: bool
) -> None:
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (_, queue, store):
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
        run = queue.runs.get(run_id)
        if is_written:
            await queue.pause_run(run_id)
            await store.redis.flushall()
        else:
            run.request_pause()  # and then the command was killed
    async with running(settings_in(tmp_path)) as queue:
        later = (await queue.train(tiny_request(), user_id=None)).run_id
        assert (await wait(queue, later, ended)).status == "completed"
        assert (await wait(queue, run_id, lambda s: s.status == "paused")).attempt == 0
        await queue.resume(run_id, user_id=None)
        assert (await wait(queue, run_id, ended)).status == "completed"
    kinds = [type(event).__name__ for event in events_of(queue, run_id)[:4]]
    assert kinds == ["JobQueued", "JobPaused", "JobQueued", "JobStarted"]


async def test_pause_requested_while_the_child_starts__pauses_the_run(lab: Lab) -> None:
    async with lab.queue() as queue, lab.worker_busy(queue):
        run = queue.runs.get((await queue.train(tiny_request(), user_id=None)).run_id)
        run.request_pause()
        child = await start_child("train-child", lab.settings, run.run_id)
        assert await child.wait() == 0
        assert run.is_paused and run.follow().refresh().status == "paused"
        assert await queue.cancel(run.run_id)


async def test_stop__saves_a_checkpoint_and_the_next_worker_continues(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with running(settings_in(tmp_path)) as queue:
        run_id = (await queue.train(tiny_request(num_epochs=1000, checkpoint_every_steps=10**6), user_id=None)).run_id
        await wait(queue, run_id, training)
    assert await gone(tmp_path)
    paused = [event for event in events_of(queue, run_id) if isinstance(event, (CheckpointSaved, JobProgress))]
    assert [type(event).__name__ for event in paused[-2:]] == ["CheckpointSaved", "JobProgress"]
    async with running(settings_in(tmp_path)) as queue:
        status = await wait(queue, run_id, lambda s: s.attempt == 2)
        await queue.cancel(run_id)
        status = await wait(queue, run_id, ended)
    steps = [event.step for event in events_of(queue, run_id) if isinstance(event, MetricsProgress)]
    assert status.status == "cancelled"
    assert steps == sorted(set(steps))


async def test_run_whose_folder_vanishes__leaves_the_queue_at_once(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, lab.store() as store:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        run = queue.runs.get(run_id)
        run.path.rename(tmp_path / run_id)
        run.checkpoints.mkdir(parents=True, exist_ok=True)  # as its training does when it saves a checkpoint
        kill(processes(lab.folder, "train-child")[0].pid)
        async with asyncio.timeout(30):  # not the minute after which a failed attempt is tried again
            while await store.redis.zcard("training"):
                await asyncio.sleep(0.02)


async def test_corpus_deleted_while_queued__fails_the_run_as_a_user_error(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(61), "lost")  # the server may have the text of other tests by its hash
    async with lab.queue() as queue:
        async with lab.worker_busy(queue):
            run_id = (await queue.train(tiny_request(corpus="lost"), user_id=None)).run_id
            (lab.folder / "data" / "corpus" / "lost.txt").unlink()
        status = await wait(queue, run_id, ended)
    assert status.error is not None and status.error.code is ErrorCode.DATA_NOT_FOUND
    assert status.attempt == 1
    assert str(lab.folder) not in status.message


async def test_inference_child_killed__fails_its_request_and_no_later_one(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await lab.finished_run(queue)).run_id
        await queue.inference.ask(run_id, ScoreRequest(text="abc"))
        slow = asyncio.create_task(queue.inference.ask(run_id, ScoreRequest(text="abc\n" * 200_000)))
        children = processes(lab.folder, "answer-requests")
        before = {child: processor_ticks(child.pid) for child in children}
        await until(lambda: any(processor_ticks(child.pid) > ticks + 20 for child, ticks in before.items()))
        for child in children:
            kill(child.pid)
        with pytest.raises(AppError) as caught:
            await slow
        assert caught.value.code is ErrorCode.SERVICE_UNAVAILABLE
        assert (await queue.inference.ask(run_id, ScoreRequest(text="abc"))).n_scored == 3
        for child in (idle := processes(lab.folder, "answer-requests")):
            kill(child.pid)
        await until(lambda: not any(Path(f"/proc/{child.pid}").exists() for child in idle))
        assert (await queue.inference.ask(run_id, ScoreRequest(text="abc"))).n_scored == 3


async def test_request_over_which_two_workers_ended__fails(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with embedded(tmp_path) as (_, queue, store):
        request_id = (await queue.inference.submit(RUN, ScoreRequest(text="a"))).request_id
        await store.redis.set(keys.tries(request_id), 2)
    async with running(settings_in(tmp_path)) as queue:
        while (response := (await queue.inference.get(ScoreRecord, RUN, request_id)).response).status == "queued":
            await asyncio.sleep(0.05)
    assert response.error is not None and response.error.code is ErrorCode.SERVICE_UNAVAILABLE
    assert response.error.message.startswith("The worker ended twice before the answer")


async def test_slow_request__is_ended_at_its_time_limit(tmp_path: Path) -> None:
    finished_run(tmp_path)
    settings = settings_in(tmp_path)
    hasty = changed(settings.queue, interactive_timeout_seconds=0.2)
    async with running(changed(settings, queue=hasty)) as queue:
        with pytest.raises(AppError, match="took too long"):
            await queue.inference.ask(
                RUN, GenerateRequest(prompt_text="abc", max_new_tokens=512, num_return_sequences=8)
            )


async def test_unanswered_request__fails_after_the_timeout(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    finished_run(tmp_path)
    async with embedded(tmp_path) as (_, queue, store):
        waiting = (await queue.train(tiny_request(), user_id=None)).run_id
        with pytest.raises(AppError) as caught:
            await queue.inference.ask(waiting, ScoreRequest(text="a"))
        assert caught.value.code is ErrorCode.RUN_NOT_READY
        assert not await queue.has_worker()
        asking = asyncio.create_task(queue.inference.ask(RUN, ScoreRequest(text="a")))
        while not await keys_like(store, "runs:score:*"):
            await asyncio.sleep(0.05)
        await store.redis.flushall()
        with pytest.raises(AppError, match="No worker has answered"):
            await asking


async def test_answer_without_numbers__is_no_answer(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with embedded(tmp_path) as (_, queue, store):
        before = await keys_like(store, "runs:eval:*")
        asking = asyncio.create_task(queue.inference.ask(RUN, EvalRequest()))
        forged = EvalResponse(request_id="x", run_id=RUN, status="completed")
        while (found := await keys_like(store, "runs:eval:*")) == before:
            await asyncio.sleep(0.05)
        for key in found:
            await store.put(key, EvalRecord(request=EvalRequest(), response=forged).model_dump_json(), ttl_seconds=9)
        with pytest.raises(AppError, match="No worker has answered"):
            (await asking).measured()


async def keys_like(store: Store, pattern: str) -> list[str]:
    found: list[bytes] = await store.redis.keys(pattern)
    return [key.decode() for key in found]


async def test_training_that_takes_too_long__fails_with_a_checkpoint(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path)
    queue_settings = changed(settings.queue, training_timeout_seconds=3)
    async with running(changed(settings, queue=queue_settings)) as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        failed = await wait(queue, run_id, ended)
        assert failed.status == "failed" and failed.error is not None
        assert "longer than 3 s (QUEUE__TRAINING_TIMEOUT_SECONDS)" in failed.error.message
        assert failed.step == 0 or newest_whole(queue.runs.get(run_id).checkpoints) is not None


async def test_run_held_by_another_child__waits_for_it(lab: Lab) -> None:
    async with lab.queue() as queue:
        async with lab.worker_busy(queue):
            run_id = (await queue.train(tiny_request(), user_id=None)).run_id
            lock = queue.runs.get(run_id).lock()
            assert lock is not None
            assert record_end(queue.runs.get(run_id), "crashed", ()) == 1.0
        with lock:
            await until(lambda: lab.logged("child_ended", f"run_id={run_id}", f"exit_code={LOCKED_EXIT_CODE}"))
            assert [event.seq for event in events_of(queue, run_id)] == [1]
        assert (await wait(queue, run_id, ended)).status == "completed"


async def test_run_taken_over_by_a_machine_beyond_its_lock__is_left_to_it(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with running(settings_in(tmp_path)) as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, training)
        run = queue.runs.get(run_id)
        [child] = processes(tmp_path, "train-child")
        os.kill(child.pid, signal.SIGSTOP)
        (run.path / "lock").unlink()
        lock = run.lock()
        assert lock is not None
        with lock, run.open_log() as log:
            log.append(JobStarted(**stamp(run_id, None, "started:2"), queue="training", attempt=2))
            os.kill(child.pid, signal.SIGCONT)
            await until(lambda: "run_taken_over" in run.logs.read_text(encoding="utf-8"))
        await wait(queue, run_id, lambda s: s.attempt == 3 and s.message == "Training.")
        await queue.cancel(run_id)
        assert (await wait(queue, run_id, ended)).status == "cancelled"
    events = events_of(queue, run_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.attempt for event in events if isinstance(event, JobStarted)] == [1, 2, 3]
    steps = [event.step for event in events if isinstance(event, MetricsProgress)]
    assert steps == sorted(set(steps))


async def test_run_cancelled_before_its_start__is_ended_by_its_child(lab: Lab) -> None:
    async with lab.queue() as queue:
        async with lab.worker_busy(queue):
            run_id = (await queue.train(tiny_request(), user_id=None)).run_id
            queue.runs.get(run_id).request_cancel()  # and then the bot died
        assert (await wait(queue, run_id, ended)).status == "cancelled"


async def test_broken_checkpoint__is_set_aside_and_the_one_before_is_used(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with running(settings_in(tmp_path)) as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait(queue, run_id, lambda s: (s.last_checkpoint_step or 0) >= 60)
    run = queue.runs.get(run_id)
    newest = max(run.checkpoints.glob("step-*"), key=step_of)
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    async with running(settings_in(tmp_path)) as queue:
        await wait(queue, run_id, lambda s: s.attempt == 2 and s.message == "Training.")
        await queue.cancel(run_id)
        assert (await wait(queue, run_id, ended)).status == "cancelled"
    assert [path.name.split("-")[2] for path in run.checkpoints.glob("broken-step-*")] == [str(step_of(newest))]


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


async def test_fault_of_the_program__ends_the_run_with_its_stack_in_the_log(lab: Lab) -> None:
    async with lab.queue() as queue:
        async with lab.worker_busy(queue):
            run_id = (await queue.train(tiny_request(), user_id=None)).run_id
            queue.runs.get(run_id).checkpoints.touch()  # a file where a folder belongs
        status = await wait(queue, run_id, ended)
    assert status.error is not None and status.error.code is ErrorCode.MODEL_TRAIN_FAILED
    assert str(lab.folder) not in status.message
    assert "Traceback" in queue.runs.get(run_id).logs.read_text(encoding="utf-8")


async def test_redis_down__supervised_child_trains_on(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path, embedded_workers=0)
    async with running(settings) as queue:
        run = queue.runs.get((await queue.train(tiny_request(**LONG), user_id=None)).run_id)
    services = Services(settings)
    store = await connect(await services.start())
    follower = run.follow()
    with captured_logs() as logs:
        supervising = asyncio.create_task(supervise(run, settings, store))
        await until(lambda: follower.refresh().step > 0)
        await services.stop()
        wanted = {"lease_renewal_failed", "event_publication_failed"}
        await until(lambda: wanted <= {str(line["event"]) for line in logs})
        before = follower.refresh().step
        await until(lambda: follower.refresh().step > before)
        supervising.cancel()
        with pytest.raises(asyncio.CancelledError):
            await supervising
    await store.close()
    assert follower.refresh().status == "running"
    assert await gone(tmp_path)


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
        with pytest.raises(AppError, match="nothing was queued") as caught:
            await queue.train(tiny_request(), user_id=None)
    assert caught.value.code is ErrorCode.INSUFFICIENT_STORAGE
