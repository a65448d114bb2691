"""Probabilities of the beginnings of texts, summed over all tokenizations, with bounds.

The probability of a beginning is that of all token sequences whose text begins with it: those that spell it, and those
whose last token spells more. The surprisal of a part of a text is the difference of two such surprisals, so that parts
add up to the text, wherever it is cut (Vieira et al. 2024, https://arxiv.org/abs/2412.03719; Kiegeland et al. 2026,
https://arxiv.org/abs/2604.28147, with code at https://github.com/samuki/units-surprisal).

The tokenizations are followed from left to right. At each position the likeliest are continued, and the probabilities
of the others are added up: their continuations have no more. Special tokens spell nothing. The unknown token spells
only what it stands for in the canonical tokenization.

A model reads each tokenization that is continued, at nearly every position of a text, while it reads the canonical one
once. A model that carries a state reads one token of it, a transformer all tokens, those with the same beginning once.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise, starmap
from math import exp, fsum, inf, log1p
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.inference.prefix_trees import next_logits
from trainer.inference.windows import windows
from trainer.models.base import LanguageModel
from trainer.models.steps import ModelState, concatenate_states, select_rows
from trainer.tokenizers.base import Tokenizer

_Floats: TypeAlias = "NDArray[np.float64]"

_NEGLIGIBLE_NATS = 30.0
"""A tokenization that has so many nats more than the likeliest one is dropped."""
_BEAM_PER_CONTEXT = 16
"""Where a word ends, this share of the beam is continued, because the tokenizations of words multiply.

So a beam of 128 has room for nearly all tokenizations of the next word. With as many at the ends as elsewhere, the
bounds of one word in twenty are above 0.4 nats; with 8 at the ends, above 0.009 nats, in less than a third of the time
(a trained GPT-2 with 1,000 BPE tokens).
"""
_TEXTS_SIDE_BY_SIDE = 64
_MAX_LOGITS = 1 << 22
_WORD_END = re.compile(r"\S(?=\s)")


class Marginal(NamedTuple):
    """The parts of a text, summed over tokenizations."""

    part_nats: tuple[float, ...]
    part_left_out_nats: tuple[float, ...]
    """An estimate of how much lower each would be over all tokenizations, given those that were continued before it.

    It is no bound: tokenizations that were dropped before the part make it larger or smaller.
    """
    bound_nats: float
    """The largest difference of all parts together from their sum over all tokenizations."""


def marginals(
    model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str], ends: Sequence[Sequence[int]], beam_size: int
) -> list[Marginal]:
    """Return the parts of normalized texts between some positions, which are in ascending order for each text.

    The tokenizer has several tokenizations of a text, and the model was trained with causal_lm. A text that is cut
    elsewhere has the same total.
    """
    model.eval()
    spellings = _Spellings(tokenizer)
    searches = [_Search(model, spellings, text, of_text) for text, of_text in zip(texts, ends, strict=True)]
    rows = max(1, _MAX_LOGITS // model.vocab_size)
    for first in range(0, len(searches), _TEXTS_SIDE_BY_SIDE):
        together = searches[first : first + _TEXTS_SIDE_BY_SIDE]
        while waiting := [search for search in together if search.waiting]:
            paths = [(search, path) for search in waiting for path in search.take(beam_size)]
            for begin in range(0, len(paths), rows):
                batch = paths[begin : begin + rows]
                log_p, states = _read(model, [path for _, path in batch])
                for (search, path), of_path, state in zip(batch, log_p, states, strict=True):
                    search.follow(path, of_path, state)
    return [search.result() for search in searches]


def has_several(tokenizer: Tokenizer) -> bool:
    """Return whether a text can have several tokenizations."""
    return tokenizer.manifest.method not in ("char", "byte", "word")


class _Path(NamedTuple):
    """A tokenization of the beginning of a text."""

    ids: list[int]
    """With the start token."""
    nats: float
    state: ModelState | None
    """The state before the last id; None for a transformer."""


class _Spellings:
    """The tokens of a vocabulary in the order of the bytes that they spell."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        special = {*tokenizer.special_ids.all}
        spelled = {i: _bytes(text) for i, text in enumerate(tokenizer.texts) if text and i not in special}
        spelled |= {i: bytes((byte,)) for i, byte in tokenizer.byte_values.items()}
        self._ids = sorted(spelled, key=spelled.__getitem__)
        self._sorted = [spelled[i] for i in self._ids]
        self.longest = max(map(len, self._sorted), default=0)

    def of(self, text: bytes) -> list[int]:
        """Return the tokens that spell a text."""
        return self._ids[bisect_left(self._sorted, text) : bisect_right(self._sorted, text)]

    def beginning_with(self, text: bytes) -> list[int]:
        """Return the tokens that spell a text or more."""
        highest = text + b"\xff" * self.longest
        return self._ids[bisect_left(self._sorted, text) : bisect_right(self._sorted, highest)]


