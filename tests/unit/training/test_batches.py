"""Rows of tokens and their targets against rows cut by hand; masked rows; reading ahead; memory."""

import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.families import CHAR_IDS, VOCABULARY, effective_of, vocabulary
from tests.support.properties import for_all_pairs
from tests.support.reference import rows_by_hand
from tests.support.refusals import refused
from tests.support.tiny_models import char_tokenizer, integers, tensor_of
from trainer.contracts.errors import ErrorCode
from trainer.contracts.tokenizers import SpecialIds
from trainer.tokenizers.base import Ids
from trainer.training.batches import NO_TARGET, BatchReader, Masking, Rows, epoch_order, id_chunks, masking

TOKENIZER = char_tokenizer(["abcd"])


def rows_of(lines: list[str], length: int) -> Rows:
    return Rows(TOKENIZER.encode_documents("\n".join(lines)), length, TOKENIZER.special_ids)


@for_all_pairs(
    st.lists(st.text("abcd!", min_size=1, max_size=30), min_size=1, max_size=12), st.sampled_from([1, 2, 3, 7, 30, 100])
)
def test_rows__are_those_cut_by_hand(lines: list[str], length: int) -> None:
    by_hand, rows = rows_by_hand([TOKENIZER.encode(line) for line in lines], length), rows_of(lines, length)
    batch = rows.batch(np.arange(len(rows)))
    inputs: list[list[int]] = batch.inputs.tolist()
    targets: list[list[int]] = batch.targets.tolist()
    for read, predicted, pairs in zip(inputs, targets, by_hand, strict=True):
        padding = [NO_TARGET] * (length - len(pairs))
        assert read[: len(pairs)] == [token for token, _ in pairs]
        assert predicted == [NO_TARGET if t is None else t for _, t in pairs] + padding
    assert batch.tokens == sum(len(line) + 1 for line in lines)


@for_all_pairs(
    st.lists(st.text("abcd!", min_size=1, max_size=30), min_size=1, max_size=12), st.sampled_from([1, 2, 3, 7, 30, 100])
)
def test_rows__of_later_epochs_are_the_same_predictions_cut_at_other_places(lines: list[str], length: int) -> None:
    """The first epochs of rows of 30 begin at these golden-ratio multiples of a row."""
    rows = rows_of(lines, length)
    pairs = [pair for row in rows_by_hand([TOKENIZER.encode(line) for line in lines], length) for pair in row]
    for epoch, share in enumerate((0.0, 0.618, 0.236, 0.854, 0.472)):
        batch = rows.batch(np.arange(len(rows)), epoch)
        read = list(zip(integers(batch.inputs.flatten()), integers(batch.targets.flatten()), strict=True))
        first = int(share * length) if len(rows) > 1 else 0
        expected = [(i, NO_TARGET if target is None else target) for i, target in pairs[first:] + pairs[:first]]
        assert read[: len(pairs)] == expected
        assert batch.tokens == sum(len(line) + 1 for line in lines)


def test_rows__of_a_stream_begin_with_its_last_newline_and_go_round() -> None:
    ids: Ids = np.frombuffer(bytes((5, 6, 3, 7, 3)), dtype=np.uint8)
    rows = Rows(ids, 3, SpecialIds(unk=1, eos=2, newline=3))
    assert integers(rows.batch(np.arange(2)).inputs.flatten()) == [3, 5, 6, 3, 7, 2]
    later = rows.batch(np.arange(2), 1)
    assert integers(later.inputs.flatten()) == [5, 6, 3, 7, 3, 2]
    assert integers(later.targets.flatten()) == [6, 3, 7, 3, 5, NO_TARGET]


def test_order__is_a_permutation_by_pcg64_of_seed_and_epoch() -> None:
    for rows in (1, 2, 1000):
        expected = np.random.Generator(np.random.PCG64([7, 3])).permutation(rows)
        assert np.array_equal(epoch_order(rows, 7, 3), expected)
    assert len({epoch_order(50, seed, epoch).tobytes() for seed, epoch in ((1, 0), (1, 1), (2, 0))}) == 3


LENGTH = 64
ROWS = np.arange(500)


def stream() -> Ids:
    """Lines of text and special tokens, as a tokenizer gives them."""
    generator = np.random.Generator(np.random.PCG64(1))
    ids: NDArray[np.uint8] = generator.integers(5, 13, size=len(ROWS) * LENGTH + 1).astype(np.uint8)
    ids[generator.random(len(ids)) < 0.1] = 3
    ids[generator.random(len(ids)) < 0.05] = 1
    return ids


def masked_rows(probability: float = 0.15, *, seed: int = 1) -> Rows:
    return Rows(stream(), LENGTH, CHAR_IDS, Masking(VOCABULARY, 4, probability, seed))


