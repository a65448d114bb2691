"""`mt resume` with real processes: a failed or cancelled run is resumed as a new run, bit for bit."""

from collections.abc import Awaitable
from pathlib import Path
from shutil import rmtree

import pytest

from local_discord.state import User
from tests.support import ended, running, settings_in, tiny_request
from tests.support import wait_for_status as wait
from tests.support.bot import AMBER, place
from tests.support.checkpoints import checkpoint
from tests.support.faulty_runs import LARGE, outcome
from tests.support.lab import Lab
from tests.support.stopped_runs import stopped_run
from trainer.artifacts.checkpoint_files import checkpoint_steps
from trainer.artifacts.runs import RunDirectory
from trainer.commands.training import recovery_hint
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import FinalState, RunStatus, TrainRequest
from trainer.lab.here import Here
from trainer.queue.queue import JobQueue
from trainer.training.checkpoint import CheckpointStore


def request(**fields: object) -> TrainRequest:
    return tiny_request(model=LARGE, num_epochs=12, sample_every_steps=9, **fields)


async def test_failed_and_cancelled_runs__are_resumed_and_end_like_others(lab: Lab, tmp_path: Path) -> None:
    def far(status: RunStatus) -> bool:
        return (status.last_checkpoint_step or 0) >= 20 or ended(status)

    async with lab.queue() as queue:
        first = queue.runs.get((await queue.train(request(checkpoint_every_steps=10), user_id=7)).run_id)
        await wait(queue, first.run_id, far)
        first.training_samples.rename(tmp_path / "samples")
        first.training_samples.mkdir()  # a folder where a file belongs: the next sample cannot be written
        failed = await wait(queue, first.run_id, ended)
        newest = checkpoint_steps(first.checkpoints)[-1]
        assert failed.error is not None and failed.error.code is ErrorCode.MODEL_TRAIN_FAILED
        assert "mt " not in failed.message, "it is shown in Discord too"
        assert await recovery_hint(failed, Here(lab.settings)) == [
            f"See its log with `mt logs {first.run_id}`; resume it from step {newest} with `mt resume {first.run_id}`."
        ]
        with pytest.raises(AppError, match="There is no run"):
            await queue.resume("no-run", user_id=8)
        first.training_samples.rmdir()
        (tmp_path / "samples").rename(first.training_samples)
        second = queue.runs.get((await queue.resume(first.run_id, user_id=8)).run_id)
        with pytest.raises(AppError, match="has not ended: it continues by itself"):
            await queue.resume(second.run_id, user_id=8)
        await wait(queue, second.run_id, lambda s: (s.last_checkpoint_step or 0) > newest or ended(s))
        await queue.states.cancel(second.run_id)
        assert (await wait(queue, second.run_id, ended)).status == "cancelled"
        third = queue.runs.get((await queue.resume(second.run_id, user_id=None)).run_id)
        calm = queue.runs.get((await queue.train(request(), user_id=None)).run_id)
        assert [(await wait(queue, run.run_id, ended)).status for run in (third, calm)] == ["completed"] * 2
    assert outcome(third) == outcome(calm)
    assert third.training_samples.read_bytes() == calm.training_samples.read_bytes()
    manifests = [manifest for run in (first, second, third, calm) if (manifest := run.manifest()) is not None]
    assert [one.resumed_from_run_id for one in manifests] == [None, first.run_id, second.run_id, None]
    assert len({one.request_hash for one in manifests}) == 2, "checkpoints more and less often"
    assert [run.record().user_id for run in (first, second, third)] == [7, 8, None]


