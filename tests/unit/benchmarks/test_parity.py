"""The measurements of `benchmarks/parity.py` on tiny runs of every family."""

from pathlib import Path

import pytest

from benchmarks.parity import SAMPLINGS, drawn_p_value, greedy_differences, surprisal_difference, word_difference
from tests.support.finished_runs import LINES, finished_run
from trainer.api import Model
from trainer.export.folders import export_folder

SENTENCES = [*LINES[:2], "the sea", "sun", "quokka his"]


@pytest.mark.parametrize(("family", "method"), [("gpt2", "bpe"), ("bert", "wordpiece")])
def test_minicons__loads_an_exported_run_and_gives_our_surprisals(family: str, method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_folder(finished_run(tmp_path, family, method), "hf", out)
    found = surprisal_difference(out, [line[:20] for line in SENTENCES], batch=3)
    assert found.token_nats < 1e-4 and found.sum_nats < 1e-4


@pytest.mark.parametrize("method", ["bpe", "wordpiece", "sentencepiece", "sentencepiece bpe"])
def test_minicons__gives_our_words_with_every_subword_method(method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_folder(finished_run(tmp_path, "llama", method), "hf", out)
    assert word_difference(out, ["the sun was on", "shining with all", "quokka his", "sun"]) < 1e-4


def test_draws__have_the_distribution_that_the_librarys_filters_leave(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_folder(finished_run(tmp_path, "gpt2"), "hf", out)
    assert drawn_p_value(out, "the s", 1000, **SAMPLINGS["all three"]) > 1e-3
    assert greedy_differences(Model.load(out), out, ["the", "sea and"]) == 0
