"""Surprisals of a text under a model: every token, each given its line from [BOS], in nats (DEC D15, D50)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ScoreRequest, ScoreResponse
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
        raise AppError(ErrorCode.INVALID_INPUT, "`text` has nothing to score: it is blank.")
    ids = [tokenizer.encode(line.text) for line in lines]
    detailed = request.detail_level == "per_char"
    scores = score_lines(model, ids, request.top_k if detailed and request.top_k else 1)
    flat_ids = [i for line_ids in ids for i in line_ids]
    surprisal = _floats([score.surprisal for score in scores])
    total_nats = math.fsum(surprisal)
    loss = total_nats / len(surprisal)
    summary = ScoreResponse(
        request_id=request_id,
        run_id=run_id,
        status="completed",
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_char=total_nats / math.log(2) / sum(len(line.text) for line in lines),
        n_tokens=len(flat_ids),
        n_scored=len(surprisal),
        unk_count=flat_ids.count(UNK),
    )
    if not detailed:
        return summary
    return summary.model_copy(update=_details(tokenizer, lines, ids, scores, with_top=request.top_k is not None))


class Scores(NamedTuple):
    """What a model says of the T tokens of a line; `rank` is 1 for the likeliest, probabilities fall along K."""

    surprisal: Tensor
    rank: Tensor
    entropy: Tensor
    top_ids: Tensor
    """(T, K)"""
    top_probabilities: Tensor
    """(T, K)"""


def surprisals(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """Return -ln p (T,) of every token of one line, the first given [BOS]; a line may have any length."""
    return score_lines(model, [ids])[0].surprisal


def score_lines(model: LanguageModel, lines: Sequence[Sequence[int]], top_k: int = 1) -> list[Scores]:
    """Score lines of token ids, each from [BOS]; lines of like length share a batch, which changes no score."""
    model.eval()
    by_length: list[int] = np.argsort([len(line) for line in lines], kind="stable").tolist()
    scores: dict[int, Scores] = {}
    for start in range(0, len(lines), _LINES_AT_ONCE):
        taken = by_length[start : start + _LINES_AT_ONCE]
        scores |= zip(taken, _score_batch(model, [lines[i] for i in taken], min(top_k, model.vocab_size)), strict=True)
    return [scores[i] for i in range(len(lines))]


def _score_batch(model: LanguageModel, lines: list[Sequence[int]], top_k: int) -> list[Scores]:
    """Score a batch in stretches of time, the state carried from one to the next."""
    device = model.input_embedding().weight.device
    longest = max(len(line) for line in lines)
    padded = [[BOS, *line, *[PAD] * (longest - len(line))] for line in lines]
    ids = torch.tensor(padded, device=device)  # (B, T + 1)
    state = model.initial_state(len(lines))
    stretch = max(1, _PLACES_AT_ONCE // len(lines))
    parts: list[Scores] = []
    with torch.inference_mode():
        for start in range(0, longest, stretch):
            end = min(start + stretch, longest)
            logits, state = model.forward_with_state(ids[:, start:end], state)
            parts.append(_scores(logits.float(), ids[:, start + 1 : end + 1], top_k))
    whole = [torch.cat([part[field] for part in parts], dim=1).cpu() for field in range(len(Scores._fields))]
    return [Scores(*(tensor[row, : len(line)] for tensor in whole)) for row, line in enumerate(lines)]


def _scores(logits: Tensor, targets: Tensor, top_k: int) -> Scores:
    log_p = functional.log_softmax(logits, dim=-1)  # (B, T, V)
    of_target = log_p.gather(-1, targets.unsqueeze(-1))  # (B, T, 1)
    top = log_p.topk(top_k, dim=-1)
    return Scores(
        surprisal=-of_target.squeeze(-1).clamp_max(0),
        rank=(log_p > of_target).sum(-1) + 1,
        entropy=-(log_p.exp() * log_p).sum(-1),
        top_ids=top.indices,
        top_probabilities=top.values.exp(),
    )


def _details(
    tokenizer: Tokenizer, lines: list[Line], ids: list[list[int]], scores: list[Scores], *, with_top: bool
) -> dict[str, object]:
    """The lists of a response that have an entry per token."""
    ranks: list[int] = torch.cat([score.rank for score in scores]).tolist()
    top_ids: list[list[int]] = torch.cat([score.top_ids for score in scores]).tolist()
    top_probabilities: list[list[float]] = torch.cat([score.top_probabilities for score in scores]).tolist()
    top = tuple(
        tuple(zip(tokenizer.tokens(row), probabilities, strict=True))
        for row, probabilities in zip(top_ids, top_probabilities, strict=True)
    )
    return {
        "surprisal": tuple(_floats([score.surprisal for score in scores])),
        "rank": tuple(ranks),
        "entropy": tuple(_floats([score.entropy for score in scores])),
        "tokens": tuple(token for line_ids in ids for token in tokenizer.tokens(line_ids)),
        "char_spans": tuple((line.start + a, line.start + b) for line in lines for a, b in tokenizer.spans(line.text)),
        "topk": top if with_top else None,
    }


def _floats(tensors: list[Tensor]) -> list[float]:
    values: list[float] = torch.cat(tensors).tolist()
    return values
