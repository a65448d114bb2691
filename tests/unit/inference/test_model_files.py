"""The saved model: a refusal of all that does not fit."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.refusals import refused
from tests.support.tiny_models import char_tokenizer
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import Initialization, RnnConfig
from trainer.inference.model_files import load_model, save_model
from trainer.models import build
from trainer.tokenizers.base import vocabulary_of

TOKENIZER = char_tokenizer(["abcde"])
CONFIG = RnnConfig(architecture="lstm", embedding_size=6, hidden_size=7, num_layers=2, tie_word_embeddings=True)


def save(folder: Path, config: RnnConfig = CONFIG, written: RnnConfig | None = None) -> None:
    """Save a model, if wished with the config of another one."""
    folder.mkdir(exist_ok=True)
    save_model(folder, build(config, vocabulary_of(TOKENIZER)), written or config)
    TOKENIZER.save(folder / "tokenizer")


@pytest.mark.slow
@pytest.mark.process
def test_process__loads_no_compiler_and_the_library_of_transformers_late(tmp_path: Path) -> None:
    """Neither a step of the optimizers nor a model that is loaded needs torch's compiler."""
    initializations: list[Initialization] = ["torch", "keyboard"]
    for initialization in initializations:
        save(tmp_path / initialization, changed(CONFIG, initialization=initialization))
    program = """
import os, pathlib, sys; before = dict(os.environ)
import torch, trainer.worker.children.inference_server, trainer.worker.children.train_child
from tests.support.families import model_of
from trainer.contracts.training_options import OptimizerConfig
from trainer.inference.model_files import load_model
from trainer.training.update_rules import UpdateRule, WeightGroup
for folder in pathlib.Path(sys.argv[1]).iterdir():
    load_model(folder)
for name in ("adamw", "adam", "sgd"):
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    UpdateRule(OptimizerConfig(name=name), [WeightGroup([weight], None)]).step(0.1)
model_of("lstm both")
assert not {"torch._dynamo", "transformers"} & set(sys.modules)
model_of("gpt2")
assert "transformers" in sys.modules and os.environ == before
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_load__refuses_a_missing_or_broken_file(tmp_path: Path, file: str) -> None:
    save(tmp_path)
    path = tmp_path / file
    good = path.read_bytes()
    for broken in (None, b"", b"\xff" * 200, good[:50], good[:-1]):
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        with refused(ErrorCode.MODEL_LOAD_FAILED):
            load_model(tmp_path)


@pytest.mark.parametrize(
    "values", [{"architecture": "gru"}, {"tie_word_embeddings": False}, {"hidden_size": 10_000_000}]
)
def test_load__refuses_other_shapes_before_it_makes_any(tmp_path: Path, values: dict[str, object]) -> None:
    save(tmp_path, written=changed(CONFIG, **values))
    with refused(ErrorCode.MODEL_LOAD_FAILED, "shapes"):
        load_model(tmp_path)


def test_load__refuses_another_tokenizer(tmp_path: Path) -> None:
    save(tmp_path)
    char_tokenizer(["abcdef"]).save(tmp_path / "tokenizer")
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "9 tokens, but the tokenizer has 10"):
        load_model(tmp_path)
