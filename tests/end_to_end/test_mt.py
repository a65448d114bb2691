"""The `mt` command as people and programs use it: numbers that agree, one JSON object, one sentence for a mistake."""

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit, setrlimit
from shutil import rmtree

import pytest

from bot.messages.run_card import final_message, run_card
from tests.support import ROOT, add_corpus, environment_in, gone, processes, some_text
from tests.support.run_shell import TINY, Shell, contents, sets
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from trainer.artifacts.checkpoint_files import checkpoint_steps
from trainer.artifacts.outcome import read_outcome
from trainer.artifacts.run_files import RunFiles
from trainer.artifacts.runs import RunDirectory, finish_run, manifest_of
from trainer.config.checkpoint_schedule import TrainingSize, scheduled_steps
from trainer.contracts.base import changed
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.generations import GenerateResponse
from trainer.contracts.predictions import PredictResponse
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.segmentation import SegmentationResult
from trainer.contracts.training_options import CheckpointRule
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.export.archive import import_archive
from trainer.reports.report_text import Reader
from trainer.reports.run_notes import counting_note
from trainer.training.checkpoint import CheckpointStore

BLOCKS = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
EXPERIMENT = """\
  resume_from_checkpoint: true
  use_amp: true
  auto_generate_checkpoints: true
  first_epoch_checkpoints: 3
  min_checkpoint_interval: 4
  min_checkpoints_per_epoch: 1
logging: {level: WARNING, max_log_files: 3, profile_performance: true}
run:
"""
KEPT = "checkpoints/scheduled"
RULE = CheckpointRule(first_epoch_checkpoints=3, min_checkpoint_interval=4, min_checkpoints_per_epoch=1)
LONG = [*TINY, "--corpus", "text", "--set", "num_epochs=1000"]
RUNS = {
    "char": ("model_family=char_lstm",),
    "bpe": ("model_family=lstm", "tokenizer.method=bpe", "tokenizer.vocab_size=60"),
    "masked": ("model_family=gru", "objective=masked_lm", "tokenizer.method=char"),
}


@pytest.fixture(name="shown", scope="module")
def shown_fixture() -> dict[str, str]:
    """What was shown of the training of the run that several tests ask, by its id, once the first has trained it."""
    return {}


@pytest.fixture(name="run_id")
def run_id_fixture(lab_shell: Shell, shown: dict[str, str]) -> str:
    if not shown:
        lab_shell.write("mine.txt", some_text(80))
        config = str(ROOT / "configs" / "char_lstm_ipa.yaml")
        out = lab_shell.type("train", *TINY, config, "--corpus", "mine.txt")
        shown[lab_shell.runs.all()[0].run_id] = out
    return next(iter(shown))


def test_trained_run__has_equal_numbers_in_all_commands(lab_shell: Shell, run_id: str) -> None:
    shell, run = lab_shell, lab_shell.runs.get(run_id)
    status, manifest = shell.status(run), run.completed_manifest()
    assert (status.status, status.label, status.model_family) == ("completed", "char-lstm-ipa", "char_lstm")
    assert (manifest.requested_paths, manifest.effective.model.hidden_size) == (None, 8)
    metrics = shell.read(EvalMetrics, "eval", run_id, "--split", "test")
    assert status.test_loss == pytest.approx(metrics.loss, abs=1e-6)
    assert metrics.perplexity == pytest.approx(math.exp(metrics.loss))
    score = shell.read(ScoreResponse, "score", run_id, "abc cab", "--detail-level", "per_char", "--top-k", "2")
    assert score.surprisal is not None and score.loss is not None and score.topk is not None
    assert len(score.surprisal) == 7
    assert sum(nats or 0.0 for nats in score.surprisal) / 7 == pytest.approx(score.mean_surprisal, rel=1e-5)
    shell.write("t.txt", "abc cab")
    from_file = shell.read(ScoreResponse, "score", run_id, "--path", "t.txt")
    assert (from_file.loss, from_file.surprisal) == (score.loss, None)
    tables = {
        "t.jsonl": '{"id": 1, "text": "abc cab"}\n',
        "t.tsv": "id\ttext\n1\tabc cab\n",
        "t.csv": 'text,id\n"abc cab",1\n,\n',
    }
    for name, table in tables.items():
        shell.write(name, table)
        [_, line] = shell.type("score", run_id, "--path", name, "--format", "csv").splitlines()
        assert line.startswith("1,abc cab,7,7,")
        assert float(line.split(",")[6]) == pytest.approx(from_file.nats)
    assert shell.err == ("mt: 1 text read from the field `text`.\nmt: 1 row read, 1 empty row left out.\n")
    shell.write("t.csv", 'text,id\n"abc\ncab",1\nab,2\n')
    rows = shell.type("score", run_id, "--path", "t.csv", "--format", "csv").splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["1", "abc"], ["1", "cab"], ["2", "ab"]]
    words = "--seed 3 --max-new-tokens 5 --temperature 0.5 --top-k 3 --top-p 0.9 --samples 2".split()
    generated = shell.read(GenerateResponse, "generate", run_id, "ab", *words)
    assert generated.outputs is not None and len(generated.outputs) == 2
    assert generated.seed_used == 3


