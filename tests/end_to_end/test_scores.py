"""`mt score` as people and programs use it: every form of its output, files of any size, pairs, heat maps."""

import csv
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from itertools import groupby, pairwise

import pytest

from tests.support import ROOT, environment_in, finished_runs, mt
from tests.support.inference import RUN, finished_run
from tests.support.shell import Shell, shell_fixture
from tests.support.waiting import PATIENCE_SECONDS
from trainer.contracts.inference import ScoreResponse
from trainer.reports.minimal_pairs import PairReport
from trainer.reports.score_table import ScoredLine

__all__ = ["shell_fixture"]

TEXT = "the sun was\n\nshining on\u0416\r\n"
LINES = {1: "the sun was", 3: "shining on\u0416"}


@pytest.fixture(autouse=True)
def run_and_text_fixture(shell: Shell) -> None:
    if not (shell.lab.folder / "artifacts" / "models" / RUN).exists():
        finished_run(shell.lab.folder)
    (shell.folder / "lines.txt").write_text(TEXT, encoding="utf-8")


def scored(shell: Shell, *words: str) -> str:
    code, out, err = shell.type("score", RUN, *words)
    assert code == 0, err
    return out


def response_of(shell: Shell, *words: str) -> ScoreResponse:
    return ScoreResponse.model_validate_json(scored(shell, "--path", "lines.txt", *words, "--json"))


def lines_of(out: str) -> list[ScoredLine]:
    return [ScoredLine.model_validate_json(line) for line in out.splitlines()]


def cells_of(out: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(out), delimiter=delimiter))


def test_jsonl__has_one_object_a_line_with_what_the_response_has(shell: Shell) -> None:
    whole = response_of(shell, "--detail-level", "per_char", "--top-k", "2")
    found = lines_of(scored(shell, *"--path lines.txt --detail-level per_char --top-k 2 --format jsonl".split()))

    assert {line.line: line.text for line in found} == LINES
    assert whole.lines is not None
    assert [line.nats for line in found] == [line.nats for line in whole.lines]
    assert [value for line in found for value in line.surprisal or ()] == pytest.approx(list(whole.surprisal or ()))
    assert [row for line in found for row in line.rank or ()] == list(whole.rank or ())
    assert [len(row) for line in found for row in line.topk or ()] == [2] * 22
    assert [word.text for line in found for word in line.words or ()] == TEXT.split()
    for line in found:
        text = line.text or ""
        assert "".join(text[a:b] for a, b in line.char_spans or ()) == text
        assert [text[word.span[0] : word.span[1]] for word in line.words or ()] == text.split()
    assert [line.unk_count for line in found] == [0, 1]
    brief = lines_of(scored(shell, *"--path lines.txt --format jsonl".split()))
    assert [line.nats for line in brief] == pytest.approx([line.nats for line in found])
    whole_nats = (brief[1].nats or 0.0) + (brief[1].end_nats or 0.0)
    assert brief[0].words is None and brief[1].bits_per_char == pytest.approx(whole_nats / math.log(2) / 11)


def test_tables__have_a_row_for_each_line_word_or_token(shell: Shell) -> None:
    whole = response_of(shell, "--detail-level", "per_char")

    lines = cells_of(scored(shell, *"--path lines.txt --format csv".split()))
    assert [row["text"] for row in lines] == [*LINES.values()]
    words = cells_of(scored(shell, *"--path lines.txt --format tsv --detail-level per_word".split()), "\t")
    assert [(row["index"], row["line"], row["unit"], row["start"], row["end"]) for row in words] == [
        ("1", "1", "the", "0", "3"),
        ("2", "1", "sun", "4", "7"),
        ("3", "1", "was", "8", "11"),
        ("4", "3", "shining", "0", "7"),
        ("5", "3", "on\u0416", "8", "11"),
    ]
    assert [float(row["surprisal_nats"]) for row in words] == pytest.approx(
        [word.surprisal for word in whole.words or ()]
    )
    given = "--path lines.txt --format csv --detail-level per_char --top-k 1 --no-bos --out cells.csv".split()
    assert scored(shell, *given) == ""
    cells = cells_of((shell.folder / "cells.csv").read_text(encoding="utf-8"))
    assert [row["index"] for row in cells] == [str(place) for place in range(1, 23)]
    assert "".join(row["unit"] for row in cells) == "the sun wasshining on[UNK]"
    assert (cells[-1]["code_points"], cells[3]["code_points"]) == ("U+0416", "U+0020")
    assert [row["surprisal_nats"] == row["rank"] == row["entropy_nats"] == "" for row in cells] == [
        row["start"] == "0" for row in cells
    ]
    assert 0 < float(cells[1]["probability_1"]) < 1


