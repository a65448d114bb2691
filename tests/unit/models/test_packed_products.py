"""Packed weights give the logits of the plain ones, on every CPU, and leave the model as it was."""

import pytest
import torch

from tests.support.families import FAMILIES, POSITIONS, TRANSFORMERS, VOCABULARY, model_of, vocabulary
from trainer.models.packed_linear import packing_pays

MANY = 1 << 20


@pytest.mark.parametrize("shape", [(1, 1), (1, POSITIONS), (7, 5), (300, 8)], ids=str)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_packed_weights__give_the_same_logits(name: str, shape: tuple[int, int]) -> None:
    model = model_of(name, vocabulary(150, mask=4))
    ids = torch.randint(5, 150, shape)
    modules, weights = list(model.modules()), dict(model.named_parameters())

    with torch.inference_mode():
        plain = model.forward(ids)
        with model.packed_products():
            packed = model.forward(ids)
            assert list(model.modules()) != modules
        after = model.forward(ids)

    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)
    assert list(model.modules()) == modules
    assert [name for name, _ in model.named_parameters()] == list(weights)
    assert torch.equal(after, plain)


def test_packed_weights__are_unpacked_after_an_error() -> None:
    model = model_of("gpt2")
    modules = list(model.modules())

    with pytest.raises(ValueError, match="Expected x with shape"), model.packed_products():
        model.forward(torch.zeros(3, dtype=torch.long))

    assert list(model.modules()) == modules


def test_packed_weights__of_a_recurrent_model_are_the_plain_ones() -> None:
    model = model_of("lstm")
    modules = list(model.modules())

    with model.packed_products():
        assert list(model.modules()) == modules


@pytest.mark.parametrize("name", FAMILIES)
def test_packing__is_for_many_tokens_of_a_transformer_on_a_cpu_with_avx512(name: str) -> None:
    model = model_of(name, VOCABULARY)

    assert packing_pays(model, MANY, "AVX512") == (name in TRANSFORMERS)
    assert not packing_pays(model, 100, "AVX512")
    assert not packing_pays(model, MANY, "AVX2")
    assert not packing_pays(model.double(), MANY, "AVX512")
