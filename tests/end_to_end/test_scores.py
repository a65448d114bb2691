"""`mt score` as people and programs use it: every form of its output, files of any size, heat maps."""

import csv
import fcntl
import math
import os
import signal
import subprocess
import sys
import termios
import threading
from array import array
from io import StringIO
from itertools import groupby

import pytest

from tests.support import environment_in, finished_runs, mt
from tests.support.families import POSITIONS
from tests.support.inference import RUN, finished_run
from tests.support.run_shell import Shell
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from trainer.contracts.scores import ScoreResponse
from trainer.reports.score_table import ScoredLine

TEXT = "the sun was\n\nshining on\u0416\r\n"
LINES = {1: "the sun was", 3: "shining on\u0416"}
LONG_TEXT = "the sun was shining on the sea\n" * 60_000


@pytest.fixture(name="shell")
def shell_fixture(lab_shell: Shell) -> Shell:
    """A shell with a text, and a run whose model knows nothing."""
    if not (lab_shell.artifacts / "models" / RUN).exists():
        finished_run(lab_shell.root)
    lab_shell.write("lines.txt", TEXT)
    return lab_shell


def response_of(shell: Shell, *words: str) -> ScoreResponse:
    return shell.read(ScoreResponse, "score", RUN, *words)


def lines_of(out: str) -> list[ScoredLine]:
    return [ScoredLine.model_validate_json(line) for line in out.splitlines()]


def cells_of(out: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(out, newline=""), delimiter=delimiter))


def score(shell: Shell, words: str, code: int = 0) -> str:
    """Score with options that are written as one text."""
    return shell.type("score", RUN, *words.split(), code=code)


def test_jsonl__has_one_object_a_line_with_what_the_response_has(shell: Shell) -> None:
    whole = response_of(shell, *"--path lines.txt --detail-level per_char --top-k 2".split())
    found = lines_of(score(shell, "--path lines.txt --detail-level per_char --top-k 2 --format jsonl"))
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
    brief = lines_of(score(shell, "--path lines.txt --format jsonl"))
    assert [line.nats for line in brief] == pytest.approx([line.nats for line in found])
    whole_nats = (brief[1].nats or 0.0) + (brief[1].end_nats or 0.0)
    assert brief[0].words is None and brief[1].bits_per_char == pytest.approx(whole_nats / math.log(2) / 11)


def test_tables__have_a_row_for_each_line_word_or_token(shell: Shell) -> None:
    whole = response_of(shell, "--path", "lines.txt", "--detail-level", "per_char")
    lines = cells_of(score(shell, "--path lines.txt --format csv"))
    assert [row["text"] for row in lines] == [*LINES.values()]
    words = cells_of(score(shell, "--path lines.txt --format tsv --detail-level per_word"), "\t")
    assert [" ".join(row[name] for name in ("index", "line", "unit", "start", "end")) for row in words] == [
        *("1 1 the 0 3", "2 1 sun 4 7", "3 1 was 8 11", "4 3 shining 0 7", "5 3 on\u0416 8 11")
    ]
    surprisals = [word.surprisal for word in whole.words or ()]
    assert [float(row["surprisal_nats"]) for row in words] == pytest.approx(surprisals)
    tokens = "--path lines.txt --format csv --detail-level per_char"
    assert score(shell, f"{tokens} --top-k 1 --no-bos --out cells.csv") == ""
    cells = cells_of((shell.folder / "cells.csv").read_text(encoding="utf-8"))
    assert [row["index"] for row in cells] == [str(place) for place in range(1, 23)]
    assert "".join(row["unit"] for row in cells) == "the sun wasshining on[UNK]"
    assert (cells[-1]["code_points"], cells[3]["code_points"]) == ("U+0416", "U+0020")
    nothing = [row["surprisal_nats"] == row["rank"] == row["entropy_nats"] == "" for row in cells]
    assert nothing == [row["start"] == "0" for row in cells]
    assert 0 < float(cells[1]["probability_1"]) < 1
    by_line = groupby(cells_of(score(shell, tokens)), _line)
    assert {int(number): "".join(row["unit"] for row in of_line) for number, of_line in by_line} == {
        1: LINES[1],
        3: LINES[3].replace("\u0416", "[UNK]"),
    }


def _line(row: dict[str, str]) -> str:
    return row["line"]