def test_table__for_people_names_lines_words_and_tokens_before_the_figures(shell: Shell) -> None:
    by_line = scored(shell, "ab c", "--detail-level", "per_line").splitlines()
    by_word = scored(shell, "ab c", "--detail-level", "per_word").splitlines()
    by_token = scored(shell, "ab c", "--detail-level", "per_char", "--no-bos").splitlines()
    assert by_line[0].startswith("ab c\t")
    assert [line.split("\t")[0] for line in by_word[:2]] == ["ab", "c"]
    assert [line.split("\t")[0] for line in by_token[:4]] == ["a", "b", " ", "c"]
    assert by_token[0] == "a\t"
    assert "bits per byte" in "".join(by_line)
    windows = scored(shell, "ab c" * 50, "--max-window", "64")
    assert "64 tokens, of which 16 are context only" in windows
    assert "48 tokens; lines longer than a window: 1" in windows
    assert "nats in 200 tokens" in windows
    assert "none: no line is longer than 64 tokens" in scored(shell, "ab c", "--max-window", "64")


def test_file_with_a_bad_line__is_scored_around_it_in_order(shell: Shell) -> None:
    good = [f"the sun was shining {number}" for number in range(2500)]
    content = "\n".join(good).encode().split(b"\n")
    content[1200] = b"\xff\xfe"
    (shell.folder / "big.txt").write_bytes(b"\xef\xbb\xbf" + b"\n".join(content))

    code, out, err = shell.type("score", RUN, "--path", "big.txt", "--format", "jsonl")

    found = lines_of(out)
    assert (code, err.count("\n")) == (1, 1)
    assert "line 1,201: It is not UTF-8: byte 0" in err
    assert [line.line for line in found] == list(range(1, 2501))
    assert [line.text for line in found] == [*good[:1200], None, *good[1201:]]
    assert found[1200].error is not None and found[1200].nats is None
    table = shell.type("score", RUN, "--path", "big.txt", "--format", "csv")[1]
    assert table.count("\n") == 2500
    code, out, _ = shell.type(*("score", RUN, "--path", "big.txt", "--format", "csv", "--out", "big.csv"))
    assert (code, out) == (1, "")
    assert (shell.folder / "big.csv").read_text(encoding="utf-8") == table


def test_file_beyond_one_request__has_the_figures_of_all_of_it(shell: Shell) -> None:
    (shell.folder / "vast.txt").write_text("the sun\n" + (" " * 999 + "\n") * 2_001 + "the sea was\n", encoding="utf-8")

    whole = ScoreResponse.model_validate_json(scored(shell, "--path", "vast.txt", "--format", "json"))
    code, _, err = shell.type("score", RUN, "--path", "vast.txt", "--format", "json", "--detail-level", "per_word")

    parts = [ScoreResponse.model_validate_json(scored(shell, text, "--json")) for text in ("the sun", "the sea was")]
    assert whole.nats == pytest.approx(sum(part.nats or 0.0 for part in parts))
    assert (whole.n_scored, whole.n_chars, whole.n_bytes) == (18, 18, 18)
    end_nats = sum(part.end_nats or 0.0 for part in parts)
    assert (whole.end_nats, whole.n_ends) == pytest.approx((end_nats, 2))
    assert whole.loss == pytest.approx(((whole.nats or 0.0) + end_nats) / 20)
    assert (code, "use `--format jsonl`" in err) == (2, True)
    assert "nats per token" in scored(shell, "--path", "vast.txt")
    long = "the sun was " * 6 + "\n"
    (shell.folder / "wide.txt").write_text(long + (" " * 999 + "\n") * 2_001 + long, encoding="utf-8")
    windowed = scored(shell, *"--path wide.txt --format json --max-window 64".split())
    report = ScoreResponse.model_validate_json(windowed).window
    assert report is not None and report.cut_lines == 2


