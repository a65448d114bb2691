"""What comes next after a text, as a keyboard asks: the likeliest tokens, and states kept from key to key."""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import PredictRequest, PredictResponse, Suggestion
from trainer.inference.generation import read_on, read_prompt
from trainer.models.base import LanguageModel, ModelState
from trainer.tokenizers.base import Tokenizer

_MOST_BYTES = 64 << 20
_MOST_PREFIXES = 256
_ID_BYTES = 8


class _Read(NamedTuple):
    """The logits (1, V) after a prefix, and the state there."""

    logits: Tensor
    state: ModelState


class PrefixCache:
    """What a model has read of late, so that a text that grows costs one step for each token that is added.

    Keeps the states of so many bytes together, and of 256 prefixes; the least recently used one goes first.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[int, ...], _Read] = OrderedDict()
        self.memory_bytes = 0

    def logits_after(self, model: LanguageModel, ids: list[int]) -> Tensor:
        """Return the logits (V,) after the ids, reading on from the longest prefix of them that is known.

        Without their last token they are kept too: it is often what is changed or taken back.
        """
        whole = tuple(ids)
        known = max((len(kept) for kept in self._kept if whole[: len(kept)] == kept), default=0)
        found = self._kept.get(whole[:known]) or _Read(torch.empty(0), model.initial_state(1))
        for end in range(max(known, len(ids) - 1), len(ids) + 1):
            if end > known:
                found = _Read(*read_on(model, ids[known:end], found.state))
                known = end
            self._keep(whole[:end], found)
        return found.logits[0]

    def _keep(self, ids: tuple[int, ...], read: _Read) -> None:
        if ids not in self._kept:
            self._kept[ids] = read
            self.memory_bytes += _bytes(ids, read)
        self._kept.move_to_end(ids)
        while len(self._kept) > _MOST_PREFIXES or self.memory_bytes > self._most_bytes:
            self.memory_bytes -= _bytes(*self._kept.popitem(last=False))


def predict(
    model: LanguageModel,
    tokenizer: Tokenizer,
    request: PredictRequest,
    response: PredictResponse,
    prefixes: PrefixCache,
) -> PredictResponse:
    """Suggest the k likeliest next tokens, fewer where the vocabulary has no more; none for a text without tokens.

    The probabilities are the model's own at temperature 1, over the whole vocabulary; special tokens are never
    suggested, the end of the line being one. Raises INVALID_INPUT for a text that is longer than the model's context:
    nothing is cut. The model was trained with causal_lm.
    """
    prompt = read_prompt(tokenizer, request.text)
    if model.context_tokens is not None and len(prompt.ids) > model.context_tokens:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"The text takes {len(prompt.ids):,} tokens, and this model reads {model.context_tokens:,} at once: give"
            " the last part of it.",
        )
    suggestions: list[Suggestion] = []
    if prompt.tokens:
        model.eval()
        special_ids = tokenizer.special_ids.all
        log_p = prefixes.logits_after(model, prompt.ids).double().cpu().log_softmax(-1)
        order: list[int] = log_p.argsort(descending=True, stable=True).tolist()
        best = [token_id for token_id in order[: request.k + len(special_ids)] if token_id not in special_ids]
        for token_id, name in zip(best[: request.k], tokenizer.tokens(best[: request.k]), strict=True):
            logp = float(log_p[token_id])
            suggestions.append(Suggestion(token=name, prob=float(log_p[token_id].exp()), logp=logp))
    update: dict[str, object] = {
        "status": "completed",
        "suggestions": tuple(suggestions),
        "unk_count": sum(line.count(tokenizer.special_ids.unk) for line in prompt.lines),
    }
    return response.model_copy(update=update)


def _bytes(ids: tuple[int, ...], read: _Read) -> int:
    return len(ids) * _ID_BYTES + read.logits.nbytes + sum(part.nbytes for part in read.state)
