"""Notes that are shown with a generated text, and with a text to measure on."""

from pathlib import Path

import pytest
from matplotlib.font_manager import fontManager

from tests.support import settings_in, some_text
from tests.support.scores import score_of
from trainer.commands.corpus_names import CorpusToMeasure, note_tables
from trainer.commands.inference import end_note
from trainer.commands.score_output import draw_heatmap
from trainer.commands.terminal import Terminal
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