class _Search:
    """The tokenizations of a text. Positions are those of its bytes."""

    def __init__(self, model: LanguageModel, spellings: _Spellings, text: str, ends: Sequence[int]) -> None:
        tokenizer, self._spellings = spellings.tokenizer, spellings
        before = " " if tokenizer.manifest.method == "sentencepiece" else ""  # it is not shown at the start of a text
        places = [*accumulate((len(_bytes(character)) for character in text), initial=len(before))]
        self._text = _bytes(before + text)
        self._ends = [places[end] if end else 0 for end in ends]
        self._word_ends = {places[found.end()] for found in _WORD_END.finditer(text)}
        unknown = tokenizer.special_ids.unk
        spans = zip(tokenizer.encode(text), tokenizer.spans(text), strict=True)
        self._unknown_ids = [unknown]
        self._unknown = {places[start]: places[end] for token, (start, end) in spans if token == unknown}
        state = model.initial_state(1) if model.carries_unlimited_state else None
        start = _Path([tokenizer.special_ids.start], 0.0, state)
        self.waiting = {0: [start]}
        """The paths to each position that has not been taken."""
        if before and not text.startswith(before):  # the first token may be without the space
            self.waiting[1] = [start]
        self._log_p = dict.fromkeys(sorted({*self._ends, *self._word_ends}), -inf)
        """For positions, the log probability of the text up to there."""
        self._dropped: dict[int, float] = {}
        """For positions, the log probability of all paths that were dropped there."""
        self._covering: list[tuple[int, list[int]]] = []
        """For each end behind the position that was taken last, the tokens that reach it or go further."""
        self._following: list[tuple[int, list[int]]] = []
        """For each position that the next token can end at, the tokens that do so."""

    def take(self, beam_size: int) -> list[_Path]:
        """Return the likeliest paths to the first waiting position, and drop the others there."""
        position = min(self.waiting)
        best = min(path.nats for paths in self.waiting.values() for path in paths)
        paths = sorted(self.waiting.pop(position), key=_nats)
        beam_size = max(1, beam_size // _BEAM_PER_CONTEXT) if position in self._word_ends else beam_size
        kept = [path for path in paths[:beam_size] if path.nats <= best + _NEGLIGIBLE_NATS]
        if len(kept) < len(paths):
            self._dropped[position] = _log_sum([-path.nats for path in paths[len(kept) :]])
        past = self._unknown.get(position)
        last = min(position + self._spellings.longest, len(self._text)) if past is None else past
        ends = [end for end in self._log_p if position < end <= last]
        if past is None:
            self._covering = [(end, self._spellings.beginning_with(self._text[position:end])) for end in ends]
            followed = range(position + 1, min(last, len(self._text) - 1) + 1)
            spelled = [(end, self._spellings.of(self._text[position:end])) for end in followed]
            self._following = [(end, ids) for end, ids in spelled if ids]
        else:
            self._covering = [(end, self._unknown_ids) for end in ends]
            self._following = [(past, self._unknown_ids)] if past < len(self._text) else []
        return kept

    def follow(self, path: _Path, log_p: _Floats, state: ModelState | None) -> None:
        """Continue a path by the tokens that may come next, given the log probabilities (V,) of all."""
        for end, ids in self._covering:
            found: list[float] = (log_p[ids] - path.nats).tolist()
            self._log_p[end] = _log_sum([self._log_p[end], *found])
        for end, ids in self._following:
            longer = [_Path([*path.ids, token], path.nats - log_p.item(token), state) for token in ids]
            self.waiting.setdefault(end, []).extend(longer)

    def result(self) -> Marginal:
        """Return the parts, once no path is waiting."""
        nats = {end: -log_p if end else 0.0 for end, log_p in self._log_p.items()}
        parts = [*pairwise(self._ends)]
        left_out = [fsum(starmap(self._left_out, pairwise(end for end in nats if a <= end <= b))) for a, b in parts]
        last = self._ends[-1]
        return Marginal(
            tuple(nats[after] - nats[before] for before, after in parts),
            tuple(left_out),
            _log_sum([0.0, self._dropped_log_p(0, last) - self._log_p[last]]),
        )

    def _left_out(self, begin: int, end: int) -> float:
        """Estimate how much lower the surprisal of a word would be, given the continued tokenizations before it."""
        stopped, inside = self._dropped_log_p(begin, begin + 1), self._dropped_log_p(begin + 1, end)
        given = 0.0 if begin == 0 else self._log_p[begin]
        return _log_sum([0.0, inside - self._log_p[end]]) - log1p(-exp(stopped - given))

    def _dropped_log_p(self, begin: int, end: int) -> float:
        return _log_sum([log_p for position, log_p in self._dropped.items() if begin <= position < end])


def _log_sum(log_p: Sequence[float]) -> float:
    """Return the logarithm of the sum of probabilities."""
    total: float = np.logaddexp.reduce([-inf, *log_p])
    return float(total)


def _nats(path: _Path) -> float:
    return path.nats


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _read(model: LanguageModel, paths: Sequence[_Path]) -> "tuple[list[_Floats], list[ModelState | None]]":
    """Return for each path the log probabilities (V,) of the next token, and the state after its last id."""
    states: list[ModelState | None] = [None] * len(paths)
    before = [path.state for path in paths if path.state is not None]
    if before:
        last = [[path.ids[-1]] for path in paths]
        with torch.inference_mode(), model.computing("scoring", len(paths), len(paths)):
            logits, state = model.forward_with_state(
                torch.tensor(last, device=model.device), concatenate_states(before)
            )
        logits, states = logits[:, -1], [select_rows(state, [row]) for row in range(len(paths))]
    else:
        logits = next_logits(model, [_last_window(path.ids, model.context_tokens) for path in paths])
    log_p: _Floats = logits.double().log_softmax(-1).cpu().numpy()
    rows: list[_Floats] = list(log_p)
    return rows, states


def _last_window(ids: list[int], context_tokens: int | None) -> list[int]:
    """Return the ids that a model reads to predict the next one."""
    length: NDArray[np.int64] = np.full(1, len(ids), dtype=np.int64)
    return ids[windows(length, context_tokens).begin.item(-1) :]
