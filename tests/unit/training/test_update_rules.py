"""The update rules and the loss scale move weights as torch's classes do, bit for bit; Muon to rounding."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Muon

from trainer.contracts.training_options import OptimizerConfig
from trainer.models.threads import using_threads
from trainer.training.muon import Blocks, orthogonalized
from trainer.training.update_rules import LossScale, UpdateRule, WeightGroup, moments_adapter

SHAPES = ((3, 4), (5,), (2, 2))
CONFIGS: tuple[dict[str, object], ...] = (
    {"name": "adamw"},
    {"name": "adamw", "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3},
    {"name": "adam"},
    {"name": "adam", "weight_decay": 0.2},
    {"name": "sgd"},
    {"name": "sgd", "weight_decay": 0.1},
)


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]


def rule_of(values: dict[str, object], moved: Sequence[Tensor]) -> UpdateRule:
    config = OptimizerConfig.model_validate(values)
    return UpdateRule(config, [WeightGroup([*moved[:2]], config.weight_decay), WeightGroup([moved[2]], 0.0)])


def torch_optimizer(values: dict[str, object], moved: Sequence[Tensor]) -> torch.optim.Optimizer:
    config = OptimizerConfig.model_validate(values)
    given: dict[str, object] = config.model_dump(include={"betas", "eps", "weight_decay"}, exclude_none=True)
    groups: list[dict[str, object]] = [given | {"params": [*moved[:2]]}]
    groups.append(given | {"params": [moved[2]], "weight_decay": 0.0})
    if config.name == "sgd":
        return SGD(groups, lr=1.0)
    return (AdamW if config.name == "adamw" else Adam)(groups, lr=1.0, fused=True)


def set_gradients(step: int, *lists: Sequence[Tensor]) -> None:
    """Give equal weights equal gradients; the second weight has none in every third step."""
    generator = torch.Generator().manual_seed(step)
    for number, shape in enumerate(SHAPES):
        gradient = torch.randn(shape, generator=generator)
        for moved in lists:
            moved[number].grad = None if number == 1 and step % 3 == 0 else gradient.clone()


def take_steps(
    steps: range, rule: UpdateRule, ours: list[Tensor], theirs: torch.optim.Optimizer, others: list[Tensor]
) -> None:
    groups: list[dict[str, object]] = theirs.param_groups
    for step in steps:
        set_gradients(step, ours, others)
        for group in groups:
            group["lr"] = 0.1 / (step + 1)
        rule.step(0.1 / (step + 1))
        theirs.step()
        assert all(map(torch.equal, ours, others)), step


@pytest.mark.parametrize("values", CONFIGS)
def test_update_rule__is_torchs_bit_for_bit_and_exchanges_its_state(values: dict[str, object]) -> None:
    ours, theirs = weights(), weights()
    rule, optimizer = rule_of(values, ours), torch_optimizer(values, theirs)
    rule.load(rule_of(values, weights()).state())
    take_steps(range(20), rule, ours, optimizer, theirs)
    assert not any(map(torch.equal, ours, weights()))
    state: dict[str, object] = optimizer.state_dict()
    new_rule, new_optimizer = rule_of(values, ours), torch_optimizer(values, theirs)
    new_rule.load(state)
    new_optimizer.load_state_dict(rule.state())
    groups: list[dict[str, object]] = new_optimizer.param_groups
    for group in groups:
        group["fused"] = values["name"] != "sgd"
    take_steps(range(20, 25), new_rule, ours, new_optimizer, theirs)


MUON: tuple[dict[str, object], ...] = (
    {},
    {"momentum": 0.8, "weight_decay": 0.3, "betas": (0.8, 0.95), "eps": 1e-6},
)
BF16_ROUNDING = 0.01
"""Of Muon's updates: torch has them in bf16, whose numbers have a relative error up to 1 / 256."""


