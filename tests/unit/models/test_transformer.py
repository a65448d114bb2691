"""The transformers against the models of the library itself, with the same weights."""

import math
from collections.abc import Callable, Mapping
from importlib import import_module

import pytest
import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from tests.support.families import POSITIONS, TRANSFORMERS, VOCABULARY, config_of, model_of, vocabulary
from tests.support.library_models import library_twin
from tests.support.tiny_models import tensor_of
from trainer.contracts.base import changed
from trainer.contracts.models import Activation, BertConfig, Gpt2Config, LlamaConfig, QwenConfig
from trainer.models import bert, build, gpt2, rotary
from trainer.models.dropout import Dropout
from trainer.models.transformer import library_activation

ACTIVATIONS: list[Activation] = ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_logits__are_those_of_the_library(name: str) -> None:
    ours = model_of(name)
    ids = tensor_of([[2, 5, 9, 8, 3, 2, 6, 7, 11, 12], [2, 5, 9, 8, 3, 2, 0, 0, 0, 0]])
    read = (ids > 0).long()
    with torch.inference_mode():
        mine = ours.forward(ids, read.sum(dim=1))
        expected = library_twin(name, ours)(ids, attention_mask=read).logits
    assert float((mine[0] - expected[0]).abs().max()) < 1e-5
    assert float((mine[1, :6] - expected[1, :6]).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation__equals_the_library_with_its_gradient(name: Activation) -> None:
    library: Mapping[str, Callable[[Tensor], Tensor]] = import_module("transformers.activations").ACT2FN

    def with_gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
        inputs = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
        outputs = function(inputs)
        return torch.stack([outputs.detach(), *torch.autograd.grad(outputs.sum(), [inputs])])

    expected = with_gradient(library[name])
    assert torch.allclose(with_gradient(library[library_activation(name)]), expected, atol=1e-12)


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


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama", "qwen"])
def test_dropout__is_drawn_for_the_embedding_and_for_what_each_part_of_a_layer_adds(name: str) -> None:
    """In GPT-2 and BERT as in the library, which drops nothing of the others but attention."""
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
    assert len(kept) == 1 + 2 * 2 and len(handles) >= len(kept)
    for is_kept in kept:
        assert abs(float(is_kept.float().mean()) - 0.7) < 5 * math.sqrt(0.3 * 0.7 / is_kept.numel())
