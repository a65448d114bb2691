"""`mt runs`, `status`, `logs`, `cancel`, `verify`, `doctor`, `selftest`: what is there is told, nothing is started."""

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from pydantic import BaseModel, TypeAdapter

from tests.support import ROOT, add_corpus, environment_in, processes, some_text, twin
from tests.support.lab import running_worker
from tests.support.measured_runs import line_losses
from tests.support.run_shell import Shell, shell_fixture
from tests.support.runs import record
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS
from tests.unit.export.test_verification import accepted
from trainer.artifacts.run_files import RunFiles
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.inference import EvalMetrics
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.export.verification import Verification
from trainer.reports.comparison import Comparison
from trainer.system.logs import LogReader
from trainer.training.progress import CurveRow
from trainer.training.selftest import SelfTest

__all__ = ["shell_fixture"]


class Check(BaseModel):
    name: str
    state: str
    message: str


class Report(BaseModel):
    """The answer of `mt doctor --json`."""

    ok: bool
    checks: list[Check]


_RUNS = TypeAdapter(dict[str, list[RunStatus]])
LONG: dict[str, object] = {"num_epochs": 1000, "log_every_steps": 1}


def test_runs__newest_first_by_status_and_so_many(shell: Shell) -> None:
    *_, last = [shell.runs.create(record(name)) for name in ("a", "b", "c")]
    cancel(last)

    def listed(*words: str) -> list[tuple[str, str]]:
        found = _RUNS.validate_json(shell.type("runs", "--json", *words))["runs"]
        return [(status.run_id, status.status) for status in found]

    assert listed() == [("c", "cancelled"), ("b", "queued"), ("a", "queued")]
    assert listed("--status", "queued", "--limit", "1") == [("b", "queued")]
    assert listed("--status", "failed") == []
    assert shell.type("runs", "--status", "failed") == "No run has this status.\n"


def test_runs__are_a_line_each_with_loss_and_label(shell: Shell) -> None:
    assert f"No runs yet in '{shell.folder}/artifacts'. Start one with: mt train --corpus demo" in shell.type("runs")
    done = shell.add_finished_run()
    label: dict[str, object] = {"label": "[red]a :smile: name"}
    waiting = record("waiting")
    effective = waiting.effective.model_copy(update=label)
    labelled: dict[str, object] = {"effective": effective, "created_at": now()}
    shell.runs.create(waiting.model_copy(update=labelled))
    head, first, second = shell.type("runs").splitlines()
    assert head.split() == ["run", "status", "family", "progress", "best", "validation", "created", "label"]
    assert first.startswith("waiting ") and first.endswith("  [red]a :smile: name")
    metrics = done.completed_manifest().metrics
    assert metrics.best is not None
    assert second.startswith(f"{done.run_id}  completed  char_lstm  100 %     {metrics.best:.3f} nats")


def test_status__of_a_finished_run_for_programs_and_people(shell: Shell) -> None:
    run = shell.add_finished_run()
    manifest = run.completed_manifest()
    status = shell.status(run)
    assert (status.status, status.reachable, status.progress) == ("completed", True, 100.0)
    assert (status.test_loss, status.best_val_loss) == (manifest.metrics.test, manifest.metrics.best)
    assert status.train_loss == manifest.metrics.train, "the mean of the last epoch"
    table = shell.type("status", run.run_id)
    assert manifest.metrics.test is not None and manifest.metrics.bits_per_char is not None
    assert f"{manifest.metrics.test:.4f} nats per token, {manifest.metrics.bits_per_char:.3f} bits" in table
    assert f"2 of 2, {manifest.steps} of {manifest.steps}" in table
    assert "last heartbeat" not in table


def test_status__of_a_run_shorter_than_an_epoch_has_no_training_loss(shell: Shell) -> None:
    run = Story(shell.folder / "artifacts", run_record()).start().step(3, 1.5).complete().run
    assert shell.status(run).train_loss is None
    assert '"train_loss":null' in shell.out
    [row] = [line for line in shell.type("status", run.run_id).splitlines() if " training " in line]
    assert "– (shorter than an epoch)" in row


