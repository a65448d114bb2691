"""Steps in bf16: the logits of transformers against their forward pass, and the copy of the weights."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from tests.support.answers import WITH_MASK, write
from tests.support.families import CAUSAL, POSITIONS, READ_ONCE, TRANSFORMERS, model_of
from tests.support.refusals import refused
from tests.support.tiny_models import tensor_of
from trainer.contracts.errors import ErrorCode
from trainer.contracts.inference import GenerateResponse, GenerationPrecision
from trainer.inference.generation import check_precision
from trainer.models.base import LanguageModel, concatenate_states

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
