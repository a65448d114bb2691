"""Studies through real processes: each training is done once, whatever is killed, and the test split is read once."""

import asyncio
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest

from tests.support import add_corpus, environment_in, kill, processes, running, settings_in, some_text
from tests.support.lab import Lab
from tests.support.redis_servers import embedded
from tests.support.refusals import refused
from tests.support.runs import ended
from tests.support.runs import record as run_record
from tests.support.studies import TRAIN, resolved_study, started_study, study_record, study_request
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import events_of
from trainer.artifacts.kinds import STUDIES
from trainer.artifacts.runs import RunStore, cancel_idle_run
from trainer.artifacts.studies import StudyDirectory, StudyStore
from trainer.commands.main import main
from trainer.config.studies import finalists_of
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.events import JobStarted
from trainer.contracts.intervals import LineLosses
from trainer.contracts.looks import Look
from trainer.contracts.runs import EvalSummary
from trainer.contracts.studies import StudyResult, StudyStatus, Trial, TrialKey
from trainer.queue.queue import JobQueue
from trainer.reports.report_text import plain_lines
from trainer.services.embedded import answering_server
from trainer.store.store import connect
from trainer.system.files import read_record
from trainer.worker.steps import Steps
from trainer.worker.study import StudySteps

STAGES = {"round 1": 5, "round 2": 3, "final": 4, "test": 2}
"""The trainings of the smallest request."""


async def end_of(study: StudyDirectory) -> StudyStatus:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (status := study.status()).status in ("queued", "running"):
            await asyncio.sleep(0.05)
    return status


async def completed(study: StudyDirectory) -> StudyResult:
    status = await end_of(study)
    assert status.status == "completed", status.message
    result = study.found_result()
    assert result is not None
    return result


def looks_of(queue: JobQueue, result: StudyResult) -> list[Look]:
    """Return the looks at the test split of a study's runs, each once."""
    assert result.test is not None and result.test.looks is not None
    folder = queue.settings.app.artifacts_root / "looks" / result.test.looks.test_id
    files = [file for file in folder.iterdir() if not file.name.endswith((".trained.json", ".same.json"))]
    by_id = {file.name.split(".")[1]: read_record(file, Look) for file in files}
    own = {one.run_id for one in result.trials}
    return [look for look in by_id.values() if not own.isdisjoint(look.models)]  # other tests have this text, too


def key_of(trial: Trial) -> tuple[str, int]:
    return trial.phase, trial.variant


def counted(result: StudyResult) -> dict[str, int]:
    """Return the number of trainings of each stage."""
    return Counter(f"round {one.round}" if one.phase == "round" else one.phase for one in result.trials)


async def test_study__chooses_on_validation_and_reads_the_test_split_once(lab: Lab) -> None:
    async with lab.queue() as queue:
        request = study_request(train={**TRAIN, "split_by": "line"})  # twelve neighbouring lines have no interval
        result = await completed(study := await started_study(queue, request, user_id=7))
        assert counted(result) == STAGES
        runs = {one.run_id: queue.runs.get(one.run_id) for one in result.trials}
        assert {run.run_id for run in queue.runs.all() if run.record().study_id == study.study_id} == runs.keys()
        assert {run.record().study_id for run in runs.values()} == {study.study_id}
        assert {run.record().owner for run in runs.values()} == {7}
        seeds = [[one.seed for one in result.trials if one.phase == phase] for phase in ("round", "final", "test")]
        assert seeds == [[42] * 8, [43, 44] * 2, [45, 46]], "each stage has seeds that chose nothing before"
        means = [one.val_loss.value for one in result.finalists if one.val_loss is not None]
        assert means == sorted(means) and result.winner.name == result.finalists[0].name
        best, other = (
            [one.val_bits_per_char or 0.0 for one in result.trials if key_of(one) == ("final", number)]
            for number in (result.winner.number, result.finalists[1].variant)
        )
        assert result.finalists[0].winner_difference is None
        difference = result.finalists[1].winner_difference
        assert difference is not None and difference.value == pytest.approx(fmean(best) - fmean(other))
        assert (difference.low or 9) < difference.value < (difference.high or -9) and 0 < (difference.p or 0) <= 1
        tested = {run_id for run_id, run in runs.items() if run.completed_manifest().metrics.test is not None}
        assert result.test is not None and tested == {*result.test.run_ids}
        [look] = looks_of(queue, result)
        assert (look.reason, look.by, {*look.models}) == ("study", 7, tested)
        losses = [run.completed_manifest().metrics.test or 0.0 for run_id, run in runs.items() if run_id in tested]
        assert result.test.test_loss.value == pytest.approx(sum(losses) / 2)
        assert (result.test.test_loss.low or 9) < result.test.test_loss.value < (result.test.test_loss.high or 0)
        assert result.test.looks is not None and result.test.looks.runs >= 14
        of_runs = [runs[run_id].completed_manifest().baselines["test"] for run_id in result.test.run_ids]
        baseline = result.test.baseline
        assert baseline is not None and baseline.ngram_loss == of_runs[0].ngram_loss
        assert baseline.bits_per_char == pytest.approx(sum(one.bits_per_char for one in of_runs) / 2)
        report = study.report()
        assert report is not None
        tables = {table.name: table for table in report.tables()}
        rows = {name: len(table.rows) for name, table in tables.items()}
        assert rows == {"test": 2, "finalists": 2, "settings": 5, "rounds": 8, "full": 6}
        assert {file.path for file in study.result_files()} == {
            *("request.json", "result.json", "report.json", "report.html")
        }
        others = [run_id for run_id in runs if run_id not in tested]
        with refused(ErrorCode.TEST_LOCKED):
            await queue.inference.ask(others[0], EvalRequest(split="test"))
        with refused(ErrorCode.CONFLICT, f"the study '{study.study_id}'"):
            await queue.states.delete(others[0])
        assert (await started_study(queue, request, user_id=7)).state() == "completed"
        study.result.unlink()  # as of a worker that was killed before it was written
        await queue.jobs.accept(STUDIES, lambda: queue.stores.studies.create(study.record()))
        again = await completed(study)
        assert again == result and looks_of(queue, again) == [look], "no new look, and nothing is measured again"


