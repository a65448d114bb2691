"""Linear functions by MKL or oneDNN, packed or not: the outputs and gradients of double precision."""

from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.families import FAMILIES, POSITIONS, model_of, slow_unless_quick, vocabulary
from tests.support.markers import slow_except
from trainer.export.graphs import PROGRAM_FILE, SCRIPT_FILE, write_pt2, write_torchscript
from trainer.models import linear as linear_module
from trainer.models.base import LanguageModel
from trainer.models.linear import linear, packed_linear


@pytest.mark.parametrize("has_bias", slow_except([True, False], True))
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


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_onednn__gives_a_model_the_same_logits_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name, vocabulary(150, mask=4))
    ids = torch.randint(5, 150, (9, POSITIONS))
    expected = logits_and_gradients(model, ids)
    monkeypatch.setattr(linear_module, "MKL_LACKS_AVX512", True)
    monkeypatch.setattr(linear_module, "_MIN_MULTIPLICATIONS", 1)
    found = logits_and_gradients(model, ids)
    assert "Onednn" in str(model.logits(model.hidden_states(ids)).grad_fn)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_traced_graph__has_no_product_of_onednn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MKL_LACKS_AVX512", "_MIN_ROWS", "_MIN_MULTIPLICATIONS"):
        monkeypatch.setattr(linear_module, name, 1)
    model = model_of("gpt2")
    write_torchscript(tmp_path, model)
    write_pt2(tmp_path, model)
    for file, kind, product in ((SCRIPT_FILE, ".py", b"torch.linear"), (PROGRAM_FILE, ".json", b"aten.linear")):
        with ZipFile(tmp_path / file) as graph:
            code = b"".join(graph.read(name) for name in graph.namelist() if name.endswith(kind))
        assert product in code and b"mkldnn" not in code


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