@pytest.mark.slow
async def test_cancelled_run__is_resumed_with_more_epochs(lab: Lab) -> None:
    async with lab.queue() as queue:
        asked = request(checkpoint_every_steps=10, label="extended")
        first = queue.runs.get((await queue.train(asked, user_id=7)).run_id)
        await wait(queue, first.run_id, lambda s: (s.epoch or 0) > 3 or ended(s))
        await queue.states.cancel(first.run_id)
        assert (await wait(queue, first.run_id, ended)).status == "cancelled"
        with pytest.raises(AppError, match=r"`num_epochs` must be \d or more, you gave 1: the run has come to epoch"):
            await queue.resume(first.run_id, user_id=7, epochs=1)
        second = queue.runs.get((await queue.resume(first.run_id, user_id=7, epochs=14)).run_id)
        done = await wait(queue, second.run_id, ended)
    assert (done.status, done.epoch, done.total_epochs) == ("completed", 14, 14)
    assert first.record().effective.num_epochs == 12
    assert second.record().effective.num_epochs == second.record().request.num_epochs == 14


async def test_resume__is_for_the_starter_and_admins_and_has_its_own_card(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        old = await stopped_run(tmp_path, "failed", user_id=here.ana.id)

        async def suggested() -> list[str]:
            return [one.value for one in await here.suggested(here.ana, "resume", "run")]

        async def refused(user: User, said: str, run: str = old.run_id, **options: int) -> None:
            answer = await here.ask(user, "resume", {"run": run, **options})
            assert answer.colour == AMBER and said in answer.text

        assert await suggested() == [old.run_id]
        await refused(here.bob, f"Ask <@{here.ana.id}>")
        newest = checkpoint(7, 3)
        state = changed(newest.state, epochs=newest.state.epochs * 2)
        CheckpointStore(old.checkpoints).save(newest._replace(state=state))
        await refused(here.ana, "`epochs` must be 2 or more, you gave 1", epochs=1)
        assert len(here.runs()) == 1
        answer = await here.ask(here.ana, "resume", {"run": old.run_id, "epochs": 9})
        assert answer.is_ephemeral and "⏳ Queued" in answer.text and "9 passes over the text" in answer.text
        [new] = [RunDirectory(path) for path in here.runs() if path.name != old.run_id]
        assert (new.record().user_id, new.record().resumed_from_run_id) == (here.ana.id, old.run_id)
        await here.message(here.ana, "Queued")
        assert await suggested() == [old.run_id]
        await refused(here.ana, "it continues by itself", new.run_id)
        done = await stopped_run(tmp_path, "completed", run_id="char_lstm-2", user_id=here.ana.id)
        await refused(here.ana, "start another run that takes its initial weights from it", done.run_id)


async def test_request_with_resume__continues_the_newest_equal_run_or_starts_a_new_one(tmp_path: Path) -> None:
    async def accepted(queue: JobQueue, user_id: int | None = 7, **fields: object) -> str | None:
        """Return the state that the accepted run resumes from, and delete the run."""
        same: dict[str, object] = {"validation_corpus": "other", "label": "one", "resume": True}
        run = queue.runs.get((await queue.train(tiny_request(**same | fields), user_id=user_id)).run_id)
        resumed_from = run.record().resumed_from_run_id
        rmtree(run.path)
        return resumed_from

    def alike(run_id: str, end: FinalState | None, steps: tuple[int, ...] = (3, 5)) -> Awaitable[RunDirectory]:
        return stopped_run(tmp_path, end, run_id=run_id, steps=steps, user_id=7, label="one")

    async with running(settings_in(tmp_path, embedded_workers=0)) as queue:
        await alike("a", "failed")
        assert await accepted(queue) == "a"
        assert await accepted(queue, resume=False) is None
        assert await accepted(queue, label="two") is None, "another experiment"
        assert await accepted(queue, learning_rate=0.5) is None, "another request"
        assert await accepted(queue, user_id=8) is None, "somebody else's"
        await alike("b", "cancelled")
        assert await accepted(queue) == "b"
        await alike("c", "failed", steps=())
        assert await accepted(queue) is None, "it left no checkpoint"
        await alike("d", "completed")
        assert await accepted(queue) is None, "the experiment is done"
        await alike("e", None)
        with pytest.raises(AppError, match=r"'one' \(e\) has not ended: it continues by itself"):
            await accepted(queue)
        await queue.states.pause("e")
        assert await accepted(queue) is None and "e" not in queue.runs.ids(), "the paused run itself goes on"
