"""The transformers against the models of the library with the same weights, and their steps in bf16."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib import import_module

import pytest
import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from tests.support.answers import WITH_MASK, write
from tests.support.families import (
    CAUSAL,
    POSITIONS,
    READ_ONCE,
    TRANSFORMERS,
    VOCABULARY,
    config_of,
    model_of,
    vocabulary,
)
from tests.support.library_models import library_twin
from tests.support.refusals import refused
from tests.support.tiny_models import tensor_of
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.inference import GenerateResponse, GenerationPrecision
from trainer.contracts.models import Activation, BertConfig, Gpt2Config, LlamaConfig, QwenConfig
from trainer.inference.generation import check_precision
from trainer.models import bert, build, gpt2, rotary
from trainer.models.base import LanguageModel, concatenate_states
from trainer.models.dropout import Dropout
from trainer.models.transformer import library_activation
from trainer.models.transformer_steps import activation

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
def test_activation__is_that_of_the_library_with_its_gradient(name: Activation) -> None:
    library: Mapping[str, Callable[[Tensor], Tensor]] = import_module("transformers.activations").ACT2FN

    def with_gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
        inputs = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
        outputs = function(inputs)
        return torch.stack([outputs.detach(), *torch.autograd.grad(outputs.sum(), [inputs])])

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


SEQUENCES = [[2, 5, 9, 8, 6, 5, 12, 11], [2], [2, 7, 7, 9, 10, 6]]


def written(model: LanguageModel, precision: GenerationPrecision, **values: object) -> GenerateResponse:
    fields: dict[str, object] = {"prompt_text": "abc", "seed": 3, "stop_on_eos": False, "precision": precision}
    return write(model, WITH_MASK, **fields, **values)


def logits_of_steps(model: LanguageModel) -> list[tuple[list[int], Tensor]]:
    """Ids read so far, and the logits after them, of steps up to the end of the context; two sequences leave."""
    sequences = [list(ids) for ids in SEQUENCES]
    with torch.inference_mode():
        states = [model.forward_with_state(tensor_of([ids]), model.initial_state(1))[1] for ids in sequences]
    steps = model.bf16_steps(concatenate_states(states))
    found: list[tuple[list[int], Tensor]] = []

    def read(rows: list[int], count: int) -> None:
        for number in range(count):
            ids = [5 + (row + number) % 8 for row in rows]
            logits = torch.from_numpy(steps.read(ids, rows))
            for place, row in enumerate(rows):
                sequences[row].append(ids[place])
                found.append((list(sequences[row]), logits[place]))

    read([0, 1, 2], 3)
    read([1], 2)
    steps.keep([1, 2])
    del sequences[0]
    read([0, 1], 3)
    steps.keep([1])
    del sequences[0]
    read([0], POSITIONS - len(sequences[0]))
    return found


@pytest.mark.parametrize("name", READ_ONCE)
def test_bf16_steps__are_as_near_the_forward_pass_as_the_models_own_bf16(name: str) -> None:
    """Weights and inputs of products have 8 bits in both; ours keeps everything between the products in fp32."""
    model = model_of(name)
    in_bf16 = deepcopy(model).to(torch.bfloat16)
    found = logits_of_steps(model)
    assert len(found[-1][0]) == POSITIONS
    ours, theirs = [], []
    for ids, logits in found:
        with torch.inference_mode():
            exact = model.forward(tensor_of([ids]))[0, -1]
            theirs.append((in_bf16.forward(tensor_of([ids]))[0, -1].float() - exact).abs())
        ours.append((logits - exact).abs())
        assert logits.dtype == torch.float32 and torch.equal(logits, logits.bfloat16().float())
    assert 0 < float(torch.stack(ours).mean()) < 1.2 * float(torch.stack(theirs).mean())
    assert float(torch.stack(ours).max()) < 2 * float(torch.stack(theirs).max())


@pytest.mark.parametrize("name", READ_ONCE)
def test_generation__in_bf16_repeats_itself_and_states_its_precision(name: str) -> None:
    model = model_of(name)
    values: dict[str, object] = {"num_return_sequences": 3, "logprobs": True, "max_new_tokens": POSITIONS}
    first, second = (written(model, "bf16", **values) for _ in range(2))
    fresh, exact = written(model_of(name), "bf16", **values), written(model, "fp32", **values)
    assert first == second == fresh and first.precision == "bf16"
    assert first.stop_reason == ("context_full",) * 3
    assert exact.precision == "fp32" and exact == written(model_of(name), "fp32", **values)
    assert first.logprobs is not None and exact.logprobs is not None and first.logprobs != exact.logprobs
    after_prompt = [logprobs[0] for logprobs in first.logprobs]
    assert after_prompt == [logprobs[0] for logprobs in exact.logprobs], "the prompt is read in fp32"


def test_copy_in_bf16__is_made_once_counted_and_dropped_by_training() -> None:
    model = model_of("qwen")
    size = model.memory_bytes()
    written(model, "fp32")
    assert model.memory_bytes() == size
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)  # the embedding is the head
    before, again = (written(model, "bf16", logprobs=True) for _ in range(2))
    assert before == again
    assert model.memory_bytes() == size + 2 * matrices
    with torch.no_grad():
        model.train().input_embedding().weight.mul_(2)
    assert model.memory_bytes() == size
    assert written(model, "bf16", logprobs=True).logprobs != before.logprobs


@pytest.mark.parametrize("name", [name for name in CAUSAL if name not in TRANSFORMERS])
def test_recurrent_models__generate_in_fp32_only(name: str) -> None:
    model = model_of(name)
    with refused(ErrorCode.INVALID_INPUT, "`precision` must be 'fp32': recurrent models generate in fp32"):
        written(model, "bf16")
    with pytest.raises(ValueError, match="in fp32 only"):
        model.bf16_steps(model.initial_state(1))


def test_cpu_without_bf16__is_refused() -> None:
    def fails() -> None:
        raise RuntimeError("could not create a primitive descriptor")

    with refused(ErrorCode.INVALID_INPUT, "must be 'fp32': this machine's CPU cannot multiply in bf16"):
        check_precision(model_of("gpt2"), "bf16", trial=fails)
    check_precision(model_of("gpt2"), "fp32", trial=fails)