@pytest.mark.parametrize("values", MUON)
def test_muon__is_torchs_and_adamw_moves_the_weights_that_are_no_matrices(values: dict[str, object]) -> None:
    """The first weight has two blocks, each a parameter of torch's; AdamW and the momentum are equal bit for bit."""
    ours = weights()
    parts = (ours[0][:, :2], ours[0][:, 2:], *ours[1:])
    theirs: list[Tensor] = [part.detach().clone().requires_grad_() for part in parts]
    config = OptimizerConfig.model_validate(values | {"name": "muon"})
    groups = [WeightGroup(ours[:2], config.weight_decay), WeightGroup([ours[2]], 0.0)]
    matrices = {ours[0]: Blocks(2, dim=1), ours[2]: Blocks()}
    rule, rate = UpdateRule(config, groups, matrices=matrices), 0.01
    given: dict[str, object] = config.model_dump(include={"momentum", "weight_decay"}, exclude_none=True)
    undecayed: dict[str, object] = given | {"params": [theirs[3]], "weight_decay": 0.0}
    decayed: dict[str, object] = given | {"params": theirs[:2]}
    muon: torch.optim.Optimizer = Muon([decayed, undecayed], lr=rate, adjust_lr_fn="match_rms_adamw")
    decay = 0.1 if config.weight_decay is None else config.weight_decay
    adamw = AdamW(
        [theirs[2]], lr=rate, betas=config.betas or (0.9, 0.999), eps=config.eps or 1e-8, weight_decay=decay, fused=True
    )
    for step in range(20):
        if step == 10:
            state = rule.state()
            rule = UpdateRule(config, groups, matrices=matrices)
            rule.load(state)
        set_gradients(step, ours)
        left = ours[0].grad
        assert left is not None
        gradients = [left[:, :2].clone(), left[:, 2:].clone(), ours[1].grad, ours[2].grad]
        for weight, gradient in zip(theirs, gradients, strict=True):
            weight.grad = None if gradient is None else gradient.clone()
        rule.step(rate)
        muon.step()
        adamw.step()
    assert torch.equal(ours[1], theirs[2])
    for our, their in zip((torch.cat(theirs[:2], 1), theirs[3]), (ours[0], ours[2]), strict=True):
        assert 0 < float((our - their).detach().abs().max()) < 20 * rate * BF16_ROUNDING
    momenta = moments_adapter.validate_python(rule.state()["state"])
    state_of_torch: dict[str, object] = muon.state_dict()
    expected = [each["momentum_buffer"] for each in moments_adapter.validate_python(state_of_torch["state"]).values()]
    assert torch.equal(momenta[0]["momentum_buffer"], torch.cat(expected[:2], 1))
    assert torch.equal(momenta[2]["momentum_buffer"], expected[2])


@pytest.mark.parametrize(("shape", "blocks"), [((6, 9), Blocks()), ((20, 7), Blocks(4)), ((5, 36), Blocks(3, dim=1))])
def test_muon__maps_each_singular_value_of_a_block_by_the_polynomial(shape: tuple[int, int], blocks: Blocks) -> None:
    """U Σ V^T becomes U p(p(p(p(p(Σ / |Σ|))))) V^T with Jordan's p, in double precision, times 0.2 √max(A, B)."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    parts = list[Tensor]()
    for part in torch.split(weight.double(), shape[blocks.dim] // blocks.number, blocks.dim):
        factors: tuple[Tensor, Tensor, Tensor] = torch.linalg.svd(part, full_matrices=False)
        left, values, right = factors
        values = values / values.square().sum().sqrt()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        parts.append(0.2 * math.sqrt(max(part.shape)) * (left * values) @ right)
    other = torch.ones(shape)
    _, moved, _ = orthogonalized([other, weight, other], blocks)
    assert torch.allclose(moved.double(), torch.cat(parts, blocks.dim), atol=1e-5)


def test_muon__computes_equal_bits_with_one_and_two_threads() -> None:
    """Two threads would add the products of a matrix of 95 rows in another order."""
    weight = torch.randn(95, 283, generator=torch.Generator().manual_seed(4))
    with using_threads(1):
        (alone,) = orthogonalized([weight], Blocks())
    with using_threads(2):
        (moved,) = orthogonalized([weight], Blocks())
        assert torch.equal(moved, alone) and torch.get_num_threads() == 2


def test_loss_scale__adapts_as_that_of_torch() -> None:
    scale, theirs = LossScale(), torch.amp.GradScaler("cpu")
    weight = torch.zeros(2).requires_grad_()
    optimizer = SGD([weight], lr=1.0)
    for step in range(4100):
        value = {3: math.inf, 50: math.nan, 51: -math.inf}.get(step, 0.1)
        gradient = torch.linspace(1, 1 / 3, 2) * value
        weight.grad = theirs.scale(gradient)
        ours = gradient * scale.scale
        theirs.unscale_(optimizer)
        scale.unscale([ours])
        assert torch.equal(ours, weight.grad) or math.isnan(value)
        before = weight.detach().clone()
        theirs.step(optimizer)
        assert scale.is_finite == (not torch.equal(before, weight))
        theirs.update()
        scale.update()
        state: dict[str, object] = theirs.state_dict()
        assert scale.state() == state
    loaded = LossScale()
    loaded.load(scale.state())
    assert loaded.state() == scale.state() and scale.scale != LossScale().scale
