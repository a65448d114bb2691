"""Next-token prediction, as for a keyboard: the likeliest tokens, with a cache of states from key to key."""

import math
from collections import OrderedDict

import torch

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.predictions import PredictRequest, PredictResponse, Suggestion
from trainer.inference.generation import read_prompt, steps_after
from trainer.models.base import LanguageModel
from trainer.models.steps import Steps
from trainer.tokenizers.base import Tokenizer

_MAX_BYTES = 64 << 20
_MAX_PREFIXES = 256
_ID_BYTES = 8
_FEW_TOKENS = 8
"""New tokens that steps read sooner than a pass over the whole text; of a long text a quarter of its tokens."""


class PrefixCache:
    """States of the prefixes that a model read last, so that a growing text costs one step per new token.

    Holds at most `max_bytes` and 256 prefixes; drops the least recently used prefix first.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, ...], Steps] = OrderedDict()
        self.memory_bytes = 0

    def steps_after(self, model: LanguageModel, ids: list[int]) -> Steps:
        """Return the steps of one sequence after the ids, starting from the longest cached prefix.

        Also caches the ids without the last one, which is the token that people change most often.
        """
        prefix = tuple(ids)
        known = max((len(cached) for cached in self._entries if prefix[: len(cached)] == cached), default=0)
        if known:
            steps = self._entries[prefix[:known]]
        else:
            known = max(1, len(ids) - 1)
            steps = steps_after(model, [ids[:known]], "fp32")
        for end in range(max(known, len(ids) - 1), len(ids) + 1):
            if end > known:
                steps = _read_on(model, steps, ids[known:end], ids[:end])
                known = end
            self._store(prefix[:end], steps)
        return steps

    def _store(self, ids: tuple[int, ...], steps: Steps) -> None:
        if ids not in self._entries:
            self._entries[ids] = steps
            self.memory_bytes += _bytes(ids, steps)
        self._entries.move_to_end(ids)
        while len(self._entries) > _MAX_PREFIXES or self.memory_bytes > self._max_bytes:
            self.memory_bytes -= _bytes(*self._entries.popitem(last=False))


def predict(
    model: LanguageModel,
    tokenizer: Tokenizer,
    request: PredictRequest,
    response: PredictResponse,
    prefixes: PrefixCache,
) -> PredictResponse:
    """Suggest the k likeliest next tokens; none for a text without tokens. The model was trained with causal_lm.

    Probabilities are at temperature 1 over the complete vocabulary. Special tokens, [EOS] included, are not suggested.
    If the text ends with the space of the next token, only tokens that begin with it are suggested, and probabilities
    are over these tokens.

    Raises INVALID_INPUT for a text longer than the model's context.
    """
    prompt = read_prompt(tokenizer, request.text).to_continue(tokenizer)
    if model.context_tokens is not None and len(prompt.ids) > model.context_tokens:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"The text has {len(prompt.ids):,} tokens, and this model reads at most {model.context_tokens:,}. Give only"
            " its end.",
        )
    suggestions: tuple[Suggestion, ...] = ()
    if prompt.n_tokens or prompt.has_next_space:
        model.eval()
        never = set(tokenizer.special_ids.all)
        logits = torch.from_numpy(prefixes.steps_after(model, prompt.ids).logits).double().squeeze(0)
        if prompt.has_next_space and tokenizer.word_start_ids:
            never = set(range(model.vocab_size)) - tokenizer.word_start_ids
            others: list[int] = [*never]
            logits[others] = -math.inf
        log_p = logits.log_softmax(-1)
        order: list[int] = log_p.argsort(descending=True, stable=True).tolist()
        best = [token_id for token_id in order[: request.k + len(never)] if token_id not in never]
        suggestions = tuple(
            Suggestion(token=tokenizer.names[i], prob=float(log_p[i].exp()), logp=float(log_p[i]))
            for i in best[: request.k]
        )
    return changed(response, status="completed", suggestions=suggestions, unk_count=prompt.unk_count(tokenizer))


def _read_on(model: LanguageModel, steps: Steps, new_ids: list[int], ids: list[int]) -> Steps:
    """Return the steps after all ids; they may go on from other steps, which lack the new ids."""
    if len(new_ids) > max(_FEW_TOKENS, len(ids) // 4):
        return steps_after(model, [ids], "fp32")
    steps = steps.fork()
    with model.computing("generation", 1, len(new_ids), steps.read_bytes):
        for token_id in new_ids:
            steps.read([token_id], [0])
    return steps


def _bytes(ids: tuple[int, ...], steps: Steps) -> int:
    return len(ids) * _ID_BYTES + steps.memory_bytes()
