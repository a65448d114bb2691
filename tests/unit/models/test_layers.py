"""Linear functions, layers, attention and dropout, packed or not: the numbers of torch in double precision."""

import math
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.families import FAMILIES, POSITIONS, TRANSFORMERS, model_of, vocabulary
from trainer.export.graphs import SCRIPT_FILE, write_torchscript
from trainer.models import linear as linear_module
from trainer.models.attention import attend
from trainer.models.base import LanguageModel
from trainer.models.dropout import dropout
from trainer.models.linear import linear, packed_linear, product_into
from trainer.models.linear_layers import LayerNorm, LinearLayer


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_transposed", [True, False])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [((12, 64), 128, 512), ((97, 3), 515, 131), ((70,), 1, 120_001)]
)
def test_linear__has_the_outputs_and_gradients_of_double_precision(
    rows: tuple[int, ...],
    inputs: int,
    outputs: int,
    is_transposed: bool,
    has_bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_module, "MKL_LACKS_AVX512", True)
    shape = (inputs, outputs) if is_transposed else (outputs, inputs)
    given = [torch.randn(*rows, inputs), torch.randn(*shape), *([torch.randn(outputs)] if has_bias else [])]
    weighting = torch.randn(*rows, outputs)

    def results(dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.clone().to(dtype).requires_grad_() for tensor in given]
        hidden, weight, *bias = leaves
        found = linear(hidden, weight.t() if is_transposed else weight, *bias)
        torch.autograd.backward([(found * weighting.to(dtype)).sum()])
        assert ("Onednn" in str(found.grad_fn)) == (dtype == torch.float32)
        return [found.detach(), *[leaf.grad for leaf in leaves if leaf.grad is not None]]

    found, expected = results(torch.float32), results(torch.float64)
    assert len(found) == len(expected) == len(given) + 1
    for single, double in zip(found, expected, strict=True):
        error = (single.double() - double).abs().max()
        assert float(error) <= 1e-5 * float(double.abs().max())
    assert all(torch.equal(again, first) for again, first in zip(results(torch.float32), found, strict=True))


def test_linear__of_few_rows_or_in_bf16_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "MKL_LACKS_AVX512", True)
    weight, few, many = torch.randn(2048, 2048), torch.randn(7, 2048), torch.randn(8, 2048)
    assert torch.equal(linear(few, weight), functional.linear(few, weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(many, weight), functional.linear(many, weight))


@pytest.mark.parametrize("name", FAMILIES)
def test_onednn__gives_a_model_the_same_logits_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name, vocabulary(150, mask=4))
    ids = torch.randint(5, 150, (9, POSITIONS))
    expected = logits_and_gradients(model, ids)
    monkeypatch.setattr(linear_module, "MKL_LACKS_AVX512", True)
    monkeypatch.setattr(linear_module, "_MIN_MULTIPLICATIONS", 1)
    found = logits_and_gradients(model, ids)
    assert "Onednn" in str(model.logits(model.hidden_states(ids)).grad_fn)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_traced_graph__has_no_product_of_onednn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MKL_LACKS_AVX512", "_MIN_ROWS", "_MIN_MULTIPLICATIONS"):
        monkeypatch.setattr(linear_module, name, 1)
    write_torchscript(tmp_path, model_of("gpt2"))
    with ZipFile(tmp_path / SCRIPT_FILE) as script:
        code = b"".join(script.read(name) for name in script.namelist() if name.endswith(".py"))
    assert b"torch.linear" in code
    assert b"mkldnn" not in code