def test_status__of_a_run_that_nobody_runs_says_so(shell: Shell) -> None:
    run = shell.add_interrupted_run()
    status = shell.status(run)
    table = shell.type("status", run.run_id)
    assert (status.status, status.reachable, status.last_checkpoint_step) == ("running", False, 34)
    assert "ago; the worker is not responding" in table
    assert "step 34" in table
    assert nothing_was_started(shell)


def test_status__without_the_redis_that_is_set_reads_the_disk(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shell.add_interrupted_run()
    for url in ("redis://127.0.0.1:1/0", f"unix://{shell.folder}/no.sock"):
        monkeypatch.setenv("REDIS__URL", url)
        assert not shell.status(run).reachable
    monkeypatch.setenv("REDIS__URL", "what?")
    assert shell.error("status", run.run_id).code is ErrorCode.CONFIG_INVALID


def test_status__of_a_failed_run_has_its_code(shell: Shell) -> None:
    run = shell.runs.create(record())
    error = RunError.of(AppError(ErrorCode.CRASH_LOOP, "It crashed."))
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "failed", error=error))
    assert shell.status(run).error == error
    table = shell.type("status", run.run_id)
    assert "It crashed." in table and "CRASH_LOOP" in table


def test_logs__are_told_for_people_and_as_they_are_for_programs(shell: Shell) -> None:
    run = shell.runs.create(record())
    assert shell.type("logs", run.run_id) == ""
    assert "no log yet" in shell.err
    lines = [
        '{"timestamp": "2026-01-02T03:04:05.678+00:00", "level": "info", "logger": "x", "service": "y",'
        ' "instance_id": "z", "run_id": "r", "message": "training", "step": 10, "loss": 2.5, "val_loss": null}',
        '{"timestamp": "2026-01-02T03:04:06.000+00:00", "level": "error", "message": "run_failed",'
        ' "reason": "two\\u001b words", "exception": "Traceback:\\n  there"}',
        "no JSON at all",
    ]
    run.logs.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    assert shell.type("logs", run.run_id).splitlines() == [
        "2026-01-02 03:04:05 info     training step=10 loss=2.5",
        '2026-01-02 03:04:06 error    run_failed reason="two\\u001b words"',
        "Traceback:",
        "  there",
        "no JSON at all",
    ]
    assert shell.type("logs", run.run_id, "--json").splitlines() == lines
    assert shell.type("logs", run.run_id, "--json", "--tail", "1").splitlines() == lines[-1:]


def test_logs__followed_end_with_their_run(shell: Shell) -> None:
    run = shell.add_finished_run()
    run.logs.write_text('{"a": 1}\n{"b": 2}\n', encoding="utf-8")
    assert shell.type("logs", run.run_id, "--follow", "--json", "--tail", "1") == '{"b": 2}\n'


def test_logs__of_a_run_that_crashed_end_with_its_last_lines(shell: Shell) -> None:
    run = shell.runs.create(record())
    last: dict[str, object] = {"last_lines": ("Fatal Python error: Aborted\n", "\x1b[2J\n")}
    with run.open_log() as events:
        finish_run(run, events, manifest_of(record(), "failed").model_copy(update=last))
    assert shell.type("logs", run.run_id).splitlines() == [
        "The last lines of its error output:",
        "Fatal Python error: Aborted",
        '"\\u001b[2J"',
    ]
    assert shell.type("logs", run.run_id, "--json") == ""


