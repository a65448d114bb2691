"""`mt battery` as people use it: runs, batteries, results, and what is left after a crash."""

import csv
import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from tests.support import environment_in, finished_runs, some_text
from tests.support.batteries import PAIRS
from tests.support.run_shell import Shell, enter
from tests.support.stored_jobs import is_free
from tests.support.suites import SUITE
from tests.support.waiting import wait_until
from trainer.artifacts.batteries import BatteryDirectory, BatteryStore
from trainer.config.settings import load_settings
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryList, BatteryStatus, BatterySummary, ItemScores
from trainer.contracts.scores import ScoreResponse
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import split_corpus

RUNS = ("lstm-char-items", "gpt2-bpe-items")


@pytest.fixture(name="shell")
def shell_fixture(lab_shell: Shell) -> Shell:
    """A shell with two runs of random weights, and files of items."""
    for name in RUNS:
        family, method, _ = name.split("-")
        if not (lab_shell.artifacts / "models" / name).exists():
            corpus = lab_shell.root / "data" / "corpus" / "text.txt"
            finished_runs.finished_run(lab_shell.root, family, method, corpus, run_id=name)
    lab_shell.write("pairs.csv", PAIRS)
    lab_shell.write("suite.json", json.dumps(SUITE))
    return lab_shell


def total(shell: Shell, run: str, text: str) -> float:
    return shell.read(ScoreResponse, "score", run, text).nats or 0.0


def folder_of(shell: Shell) -> BatteryDirectory:
    """The job that was started last."""
    stored = BatteryStore(shell.artifacts)
    return stored.directory(stored.names()[0])


def scores_of(battery: BatteryDirectory, run: str) -> list[ItemScores]:
    return battery.scores(run, "trained")


def test_battery__scores_items_as_mt_score_does(shell: Shell) -> None:
    summary = shell.read(BatterySummary, "battery", "run", *RUNS, "pairs.csv", "suite.json")
    battery = folder_of(shell)
    items = battery.items()
    for result, run in zip(summary.runs, RUNS, strict=True):
        for item, scored in zip(items, scores_of(battery, run), strict=True):
            for sequence, score in zip(item.sequences, scored.scores, strict=True):
                context = total(shell, run, sequence.context) if sequence.context else 0.0
                assert score.nats == pytest.approx(total(shell, run, sequence.text) - context, abs=1e-4)
                assert sum(nats or 0.0 for nats in score.part_nats) == pytest.approx(score.nats, abs=1e-9)
        overall = result.groups[0]
        wins = [one.scores[0].nats < one.scores[1].nats for one in scores_of(battery, run)[:4]]
        by_sum = overall.accuracies[0]
        assert (overall.n_items, overall.n_identical, by_sum.n_ties) == (4, 1, 1)
        assert by_sum.accuracy == (wins[0] + wins[1] + wins[3]) / 3
        assert [group.name for group in result.groups if group.level == "paradigm"] == ["order", "letters", "agreement"]
        assert result.controls[0].n_items == 4
        counts = result.controls[0].counts
        assert counts is not None and counts.unigram.n_ties >= 1, "that of two equal sentences"
        assert [leak.n_items for leak in result.leaks] == [4, 2]
    assert {(one.first_run_id, one.second_run_id) for one in summary.comparisons} == {RUNS}