def test_table__for_people_names_lines_words_and_tokens_first(shell: Shell) -> None:
    by_line, by_word, by_token = (
        shell.type("score", RUN, "ab c", "--detail-level", *level.split()).splitlines()
        for level in ("per_line", "per_word", "per_char --no-bos")
    )
    assert by_line[0].startswith("ab c\t") and "bits per byte" in "".join(by_line)
    assert [line.split("\t")[0] for line in by_word[:2]] == ["ab", "c"]
    assert [line.split("\t")[0] for line in by_token[:4]] == ["a", "b", " ", "c"]
    assert by_token[0] == "a\t"
    for unit, per in (("bits", math.log(2)), ("nats", 1.0)):
        response = response_of(shell, "ab c", "--detail-level", "per_word")
        assert response.words is not None and response.nats is not None and response.loss is not None
        shown = shell.type("score", RUN, "ab c", "--detail-level", "per_word", "--unit", unit)
        surprisals = [word.surprisal or 0.0 for word in response.words]
        assert [line.split("\t")[1] for line in shown.splitlines()[:2]] == [f"{one / per:.2f}" for one in surprisals]
        assert f"{response.loss / per:.3f} {unit} per token" in shown and f"{response.nats / per:.2f} {unit}" in shown
        assert f"mt: surprisals in {unit}\n" in shell.err and ("nats" if unit == "bits" else "bits") not in shown
    windows = shell.type("score", RUN, "ab c" * 50, "--max-window", "64")
    assert "64 tokens, of which 16 are context only" in windows
    assert "48 tokens; lines longer than a window: 1" in windows
    assert "bits in 200 tokens" in windows
    short = shell.type("score", RUN, "ab c", "--max-window", "64")
    assert "none: no line is longer than 64 tokens" in short


def test_file_with_a_bad_line__is_scored_around_it_in_order(shell: Shell) -> None:
    good = [f"the sun was shining {number}" for number in range(2500)]
    content = "\n".join(good).encode().split(b"\n")
    content[1200] = b"\xff\xfe"
    shell.write("big.txt", b"\xef\xbb\xbf" + b"\n".join(content))
    found = lines_of(score(shell, "--path big.txt --format jsonl", code=1))
    assert shell.err.count("\n") == 1 and "line 1,201: It is not UTF-8: byte 0" in shell.err
    assert [line.line for line in found] == list(range(1, 2501))
    assert [line.text for line in found] == [*good[:1200], None, *good[1201:]]
    assert found[1200].error is not None and found[1200].nats is None
    table = score(shell, "--path big.txt --format csv", code=1)
    assert table.count("\n") == 2500
    assert score(shell, "--path big.txt --format csv --out big.csv", code=1) == ""
    assert (shell.folder / "big.csv").read_text(encoding="utf-8") == table


def test_file_beyond_one_request__has_the_figures_of_all_of_it(shell: Shell) -> None:
    blank = (" " * 999 + "\n") * 2_001
    shell.write("vast.txt", f"the sun\n{blank}the sea was\n")
    whole = ScoreResponse.model_validate_json(score(shell, "--path vast.txt --format json"))
    refusal = shell.refuse("score", RUN, *"--path vast.txt --format json --detail-level per_word".split())
    parts = [response_of(shell, text) for text in ("the sun", "the sea was")]
    assert whole.nats == pytest.approx(sum(part.nats or 0.0 for part in parts))
    assert (whole.n_scored, whole.n_chars, whole.n_bytes) == (18, 18, 18)
    end_nats = sum(part.end_nats or 0.0 for part in parts)
    assert (whole.end_nats, whole.n_ends) == pytest.approx((end_nats, 2))
    assert whole.loss == pytest.approx(((whole.nats or 0.0) + end_nats) / 20)
    assert "use `--format jsonl`" in refusal and "bits per token" in score(shell, "--path vast.txt")
    long = "the sun was " * 6 + "\n"
    shell.write("wide.txt", f"{long}{blank}{long}")
    windowed = ScoreResponse.model_validate_json(score(shell, "--path wide.txt --format json --max-window 64"))
    assert windowed.window is not None and windowed.window.cut_lines == 2


def test_stream__is_scored_as_one_text(shell: Shell) -> None:
    run = finished_runs.finished_run(shell.root, "lstm", documents="stream").run_id
    text = "the sun was\n\nshining on\n" * 2000
    for name, content in {"stream.txt": text, "empty.txt": ""}.items():
        shell.write(name, content)
    [whole] = lines_of(shell.type("score", run, "--path", "stream.txt", "--format", "jsonl"))
    response = shell.read(ScoreResponse, "score", run, "--path", "stream.txt")
    assert (whole.line, whole.text, whole.n_scored, whole.end_nats) == (1, text, len(text), None)
    assert whole.nats == response.nats and whole.nats is not None and response.loss == whole.nats / len(text)
    assert whole.bits_per_char == pytest.approx(whole.nats / math.log(2) / len(text))
    assert (response.n_ends, response.bits_per_char) == (0, whole.bits_per_char)
    assert shell.type("score", run, "sun\nsea", "--detail-level", "per_line").startswith("sun\\nsea\t")
    assert "nothing to score: it is empty" in shell.refuse("score", run, "--path", "empty.txt")


