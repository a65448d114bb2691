"""Experiments through real processes: each cell is done once, whatever is killed, cancelled or damaged."""

import asyncio
import errno
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from arq import Retry
from safetensors.torch import load_file

from tests.support import add_corpus, environment_in, kill, processes, running, settings_in, tiny_request
from tests.support.cross_language import TINY, WITH_BATTERIES, add_batteries, add_languages, plan, plan_with
from tests.support.finished_runs import finished_run
from tests.support.lab import Lab
from tests.support.redis_servers import embedded
from tests.support.refusals import refused
from tests.support.runs import ended as end_run
from tests.support.runs import record as run_record
from tests.support.started_jobs import started_experiment
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import LONG, events_of
from trainer.artifacts.batteries import BatteryDirectory
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore, losses_path
from trainer.artifacts.kinds import BATTERIES, EXPERIMENT_QUEUE, EXPERIMENTS
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.commands.main import main
from trainer.config.settings import Settings
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import CheckpointSaved, JobStarted
from trainer.contracts.experiments import (
    CellRun,
    ExperimentRequest,
    ExperimentResult,
    ExperimentStatus,
    ExperimentTexts,
)
from trainer.contracts.jobs import FolderJobPayload
from trainer.contracts.tokenizers import Normalization
from trainer.data.corpora import CorpusStore
from trainer.queue.experiments import resolve_experiment
from trainer.queue.queue import JobQueue
from trainer.store.store import Store
from trainer.system.files import Disk, read_record
from trainer.worker.experiment import ExperimentSteps
from trainer.worker.steps import Steps


class FullDisk(Disk):
    def write(self, path: Path, data: bytes | BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))


async def drive(experiment: ExperimentDirectory, settings: Settings, store: Store) -> None:
    steps = Steps(experiment, JobQueue(settings, store), settings, store)
    await steps.run(ExperimentSteps(experiment, steps).run)


async def end_of(queue: JobQueue, experiment_id: str) -> ExperimentStatus:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (status := queue.experiments.get(experiment_id).status()).status in ("queued", "running"):
            await asyncio.sleep(0.05)
    return status


async def completed(queue: JobQueue, request: ExperimentRequest) -> ExperimentDirectory:
    experiment = await started_experiment(queue, request)
    status = await end_of(queue, experiment.experiment_id)
    assert status.status == "completed", status.message
    return experiment


def runs_of(queue: JobQueue, experiment: ExperimentDirectory) -> list[RunDirectory]:
    return [queue.runs.get(cell.run_id) for cell in experiment.runs().values()]


async def two_runs_of(queue: JobQueue, experiment: ExperimentDirectory) -> list[RunDirectory]:
    """Wait until both runs of an experiment have been accepted."""
    await until(lambda: len(experiment.runs()) == 2)
    return runs_of(queue, experiment)


@pytest.mark.slow
async def test_worker_killed__no_cell_is_repeated_nor_by_a_second_start(tmp_path: Path, lab: Lab) -> None:
    add_languages(tmp_path)
    add_languages(lab.folder)
    for folder in (tmp_path, lab.folder):
        add_batteries(folder)
    request = plan_with({"num_epochs": 3}, languages=WITH_BATTERIES)
    async with running(settings_in(tmp_path)) as queue:
        experiment = await started_experiment(queue, request)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (before := queue.experiments.get(experiment.experiment_id).status()).cells_done:
                assert before.status in ("queued", "running"), before.message
                await asyncio.sleep(0.02)
        [finished] = [cell.run_id for cell in before.cells if cell.kind == "train" and cell.status == "completed"]
        [worker] = processes(tmp_path, "trainer worker --embedded")
        kill(worker.pid)
        await until(lambda: bool(experiment.batteries()))
        [worker] = processes(tmp_path, "trainer worker --embedded")
        kill(worker.pid)
        status = await end_of(queue, experiment.experiment_id)
        assert status.status == "completed", status.message
        assert finished in [run.run_id for run in runs_of(queue, experiment)] and len(queue.runs.all()) == 2
        assert [type(event) for event in events_of(queue, finished)].count(JobStarted) == 1
        [battery] = experiment.batteries().values()
        assert (battery.battery_id, battery.is_reused) == (queue.batteries.ids()[0], False)
        assert len(queue.batteries.ids()) == 1
    async with lab.queue() as queue, lab.store() as store:
        undisturbed = await completed(queue, request)
        assert undisturbed.experiment_id == experiment.experiment_id
        for name in ("matrix.csv", "batteries.csv", "batteries.png"):
            assert (undisturbed.path / name).read_bytes() == (experiment.path / name).read_bytes()
        written = undisturbed.result.stat().st_mtime_ns
        assert (await started_experiment(queue, request)).state() == "completed"
        for number, job_id in enumerate((undisturbed.experiment_id, "none-01234567")):
            payload = FolderJobPayload(job_id=job_id)
            await store.enqueue(EXPERIMENT_QUEUE, "run_experiment", f"told-again-{number}", payload)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await store.queue_length(EXPERIMENT_QUEUE):
                await asyncio.sleep(0.02)
        assert undisturbed.result.stat().st_mtime_ns == written
        with refused(ErrorCode.CONFLICT):
            await queue.jobs.cancel(EXPERIMENTS, undisturbed.experiment_id)


