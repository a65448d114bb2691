"""The saved model: the same answers after loading, and a refusal of all that does not fit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.tiny_models import char_tokenizer, small_model, tensor_of
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import Initialization, RnnArchitecture, RnnConfig
from trainer.inference.model_files import load_model, save_model
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import vocabulary_of

TOKENIZER = char_tokenizer(["abcde"])


def config_of(architecture: RnnArchitecture = "lstm", *, tied: bool = True, hidden_size: int = 7) -> RnnConfig:
    return RnnConfig(
        architecture=architecture, embedding_size=6, hidden_size=hidden_size, num_layers=2, tie_word_embeddings=tied
    )


def saved(folder: Path, architecture: RnnArchitecture = "lstm", *, tied: bool = True) -> LanguageModel:
    model = small_model(TOKENIZER.vocab_size, architecture, tied=tied)
    save_model(folder, model, config_of(architecture, tied=tied))
    TOKENIZER.save(folder / "tokenizer")
    return model


@pytest.mark.parametrize("architecture", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("tied", [True, False])
def test_load__gives_the_same_logits_bit_for_bit(tmp_path: Path, architecture: RnnArchitecture, tied: bool) -> None:
    model = saved(tmp_path, architecture, tied=tied)
    ids = tensor_of([[2, 4, 5, 6, 3, 2, 8]])
    loaded, tokenizer = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model.forward(ids), loaded.forward(ids))
    assert not loaded.training
    assert tokenizer.vocab_size == loaded.vocab_size
    weights: dict[str, Tensor] = loaded.state_dict()
    assert all(weight.device.type == "cpu" for weight in weights.values())


@pytest.mark.process
@pytest.mark.parametrize("initialization", ["torch", "keyboard"])
def test_load__does_not_load_the_compiler_of_torch(tmp_path: Path, initialization: Initialization) -> None:
    config = changed(config_of(), initialization=initialization)
    save_model(tmp_path, build(config, vocabulary_of(TOKENIZER)), config)
    TOKENIZER.save(tmp_path / "tokenizer")
    program = (
        "import pathlib, sys; from trainer.inference.model_files import load_model;"
        f" load_model(pathlib.Path({str(tmp_path)!r})); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_load__refuses_a_missing_or_broken_file(tmp_path: Path, file: str) -> None:
    saved(tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    for broken in (None, b"", b"\xff" * 200, whole[:50], whole[:-1]):
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        with pytest.raises(AppError) as caught:
            load_model(tmp_path)
        assert caught.value.code == ErrorCode.MODEL_LOAD_FAILED


def test_load__refuses_weights_of_other_shapes_before_it_makes_any(tmp_path: Path) -> None:
    model = saved(tmp_path)
    for config in (config_of("gru"), config_of(tied=False), config_of(hidden_size=10_000_000)):
        save_model(tmp_path, model, config)
        with pytest.raises(AppError, match="shapes") as caught:
            load_model(tmp_path)
        assert caught.value.code == ErrorCode.MODEL_LOAD_FAILED


def test_load__refuses_another_tokenizer(tmp_path: Path) -> None:
    saved(tmp_path)
    char_tokenizer(["abcdef"]).save(tmp_path / "tokenizer")
    with pytest.raises(AppError, match="9 tokens, but the tokenizer has 10") as caught:
        load_model(tmp_path)
    assert caught.value.code == ErrorCode.MODEL_INCOMPATIBLE
