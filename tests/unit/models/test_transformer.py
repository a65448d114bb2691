"""The transformers against the models of the library itself, made here by its own words, with the same weights."""

import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol

import pytest
import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from tests.support.families import POSITIONS, TRANSFORMERS, VOCABULARY, config_of, model_of, vocabulary
from tests.support.tiny_models import tensor_of
from trainer.contracts.base import changed
from trainer.contracts.models import Activation, BertConfig, Gpt2Config, LlamaConfig, QwenConfig
from trainer.models import bert, build, gpt2, rotary
from trainer.models.base import LanguageModel
from trainer.models.dropout import Dropout
from trainer.models.transformer import library_activation
from trainer.models.transformer_steps import activation

COMMON: dict[str, object] = {"vocab_size": 13, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
ROTARY: dict[str, object] = COMMON | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": POSITIONS,
}


class Output(Protocol):
    logits: Tensor


class MakeConfig(Protocol):
    def __call__(self, **values: object) -> PreTrainedConfig: ...


class Theirs(Protocol):
    """A model of the library with its head."""

    def __call__(self, ids: Tensor, attention_mask: Tensor | None = None) -> Output: ...
    def eval(self) -> "Theirs": ...
    def load_state_dict(self, weights: Mapping[str, Tensor], strict: bool) -> tuple[list[str], list[str]]: ...


def theirs(module: str, config: str, model: str, **values: object) -> Theirs:
    make_config: MakeConfig = getattr(import_module(f"transformers.models.{module}.configuration_{module}"), config)
    make_model: Callable[[PreTrainedConfig], Theirs] = getattr(
        import_module(f"transformers.models.{module}.modeling_{module}"), model
    )
    return make_model(make_config(**values)).eval()


def library_model(name: str) -> tuple[Theirs, dict[str, str]]:
    """Their model, and how the names of our weights begin in it."""
    if name == "gpt2":
        sizes: dict[str, object] = {"n_embd": 16, "n_inner": 24, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
        made = theirs("gpt2", "GPT2Config", "GPT2LMHeadModel", **COMMON, **sizes, activation_function="gelu")
        return made, {"body.": "transformer."}
    if name == "llama":
        made = theirs("llama", "LlamaConfig", "LlamaForCausalLM", **ROTARY, num_key_value_heads=2)
        return made, {"body.": "model.", "head.": "lm_head."}
    if name == "qwen":
        tied: dict[str, object] = {"num_key_value_heads": 1, "tie_word_embeddings": True}
        made = theirs("qwen2", "Qwen2Config", "Qwen2ForCausalLM", **ROTARY, **tied)
        return made, {"body.": "model."}
    made = theirs("bert", "BertConfig", "BertForMaskedLM", **ROTARY)
    return made, {"body.": "bert.", "transform.": "cls.predictions.transform.", "head_bias": "cls.predictions.bias"}


def library_twin(name: str, ours: LanguageModel) -> Theirs:
    """Their model with the weights of ours."""
    library, prefixes = library_model(name)
    weights: dict[str, Tensor] = ours.state_dict()
    renamed = {
        key.replace(mine, other, 1): weight
        for key, weight in weights.items()
        for mine, other in prefixes.items()
        if key.startswith(mine)
    }
    _, unexpected = library.load_state_dict(renamed, strict=False)
    assert (len(renamed), unexpected) == (len(weights), [])
    return library


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_logits__are_those_of_the_library(name: str) -> None:
    ours = model_of(name)
    library = library_twin(name, ours)
    ids = tensor_of([[2, 5, 9, 8, 3, 2, 6, 7, 11, 12], [2, 5, 9, 8, 3, 2, 0, 0, 0, 0]])
    read = (ids > 0).long()
    with torch.inference_mode():
        mine = ours.forward(ids, read.sum(dim=1))
        expected = library(ids, attention_mask=read).logits
    assert float((mine[0] - expected[0]).abs().max()) < 1e-5
    assert float((mine[1, :6] - expected[1, :6]).abs().max()) < 1e-5


ACTIVATIONS: list[Activation] = ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation__is_that_of_the_library_with_its_gradient(name: Activation) -> None:
    library: Mapping[str, Callable[[Tensor], Tensor]] = import_module("transformers.activations").ACT2FN
    numbers = torch.linspace(-8, 8, 4001, dtype=torch.float64)

    def with_gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
        inputs = numbers.clone().requires_grad_()
        outputs = function(inputs)
        torch.autograd.backward([outputs.sum()])
        assert inputs.grad is not None
        return torch.stack([outputs.detach(), inputs.grad])

    expected = with_gradient(library[name])
    assert torch.allclose(with_gradient(library[library_activation(name)]), expected, atol=1e-12)
    assert torch.allclose(with_gradient(activation(name)), expected, atol=1e-12)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_special_ids__of_the_librarys_config_are_the_tokenizers(name: str) -> None:
    config, tokens = config_of(name)[0], vocabulary(50, pad=7, bos=8, eos=9, mask=4)
    made: PreTrainedConfig
    match config:
        case Gpt2Config():
            made = gpt2.library_config(config, tokens)
        case LlamaConfig() | QwenConfig():
            made = rotary.library_config(config, tokens)
        case _:
            assert isinstance(config, BertConfig)
            made = bert.library_config(config, tokens)
    for token, expected in (("pad", 7), ("bos", 8), ("eos", 9)):
        found: object = getattr(made, f"{token}_token_id")
        assert found == expected
    assert sorted(VOCABULARY.special_ids.all) == [0, 1, 2, 3, 4]


@pytest.mark.process
def test_other_models__do_without_the_library() -> None:
    program = (
        "import sys, trainer.worker.children.inference_server, trainer.worker.children.train_child;"
        "from tests.support.families import model_of; model_of('lstm both');"
        "assert 'transformers' not in sys.modules; model_of('gpt2'); assert 'transformers' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.process
def test_import_of_a_transformer__leaves_the_environment_for_child_processes() -> None:
    program = "import os; before = dict(os.environ); import trainer.models.transformer; assert os.environ == before"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "count"), [("gpt2", 5), ("bert", 5)])  # two of each layer, and the embedding's
def test_dropout__is_drawn_at_every_place_of_the_library(name: str, count: int) -> None:
    config, objective = config_of(name)
    model = build(changed(config, dropout=0.3, attention_dropout=0.3, num_layers=2), VOCABULARY, objective).train()
    kept: list[Tensor] = []

    def look(_: Dropout, inputs: tuple[Tensor], output: Tensor) -> None:
        kept.append(output != 0)
        torch.testing.assert_close(output, inputs[0] / (1 - 0.3) * kept[-1], rtol=1e-4, atol=1e-6)

    places = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    handles = [module.register_forward_hook(look) for module in places]
    model.forward(torch.randint(5, 13, (100, POSITIONS)))
    assert all(isinstance(module, Dropout) for module in places)
    assert len(kept) == count and len(handles) >= count
    for is_kept in kept:
        assert abs(float(is_kept.float().mean()) - 0.7) < 5 * math.sqrt(0.3 * 0.7 / is_kept.numel())
