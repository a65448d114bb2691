"""N-gram language models: counted n-grams with Kneser-Ney smoothing; nothing of them is trained by gradients."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import NgramConfig, Objective
from trainer.models.base import LanguageModel, check_ids
from trainer.models.steps import ForwardSteps, ModelState, Steps
from trainer.models.threads import Work
from trainer.ngrams.counts import Counts, Keys
from trainer.ngrams.kneser_ney import MIN_PROBABILITY, KneserNey, NgramTables, Nodes
from trainer.tokenizers.base import Tokenizer, Vocabulary

_CHUNK_LOGITS = 1 << 20
"""Probabilities that are computed at once."""
_SAME_SURPRISAL = 1e-4


class NgramModel(LanguageModel):
    """A causal model of unlimited context: its logits are logarithms of probabilities.

    Its hidden states and its state, (1, B, n - 1), are the numbers of the n-grams of the orders 1 to n - 1 that end
    with the last token. NumPy computes on the CPU, wherever the tables are. Before the counting all tokens have equal
    probabilities.
    """

    def __init__(self, config: NgramConfig, vocabulary: Vocabulary, objective: Objective) -> None:
        super().__init__(vocabulary, objective)
        self.config = config
        self._engine: KneserNey | None = None
        for order, size in enumerate(config.ngrams or (vocabulary.size,), 1):
            if order > 1:
                self.register_buffer(f"keys_{order}", torch.zeros(size, dtype=torch.int64))
            self.register_buffer(f"counts_{order}", torch.zeros(size, dtype=torch.int32))

    def fill(self, tables: NgramTables) -> None:
        """Take counted n-grams, which must be as many as the config says."""
        arrays = {f"keys_{order}": keys for order, keys in enumerate(tables.keys, 1) if order > 1}
        weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
        weights |= {f"counts_{order}": torch.from_numpy(counts) for order, counts in enumerate(tables.counts, 1)}
        self.load_state_dict(weights, assign=True)
        self._engine = None

    @property
    def engine(self) -> KneserNey:
        """The tables with their sums, computed at the first use."""
        if self._engine is None:
            keys: list[Keys] = [np.arange(self.vocab_size)]
            counts: list[Counts] = []
            for name, table in self.named_buffers():
                if name.startswith("keys"):
                    order_keys: Keys = table.cpu().numpy()
                    keys.append(order_keys)
                else:
                    order_counts: Counts = table.cpu().numpy()
                    counts.append(order_counts)
            tables = NgramTables(tuple(keys), tuple(counts))
            discounts = self.config.discounts or ((0.0, 0.0, 0.0),)
            self._engine = KneserNey(tables, discounts, self.vocab_size, self.vocabulary.special_ids)
        return self._engine

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._read(ids, self.initial_state(len(ids)))

    def logits(self, hidden: Tensor) -> Tensor:
        contexts: Nodes = hidden.flatten(0, -2).cpu().numpy()
        logits = torch.empty(len(contexts), self.vocab_size)
        rows = max(1, _CHUNK_LOGITS // self.vocab_size)
        for start in range(0, len(contexts), rows):
            probabilities = self.engine.probabilities(contexts[start : start + rows])
            np.maximum(probabilities, MIN_PROBABILITY, out=probabilities)
            logits[start : start + rows] = torch.from_numpy(np.log(probabilities, out=probabilities))
        return logits.reshape(*hidden.shape[:-1], self.vocab_size).to(hidden.device)

    def initial_state(self, batch: int) -> ModelState:
        return (torch.from_numpy(self.engine.no_context(batch)).unsqueeze(0).to(self.device),)

    def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        hidden = self._read(ids, state)
        return self.logits(hidden), (hidden[:, -1].unsqueeze(0),)

    def _read(self, ids: Tensor, state: ModelState) -> Tensor:
        check_ids(ids)
        numbers: NDArray[np.int64] = ids.cpu().numpy()
        before: Nodes = state[0][0].cpu().numpy()
        return torch.from_numpy(self.engine.read_contexts(numbers, before)).to(ids.device)

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        sizes = self.config.ngrams
        for order, size in enumerate(sizes[:-1], 2):
            keys = weights[f"keys_{order}"]
            if int(keys[0]) < 0 or int(keys[-1]) >= size * self.vocab_size or not bool((keys[1:] > keys[:-1]).all()):
                raise ValueError(f"the n-grams of order {order} are not in order")

    def steps(self, state: ModelState, logits: Tensor, precision: GenerationPrecision = "fp32") -> Steps:
        return ForwardSteps(self.forward_with_state, state, logits)

    def computing(
        self, work: Work, rows: int, tokens: int, read_bytes: int | None = None
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def memory_bytes(self) -> int:
        return sum(table.nbytes for table in self.buffers())

    def parameter_count(self) -> int:
        """Return the number of stored n-grams."""
        return sum(table.numel() for name, table in self.named_buffers() if name.startswith("counts"))


class CountedText(NamedTuple):
    """The counts of a training text as models."""

    tokenizer: Tokenizer
    unigram: NgramModel
    ngram: NgramModel
    order: int
    """That of the best n-gram."""
    has_spaces: bool
    """Its lines have several words between white space."""


def are_same_surprisals(one: Iterable[float | None], other: Iterable[float | None]) -> bool:
    """Return True if two models are the same n-gram by their surprisals of a text, in nats or bits.

    A run of n-grams is the n-gram of its training text, and does not stand beside itself.
    """
    pairs = zip(one, other, strict=True)
    return all(a is b if a is None or b is None else abs(a - b) < _SAME_SURPRISAL for a, b in pairs)