def test_heat_maps__are_a_picture_and_a_page(shell: Shell) -> None:
    score(shell, "--path lines.txt --heatmap heat.png --no-bos")
    score(shell, "--path lines.txt --heatmap heat.html --top-k 2")
    assert (shell.folder / "heat.png").read_bytes().startswith(b"\x89PNG")
    page = (shell.folder / "heat.html").read_text(encoding="utf-8")
    assert page.count('<p dir="auto">') == 2 and "rank " in page


def test_items__have_their_columns_beside_the_scores_in_the_order_given(shell: Shell) -> None:
    shell.write("items.csv", "id,sentence,word\n" + "".join(f"{n},the sun {n},sun\n" for n in range(3000, 0, -1)))
    rows = cells_of(score(shell, "--items items.csv --text-column sentence --region-columns word"))
    assert "beyond" not in shell.err and "`log_frequency` is empty" in shell.err
    assert [row["id"] for row in rows] == [str(n) for n in range(3000, 0, -1)]
    assert [row["source_row"] for row in rows] == [str(n) for n in range(1, 3001)]
    assert {(row["sentence"] == f"the sun {row['id']}", row["unit"], row["unit_text"]) for row in rows} == {
        (True, "word", "sun")
    }
    whole = response_of(shell, "the sun 1", "--detail-level", "per_char")
    of_word = math.fsum(value for value in (whole.surprisal or ())[3:7] if value is not None)
    assert float(rows[-1]["surprisal_nats"]) == pytest.approx(of_word)
    assert score(shell, "--items items.csv --text-column sentence --per item --format jsonl --out items.jsonl") == ""
    [first, *_] = (shell.folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
    assert first.startswith('{"id":"3000","sentence":"the sun 3000","word":"sun","source_row":1,"surprisal_nats":')


def test_words_in_rows__are_joined_by_their_item_and_guesses_are_reported(shell: Shell) -> None:
    shell.write("words.tsv", "word\titem\nthe\t1\nsun\t1\nNA\t1\nwas\t1\nthe\t2\nsea\t2\n")
    joined = cells_of(score(shell, "--items words.tsv --text-column word --group-column item"))
    assert "mt: Counted as empty: 1 cell with `NA` or the like, first in row 3." in shell.err
    assert [(row["word"], row["source_row"], row["unit"]) for row in joined] == [
        *(
            ("the", "1", "1"),
            ("sun", "2", "2"),
            ("NA", "3", "3"),
            ("was", "4", "4"),
            ("the", "5", "1"),
            ("sea", "6", "2"),
        )
    ]
    whole = response_of(shell, "the sun was")
    nats = [float(row["surprisal_nats"] or 0) for row in joined]
    assert math.fsum(nats[:4]) == pytest.approx(whole.nats)
    alone = cells_of(score(shell, "--items words.tsv --text-column word --keep-na"))
    assert "mt: Each text is one word, scored by itself: `group_column` joins the rows of an item." in shell.err
    assert len(alone) == 6 and "Counted" not in shell.err
    bare = cells_of(score(shell, "--items words.tsv --text-column word --group-column item --separator="))
    assert math.fsum(float(row["surprisal_nats"] or 0) for row in bare[:4]) == pytest.approx(
        response_of(shell, "thesunwas").nats
    )


@pytest.mark.slow
def test_items_beyond_the_context__are_reported(shell: Shell) -> None:
    run = finished_runs.finished_run(shell.root, "gpt2")
    shell.write("items.csv", f"sentence\nthe sun\n{'the sun ' * POSITIONS}\n")
    shell.type("score", run.run_id, "--items", "items.csv", "--text-column", "sentence")
    assert "1 item beyond the model's context, scored by windows" in shell.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--items items.tsv", "`text_column` or `region_columns` must name the texts"),
        ("--items items.tsv --text-column text --format json", "`--items` goes without `--format json`: leave it out."),
        ("--items items.tsv --text-column text x --top-k 2", "goes without a TEXT and `--top-k`: leave it out."),
        ("--items items.tsv --text-column text --out items.tsv --force", "is the input: name another file"),
        ("--items items.tsv --text-column text --pll-within-word", "is for masked models only"),
        ("text --per word --text-column text", "`--text-column` and `--per` are for a table: give it with `--items`."),
        ("text --keep-na --separator=", "`--separator` and `--keep-na` are for a table: give it with `--items`."),
        ("--items none.tsv --text-column text", "There is no file"),
    ],
)
def test_items_with_a_wrong_option__are_refused(words: str, sentence: str, shell: Shell) -> None:
    shell.write("items.tsv", "text\tid\nabc\t1\n")
    assert sentence in shell.refuse("score", RUN, *words.split())


