"""LSTM, GRU and RNN: the formulas, the two directions, sizes, first weights, dropout."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.support.families import vocabulary
from tests.support.reference import ReferenceModel
from tests.support.refusals import refused
from tests.support.tiny_models import integers, small_model, tensor_of
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import DropoutPlaces, RnnArchitecture, RnnConfig
from trainer.models import build
from trainer.models.dropout import dropout
from trainer.models.recurrent import RecurrentModel

ARCHITECTURES: list[RnnArchitecture] = ["lstm", "gru", "rnn"]
FORMS = list(product(ARCHITECTURES, [True, False]))
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
IDS = tensor_of([[2, 5, 4, 8, 3, 2, 6, 7]])


def config_of(architecture: str = "lstm", *, tied: bool = False, **values: object) -> RnnConfig:
    fields: dict[str, object] = {"architecture": architecture, "embedding_size": 6, "hidden_size": 8, "num_layers": 2}
    return parse(RnnConfig, fields | {"tie_word_embeddings": tied} | values)


def model_of(config: RnnConfig, tokens: int = 9) -> RecurrentModel:
    model = build(config, vocabulary(tokens), "masked_lm" if config.bidirectional else "causal_lm")
    assert isinstance(model, RecurrentModel)
    return model


@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_forward__equals_the_textbook_cell(architecture: RnnArchitecture, tied: bool) -> None:
    model = small_model(9, architecture, tied=tied)
    with torch.inference_mode():
        ours = model.forward(IDS).log_softmax(-1)[0]
    expected = torch.tensor(ReferenceModel(model, architecture).log_probabilities(integers(IDS)), dtype=torch.float64)
    assert torch.allclose(expected, ours.double(), atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_directions__are_one_forward_and_one_over_the_reversed_text(architecture: str) -> None:
    """One layer in two directions is two layers of one, of which the second reads the text from its end."""
    config = config_of(architecture, num_layers=1, bidirectional=True)
    both, one = model_of(config).eval(), model_of(changed(config, bidirectional=False)).eval()
    weights: dict[str, Tensor] = both.state_dict()
    logits = torch.zeros(1, IDS.shape[1], 9)
    for backwards in (False, True):
        of_direction = {
            name.removesuffix("_reverse"): weight
            for name, weight in weights.items()
            if not name.startswith("layers.") or name.endswith("_reverse") == backwards
        }
        of_direction["projection.weight"] = weights["projection.weight"][:, 8 * backwards :][:, :8]
        if backwards:
            of_direction["projection.bias"] = torch.zeros(9)
        one.load_state_dict(of_direction)
        with torch.inference_mode():
            logits = logits + (one.forward(IDS.flip(1)).flip(1) if backwards else one.forward(IDS))
    with torch.inference_mode():
        assert torch.allclose(both.forward(IDS), logits, atol=1e-5)


@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_parameter_count__is_the_formula(architecture: RnnArchitecture, tied: bool) -> None:
    v, e, h, layers = 67, 128, 256, 2
    model = model_of(config_of(architecture, tied=tied, embedding_size=e, hidden_size=h), v)
    recurrent = sum(GATES[architecture] * h * ((e if layer == 0 else h) + h + 2) for layer in range(layers))
    head = h * e + e + v if tied else h * v + v
    assert model.parameter_count() == v * e + recurrent + head
    assert model.input_embedding().weight.shape == (v, e)


@pytest.mark.parametrize("field", ["embedding_size", "num_layers", "dropout"])
def test_config__refuses_a_value_below_its_range(field: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, f"`{field}` must be greater than"):
        config_of("lstm", tied=False, **{field: -1})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_weights__are_spread_as_the_pages_of_torch_say(architecture: RnnArchitecture) -> None:
    """Embeddings N(0, 1), all else uniform in +-1/sqrt(hidden size)."""
    torch.manual_seed(4)
    config = config_of(architecture, embedding_size=64, hidden_size=100)
    for name, weight in model_of(config, 90).named_parameters():
        values = weight.detach().double()
        if name == "embedding.weight":
            assert float(values.var()) == pytest.approx(1, rel=0.1)
            assert float(values.abs().max()) > 3
        else:
            assert 0.09 < float(values.abs().max()) <= 0.1 + 1e-6, name
            assert float(values.var()) == pytest.approx(0.01 / 3, rel=0.25), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_keyboard_weights__are_uniform_xavier_orthogonal_and_zero(architecture: RnnArchitecture) -> None:
    torch.manual_seed(3)
    config = config_of(architecture, embedding_size=256, hidden_size=512, initialization="keyboard")
    for name, tensor in model_of(config, 100).named_parameters():
        weight = tensor.detach().double()
        if "bias" in name:
            assert not weight.any(), name
        elif "weight_hh" in name:  # (gates x H, H): its columns are orthonormal
            assert torch.allclose(weight.T @ weight, torch.eye(512, dtype=torch.float64), atol=1e-4), name
        else:  # uniform between -limit and limit, so of variance limit^2 / 3
            limit = 0.1 if name == "embedding.weight" else math.sqrt(6 / sum(weight.shape))
            assert 0.99 * limit < float(weight.abs().max()) <= limit * (1 + 1e-6), name
            assert float(weight.var()) == pytest.approx(limit**2 / 3, rel=0.05), name


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("architecture", "tied"), FORMS)
@pytest.mark.parametrize(("places", "share"), [("all", 0.3), ("between_layers", 0.3), ("all", 0.0)])
def test_training__computes_the_layers_of_torch_with_dropout_between_them(
    architecture: RnnArchitecture, tied: bool, bidirectional: bool, places: DropoutPlaces, share: float, layers: int
) -> None:
    options: dict[str, object] = {"bidirectional": bidirectional, "dropout": share, "dropout_places": places}
    config = config_of(architecture, tied=tied, num_layers=layers, **options)
    model = model_of(config).train()
    ids = torch.randint(9, (4, 7))
    singles: list[RecurrentModel] = []
    for layer in range(layers):
        inputs = 6 if layer == 0 else 8 * (1 + bidirectional)
        single = model_of(changed(config, embedding_size=inputs, num_layers=1))
        of_layer: dict[str, Tensor] = {
            name.replace(f"_l{layer}", "_l0"): weight
            for name, weight in model.layers.named_parameters()
            if f"_l{layer}" in name
        }
        single.layers.load_state_dict(of_layer)
        singles.append(single)
    outer_share = share if places == "all" else 0.0
    torch.manual_seed(5)
    ours = model.forward(ids)
    torch.manual_seed(5)
    hidden = dropout(model.embedding.forward(ids.t()), outer_share, is_training=True)  # (T, B, E)
    for layer, single in enumerate(singles):
        outputs: tuple[Tensor, object] = single.layers(hidden.transpose(0, 1))
        after_layer = share if layer < layers - 1 else outer_share
        hidden = dropout(outputs[0].transpose(0, 1), after_layer, is_training=True)
    assert torch.allclose(ours, model.logits(hidden.transpose(0, 1)), atol=1e-6)
    torch.autograd.backward([ours.square().mean()])
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())
