"""Cards of exported models: how to load them, and what their numbers are."""

import shutil
from pathlib import Path

import pytest

from tests.support.families import MASKED, POSITIONS
from tests.support.finished_runs import finished_run
from tests.support.run_shell import FINISHED_RUN
from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.contracts.base import changed
from trainer.contracts.leaks import Leak
from trainer.contracts.runs import DataFacts, Environment, SplitSizes
from trainer.contracts.tokenizers import Normalization
from trainer.export.card import FolderFormat, model_card
from trainer.export.folders import export_folder


@pytest.mark.parametrize("name", ["lstm", "gpt2", "bert", "gru both"])
def test_card__says_how_to_load_and_what_the_numbers_are(name: str, tmp_path: Path) -> None:
    export_folder(finished_run(tmp_path, name), "hf", tmp_path / "out", "cc0-1.0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n") and "\nlicense: cc0-1.0\n" in card
    unit = "masked token" if name in MASKED else "token"
    assert f"| test loss | 2.1250 nats per {unit} |" in card
    assert "| test | 3.0660 bits per character |" in card
    recurrent = name in ("lstm", "gru both")
    assert ("trust_remote_code=True" in card) == recurrent == (tmp_path / "out" / "modeling_recurrent.py").exists()
    assert ("at most 24 tokens" in card) == (not recurrent)
    assert ("tokenizer.bos_token" in card) == (name not in MASKED)
    assert "licence is unknown" not in card


def test_card_of_a_trained_run__says_what_it_was_trained_on(tmp_path: Path) -> None:
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    [run] = RunStore(tmp_path / "artifacts").all()
    export_folder(run, "hf", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "on the text `text` (1,177 bytes, SHA-256 `dabe9d2680f3" in card
    assert "| training text | 51 lines, 948 characters |" in card
    assert "| trained with | PyTorch 2.13.0+cpu |" in card and "| trained on | cpu |" in card
    assert "| CPU | AMD EPYC, 1 thread |" in card
    assert "| test perplexity | 9.931 per token |" in card


def test_card__says_all_that_is_known_of_a_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gru", provenance={"source_corpus": "a fairy tale"})
    manifest, tokenizer = run.completed_manifest(), read_manifest(run.tokenizer)
    size = SplitSizes(lines=1, chars=1, tokens=1)
    leaking = changed(size, leak=Leak(lines=0.5, words=0.25))
    environment = Environment(
        python="3.11",
        libraries={"torch": "2"},
        cpu="x",
        gpu=None,
        threads=2,
        cpu_capability="AVX2",
        device="cpu",
        git_commit=None,
    )
    known = changed(
        manifest,
        data=DataFacts(corpus=manifest.effective.corpus, train=size, validation=size, test=leaking),
        environment=environment,
        metrics=changed(manifest.metrics, best_margin=0.0625),
    )
    lower = changed(tokenizer, normalization=Normalization(lowercase=True))
    plain, full = (model_card(*facts, None, "hf", None) for facts in ((manifest, tokenizer), (known, lower)))
    shares = "50.0% of the lines and 25.0% of the 13-grams of words"
    for line in (
        f"| test split in the training split | {shares} |",
        f"- {shares} of the test split stand in the training split: its loss says little about unseen text.",
        "| CPU | x, AVX2, 2 threads |",
        "| validation loss | 2.2500 ± 0.0625 (95 %) nats per token |",
        "- Texts are lower-cased before they are encoded.",
    ):
        assert line in full and line not in plain
    assert "| validation loss | 2.2500 nats per token |" in plain
    assert "on the text `text`, of a fairy tale (1 bytes" in plain


@pytest.mark.parametrize(
    ("name", "form", "lines"),
    [
        ("gpt2", "onnx", ["2 layers keys and values (1, batch, positions, 2, 8)", "one position of zeros"]),
        ("qwen", "onnx", ["2 layers keys and values (1, batch, positions, 1, 8)", "one position of zeros"]),
        ("gru both", "torchscript", ["logits = model(ids, lengths)"]),
    ],
)
def test_card_of_a_graph__says_its_inputs(tmp_path: Path, name: str, form: FolderFormat, lines: list[str]) -> None:
    run = finished_run(tmp_path, name)
    positions = POSITIONS if form == "onnx" else None
    card = model_card(run.completed_manifest(), read_manifest(run.tokenizer), positions, form, None)
    assert all(line in card for line in lines)
