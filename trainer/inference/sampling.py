"""Choice of the next token by the logits and a draw, in double precision."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.inference import SamplingOptions

Doubles: TypeAlias = "NDArray[np.float64]"
Indices: TypeAlias = "NDArray[np.int64]"

_MIN_TEMPERATURE = 1e-6
_LIKELIEST = 256
"""Tokens that are sorted first; of a large vocabulary they are almost always enough."""
_MAX_ROUNDING = 1e-12
_FINITE = np.finfo(np.float64)
_exp: Callable[[Doubles], Doubles] = np.exp
_log: Callable[[Doubles], Doubles] = np.log


def filtered_probabilities(
    logits: Doubles, request: SamplingOptions, highest_draw: float = 1.0
) -> tuple[Doubles, Indices]:
    """Return the probabilities (n, K) of the tokens to sample from, likeliest first, and their ids (n, K).

    Applies the temperature, then keeps the `top_k` likeliest tokens (of equals the lower id), then the fewest of them
    that make up `top_p` of the rest. Tokens that no draw up to `highest_draw` can choose may be left out.
    """
    below: Doubles = _below_zero(logits)
    if request.temperature != 1:
        with np.errstate(over="ignore"):  # to -inf
            below /= max(request.temperature, _MIN_TEMPERATURE)
    by_id = _normalized(_exp(below))
    probabilities, ids = _likeliest(by_id, request.top_k + 1 if request.top_k else _LIKELIEST)
    size: int = by_id.shape[1]
    count: int = ids.shape[1]
    if count < size:
        sums: Doubles = probabilities.sum(-1)
        needed = request.top_p if request.top_p < 1 else highest_draw + _MAX_ROUNDING
        lacks_some = count < request.top_k if request.top_k else min(_floats(sums)) < needed
        if lacks_some:
            probabilities, ids = _likeliest(by_id, size)
    if request.top_k:
        probabilities, ids = _normalized(probabilities[:, : request.top_k]), ids[:, : request.top_k]
    if request.top_p < 1:
        up_to: Doubles = probabilities.cumsum(-1)
        before: Doubles = up_to - probabilities
        probabilities = _normalized(np.where(before < request.top_p, probabilities, 0.0))
    return probabilities, ids


def _likeliest(by_id: Doubles, count: int) -> tuple[Doubles, Indices]:
    """Return the largest probabilities (n, K) of by_id (n, V), likeliest first, of equals the lower id; and their ids.

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


def choose(logits: Doubles, request: SamplingOptions, draws: Sequence[float]) -> list[int]:
    """Choose an id for each row of logits (n, V): the likeliest at temperature 0, else by the draws (n,) in [0, 1)."""
    if request.temperature == 0:
        best: Indices = logits.argmax(-1)
        return _integers(best)
    probabilities, ids = filtered_probabilities(logits, request, max(draws))
    bounds: Doubles = probabilities.cumsum(-1)
    count: int = ids.shape[1]
    chosen: list[int] = []
    for row, draw in enumerate(draws):
        rank = int(bounds[row, :].searchsorted(draw, "right"))
        if rank == count:  # rounding left the draw above the last bound: take the last possible token
            rank = int(np.count_nonzero(probabilities[row, :])) - 1
        chosen.append(ids.item(row, rank))
    return chosen


def _integers(array: Indices) -> list[int]:
    integers: list[int] = array.tolist()
    return integers


def _floats(array: Doubles) -> list[float]:
    floats: list[float] = array.tolist()
    return floats


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


def penalize_repetition(logits: Doubles, seen: Sequence[Sequence[int]], penalty: float) -> None:
    """Make the tokens that were seen in each row less likely, in place (Keskar et al. 2019)."""
    for row, ids in enumerate(seen):
        window = sorted(set(ids))
        of_window: Doubles = logits[row, window]
        with np.errstate(over="ignore"):  # clipped
            penalized: Doubles = np.where(of_window > 0, of_window / penalty, of_window * penalty)
        logits[row, window] = np.clip(penalized, _FINITE.min, _FINITE.max)


def _below_zero(logits: Doubles) -> Doubles:
    highest: Doubles = logits.max(-1, keepdims=True)
    shifted: Doubles = logits - highest
    return shifted


def _normalized(weights: Doubles) -> Doubles:
    totals: Doubles = weights.sum(-1, keepdims=True)
    probabilities: Doubles = weights / totals
    return probabilities
