"""What is predicted from what: rows cut by hand, and a check that a wrong cut would be noticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.support import char_tokenizer
from tests.unit.models.reference import rows_by_hand
from trainer.data.batches import NO_TARGET, Batch, Rows, epoch_order

LINES = ["abc", "d", "abcdabcdabcd", "cab", "b"]
TOKENIZER = char_tokenizer(LINES)


def batch_of(length: int, numbers: list[int]) -> Batch:
    rows = Rows(TOKENIZER.encode_documents(LINES), length)
    return rows.batch(np.array(numbers, dtype=np.int64))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 29, 30, 31, 100])
def test_rows__are_those_cut_by_hand(length: int) -> None:
    by_hand = rows_by_hand([TOKENIZER.encode(line) for line in LINES], length)

    rows = Rows(TOKENIZER.encode_documents(LINES), length)

    assert len(rows) == len(by_hand)
    batch = batch_of(length, list(range(len(rows))))
    for row, pairs in enumerate(by_hand):
        padding = length - len(pairs)
        inputs: list[int] = batch.inputs[row].tolist()
        targets: list[int] = batch.targets[row].tolist()
        assert inputs[: len(pairs)] == [token for token, _ in pairs]
        assert targets == [NO_TARGET if t is None else t for _, t in pairs] + [NO_TARGET] * padding
    assert batch.tokens == sum(target is not None for pairs in by_hand for _, target in pairs)
    assert batch.tokens == sum(len(line) + 1 for line in LINES)


def test_rows__targets_are_the_inputs_one_place_on() -> None:
    batch = batch_of(8, [1, 0])

    shown = batch.targets[:, :-1] != NO_TARGET
    assert bool((batch.targets[:, :-1][shown] == batch.inputs[:, 1:][shown]).all())


def test_order__is_a_permutation_by_seed_and_epoch() -> None:
    orders = [order_of(seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]

    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] == order_of(1, 0)


def order_of(seed: int, epoch: int) -> list[int]:
    order: list[int] = epoch_order(50, seed, epoch).tolist()
    return order


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("targets = ids[:, 1:].clone()", "targets = ids[:, :-1].clone()"),
        ("(targets == BOS) | (targets == PAD)", "targets == PAD"),
        ("(targets == BOS) | (targets == PAD)", "targets == BOS"),
        ("np.arange(self._length + 1)", "np.arange(self._length + 1) + 1"),
    ],
)
def test_mutation__of_the_cut_is_noticed(tmp_path: Path, right: str, wrong: str) -> None:
    root = Path(__file__).parents[3]
    for package in ("trainer", "tests"):
        shutil.copytree(root / package, tmp_path / package)
    source = tmp_path / "trainer" / "data" / "batches.py"
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    code = "from tests.unit.data.test_batches import *; test_rows__are_those_cut_by_hand(7)"

    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "AssertionError" in found.stderr
