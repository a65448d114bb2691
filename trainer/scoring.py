"""Surprisals of a text under a model: every token, each given its line from its start, in nats (DEC D15, D50).

A line starts from [BOS], or from the [EOS] of the line before where the tokenizer has no [BOS].

A state that is carried to the end of its line scores exactly, one token after another. Windows of a long line are
scored side by side, which is faster and approximate: each but the first begins without a past and reads some tokens
before those that it scores. What that changes depends on the model and is measured with every such score.

A model that was trained with masked_lm gives the pseudo-log-likelihood (Salazar et al. 2020): each token of a line in
turn is masked, and scored by all the others. Of a longer line each window then scores the tokens in its middle.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ScoreRequest, ScoreResponse, WindowReport
from trainer.data.normalization import Line, documents, normalized
from trainer.evaluation import perplexity
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

_PLACES_AT_ONCE = 1 << 14
"""Positions of a batch whose logits are in memory together."""
_PIECES_AT_ONCE = 64
_COMPARED_TOKENS = 4096


class TextToScore(NamedTuple):
    """A request, the response that is to have its scores, and the lines of its text, as ids too."""

    request: ScoreRequest
    response: ScoreResponse
    lines: list[Line]
    ids: list[list[int]]

    @property
    def top_k(self) -> int | None:
        return self.request.top_k if self.request.detail_level == "per_char" else None


def read_text(tokenizer: Tokenizer, request: ScoreRequest, response: ScoreResponse) -> TextToScore:
    """Read a text as the corpus is read, blank lines dropped; the text of a `path` is in the request already.

    Raises INVALID_INPUT where the text has no line to score.
    """
    lines = list(documents(normalized(request.text or "", tokenizer.normalization)))
    if not lines:
        raise AppError(ErrorCode.INVALID_INPUT, "`text` has nothing to score: it is blank.")
    return TextToScore(request, response, lines, [tokenizer.encode(line.text) for line in lines])


def score_texts(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[TextToScore]) -> list[ScoreResponse]:
    """Score texts side by side, each line by line, which changes no score; [EOS] is no entry.

    `loss` is the mean surprisal of the tokens; `bits_per_char` is their sum in bits over the characters of the lines.
    `topk[i]` is what the model expected at place i.
    """
    lines = [(line_ids, _window(model, text.request.window_tokens)) for text in texts for line_ids in text.ids]
    scores = iter(_score_lines(model, lines, max(text.top_k or 1 for text in texts)))
    scored: list[ScoreResponse] = []
    for text in texts:
        of_text = [next(scores) for _ in text.ids]
        update = _summary(model, text, of_text)
        if text.request.detail_level == "per_char":
            update |= _details(tokenizer, text, of_text)
        scored.append(text.response.model_copy(update=update))
    return scored


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
    """Return -ln p (T,) of every token of one line in a model's own way; a line may have any length."""
    return score_lines(model, [ids])[0].surprisal


def score_lines(
    model: LanguageModel, lines: Sequence[Sequence[int]], top_k: int = 1, *, window_tokens: int | None = None
) -> list[Scores]:
    """Score lines of token ids, each from the start; lines of like length share a batch, which changes no score.

    With `window_tokens`, a longer line is scored by windows that read so many tokens each, or as many as the model can.
    """
    return _score_lines(model, [(line, _window(model, window_tokens)) for line in lines], top_k)


def context_of(window_tokens: int) -> int:
    """Return how many tokens a window reads before those that it scores."""
    return window_tokens // 4


class _Piece(NamedTuple):
    """Ids that are read from an empty state on; each but the first is scored, given those before it."""

    ids: Sequence[int]
    context_tokens: int
    """How many of those scores do not count, because the piece begins in mid-line."""


def _window(model: LanguageModel, asked: int | None) -> int | None:
    """How many tokens are read at once, at most; None: the whole line."""
    limits = [tokens for tokens in (model.context_tokens, asked) if tokens is not None]
    return min(limits, default=None)


