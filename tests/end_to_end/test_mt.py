"""The `mt` command as people and programs use it: numbers that agree, one JSON object, one sentence for a mistake."""

import asyncio
import math
import os
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
from tests.support import ROOT, add_corpus, environment_in, gone, mt, processes, some_text
from tests.support.shell import TINY, Shell, shell_fixture
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.attempts import DISK_IS_FULL
from trainer.artifacts.checkpoint_files import checkpoint_steps
from trainer.artifacts.outcome import read_outcome
from trainer.artifacts.runs import RunDirectory, RunStore, finish_run, manifest_of
from trainer.config.checkpoint_schedule import scheduled_steps
from trainer.contracts.inference import EvalMetrics, GenerateResponse, PredictResponse, ScoreResponse
from trainer.contracts.runs import CheckpointRule, RunStatus
from trainer.training.checkpoint import CheckpointStore

__all__ = ["shell_fixture"]


def test_train_then_ask__numbers_agree_with_each_other(shell: Shell) -> None:
    (shell.folder / "mine.txt").write_text(some_text(80), encoding="utf-8")
    run = shell.train(str(ROOT / "configs" / "char_lstm_ipa.yaml"), "--corpus", "mine.txt")
    assert (run.status, run.label, run.model_family) == ("completed", "char-lstm-ipa", "char_lstm")

    metrics = EvalMetrics.model_validate_json(shell.type("eval", run.run_id, "--split", "test", "--json")[1])
    assert run.test_loss is not None
    assert abs(metrics.loss - run.test_loss) <= 1e-6
    assert math.isclose(metrics.perplexity, math.exp(metrics.loss))

    per_char = ("--detail-level", "per_char", "--top-k", "2", "--json")
    score = ScoreResponse.model_validate_json(shell.type("score", run.run_id, "abc cab", *per_char)[1])
    assert score.surprisal is not None and score.loss is not None and score.topk is not None
    assert len(score.surprisal) == 7
    assert math.isclose(sum(value or 0.0 for value in score.surprisal) / 7, score.mean_surprisal or 0.0, rel_tol=1e-5)
    (shell.folder / "t.txt").write_text("abc cab", encoding="utf-8")
    from_file = ScoreResponse.model_validate_json(shell.type("score", run.run_id, "--path", "t.txt", "--json")[1])
    assert (from_file.loss, from_file.surprisal) == (score.loss, None)
    for name, table in (("t.jsonl", '{"id": 1, "text": "abc cab"}\n'), ("t.tsv", "id\ttext\n1\tabc cab\n")):
        (shell.folder / name).write_text(table, encoding="utf-8")
        [_, line] = shell.type("score", run.run_id, "--path", name, "--format", "csv")[1].splitlines()
        assert line.startswith("1,abc cab,7,7,")
        assert float(line.split(",")[6]) == pytest.approx(from_file.nats)

    words = ("generate", run.run_id, "ab", "--seed", "3", "--max-new-tokens", "5", "--temperature", "0.5")
    generated = GenerateResponse.model_validate_json(
        shell.type(*words, "--top-k", "3", "--top-p", "0.9", "--samples", "2", "--json")[1]
    )
    assert generated.outputs is not None and len(generated.outputs) == 2
    assert generated.seed_used == 3

    manifest = shell.runs.get(run.run_id).completed_manifest()
    assert manifest.requested_paths is None
    assert manifest.effective.model.hidden_size == 8


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