def test_logs__end_quietly_when_nobody_reads_on(shell: Shell) -> None:
    run = shell.add_finished_run()
    run.logs.write_text('{"message": "x"}\n' * 50_000, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", "logs", run.run_id, "--json", "--tail", "50000"],
        env=environment_in(shell.folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        assert command.stdout.readline() == b'{"message": "x"}\n'
        command.stdout.close()
        assert command.stderr.read() == b""
        assert command.wait(PATIENCE_SECONDS) == 1


def test_cancel__ends_a_run_that_waits_though_nothing_runs(shell: Shell) -> None:
    run = shell.runs.create(record())
    status = RunStatus.model_validate_json(shell.type("cancel", run.run_id, "--json"))
    assert status.status == "cancelled"
    manifest = run.manifest()
    assert manifest is not None and manifest.status == "cancelled"
    assert shell.error("cancel", run.run_id).code is ErrorCode.RUN_FINISHED
    assert shell.error("cancel", "no-run").code is ErrorCode.RUN_NOT_FOUND
    assert nothing_was_started(shell)


def test_cancel__of_a_run_that_a_child_holds_is_left_to_the_child(shell: Shell) -> None:
    run = shell.add_interrupted_run()
    lock = run.lock()
    assert lock is not None
    with lock:
        assert shell.type("cancel", run.run_id) == f"{run.run_id} stops after its current step.\n"
    assert run.cancel_requested()
    assert run.manifest() is None
    assert shell.type("cancel", run.run_id) == f"{run.run_id} is cancelled.\n"


def test_resume__of_a_cancelled_run_ends_as_the_uninterrupted_one_did(shell: Shell) -> None:
    curve = shell.add_finished_run().loss_curve.read_bytes()
    shell.folder.joinpath("artifacts").rename(shell.folder / "finished")
    run = shell.add_interrupted_run()
    shutil.rmtree(run.checkpoints / "step-34")
    shell.type("cancel", run.run_id)

    status = RunStatus.model_validate_json(shell.type("resume", run.run_id, "--json"))

    new, done = shell.runs.get(status.run_id), RunStore(shell.folder / "finished").all()[0].completed_manifest()
    manifest = new.completed_manifest()
    assert (manifest.resumed_from_run_id, manifest.request_hash) == (run.run_id, done.request_hash)
    rows = [
        [CurveRow.model_validate_json(row) for row in of.splitlines()] for of in (new.loss_curve.read_bytes(), curve)
    ]
    found, expected = ([row.train_loss for row in of if row.train_loss is not None] for of in rows)
    assert found == pytest.approx(expected, abs=1e-4)  # of another processor
    assert "Everything is as recorded." in shell.type("verify", new.run_id)
    assert shell.error("resume", new.run_id).code is ErrorCode.RUN_FINISHED
    assert run.manifest() is not None and [one.run_id for one in shell.runs.all()] == [new.run_id, run.run_id]


def test_verify__tells_what_is_wrong_and_by_its_exit_code(shell: Shell) -> None:
    run = shell.add_finished_run()
    assert "Everything is as recorded." in shell.type("verify", run.run_id)
    (run.path / "config.json").unlink()
    found = Verification.model_validate_json(shell.type("verify", run.run_id, "--json", code=1))
    assert [check.name for check in found.checks if not check.ok] == ["config.json"]
    assert "WRONG  config.json " in shell.type("verify", run.run_id, code=1)


MISTAKES: list[tuple[Sequence[str], str]] = [
    (["runs", "--limit", "0"], "`--limit` must be at least 1, you gave 0."),
    (["runs", "--status", "lost"], "invalid choice: 'lost'"),
    (["status", "a-run"], "There is no run 'a-run'"),
    (["logs", "a-run"], "There is no run 'a-run'"),
    (["cancel", "../x"], "There is no run '../x'"),
    (["resume", "a-run"], "There is no run 'a-run'"),
    (["verify", "a-run"], "There is no run 'a-run'"),
    (["selftest", "--set", "learning_rate=0"], "`learning_rate` must be greater than 0"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistake__is_one_sentence_and_starts_nothing(shell: Shell, words: list[str], sentence: str) -> None:
    assert sentence in shell.error(*words).message
    assert nothing_was_started(shell)


def test_selftest__tells_all_mistakes_of_an_experiment_to_a_person(shell: Shell) -> None:
    shell.type("selftest", "--set", "learning_rate=0", "--set", "num_epochs=0", code=2)
    assert ["learning_rate" in line or "num_epochs" in line for line in shell.err.splitlines()] == [True, True]


def test_doctor__finds_this_installation_well(shell: Shell) -> None:
    found = Report.model_validate_json(shell.type("doctor", "--json"))
    assert found.ok
    assert {check.name: check.state for check in found.checks} == {
        **dict.fromkeys(["libraries", "package", "torch", "machine", "settings", "data", "artifacts"], "ok"),
        **dict.fromkeys(["server", "worker", "runs"], "ok"),
        "discord": "warning",
    }
    assert nothing_was_started(shell)


@pytest.mark.parametrize("command", ["runs", "selftest"])
def test_wrong_setting__is_named_by_its_key(shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("LOGGING__LEVEL", "LOUD")
    error = shell.error(command)
    assert error.code is ErrorCode.CONFIG_INVALID
    assert error.message.startswith("`LOGGING__LEVEL` must be 'DEBUG'")


def test_doctor__says_that_the_redis_of_the_settings_is_away(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS__URL", "redis://127.0.0.1:1/0")
    checks = {check.name: check for check in Report.model_validate_json(shell.type("doctor", "--json", code=1)).checks}
    assert checks["redis"].state == "failure" and "`REDIS__URL` does not respond" in checks["redis"].message


def test_doctor__names_a_wrong_setting_and_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGGING__LEVEL", "LOUD")
    lines = shell.type("doctor", code=1).splitlines()
    assert any(line.startswith("failure  settings   `LOGGING__LEVEL` must be 'DEBUG'") for line in lines)
    assert any(line.startswith("ok       torch ") for line in lines)


@pytest.mark.parametrize(("rate", "code"), [("0.01", 0), ("1e-12", 1)])
def test_selftest__passes_where_the_training_learns_and_only_there(shell: Shell, rate: str, code: int) -> None:
    words = ("selftest", "--set", "model_size=tiny", "--set", f"learning_rate={rate}")
    found = SelfTest.model_validate_json(shell.type(*words, "--json", code=code))
    assert found.ok == (found.loss < 0.5) == (code == 0)
    assert found.curve[-1].loss == found.loss
    assert (found.steps == 300) == (code == 1)
    assert found.rows == 8
    assert found.tokens <= 8 * 32
    assert nothing_was_started(shell)


def test_selftest__takes_an_experiment_and_shows_how_the_loss_fell(shell: Shell) -> None:
    sizes = ("model.embedding_size=32", "model.hidden_size=64", "max_seq_len=8")
    fields = (*sizes, "learning_rate=0.01", "checkpoint_schedule=[0,1]")
    before = set(shell.folder.rglob("*"))
    sets = [word for field in fields for word in ("--set", field)]
    out = shell.type("selftest", str(ROOT / "configs" / "char_lstm_ipa.yaml"), *sets)
    assert out.splitlines()[0] == "step  loss"
    assert "Training works: the loss of one batch fell from" in out
    assert set(shell.folder.rglob("*")) == before, "nothing is kept of it"


def test_running_training__is_seen_followed_and_cancelled(shell: Shell) -> None:
    """All of it beside a real worker: lease, queue, log and doctor."""
    add_corpus(shell.folder, some_text())
    first, second = accepted(shell.folder, **LONG), accepted(shell.folder, **LONG)
    with running_worker(shell.folder):
        until(lambda: shell.status(first).step > 0 and shell.status(first).reachable)
        running = shell.status(first)
        assert running.status == "running"
        assert running.last_heartbeat_ts is not None
        assert first.record().created_at.timestamp() <= running.last_heartbeat_ts <= time.time()
        assert "last heartbeat" in shell.type("status", first.run_id)
        waiting = shell.status(second)
        assert (waiting.status, waiting.queue_position) == ("queued", 2)  # behind the one that trains
        assert "(position 2 in the queue)" in shell.type("status", second.run_id)

        checks = {check.name: check for check in Report.model_validate_json(shell.type("doctor", "--json")).checks}
        assert checks["worker"].message == "At least one is running."
        assert checks["redis"].message == "It responds; AOF is on (appendfsync always), eviction off."
        assert checks["server"].message.endswith("; it is running.")
        assert first.run_id in checks["runs"].message and second.run_id in checks["runs"].message

        assert f"{second.run_id} is cancelled." in shell.type("cancel", second.run_id)
        with subprocess.Popen(
            [sys.executable, "-m", "trainer", "logs", first.run_id, "--follow", "--json", "--tail", "100000"],
            env=environment_in(shell.folder),
            stdout=subprocess.PIPE,
            text=True,
        ) as follow:
            assert RunStatus.model_validate_json(shell.type("cancel", first.run_id, "--json")).run_id == first.run_id
            told, _ = follow.communicate(timeout=PATIENCE_SECONDS)
        assert told.splitlines() == LogReader(first.logs).last(1_000_000)
        assert '"message": "run_ended"' in told.splitlines()[-1]
        until(lambda: shell.status(first).status == "cancelled")
        assert shell.status(second).attempt == 0


@pytest.mark.parametrize(
    ("word", "unused"), [("runs", {"torch", "matplotlib", "redis"}), ("--help", {"pydantic", "rich", "asyncio"})]
)
def test_short_commands__wait_for_no_library_that_they_do_not_use(shell: Shell, word: str, unused: set[str]) -> None:
    program = (
        f"import sys; from trainer.commands.main import main; main(['{word}']); print({unused} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def cancel(run: RunDirectory) -> None:
    with run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))


def nothing_was_started(shell: Shell) -> bool:
    return not (shell.folder / "data" / "services").exists() and processes(shell.folder) == []


def until(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_files__of_a_run_are_listed_with_what_vouches_for_them(shell: Shell) -> None:
    run = shell.add_finished_run()
    run.write_seal()
    (run.path / "lock").write_bytes(b"")

    found = RunFiles.model_validate_json(shell.type("files", run.run_id, "--json"))

    left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert {file.path for file in found.files} == left - {"lock"}
    for file in found.files:
        content = (run.path / file.path).read_bytes()
        assert file.bytes == len(content)
        assert file.sha256 in (None, sha256(content).hexdigest())
        folder = file.path.split("/")[-2:][0]
        assert file.step == (int(folder.removeprefix("step-")) if folder.startswith("step-") else None)
    grows = {"checkpoints/step-17/manifest.json", "checkpoints/step-34/manifest.json", "logs.jsonl", "SHA256SUMS"}
    assert {file.path for file in found.files if file.sha256 is None} == grows
    *shown, sizes = shell.type("files", run.run_id).splitlines()
    assert [line.split()[0] for line in shown] == ["file", *(file.path for file in found.files)]
    named = [file.path for file in run.completed_manifest().files]
    result = sum((run.path / path).stat().st_size for path in ("manifest.json", *named))
    assert (found.result_bytes, found.disk_bytes) == (result, sum((run.path / path).stat().st_size for path in left))
    in_result = f"{result:,} bytes in the result (manifest.json and the files that it names)"
    assert sizes == f"{found.disk_bytes:,} bytes on disk, {in_result}."


def test_files__of_a_run_that_trains_and_of_one_that_is_broken_are_listed_too(shell: Shell) -> None:
    run = shell.add_interrupted_run()
    assert "checkpoints/step-17/optimizer.pt" in shell.type("files", run.run_id)
    (run.path / "manifest.json").write_text("{", encoding="utf-8")
    (run.path / "checkpoints/step-17/manifest.json").write_text("{", encoding="utf-8")
    found = RunFiles.model_validate_json(shell.type("files", run.run_id, "--json"))
    assert {file.step for file in found.files if file.sha256 is not None} == {34}
    assert found.result_bytes is None


def test_latest_evaluation__is_shown_and_nothing_is_measured(shell: Shell) -> None:
    run = shell.add_finished_run()
    metrics = EvalMetrics.model_validate_json(shell.type("eval", run.run_id, "--latest", "--json"))
    assert (metrics.split, metrics.status, metrics.artifacts[0]) == ("test", "completed", "eval/metrics.json")
    assert metrics.perplexity == pytest.approx(math.exp(metrics.loss), abs=1e-6)
    assert f"{metrics.loss:.4f} nats per token" in shell.type("eval", run.run_id, "--latest")
    assert nothing_was_started(shell)
    run.metrics.unlink()
    assert shell.error("eval", run.run_id, "--latest").code is ErrorCode.EVAL_NOT_FOUND
    assert shell.error("eval", "a-run", "--latest").code is ErrorCode.RUN_NOT_FOUND


def evaluated(run: RunDirectory, loss: float, spread: float, **fields: object) -> None:
    """Store a test loss, and losses of lines above and below it by turns."""
    manifest = run.completed_manifest()
    [summary] = manifest.eval
    measured = changed(summary, loss=loss, lines=line_losses(loss, spread))
    run.write_manifest(changed(manifest, eval=(measured,), effective=changed(manifest.effective, **fields)))


def test_compare__shows_the_verdict_the_table_and_the_settings(shell: Shell) -> None:
    old = shell.add_finished_run()
    new = twin(old, "lstm-2")
    evaluated(old, 2.0, 0.0)
    evaluated(new, 2.2, 0.1, learning_rate=0.5, label="x" * 50, eval_every_steps=5)

    shown = shell.type("compare", new.run_id, old.run_id)
    found = Comparison.model_validate_json(shell.type("compare", new.run_id, old.run_id, "--json"))

    [one] = found.against
    assert (one.run_id, one.verdict, one.is_regression) == (old.run_id, "worse", True)
    assert one.rise == pytest.approx(0.1)
    lines = shown.splitlines()
    assert lines[0] == (
        f"{new.run_id} against {old.run_id}: ✗ regression: loss +10.00% (95 % interval +8.38% to +11.62%),"
        " more than 1.00%"
    )
    assert lines[1] == "One seed each: the interval covers lines of the text, not the spread of trainings."
    assert lines[2].startswith("loss +0.2000, perplexity +0.000, ")
    head = "Run Model Params Loss Perplexity Bits/char Top-1 Top-5 Tokens/s Label".split()
    assert lines[5].split() == head
    assert lines[6].split()[:3] == [new.run_id, "LSTM-1x8", "810"]
    assert lines[10].split() == ["learning_rate", "0.5", "0.002"]
    assert lines[-1].split() == ["eval_every_steps", "5"]  # the other run has none
    assert nothing_was_started(shell)

    shell.type("compare", new.run_id, old.run_id, "--fail-on-regression", code=1)
    within = shell.type("compare", new.run_id, old.run_id, "--fail-on-regression", "--tolerance", "0.2")
    assert "worse within the tolerance" in within
    better = shell.type("compare", old.run_id, new.run_id, "--fail-on-regression")
    assert "better: loss -9.09% (95 % interval -10.56% to -7.62%)" in better
    assert "measures both on one text" not in shown


@pytest.mark.parametrize(
    ("loss", "spread", "said"),
    [
        (2 + 4.6e-8, 0.0, "equal: same loss within rounding"),
        (2.05, 0.3, "no clear difference: loss +2.50% (95 % interval -2.36% to +7.36%)"),
    ],
)
def test_compare__fails_for_no_difference_that_can_be_chance(
    shell: Shell, loss: float, spread: float, said: str
) -> None:
    old = shell.add_finished_run()
    new = twin(old, "lstm-2")
    evaluated(old, 2.0, 0.0)
    evaluated(new, loss, spread, learning_rate=0.5)
    assert said in shell.type("compare", new.run_id, old.run_id, "--fail-on-regression", "--tolerance", "0")


def test_compare__shows_no_differences_of_runs_on_different_texts(shell: Shell) -> None:
    old = shell.add_finished_run()
    new = twin(old, "lstm-2")
    evaluated(new, 2.2, 0.1, split_seed=7)
    shown = shell.type("compare", new.run_id, old.run_id, "--fail-on-regression", code=1).splitlines()
    assert shown[:4] == [
        f"{new.run_id} against {old.run_id}: not comparable",
        "Their test splits differ, so none of their metrics are comparable.",
        f"`mt compare {new.run_id} {old.run_id} --path FILE` measures both on one text.",
        "params +0, tokens/s +0",
    ]


def test_run__is_named_by_any_beginning_that_no_other_run_has(shell: Shell) -> None:
    run = shell.add_finished_run()
    for name in ("lstm-2", "lstm-21"):
        twin(run, name)

    shown = [shell.type("status", beginning).split(":")[0] for beginning in ("char", "lstm-2", "lstm-21")]
    compared = shell.type("compare", "char", "lstm-21").splitlines()[0]
    request = TrainRequest.model_validate_json(
        shell.type("validate", "--corpus", "text", "--init-from", "char", "--json")
    )

    assert shown == [run.run_id, "lstm-2", "lstm-21"]
    assert compared.startswith(f"{run.run_id} against lstm-21: ")
    assert request.init_from_run_id == run.run_id
    several = "'lstm' is the beginning of 2 run ids: lstm-2, lstm-21. Give more of the id."
    assert shell.error("cancel", "lstm").message == several
    near = f"There is no run 'x{run.run_id}'; did you mean `{run.run_id}`?"
    assert shell.error("verify", f"x{run.run_id}").message == near
    assert shell.error("files", "").message == "There is no run '': check its id, or list the runs."


COMPARE_MISTAKES: list[tuple[list[str], str]] = [
    (["logs", "RUN", "--tail", "-1"], "`--tail` must be at least 0, you gave -1."),
    (["compare", "RUN", "RUN"], "A run cannot be compared with itself"),
    (["compare", "RUN", "a-run"], "There is no run 'a-run'"),
    (["compare", "RUN", "lstm-2", "--split", "validation"], "has no evaluation of its validation split"),
    (["compare", "RUN", "lstm-2", "--split", "train"], "`split` must be 'validation' or 'test', you gave 'train'"),
    (["compare", "RUN", "lstm-2", "--split", "test", "--path", "text"], "Give `--split` or `--path`"),
    (["compare", "RUN", "lstm-2", "--tolerance", "-1"], "`--tolerance` must be at least 0 and below 1, you gave -1."),
    (["compare", "RUN", "lstm-2", "--tolerance", "nan"], "`--tolerance` must be at least 0 and below 1, you gave nan."),
    (["compare", "RUN", "lstm-2", "--path", "nowhere"], "There is no corpus 'nowhere'"),
    (["eval", "RUN", "--split", "test", "--path", "text"], "Give only one of `--split`, `--path` and `--latest`"),
    (["eval", "RUN", "--split", "test", "--latest"], "Give only one of `--split`, `--path` and `--latest`"),
]


@pytest.mark.parametrize(("words", "sentence"), COMPARE_MISTAKES)
def test_mistake_in_measuring__is_one_sentence_and_starts_nothing(
    shell: Shell, words: list[str], sentence: str
) -> None:
    run = shell.add_finished_run()
    twin(run, "lstm-2")
    assert sentence in shell.error(*(run.run_id if word == "RUN" else word for word in words)).message
    assert nothing_was_started(shell)