def _pieces(line: Sequence[int], start_id: int, window_tokens: int | None) -> list[_Piece]:
    """Cut the start and a line into windows that read so many tokens at most and together score every token once."""
    ids = [start_id, *line]
    window_tokens = window_tokens or len(line)
    context = context_of(window_tokens)
    scored = window_tokens - context
    later = range(scored, len(ids) - 1 - context, scored)
    return [_Piece(ids[: window_tokens + 1], 0), *(_Piece(ids[i : i + window_tokens + 1], context) for i in later)]


def _score_lines(model: LanguageModel, lines: Sequence[tuple[Sequence[int], int | None]], top_k: int) -> list[Scores]:
    """Score lines, each with the tokens that are read of it at once."""
    model.eval()
    if model.objective == "masked_lm":
        return [_score_masked(model, line, window, min(top_k, model.vocab_size)) for line, window in lines]
    start_id = model.vocabulary.special_ids.start
    pieces = [_pieces(line, start_id, window) for line, window in lines]
    scores = iter(_score_pieces(model, [piece for of_line in pieces for piece in of_line], top_k))
    return [_joined([next(scores) for _ in of_line]) for of_line in pieces]


def _score_pieces(model: LanguageModel, pieces: list[_Piece], top_k: int) -> list[Scores]:
    """Score many pieces, in batches of which no piece is more than twice as long as another."""
    lengths = [len(piece.ids) for piece in pieces]
    by_length: list[int] = np.argsort(lengths, kind="stable").tolist()
    scores: dict[int, Scores] = {}
    while len(scores) < len(pieces):
        next_ones = by_length[len(scores) : len(scores) + _PIECES_AT_ONCE]
        taken = [i for i in next_ones if lengths[i] <= 2 * lengths[next_ones[0]]]
        scores |= zip(taken, _score_batch(model, [pieces[i] for i in taken], min(top_k, model.vocab_size)), strict=True)
    return [scores[i] for i in range(len(pieces))]