def logits_and_gradients(model: LanguageModel, ids: Tensor) -> dict[str, Tensor]:
    """Return the logits, and the gradient of a loss by each weight."""
    model.zero_grad()
    logits = model.forward(ids)
    torch.autograd.backward([functional.cross_entropy(logits.flatten(0, 1), ids.roll(-1, 1).flatten())])
    gradients = {weight: parameter.grad for weight, parameter in model.named_parameters() if parameter.grad is not None}
    return gradients | {"logits": logits.detach()}


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.1)])
def test_packed_linear__is_the_product_of_matrices(dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(1)
    inputs, weight = torch.randn(3, 40).to(dtype), torch.randn(70, 40).to(dtype)
    outputs = packed_linear(weight, rows=1)(inputs)
    assert outputs.dtype == dtype
    assert torch.allclose(outputs.double(), inputs.double() @ weight.double().t(), atol=error)


@pytest.mark.parametrize("is_contiguous", [True, False])
@pytest.mark.parametrize("is_onednn", [True, False])
@pytest.mark.parametrize("is_intel", [True, False])
# the last two shapes are multiplied by torch, on some CPUs by oneDNN
@pytest.mark.parametrize("shape", [(1, 64, 65), (3, 64, 65), (2100, 64, 65), (16, 512, 1024)], ids=str)
def test_product_into__gives_the_product(
    shape: tuple[int, int, int], is_intel: bool, is_onednn: bool, is_contiguous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_module, "IS_INTEL", is_intel)
    monkeypatch.setattr(linear_module, "MKL_LACKS_AVX512", is_onednn)
    rows, inputs, outputs = shape
    draw = np.random.Generator(np.random.PCG64(1))
    left = draw.standard_normal((rows, inputs), dtype=np.float32)
    right = draw.standard_normal((inputs, outputs) if is_contiguous else (outputs, inputs), dtype=np.float32)
    right = right if is_contiguous else right.T
    product = np.empty((rows, outputs), dtype=np.float32)
    multiply = product_into(left, right, product)
    for factor in (1, 2):  # the arrays are read at each call
        left *= factor
        multiply()
        expected = left.astype(np.float64) @ right.astype(np.float64)
        np.testing.assert_allclose(product, expected, rtol=1e-4, atol=2e-4)


def layer_gradients(layer: nn.Module, inputs: Tensor, upstream: Tensor) -> list[Tensor]:
    leaf = inputs.clone().requires_grad_()
    output: Tensor = layer(leaf)
    return [output.detach(), *torch.autograd.grad(output, [leaf, *layer.parameters()], upstream)]


@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16)])
def test_gradients__are_those_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    native = nn.LayerNorm(16, eps=1e-3)
    for weight in native.parameters():
        nn.init.normal_(weight)
    ours, inputs, upstream = LayerNorm(native), 3 + 2 * torch.randn(shape), torch.randn(shape)
    expected = layer_gradients(native.double(), inputs.double(), upstream.double())
    found = layer_gradients(ours.float(), inputs, upstream)
    for mine, its in zip(found, expected, strict=True):
        assert torch.allclose(mine.double(), its, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, POSITIONS), (7, 5), (300, 8)], ids=str)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_packed_weights__give_the_same_logits(name: str, shape: tuple[int, int]) -> None:
    model = model_of(name, vocabulary(150, mask=4))
    ids = torch.randint(5, 150, shape)
    with torch.inference_mode():
        plain = model.forward(ids)
        with model.packed_products():
            packed = model.forward(ids)
            assert all(is_packed(model))
        after = model.forward(ids)
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)
    assert not any(is_packed(model))
    assert torch.equal(after, plain)


def test_packed_weights__are_unpacked_after_an_error() -> None:
    model, recurrent = model_of("gpt2"), model_of("lstm")
    with pytest.raises(ValueError, match="Expected x with shape"), model.packed_products():
        model.forward(torch.zeros(3, dtype=torch.long))
    assert not any(is_packed(model))
    modules = list(recurrent.modules())
    with recurrent.packed_products():
        assert list(recurrent.modules()) == modules


def is_packed(model: LanguageModel) -> list[bool]:
    """Return True for each linear layer of a transformer with packed weights."""
    packed = [layer.packed is not None for layer in model.modules() if isinstance(layer, LinearLayer)]
    assert packed
    return packed


_BATCH, _HEADS, _WIDTH = 3, 4, 8
_SCALE = 0.3


