"""Surprisals of a text under a model: every token, each given its line from its start, in nats (DEC D15, D50).

A line starts from [BOS], or from the [EOS] of the line before where the tokenizer has no [BOS]; with `context` none
from its first token, which then has no score.

A state that is carried to the end of its line scores exactly, one token after another. Windows of a long line are
scored side by side, which is faster and approximate: each but the first begins without a past and reads some tokens
before those that it scores. What that changes depends on the model and is measured with every such score.

A model that was trained with masked_lm gives the pseudo-log-likelihood (Salazar et al. 2020): each token of a line in
turn is masked, and scored by all the others; or by all but the later ones of its word (Kauf and Ivanova 2023). Of a
longer line each window then scores the token in its middle.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import LineScore, ScoreRequest, ScoreResponse, Totals, WindowReport, WordScore
from trainer.data.normalization import Line, documents, normalized
from trainer.inference.windows import context_of, windows
from trainer.inference.word_boundaries import WordBoundaries, word_ends
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

_PLACES_AT_ONCE = 1 << 14
_LOGITS_AT_ONCE = 1 << 25
"""Positions of a batch, and logits of them, that are in memory together at most: 128 MB in 32 bits."""
_PIECES_AT_ONCE = 64
_COMPARED_TOKENS = 4096


class ScoringJob(NamedTuple):
    """A request, the response that is to have its scores, and the lines of its text, as ids too."""

    request: ScoreRequest
    response: ScoreResponse
    lines: list[Line]
    numbers: list[int]
    """The number of each line in the text, from 1."""
    ids: list[list[int]]

    @classmethod
    def of(cls, tokenizer: Tokenizer, request: ScoreRequest, response: ScoreResponse) -> "ScoringJob":
        """Split the text of a request into lines, without the blank ones, and encode each.

        Raises INVALID_INPUT if the text has no token to score.
        """
        text = normalized(request.text or "", tokenizer.normalization)
        lines = list(documents(text))
        if not lines:
            raise AppError(ErrorCode.INVALID_INPUT, "`text` has nothing to score: it is blank.")
        newlines = [text.count("\n", a.start, b.start) for a, b in pairwise([Line(0, ""), *lines])]
        numbers = [1 + count for count in accumulate(newlines)]
        job = cls(request, response, lines, numbers, [tokenizer.encode(line.text) for line in lines])
        if all(len(ids) <= job.n_unscored for ids in job.ids):
            raise AppError(
                ErrorCode.INVALID_INPUT,
                "`text` has nothing to score: with `context` 'none', the first token of each line has no score, and"
                " there are no other tokens.",
            )
        return job

    @property
    def top_k(self) -> int | None:
        return self.request.top_k if self.request.detail_level == "per_char" else None

    @property
    def has_words(self) -> bool:
        return self.request.detail_level in ("per_word", "per_char")

    @property
    def n_unscored(self) -> int:
        """How many tokens at the beginning of each line have no score."""
        return int(self.request.context == "none")


def score_texts(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[ScoringJob]) -> list[ScoreResponse]:
    """Score texts side by side, each line by line, which changes no score; [EOS] is no entry.

    `loss` is the mean surprisal of the scored tokens and of each line's [EOS], `mean_surprisal` that of the scored
    tokens alone, `nats` their sum. `topk[i]` is what the model expected in the place of token i.
    """
    marks = WordBoundaries(tokenizer) if any(text.has_words for text in texts) else None
    given = [
        _Given(
            ids,
            _window(model, text.request.window_tokens),
            from_start=not text.n_unscored,
            word_ends=word_ends(tokenizer, line.text) if text.request.pll_within_word else None,
        )
        for text in texts
        for line, ids in zip(text.lines, text.ids, strict=True)
    ]
    boundary_ids = None if marks is None else marks.boundary_ids()
    scores = iter(_score_lines(model, given, max(text.top_k or 1 for text in texts), boundary_ids))
    scored: list[ScoreResponse] = []
    for text in texts:
        of_text = [next(scores) for _ in text.ids]
        lines = _line_scores(model, tokenizer, text, of_text)
        update = _summary(model, text, lines, of_text)
        if text.request.detail_level != "summary":
            update["lines"] = tuple(lines)
        if marks is not None and text.has_words:
            update["words"] = tuple(_words(model, tokenizer, marks, text, of_text))
        if text.request.detail_level == "per_char":
            update |= _details(model, tokenizer, text, of_text)
        scored.append(text.response.model_copy(update=update))
    return scored


def word_surprisals(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, as_minicons: bool = False
) -> list[tuple[str, float]]:
    """Return the words of a line with their surprisals in nats, as a response has them.

    As minicons has it, only a word that follows is taken to end a word, and that a line begins with a word is not taken
    for granted: then the probabilities of all that can come next do not add up to one.
    """
    queued = ScoreResponse(request_id="words", run_id="words", status="running")
    to_score = ScoringJob.of(tokenizer, ScoreRequest(text=text, detail_level="per_word"), queued)
    marks = WordBoundaries(tokenizer)
    marks.is_line_marked = marks.is_line_marked and not as_minicons
    given = [_Given(ids, _window(model, None)) for ids in to_score.ids]
    scores = _score_lines(model, given, 1, marks.boundary_ids(line_end=not as_minicons))
    words = _words(model, tokenizer, marks, to_score, scores)
    return [(word.text, word.surprisal) for word in words if word.surprisal is not None]


class Scores(NamedTuple):
    """What a model says of the T tokens of a line; `rank` is 1 for the likeliest, probabilities fall along K."""

    surprisal: Tensor
    rank: Tensor
    entropy: Tensor
    boundary: Tensor
    """ln p that the token is one which tells that a word ended before it; 0 where that was not asked."""
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
    scores = _score_lines(model, [_Given(line, _window(model, window_tokens)) for line in lines], top_k)
    return [_first(score, len(line)) for score, line in zip(scores, lines, strict=True)]


class _Given(NamedTuple):
    """A line as it is to be scored."""

    ids: Sequence[int]
    window_tokens: int | None
    """How many tokens are read of it at once, at most; None: all."""
    from_start: bool = True
    """Whether what a line starts from is read before it."""
    word_ends: Sequence[int] | None = None
    """Where the word of each token ends, of which a mask hides the rest too; None: it hides the token alone."""


class _Piece(NamedTuple):
    """Ids that are read from an empty state on; each but the first is scored, given those before it."""

    ids: Sequence[int]
    context_tokens: int
    """How many of those scores do not count, because the piece begins in mid-line."""


def _window(model: LanguageModel, asked: int | None) -> int | None:
    """How many tokens are read at once, at most; None: the whole line."""
    limits = [tokens for tokens in (model.context_tokens, asked) if tokens is not None]
    return min(limits, default=None)


def _pieces(model: LanguageModel, given: _Given) -> list[_Piece]:
    """Cut a line into windows that read so many tokens at most and together score every token, and [EOS], once."""
    special_ids = model.vocabulary.special_ids
    ids = [*([special_ids.start] if given.from_start else []), *given.ids, special_ids.eos]
    length: NDArray[np.int64] = np.full(1, len(ids) - 1, dtype=np.int64)
    cut = windows(length, given.window_tokens)
    begins: list[int] = cut.begin.tolist()
    lengths: list[int] = cut.length.tolist()
    contexts: list[int] = cut.first.tolist()
    found = zip(begins, lengths, contexts, strict=True)
    return [_Piece(ids[begin : begin + length + 1], context) for begin, length, context in found]


def _score_lines(
    model: LanguageModel, lines: Sequence[_Given], top_k: int, boundary_ids: Sequence[int] | None = None
) -> list[Scores]:
    """Score lines; those of a causal model have one entry more than tokens, or than scored ones, that of [EOS]."""
    model.eval()
    of_place = _OfPlace(model, min(top_k, model.vocab_size), boundary_ids)
    if model.objective == "masked_lm":
        return _score_masked(model, lines, of_place)
    pieces = [_pieces(model, given) for given in lines]
    scores = iter(_score_pieces(model, [piece for of_line in pieces for piece in of_line], of_place))
    return [_joined([next(scores) for _ in of_line]) for of_line in pieces]


class _OfPlace:
    """What is read off the logits of a place."""

    def __init__(self, model: LanguageModel, top_k: int, boundary_ids: Sequence[int] | None) -> None:
        self._top_k = top_k
        self._boundary_ids: Tensor | None = None
        if boundary_ids is not None:
            self._boundary_ids = torch.tensor(boundary_ids, device=model.input_embedding().weight.device)

    def scores(self, logits: Tensor, targets: Tensor) -> Scores:
        """Score targets (B, T) by logits (B, T, V)."""
        log_p = functional.log_softmax(logits, dim=-1)
        of_target = log_p.gather(-1, targets.unsqueeze(-1))  # (B, T, 1)
        surprisal = -of_target.squeeze(-1).clamp_max(0)
        top = log_p.topk(self._top_k, dim=-1)
        ids = self._boundary_ids
        return Scores(
            surprisal=surprisal,
            rank=(log_p > of_target).sum(-1) + 1,
            entropy=-(log_p.exp() * log_p).sum(-1),
            boundary=torch.zeros_like(surprisal) if ids is None else log_p[..., ids].logsumexp(-1),
            top_ids=top.indices,
            top_probabilities=top.values.exp(),
        )


def _score_pieces(model: LanguageModel, pieces: list[_Piece], of_place: _OfPlace) -> list[Scores]:
    """Score many pieces, in batches of which no piece is more than twice as long as another."""
    lengths = [len(piece.ids) for piece in pieces]
    by_length: list[int] = np.argsort(lengths, kind="stable").tolist()
    scores: dict[int, Scores] = {}
    while len(scores) < len(pieces):
        next_ones = by_length[len(scores) : len(scores) + _PIECES_AT_ONCE]
        taken = [i for i in next_ones if lengths[i] <= 2 * lengths[next_ones[0]]]
        scores |= zip(taken, _score_batch(model, [pieces[i] for i in taken], of_place), strict=True)
    return [scores[i] for i in range(len(pieces))]


def _score_batch(model: LanguageModel, pieces: list[_Piece], of_place: _OfPlace) -> list[Scores]:
    """Score a batch in stretches of time, the state carried from one to the next."""
    device = model.input_embedding().weight.device
    longest = max(len(piece.ids) for piece in pieces)
    padded = [[*piece.ids, *[0] * (longest - len(piece.ids))] for piece in pieces]  # what comes after changes no score
    ids = torch.tensor(padded, device=device)  # (B, T + 1)
    state = model.initial_state(len(pieces))
    stretch = max(1, _places_at_once(model) // len(pieces))
    parts: list[Scores] = []
    with torch.inference_mode():
        for start in range(0, longest - 1, stretch):
            end = min(start + stretch, longest - 1)
            logits, state = model.forward_with_state(ids[:, start:end], state)
            parts.append(of_place.scores(logits.float(), ids[:, start + 1 : end + 1]))
    whole = _joined(parts, dim=1)
    return [
        Scores(*(tensor[row, piece.context_tokens : len(piece.ids) - 1] for tensor in whole))
        for row, piece in enumerate(pieces)
    ]


def _places_at_once(model: LanguageModel) -> int:
    return min(_PLACES_AT_ONCE, _LOGITS_AT_ONCE // model.vocab_size)


class _MaskedLine(NamedTuple):
    """A line of a masked model, [BOS] and [EOS] being part of it, and how many of its tokens are read at once."""

    ids: Tensor
    length: int
    ends: Sequence[int]
    """Up to where a mask goes that begins at each token of the line, by its place in `ids`."""


def _score_masked(model: LanguageModel, lines: Sequence[_Given], of_place: _OfPlace) -> list[Scores]:
    """Score each token of a line by what stands around it in its window; windows of one length share batches."""
    special_ids = model.vocabulary.special_ids
    by_length: dict[int, list[tuple[int, _MaskedLine]]] = {}
    for number, given in enumerate(lines):
        line_ids: list[int] = [special_ids.start, *given.ids, special_ids.eos]
        ids = torch.tensor(line_ids)
        length = min(given.window_tokens or len(ids), len(ids))
        ends = range(2, len(ids)) if given.word_ends is None else [end + 1 for end in given.word_ends]
        by_length.setdefault(length, []).append((number, _MaskedLine(ids, length, ends)))
    scores: dict[int, Scores] = {}
    for length, of_length in by_length.items():
        windows = [window for _, line in of_length for window in _masked_windows(line)]
        at_once = max(1, _places_at_once(model) // length)
        batches = [windows[start : start + at_once] for start in range(0, len(windows), at_once)]
        whole = _joined([_score_windows(model, batch, of_place) for batch in batches])
        sizes = [len(line.ends) for _, line in of_length]
        places = [0, *accumulate(sizes)]
        for (number, _), (start, end) in zip(of_length, pairwise(places), strict=True):
            scores[number] = Scores(*(tensor[start:end] for tensor in whole))
    return [scores[number] for number in range(len(lines))]


class _MaskedWindow(NamedTuple):
    """Ids (W,) of which those of a range are hidden and the first of them is to be predicted."""

    ids: Tensor
    hidden: tuple[int, int]


def _masked_windows(line: _MaskedLine) -> Iterator[_MaskedWindow]:
    """Yield a window for each token, which is in its middle, or as near as the line allows."""
    for place, end in enumerate(line.ends, 1):
        first = min(max(place - line.length // 2, 0), len(line.ids) - line.length)
        hidden = place - first, min(end - first, line.length)
        yield _MaskedWindow(line.ids[first : first + line.length], hidden)


def _score_windows(model: LanguageModel, windows: Sequence[_MaskedWindow], of_place: _OfPlace) -> Scores:
    """Score the first hidden token of each window of a batch."""
    special_ids, device = model.vocabulary.special_ids, model.input_embedding().weight.device
    ids = torch.stack([window.ids for window in windows]).to(device)  # (B, W)
    ranges: list[tuple[int, int]] = [window.hidden for window in windows]
    hidden = torch.tensor(ranges, device=device)
    begin, end = hidden[:, :1], hidden[:, 1:]  # each (B, 1)
    columns = torch.arange(ids.shape[1], device=device)
    is_hidden = (columns >= begin) & (columns < end)
    with torch.inference_mode():
        logits = model.forward(
            ids.masked_fill(is_hidden, special_ids.unk if special_ids.mask is None else special_ids.mask)
        )
        of_begin = logits[torch.arange(len(ids), device=device), begin.squeeze(-1)].float()  # (B, V)
        scores = of_place.scores(of_begin.unsqueeze(0), ids.gather(1, begin).T)
    return Scores(*(tensor.squeeze(0) for tensor in scores))


def _joined(parts: Sequence[Scores], dim: int = 0) -> Scores:
    """Scores of parts one after another, where they are asked for."""
    return Scores(*(torch.cat([part[field] for part in parts], dim).cpu() for field in range(len(Scores._fields))))


def _first(scores: Scores, count: int) -> Scores:
    return Scores(*(tensor[:count] for tensor in scores))


def _read_tokens(model: LanguageModel, text: ScoringJob, line: Sequence[int]) -> int:
    """Return how many tokens a window must take to read a whole line: with its begin, and with a mask its end too."""
    return len(line) + (2 if model.objective == "masked_lm" else 1 - text.n_unscored)


def _compared(model: LanguageModel, text: ScoringJob, scores: list[Scores], window_tokens: int) -> WindowReport:
    """Measure how far scores by windows are from the exact ones, on the beginning of the longest line."""
    lines = text.ids
    longest = int(np.argmax([len(line) for line in lines]))
    compared, difference = 0, 0.0
    is_causal = model.objective == "causal_lm"  # for a masked model it would take what windows are to save
    most = min(max(_COMPARED_TOKENS, 2 * window_tokens), model.context_tokens or len(lines[longest]))
    if is_causal and min(len(lines[longest]), most) > window_tokens:
        whole = _Given(lines[longest][:most], model.context_tokens, from_start=not text.n_unscored)
        compared = len(whole.ids) - text.n_unscored
        exact = _score_lines(model, [whole], 1)[0].surprisal[:compared]
        difference = float((exact - scores[longest].surprisal[:compared]).abs().max())
    return WindowReport(
        window_tokens=window_tokens,
        context_tokens=context_of(window_tokens),
        stride_tokens=window_tokens - context_of(window_tokens) if is_causal else 1,
        cut_lines=sum(_read_tokens(model, text, line) > window_tokens for line in lines),
        compared_tokens=compared,
        max_difference_nats=difference,
    )


def _scored_text(tokenizer: Tokenizer, text: ScoringJob, line: Line) -> str:
    """What a line has in scored tokens."""
    return line.text[tokenizer.spans(line.text)[0][1] :] if text.n_unscored else line.text


def _line_scores(model: LanguageModel, tokenizer: Tokenizer, text: ScoringJob, scores: list[Scores]) -> list[LineScore]:
    """What the scored tokens of each line add up to."""
    found: list[LineScore] = []
    for line, number, ids, score in zip(text.lines, text.numbers, text.ids, scores, strict=True):
        scored = len(ids) - text.n_unscored
        characters = _scored_text(tokenizer, text, line)
        found.append(
            LineScore(
                number=number,
                span=(line.start, line.start + len(line.text)),
                n_tokens=len(ids),
                n_scored=scored,
                unk_count=ids.count(model.vocabulary.special_ids.unk),
                nats=math.fsum(_floats(score.surprisal[:scored])),
                end_nats=None if model.objective == "masked_lm" else float(score.surprisal[scored]),
                n_chars=len(characters),
                n_bytes=len(characters.encode(errors="surrogatepass")),
            )
        )
    return found


def _summary(model: LanguageModel, text: ScoringJob, lines: list[LineScore], scores: list[Scores]) -> dict[str, object]:
    """The figures of a response."""
    window_tokens = _window(model, text.request.window_tokens)
    is_exact = text.request.window_tokens is None and all(
        _read_tokens(model, text, line) <= (window_tokens or math.inf) for line in text.ids
    )
    return Totals.of(lines).figures() | {
        "status": "completed",
        "method": "causal" if model.objective == "causal_lm" else "pseudo_log_likelihood",
        "window": None if window_tokens is None or is_exact else _compared(model, text, scores, window_tokens),
    }


def _words(
    model: LanguageModel, tokenizer: Tokenizer, marks: WordBoundaries, text: ScoringJob, scores: list[Scores]
) -> Iterator[WordScore]:
    """The words of all lines; those of a masked model are the sums of their tokens, of a causal one corrected."""
    for line, ids, score in zip(text.lines, text.ids, scores, strict=True):
        spans = tokenizer.spans(line.text)
        surprisal = [math.nan] * text.n_unscored + _floats(score.surprisal)
        boundary = [math.nan] * text.n_unscored + _floats(score.boundary)
        for first, behind in marks.words(ids):
            start, end = spans[first][0], spans[behind - 1][1]
            nats = math.fsum(surprisal[first:behind])
            if model.objective == "causal_lm":
                nats -= boundary[behind]
                if first > 0 or marks.is_line_marked:
                    nats += boundary[first]
            word = line.text[start:end].strip()
            start = line.text.index(word, start)
            span = line.start + start, line.start + start + len(word)
            yield WordScore(text=word, span=span, surprisal=None if math.isnan(nats) else max(0.0, nats))


def _details(model: LanguageModel, tokenizer: Tokenizer, text: ScoringJob, scores: list[Scores]) -> dict[str, object]:
    """The lists of a response that have an entry per token."""
    n_unscored = [None] * text.n_unscored
    ranks: list[int | None] = []
    surprisal: list[float | None] = []
    entropy: list[float | None] = []
    topk: list[tuple[tuple[str, float], ...]] = []
    for ids, with_end in zip(text.ids, scores, strict=True):
        score = _first(with_end, len(ids) - text.n_unscored)
        rank: list[int] = score.rank.tolist()
        ranks += [*n_unscored, *rank]
        surprisal += [*n_unscored, *_floats(score.surprisal)]
        entropy += [*n_unscored, *_floats(score.entropy)]
        if text.top_k is not None:
            topk += [*[()] * text.n_unscored, *_top(tokenizer, score, text.top_k)]
    return {
        "surprisal": tuple(surprisal),
        "rank": tuple(ranks),
        "entropy": tuple(entropy),
        "tokens": tuple(token for line_ids in text.ids for token in tokenizer.tokens(line_ids)),
        "unknown_token": tokenizer.tokens([tokenizer.special_ids.unk])[0],
        "char_spans": tuple(
            (line.start + a, line.start + b) for line in text.lines for a, b in tokenizer.spans(line.text)
        ),
        "topk": None if text.top_k is None else tuple(topk),
        "context_tokens": _contexts(model, text),
    }


def _contexts(model: LanguageModel, text: ScoringJob) -> tuple[int, ...] | None:
    """How many tokens each is given; None where that is all that stands before it, or around it, in its line."""
    window_tokens = _window(model, text.request.window_tokens)
    if window_tokens is None or all(_read_tokens(model, text, line) <= window_tokens for line in text.ids):
        return None
    contexts: list[int] = []
    for ids in text.ids:
        if model.objective == "masked_lm":
            contexts += [min(window_tokens, len(ids) + 2) - 1] * len(ids)
        else:
            pieces = _pieces(model, _Given(ids, window_tokens, from_start=not text.n_unscored))
            given = [place for piece in pieces for place in range(piece.context_tokens + 1, len(piece.ids))]
            contexts += [0] * text.n_unscored + given[:-1]
    return tuple(contexts)


def _top(tokenizer: Tokenizer, scores: Scores, count: int) -> list[tuple[tuple[str, float], ...]]:
    """The likeliest tokens of each place, of which more were looked up for another text, perhaps."""
    ids: list[list[int]] = scores.top_ids[:, :count].tolist()
    probabilities: list[list[float]] = scores.top_probabilities[:, :count].tolist()
    places = zip(ids, probabilities, strict=True)
    return [tuple(zip(tokenizer.tokens(row), of_row, strict=True)) for row, of_row in places]


def _floats(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.tolist()
    return values