def test_results__are_shown_exported_and_computed_again(shell: Shell, tmp_path: Path) -> None:
    shell.type("battery", "run", *RUNS, "pairs.csv", "suite.json")
    battery_id = folder_of(shell).battery_id
    again = shell.type("battery", "run", *RUNS, "pairs.csv", "suite.json")
    assert "battery" not in shell.err.splitlines()[0], "an equal request is not scored again"
    assert again == shell.type("battery", "show", battery_id)
    for words in (
        "mean over paradigms",
        "agreement",
        "Differences between runs",
        "2 verb",
        "untrained",
        "Controls",
        "unigrams",
    ):
        assert words in again, words
    [listed, *_] = shell.read(BatteryList, "battery", "list").batteries
    assert (listed.battery_id, listed.status, listed.runs) == (battery_id, "completed", RUNS)
    assert battery_id in shell.type("battery", "list")
    out = str(tmp_path / "results")
    shell.type("battery", "export", battery_id, out)
    assert "is not an empty folder" in shell.refuse("battery", "export", battery_id, out)
    assert shell.type("battery", "recompute", out).split() == again.split()
    assert "All numbers are those of result.json." in shell.err
    rows: list[dict[str, str]] = list(csv.DictReader(StringIO((tmp_path / "results/items.csv").read_text("utf-8"))))
    assert len(rows) == 2 * (4 * 2 + 4 * 3)
    page = (tmp_path / "results/report.html").read_text("utf-8")
    assert page.count("<table>") == 8 and "Differences between runs" in page
    assert page.count("<figure>") == 2 and (tmp_path / "results/regions-2.png").exists()
    assert r"\toprule" in (tmp_path / "results/table.tex").read_text("utf-8")
    scores = tmp_path / "results/scores" / f"{RUNS[0]}.trained.jsonl"
    [first, *others] = [ItemScores.model_validate_json(line) for line in scores.read_text("utf-8").splitlines()]
    worse = changed(first, scores=(changed(first.scores[0], nats=0.0), *first.scores[1:]))
    scores.write_text("".join(f"{one.model_dump_json()}\n" for one in (worse, *others)), "utf-8")
    shell.type("battery", "recompute", out, code=1)
    assert "NOT those of result.json" in shell.err
    scores.write_text(f"{worse.model_dump_json()}\n", "utf-8")
    assert "are not those of the items" in shell.refuse("battery", "recompute", out)
    scores.write_text("{}\n", "utf-8")
    assert "has another form: `item` is not as in" in shell.refuse("battery", "recompute", out)


@pytest.mark.slow
def test_options__choose_columns_formulas_measure_and_separator(shell: Shell) -> None:
    shell.write("bare.csv", "context,good,bad\nthe su,n,m\n")
    shell.type("battery", "run", RUNS[0], "bare.csv", "--separator", "", "--no-controls")
    [item] = folder_of(shell).items()
    assert [sequence.text for sequence in item.sequences] == ["the sun", "the sum"]
    shell.write("mine.csv", "ok,star\nthe sun,sun the\nthe sea,sea the\n")
    words = ("mine.csv", "--column", "good=ok", "--column", "bad=star", "--measure", "char", "--no-controls")
    summary = shell.read(BatterySummary, "battery", "run", RUNS[0], *words)
    assert (summary.measure, summary.runs[0].controls, summary.runs[0].leaks) == ("char", (), ())
    shell.write("folder/pairs.csv", PAIRS.replace("he did", "she did"))
    twice = shell.read(BatterySummary, "battery", "run", RUNS[0], "pairs.csv", "folder/pairs.csv", "--no-controls")
    assert [one.name for one in twice.batteries] == ["pairs", "pairs-2"]
    assert [item.battery for item in folder_of(shell).items()] == ["pairs"] * 4 + ["pairs-2"] * 4
    shell.write("regions.csv", "item,condition,region,text\n" + "".join(
        f"{item},{condition},{region},{text}\n"
        for item in (1, 2, 3)
        for condition, verb in (("a", "was"), ("b", "were"))
        for region, text in (("subject", "the sun"), ("verb", verb))
    ))  # fmt: skip
    formula = "(2;%a%) < (2;%b%)"
    [result] = shell.read(BatterySummary, "battery", "run", RUNS[0], "regions.csv", "--formula", formula).runs
    [share] = result.formulas
    difference = result.effects[-1]
    assert share.formula == difference.what == formula
    assert share.accuracy == float(difference.nats < 0)
    assert difference.low == pytest.approx(difference.nats) == difference.high


