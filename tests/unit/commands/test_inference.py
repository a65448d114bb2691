"""Notes that are shown with a generated text, and with a text to measure on."""

from pathlib import Path

import pytest

from tests.support import settings_in, some_text
from trainer.commands.corpus_names import CorpusToMeasure
from trainer.commands.inference import end_note
from trainer.commands.terminal import Terminal
from trainer.contracts.generations import FinishReason, GenerateResponse


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
