"""`mt bench architectures`: equal tokens for all, right figures, a whole table or none."""

import asyncio
import math
import os
import signal
import threading
from itertools import accumulate
from pathlib import Path

import pytest

from tests.support import add_corpus, kill, processes, settings_in, some_text
from tests.support.run_shell import Shell, enter
from tests.support.waiting import wait_until
from trainer.config.train_request import train_request
from trainer.contracts.benchmarks import BenchmarkPlan, BenchmarkRow, BenchmarkTable, PreparedBenchmark
from trainer.contracts.errors import ErrorCode, RunError
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.system.files import read_record
from trainer.system.heartbeat import processor_ticks
from trainer.training.batches import epoch_order
from trainer.training.dataset import prepare
from trainer.worker.children.benchmark_child import run_benchmark_child
from trainer.worker.children.evaluate_run import data_paths

pytestmark = pytest.mark.slow

BENCH = ("bench", "architectures", "text")


@pytest.fixture(name="shell")
def shell_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    add_corpus(tmp_path, some_text())
    return enter(monkeypatch, capsys, tmp_path, tmp_path)


def tables(folder: Path) -> list[Path]:
    return list((folder / "artifacts" / "benchmarks").glob("*"))


def test_comparison__of_two_families_is_one_table_and_one_chart(shell: Shell) -> None:
    table = shell.read(BenchmarkTable, *BENCH, *"--families lstm,bert --tokens 600 --seed 7".split())
    [folder] = tables(shell.folder)
    assert {path.name for path in folder.iterdir()} == {"table.json", "table.tsv", "curves.png"}
    assert BenchmarkTable.model_validate_json((folder / "table.json").read_bytes()) == table
    assert folder.name == table.benchmark_id
    lstm, bert = table.rows
    assert [(row.name, row.objective) for row in table.rows] == [("lstm", "causal_lm"), ("bert", "masked_lm")]
    assert lstm.request.tokenizer == bert.request.tokenizer
    assert {row.request.seed for row in table.rows} == {7}
    assert {row.curve[-1].step for row in table.rows} == {table.shared.steps}
    for row in table.rows:
        assert (row.bits_per_char is None) == (row.objective == "masked_lm")
        assert row.tokens_per_second == pytest.approx(table.shared.tokens / row.train_seconds)
        assert 50e6 < row.peak_memory_bytes < 4e9
    lines = [line.split("\t") for line in (folder / "table.tsv").read_text(encoding="utf-8").splitlines()]
    assert [line[lines[0].index("test_loss")] for line in lines[1:]] == [str(row.test_loss) for row in table.rows]
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_comparison__of_causal_models_says_nothing_of_masked_tokens(shell: Shell) -> None:
    shell.write("mine.txt", some_text())
    shown = shell.type("bench", "architectures", "mine.txt", "--families", "lstm", "--tokens", "200")
    assert "Losses in bits per predicted token and per character." in shown
    assert "masked" not in shown
    assert "\nmine.txt: " in shown


def requests_of(folder: Path, **families: dict[str, object]) -> dict[str, EffectiveRequest]:
    add_corpus(folder, some_text(200))
    settings = settings_in(folder)
    common: dict[str, object] = {
        "corpus": "text",
        "model_size": "tiny",
        "max_seq_len": 16,
        "batch_size": 4,
        "threads": 1,
        "test_fraction": 0.1,
        "tokenizer": {"method": "char", "mask_token": True},
    }
    return {
        name: asyncio.run(resolve_request(train_request({**common, **fields}), CorpusStore(settings), settings))
        for name, fields in families.items()
    }


def planned(folder: Path, tokens: int, **families: dict[str, object]) -> Path:
    """A folder with a plan, as the command leaves it for its children."""
    work = folder / "work"
    work.mkdir()
    plan = BenchmarkPlan(tokens=tokens, requests=requests_of(folder, **families))
    (work / "plan.json").write_text(plan.model_dump_json(), encoding="utf-8")
    return work


