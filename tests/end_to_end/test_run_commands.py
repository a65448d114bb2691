"""`mt runs`, `status`, `logs`, `cancel`, `verify`, `doctor`, `selftest`: they read what is stored and start nothing."""

import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from math import log

import pytest
import torch
from pydantic import BaseModel
from syrupy.assertion import SnapshotAssertion

from tests.support import ROOT, add_corpus, some_text, twin
from tests.support.baselines import BETTER, BETTER_LINE, WORSE, WORSE_LINE, WORSE_WARNING
from tests.support.groups import GROUP, group_stories
from tests.support.lab import running_worker
from tests.support.markers import slow_except
from tests.support.measured_runs import line_losses
from tests.support.run_shell import Shell, sets
from tests.support.runs import ended as end
from tests.support.runs import record
from tests.support.stored_jobs import finish_battery, finished_experiment, waiting_battery
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.unit.export.test_verification import accepted
from trainer.artifacts.run_files import RunFiles
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import changed, now
from trainer.contracts.baselines import Baseline
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.runs import RunStatus, TrainRequest
from trainer.native.library import builds
from trainer.reports.comparison import Comparison
from trainer.system.logs import LogReader
from trainer.training.progress import CurveRow
from trainer.training.selftest import SelfTest

TORCH_STATE = "ok" if torch.version.cuda is None or torch.cuda.is_available() else "warning"
"""A build for GPUs works on a machine without one; doctor says so."""


class Check(BaseModel):
    name: str
    state: str
    message: str


class Report(BaseModel):
    """The answer of `mt doctor --json`."""

    ok: bool
    checks: list[Check]


class Listed(BaseModel):
    """The answer of `mt runs --json`."""

    runs: list[RunStatus]


def test_runs__are_listed_newest_first_with_loss_and_label(shell: Shell) -> None:
    assert f"No runs yet in '{shell.folder}/artifacts'. Start one with: mt train --corpus demo" in shell.type("runs")
    done, waiting = shell.add_finished_run(), record("waiting")
    effective = changed(waiting.effective, label="[red]a :smile: name")
    shell.runs.create(changed(waiting, effective=effective, created_at=now()))
    head, first, second = shell.type("runs").splitlines()
    assert head.split() == "run status family progress best validation against counting created label".split()
    assert first.startswith("waiting ") and first.endswith("  [red]a :smile: name")
    loss = done.completed_manifest().metrics.best
    assert loss is not None
    best = f"{loss / log(2):.3f} bits, "
    assert second.startswith(f"{done.run_id}  completed  char_lstm  100 %     {best}")
    end(shell.runs.create(changed(waiting, run_id="last", created_at=now())), "cancelled")
    for words, expected in {
        (): [("last", "cancelled"), ("waiting", "queued"), (done.run_id, "completed")],
        ("--limit", "2"): [("last", "cancelled"), ("waiting", "queued")],
        ("--status", "queued", "--limit", "1"): [("waiting", "queued")],
        ("--status", "failed"): [],
    }.items():
        assert [(one.run_id, one.status) for one in shell.read(Listed, "runs", *words).runs] == expected
    assert shell.type("runs", "--status", "failed") == "No run has this status.\n"


def test_status__of_a_finished_run_for_programs_and_people(shell: Shell) -> None:
    run = shell.add_finished_run()
    metrics, steps = run.completed_manifest().metrics, run.completed_manifest().steps
    status = shell.status(run)
    assert (status.status, status.reachable, status.progress) == ("completed", True, 100.0)
    assert (status.test_loss, status.best_val_loss) == (metrics.test, metrics.best)
    assert status.train_loss == metrics.train, "the mean of the last epoch"
    table = shell.type("status", run.run_id)
    assert metrics.test is not None
    [row] = [line.split() for line in table.splitlines() if line.startswith("Test ")]
    assert row[1:3] == [f"{metrics.test / log(2):.3f}", f"{metrics.bits_per_char:.3f}"]
    assert f"{steps} of {steps}, epoch 2 of 2" in table and "Last heartbeat" not in table