class _Attention(nn.Module):
    """The fields of a library's layer that attention reads."""

    def __init__(self, groups: int = _HEADS, *, is_causal: bool = True) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.num_key_value_groups = _HEADS // groups


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 7, 64, 600])
def test_attention_in_bf16__equals_torchs_with_its_gradients(tokens: int, groups: int, is_causal: bool) -> None:
    query, key, value = _inputs(tokens, groups, torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in (query, key, value)]
    attended, _ = attend(_Attention(groups, is_causal=is_causal), query, key, value, None, dropout=0.0, scaling=_SCALE)
    expected = functional.scaled_dot_product_attention(
        exact[0], exact[1], exact[2], is_causal=is_causal, scale=_SCALE, enable_gqa=True
    ).transpose(1, 2)
    gradient = torch.randn(expected.shape, dtype=torch.float64)
    torch.autograd.backward([attended], [gradient.bfloat16()])
    torch.autograd.backward([expected], [gradient])
    torch.testing.assert_close(attended.double(), expected, atol=0.03, rtol=0.02)
    for part, reference in zip((query, key, value), exact, strict=True):
        assert part.grad is not None
        assert reference.grad is not None
        error, size = (float(grad.square().sum()) for grad in (part.grad - reference.grad, reference.grad))
        assert math.sqrt(error) < 0.02 * math.sqrt(size) + 1e-3


@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_attention_with_dropout__drops_weights_as_drawn(tokens: int) -> None:
    query, key, value = _inputs(tokens, _HEADS, torch.float32)
    torch.manual_seed(4)
    attended, _ = attend(_Attention(), query, key, value, None, dropout=0.25, scaling=_SCALE)
    scores = (query @ key.transpose(2, 3)) * _SCALE
    later = torch.arange(tokens) > torch.arange(tokens).unsqueeze(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1)
    torch.manual_seed(4)
    kept = dropout(weights.flatten(0, 1), 0.25, is_training=True).view_as(weights)
    torch.testing.assert_close(attended, (kept @ value).transpose(1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_with_a_mask__is_torchs(dtype: torch.dtype) -> None:
    query, key, value = _inputs(7, _HEADS, dtype)
    is_read = torch.rand(_BATCH, 1, 7, 7) > 0.3
    is_read |= torch.eye(7, dtype=torch.bool)
    attended, _ = attend(_Attention(), query, key, value, is_read, dropout=0.0, scaling=_SCALE)
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=is_read, scale=_SCALE)
    assert torch.equal(attended, expected.transpose(1, 2))


def test_attention_to_earlier_tokens__reads_all_of_them() -> None:
    query, key, value = _inputs(7, _HEADS, torch.bfloat16)
    last = query[:, :, -1:]
    attended, _ = attend(_Attention(), last, key, value, None, dropout=0.0, scaling=_SCALE)
    expected = functional.scaled_dot_product_attention(last, key, value, scale=_SCALE)
    assert torch.equal(attended, expected.transpose(1, 2))


def _inputs(tokens: int, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(tokens)
    query, key, value = (
        torch.randn(_BATCH, count, tokens, _WIDTH, dtype=dtype, requires_grad=True)
        for count in (_HEADS, groups, groups)
    )
    return query, key, value


@pytest.mark.parametrize("probability", [1e-9, 0.1, 0.25, 0.5, 0.9, 0.999999])
def test_dropout__keeps_the_given_share_and_the_mean(probability: float) -> None:
    torch.manual_seed(3)
    numbers = torch.rand(401, 997) + 1  # an odd count: the last draw of 64 bits is used in part
    dropped = dropout(numbers, probability, is_training=True)
    kept = dropped != 0
    rounded = min(round(probability * 2**16), 2**16 - 1) / 2**16
    count = numbers.numel()
    deviation = math.sqrt(count * rounded * (1 - rounded))
    assert abs(float(kept.sum()) - count * (1 - rounded)) <= 5 * deviation
    assert torch.allclose(dropped[kept], numbers[kept] / (1 - rounded))
    assert torch.equal(dropout(numbers, probability, is_training=False), numbers)


def test_dropout__draws_every_place_by_itself() -> None:
    torch.manual_seed(3)
    kept = torch.stack([dropout(torch.ones(61), 0.5, is_training=True) for _ in range(4000)]) != 0
    shares = kept.double().mean(0)
    pairs = torch.corrcoef(kept.double().t()) - torch.eye(61)
    assert float((shares - 0.5).abs().max()) < 0.045  # six standard deviations
    assert float(pairs.abs().max()) < 0.095
