"""What `mt` prints: progress during a run, tables, notes."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support import ROOT
from tests.support.runs import record
from tests.support.terminals import control_signs, needs_terminals, shown_in_a_terminal
from trainer.artifacts.runs import RunStore
from trainer.commands.connection import accept, queued_run
from trainer.commands.listing import next_of
from trainer.commands.terminal import Listing, Queued, Terminal, columns, loss_figures, wrapped
from trainer.commands.training import busy_note
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.contracts.runs import Accepted, RunStatus
from trainer.contracts.wording import duration
from trainer.reports.run_notes import describe_unknown


@pytest.fixture(name="waiting")
def waiting_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStatus:
    """The status of a run that waits."""
    monkeypatch.setenv("COLUMNS", "200")
    return RunStore(tmp_path).create(record()).follow().refresh()


def test_unknown_characters__mark_all_figures() -> None:
    figures = "0.500 nats per token, 0.623 nats per character, perplexity 1.65"
    marked = "0.500 nats per token (!), 0.623 nats per character (!), perplexity 1.65 (!)"
    for share, shown in ((None, None), (0.0, "0.0% of the characters"), (0.001, "0.1% of the characters")):
        assert loss_figures(0.5, 0.899, "nats", unknown_char_share=share) == figures
        assert describe_unknown(share) == shown
    assert loss_figures(0.5, 0.899, "nats", unknown_char_share=0.845) == marked
    assert loss_figures(0.5, 0.899, "nats", unknown_char_share=0.05, has_known=True) == marked
    assert loss_figures(0.5, 0.899, "nats", unknown_char_share=0.051, has_known=True) == "0.500 nats per token (!)"
    with_margin = "0.721 ± 0.018 (95 %) bits per token, 0.899 bits per character, perplexity 1.65"
    assert loss_figures(0.5, 0.899, "bits", margin_nats=0.0123) == with_margin
    assert loss_figures(None, None, "bits") is None
    assert describe_unknown(0.845) == "84.5% of the characters; (!) figures are too low to compare"


HOSTILE = "a\x1b]0;OWNED\x07b\u202ec\x9b31m\x7f\u2066d\u2028e\r"
WRITERS = """
import sys
from rich.text import Text
from trainer.commands.terminal import Listing, Terminal, columns, summary
from trainer.contracts.errors import ErrorBody, ErrorCode