def test_steps__are_the_fewest_that_read_so_many_tokens(tmp_path: Path) -> None:
    work = planned(tmp_path, 9000, lstm={"model_family": "lstm"})
    settings = settings_in(tmp_path)
    assert run_benchmark_child(settings, work, "prepared") == 0
    shared = read_record(work / "prepared.json", PreparedBenchmark)
    [effective] = read_record(work / "plan.json", BenchmarkPlan).requests.values()
    tokenizer, corpus = prepare(effective, *data_paths(settings, effective))
    ids: list[int] = corpus.ids["train"].tolist()
    rows = range(0, len(ids) - 1, 16)
    targets = [[i for i in ids[row + 1 : row + 17] if i != tokenizer.special_ids.bos] for row in rows]
    read: list[int] = []
    for epoch in range(shared.epochs):
        order: list[int] = epoch_order(len(rows), effective.seed, epoch).tolist()
        read += [sum(len(targets[row]) for row in order[i : i + 4]) for i in range(0, len(order), 4)]
    sums = list(accumulate(read))
    assert shared.steps == next(step for step, tokens in enumerate(sums, 1) if tokens >= 9000)
    assert shared.tokens == sums[shared.steps - 1]
    assert len(read) - shared.steps < -(-len(rows) // 4)  # the last epoch is one that was begun
    assert (shared.vocab_size, shared.test) == (tokenizer.vocab_size, corpus.sizes["test"])


def test_training__of_the_plan_reads_the_same_whatever_it_predicts(tmp_path: Path) -> None:
    both: dict[str, object] = {"model_family": "gru", "model": {"bidirectional": True}, "objective": "masked_lm"}
    work = planned(tmp_path, 1500, gru={"model_family": "gru"}, both=both)
    settings = settings_in(tmp_path)
    assert [run_benchmark_child(settings, work, name) for name in ("prepared", "gru", "both")] == [0, 0, 0]
    shared = read_record(work / "prepared.json", PreparedBenchmark)
    one, other = (read_record(work / f"{name}.json", BenchmarkRow) for name in ("gru", "both"))
    assert one.curve[-1].step == other.curve[-1].step == shared.steps
    assert one.curve[-1].val_loss is not None
    assert other.params > one.params
    bits = one.test_loss * shared.test.tokens / math.log(2) / shared.test.chars
    assert one.bits_per_char == pytest.approx(bits)
    assert other.objective == "masked_lm" and other.bits_per_char is None


def test_text__that_is_too_short_for_so_many_tokens_is_refused(tmp_path: Path) -> None:
    work = planned(tmp_path, 10**9, lstm={"model_family": "lstm"})
    assert run_benchmark_child(settings_in(tmp_path), work, "prepared") == 1
    error = read_record(work / "error.json", RunError)
    assert (error.code, error.message[-36:]) == (ErrorCode.INVALID_INPUT, "which is this text 1,000 times over.")


def test_child__that_dies_is_named_and_leaves_no_table(shell: Shell) -> None:
    def kill_child() -> None:
        wait_until(lambda: processes(shell.folder, "benchmark ") != [])
        for child in processes(shell.folder, "benchmark "):
            kill(child.pid)

    threading.Thread(target=kill_child).start()
    body = shell.error(*BENCH, code=1)
    assert body.code is ErrorCode.MODEL_TRAIN_FAILED
    assert body.message == "prepared: its process ended with exit code -9."
    assert tables(shell.folder) == []


def test_reason_of_a_child__is_told(shell: Shell) -> None:
    assert "1,000 times over" in shell.error(*BENCH, "--tokens", "9" * 9).message
    assert tables(shell.folder) == []


def test_interrupted__it_leaves_no_table_and_no_process(shell: Shell) -> None:
    def interrupt() -> None:
        wait_until(lambda: any(shell.folder.glob("artifacts/benchmarks/.tmp-*/work/plan.json")))
        wait_until(lambda: any(processor_ticks(child.pid) > 20 for child in processes(shell.folder, "benchmark ")))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    shell.type(*BENCH, code=130)
    assert tables(shell.folder) == []
    wait_until(lambda: not processes(shell.folder, "benchmark "))