def test_items_of_the_training_text__are_found(shell: Shell) -> None:
    lines = [line for line in some_text().splitlines() if len(line.split()) > 2][:40]
    rows = [f"{line.upper()}!\tnever seen {n} before\tplanted" for n, line in enumerate(lines)]
    rows += [f"never seen {n}\tbefore {n}\tunseen" for n in range(40)]
    shell.write("planted.tsv", "\n".join(rows))
    [result] = shell.read(BatterySummary, "battery", "run", RUNS[0], "planted.tsv").runs
    [leak] = result.leaks
    assert leak.n_items == len(rows)
    assert 0.5 * len(lines) < leak.whole * len(rows) <= len(lines), "a tenth or two of the lines are held out"
    split = split_corpus(CorpusStore(load_settings()), shell.runs.get(RUNS[0]).record().effective)
    validation = {line for block in split.lines("validation") for line in block.split("\n")}
    assert leak.validation_whole * len(rows) == pytest.approx(sum(line in validation for line in lines)) != 0
    corpus = shell.root / "data" / "corpus" / "text.txt"
    text = corpus.read_bytes()
    corpus.write_bytes(text + b"another line\n")
    [result] = shell.read(BatterySummary, "battery", "run", RUNS[0], "planted.tsv", "--measure", "char").runs
    corpus.write_bytes(text)
    assert result.leaks == () and result.controls[0].counts is None, "of another text than the run has read"


@pytest.mark.slow
def test_items_that_an_ancestor_has_read__are_found_and_not_compared(shell: Shell) -> None:
    other = shell.root / "data" / "corpus" / "apart.txt"
    other.write_text("\n".join(f"nothing of it {n}" for n in range(40)), encoding="utf-8")
    for name, fields in (
        ("apart", {}),
        ("child", {"init_from_run_id": RUNS[0]}),
        ("orphan", {"init_from_run_id": "no"}),
    ):
        finished_runs.finished_run(shell.root, "lstm", corpus=other, run_id=f"lstm-{name}", **fields)
    lines = [line for line in some_text().splitlines() if len(line.split()) > 2][:40]
    shell.write("read.tsv", "\n".join(f"{line}\t{line[::-1]}" for line in lines))
    runs = ("lstm-child", "lstm-apart", "lstm-orphan", RUNS[0])
    summary = shell.read(BatterySummary, "battery", "run", *runs, "read.tsv")
    [child], [apart], [orphan], [parent] = (result.leaks for result in summary.runs)
    assert child.whole == parent.whole > 0.5 and apart.whole == orphan.whole == 0
    assert (child.ancestors, child.unsearched, parent.ancestors) == ((RUNS[0],), (), ())
    assert (orphan.ancestors, orphan.unsearched) == ((), ("no",))
    compared = {(one.first_run_id, one.second_run_id) for one in summary.comparisons}
    assert compared == {("lstm-child", RUNS[0]), ("lstm-apart", "lstm-orphan")}
    assert len(summary.notes) == 4
    told = "read: `lstm-child` and `lstm-apart` are not compared, because one of them has trained on more of the items"
    assert told in shell.type("battery", "show", folder_of(shell).battery_id)
    assert "the training text of `no` is deleted or has changed" in shell.out
    out = str(shell.folder / "of-ancestors")
    shell.type("battery", "export", folder_of(shell).battery_id, out)
    shell.type("battery", "recompute", out)
    assert "All numbers are those of result.json." in shell.err


@pytest.mark.slow
def test_killed_worker__leaves_scores_that_the_next_one_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = enter(monkeypatch, capsys, tmp_path, tmp_path)
    run = finished_runs.finished_run(tmp_path, "lstm").run_id
    words = " ".join(f"{n:b}".replace("1", "the sun ").replace("0", "was ") for n in range(60))
    shell.write("long.tsv", "".join(f"{words} {n}\t{n} {words}\n" for n in range(600)))
    started = subprocess.Popen(
        [sys.executable, "-m", "trainer", "battery", "run", run, "long.tsv"],
        cwd=shell.folder,
        env=environment_in(tmp_path),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: any((shell.artifacts / "batteries").glob("long-*/scores/*.jsonl")))
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    battery = folder_of(shell)
    wait_until(lambda: is_free(battery))  # the worker dies with the command
    file = battery.path / "scores" / f"{run}.trained.jsonl"
    before = file.read_bytes()
    with file.open("ab") as scores:
        scores.write(b'{"item": 3')
    assert shell.read(BatteryStatus, "battery", "show", battery.battery_id).status == "queued"
    summary = shell.read(BatterySummary, "battery", "run", run, "long.tsv")
    assert summary.runs[0].groups[0].n_items == 600
    assert file.read_bytes().startswith(before)
    assert [one.item for one in scores_of(battery, run)] == list(range(600))