async def test_study__without_the_test_ends_with_the_winner(lab: Lab) -> None:
    """A setting that knows few letters has a lower loss, and does not win."""
    two = {"few": {"tokenizer": {"method": "char", "vocab_size": 7}}, "all": {"tokenizer": {"method": "char"}}}
    async with lab.queue() as queue:
        study = await started_study(queue, study_request(name="unread", settings=two, seeds=1, read_test=False))
        result = await completed(study)
        assert counted(result) == {"final": 2} and result.test is None
        few, known = result.trials
        assert few.score < known.score and (few.unknown_char_share or 0) > 0.1 and known.unknown_char_share == 0
        assert result.winner.name == "all" and result.finalists[1].winner_difference is None
        report = study.report()
        assert report is not None
        said = "\n".join(plain_lines(report))
        assert "few: ranked last" in said and "Validation: " in said and "Warning: This model is " in said
        assert all(queue.runs.get(one.run_id).completed_manifest().metrics.test is None for one in result.trials)


async def test_failed_training__loses_with_its_reason(lab: Lab) -> None:
    train: dict[str, object] = {**TRAIN, "optimizer": {"name": "adamw"}}
    train |= {
        "max_steps": 60,
        "eval_every_steps": 60,
        "log_every_steps": 1,
        "lr_schedule": "constant",
        "warmup_steps": 0,
        "gradient_clipping": None,
    }
    wild: dict[str, object] = {"learning_rate": 1.0, "model": {"hidden_size": 128, "embedding_size": 64}}
    settings = {"wild": wild, "good": {"learning_rate": 0.01}, "ended": {"max_steps": 100_000}}
    request = study_request(name="failing", train=train, settings=settings, seeds=1, test_seeds=1, halving=False)
    async with lab.queue() as queue:
        study = await started_study(queue, request)
        key = TrialKey("round", 1, 3, 0)
        await until(lambda: key in study.trials())
        await queue.states.cancel(study.trials()[key].run_id)
        result = await completed(study)
    reasons = {one.name: one.reason for one in result.trials if one.status != "completed"}
    assert reasons["ended"] == "It was cancelled." and "diverged" in (reasons["wild"] or "")
    assert [one.name for one in result.finalists] == ["good"] and result.winner.name == "good"