def test_training__keeps_its_checkpoints_and_resumes_where_it_stopped(lab_shell: Shell) -> None:
    shell = lab_shell
    config = BLOCKS.replace("training_corpus: demo", "training_corpus: own.txt")  # which is beside the file
    file = str(shell.write("folder/x.yaml", config.replace("logging: {}\nrun:\n", EXPERIMENT)))
    shell.write("folder/own.txt", some_text())
    unused = "mt: Ignored settings: `training.output_dir`, `logging.max_log_files`, `logging.profile_performance`. "
    first = shell.train(file)
    assert shell.err.startswith(unused)
    manifest = first.completed_manifest()
    size = TrainingSize(manifest.steps, rows_per_step=1, rows=manifest.steps // 2, words=0, tokens=0)
    steps = scheduled_steps(RULE, size)
    assert len(steps) > 3 and CheckpointStore(first.checkpoints).scheduled_steps() == list(steps)
    assert manifest.unused_settings == {
        **{"training.output_dir": "models/char-lstm-ipa", "logging.max_log_files": 3},
        "logging.profile_performance": True,
    }
    [warning] = first.logs.read_text(encoding="utf-8").splitlines()
    assert "worse_than_counting" in warning, "nothing else was worth a warning"
    assert {f"{KEPT}/step-{step}/model.safetensors" for step in steps} < {f.path for f in manifest.files}
    found = shell.read(RunFiles, "files", first.run_id)
    assert [(one.step, one.epoch) for one in found.kept] == [(step, -(-2 * step // manifest.steps)) for step in steps]
    hashes = {file.path: file.sha256 for file in manifest.files}
    assert [one.sha256 for one in found.kept] == [hashes[f"{KEPT}/step-{step}/model.safetensors"] for step in steps]
    words = [one.words or 0 for one in found.kept]
    assert words == sorted(words) and words[0] > 0
    *shown, sizes = shell.type("files", first.run_id).splitlines()
    assert [line.split()[:2] for line in shown[-len(steps) :]] == [
        [str(one.step), f"{one.words:,}"] for one in found.kept
    ]
    assert sizes.endswith(f", {sum(one.bytes for one in found.kept):,} bytes in {len(steps)} kept checkpoints.")
    stop_before_its_end(first, steps)
    second = shell.train(file)
    assert f" resumes {first.run_id}." in shell.err
    kept = {file.path: file for file in manifest.files if file.path.endswith(".safetensors")}
    assert {f.path: f for f in second.completed_manifest().files if f.path in kept} == kept
    shell.type("verify", second.run_id)
    shell.type("export", second.run_id, "--format", "archive", "--out", "run.tar")
    imported = import_archive(shell.folder / "run.tar", shell.folder / "elsewhere")
    before, after = (
        {path.relative_to(run.path): data for path, data in contents(run.checkpoints / "scheduled").items()}
        for run in (second, imported)
    )
    assert before == after and len(before) == 3 * len(steps)
    (second.checkpoints / "scheduled" / f"step-{steps[0]}" / "state.json").write_bytes(b"{}")
    shell.type("verify", second.run_id, code=1)
    shell.type("gc", "--kept", second.run_id)
    shell.type("verify", second.run_id)
    assert shell.read(RunFiles, "files", second.run_id).kept == ()


def stop_before_its_end(run: RunDirectory, steps: Sequence[int]) -> None:
    """Make a completed run one that was cancelled after its last checkpoint but one."""
    with run.wait_for_lock(PATIENCE_SECONDS):  # else the worker takes it for one that it has to finish
        for name in ("manifest.json", "events.jsonl", "SHA256SUMS"):
            (run.path / name).unlink()
        *_, before, newest = checkpoint_steps(run.checkpoints)
        rmtree(run.checkpoints / f"step-{newest}")
        for step in (step for step in steps if step > before):
            rmtree(run.checkpoints / "scheduled" / f"step-{step}")
        with run.open_log() as events:
            finish_run(run, events, manifest_of(run.record(), "cancelled"))


def test_people__see_text_as_it_is_written_and_what_comes_next(lab_shell: Shell, run_id: str) -> None:
    shell = lab_shell
    words = ["generate", run_id, "ab", "--max-new-tokens", "9", "--seed", "1", "--no-stop-on-eos", "--stop", "zz"]
    words += ["--ban-token", "c", "--allowed-chars", "ab \n", "--repetition-penalty", "1.1", "--logprobs"]
    assert shell.type(*words, "--precision", "bf16")
    whole = shell.type(*words), shell.err
    assert whole == (shell.type(*words, "--stream"), shell.err)
    text, figures = whole[0].rstrip("\n").rsplit("\n", 1)
    assert set(text) <= set("ab \n") and len(figures.split()) == 9
    several = shell.type(*words, "--stream", "--samples", "2").splitlines()
    assert {line.split(":")[0] for line in several} >= {"0", "1"}
    assert "Give `--stream` or `--json`, not both" in shell.error(*words, "--stream").message
    in_bits, in_nats = (shell.type(*words, "--stream", "--unit", unit).splitlines()[-1] for unit in ("bits", "nats"))
    per_nat = [float(bits) * math.log(2) for bits in in_bits.split()]
    assert per_nat == pytest.approx([*map(float, in_nats.split())], abs=0.01) and min(per_nat) > 0
    assert "surprisal (nats)" in shell.type("predict", run_id, "ab a", "--unit", "nats")
    ranked = shell.type("predict", run_id, "ab a", "--k", "4")
    found = shell.read(PredictResponse, "predict", run_id, "ab a").suggestions
    assert found is not None and len(found) == 5
    shown = [f"{one.prob:.4f}" in ranked and f"{-one.logp / math.log(2):.2f}" in ranked for one in found]
    assert shown == [True] * 4 + [False]
    shell.write("spaced.txt", "ab abc\nabc ab\n" * 5)
    shell.write("joined.txt", "ababc\n" * 10)
    table = shell.type("segment", run_id, "--data", "spaced.txt")
    boundaries = shell.read(SegmentationResult, "segment", run_id, "--data", "spaced.txt")
    assert boundaries.scores[0].model == run_id and boundaries.n_lines == 10
    assert "char-lstm-ipa  surprisal" in table and run_id not in table and "minus chance" in table
    assert "Give text with spaces" in shell.error("segment", run_id, "--data", "joined.txt").message
    shell.write("items.csv", "text\n" + some_text(80))
    shell.write("mine.txt", some_text(80))
    for given in ("--path mine.txt", "--items items.csv --text-column text"):
        shell.type("score", run_id, *given.split())
        assert f"stand in the training text of `{run_id}`" in shell.err or "training text of the run: " in shell.err
    assert shell.read(ScoreResponse, "score", run_id, "--path", "mine.txt").leak is not None
    shell.type("score", run_id, "--path", "mine.txt", "--format", "jsonl")
    empty = "mt: Prefix is empty after tokenization. Provide at least one word.\n"
    assert shell.refuse("predict", run_id, "") == empty


def test_people__chat_and_type_on_after_the_end_of_a_chat(lab_shell: Shell, run_id: str) -> None:
    """Input after the end of a chat is ignored, and the reading thread ends silently."""
    shell = lab_shell
    options = ("--seed", "1", "--max-new-tokens", "5", "--temperature", "1.5")
    assert len(shell.type("chat", run_id, *options, typed="abc\n\ncab\n").splitlines()) == 2
    session = shell.err.strip().removeprefix("(session ").removesuffix(")")
    shell.type("chat", run_id, "--session", session, *options, typed="bac")
    before = set(threading.enumerate())
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as keyboard, os.fdopen(writing, "wb", buffering=0) as person:
        person.write(b"abc\n")
        refusal = shell.refuse("chat", run_id, "--session", "nowhere", typed=keyboard)
        person.write(b"cab\n")
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    assert refusal == "mt: This chat has expired: start a new one.\n"
    assert set(threading.enumerate()) <= before


def test_failed_run__exit_code_names_the_cause(lab_shell: Shell) -> None:
    before = os.listdir(lab_shell.artifacts)
    refusal = lab_shell.refuse("train", *TINY, "--corpus", "text", "--set", "device=cuda")
    assert "has no CUDA" in refusal, "a wish that this machine cannot fulfil"
    assert os.listdir(lab_shell.artifacts) == before
    wild = sets(
        "learning_rate=1", "gradient_clipping=null", "num_epochs=50", "log_every_steps=1", "lr_schedule=constant"
    )
    wild += sets("model.embedding_size=64", "model.hidden_size=64")
    assert "diverged" in lab_shell.type("train", *TINY, "--corpus", "text", *wild, code=1)


@pytest.mark.slow
def test_interrupt__pauses_the_run_until_it_is_resumed(shell: Shell) -> None:
    add_corpus(shell.folder, some_text(3000))
    err = interrupt(shell, signal.SIGINT, "train", *LONG)
    [run] = shell.runs.unfinished()
    paused = f"Interrupted; {run.run_id} is paused. Continue with: mt resume text-char_lstm\n"
    assert err.endswith(paused)
    before = run.follow().refresh()
    assert (before.status, before.message) == ("paused", "Paused until it is resumed.")
    assert re.search(f"{run.run_id}  paused .* mt resume text-char_lstm ", shell.type("queue"))
    assert f"{run.run_id}  paused" in shell.type("runs", "--status", "paused")
    assert interrupt(shell, signal.SIGTERM, "resume", run.run_id).endswith(paused)
    assert run.follow().refresh().step >= before.step
    left = f"Interrupted; {run.run_id} stays in the queue for the next worker. "
    left += "Follow it with: mt resume text-char_lstm\n"
    assert interrupt(shell, signal.SIGINT, "resume", run.run_id, "--no-pause").endswith(left)
    record = run.record()
    request = run.path / "request.json"
    request.write_text(changed(record, experiment_id="waits-for-it").model_dump_json(), encoding="utf-8")
    assert interrupt(shell, signal.SIGINT, "resume", run.run_id).endswith(left)
    request.write_text(record.model_dump_json(), encoding="utf-8")
    assert not run.pause_requested()
    err = interrupt(shell, signal.SIGINT, "train", *LONG, awaited="which trains now")
    *_, waiting = shell.runs.unfinished()
    assert f"Waiting for {run.run_id}, which trains now" in err
    assert err.endswith(f"Interrupted; {waiting.run_id} is paused. Continue with: mt resume text-char_lstm-2\n")
    assert "is cancelled" in shell.type("cancel", waiting.run_id)
    shell.type("delete", waiting.run_id, "--yes")
    assert shell.err == f"{waiting.run_id} is deleted.\n"
    assert not waiting.path.exists()


@pytest.mark.slow
def test_interrupt__of_a_job_says_who_continues_it(shell: Shell, lab_shell: Shell) -> None:
    """The worker of the command ends with it, and that of the lab continues."""
    words = ("experiment", "run", "smoke", "--set", "models.lstm.train.num_epochs=1000")
    again = "Follow it with the same command.\n"
    err = interrupt(shell, signal.SIGINT, *words, awaited="2 trainings")
    assert re.search(rf"Interrupted; smoke-[0-9a-f]+ stays in the queue for the next worker\. {again}$", err)
    beside = lab_shell.start(*words, QUEUE__EMBEDDED_WORKERS="0")
    assert beside.stderr is not None
    experiment_id = beside.stderr.readline().split()[1]
    beside.stderr.readline()
    beside.send_signal(signal.SIGINT)
    _, err = beside.communicate(timeout=PATIENCE_SECONDS)
    lab_shell.type("experiment", "cancel", experiment_id)
    left = f"Interrupted; {experiment_id} continues without this terminal. {again}"
    assert (beside.wait(), err.endswith(left)) == (130, True), err


def interrupt(shell: Shell, number: signal.Signals, *words: str, awaited: str = "") -> str:
    """Type a command, interrupt it once it trains or shows something, and return what it writes to standard error."""
    training = shell.start(*words, FORCE_COLOR="1", COLUMNS="200")
    assert training.stderr is not None
    shown = ""
    if not awaited:
        wait_until(lambda: processes(shell.folder, "train-child") != [])
    while awaited not in shown:
        shown += training.stderr.read(1)
    training.send_signal(number)
    _, err = training.communicate(timeout=PATIENCE_SECONDS)
    assert training.wait() == 130 and asyncio.run(gone(shell.folder))
    return shown + err


def test_interrupt__during_the_imports_is_one_sentence() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "trainer", "runs"]
    starting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert starting.stderr is not None
    while "pydantic" not in starting.stderr.readline():  # the first of many imports
        pass
    starting.send_signal(signal.SIGINT)
    _, err = starting.communicate(timeout=PATIENCE_SECONDS)
    assert (starting.wait(), err.splitlines()[-1]) == (130, "Interrupted.")
    assert "Traceback" not in err


@pytest.mark.slow
def test_full_disk__is_one_sentence_while_the_run_waits_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file can be longer than 100,000 bytes, which is room for anything but a checkpoint."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # whose files can be longer
    add_corpus(tmp_path, some_text())
    training = subprocess.Popen(  # so narrow that no machine says that bf16 would pay
        [sys.executable, "-m", "trainer", "train", "--corpus", "text", "--set", "model.hidden_size=120"],
        cwd=tmp_path,
        env=environment_in(tmp_path, PYTHONDONTWRITEBYTECODE="1"),
        preexec_fn=partial(setrlimit, RLIMIT_FSIZE, (100_000, RLIM_INFINITY)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert training.stderr is not None
    cost, run, said = (training.stderr.readline() for _ in range(3))
    for process in processes(tmp_path, "trainer"):  # a child of the worker has the limits of the worker
        with suppress(ProcessLookupError):
            prlimit(process.pid, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
    out, err = training.communicate(timeout=PATIENCE_SECONDS)
    assert cost.startswith("It has about")
    assert run.startswith("run char_lstm-") and said == f"mt: {WAIT_MESSAGES['disk_space']}\n"
    assert (training.wait(), "completed" in out) == (0, True)
    assert len(err.strip().splitlines()) == 1, "the bar as it was at last"
    assert "100 %" in err


def test_interrupt__at_any_moment_is_one_sentence(lab_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.commands.connection.load_settings", interrupted)
    assert lab_shell.type("score", "a-run", "x", "--json", code=130) == ""
    assert lab_shell.err.startswith("Interrupted.")


def test_loss__of_a_split_is_one_number_wherever_it_is_shown(lab_shell: Shell) -> None:
    runs = {kind: lab_shell.train("--corpus", "text", *sets(*fields)) for kind, fields in RUNS.items()}
    for kind, run in runs.items():
        figures_are_those_of_the_manifest(lab_shell, run, masked=kind == "masked")
    compared = lab_shell.type("compare", *(run.run_id for run in runs.values()))
    for run in runs.values():
        metrics = run.completed_manifest().metrics
        row = next(line for line in compared.splitlines() if f"  {run.run_id}  " in line)
        assert metrics.test is not None
        bits = "" if metrics.bits_per_char is None else f"{metrics.bits_per_char:.3f}"
        assert f"{metrics.test / math.log(2):.3f}" in row.split() and bits in row
    assert "masked_context_one_sided" in runs["masked"].logs.read_text(encoding="utf-8")


BIT = math.log(2)


def figures_are_those_of_the_manifest(shell: Shell, run: RunDirectory, *, masked: bool) -> None:
    record, status, metrics = run.record(), shell.status(run), run.completed_manifest().metrics
    unit = "masked token" if masked else "token"
    shown = shell.type("status", run.run_id)
    embeds = run_card(record, status, []), final_message(record, status, read_outcome(run))
    card, final = (str(embed.description) for embed in embeds)
    for split, loss, bits in (
        ("test", metrics.test, metrics.bits_per_char),
        ("validation", metrics.best, metrics.best_bits_per_char),
    ):
        measured = shell.read(EvalMetrics, "eval", run.run_id, "--split", split)
        assert loss is not None and loss == pytest.approx(measured.loss, abs=1e-6)
        in_bits = measured.loss * measured.n_tokens / measured.n_chars / BIT
        assert measured.bits_per_char == (None if masked else pytest.approx(in_bits))
        assert bits == (None if masked else pytest.approx(in_bits, abs=1e-6))
        per_char = "" if bits is None else f", {bits:.3f} bits per character"
        figures = f" bits per {unit}{per_char}, perplexity {math.exp(loss):.2f}"
        half = metrics.best_margin if split == "validation" else None
        low, high = ("", "") if half is None else (f"({(loss - half) / BIT:.3f}", f"{(loss + half) / BIT:.3f})")
        numbers = (f"{loss / BIT:.3f}", low, low and "to", high, "" if bits is None else f"{bits:.3f}")
        title = "Test" if split == "test" else "Best validation"
        [row] = [line.removeprefix(title).split() for line in shown.splitlines() if line.startswith(f"{title} ")]
        assert row == [*filter(None, numbers), f"{math.exp(loss):.2f}"] and f"bits per {unit}" in shown
        half = measured.lines.margin_nats
        interval = "" if half is None else f" ± {half / BIT:.3f} (95 %)"
        evaluated = shell.type("eval", run.run_id, "--latest")
        assert f"{loss / BIT:.3f}{interval}{figures}" in evaluated
        assert ("No interval" in evaluated) == (half is None)
        in_discord = f" bits/{unit}" + ("" if bits is None else f" · {bits:.3f} bits/char")
        assert in_discord in card and (in_discord in final or split == "validation")
    baseline = run.completed_manifest().reported_baseline
    assert (baseline is None) == masked and status.baseline == baseline
    if baseline is not None:
        assert baseline.bits_per_char == pytest.approx(metrics.bits_per_char, abs=1e-6)
        assert shell.read(EvalMetrics, "eval", run.run_id, "--split", "test").baseline == baseline
        line = Reader("bits").note(counting_note(baseline))
        assert line in shown and line in shell.type("eval", run.run_id, "--latest")
        assert line in card and line in final
    best = "" if metrics.best_bits_per_char is None else f", {metrics.best_bits_per_char:.3f} bits/char"
    assert metrics.best is not None
    assert f"{metrics.best / BIT:.3f} bits{best} " in shell.type("runs")
    assert not masked or not any("per char" in text or "bits/char" in text for text in (shown, card, final))
    assert (status.test_loss, status.bits_per_char) == (metrics.test, metrics.bits_per_char)
