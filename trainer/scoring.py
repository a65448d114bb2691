"""Surprisals of a text under a model: every token, each given its line from [BOS], in nats (DEC D15, D50)."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ScoreRequest, ScoreResponse
from trainer.data.batches import NO_TARGET
from trainer.data.normalization import Line, documents, normalized
from trainer.evaluation import perplexity
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import BOS, PAD, UNK, Tokenizer

_PLACES_AT_ONCE = 1 << 14
"""Positions of a batch whose logits are in memory together."""
_LINES_AT_ONCE = 64


def score_text(
    model: LanguageModel, tokenizer: Tokenizer, request: ScoreRequest, *, run_id: str, request_id: str
) -> ScoreResponse:
    """Score a text line by line as the corpus is read: blank lines are dropped, [EOS] is no entry.

    `loss` is the mean surprisal of the tokens; `bits_per_char` is their sum in bits over the characters of the lines.
    `topk[i]` is what the model expected at place i. Raises INVALID_INPUT where the text has no line to score.
    """
    text = normalized(request.text, tokenizer.normalization)
    lines = list(documents(text))
    if not lines:
        raise AppError(ErrorCode.INVALID_INPUT, "`text` has no character to score: it is blank.")
    ids = [tokenizer.encode(line.text) for line in lines]
    detailed = request.detail_level == "per_char"
    scored = score_lines(model, ids, top_k=request.top_k if detailed else None)
    all_ids = [i for line_ids in ids for i in line_ids]
    surprisal: list[float] = torch.cat([s.surprisal for s in scored]).tolist()
    total_nats = math.fsum(surprisal)
    loss = total_nats / len(surprisal)
    summary = ScoreResponse(
        request_id=request_id,
        run_id=run_id,
        status="completed",
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_char=total_nats / math.log(2) / sum(len(line.text) for line in lines),
        n_tokens=len(all_ids),
        n_scored=len(surprisal),
        unk_count=all_ids.count(UNK),
    )
    if not detailed:
        return summary
    return summary.model_copy(...)