def test_pairs__are_counted_in_all_and_by_group(shell: Shell) -> None:
    pairs = [("the sun", "sun the", "order"), ("he did", "hid de", "order"), ("ab", "ab", "same"), ("zz", "z", "")]
    text = "\n".join("\t".join(pair).rstrip("\t") for pair in pairs)
    (shell.folder / "pairs.tsv").write_text(f"{text}\n\n", encoding="utf-8")

    report = PairReport.model_validate_json(scored(shell, "--pairs", "pairs.tsv", "--json"))

    for pair, (first, second, group) in zip(report.pairs, pairs, strict=True):
        sums = [ScoreResponse.model_validate_json(scored(shell, one, "--json")).nats for one in (first, second)]
        assert [pair.first_nats, pair.second_nats] == pytest.approx(sums, abs=1e-4)
        assert pair.group == (group or None)
    assert (report.pairs[2].less_surprising, report.pairs[3].less_surprising) == ("tie", "second")
    assert [found.group for found in report.groups] == ["order", "same"]
    wins = sum(pair.less_surprising == "first" for pair in report.pairs)
    assert (report.overall.n_pairs, report.overall.n_ties) == (4, 1)
    assert report.overall.accuracy == pytest.approx((wins + 0.5) / 4)
    rows = cells_of(scored(shell, *"--pairs pairs.tsv --format tsv".split()), "\t")
    assert [row["less_surprising"] for row in rows] == [pair.less_surprising for pair in report.pairs]
    assert scored(shell, *"--pairs pairs.tsv --format jsonl".split()).count("\n") == 4
    assert "95 % interval" in scored(shell, "--pairs", "pairs.tsv")
    (shell.folder / "many.tsv").write_text(f"{'a b' * 500}\t{'b a' * 500}\n" * 20, encoding="utf-8")
    assert '"n_pairs":20' in scored(shell, "--pairs", "many.tsv", "--json")
    (shell.folder / "short.tsv").write_text("a\tb\nab\tba\n", encoding="utf-8")
    code, _, err = shell.type("score", RUN, "--pairs", "short.tsv", "--no-bos")
    assert (code, "Line 1 has a sentence without a scored token" in err) == (2, True)
    (shell.folder / "short.tsv").write_text("a\tb\n", encoding="utf-8")
    code, _, err = shell.type("score", RUN, "--pairs", "short.tsv", "--no-bos")
    assert (code, "has nothing to score" in err) == (2, True)


def test_stream__is_scored_as_one_text_and_not_in_pairs(shell: Shell) -> None:
    run = finished_runs.finished_run(shell.lab.folder, "lstm", documents="stream").run_id
    text = "the sun was\n\nshining on\n" * 2000
    (shell.folder / "stream.txt").write_text(text, encoding="utf-8")
    (shell.folder / "empty.txt").touch()
    (shell.folder / "pairs.tsv").write_text("a b\tb a\n", encoding="utf-8")

    code, out, err = shell.type("score", run, "--path", "stream.txt", "--format", "jsonl")
    [whole] = lines_of(out)
    _, json, _ = shell.type("score", run, "--path", "stream.txt", "--json")
    response = ScoreResponse.model_validate_json(json)

    assert code == 0, err
    assert (whole.line, whole.text, whole.n_scored, whole.end_nats) == (1, text, len(text), None)
    assert whole.nats == response.nats and whole.nats is not None and response.loss == whole.nats / len(text)
    assert whole.bits_per_char == pytest.approx(whole.nats / math.log(2) / len(text))
    assert (response.n_ends, response.bits_per_char) == (0, whole.bits_per_char)
    _, rows, _ = shell.type("score", run, "sun\nsea", "--detail-level", "per_line")
    assert rows.startswith("sun\\nsea\t")
    code, _, err = shell.type("score", run, "--pairs", "pairs.tsv")
    assert (code, "`--pairs` needs a run with `documents` 'line'" in err) == (2, True)
    code, _, err = shell.type("score", run, "--path", "empty.txt")
    assert (code, "nothing to score: it is empty" in err) == (2, True)


def test_heat_maps__are_a_picture_and_a_page(shell: Shell) -> None:
    scored(shell, "--path", "lines.txt", "--heatmap", "heat.png", "--no-bos")
    scored(shell, "--path", "lines.txt", "--heatmap", "heat.html", "--top-k", "2")
    assert (shell.folder / "heat.png").read_bytes().startswith(b"\x89PNG")
    page = (shell.folder / "heat.html").read_text(encoding="utf-8")
    assert page.count('<p dir="auto">') == 2 and "rank " in page