def _score_batch(model: LanguageModel, pieces: list[_Piece], top_k: int) -> list[Scores]:
    """Score a batch in stretches of time, the state carried from one to the next."""
    device = model.input_embedding().weight.device
    longest = max(len(piece.ids) for piece in pieces)
    padded = [[*piece.ids, *[0] * (longest - len(piece.ids))] for piece in pieces]  # what comes after changes no score
    ids = torch.tensor(padded, device=device)  # (B, T + 1)
    state = model.initial_state(len(pieces))
    stretch = max(1, _PLACES_AT_ONCE // len(pieces))
    parts: list[Scores] = []
    with torch.inference_mode():
        for start in range(0, longest - 1, stretch):
            end = min(start + stretch, longest - 1)
            logits, state = model.forward_with_state(ids[:, start:end], state)
            parts.append(_scores(logits.float(), ids[:, start + 1 : end + 1], top_k))
    whole = [torch.cat([part[field] for part in parts], dim=1).cpu() for field in range(len(Scores._fields))]
    return [
        Scores(*(tensor[row, piece.context_tokens : len(piece.ids) - 1] for tensor in whole))
        for row, piece in enumerate(pieces)
    ]


def _score_masked(model: LanguageModel, line: Sequence[int], window_tokens: int | None, top_k: int) -> Scores:
    """Score each token of a line by what stands around it in its window, [BOS] and [EOS] being part of the line."""
    special_ids, device = model.vocabulary.special_ids, model.input_embedding().weight.device
    gap = special_ids.unk if special_ids.mask is None else special_ids.mask
    line_ids: list[int] = [special_ids.start, *line, special_ids.eos]
    ids = torch.tensor(line_ids, device=device)
    length = min(window_tokens or len(ids), len(ids))
    first = (torch.arange(1, len(ids) - 1, device=device) - length // 2).clamp(0, len(ids) - length)  # (T,)
    places = torch.arange(1, len(ids) - 1, device=device) - first  # (T,)
    at_once = max(1, _PLACES_AT_ONCE // length)
    parts: list[Scores] = []
    with torch.inference_mode():
        for start in range(0, len(line), at_once):
            of_part = places[start : start + at_once]
            windows = ids[first[start : start + at_once].unsqueeze(-1) + torch.arange(length, device=device)]  # (B, W)
            windows.scatter_(1, of_part.unsqueeze(-1), gap)
            logits = model.forward(windows).float()  # (B, W, V)
            of_place = logits[torch.arange(len(of_part), device=device), of_part].unsqueeze(0)  # (1, B, V)
            parts.append(_scores(of_place, ids[1 + start : 1 + start + len(of_part)].unsqueeze(0), top_k))
    whole = [torch.cat([part[field] for part in parts], dim=1).cpu() for field in range(len(Scores._fields))]
    return Scores(*(tensor.squeeze(0) for tensor in whole))


def _joined(scores: list[Scores]) -> Scores:
    """The scores of a line, from those of its pieces."""
    if len(scores) == 1:
        return scores[0]
    return Scores(*(torch.cat([score[field] for score in scores]) for field in range(len(Scores._fields))))


def _compared(model: LanguageModel, lines: list[list[int]], scores: list[Scores], window_tokens: int) -> WindowReport:
    """Measure how far scores by windows are from the exact ones, on the beginning of the longest line."""
    longest = int(np.argmax([len(line) for line in lines]))
    compared, difference = 0, 0.0
    most = min(max(_COMPARED_TOKENS, 2 * window_tokens), model.context_tokens or len(lines[longest]))
    if model.objective == "causal_lm" and min(len(lines[longest]), most) > window_tokens:
        exact = surprisals(model, lines[longest][:most])
        compared = len(exact)
        difference = float((exact - scores[longest].surprisal[:compared]).abs().max())
    return WindowReport(
        window_tokens=window_tokens,
        context_tokens=context_of(window_tokens),
        compared_tokens=compared,
        max_difference_nats=difference,
    )


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


def _summary(model: LanguageModel, text: TextToScore, scores: list[Scores]) -> dict[str, object]:
    """The figures of a response."""
    flat_ids = [i for line_ids in text.ids for i in line_ids]
    surprisal = _floats([score.surprisal for score in scores])
    total_nats = math.fsum(surprisal)
    loss = total_nats / len(surprisal)
    window_tokens = _window(model, text.request.window_tokens)
    is_exact = text.request.window_tokens is None and all(len(line) <= (window_tokens or math.inf) for line in text.ids)
    return {
        "status": "completed",
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_char": total_nats / math.log(2) / sum(len(line.text) for line in text.lines),
        "n_tokens": len(flat_ids),
        "n_scored": len(surprisal),
        "unk_count": flat_ids.count(model.vocabulary.special_ids.unk),
        "method": "causal" if model.objective == "causal_lm" else "pseudo_log_likelihood",
        "window": None if window_tokens is None or is_exact else _compared(model, text.ids, scores, window_tokens),
    }


def _details(tokenizer: Tokenizer, text: TextToScore, scores: list[Scores]) -> dict[str, object]:
    """The lists of a response that have an entry per token."""
    ranks: list[int] = torch.cat([score.rank for score in scores]).tolist()
    return {
        "surprisal": tuple(_floats([score.surprisal for score in scores])),
        "rank": tuple(ranks),
        "entropy": tuple(_floats([score.entropy for score in scores])),
        "tokens": tuple(token for line_ids in text.ids for token in tokenizer.tokens(line_ids)),
        "char_spans": tuple(
            (line.start + a, line.start + b) for line in text.lines for a, b in tokenizer.spans(line.text)
        ),
        "topk": None if text.top_k is None else _top(tokenizer, scores, text.top_k),
    }


def _top(tokenizer: Tokenizer, scores: list[Scores], count: int) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The likeliest tokens of each place, of which more were looked up for another text, perhaps."""
    ids: list[list[int]] = torch.cat([score.top_ids[:, :count] for score in scores]).tolist()
    probabilities: list[list[float]] = torch.cat([score.top_probabilities[:, :count] for score in scores]).tolist()
    places = zip(ids, probabilities, strict=True)
    return tuple(tuple(zip(tokenizer.tokens(row), of_row, strict=True)) for row, of_row in places)


def _floats(tensors: list[Tensor]) -> list[float]:
    values: list[float] = torch.cat(tensors).tolist()
    return values