@pytest.mark.parametrize(
    ("baseline", "line", "listed"),
    [
        (BETTER, BETTER_LINE, "-0.313 bits/char (5-gram)"),
        (WORSE, WORSE_LINE, "+0.250 bits/char (5-gram)"),
    ],
)
def test_run__stands_beside_what_counting_reaches(shell: Shell, baseline: Baseline, line: str, listed: str) -> None:
    run = Story(shell.artifacts, run_record()).start().step(100, 2.0, 2.1).complete(baseline=baseline).run
    shown = shell.type("status", run.run_id)
    assert line in shown and (f"Warning: {WORSE_WARNING[:-1]}" in shown) == (baseline == WORSE)
    assert listed in shell.type("runs").splitlines()[1]


def a_group(shell: Shell) -> str:
    for seed, story in enumerate(group_stories(shell.artifacts)):
        story.start().step(100, 2.0, 1.5 + seed).complete()
    return GROUP


def a_battery(shell: Shell) -> str:
    battery = waiting_battery(shell.artifacts, "pairs-1", "lstm-1", "lstm-2")
    finish_battery(battery)
    return battery.battery_id


def a_run(shell: Shell) -> str:
    story = Story(shell.artifacts, run_record()).start().step(100, 2.0, 2.1, margin=0.25)
    return story.complete(baseline=BETTER).run.run_id


VIEWS: dict[str, tuple[str, Callable[[Shell], str], Callable[[str, float], Sequence[str]]]] = {
    "a status": (
        "status {}",
        a_run,
        lambda unit, per: (
            *(f"{unit} per token", f"{unit} per character"),
            f"{2.1 / per:.3f} ({1.85 / per:.3f} to {2.35 / per:.3f})     {4.2 / per:.3f}",
            f"5-gram: {1.8128 * log(2) / per:.3f} {unit} per character; this model {1.5 * log(2) / per:.3f}",
        ),
    ),
    "the list of runs": (
        "runs",
        a_run,
        lambda unit, per: (
            f"{2.1 / per:.3f} {unit}, {4.2 / per:.3f} {unit}/char",
            f"{0.3128 * log(2) / per:.3f} {unit}/char (5-gram)",
        ),
    ),
    "the list of groups": (
        "runs",
        a_group,
        lambda unit, per: (
            f"{2.5 / per:.3f} ± {1 / per:.3f} ({1.5 / per:.3f}–{3.5 / per:.3f}) {unit}, {5 / per:.3f} ±",
        ),
    ),
    "a comparison": (
        "compare {}",
        lambda shell: " ".join(pair(shell, 2.2, 0.1, learning_rate=0.5)),
        lambda unit, per: (f" +{0.2 / per:.3f} ", f"losses in {unit}.", f"{2.2 / per:.3f}"),
    ),
    "an evaluation": (
        "eval {} --latest",
        lambda shell: shell.add_finished_run().run_id,
        lambda unit, _: (f" {unit} per token, ", f" {unit} per character"),
    ),
    "an experiment": (
        "experiment show {}",
        lambda shell: finished_experiment(shell.artifacts).experiment_id,
        lambda unit, per: (f"entropy in {unit} per character", f"loss in {unit} · steps", f"{(1.6 - 0.08) / per:.3f}"),
    ),
    "a battery": ("battery show {}", a_battery, lambda unit, per: (f"items  {unit}  95 %", f"{2.5 / per:.2f}")),
}


@pytest.mark.parametrize("unit", slow_except(["bits", "nats"], "nats"))
@pytest.mark.parametrize("view", slow_except(VIEWS, *(view for view in VIEWS if view != "an experiment")))
def test_view__has_one_unit(shell: Shell, monkeypatch: pytest.MonkeyPatch, view: str, unit: str) -> None:
    words, prepare, expected = VIEWS[view]
    command = words.format(prepare(shell)).split()
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("APP__UNIT", "nats" if unit == "bits" else "bits")
    other = shell.type(*command)
    shown = shell.type(*command, "--unit", unit)
    texts = expected(unit, log(2) if unit == "bits" else 1.0)
    assert [text for text in texts if text not in shown] == [], shown
    assert re.search(r"\bnats\b" if unit == "bits" else r"\bbits\b", shown) is None
    assert re.search(rf"\b{unit}\b", other) is None, "the unit of the settings"
    as_record = shell.type(*command, "--json", "--unit", unit)
    assert as_record == shell.type(*command, "--json"), "numbers for programs have no unit to choose"