def test_portion_without_a_score__is_told_and_the_others_are_scored(shell: Shell) -> None:
    (shell.folder / "single.txt").write_text("a\n" * 10_001 + "ab\n", encoding="utf-8")
    code, out, err = shell.type(*("score", RUN, "--path", "single.txt", "--format", "jsonl", "--no-bos"))
    assert code == 1
    assert "nothing to score" in err
    assert lines_of(out)[-1].text == "ab"


def test_blank_file__is_refused_in_every_form(shell: Shell) -> None:
    (shell.folder / "blank.txt").write_text("\n \n", encoding="utf-8")
    for form in ("table", "jsonl"):
        code, _, err = shell.type("score", RUN, "--path", "blank.txt", "--format", form)
        assert (code, "nothing to score" in err) == (2, True)
    (shell.folder / "blank.txt").write_bytes(b"\xff\n\xfe\n")
    (shell.folder / "kept.csv").write_text("kept")
    code, _, err = shell.type(*("score", RUN, "--path", "blank.txt", "--format", "csv", "--out", "kept.csv", "--force"))
    assert (code, "none of its lines can be read" in err) == (2, True)
    assert (shell.folder / "kept.csv").read_text() == "kept"


def test_disk_that_is_full__is_one_sentence(shell: Shell) -> None:
    code, _, err = shell.type("score", RUN, "x", "--format", "csv", "--out", "/dev/full")
    assert (code, err) == (1, "mt: The disk is full, so `full` could not be written: free some space.\n")
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "trainer", "score", RUN, "x"]
        environment = environment_in(shell.lab.folder, QUEUE__EMBEDDED_WORKERS="0")
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=PATIENCE_SECONDS, check=False
        )
    assert (done.returncode, done.stderr.decode()) == (
        1,
        "mt: The result could not be written to standard output: No space left on device.\n",
    )


def test_line_with_a_carriage_return__is_one_row_and_what_has_no_score_is_null(shell: Shell) -> None:
    (shell.folder / "return.txt").write_bytes(b"the\rsun was\ns\n")
    words = ("--path", "return.txt", "--detail-level", "per_word", "--no-bos")
    for form, delimiter in (("csv", ","), ("tsv", "\t")):
        rows = list(csv.reader(StringIO(scored(shell, *words, "--format", form), newline=""), delimiter=delimiter))
        assert [row[2] for row in rows] == ["unit", "the\rsun", "was", "s"]
    first, second = scored(shell, *words, "--format", "jsonl").splitlines()
    assert '"words":[{"text":"the\\rsun","span":[0,7],"surprisal":null},' in first
    assert '"bits_per_char":null,"bits_per_byte":null,' in second and 'tokens"' not in second.replace("n_tokens", "")


