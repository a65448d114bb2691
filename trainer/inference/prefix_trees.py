"""Surprisals of sequences that share prefixes, such as minimal pairs, by a transformer that reads each prefix once.

Sequences with the same beginning lie in a tree, whose nodes are their ids. The model reads each node given its
ancestors, by a mask of its attention and with the depth of the node as its position.
"""

from collections.abc import Iterator, Sequence
from os.path import commonprefix
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.inference.windows import Window
from trainer.models.base import LanguageModel

_TREE_NODES = 1 << 7
"""Nodes up to which any sequence joins a tree: larger trees share more, but their attention takes longer."""
_MAX_BATCH_NODES = 1 << 10
"""Limit of a batch, whose activations stay in the processor's cache."""
_MAX_LOGITS = 1 << 24


class PrefixTree(NamedTuple):
    """The nodes of sequences, in depth-first order: the descendants of a node follow it."""

    ids: list[int]
    depths: list[int]
    ends: list[int]
    """The position behind the last descendant of each node."""
    paths: dict[int, list[int]]
    """The nodes of each sequence, by its number."""


def prefix_trees(sequences: Sequence[list[int]]) -> list[PrefixTree]:
    """Return trees that together have all sequences; a tree can have several roots."""
    trees: list[PrefixTree] = []
    before: list[int] = []
    path: list[int] = []
    for number in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = sequences[number]
        shared = len(commonprefix([before, sequence]))
        size = len(trees[-1].ids) + len(sequence) - shared if trees else 0
        shares_most = 2 * shared > len(sequence)
        if not trees or size > max(_TREE_NODES, 2 * len(sequence) if shares_most else 0):
            trees.append(PrefixTree([], [], [], {}))
            shared, size = 0, len(sequence)
        tree = trees[-1]
        path = [*path[:shared], *range(len(tree.ids), size)]
        tree.ids.extend(sequence[shared:])
        tree.depths.extend(range(shared, len(sequence)))
        tree.ends.extend([size] * (len(sequence) - shared))
        for node in path[:shared]:
            tree.ends[node] = size
        tree.paths[number] = path
        before = sequence
    return trees


def tree_surprisals(model: LanguageModel, windows: Sequence[Window]) -> list[list[float]]:
    """Return the surprisals of the scored ids of each window, in nats."""
    found: dict[int, list[float]] = {}
    for batch in _batches(prefix_trees([window.ids[:-1] for window in windows])):
        surprisals = iter(_batch_surprisals(model, batch, windows))
        for number in (number for tree in batch for number in tree.paths):
            found[number] = [next(surprisals) for _ in windows[number].ids[windows[number].first + 1 :]]
    return [found[number] for number in range(len(windows))]


def next_logits(model: LanguageModel, sequences: Sequence[list[int]]) -> Tensor:
    """Return the logits (N, V) of the token after each sequence."""
    found: dict[int, Tensor] = {}
    for batch in _batches(prefix_trees(sequences)):
        ids, depths, ends = (column.to(model.device) for column in _columns(batch))  # each (B, N)
        numbers = [number for tree in batch for number in tree.paths]
        rows = [row for row, tree in enumerate(batch) for _ in tree.paths]
        nodes = [path[-1] for tree in batch for path in tree.paths.values()]
        with torch.inference_mode(), model.computing("scoring", len(nodes), ids.numel()):
            logits = model.logits(model.tree_hidden_states(ids, depths, ends)[rows, nodes])
        found |= zip(numbers, logits.float().unbind(), strict=True)
    return torch.stack([found[number] for number in range(len(sequences))])


def _batches(trees: Sequence[PrefixTree]) -> Iterator[list[PrefixTree]]:
    """Yield trees of similar size together, the largest first."""
    sizes = [len(tree.ids) for tree in trees]
    by_size: list[int] = np.argsort(sizes, kind="stable").tolist()
    while by_size:
        count = max(1, _MAX_BATCH_NODES // sizes[by_size[-1]])
        by_size, batch = by_size[:-count], [trees[i] for i in by_size[-count:]]
        yield batch


def _batch_surprisals(model: LanguageModel, trees: Sequence[PrefixTree], windows: Sequence[Window]) -> list[float]:
    """Return the surprisals of the scored ids of all windows in the trees, in the order of the paths."""
    ids, depths, ends = _columns(trees)  # each (B, N)
    nodes: list[int] = []
    target_ids: list[int] = []
    for row, tree in enumerate(trees):
        for number, path in tree.paths.items():
            nodes += [row * ids.shape[1] + node for node in path[windows[number].first :]]
            target_ids += windows[number].ids[windows[number].first + 1 :]
    given, targets = torch.tensor(nodes), torch.tensor(target_ids)
    is_given = torch.zeros(ids.numel(), dtype=torch.bool)
    is_given[given] = True  # also where several sequences are scored after one node
    places, count = is_given.cumsum(0)[given] - 1, int(is_given.sum())
    surprisals = torch.empty(len(targets))
    rows = max(1, _MAX_LOGITS // model.vocab_size)
    device = model.device
    with torch.inference_mode(), model.computing("scoring", count % rows or rows, ids.numel()):
        if any(len(tree.paths) > 1 for tree in trees):
            read = model.tree_hidden_states(ids.to(device), depths.to(device), ends.to(device))
        else:
            read = model.hidden_states(ids.to(device))
        hidden = read.flatten(0, 1)[is_given.to(device)]  # (count, H)
        for begin in range(0, count, rows):
            log_p = model.logits(hidden[begin : begin + rows]).float().log_softmax(-1)
            is_here = (places >= begin) & (places < begin + rows)
            surprisals[is_here] = -log_p[places[is_here] - begin, targets[is_here]].clamp_max(0).cpu()
    values: list[float] = surprisals.tolist()
    return values


def _columns(trees: Sequence[PrefixTree]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ids, depths and ends of trees, (B, N) each; the padding of a tree is a path of its own."""
    size = max(len(tree.ids) for tree in trees)
    gaps = [[0] * (size - len(tree.ids)) for tree in trees]
    ids = [tree.ids + gap for tree, gap in zip(trees, gaps, strict=True)]
    depths = [tree.depths + gap for tree, gap in zip(trees, gaps, strict=True)]
    ends = [tree.ends + [size] * len(gap) for tree, gap in zip(trees, gaps, strict=True)]
    return torch.tensor(ids), torch.tensor(depths), torch.tensor(ends)