def test_experiment__keeps_its_checkpoints_says_what_it_does_not_use_and_goes_on_where_it_was_stopped(
    shell: Shell,
) -> None:
    config = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
    config = config.replace("corpus: demo", "corpus: text").replace("logging: {}\nrun:\n", EXPERIMENT)
    (shell.folder / "x.yaml").write_text(config, encoding="utf-8")
    unused = "mt: Ignored settings: `training.output_dir`, `logging.max_log_files`, `logging.profile_performance`. "
    words = ["train", "x.yaml", *TINY, "--json"]

    code, out, err = shell.type(*words)
    assert code == 0 and err.startswith(unused)
    first = shell.runs.get(RunStatus.model_validate_json(out).run_id)
    manifest = first.completed_manifest()
    steps = scheduled_steps(RULE, total_steps=manifest.steps, steps_per_epoch=manifest.steps // 2)
    assert len(steps) > 3 and CheckpointStore(first.checkpoints).scheduled_steps() == list(steps)
    folder = {"training.output_dir": "models/char-lstm-ipa"}
    logging = {"logging.max_log_files": 3, "logging.profile_performance": True}
    assert manifest.unused_settings == {**folder, **logging}
    assert first.logs.read_bytes() == b"", "nothing was worth a warning"
    assert {f"checkpoints/scheduled/step-{step}/model.safetensors" for step in steps} < {f.path for f in manifest.files}

    stopped_before_its_end(first, steps)
    code, out, err = shell.type(*words)
    assert code == 0 and f" resumes {first.run_id}." in err
    second = shell.runs.get(RunStatus.model_validate_json(out).run_id)
    kept = {file.path: file for file in manifest.files if file.path.endswith(".safetensors")}
    assert {f.path: f for f in second.completed_manifest().files if f.path in kept} == kept
    assert shell.type("verify", second.run_id)[0] == 0
    (second.checkpoints / "scheduled" / f"step-{steps[0]}" / "state.json").write_bytes(b"{}")
    assert shell.type("verify", second.run_id)[0] == 1


RULE = CheckpointRule(first_epoch_checkpoints=3, min_checkpoint_interval=4, min_checkpoints_per_epoch=1)


def stopped_before_its_end(run: RunDirectory, steps: Sequence[int]) -> None:
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


def test_people__read_tables_and_what_to_do_next(shell: Shell) -> None:
    code, out, _ = shell.type("train", *TINY, "--corpus", "text")
    run = shell.runs.all()[0]
    assert code == 0
    assert "bits per character" in out
    assert f"next: mt generate {run.run_id}" in out
    assert "top-1, top-5" in shell.type("eval", run.run_id)[1]
    assert "perplexity" in shell.type("score", run.run_id, "abc", "--detail-level", "per_char")[1]
    code, out, err = shell.type("generate", run.run_id, "ab", "--max-new-tokens", "3", "--seed", "1")
    assert (code, err.strip().split(", ")[1]) == (0, "seed 1)")
    people__see_text_as_it_is_written_and_what_comes_next(shell, run.run_id)
    people__chat(shell, run.run_id)


def people__see_text_as_it_is_written_and_what_comes_next(shell: Shell, run_id: str) -> None:
    words = ["generate", run_id, "ab", "--max-new-tokens", "9", "--seed", "1", "--no-stop-on-eos", "--stop", "zz"]
    words += ["--ban-token", "c", "--allowed-chars", "ab \n", "--repetition-penalty", "1.1", "--logprobs"]
    code, _, err = shell.type(*words, "--precision", "bf16")
    assert (code, err) == (2, "mt: `precision` must be 'fp32': recurrent models generate in fp32 only.\n")
    whole, streamed = shell.type(*words), shell.type(*words, "--stream")
    assert whole == streamed and set(whole[1].rsplit("\n", 2)[0]) <= set("ab \n")
    assert len(whole[1].splitlines()[-1].split()) == 9
    several = shell.type(*words, "--stream", "--samples", "2")[1].splitlines()
    assert {line.split(":")[0] for line in several} >= {"0", "1"}
    assert "Give `--stream` or `--json`, not both" in shell.type(*words, "--stream", "--json")[1]

    ranked = shell.type("predict", run_id, "--text", "ab a", "--k", "4")[1]
    found = PredictResponse.model_validate_json(shell.type("predict", run_id, "--text", "ab a", "--json")[1])
    assert found.suggestions is not None and len(found.suggestions) == 5
    for place, suggestion in enumerate(found.suggestions):
        assert (f"{suggestion.prob:.4f}" in ranked and f"{suggestion.logp:.4f}" in ranked) == (place < 4)
    code, _, err = shell.type("predict", run_id, "--text", "")
    assert (code, err) == (2, "mt: Prefix is empty after tokenization. Provide at least one word.\n")


def people__chat(shell: Shell, run_id: str) -> None:
    options = ("--seed", "1", "--max-new-tokens", "5", "--temperature", "1.5")
    code, out, err = shell.type("chat", run_id, *options, typed="abc\n\ncab\n")
    assert (code, len(out.splitlines())) == (0, 2)
    session = err.strip().removeprefix("(session ").removesuffix(")")
    assert shell.type("chat", run_id, "--session", session, *options, typed="bac")[0] == 0
    people__type_on_after_the_end_of_a_chat(shell, run_id)


def people__type_on_after_the_end_of_a_chat(shell: Shell, run_id: str) -> None:
    """Input after the end of a chat is ignored, and the reading thread ends silently."""
    before = set(threading.enumerate())
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as keyboard, os.fdopen(writing, "wb", buffering=0) as person:
        person.write(b"abc\n")
        code, _, err = shell.type("chat", run_id, "--session", "nowhere", typed=keyboard)
        person.write(b"cab\n")
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    assert (code, err) == (2, "mt: This chat has expired: start a new one.\n")
    assert set(threading.enumerate()) <= before


def test_chat_beyond_the_context__says_what_was_not_read(shell: Shell) -> None:
    fields = "model_family=gpt2 model_size=tiny tokenizer.method=char max_seq_len=16 batch_size=4 max_steps=1 threads=1"
    words = [word for field in fields.split() for word in ("--set", field)]
    run = RunStatus.model_validate_json(shell.type("train", "--corpus", "text", *words, "--json")[1])
    code, out, err = shell.type("chat", run.run_id, "--max-new-tokens", "2", typed="abc abc ab\ncab\n")
    assert (code, len(out.splitlines())) == (0, 2)
    assert err.endswith("(no longer in the model's context: the oldest 1 turn)\n")


def test_failed_run__exit_code_says_whose_fault_it_was(shell: Shell) -> None:
    before = os.listdir(shell.lab.folder / "artifacts")
    code, _, err = shell.type("train", *TINY, "--corpus", "text", "--set", "device=cuda")
    assert code == 2  # a wish that this machine cannot fulfil
    assert "has no CUDA" in err
    assert os.listdir(shell.lab.folder / "artifacts") == before
    wild = ["learning_rate=1", "gradient_clipping=null", "num_epochs=50", "log_every_steps=1"]
    settings = [word for setting in wild for word in ("--set", setting)]
    code, out, _ = shell.type("train", *TINY, "--corpus", "text", *settings)
    assert code == 1
    assert "diverged" in out


def test_yaml_beside_its_text__is_found_from_anywhere(shell: Shell) -> None:
    folder = shell.folder / "experiment"
    folder.mkdir()
    config = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
    (folder / "x.yaml").write_text(
        config.replace("training_corpus: demo", "training_corpus: own.txt"), encoding="utf-8"
    )
    (folder / "own.txt").write_text(some_text(), encoding="utf-8")
    assert shell.train(str(folder / "x.yaml")).status == "completed"


def test_interrupt__pauses_the_run_until_it_is_resumed_and_leaves_nothing_running(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    err = interrupted(tmp_path, signal.SIGINT, "train", *LONG)
    [run] = RunStore(tmp_path / "artifacts").unfinished()
    paused = f"Interrupted; {run.run_id} is paused. Continue with: mt resume {run.run_id}\n"
    assert err.endswith(paused)
    before = run.follow().refresh()
    assert (before.status, before.message) == ("paused", "Paused until it is resumed.")

    other = RunStatus.model_validate_json(mt(tmp_path, "train", *TINY, "--corpus", "text", "--json").stdout)
    assert other.status == "completed", "a later run does not wait for a paused one"
    assert run.follow().refresh() == before, "no worker starts it again"
    assert f"{run.run_id}  paused" in mt(tmp_path, "queue").stdout
    assert f"{run.run_id}  paused" in mt(tmp_path, "runs", "--status", "paused").stdout

    assert interrupted(tmp_path, signal.SIGTERM, "resume", run.run_id).endswith(paused)
    assert run.follow().refresh().step >= before.step
    left = f"Interrupted; {run.run_id} stays in the queue for the next worker. Follow it with: mt resume {run.run_id}\n"
    assert interrupted(tmp_path, signal.SIGINT, "resume", run.run_id, "--no-pause").endswith(left)
    assert not run.pause_requested()

    err = interrupted(tmp_path, signal.SIGINT, "train", *LONG, is_awaited="which trains now")
    *_, waiting = RunStore(tmp_path / "artifacts").unfinished()
    assert f"Waiting for {run.run_id}, which trains now" in err
    assert err.endswith(f"Interrupted; {waiting.run_id} is paused. Continue with: mt resume {waiting.run_id}\n")
    assert "is cancelled" in mt(tmp_path, "cancel", waiting.run_id).stdout
    assert mt(tmp_path, "delete", waiting.run_id, "--yes").stderr == f"{waiting.run_id} is deleted.\n"
    assert not waiting.path.exists()


LONG = [*TINY, "--corpus", "text", "--set", "num_epochs=1000"]


def interrupted(folder: Path, number: signal.Signals, *words: str, is_awaited: str | None = None) -> str:
    """Type a command, interrupt it once it trains or shows something, and return what it writes to standard error."""
    training = subprocess.Popen(
        [sys.executable, "-m", "trainer", *words],
        cwd=folder,
        env=environment_in(folder, FORCE_COLOR="1", COLUMNS="200"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert training.stderr is not None
    shown = ""
    if is_awaited is None:
        asyncio.run(child_appears(folder))
    while is_awaited is not None and is_awaited not in shown:
        shown += training.stderr.read(1)
    training.send_signal(number)
    _, err = training.communicate(timeout=PATIENCE_SECONDS)
    code: int = training.returncode
    assert code == 130 and asyncio.run(gone(folder))
    return shown + err


def test_interrupt__during_the_imports_is_one_sentence() -> None:
    starting = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "trainer", "runs"], stderr=subprocess.PIPE, text=True
    )
    assert starting.stderr is not None
    while "pydantic" not in starting.stderr.readline():  # the first of many imports
        pass
    starting.send_signal(signal.SIGINT)
    _, err = starting.communicate(timeout=PATIENCE_SECONDS)
    code: int = starting.returncode
    assert (code, err.splitlines()[-1]) == (130, "Interrupted.")
    assert "Traceback" not in err


def test_full_disk__is_one_sentence_while_the_run_waits_and_goes_on(
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

    assert cost.startswith("It needs about")
    assert run.startswith("run char_lstm-") and said == f"mt: {DISK_IS_FULL}\n"
    assert (training.wait(), "completed" in out) == (0, True)
    assert len(err.strip().splitlines()) == 1, "the bar as it was at last"
    assert "100 %" in err


def test_interrupt__at_any_moment_is_one_sentence(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.commands.connection.load_settings", interrupted)
    code, out, err = shell.type("score", "a-run", "x", "--json")
    assert (code, out) == (130, "")
    assert err.startswith("Interrupted.")


async def child_appears(folder: Path) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not processes(folder, "train-child"):
            await asyncio.sleep(0.05)


def test_up_without_a_token__says_what_is_missing(tmp_path: Path) -> None:
    done = mt(tmp_path, "up", DISCORD__TOKEN="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "DISCORD__TOKEN is not set" in done.stderr
    assert "`.env`" in done.stderr and "`mt up --no-discord`" in done.stderr


def test_worker__with_a_wrong_redis_says_so(tmp_path: Path) -> None:
    done = mt(tmp_path, "worker", REDIS__URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "No Redis answers at `REDIS__URL`" in done.stderr


def test_worker__alone_serves_the_data_root_until_it_is_told_to_end(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    worker = subprocess.Popen(
        [sys.executable, "-m", "trainer", "worker"], cwd=tmp_path, env=environment_in(tmp_path), stderr=subprocess.PIPE
    )
    trained = mt(tmp_path, "train", *TINY, "--corpus", "text", "--json", QUEUE__EMBEDDED_WORKERS="0")
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=PATIENCE_SECONDS)
    assert RunStatus.model_validate_json(trained.stdout).status == "completed"
    code: int = worker.returncode
    assert code == 0
    assert b"worker_ready" in err
    assert asyncio.run(gone(tmp_path))


def test_wrong_settings__are_named_before_anything_starts(tmp_path: Path) -> None:
    done = mt(tmp_path, "train", "--corpus", "demo", QUEUE__TRAINING_SLOT="1")
    assert done.returncode == 2
    assert "did you mean `QUEUE__TRAINING_SLOTS`?" in done.stderr
    assert os.listdir(tmp_path) == []


RUNS = {
    "char": ("model_family=char_lstm",),
    "bpe": ("model_family=lstm", "tokenizer.method=bpe", "tokenizer.vocab_size=60"),
    "masked": ("model_family=gru", "objective=masked_lm", "tokenizer.method=char"),
}


def test_loss__of_a_split_is_one_number_wherever_it_is_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    runs: list[RunDirectory] = []
    for kind, fields in RUNS.items():
        status = shell.train("--corpus", "text", *(word for field in fields for word in ("--set", field)))
        runs.append(shell.runs.get(status.run_id))
        figures__are_those_of_the_manifest(shell, runs[-1], status, masked=kind == "masked")
    compared = shell.type("compare", *(run.run_id for run in runs))[1]
    for run in runs:
        metrics = run.completed_manifest().metrics
        row = next(line for line in compared.splitlines() if line.startswith(f"{run.run_id}  "))
        bits = "" if metrics.bits_per_char is None else f"{metrics.bits_per_char:.4f}"
        assert f"{metrics.test:.4f}" in row.split() and bits in row
    *_, masked = runs
    assert "masked_context_one_sided" in (masked.path / "logs.jsonl").read_text(encoding="utf-8")


def figures__are_those_of_the_manifest(shell: Shell, run: RunDirectory, status: RunStatus, *, masked: bool) -> None:
    record, metrics = run.record(), run.completed_manifest().metrics
    unit = "masked token" if masked else "token"
    shown = shell.type("status", run.run_id)[1]
    embeds = run_card(record, status, []), final_message(record, status, read_outcome(run))
    card, final = (str(embed.description) for embed in embeds)
    for split, loss, bits in (
        ("test", metrics.test, metrics.bits_per_char),
        ("validation", metrics.best, metrics.best_bits_per_char),
    ):
        code, out, _ = shell.type("eval", run.run_id, "--split", split, "--json")
        measured = EvalMetrics.model_validate_json(out)
        assert code == 0 and loss is not None and loss == pytest.approx(measured.loss, abs=1e-6)
        in_bits = measured.loss * measured.n_tokens / measured.n_chars / math.log(2)
        assert measured.bits_per_char == (None if masked else pytest.approx(in_bits))
        assert bits == (None if masked else pytest.approx(in_bits, abs=1e-6))
        per_char = "" if bits is None else f", {bits:.3f} bits per character"
        figures = f" nats per {unit}{per_char}, perplexity"
        margin = f" ± {metrics.best_margin:.4f} (95 %)" if split == "validation" and metrics.best_margin else ""
        assert f"{loss:.4f}{margin}{figures}" in shown
        assert f"{loss:.4f}{figures}" in shell.type("eval", run.run_id, "--latest")[1]
        in_discord = f" nats/{unit}" + ("" if bits is None else f" · {bits:.2f} bits/char")
        assert in_discord in card and (in_discord in final or split == "validation")
    listed = shell.type("runs")[1]
    best = "" if metrics.best_bits_per_char is None else f", {metrics.best_bits_per_char:.3f} bits/char"
    assert f"{metrics.best:.3f} nats{best} " in listed
    assert not masked or not any("bits" in text for text in (shown, card, final))
    assert (status.test_loss, status.bits_per_char) == (metrics.test, metrics.bits_per_char)