def test_run_without_its_weights__ends_the_reading(shell: Shell) -> None:
    folder = shell.lab.folder
    finished_run(folder, "char_lstm-2")
    (folder / "artifacts" / "models" / "char_lstm-2" / "model.safetensors").write_bytes(b"gone")
    (folder / "large.txt").write_text("the sun was shining\n" * 5000, encoding="utf-8")
    # a process of its own: what asyncio says of failures that nobody has looked at, it says when they go
    done = mt(folder, *"score char_lstm-2 --path large.txt --format jsonl".split(), QUEUE__EMBEDDED_WORKERS="0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


MISTAKES = [
    (["x", "--pairs", "p.tsv"], "Give one of: a TEXT, a file with `--path`, or pairs"),
    (["x", "--out", "f.csv"], "`--out` needs `--format`"),
    (["x", "--format", "csv", "--out", "no/f.csv"], "There is no folder 'no'"),
    (["x", "--format", "csv", "--out", "."], "'.' is a folder: name a file to write to"),
    (["--path", "three.tsv", "--format", "csv", "--out", "three.tsv"], "'three.tsv' is the input"),
    (["x", "--format", "csv", "--out", "three.tsv"], "'three.tsv' already exists: name another file, or overwrite"),
    (["x", "--heatmap", "map.html"], "'map.html' already exists: name another file, or overwrite it with `--force`."),
    (["x", "--format", "csv", "--out", "f" * 300], "cannot be written to: File name too long"),
    (["x", "--heatmap", "f" * 300 + ".html"], "cannot be written to: File name too long"),
    (["x", "--heatmap", "f.gif"], "ends in .png or .html"),
    (["x" * 10_001, "--heatmap", "f.png"], "at most 10,000 characters"),
    (["x", "--pll-within-word"], "trained with causal_lm"),
    (["--path", "nothing.txt", "--format", "csv"], "no file 'nothing.txt'"),
    (["--path", "nothing.txt"], "no file 'nothing.txt'"),
    (["--pairs", "nothing.tsv"], "no file 'nothing.tsv'"),
    (["--pairs", "blank.tsv"], "'blank.tsv' has no pairs"),
    (["--pairs", "three.tsv"], "Line 2 is no pair"),
    (["--pairs", "bytes.tsv"], "Line 1: It is not UTF-8"),
    (["--pairs", "three.tsv", "--detail-level", "per_word"], "takes neither `--detail-level`"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistake__is_one_sentence(words: list[str], sentence: str, shell: Shell) -> None:
    (shell.folder / "blank.tsv").write_text("\n\n", encoding="utf-8")
    (shell.folder / "three.tsv").write_text("a\tb\na\t\tc\n", encoding="utf-8")
    (shell.folder / "bytes.tsv").write_bytes(b"a\tb\xff\n")
    (shell.folder / "map.html").touch()
    code, _, err = shell.type("score", RUN, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert sentence in err


def test_interrupt__ends_quietly_after_whole_lines(shell: Shell) -> None:
    (shell.folder / "long.txt").write_text("the sun was shining on the sea\n" * 60_000, encoding="utf-8")
    cut = shell.folder / "cut"

    def interrupt() -> None:
        while not cut.exists() or cut.stat().st_size == 0:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    code, out, err = shell.type("score", RUN, "--path", "long.txt", "--format", "jsonl", "--out", "cut")
    assert (code, out, err) == (130, "", "")
    content = cut.read_text(encoding="utf-8")
    assert content.endswith("\n")
    assert [line.line for line in lines_of(content)] == list(range(1, content.count("\n") + 1))


def test_interrupt_while_a_pipe_is_read__ends_quietly(shell: Shell) -> None:
    pipe = shell.folder / "pipe"
    os.mkfifo(pipe)

    def interrupt() -> None:
        while True:
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                time.sleep(0.01)
                continue
            time.sleep(0.3)  # until it reads
            os.kill(os.getpid(), signal.SIGINT)
            os.close(writer)
            return

    threading.Thread(target=interrupt).start()

    assert shell.type("score", RUN, "--path", "pipe", "--format", "jsonl") == (130, "", "")


def test_reader_that_goes__ends_it_quietly(shell: Shell) -> None:
    (shell.folder / "long.txt").write_text("the sun was shining on the sea\n" * 60_000, encoding="utf-8")
    command = f'"{sys.executable}" -m trainer score {RUN} --path long.txt --format csv | head -2'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=shell.folder,
        env=environment_in(shell.lab.folder, QUEUE__EMBEDDED_WORKERS="0"),
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 2, b"")


def test_lines__of_the_rows_group_as_the_text_does(shell: Shell) -> None:
    rows = cells_of(scored(shell, *"--path lines.txt --format csv --detail-level per_char".split()))
    assert {int(number): "".join(row["unit"] for row in of_line) for number, of_line in groupby(rows, _line)} == {
        1: LINES[1],
        3: LINES[3].replace("\u0416", "[UNK]"),
    }


def _line(row: dict[str, str]) -> str:
    return row["line"]


COMMANDS = [line for line in (ROOT / "docs" / "scoring.md").read_text("utf-8").splitlines() if line.startswith("mt ")]


def test_page__has_its_commands() -> None:
    assert len(COMMANDS) == 8


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_page__runs_as_it_stands(command: str, shell: Shell) -> None:
    (shell.folder / "pairs.tsv").write_text("the sun\tsun the\n", encoding="utf-8")
    words = shlex.split(command.replace("RUN", RUN))[1:]
    code, _, err = shell.type(*words)
    assert (code, err) == (0, "")
    for option, name in pairwise(words):
        if option in ("--out", "--heatmap"):
            assert (shell.folder / name).stat().st_size > 0
