"""LSTM, GRU and RNN: the formulas, causality, sizes, first weights."""

import math
from itertools import product

import pytest
import torch

from tests.support.families import vocabulary
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import small_model, tensor_of
from trainer.config.presets import resolve
from trainer.config.validation import parse
from trainer.contracts.base import changed as with_changes
from trainer.contracts.models import DropoutPlaces, Initialization, RnnArchitecture, RnnConfig
from trainer.contracts.runs import CorpusRef, TrainRequest
from trainer.models import build
from trainer.models.dropout import dropout
from trainer.models.recurrent import RecurrentModel
from trainer.reports.comparison import model_name

ARCHITECTURES: list[RnnArchitecture] = ["lstm", "gru", "rnn"]
FORMS = list(product(ARCHITECTURES, [True, False]))
LEARNING = [pytest.param(*form, marks=pytest.mark.slow) if form != ("rnn", True) else form for form in FORMS]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
VOCABULARY = 9


@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_forward__equals_the_textbook_cell(architecture: RnnArchitecture, tied: bool) -> None:
    model = small_model(VOCABULARY, architecture, tied=tied)
    ids = [2, 5, 4, 8, 3, 2, 6, 7]
    reference = ReferenceModel(model, architecture)
    with torch.inference_mode():
        ours = model.forward(tensor_of([ids])).log_softmax(-1)[0]
    expected = torch.tensor(reference.log_probabilities(ids), dtype=torch.float64)
    assert torch.allclose(expected, ours.double(), atol=1e-5)


@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_causality__a_token_changes_later_logits_and_none_before(architecture: RnnArchitecture, tied: bool) -> None:
    model = small_model(VOCABULARY, architecture, tied=tied)
    ids = tensor_of([[2, 5, 4, 8, 3, 2, 6, 7]])
    changed = ids.clone()
    changed[0, 4] = 6
    with torch.inference_mode():
        before, after = model.forward(ids)[0], model.forward(changed)[0]
    assert torch.equal(before[:4], after[:4])
    for t in range(4, 8):
        assert not torch.allclose(before[t], after[t])


