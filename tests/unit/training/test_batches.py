"""Rows of tokens and their targets against rows cut by hand; reading ahead; memory."""

import sys
import threading
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from tests.support.reference import rows_by_hand
from tests.support.tiny_models import char_tokenizer
from trainer.tokenizers.base import Ids
from trainer.training.batches import NO_TARGET, Batch, BatchReader, Rows, epoch_order, id_chunks

LINES = ["abc", "d", "abcdabcdabcd", "cab", "b"]
TOKENIZER = char_tokenizer(LINES)


def batch_of(length: int, numbers: list[int]) -> Batch:
    rows = Rows(TOKENIZER.encode_documents("\n".join(LINES)), length, TOKENIZER.special_ids)
    return rows.batch(np.array(numbers, dtype=np.int64))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 29, 30, 31, 100])
def test_rows__are_those_cut_by_hand(length: int) -> None:
    by_hand = rows_by_hand([TOKENIZER.encode(line) for line in LINES], length)
    rows = Rows(TOKENIZER.encode_documents("\n".join(LINES)), length, TOKENIZER.special_ids)
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


@for_all_pairs(
    st.lists(st.text("abcd!", min_size=1, max_size=30), min_size=1, max_size=12),
    st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99)),
)
def test_rows__of_an_epoch_predict_every_token_once_from_the_one_before(
    lines: list[str], cut: tuple[int, int, int]
) -> None:
    length, batch_size, seed = cut
    rows = Rows(TOKENIZER.encode_documents("\n".join(lines)), length, TOKENIZER.special_ids)
    order = epoch_order(len(rows), seed, 0)

    predicted: dict[int, list[int]] = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = rows.batch(numbers)
        inputs: list[list[int]] = batch.inputs.tolist()
        targets: list[list[int]] = batch.targets.tolist()
        taken: list[int] = numbers.tolist()
        for number, read, answers in zip(taken, inputs, targets, strict=True):
            predicted[number] = [token for token in answers if token != NO_TARGET]
            assert all(a in (b, NO_TARGET) for a, b in zip(answers, read[1:], strict=False))

    expected = chain.from_iterable([*TOKENIZER.encode(line), 3] for line in lines)
    assert list(chain.from_iterable(predicted[number] for number in sorted(predicted))) == list(expected)


def test_order__is_a_permutation_by_pcg64() -> None:
    for rows in (1, 2, 1000):
        first: list[int] = np.random.Generator(np.random.PCG64([7, 3])).permutation(rows).tolist()
        now: list[int] = epoch_order(rows, 7, 3).tolist()
        assert now == first


def test_order__is_a_permutation_by_seed_and_epoch() -> None:
    orders = [order_of(seed, epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] == order_of(1, 0)


def order_of(seed: int, epoch: int) -> list[int]:
    order: list[int] = epoch_order(50, seed, epoch).tolist()
    return order


MANY = Rows(TOKENIZER.encode_documents("\n".join("abc" * n for n in range(1, 60))), 7, TOKENIZER.special_ids)
READS = [(0, 0), (0, 6), (0, 30), (1, 0), (4, 12)]
"""Epochs and positions: the next step, one that was not prepared, and the steps of other epochs."""


def reader(workers: int) -> BatchReader:
    return BatchReader(MANY, batch_size=4, batches_per_step=2, seed=3, workers=workers)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reader__gives_the_rows_of_a_step_with_any_number_of_threads(workers: int) -> None:
    with closing(reader(workers)) as batches:
        for epoch, position in READS:
            order = epoch_order(len(MANY), 3, epoch)[position : position + 8]
            for batch, start in zip(batches.read(epoch, position), range(0, 8, 4), strict=True):
                expected = MANY.batch(order[start : start + 4])
                assert torch.equal(batch.inputs, expected.inputs) and torch.equal(batch.targets, expected.targets)
                assert batch.tokens == expected.tokens


def test_reader__ends_an_epoch_with_the_rows_that_are_left() -> None:
    with closing(reader(0)) as batches:
        [last] = batches.read(0, len(MANY) - 3)
    assert len(last.inputs) == 3


def test_reader__prepares_batches_in_threads_that_end_with_it() -> None:
    before = set(threading.enumerate())
    batches = reader(2)
    batches.read(0, 0)
    assert len(set(threading.enumerate()) - before) in (1, 2)
    batches.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much of a mapped file is in memory")
def test_mapped_ids__that_were_read_do_not_stay_in_this_process(tmp_path: Path) -> None:
    megabytes = 256
    path = tmp_path / "ids.bin"
    with path.open("wb") as file:
        file.truncate(megabytes * 2**20)
    ids: Ids = np.memmap(path, np.uint8, "r")
    before, most = mapped_megabytes(), 0
    for piece in id_chunks(ids):
        assert not np.any(piece[::4096])
        most = max(most, mapped_megabytes())
    assert most - before < megabytes / 4
    # a row of every 64 KiB: the system maps as much for a byte
    Rows(ids, 8, TOKENIZER.special_ids).batch(np.arange(megabytes * 16) * 2**13)
    assert max(most, mapped_megabytes()) - before < megabytes / 4


def mapped_megabytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssFile:")[1].split()[0]) // 1024
