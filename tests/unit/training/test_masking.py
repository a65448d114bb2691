"""Masked rows: how many tokens are masked, with what, and that the same seed masks the same."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.families import CHAR_IDS, VOCABULARY, effective_of, vocabulary
from tests.support.tiny_models import tensor_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.tokenizers.base import Ids
from trainer.training.batches import NO_TARGET, BatchReader, Masking, Rows, epoch_order, masking

LENGTH = 64
ROWS = np.arange(500)


def stream(seed: int = 1) -> Ids:
    """Lines of text and special tokens, as a tokenizer gives them."""
    generator = np.random.Generator(np.random.PCG64(seed))
    ids: NDArray[np.uint8] = generator.integers(5, 13, size=len(ROWS) * LENGTH + 1).astype(np.uint8)
    ids[generator.random(len(ids)) < 0.1] = 3
    ids[generator.random(len(ids)) < 0.05] = 1
    return ids


def masked(probability: float = 0.15, *, seed: int = 1) -> Rows:
    return Rows(stream(), LENGTH, CHAR_IDS, Masking(VOCABULARY, 4, probability, seed))


def test_masking__chooses_and_replaces_at_the_rates_of_the_paper() -> None:
    plain, batch = Rows(stream(), LENGTH, CHAR_IDS).batch(ROWS), masked().batch(ROWS)
    original, inputs, targets = plain.inputs, batch.inputs, batch.targets

    chosen = targets != NO_TARGET
    ordinary = original > 4
    assert torch.equal(targets[chosen], original[chosen])
    assert torch.equal(inputs[~chosen], original[~chosen])
    assert not bool((chosen & ~ordinary).any())
    assert batch.tokens == int(chosen.sum())
    assert float(chosen.sum() / ordinary.sum()) == pytest.approx(0.15, abs=0.01)
    is_mask = inputs[chosen] == 4
    is_kept = inputs[chosen] == original[chosen]
    assert float(is_mask.float().mean()) == pytest.approx(0.8, abs=0.02)
    # a random token is the original one in an eighth of the cases
    assert float(is_kept.float().mean()) == pytest.approx(0.1 + 0.1 / 8, abs=0.02)
    put: list[int] = inputs[chosen].tolist()
    assert sorted(set(put)) == list(range(4, 13))


@pytest.mark.parametrize("probability", [0.0, 0.01])
def test_masking__has_one_position_at_least_in_every_row_that_has_text(probability: float) -> None:
    targets = masked(probability).batch(ROWS).targets
    assert int((targets != NO_TARGET).sum(dim=1).min()) == 1


def test_masking__with_certainty_masks_all_but_special_tokens() -> None:
    original = Rows(stream(), LENGTH, CHAR_IDS).batch(ROWS).inputs
    targets = masked(1.0).batch(ROWS).targets
    assert torch.equal(targets != NO_TARGET, original > 4)


def test_row_of_special_tokens__has_no_target() -> None:
    ids: NDArray[np.uint8] = np.full(12, 3, dtype=np.uint8)
    batch = Rows(ids, 8, CHAR_IDS, Masking(VOCABULARY, 4, 0.5, 1)).batch(ROWS[:2])
    assert batch.tokens == 0
    assert bool((batch.targets == NO_TARGET).all())


def test_masking__follows_from_seed_row_and_draw_and_not_from_the_batch() -> None:
    rows = masked()
    whole = rows.batch(ROWS[:8], 3)
    parts = [rows.batch(ROWS[i : i + 1], 3) for i in range(8)]
    assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
    assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
    assert not torch.equal(whole.targets, rows.batch(ROWS[:8], 4).targets)
    assert not torch.equal(whole.targets, masked(seed=2).batch(ROWS[:8], 3).targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_reader__masks_rows_by_the_number_of_the_epoch(workers: int) -> None:
    rows = masked()
    reader = BatchReader(rows, batch_size=4, batches_per_step=1, seed=1, workers=workers)
    try:
        batches = [*reader.read(6, 0), *reader.read(6, 4)]
    finally:
        reader.close()
    order = epoch_order(len(rows), 1, 6)
    for batch, start in zip(batches, (0, 4), strict=True):
        assert torch.equal(batch.inputs, rows.batch(order[start : start + 4], 7).inputs)


def test_lengths__are_told_of_batches_with_padding_only() -> None:
    ids = stream()[: LENGTH + 9]
    rows = Rows(ids, LENGTH, CHAR_IDS)
    assert rows.batch(ROWS[:1]).lengths is None
    lengths = rows.batch(ROWS[:2]).lengths
    assert lengths is not None
    assert torch.equal(lengths, tensor_of([[LENGTH, 9]])[0])


def test_objective__decides_what_is_predicted() -> None:
    causal, of_bert = masking(effective_of("gpt2"), VOCABULARY, 42), masking(effective_of("bert"), VOCABULARY, 42)
    assert causal is None
    assert isinstance(of_bert, Masking)
    with pytest.raises(AppError, match="mask token") as caught:
        masking(effective_of("bert"), vocabulary(13), 42)
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE


def test_reference__mean_of_the_replaced_is_that_of_the_formula() -> None:
    """Of 10 % random tokens among k, (k - 1) / k change: the share of changed inputs is 0.8 + 0.1 * 7 / 8."""
    plain, batch = Rows(stream(), LENGTH, CHAR_IDS).batch(ROWS), masked().batch(ROWS)
    chosen = batch.targets != NO_TARGET
    changed = float((batch.inputs != plain.inputs).sum() / chosen.sum())
    assert math.isclose(changed, 0.8 + 0.1 * 7 / 8, abs_tol=0.02)