PLAIN = Rows(stream(), LENGTH, CHAR_IDS)
READS = [(0, 0), (0, 6), (0, 30), (1, 0), (4, 12)]
"""Epochs and positions: the next step, one that was not prepared, and the steps of other epochs."""


@pytest.mark.parametrize(
    "rows", [rows_of(["abc" * n for n in range(1, 60)], 7), masked_rows()], ids=["plain", "masked"]
)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reader__gives_the_rows_of_a_step_with_any_number_of_threads(rows: Rows, workers: int) -> None:
    """Rows are masked by the number of the epoch; threads that prepare batches end with the reader."""
    before = set(threading.enumerate())
    with closing(BatchReader(rows, batch_size=4, batches_per_step=2, seed=3, workers=workers)) as batches:
        for epoch, position in READS:
            order = epoch_order(len(rows), 3, epoch)[position : position + 8]
            for batch, start in zip(batches.read(epoch, position), range(0, 8, 4), strict=True):
                expected = rows.batch(order[start : start + 4], epoch)
                assert torch.equal(batch.inputs, expected.inputs) and torch.equal(batch.targets, expected.targets)
                assert batch.tokens == expected.tokens
        [last] = batches.read(0, len(rows) - 3)
        assert len(last.inputs) == 3, "an epoch ends with the rows that are left"
        assert min(workers, 1) <= len(set(threading.enumerate()) - before) <= workers
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


def test_masking__chooses_and_replaces_at_the_rates_of_the_paper() -> None:
    batch, original = masked_rows().batch(ROWS), PLAIN.batch(ROWS).inputs
    inputs, targets = batch.inputs, batch.targets
    chosen, ordinary = targets != NO_TARGET, original > 4
    assert torch.equal(targets[chosen], original[chosen])
    assert torch.equal(inputs[~chosen], original[~chosen])
    assert not bool((chosen & ~ordinary).any())
    assert batch.tokens == int(chosen.sum())
    assert float(chosen.sum() / ordinary.sum()) == pytest.approx(0.15, abs=0.01)
    is_mask, is_kept = inputs[chosen] == 4, inputs[chosen] == original[chosen]
    assert float(is_mask.float().mean()) == pytest.approx(0.8, abs=0.02)
    # of 10 % random tokens an eighth is the original one
    assert float(is_kept.float().mean()) == pytest.approx(0.1 + 0.1 / 8, abs=0.02)
    assert set(integers(inputs[chosen])) == set(range(4, 13))


@pytest.mark.parametrize("probability", [0.0, 0.01])
def test_masking__has_one_position_at_least_in_every_row_that_has_text(probability: float) -> None:
    targets = masked_rows(probability).batch(ROWS).targets
    assert int((targets != NO_TARGET).sum(dim=1).min()) == 1


def test_masking__with_certainty_masks_all_but_special_tokens() -> None:
    assert torch.equal(masked_rows(1.0).batch(ROWS).targets != NO_TARGET, PLAIN.batch(ROWS).inputs > 4)
    ids: NDArray[np.uint8] = np.full(12, 3, dtype=np.uint8)
    special = Rows(ids, 8, CHAR_IDS, Masking(VOCABULARY, 4, 0.5, 1)).batch(ROWS[:2])
    assert special.tokens == 0
    assert bool((special.targets == NO_TARGET).all())


def test_masking__follows_from_seed_row_and_draw_and_not_from_the_batch() -> None:
    rows = masked_rows()
    whole = rows.batch(ROWS[:8], 3)
    parts = [rows.batch(ROWS[i : i + 1], 3) for i in range(8)]
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
    assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
    assert not torch.equal(whole.targets, rows.batch(ROWS[:8], 4).targets)
    assert not torch.equal(whole.targets, masked_rows(seed=2).batch(ROWS[:8], 3).targets)


def test_lengths__are_given_for_batches_with_padding_only() -> None:
    rows = Rows(stream()[: LENGTH + 9], LENGTH, CHAR_IDS)
    assert rows.batch(ROWS[:1]).lengths is None
    lengths = rows.batch(ROWS[:2]).lengths
    assert lengths is not None
    assert torch.equal(lengths, tensor_of([[LENGTH, 8]])[0])


def test_objective__decides_whether_rows_are_masked() -> None:
    assert masking(effective_of("gpt2"), VOCABULARY, 42) is None
    assert isinstance(masking(effective_of("bert"), VOCABULARY, 42), Masking)
    with refused(ErrorCode.MODEL_INCOMPATIBLE, "mask token"):
        masking(effective_of("bert"), vocabulary(13), 42)
