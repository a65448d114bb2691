"""Recurrent language models and rows of tokens in plain Python, as an oracle."""

import math
from collections.abc import Sequence

from torch import Tensor

from trainer.models.base import LanguageModel

Vector = list[float]
Matrix = list[Vector]


class ReferenceModel:
    """The same weights, the textbook's formulas, one symbol at a time, in double precision."""

    def __init__(self, model: LanguageModel, architecture: str) -> None:
        weights: dict[str, Tensor] = model.state_dict()
        self._matrices = {name: matrix(weight) for name, weight in weights.items() if weight.dim() == 2}
        self._vectors = {name: vector(weight) for name, weight in weights.items() if weight.dim() == 1}
        self._architecture = architecture
        self._layers = sum(name.startswith("layers.weight_hh") for name in weights)

    def log_probabilities(self, ids: Sequence[int]) -> list[Vector]:
        """Return after each id the log-probabilities (V,) of the next, from an empty state."""
        size = len(self._matrices["layers.weight_hh_l0"][0])
        hidden: list[Vector] = [[0.0] * size for _ in range(self._layers)]
        cell: list[Vector] = [[0.0] * size for _ in range(self._layers)]
        answers: list[Vector] = []
        for token in ids:
            x = self._matrices["embedding.weight"][token]
            for layer in range(self._layers):
                hidden[layer], cell[layer] = self._cell(layer, x, hidden[layer], cell[layer])
                x = hidden[layer]
            logits = affine(self._matrices["projection.weight"], x, self._vectors["projection.bias"])
            if "head_bias" in self._vectors:
                logits = affine(self._matrices["embedding.weight"], logits, self._vectors["head_bias"])
            highest = max(logits)
            total = math.log(sum(math.exp(v - highest) for v in logits))
            answers.append([v - highest - total for v in logits])
        return answers

    def _cell(self, layer: int, x: Vector, h: Vector, c: Vector) -> tuple[Vector, Vector]:
        from_input = affine(self._matrices[f"layers.weight_ih_l{layer}"], x, self._vectors[f"layers.bias_ih_l{layer}"])
        from_state = affine(self._matrices[f"layers.weight_hh_l{layer}"], h, self._vectors[f"layers.bias_hh_l{layer}"])
        both = [a + b for a, b in zip(from_input, from_state, strict=True)]
        n = len(h)
        if self._architecture == "lstm":
            new_c = [sigmoid(both[n + k]) * c[k] + sigmoid(both[k]) * math.tanh(both[2 * n + k]) for k in range(n)]
            return [sigmoid(both[3 * n + k]) * math.tanh(new_c[k]) for k in range(n)], new_c
        if self._architecture == "gru":
            new = [math.tanh(from_input[2 * n + k] + sigmoid(both[k]) * from_state[2 * n + k]) for k in range(n)]
            keep = [sigmoid(both[n + k]) for k in range(n)]
            return [(1 - keep[k]) * new[k] + keep[k] * h[k] for k in range(n)], c
        return [math.tanh(v) for v in both], c


def matrix(weight: Tensor) -> Matrix:
    rows: Matrix = weight.double().tolist()
    return rows


def vector(weight: Tensor) -> Vector:
    values: Vector = weight.double().tolist()
    return values


def affine(weight: Matrix, x: Vector, bias: Vector) -> Vector:
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def rows_by_hand(lines: Sequence[Sequence[int]], length: int) -> list[list[tuple[int, int | None]]]:
    """Rows of (input, target): the documents one after another, cut after `length` targets; None is not predicted."""
    stream = [i for line in lines for i in (2, *line, 3)]
    pairs = [(stream[k], stream[k + 1] if stream[k + 1] != 2 else None) for k in range(len(stream) - 1)]
    return [pairs[k : k + length] for k in range(0, len(pairs), length)]


def losses_by_hand(model: ReferenceModel, lines: Sequence[Sequence[int]], length: int) -> list[float]:
    """The loss of every predicted token of these documents."""
    losses: list[float] = []
    for row in rows_by_hand(lines, length):
        answers = model.log_probabilities([token for token, _ in row])
        losses += [-p[target] for p, (_, target) in zip(answers, row, strict=True) if target is not None]
    return losses


def windows_by_hand(tokens: int, most: int, *, both_sides: bool) -> list[tuple[int, int, list[int]]]:
    """Windows from, up to, and the positions that they score, one window after another."""
    context = most // 4
    found: list[tuple[int, int, list[int]]] = []
    scored = begin = 0
    while scored < tokens:
        end = min(begin + most, tokens)
        last = end if end == tokens or not both_sides else end - context
        found.append((begin, end, list(range(scored, last))))
        scored = last
        begin = last - context
    return found