async def test_study__whose_trainings_all_fail_fails_with_their_reason(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {name: {"max_steps": steps} for name, steps in (("a", 100_000), ("b", 100_001))}
    async with lab.queue() as queue:
        study = await started_study(queue, study_request(name="lost", settings=settings, seeds=1))
        ended = set[str]()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (status := study.status()).has_ended:
                for trial in status.trials:
                    if trial.run_id not in ended:
                        ended.add(trial.run_id)
                        await queue.states.cancel(trial.run_id)
                await asyncio.sleep(0.05)
        assert (status.status, len(ended)) == ("failed", 2)
        assert status.message == "No setting is left, because its trainings failed. The last one: It was cancelled."
    for name, value in environment_in(lab.folder).items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(main, ["study", "show", study.study_id]) == 0
    shown = capsys.readouterr().out
    assert f"{study.study_id}: failed" in shown and shown.count("It was cancelled.") == 3


async def test_cancel__ends_the_runs_and_another_start_uses_those_that_completed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = study_request(name="cancelled", train={**TRAIN, "max_steps": 3000, "eval_every_steps": 500})
    async with lab.queue() as queue:
        study = await started_study(queue, request)
        await until(lambda: any(one.has_ended for one in study.trials().values()))
        for name, value in environment_in(lab.folder).items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(main, ["study", "cancel", study.study_id]) == 0
        assert study.status().status == "cancelled"
        await until(lambda: all(one.has_ended for one in study.trials().values()))
        ends = Counter(one.status for one in study.trials().values())
        assert ends["cancelled"] >= 1 and ends["completed"] >= 1
        done = [one.run_id for one in study.trials().values() if one.status == "completed"]
        again = await started_study(queue, request)
        assert again.record().attempt == 2
        await until(lambda: any(one.run_id.endswith("-a2") for one in again.trials().values()))
        assert {*done} < {one.run_id for one in again.trials().values()}
        await queue.jobs.cancel(STUDIES, again.study_id)


async def test_winner_whose_tested_trainings_fail__is_not_reported(tmp_path: Path, lab: Lab) -> None:
    settings = settings_in(tmp_path)
    runs, study = (
        RunStore(settings.app.artifacts_root),
        StudyStore(settings.app.artifacts_root).create(study_record(n_variants=2, seeds=1, test_seeds=1)),
    )
    lines = LineLosses(nats=(2.0,), tokens=(1,), chars=(1,))
    for variant, loss in ((1, 2.0), (2, 1.0)):
        measured = EvalSummary(split="validation", loss=loss, perplexity=2.0, bits_per_char=loss, lines=lines)
        run_id = TrialKey("final", 0, variant, 1).run_id(study.record(), 1)
        ended(runs.create(run_record(run_id)), "completed", eval=(measured,))
    cancel_idle_run(runs.create(run_record(TrialKey("test", 0, 2, 2).run_id(study.record(), 1))))
    async with lab.store() as store:
        steps = Steps(study, JobQueue(settings, store), settings, store)
        await steps.run(StudySteps(study, steps).run)
    failure = study.failure()
    assert failure is not None
    assert failure.message == "The winner could not be trained for the test. It was cancelled."


async def test_training_without_a_step__is_no_proof_against_its_setting(tmp_path: Path) -> None:
    """The runs of one setting crash before their first step, those of the others are refused for their settings."""
    add_corpus(tmp_path, some_text())
    async with embedded(tmp_path) as (settings, _, store):
        study = StudyStore(settings.app.artifacts_root).create(await resolved_study(settings, study_request()))
        steps = Steps(study, JobQueue(settings, store), settings, store)
        driving = asyncio.create_task(steps.run(StudySteps(study, steps).run))
        while not driving.done():
            for run in RunStore(settings.app.artifacts_root).unfinished():
                is_first = "-v1" in run.run_id
                ended(run, "failed", code=ErrorCode.CRASH_LOOP if is_first else ErrorCode.TRAINING_NAN_LOSS)
            await asyncio.sleep(0.02)
        await driving
    trials = {trial.variant: trial for trial in study.status().trials}
    assert len(RunStore(settings.app.artifacts_root).all()) == 5 + 2
    assert (trials[1].run_id, trials[1].is_measured) == (f"{study.study_id}-r1-v1-t3", False)
    assert trials[1].reason == "Not measured, because no training began. It failed."
    assert (trials[2].run_id, trials[2].is_measured) == (f"{study.study_id}-r1-v2", True)
    record, keys = study.record(), [TrialKey("final", 0, variant, place) for variant in (1, 2) for place in (6, 7)]
    finals = {key: changed(trials[key.variant], phase="final", status="failed") for key in keys}
    finals[keys[1]] = finals[keys[3]] = changed(finals[keys[1]], status="completed", is_measured=True, val_loss=2.0)
    assert finalists_of(record, finals) == [1, 2], "of which one was lost, without a proof against it"
    finals[keys[0]] = changed(finals[keys[0]], is_measured=True)
    finals[keys[2]] = changed(finals[keys[2]], is_measured=False)
    assert finalists_of(record, finals) == [2, 1]


def test_cancel_without_a_worker__ends_the_runs_of_the_study(tmp_path: Path) -> None:
    runs, study = RunStore(tmp_path), StudyStore(tmp_path).create(study_record())
    run = runs.create(run_record(TrialKey("round", 1, 1, 0).run_id(study.record(), 1)))
    assert study.cancel()
    end = run.manifest()
    assert end is not None and end.status == "cancelled" and study.status().trials[0].reason == "It was cancelled."


@pytest.mark.slow
async def test_worker_killed_and_redis_wiped__no_run_is_lost_or_repeated_and_the_look_is_one(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    settings = settings_in(tmp_path)
    async with running(settings) as queue:
        study = await started_study(queue, study_request(train={**TRAIN, "max_steps": 200}))
        for enough in (2, 7, 13):
            while sum(one.has_ended for one in study.trials().values()) < enough:
                await asyncio.sleep(0.05)
            [worker] = processes(tmp_path, "trainer worker --embedded")
            kill(worker.pid)
            store = await connect(await answering_server(settings) or "")
            await store.redis.flushall()
            await store.close()
        result = await completed(study)
        assert counted(result) == STAGES
        assert {one.status for one in result.trials} == {"completed"}
        assert sorted(run.run_id for run in queue.runs.all()) == sorted(one.run_id for one in result.trials)
        starts = [type(event) for one in result.trials for event in events_of(queue, one.run_id)].count(JobStarted)
        assert 14 <= starts <= 17, "an interrupted training is continued, none is done twice"
        assert len(looks_of(queue, result)) == 1