async def test_cancel__ends_the_runs_that_the_experiment_has_started(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    add_languages(lab.folder)
    request = plan_with({"num_epochs": 1000}, name="cancelled")
    async with lab.queue() as queue:
        experiment = await started_experiment(queue, request)
        kk, _ = await two_runs_of(queue, experiment)
        await until(lambda: any(isinstance(event, CheckpointSaved) for event in events_of(queue, kk.run_id)))
        await queue.jobs.cancel(EXPERIMENTS, experiment.experiment_id)
        status = experiment.status()
        assert (status.status, status.message) == ("cancelled", "Cancelled.")
        await until(lambda: all(run.manifest() for run in runs_of(queue, experiment)))
        ends = [run.manifest() for run in runs_of(queue, experiment)]
        assert [end and end.status for end in ends] == ["cancelled", "cancelled"]
        again = await started_experiment(queue, request)
        assert (await two_runs_of(queue, again))[0].record().resumed_from_run_id == kk.run_id
        for name, value in environment_in(lab.folder).items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(main, ["experiment", "cancel", again.experiment_id]) == 0
        assert queue.experiments.get(again.experiment_id).status().status == "cancelled"


async def test_cancel__leaves_a_run_alone_that_the_experiment_has_not_started(tmp_path: Path, lab: Lab) -> None:
    add_languages(tmp_path)
    settings = settings_in(tmp_path)
    runs = RunStore(settings.app.artifacts_root)
    own, others = (runs.create(run_record(f"char_lstm-{number}")) for number in (1, 2))
    record, items = await resolve_experiment(plan(), CorpusStore(settings), settings, user_id=None)
    experiment = ExperimentStore(settings.app.artifacts_root).create(record, items)
    cells = [("kk", own, False), ("tr", others, True)]
    experiment.write_runs(
        [CellRun(model="lstm", language=code, seed=1, run_id=run.run_id, is_reused=old) for code, run, old in cells]
    )
    experiment.request_cancel()
    async with lab.store() as store:
        await drive(experiment, settings, store)
    end = own.manifest()
    assert end is not None and end.status == "cancelled"
    assert others.is_unfinished() and not others.cancel_requested()


async def test_battery__ends_with_the_experiment_that_has_started_it(tmp_path: Path, lab: Lab) -> None:
    add_languages(tmp_path)
    files, settings = add_batteries(tmp_path), settings_in(tmp_path)
    request = plan(languages=WITH_BATTERIES)
    record, items = await resolve_experiment(request, CorpusStore(settings), settings, user_id=7)
    files["kk"].unlink()  # what was accepted is scored
    runs = {code: finished_run(tmp_path, family).run_id for code, family in (("kk", "lstm"), ("tr", "gru"))}
    cells = [CellRun(model="lstm", language=code, seed=1, run_id=run, is_reused=True) for code, run in runs.items()]
    store = ExperimentStore(settings.app.artifacts_root)

    async with lab.store() as redis:
        queue = JobQueue(settings, redis)

        @asynccontextmanager
        async def driven() -> AsyncIterator[tuple[ExperimentDirectory, BatteryDirectory]]:
            """Run the experiment, which waits for its battery as this folder has no worker."""
            experiment = store.create(record, items)
            experiment.write_texts(ExperimentTexts(normalization=Normalization(), texts=()))
            experiment.write_runs(cells)
            driving = asyncio.create_task(drive(experiment, settings, redis))
            await until(lambda: bool(experiment.batteries()))
            [cell] = experiment.batteries().values()
            battery = queue.batteries.directory(cell.battery_id)
            await until(battery.is_unfinished)
            yield experiment, battery
            async with asyncio.timeout(PATIENCE_SECONDS):
                await driving

        async with driven() as (experiment, battery):
            accepted = battery.record()
            assert (accepted.user_id, [run.run_id for run in accepted.runs]) == (7, [*runs.values()])
            assert battery.items() == [*items]
            states = [cell.status for cell in experiment.status().cells if cell.kind == "battery"]
            assert states == ["queued", "queued"]
            experiment.request_cancel()
        assert battery.state() == "cancelled"
        await queue.jobs.accept(BATTERIES, lambda: queue.batteries.create(accepted, items))
        async with driven() as (experiment, _):
            experiment.request_cancel()
        assert battery.is_unfinished(), "it was started by somebody else"
        async with driven() as (experiment, _):
            while experiment.status().status in ("queued", "running"):  # a battery that failed before is begun anew
                if battery.is_unfinished():
                    battery.fail(AppError(ErrorCode.OUT_OF_MEMORY, "Memory ran out."))
                await asyncio.sleep(0.05)
    status = experiment.status()
    ended = f"The battery of lstm, seed 1 ({battery.battery_id}) has ended: Memory ran out."
    assert (status.status, status.message) == ("failed", ended)
    assert status.error is not None and status.error.code is ErrorCode.OUT_OF_MEMORY


@pytest.mark.slow
async def test_run_that_ends__is_waited_for_and_fails_its_experiment_once(lab: Lab) -> None:
    add_languages(lab.folder)
    request = plan(name="ending", seeds=[3], texts={"shuffled": False})
    async with lab.queue() as queue:
        before = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        experiment = await started_experiment(queue, request)
        kk, _ = await two_runs_of(queue, experiment)
        lock = kk.lock()
        assert lock is not None
        with lock:  # as the child that trains it has it
            await queue.jobs.cancel(EXPERIMENTS, experiment.experiment_id)
            again = await started_experiment(queue, request)
            await until(lambda: bool(again.runs()))
            assert [key.language for key in again.runs()] == ["tr"]
        assert cancel_idle_run(kk)
        await two_runs_of(queue, again)
        [renewed] = [cell.run_id for key, cell in again.runs().items() if key.language == "kk"]
        await queue.states.cancel(renewed)
        status = await end_of(queue, again.experiment_id)
        await queue.states.cancel(before)
        named = f"The training of lstm kk, seed 3 ({renewed}) has ended: it was cancelled."
        assert (status.status, status.message) == ("failed", named)
        assert status.error is not None and status.error.code is ErrorCode.CANCELLED
        last = {run.run_id for run in runs_of(queue, await completed(queue, request))}
        assert not last & {kk.run_id, renewed}


async def test_experiment__waits_without_a_worker_until_it_is_cancelled(tmp_path: Path, lab: Lab) -> None:
    add_languages(tmp_path)
    async with lab.store() as store:
        elsewhere = JobQueue(settings_in(tmp_path), store)
        experiment = await started_experiment(elsewhere, plan(name="queued"), user_id=7)
        status = experiment.status()
        assert (status.status, status.message) == ("queued", "Waiting for a worker.")
        assert status.experiment_id in await store.queue_order(EXPERIMENT_QUEUE)
        await elsewhere.jobs.cancel(EXPERIMENTS, status.experiment_id)
        assert experiment.state() == "cancelled"
        assert status.experiment_id not in await store.queue_order(EXPERIMENT_QUEUE)


async def test_text__without_a_line_that_is_long_enough_fails_the_experiment(lab: Lab) -> None:
    add_languages(lab.folder)
    async with lab.queue() as queue:
        experiment = await started_experiment(queue, plan(name="short", texts={"min_characters": 31}))
        status = await end_of(queue, experiment.experiment_id)
    sentence = "The text 'held-out-kk' has no line of at least 31 characters: give a longer one."
    assert (status.status, status.message) == ("failed", sentence)


async def test_training_that_cannot_start__fails_the_experiment(tmp_path: Path, lab: Lab) -> None:
    add_languages(tmp_path)
    settings = settings_in(tmp_path)
    record, items = await resolve_experiment(plan(), CorpusStore(settings), settings, user_id=None)
    experiment = ExperimentStore(tmp_path).create(record, items)
    experiment.write_texts(ExperimentTexts(normalization=Normalization(), texts=()))
    (tmp_path / "data" / "corpus" / "kk.txt").unlink()
    async with lab.store() as store:
        await drive(experiment, settings, store)
    status = experiment.status()
    assert status.message.startswith("The training of lstm kk, seed 1 cannot start: There is no corpus 'kk'")


async def test_run_without_a_step__is_started_again_and_fails_its_experiment_the_third_time(tmp_path: Path) -> None:
    add_languages(tmp_path)
    async with embedded(tmp_path) as (settings, _, store):
        record, items = await resolve_experiment(plan(), CorpusStore(settings), settings, user_id=None)
        experiment = ExperimentStore(tmp_path).create(record, items)
        experiment.write_texts(ExperimentTexts(normalization=Normalization(), texts=()))
        corpora: Counter[str] = Counter()
        driving = asyncio.create_task(drive(experiment, settings, store))
        while not driving.done():
            for run in RunStore(settings.app.artifacts_root).unfinished():
                corpora[run.record().effective.corpora[0].sha256] += 1
                end_run(run, "failed", code=ErrorCode.CRASH_LOOP)
            await asyncio.sleep(0.02)
        await driving
        assert max(corpora.values()) == 3
        assert experiment.status().message.endswith("has ended: It failed.")


async def test_full_disk__lets_the_experiment_wait(lab: Lab) -> None:
    add_languages(lab.folder)
    async with lab.queue() as queue, lab.store() as store:
        request = plan_with({"num_epochs": 1000}, name="full")
        record, items = await resolve_experiment(request, queue.corpora, lab.settings, user_id=None)
        stored = ExperimentStore(lab.folder / "elsewhere").create(record, items)
        stored.write_texts(ExperimentTexts(normalization=Normalization(), texts=()))
        with pytest.raises(Retry):
            await drive(ExperimentDirectory(stored.path, FullDisk()), lab.settings, store)
        assert stored.is_unfinished()


@pytest.mark.slow
async def test_two_phases__share_a_tokenizer_and_the_weights_of_the_first(lab: Lab) -> None:
    add_languages(lab.folder)
    second: dict[str, object] = {"first": "tr", "train": {"num_epochs": 2, "freeze_embeddings": True}}
    models: dict[str, object] = {"lstm": {"has_shared_tokenizer": True, "train": TINY, "transfer": second}}
    first, other, *others = (lab.folder / "data" / "corpus" / "tr.txt").read_text(encoding="utf-8").splitlines()
    add_corpus(lab.folder, "\n".join([other, first, *others]), "az")
    languages: dict[str, object] = {"kk": {}, "tr": {}, "az": {"is_trained": False}}
    async with lab.queue() as queue:
        experiment = await completed(queue, plan(name="phases", models=models, languages=languages))
        by_language = {key.language: queue.runs.get(cell.run_id) for key, cell in experiment.runs().items()}
    tr, kk = by_language["tr"].completed_manifest(), by_language["kk"].completed_manifest()
    result = read_record(experiment.result, ExperimentResult)
    assert tr.tokenizer is not None and kk.tokenizer is not None
    assert tr.tokenizer.id == kk.tokenizer.id
    assert (tr.parent_run_id, kk.parent_run_id) == (None, tr.run_id)
    assert [m.effective.num_epochs for m in (tr, kk)] == [1, 2]
    embeddings = [load_file(run.path / "model.safetensors")["embedding.weight"] for run in by_language.values()]
    assert embeddings[0].equal(embeddings[1])
    curves = {curve.language: curve for curve in result.curves}
    assert {code: curve.phase for code, curve in curves.items()} == {"tr": "first", "kk": "second"}
    assert [curves[code].initial_val_loss is None for code in ("tr", "kk")] == [True, False]
    for code, manifest in (("tr", tr), ("kk", kk)):
        assert (curves[code].test_loss, curves[code].auc) == (manifest.metrics.test, manifest.metrics.auc)
    of_cells = {one.language: one.baseline.bits_per_char for one in result.baselines}
    assert of_cells == pytest.approx({code: m.metrics.bits_per_char for code, m in (("tr", tr), ("kk", kk))})
    pairs = {(row.listener_language, row.text_language) for row in result.models[0].tables.matrix}
    assert pairs == {(a, b) for a in ("kk", "tr") for b in ("kk", "tr")}
    perplexities = {
        (row.listener_language, row.text_language): row.perplexity
        for row in result.perplexities
        if (row.model, row.kind, row.scoring_mode) == ("lstm", "held_out", "skip")
    }
    assert perplexities.keys() == {(a, b) for a in ("kk", "tr") for b in ("kk", "tr", "az")}
    assert perplexities["kk", "az"] == perplexities["kk", "tr"], "the held-out lines of az are those of tr"


@pytest.mark.slow
async def test_damaged_text__fails_the_scores_that_read_it(lab: Lab) -> None:
    add_languages(lab.folder)
    request = plan(name="damaged", seeds=[9])
    async with lab.queue() as queue:
        experiment = await started_experiment(queue, request)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while experiment.texts() is None:
                await asyncio.sleep(0.01)
        (experiment.path / "texts" / "held-out-kk.txt").write_bytes(b"\xff")
        status = await end_of(queue, experiment.experiment_id)
        assert status.error is not None and status.error.code is ErrorCode.INTERNAL_ERROR
        assert "failed: The inference process ended before the answer" in status.message


@pytest.mark.slow
async def test_missing_or_damaged_files__fail_the_report_with_a_sentence(lab: Lab) -> None:
    add_languages(lab.folder)
    async with lab.queue() as queue:
        experiment = await completed(queue, plan(name="losses"))
        texts = experiment.texts()
        assert texts is not None
        losses = losses_path(runs_of(queue, experiment)[0].path, texts.texts[0].sha256, "raw")
        losses.write_bytes(b"short")
        experiment.result.unlink()
        status = await end_of(queue, experiment.experiment_id)
        assert status.message == "Stored losses of an experiment are damaged: run it again."
        losses.unlink()
        await completed(queue, plan(name="losses"))
        (experiment.path / "texts" / "held-out-kk.txt").write_bytes(b"\xff")
        experiment.result.unlink()
        status = await end_of(queue, experiment.experiment_id)
        assert status.message.startswith("A step of the experiment crashed 3 times.")


async def test_changed_corpus__is_refused_before_a_training_starts(lab: Lab) -> None:
    add_languages(lab.folder)
    (lab.folder / "data" / "corpus" / "changing").mkdir()
    for code in ("kk", "tr"):
        shutil.copy(lab.folder / "data" / "corpus" / f"{code}.txt", lab.folder / "data" / "corpus" / "changing")
    async with lab.queue() as queue:
        request = plan(name="changed", corpora="changing")
        record, items = await resolve_experiment(request, queue.corpora, lab.settings, user_id=None)
        add_corpus(lab.folder, "other lines\nof a text\n" * 9, "changing/kk")
        with refused(ErrorCode.DATA_NOT_FOUND, "The corpus 'kk' has just been deleted or replaced"):
            await queue.jobs.accept(EXPERIMENTS, lambda: queue.experiments.create(record, items))
        queue.experiments.create(record, items)  # it was accepted before the change
        await queue.jobs.accept(EXPERIMENTS, lambda: queue.experiments.create(record, items))
        status = await end_of(queue, record.experiment_id)
    assert status.message == "The corpus 'changing/kk' has changed since the experiment was accepted."
    assert status.error is not None and status.error.code is ErrorCode.DATA_NOT_FOUND
