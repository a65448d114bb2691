"""Notes that are shown with a generated text, and with a text to measure on."""

from pathlib import Path

import pytest
from matplotlib.font_manager import fontManager
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.support import settings_in, some_text
from tests.support.messages import EVALUATION, KNOWN_EVALUATION
from tests.support.scores import score_of
from trainer.commands.corpus_names import CorpusToMeasure, note_tables
from trainer.commands.inference import end_note, evaluation_parts
from trainer.commands.score_output import draw_heatmap, summary_of
from trainer.commands.terminal import Terminal
from trainer.contracts.base import changed
from trainer.contracts.generations import FinishReason, GenerateResponse
from trainer.lab.here import Here
from trainer.reports import fonts


@pytest.mark.parametrize(
    ("reason", "steps", "note"),
    [
        ("eos", (3,), "eos"),
        ("context_full", (3,), "context_full: the model's context is full"),
        ("context_full", (0, 0), "context_full: the prompt has 1,200 tokens, more than the model's context"),
    ],
)
def test_end__states_that_the_context_is_full(reason: FinishReason, steps: tuple[int, ...], note: str) -> None:
    response = GenerateResponse(request_id="q", run_id="r", status="completed", steps=steps, prompt_tokens=1200)
    assert end_note(reason, response) == note


def test_corpus_folder__is_measured_as_one_text_with_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bank"
    folder.mkdir()
    for name in ("train.txt", "test.txt", "more.csv"):
        (folder / name).write_text(some_text(), encoding="utf-8")
    CorpusToMeasure(folder, settings_in(tmp_path), Terminal(as_json=False))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Note: All files of 'bank' are one text, also test.txt and train.txt."
    assert [line.partition(".")[0] for line in said[1:]] == ["Note: Left out of 'bank': more"]


def test_heat_map__with_a_sign_that_no_font_has_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = fonts._InstalledFonts()
    installed._known, installed._newer = [one for one in fontManager.ttflist if one.name == fonts.FIRST_FONT], []
    monkeypatch.setattr(fonts, "_INSTALLED", installed)
    draw_heatmap(Terminal(as_json=False), tmp_path / "map.png", score_of("ab中", [1.0, 2.0, 3.0]), "ab中")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    said = "mt: No font of this machine has 1 sign of this picture: install one (on Debian and Ubuntu fonts-noto-cjk)."
    assert capsys.readouterr().err == f"{said}\n"


async def test_table__is_said_to_be_read_as_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text('{"text": "ab"}\n', encoding="utf-8")
    here = Here(settings_in(tmp_path))
    await here.corpora.offer(table)
    note_tables(here, Terminal(as_json=False))
    await here.close()
    assert capsys.readouterr().err == "Note: 'table.jsonl': 1 text read from the field `text`.\n"


def test_evaluation__marks_all_figures_of_unknown_text() -> None:
    def shown(share: float, *, has_known: bool) -> str:
        metrics = changed(KNOWN_EVALUATION if has_known else EVALUATION, unknown_char_share=share)
        return "".join(map(text_of, evaluation_parts(metrics, "run: test", "bits")))

    known = "4.328 bits per token, perplexity 20.09, top-1 12.5%, top-5 25.0%"
    assert "(!)" not in shown(0.001, has_known=True) and known not in shown(0.001, has_known=True)
    for has_known in (True, False):
        marked = shown(0.05, has_known=has_known)
        assert "2.885 bits per token (!), 1.500 bits per character (!), perplexity 7.39 (!)" in marked
        assert "25.0% (!), 50.0% (!)" in marked and (known in marked) == has_known
    largely, of_earlier_version = (shown(0.25, has_known=has_known) for has_known in (True, False))
    assert (
        known in largely and "7.39" not in largely and "50.0%" not in largely and "2.885 bits per token (!)" in largely
    )
    assert "perplexity 7.39 (!)" in of_earlier_version and "25.0% (!), 50.0% (!)" in of_earlier_version


def test_score__marks_its_bits_per_byte_and_its_mean_surprisal() -> None:
    score = changed(score_of("abc", [1.0, 2.0, 3.0]), bits_per_byte=7.265, unknown_char_share=0.865)
    marked, clean = (
        text_of(summary_of(one, "score", "bits")) for one in (score, changed(score, unknown_char_share=0.0))
    )
    assert "7.265 bits per byte with line ends (!)" in marked and "per token of the text (!)" in marked
    assert "7.265 bits per byte with line ends" in clean and "(!)" not in clean


def text_of(part: Table | Text) -> str:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(part)
    return captured.get()
