"""The saved model: a refusal of all that does not fit."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.process
def test_load__does_not_load_the_compiler_of_torch(tmp_path: Path) -> None:
    initializations: list[Initialization] = ["torch", "keyboard"]
    for initialization in initializations:
        save(tmp_path / initialization, changed(CONFIG, initialization=initialization))
    program = (
        "import pathlib, sys; from trainer.inference.model_files import load_model;"
        f" [load_model(pathlib.Path({str(tmp_path)!r}, name)) for name in {initializations}];"
        " print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


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