def test_portion_without_a_score__is_reported_and_the_others_are_scored(shell: Shell) -> None:
    shell.write("single.txt", "a\n" * 10_001 + "ab\n")
    found = lines_of(score(shell, "--path single.txt --format jsonl --no-bos", code=1))
    assert "nothing to score" in shell.err and found[-1].text == "ab"


def test_blank_file__is_refused_in_every_form(shell: Shell) -> None:
    shell.write("blank.txt", "\n \n")
    for form in ("table", "jsonl"):
        assert "nothing to score" in shell.refuse("score", RUN, "--path", "blank.txt", "--format", form)
    shell.write("blank.txt", b"\xff\n\xfe\n")
    kept = shell.write("kept.csv", "kept")
    score(shell, "--path blank.txt --format csv --out kept.csv --force", code=2)
    assert "none of its lines can be read" in shell.err
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("words", ["--out f.csv", f"--format csv --out {'f' * 300}", f"--heatmap {'f' * 300}.html"])
def test_file_that_cannot_be_written__is_one_sentence(words: str, shell: Shell) -> None:
    sentence = "cannot be written to: File name too long" if "fff" in words else "`--out` needs `--format`"
    assert sentence in shell.refuse("score", RUN, "x", *words.split())


def test_disk_that_is_full__is_one_sentence(shell: Shell) -> None:
    refusal = shell.refuse("score", RUN, "x", "--format", "csv", "--out", "/dev/full", code=1)
    assert refusal == "mt: The disk is full, so `full` could not be written: free some space.\n"
    environment = environment_in(shell.root, QUEUE__EMBEDDED_WORKERS="0")
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "trainer", "score", RUN, "x"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment, timeout=PATIENCE_SECONDS)
    sentence = "mt: The result could not be written to standard output: No space left on device.\n"
    assert (done.returncode, done.stderr.decode()) == (1, sentence)


def test_text_with_a_carriage_return__is_one_row(shell: Shell) -> None:
    words = ("score", RUN, "the\rsun was\ns\n", *"--detail-level per_word --no-bos --format".split())
    for form, delimiter in (("csv", ","), ("tsv", "\t")):
        assert [row["unit"] for row in cells_of(shell.type(*words, form), delimiter)] == ["the\rsun", "was", "s"]
    first, second = shell.type(*words, "jsonl").splitlines()
    assert '"words":[{"text":"the\\rsun","span":[0,7],"surprisal":null},' in first
    assert '"bits_per_char":null,"bits_per_byte":null,' in second and 'tokens"' not in second.replace("n_tokens", "")


def test_run_without_its_weights__ends_the_reading(shell: Shell) -> None:
    finished_run(shell.root, "char_lstm-2")
    (shell.artifacts / "models" / "char_lstm-2" / "model.safetensors").write_bytes(b"gone")
    (shell.root / "large.txt").write_text("the sun was shining\n" * 5000, encoding="utf-8")
    # a process of its own: what asyncio says of failures that nobody has looked at, it says when they go
    done = mt(shell.root, *"score char_lstm-2 --path large.txt --format jsonl".split(), QUEUE__EMBEDDED_WORKERS="0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_interrupt__ends_after_whole_lines(shell: Shell) -> None:
    cut, pipe = shell.folder / "cut", shell.folder / "pipe"
    os.mkfifo(pipe)

    def interrupt() -> None:
        with pipe.open("wb", buffering=0) as writer:
            while not (cut.exists() and cut.stat().st_size):  # the text has no end before
                writer.write(b"the sun was shining on the sea\n" * 1000)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert (score(shell, "--path pipe --format jsonl --out cut", code=130), shell.err) == ("", "Interrupted.\n")
    content = cut.read_text(encoding="utf-8")
    assert content.endswith("\n")
    assert [line.line for line in lines_of(content)] == list(range(1, content.count("\n") + 1))


def test_interrupt_while_a_pipe_is_read__ends_at_once(shell: Shell) -> None:
    pipe = shell.folder / "pipe"
    os.mkfifo(pipe)

    def interrupt() -> None:
        with pipe.open("wb", buffering=0) as writer:
            writer.write(b"the sun\n")
            wait_until(lambda: array("i", fcntl.ioctl(writer, termios.FIONREAD, b"\0" * 4)) == array("i", [0]))
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert (score(shell, "--path pipe --format jsonl", code=130), shell.err) == ("", "Interrupted.\n")


def test_reader_that_goes__ends_it_quietly(shell: Shell) -> None:
    shell.write("long.txt", LONG_TEXT)
    command = f'"{sys.executable}" -m trainer score {RUN} --path long.txt --format csv | head -2'
    environment = environment_in(shell.root, QUEUE__EMBEDDED_WORKERS="0")
    words = ["bash", "-c", command]
    done = subprocess.run(words, cwd=shell.folder, env=environment, capture_output=True, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 2, b"")