def test_status__of_a_run_shorter_than_an_epoch_has_no_training_loss(shell: Shell) -> None:
    run = Story(shell.artifacts, run_record()).start().step(3, 1.5).complete().run
    assert shell.status(run).train_loss is None and '"train_loss":null' in shell.out
    [row] = [line for line in shell.type("status", run.run_id).splitlines() if line.startswith("Training ")]
    assert "– (shorter than an epoch)" in row


def test_status__without_a_worker_or_a_server_reads_the_disk(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shell.add_interrupted_run()
    status, table = shell.status(run), shell.type("status", run.run_id)
    assert (status.status, status.reachable, status.last_checkpoint_step) == ("running", False, 34)
    assert "; the worker is not responding" in table and "step 34" in table
    assert shell.has_started_nothing()
    for url in ("redis://127.0.0.1:1/0", f"unix://{shell.folder}/no.sock"):
        monkeypatch.setenv("REDIS__URL", url)
        assert not shell.status(run).reachable
    monkeypatch.setenv("REDIS__URL", "what?")
    assert shell.error("status", run.run_id).code is ErrorCode.CONFIG_INVALID


def test_logs__are_readable_lines_or_stored_json(shell: Shell) -> None:
    run = shell.runs.create(record())
    assert shell.type("logs", run.run_id) == "" and "no log yet" in shell.err
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
    end(run, "completed")
    assert shell.type("logs", run.run_id, "--follow", "--json", "--tail", "1").splitlines() == lines[-1:]


def test_failed_run__shows_its_code_and_the_last_lines_of_its_process(shell: Shell) -> None:
    last = ("Fatal Python error: Aborted\n", "\x1b[2J\n")
    run = end(shell.runs.create(record()), "failed", code=ErrorCode.CRASH_LOOP, last_lines=last)
    error, table = shell.status(run).error, shell.type("status", run.run_id)
    assert error is not None and (error.code, error.message) == (ErrorCode.CRASH_LOOP, "It failed.")
    assert "It failed." in table and "CRASH_LOOP" in table
    title, *shown = shell.type("logs", run.run_id).splitlines()
    assert title == "The last lines of its error output:"
    assert shown == ["Fatal Python error: Aborted", '"\\u001b[2J"']
    assert shell.type("logs", run.run_id, "--json") == ""


def test_logs__end_silently_when_the_reader_closes(shell: Shell) -> None:
    run = shell.add_finished_run()
    run.logs.write_text('{"message": "x"}\n' * 50_000, encoding="utf-8")
    with shell.start("logs", run.run_id, "--json", "--tail", "50000") as command:
        assert command.stdout is not None and command.stderr is not None
        assert command.stdout.readline() == '{"message": "x"}\n'
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.wait(PATIENCE_SECONDS) == 1


def test_cancel__ends_a_run_that_waits_though_nothing_runs(shell: Shell) -> None:
    run = shell.runs.create(record())
    assert shell.read(RunStatus, "cancel", run.run_id).status == "cancelled"
    manifest = run.manifest()
    assert manifest is not None and manifest.status == "cancelled"
    assert shell.error("cancel", run.run_id).code is ErrorCode.RUN_FINISHED
    assert shell.has_started_nothing()


def test_cancel__of_a_run_that_a_child_holds_is_left_to_the_child(shell: Shell) -> None:
    run = shell.add_interrupted_run()
    lock = run.lock()
    assert lock is not None
    with lock:
        assert shell.type("cancel", run.run_id) == f"{run.run_id} stops after its current step.\n"
    assert run.cancel_requested() and run.manifest() is None
    assert shell.type("cancel", run.run_id) == f"{run.run_id} is cancelled.\n"


@pytest.mark.slow
def test_resume__of_a_cancelled_run_ends_as_the_uninterrupted_one(shell: Shell) -> None:
    config = shell.folder / "whole.yaml"
    config.write_text(shell.type("config", shell.add_finished_run().run_id), encoding="utf-8")
    whole = shell.runs.get(shell.read(RunStatus, "train", str(config)).run_id)
    expected, request_hash = train_losses(whole), whole.completed_manifest().request_hash
    run = shell.add_interrupted_run()
    shutil.rmtree(run.checkpoints / "step-34")
    shell.type("cancel", run.run_id)
    new = shell.runs.get(shell.read(RunStatus, "resume", run.run_id).run_id)
    manifest = new.completed_manifest()
    assert (manifest.resumed_from_run_id, manifest.request_hash) == (run.run_id, request_hash)
    assert train_losses(new) == pytest.approx(expected, abs=1e-4)  # of another processor
    assert "Everything is as recorded." in shell.type("verify", new.run_id)
    assert shell.error("resume", new.run_id).code is ErrorCode.RUN_FINISHED
    of_all = [one.run_id for one in shell.runs.all()]
    assert run.manifest() is not None and of_all == [new.run_id, whole.run_id, run.run_id]


def train_losses(run: RunDirectory) -> list[float]:
    rows = [CurveRow.model_validate_json(row) for row in run.loss_curve.read_bytes().splitlines()]
    return [row.train_loss for row in rows if row.train_loss is not None]


def test_doctor__finds_this_installation_well(shell: Shell) -> None:
    found = shell.read(Report, "doctor")
    assert found.ok
    good = "libraries machine settings folders data artifacts server worker runs sockets".split()
    states = {**dict.fromkeys(good, "ok"), "torch": TORCH_STATE, "discord": "warning"}
    states["generation"] = "ok" if builds() else "warning"
    assert {check.name: check.state for check in found.checks} == states
    assert shell.has_started_nothing()


@pytest.mark.slow
def test_wrong_setting__is_named_and_doctor_continues(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGGING__LEVEL", "LOUD")
    for command in ("runs", "selftest"):
        error = shell.error(command)
        assert (error.code, error.message[:34]) == (ErrorCode.CONFIG_INVALID, "`LOGGING__LEVEL` must be 'DEBUG', ")
    lines = shell.type("doctor", code=1).splitlines()
    assert any(line.startswith("failure  settings    `LOGGING__LEVEL` must be 'DEBUG'") for line in lines)
    assert any(line.startswith(f"{TORCH_STATE:<9}torch ") for line in lines)


@pytest.mark.parametrize(("rate", "code"), [("0.01", 0), pytest.param("1e-12", 1, marks=pytest.mark.slow)])
def test_selftest__passes_where_the_training_learns_and_only_there(shell: Shell, rate: str, code: int) -> None:
    found = shell.read(SelfTest, "selftest", *sets("model_size=tiny", f"learning_rate={rate}"), code=code)
    assert found.ok == (found.loss < 0.5) == (code == 0)
    assert found.curve[-1].loss == found.loss
    assert (found.steps == 300) == (code == 1)
    assert (found.rows, found.tokens <= 8 * 32) == (8, True)
    assert shell.has_started_nothing()


def test_selftest__takes_an_experiment_and_shows_how_the_loss_fell(shell: Shell) -> None:
    sizes = ("model.embedding_size=32", "model.hidden_size=64", "max_seq_len=8")
    before = set(shell.folder.rglob("*"))
    fields = sets(*sizes, "learning_rate=0.01", "checkpoint_schedule=[0,1]")
    out = shell.type("selftest", str(ROOT / "configs" / "char_lstm_ipa.yaml"), "--unit", "nats", *fields)
    assert out.splitlines()[0] == "step  loss (nats per token)"
    assert " nats per token in " in out and "bits" not in out
    assert "Training works: the loss of one batch fell from" in out
    assert set(shell.folder.rglob("*")) == before, "nothing is kept of it"


def test_running_training__is_seen_followed_and_cancelled(shell: Shell) -> None:
    """All of it beside a real worker: lease, queue, log and doctor."""
    add_corpus(shell.folder, some_text())
    long: dict[str, object] = {"num_epochs": 1000, "log_every_steps": 1}
    first, second = accepted(shell.folder, **long), accepted(shell.folder, **long)
    with running_worker(shell.folder):
        wait_until(lambda: shell.status(first).step > 0 and shell.status(first).reachable)
        running, waiting = shell.status(first), shell.status(second)
        assert running.status == "running" and running.last_heartbeat_ts is not None
        assert first.record().created_at.timestamp() <= running.last_heartbeat_ts <= time.time()
        assert "Last heartbeat" in shell.type("status", first.run_id)
        assert (waiting.status, waiting.queue_position) == ("queued", 2)  # behind the one that trains
        assert "(position 2 in the queue)" in shell.type("status", second.run_id)
        checks = {check.name: check.message for check in shell.read(Report, "doctor").checks}
        assert checks["worker"] == "At least one is running."
        assert checks["redis"] == "It responds; AOF is on (appendfsync always), eviction off."
        assert checks["server"].endswith("; it is running.")
        assert first.run_id in checks["runs"] and second.run_id in checks["runs"]
        assert f"{second.run_id} is cancelled." in shell.type("cancel", second.run_id)
        with shell.start("logs", first.run_id, "--follow", "--json", "--tail", "100000") as follow:
            assert shell.read(RunStatus, "cancel", first.run_id).run_id == first.run_id
            printed, _ = follow.communicate(timeout=PATIENCE_SECONDS)
        assert printed.splitlines() == LogReader(first.logs).last(1_000_000)
        assert '"message": "run_ended"' in printed.splitlines()[-1]
        wait_until(lambda: shell.status(first).status == "cancelled")
        assert shell.status(second).attempt == 0


@pytest.mark.parametrize(
    ("word", "unused"), [("runs", {"torch", "matplotlib", "redis"}), ("--help", {"pydantic", "rich", "asyncio"})]
)
def test_short_commands__wait_for_no_library_that_they_do_not_use(shell: Shell, word: str, unused: set[str]) -> None:
    program = (
        f"import sys; from trainer.commands.main import main; main([{word!r}]); print({unused} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_files__of_a_run_are_listed_with_what_vouches_for_them(shell: Shell) -> None:
    run = shell.add_finished_run()
    run.write_seal()
    (run.path / "lock").write_bytes(b"")
    found = shell.read(RunFiles, "files", run.run_id)
    paths = (path for path in run.path.rglob("*") if path.is_file() and path.name != "lock")
    left = {path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths}
    assert {file.path: file.bytes for file in found.files} == {path: len(data) for path, data in left.items()}
    for file in found.files:
        assert file.sha256 in (None, sha256(left[file.path]).hexdigest())
        step = re.search(r"step-(\d+)/[^/]+$", file.path)
        assert file.step == (step and int(step[1]))
    grows = {"checkpoints/step-17/manifest.json", "checkpoints/step-34/manifest.json", "logs.jsonl", "SHA256SUMS"}
    assert {file.path for file in found.files if file.sha256 is None} == grows
    *shown, sizes = shell.type("files", run.run_id).splitlines()
    assert [line.split()[0] for line in shown] == ["file", *(file.path for file in found.files)]
    result = sum(len(left[path]) for path in ("manifest.json", *(file.path for file in run.completed_manifest().files)))
    assert (found.result_bytes, found.disk_bytes) == (result, sum(map(len, left.values())))
    in_result = f"{result:,} bytes in the result (manifest.json and the files that it names)"
    assert sizes == f"{found.disk_bytes:,} bytes on disk, {in_result}."


def test_files__of_a_run_that_trains_and_of_a_broken_one_are_listed(shell: Shell) -> None:
    run = shell.add_interrupted_run()
    assert "checkpoints/step-17/optimizer.pt" in shell.type("files", run.run_id)
    for name in ("manifest.json", "checkpoints/step-17/manifest.json"):
        (run.path / name).write_text("{", encoding="utf-8")
    found = shell.read(RunFiles, "files", run.run_id)
    assert {file.step for file in found.files if file.sha256 is not None} == {34}
    assert found.result_bytes is None


def test_latest_evaluation__is_shown_and_nothing_is_measured(shell: Shell) -> None:
    run = shell.add_finished_run()
    metrics = shell.read(EvalMetrics, "eval", run.run_id, "--latest")
    assert (metrics.split, metrics.status, metrics.artifacts[0]) == ("test", "completed", "eval/metrics.json")
    assert metrics.perplexity == pytest.approx(math.exp(metrics.loss), abs=1e-6)
    assert f"{metrics.loss / math.log(2):.3f} bits per token" in shell.type("eval", run.run_id, "--latest")
    assert shell.has_started_nothing()
    run.metrics.unlink()
    assert shell.error("eval", run.run_id, "--latest").code is ErrorCode.EVAL_NOT_FOUND
    assert shell.error("eval", "a-run", "--latest").code is ErrorCode.RUN_NOT_FOUND


def evaluate(run: RunDirectory, loss: float, spread: float, **fields: object) -> None:
    """Store a test loss, and losses of lines above and below it by turns."""
    manifest = run.completed_manifest()
    [summary] = manifest.eval
    measured = changed(summary, loss=loss, lines=line_losses(loss, spread))
    run.write_manifest(changed(manifest, eval=(measured,), effective=changed(manifest.effective, **fields)))


def pair(shell: Shell, loss: float, spread: float, **fields: object) -> tuple[str, str]:
    """A run with a test loss, and one with a loss of 2."""
    old = shell.add_finished_run()
    new = twin(old, "lstm-2")
    evaluate(old, 2.0, 0.0)
    evaluate(new, loss, spread, **fields)
    return new.run_id, old.run_id


def test_compare__shows_the_verdict_the_table_and_the_settings(shell: Shell, snapshot: SnapshotAssertion) -> None:
    new, old = pair(shell, 2.2, 0.1, learning_rate=0.5, label="x" * 50, eval_every_steps=5)
    [one] = shell.read(Comparison, "compare", new, old).against
    assert (one.run_id, one.verdict, one.is_regression) == (old, "worse", True)
    assert one.rise == pytest.approx(0.1)
    assert shell.type("compare", new, old) == snapshot and shell.has_started_nothing()
    shell.type("compare", new, old, "--fail-on-regression", code=1)
    shell.type("compare", new, old, "--fail-on-regression", "--tolerance", "0.2")
    shell.type("compare", old, new, "--fail-on-regression")


def test_compare__shows_no_differences_of_runs_on_different_texts(shell: Shell) -> None:
    new, old = pair(shell, 2.2, 0.1, split_seed=7)
    assert sorted(shell.type("compare", new, old, "--fail-on-regression", code=1).splitlines()[:3]) == [
        "Their test splits differ, so none of their metrics are comparable.",
        f"`mt compare {new} {old} --path FILE` measures both on one text.",
        f"text ({new.rpartition('-')[2]}) against text ({old.rpartition('-')[2]}): not comparable",
    ]


def test_run__is_named_by_any_beginning_that_no_other_run_has(shell: Shell) -> None:
    run = shell.add_finished_run()
    for name in ("lstm-2", "lstm-21"):
        twin(run, name)
    shown = [shell.type("status", beginning).split(":")[0] for beginning in ("char", "lstm-2", "lstm-21")]
    assert shown == [f"text ({name})" for name in (run.run_id, "lstm-2", "lstm-21")]
    assert shell.type("compare", "char", "lstm-21").startswith(f"text ({run.run_id[-8:]}) against text (21): ")
    request = shell.read(TrainRequest, "validate", "--corpus", "text", "--init-from", "char")
    assert request.init_from_run_id == run.run_id
    several = "'lstm' names 2 runs: lstm-21, lstm-2. Give one of these ids; the newest is lstm-21 (`last`)."
    assert shell.error("cancel", "lstm").message == several
    assert shell.type("status", "last").startswith("text (lstm-21): ")
    shell.write("warm.yaml", "corpus: text\ninit_from_run_id: last\n")
    assert shell.read(TrainRequest, "validate", "warm.yaml").init_from_run_id == "lstm-21"
    guessed = "'last' names lstm-21. With `--yes`, give this id or the name of the run."
    assert shell.error("delete", "last", "--yes").message == guessed
    near = f"There is no run 'x{run.run_id}'; did you mean `{run.run_id}`?"
    assert shell.error("verify", f"x{run.run_id}").message == near
    assert shell.error("files", "").message == "There is no run '': check its name, or list the runs."
