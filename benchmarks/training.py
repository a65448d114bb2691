"""Speed of training against Hugging Face Trainer and a plain loop, in alternating processes."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.lab import Lab, printed_number, write_text
from benchmarks.rows import Row
from benchmarks.shapes import SHAPES
from benchmarks.step_times import WARM_UP_STEPS
from benchmarks.turns import MAX_TRIES, Contestant, in_turns, is_faster_in_bf16, started_products
from trainer.artifacts.runs import RunDirectory
from trainer.config.validation import parse_json
from trainer.contracts.models import Activation
from trainer.training.progress import CurveRow

_CHARACTERS = 1_200_000
_BF16_STEPS, _MAX_BF16_NATS = 200, 0.02
_GOALS: dict[str, tuple[tuple[str, str, float | None], ...]] = {
    "lstm": (
        ("ours", "HF", 1.4),
        ("ours", "products", 0.75),
        ("ours bf16", "HF", 2.6),
        ("ours bf16", "HF bf16", 1.45),
        ("ours bf16", "products bf16", 0.65),
    ),
    "gpt2": (
        ("ours", "HF", 1.3),
        ("ours gelu", "plain loop", 1.0),
        ("ours gelu", "plain loop without biases", None),
        ("ours", "products", None),
        ("ours bf16", "HF", 1.5),
        ("ours bf16", "products bf16", None),
    ),
    "gpt2-large": (
        ("ours", "HF", 1.1),
        ("ours", "products", None),
        ("ours bf16", "HF", 2.6),
        ("ours bf16", "products bf16", None),
    ),
}
"""Two contestants of each shape and the goal of their ratio; HF is Hugging Face Trainer, the products are the limit.

GPT-2's activation is that of the rival: gelu_new as in Hugging Face's library, gelu as in the plain loop.
"""


def training_rows(lab: Lab, is_quick: bool) -> list[Row]:
    """Return the rows of all shapes: in fp32, and in bf16 where this CPU multiplies faster in it."""
    text = write_text(lab.folder / "training.txt", _CHARACTERS)
    with ExitStack() as limits:
        products = started_products(limits)
        turns = in_turns(products, 3)
        has_bf16 = is_faster_in_bf16(turns)
        rows = [Row(case=name, value=turns.median(name) / 1e9, unit="GFLOP/s") for name in products]
        for name in SHAPES:
            with ExitStack() as running:
                limits_of_shape = products | started_products(running, name, "own products")
                rows += _shape_rows(lab, name, text, limits_of_shape, has_bf16=has_bf16, is_quick=is_quick)
    names = [name for name in SHAPES if has_bf16 and not (is_quick and name == "gpt2-large")]
    return rows + [_bf16_difference(lab, name, text) for name in names]


def _shape_rows(
    lab: Lab, name: str, text: Path, products: dict[str, Contestant], *, has_bf16: bool, is_quick: bool
) -> list[Row]:
    """Train a shape by all contestants in turns."""
    shape = SHAPES[name]
    steps = max(12, shape.steps // 3) if is_quick else shape.steps
    contestants: dict[str, Callable[[], float]] = {**products}
    contestants["ours"] = partial(_our_speed, lab, name, text, "fp32", steps)
    contestants["ours gelu"] = partial(_our_speed, lab, name, text, "fp32", steps, activation="gelu")
    contestants["HF"] = partial(printed_number, "hf_training", name, "fp32", str(steps), str(text))
    plain = partial(printed_number, "plain_gpt2", name, str(steps), str(text))
    contestants["plain loop"], contestants["plain loop without biases"] = partial(plain, "1"), partial(plain, "0")
    contestants["ours bf16"] = partial(_our_speed, lab, name, text, "bf16", steps)
    contestants["HF bf16"] = partial(printed_number, "hf_training", name, "bf16", str(steps), str(text))
    goals = [goal for goal in _GOALS[name] if has_bf16 or "bf16" not in goal[0]]
    used = {who for ours, other, _ in goals for who in (ours, other)}
    used |= {"own products", "own products bf16"} if has_bf16 else {"own products"}
    rounds, tries = (1, 1) if is_quick else (3, MAX_TRIES)  # a training takes much longer than a slice of other work
    turns = in_turns({who: run for who, run in contestants.items() if who in used}, rounds, tries)
    flops = shape.flops_per_token(len(set(text.read_text(encoding="utf-8"))))
    limits = {who for who in used if who.startswith("own products")}
    if any(turns.ratio(who, _limit_of(who)) * flops > 1 for who in used if who.startswith("ours")):
        turns = turns.with_faster(in_turns({who: contestants[who] for who in limits}, 3))
    speeds = {f"{who} tokens/s": turns.median(who) for who in turns.figures if who not in products}
    rows: list[Row] = []
    for who, other, goal in goals:
        limit = _limit_of(who)
        is_share = other in products
        rows.append(
            Row(
                case=f"{name} training: {who} / {other}",
                value=turns.ratio(who, other) * (flops if is_share else 1),
                unit="x",
                goal=goal,
                details={} if rows else speeds,
                foreign_share=turns.foreign_share,
                limit=turns.ratio(limit, other) / (1 if is_share else flops),
                limited_by="its own products",
            )
        )
    return rows


def _limit_of(who: str) -> str:
    return "own products bf16" if who.endswith("bf16") else "own products"


def _our_speed(
    lab: Lab, name: str, text: Path, precision: str, steps: int, activation: Activation = "gelu_new"
) -> float:
    """Train with `mt train`; return the tokens per second between two rows of the loss curve, the median."""
    shape, rows_every = SHAPES[name], max(1, steps // 10)
    fields = {**shape.request(activation), "precision": precision, "max_steps": steps, "log_every_steps": rows_every}
    rows = [row for row in _curve(lab.train(text, fields)) if row.step >= WARM_UP_STEPS]
    per_step = [(b.elapsed_seconds - a.elapsed_seconds) / (b.step - a.step) for a, b in pairwise(rows)]
    return shape.rows * shape.length / median(per_step)


def _bf16_difference(lab: Lab, name: str, text: Path) -> Row:
    """Compare the loss in bf16 with that in fp32, the mean of the last 10 of 200 steps of one seed."""
    fields: dict[str, object] = {**SHAPES[name].request(), "max_steps": _BF16_STEPS, "log_every_steps": 10}
    losses: dict[str, float] = {}
    for precision in ("fp32", "bf16"):
        losses[precision] = _curve(lab.train(text, fields | {"precision": precision}))[-1].train_loss or 0.0
    return Row(
        case=f"{name} training: loss in bf16 after {_BF16_STEPS} steps",
        value=abs(losses["bf16"] - losses["fp32"]),
        unit="nats",
        goal=_MAX_BF16_NATS,
        better="less",
        details=losses,
    )


def _curve(run: RunDirectory) -> list[CurveRow]:
    return [parse_json(CurveRow, line) for line in run.loss_curve.read_text(encoding="utf-8").splitlines()]
