"""Sequences that share prefixes: their trees, and their surprisals against those of each sequence alone."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support.families import CONTINUING, MASKED, POSITIONS, VOCABULARY, model_of, slow_unless_quick, vocabulary
from tests.support.properties import for_all
from trainer.inference.prefix_trees import prefix_trees
from trainer.inference.scoring import ScoringInput, line_surprisals, score_lines
from trainer.models.base import LanguageModel

LETTERS = st.integers(5, 7)
ENDS = st.lists(LETTERS, min_size=1, max_size=12)
SEQUENCES = st.lists(st.tuples(st.integers(0, 90), ENDS), max_size=40)
"""Numbers of repetitions of a beginning, and ends."""


@for_all(SEQUENCES)
def test_tree__has_each_prefix_of_its_sequences_once(drawn: list[tuple[int, list[int]]]) -> None:
    sequences = [[5, 6] * count + end for count, end in drawn]
    trees = prefix_trees(sequences)
    numbers = [number for tree in trees for number in tree.paths]
    assert sorted(numbers) == list(range(len(sequences)))
    for tree in trees:
        prefixes = list[list[int]]()
        for node in range(len(tree.ids)):
            ancestors = [other for other in range(node + 1) if node < tree.ends[other]]
            prefixes.append([tree.ids[ancestor] for ancestor in ancestors])
            assert tree.depths[node] == len(ancestors) - 1
        expected = {tuple(sequences[number][: n + 1]) for number in tree.paths for n in range(len(sequences[number]))}
        assert len(prefixes) == len(expected) and {*map(tuple, prefixes)} == expected
        for number, path in tree.paths.items():
            assert [tree.ids[node] for node in path] == sequences[number] == prefixes[path[-1]]


def branching_lines() -> list[ScoringInput]:
    """Lines with equal beginnings and different ends, some beyond the context, some equal, some scored from a token."""
    start, other = [5, 7, 6, 9, 11, 8, 5, 5, 7, 12], [9, 9, 6]
    ids = [
        *([*start[:n], *end] for n in range(1, 11) for end in ([8], [10, 5], [10, 6, 7], [8])),
        *(
            [*start * 2, *end]
            for end in ([], other, other[::-1], [*other, 5], [*other, 5, 6], start * 4, start * 4 + [5])
        ),
        *(other[:n] for n in range(1, 4)),
    ]
    assert {POSITIONS - 1, POSITIONS, POSITIONS + 1} & set(map(len, ids))
    return [ScoringInput(line, None, first=n % len(line), has_end=False) for n, line in enumerate(ids)]


def alone(model: LanguageModel, ids: Sequence[int]) -> list[float]:
    [scores] = score_lines(model, [ids])
    nats: list[float] = scores.surprisal.tolist()
    return nats


@pytest.mark.parametrize("name", slow_unless_quick([*CONTINUING, *MASKED]))
def test_surprisals__of_lines_that_share_prefixes_are_those_of_each_line(name: str) -> None:
    model = model_of(name)
    lines = [line._replace(window_tokens=model.context_tokens) for line in branching_lines()]
    empty = lines[0]._replace(first=len(lines[0].ids))
    together = line_surprisals(model, [*lines, empty])
    assert together.pop() == []
    for line, found in zip(lines, together, strict=True):
        assert found == pytest.approx(alone(model, line.ids)[line.first :], abs=1e-5)


def counted(name: str, size: int, lines: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Score lines and return the number of rows of logits of each product; the scores are those of each line."""
    model = model_of(name, vocabulary(size))
    logits, rows = model.logits, list[int]()
    expected = [alone(model, line) for line in lines]

    def noted(hidden: Tensor) -> Tensor:
        rows.append(hidden[..., 0].numel())
        return logits(hidden)

    monkeypatch.setattr(model, "logits", noted)
    found = line_surprisals(model, [ScoringInput(line, model.context_tokens, has_end=False) for line in lines])
    for of_line, nats in zip(found, expected, strict=True):
        assert of_line == pytest.approx(nats, abs=1e-5)
    return rows


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen"])
def test_shared_prefix__is_scored_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = [5, 6, 7, 8, 9, 10, 11, 12] * 2
    lines = [[*prefix, 5, end] for end in (5, 6, 7)] + [[*prefix, 6, 5, 5]]
    assert sum(counted(name, VOCABULARY.size, lines, monkeypatch)) == 1 + len(prefix) + 3


def test_logits__of_many_lines_are_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [[5 + (line * place) % 30 for place in range(POSITIONS)] for line in range(40)]
    rows = counted("gpt2", 1 << 15, lines, monkeypatch)
    assert max(rows) * (1 << 15) <= 1 << 24


def test_model_without_trees__refuses_them() -> None:
    ids = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="only causal transformers"):
        model_of("lstm").tree_hidden_states(ids, ids, ids)