text = sys.argv[1]
terminal, as_json = Terminal(as_json=False), Terminal(as_json=True)
terminal.write(text)
terminal.line(text)
terminal.note(text)
terminal.note_once(text)
terminal.note_if_silent(text)
terminal.show({}, Text(text), summary(text, {text: text}), Listing([[text], [text]]), columns([[text]]))
terminal.progress_of(text, text, 50.0, text)
body = ErrorBody(code=ErrorCode.RUN_NOT_FOUND, message=text, request_id="r")
terminal.error(body)
as_json.show({"text": text})
as_json.error(body)
"""


@pytest.mark.process
@needs_terminals
def test_terminal__shows_the_control_characters_of_texts_as_signs() -> None:
    code, shown = shown_in_a_terminal([sys.executable, "-c", WRITERS, HOSTILE], ROOT, os.environ)
    assert code == 0 and shown.count("\u241b]0;OWNED") >= 10, shown
    assert "b<U+202E>c<U+009B>31m<U+007F><U+2066>d<U+2028>e\u240d" in shown
    assert control_signs(shown) == []


@pytest.mark.process
def test_file__has_the_text_as_it_is() -> None:
    words = "import sys; from trainer.commands.terminal import Terminal; Terminal(as_json=False).line(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", words, HOSTILE], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode() == f"{HOSTILE}\n"


@pytest.mark.parametrize(("share", "mark"), [(None, ""), (0.001, ""), (0.0011, " (!)")])
def test_progress__shows_losses_and_marks_unknown_text(
    waiting: RunStatus, capsys: pytest.CaptureFixture[str], share: float | None, mark: str
) -> None:
    training = changed(
        waiting,
        **{"status": "running", "epoch": 1, "train_loss": 2.5, "progress": 50.0},
        **{"tokens_per_second": 1234.6, "eta_seconds": 65.0, "unknown_char_share": share},
    )
    bits = {"train_bits_per_char": 3.607, "val_loss": 2.25, "val_bits_per_char": 3.246}
    rest = ", 1,235 tokens/s, ETA 0:01:05"
    for status, losses in (
        (training, f"loss 3.607 bits{mark}"),
        (changed(training, **bits), f"loss 3.607 bits{mark} (3.607/char{mark}), val 3.246{mark} (3.246/char{mark})"),
    ):
        terminal = Terminal(as_json=False)
        terminal.progress(waiting)
        terminal.progress(status)
        terminal.interrupted()
        assert f"50 % epoch 1/1, {losses}{rest}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[red]x[/red]", ":smile:", "a\tb", "bell \a and \r", "long " * 100, "җ", ""])
def test_line__is_written_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=False).line(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_columns__are_as_wide_as_they_need_and_nothing_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("run", "label"), ("x" * 100, "[red]:smile:"), ("文字", "")]
    Terminal(as_json=False).show(ErrorBody(code=ErrorCode.CONFLICT, message="", request_id=""), columns(rows))
    assert capsys.readouterr().out.splitlines() == [f"run{' ' * 97}  label", f"{'x' * 100}  [red]:smile:", "文字"]


def test_duration__is_shown_in_its_two_largest_units() -> None:
    shown = {0: "0 s", 0.4: "0 s", 59.6: "1 min", 61: "1 min 1 s", 7384: "2 h 3 min", 200_000: "2 d 7 h"}
    assert {seconds: duration(seconds) for seconds in shown} == shown


def test_interrupt__says_how_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    def line(terminal: Terminal) -> str:
        terminal.interrupted()
        return capsys.readouterr().err.splitlines()[-1]

    terminal = Terminal(as_json=False)
    assert line(terminal) == "Interrupted."
    with terminal.transferring("upload kk.txt") as progress:
        progress(1, 2)
        assert line(terminal) == "Interrupted. Continue with the same command."
    assert line(terminal) == "Interrupted."
    terminal.continues_when_repeated = True
    assert line(terminal) == "Interrupted. Continue with the same command."


async def test_interrupt__while_a_run_is_being_accepted_waits_for_it() -> None:
    terminal, sent, answered = Terminal(as_json=False), asyncio.Event(), asyncio.Event()

    async def accepting() -> Accepted:
        sent.set()
        await answered.wait()
        return Accepted(run_id="char_lstm-1", job_id="char_lstm-1", status="queued")

    command = asyncio.create_task(accept(accepting(), queued_run, terminal))
    await sent.wait()
    command.cancel()
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert terminal.queued == Queued("char_lstm-1", None, ("char_lstm-1",))


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"status": "paused", "step": 1200}, "paused at step 1,200; continues with: mt resume char_lstm-1"),
        ({"status": "running", "progress": 42.0, "eta_seconds": 61.0}, "42 %, 1 min 1 s left"),
        ({"status": "running", "reachable": False}, "0 %; the worker is not responding"),
        ({"status": "queued"}, "Waiting for a worker."),
    ],
)
def test_queue__says_what_is_next_for_each_run(waiting: RunStatus, fields: dict[str, object], shown: str) -> None:
    assert next_of(changed(waiting, **fields)) == shown


def test_busy_machine__is_named_where_other_programs_use_half_of_its_cores() -> None:
    assert busy_note(0.9, 2) == ""
    assert busy_note(1.44, 2) == " Other programs use 1.4 of 2 cores, so it takes longer now."
    assert busy_note(9.0, 8) == " Other programs use 8.0 of 8 cores, so it takes longer now."


LONG = ("char_lstm-20261122-74f34df5", "completed, 3 of 3 runs", "1.234 ± 0.010 nats, 1.780 bits/char (!)")
LABELS = ["kk-ipa", "a label of many words " * 5, "漢字" * 60, "x" * 300, ""]


@pytest.mark.parametrize("label", LABELS)
def test_listing__is_no_wider_than_the_terminal_and_keeps_every_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], label: str
) -> None:
    titles, row = ("run", "status", "best validation", "label"), (*LONG, label)
    monkeypatch.setenv("COLUMNS", "80")
    Terminal(as_json=False).show({}, Listing([titles, row, row]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    shown = "".join("".join(lines).split())
    assert all(shown.count("".join(cell.split())) >= 2 for cell in row if cell)
    monkeypatch.delenv("COLUMNS")
    Terminal(as_json=False).show({}, Listing([titles, row]))
    assert capsys.readouterr().out.splitlines() == columns([titles, row]).plain.splitlines()


def test_listing__has_columns_where_they_fit() -> None:
    rows = [("run", "status"), ("a", "completed")]
    assert Listing(rows).text(80).plain == columns(rows).plain == "run  status\na    completed"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("ab cd ef", 5, ["ab cd", "ef"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("", 5, [""]),
        ("ab cd", None, ["ab cd"]),
    ],
)
def test_wrapped__keeps_words_whole_where_they_fit(text: str, width: int | None, lines: list[str]) -> None:
    assert wrapped(text, width) == lines


@pytest.mark.parametrize(
    ("is_terminal", "as_json", "is_conversation", "writes", "notes"),
    [
        ("1", False, False, False, "Loading the model …\n"),
        ("0", False, False, False, ""),
        ("1", True, False, False, ""),
        ("1", False, True, False, ""),
        ("1", False, False, True, ""),
    ],
)
def test_note__comes_if_a_person_waits(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_terminal: str,
    as_json: bool,
    is_conversation: bool,
    writes: bool,
    notes: str,
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", is_terminal)
    terminal = Terminal(as_json=as_json)
    terminal.is_conversation = is_conversation
    if writes:
        terminal.line("a result")
    terminal.note_if_silent("Loading the model …")
    assert capsys.readouterr().err == notes
