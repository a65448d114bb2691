"""Choice of the next token by the logits and a draw, in double precision."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.generations import SamplingOptions

Doubles: TypeAlias = "NDArray[np.float64]"
Indices: TypeAlias = "NDArray[np.int64]"

_MIN_TEMPERATURE = 1e-6
_LIKELIEST = 256
"""Tokens that are sorted first for `top_p`; of a large vocabulary they are almost always enough."""
_FINITE = np.finfo(np.float64)
_exp: Callable[[Doubles], Doubles] = np.exp
_sums_up_to: Callable[[Doubles, int], Doubles] = np.add.accumulate  # sooner done than `cumsum` for one row
_log: Callable[[Doubles], Doubles] = np.log


def choose(logits: Doubles, request: SamplingOptions, draws: Sequence[float]) -> list[int]:
    """Choose an id for each row of logits (n, V): the likeliest at temperature 0, else by the draws (n,) in [0, 1).

    A draw says how much of the probability lies before the chosen token: by id, or with `top_k` or `top_p` likeliest
    first. `RunManifest.sampling_version` is the version of this order.
    """
    if request.temperature == 0:
        best: Indices = logits.argmax(-1)
        return _integers(best)
    weights, ids = possible_tokens(logits, request)
    bounds = _sums_up_to(weights, -1)
    chosen: list[int] = []
    for row, draw in enumerate(draws):
        up_to: Doubles = bounds[row, :]
        total: float = up_to.item(-1)
        place = min(int(up_to.searchsorted(draw * total, "right")), len(up_to) - 1)  # the last one if it is not finite
        chosen.append(place if ids is None else ids.item(row, place))
    return chosen


def possible_tokens(logits: Doubles, request: SamplingOptions) -> "tuple[Doubles, Indices | None]":
    """Return weights (n, K) in proportion to the probabilities to sample by, and the tokens' ids (n, K).

    Applies the temperature, then keeps the `top_k` likeliest tokens (of equals the lower id), then the fewest of them
    that make up `top_p` of the rest: likeliest first. Without both, the weights are those of all tokens, and the ids
    None.
    """
    below: Doubles = _below_zero(logits)
    if request.temperature != 1:
        with np.errstate(over="ignore"):  # to -inf
            below /= max(request.temperature, _MIN_TEMPERATURE)
    by_id = _exp(below)
    if not request.top_k and request.top_p == 1:
        return by_id, None
    size: int = by_id.shape[1]
    weights, ids = _likeliest(by_id, request.top_k + 1 if request.top_k else _LIKELIEST)
    totals: Doubles = by_id.sum(-1, keepdims=True)
    count: int = ids.shape[1]
    if count < size:
        found: Doubles = weights.sum(-1, keepdims=True)
        lacks_some = count < request.top_k if request.top_k else bool((found < request.top_p * totals).any())
        if lacks_some:
            weights, ids = _likeliest(by_id, size)
    if request.top_k:
        weights, ids = weights[:, : request.top_k], ids[:, : request.top_k]
        totals = weights.sum(-1, keepdims=True)
    if request.top_p < 1:
        up_to = _sums_up_to(weights, -1)
        before: Doubles = up_to - weights
        weights = np.where(before < request.top_p * totals, weights, 0.0)
    return weights, ids


def _likeliest(by_id: Doubles, count: int) -> tuple[Doubles, Indices]:
    """Return the largest weights (n, K) of by_id (n, V), likeliest first, of equals the lower id; and their ids.

    K is V if `count` is at least V, else less than `count`: it ends before equals of which some are left out.
    """
    size: int = by_id.shape[1]
    if count >= size:
        ids: Indices = np.argsort(-by_id, axis=-1, kind="stable")
        return _taken(by_id, ids), ids
    partitioned: Indices = np.argpartition(by_id, size - count, axis=-1)
    found: Indices = np.sort(partitioned[:, size - count :], axis=-1)
    ordered, order = _likeliest(_taken(by_id, found), count)
    is_larger: NDArray[np.bool_] = ordered > ordered[:, -1:]
    larger: Indices = is_larger.sum(-1)
    exact = min(_integers(larger))
    ids = found[_rows(order), order]
    return ordered[:, :exact], ids[:, :exact]


def _taken(values: Doubles, columns: Indices) -> Doubles:
    """Return the values (n, K) at some columns (n, K) of each row; faster than `take_along_axis` for few rows."""
    taken: Doubles = values.ravel().take(columns) if len(columns) == 1 else values[_rows(columns), columns]
    return taken


def _rows(columns: Indices) -> Indices:
    rows: Indices = np.arange(len(columns))[:, np.newaxis]
    return rows


def _integers(array: Indices) -> list[int]:
    integers: list[int] = array.tolist()
    return integers


def log_softmax(logits: Doubles) -> Doubles:
    """Return the logarithms of the probabilities (n, V)."""
    shifted = _below_zero(logits)
    totals: Doubles = _exp(shifted).sum(-1, keepdims=True)
    difference: Doubles = shifted - _log(totals)
    return difference


def of_ids(values: Doubles, ids: Sequence[int]) -> list[float]:
    """Return the value of an id in each row of values (n, V)."""
    columns: Indices = np.array(ids, dtype=np.int64).reshape(-1, 1)
    found: list[float] = np.take_along_axis(values, columns, axis=-1).flatten().tolist()
    return found


def likeliest(values: Doubles, count: int) -> list[list[tuple[int, float]]]:
    """Return the ids of the `count` largest values in each row of values (n, V), with the values, largest first."""
    size: int = values.shape[1]
    first = size - min(count, size)
    partitioned: Indices = np.argpartition(values, min(first, size - 1), axis=-1)
    found: Indices = np.sort(partitioned[:, first:], axis=-1)
    order: Indices = np.argsort(-_taken(values, found), axis=-1, kind="stable")
    ids = found[_rows(order), order]
    id_rows: list[list[int]] = ids.tolist()
    value_rows: list[list[float]] = _taken(values, ids).tolist()
    return [list(zip(*row, strict=True)) for row in zip(id_rows, value_rows, strict=True)]


def penalize_repetition(logits: Doubles, seen: Sequence[Sequence[int]], penalty: float) -> None:
    """Make the tokens that were seen in each row less likely, in place (Keskar et al. 2019)."""
    for row, ids in enumerate(seen):
        window = sorted(set(ids))
        of_window: Doubles = logits[row, window]
        with np.errstate(over="ignore"):  # clipped
            penalized: Doubles = np.where(of_window > 0, of_window / penalty, of_window * penalty)
        logits[row, window] = np.clip(penalized, _FINITE.min, _FINITE.max)


def _below_zero(logits: Doubles) -> Doubles:
    if len(logits) == 1:  # sooner than a maximum by rows
        highest: float = logits.item(int(logits.argmax()))
        of_row: Doubles = logits - highest
        return of_row
    highest_of_rows: Doubles = logits.max(-1, keepdims=True)
    shifted: Doubles = logits - highest_of_rows
    return shifted
