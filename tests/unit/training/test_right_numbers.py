"""Losses against theory: texts with known entropy."""

import math
from pathlib import Path
from random import Random

import pytest

from tests.support.markers import slow_except
from tests.support.tiny_models import make_run
from trainer.training.loop import TrainResult

LINE = 2000


def trained(folder: Path, lines: list[str], **values: object) -> TrainResult:
    sizes = {"embedding_size": 16, "hidden_size": 32, "num_layers": 1, "dropout": 0.0}
    request: dict[str, object] = {
        "model": sizes,
        "max_seq_len": 64,
        "batch_size": 16,
        "learning_rate": 0.02,
        "lr_schedule": "cosine",
        "holdout_fraction": 0.1,
        "test_fraction": 0.3,
        **values,
    }
    run = make_run(folder, lines, **request)
    return run.train(run.fresh_model())


def loss_on_test(result: TrainResult) -> float:
    assert result.test is not None
    return result.test.loss_nats


def test_independent_symbols__loss_is_log_k_and_never_below(tmp_path: Path) -> None:
    random = Random(3)
    lines = ["".join(random.choices("abcd", k=LINE)) for _ in range(20)]
    loss = loss_on_test(trained(tmp_path, lines, num_epochs=3))
    assert math.log(4) - 0.02 <= loss <= math.log(4) + 0.05


@pytest.mark.parametrize("stay", [0.9, 0.7])
def test_two_state_chain__loss_is_its_entropy_rate(tmp_path: Path, stay: float) -> None:
    random = Random(4)
    lines: list[str] = []
    for _ in range(20):
        symbols = ["a"]
        while len(symbols) < LINE:
            symbols.append(symbols[-1] if random.random() < stay else "ba"[symbols[-1] == "b"])
        lines.append("".join(symbols))
    entropy_rate = -stay * math.log(stay) - (1 - stay) * math.log(1 - stay)
    loss = loss_on_test(trained(tmp_path, lines, num_epochs=3))
    assert abs(loss - entropy_rate) <= 0.05


@pytest.mark.parametrize("identical", slow_except([True, False], False))
def test_periodic_text__loss_goes_under_two_hundredths(tmp_path: Path, identical: bool) -> None:
    lines = ["abcde" * (LINE // 5 + (0 if identical else i)) for i in range(12)]
    loss = loss_on_test(trained(tmp_path, lines, num_epochs=15))
    assert loss < 0.02