@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_state__in_pieces_the_answer_is_the_same(architecture: RnnArchitecture, tied: bool) -> None:
    model = small_model(VOCABULARY, architecture, tied=tied)
    ids = torch.randint(VOCABULARY, (3, 12))
    with torch.inference_mode():
        whole = model.forward(ids)
        first, state = model.forward_with_state(ids[:, :5], model.initial_state(3))
        second, _ = model.forward_with_state(ids[:, 5:], state)
    assert torch.allclose(whole, torch.cat([first, second], dim=1), atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_and_neighbours__change_nothing(architecture: RnnArchitecture) -> None:
    model = small_model(VOCABULARY, architecture)
    line = tensor_of([[2, 5, 4]])
    batch = tensor_of([[2, 5, 4, 0, 0], [2, 8, 8, 8, 8]])
    with torch.inference_mode():
        alone, together = model.forward(line)[0], model.forward(batch, tensor_of([[3, 5]])[0])[0, :3]
    assert torch.allclose(alone, together, atol=1e-6)


@pytest.mark.parametrize("tokens", [10, 1000])
def test_word_model__of_two_layers_of_512_has_the_parameters_that_its_table_says(tokens: int) -> None:
    request = TrainRequest(model_family="lstm", corpus="text")
    corpus = CorpusRef(name="text", sha256="0" * 64, bytes=1)
    config = resolve(request, corpus=corpus, validation_corpus=None, test_corpus=None).model
    assert model_name(config) == "LSTM-2x512"
    assert build(config, vocabulary(tokens)).parameter_count() == 3_678_208 + 769 * tokens


@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_parameter_count__is_the_formula(architecture: RnnArchitecture, tied: bool) -> None:
    v, e, h, layers = 67, 128, 256, 2
    config = RnnConfig(
        architecture=architecture, embedding_size=e, hidden_size=h, num_layers=layers, tie_word_embeddings=tied
    )
    model = build(config, vocabulary(v))
    recurrent = sum(GATES[architecture] * h * ((e if layer == 0 else h) + h + 2) for layer in range(layers))
    head = h * e + e + v if tied else h * v + v
    assert model.parameter_count() == v * e + recurrent + head
    assert model.input_embedding().weight.shape == (v, e)


@pytest.mark.parametrize("initialization", ["torch", "keyboard"])
@pytest.mark.parametrize(("architecture", "tied"), FORMS)
def test_fresh_model__is_within_five_percent_of_uniform(
    architecture: RnnArchitecture, tied: bool, initialization: Initialization
) -> None:
    torch.manual_seed(1)
    config = RnnConfig(
        architecture=architecture,
        embedding_size=128,
        hidden_size=256,
        num_layers=2,
        tie_word_embeddings=tied,
        initialization=initialization,
    )
    model = build(config, vocabulary(67)).eval()
    with torch.inference_mode():
        log_p = model.forward(torch.randint(67, (8, 20))).log_softmax(-1)
        loss = -float(log_p.mean(dim=(0, 1)).mean())
    assert math.isclose(loss, math.log(67), rel_tol=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_weights__are_spread_as_torch_has_them_without_a_word(architecture: RnnArchitecture) -> None:
    """Embeddings N(0, 1), all else uniform in +-1/sqrt(hidden size), as the pages of torch say of each layer."""
    torch.manual_seed(4)
    config = RnnConfig(architecture=architecture, embedding_size=64, hidden_size=100, num_layers=2)
    for name, weight in build(config, vocabulary(90)).named_parameters():
        values = weight.detach().double()
        if name == "embedding.weight":
            assert float(values.var()) == pytest.approx(1, rel=0.1)
            assert float(values.abs().max()) > 3
        else:
            assert 0.09 < float(values.abs().max()) <= 0.1 + 1e-6, name
            assert float(values.var()) == pytest.approx(0.01 / 3, rel=0.25), name


@pytest.mark.parametrize("tied", [True, False])
def test_dropout__is_where_it_was_asked_for(tied: bool) -> None:
    def changes(places: DropoutPlaces, layers: int) -> bool:
        config = RnnConfig(
            architecture="lstm",
            embedding_size=8,
            hidden_size=8,
            num_layers=layers,
            dropout=0.5,
            tie_word_embeddings=tied,
            dropout_places=places,
        )
        model = build(config, vocabulary(9)).train()
        ids = torch.randint(9, (2, 6))
        return not torch.equal(model.forward(ids), model.forward(ids))

    assert changes("all", 1)
    assert changes("all", 2)
    assert changes("between_layers", 2)
    assert not changes("between_layers", 1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("places", "dropout_share"), [("all", 0.3), ("between_layers", 0.3), ("all", 0.0)])
def test_training__computes_the_layers_of_torch_with_dropout_between_them(
    architecture: RnnArchitecture, bidirectional: bool, places: DropoutPlaces, dropout_share: float
) -> None:
    config = RnnConfig(
        architecture=architecture,
        embedding_size=6,
        hidden_size=8,
        num_layers=3,
        bidirectional=bidirectional,
        dropout=dropout_share,
        dropout_places=places,
    )
    model = build(config, vocabulary(9), "masked_lm" if bidirectional else "causal_lm").train()
    assert isinstance(model, RecurrentModel)
    ids = torch.randint(9, (4, 7))
    outer_share = dropout_share if places == "all" else 0.0

    singles: list[RecurrentModel] = []
    for layer in range(3):
        inputs = 6 if layer == 0 else 8 * (1 + bidirectional)
        single = build(with_changes(config, embedding_size=inputs, num_layers=1), model.vocabulary, model.objective)
        assert isinstance(single, RecurrentModel)
        weights = {name: weight for name, weight in model.layers.named_parameters() if f"_l{layer}" in name}
        renamed: dict[str, torch.Tensor] = {
            name.replace(f"_l{layer}", "_l0"): weight for name, weight in weights.items()
        }
        single.layers.load_state_dict(renamed)
        singles.append(single)

    torch.manual_seed(5)
    ours = model.forward(ids)
    torch.manual_seed(5)
    hidden = dropout(model.embedding.forward(ids.t()), outer_share, is_training=True)  # (T, B, E)
    for layer, single in enumerate(singles):
        outputs: tuple[torch.Tensor, object] = single.layers(hidden.transpose(0, 1))
        share = dropout_share if layer < 2 else outer_share
        hidden = dropout(outputs[0].transpose(0, 1), share, is_training=True)
    expected = model.projection.forward(hidden).transpose(0, 1)

    assert torch.allclose(ours, expected, atol=1e-6)
    torch.autograd.backward([ours.square().mean()])
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())


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


@pytest.mark.parametrize("family", ["lstm", "char_lstm"])
def test_paper_preset__drops_between_its_two_layers_only_and_has_a_linear_head(family: str) -> None:
    request = parse(TrainRequest, {"model_family": family, "model_size": "paper", "corpus": "text"})
    corpus = CorpusRef(name="text", sha256="0" * 64, bytes=1)
    config = resolve(request, corpus=corpus, validation_corpus=None, test_corpus=None).model
    model = build(config, vocabulary(40)).train()
    assert isinstance(model, RecurrentModel)
    assert (model.config.dropout, model.config.dropout_places) == (0.1, "between_layers")
    parts = dict(model.named_children())
    assert [tuple(weight.shape) for weight in parts["projection"].parameters()] == [(40, 256), (40,)]
    assert model.parameter_count() == 40 * 128 + 4 * 256 * (128 + 3 * 256 + 4) + 257 * 40


@pytest.mark.parametrize(("architecture", "tied"), LEARNING)
def test_learning__one_batch_is_learned_by_heart(architecture: RnnArchitecture, tied: bool) -> None:
    torch.manual_seed(2)
    config = RnnConfig(
        architecture=architecture, embedding_size=16, hidden_size=32, num_layers=2, tie_word_embeddings=tied
    )
    model = build(config, vocabulary(12))
    ids = torch.randint(12, (4, 13))
    optimizer = torch.optim.Adam(list(model.parameters()), lr=0.02)
    loss = torch.zeros(())

    for _ in range(120):
        logits = model.forward(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()

    assert float(loss.detach()) < 0.5
