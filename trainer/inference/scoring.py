"""Surprisals of every token of a text, in nats, each given the tokens before it in its line.

A line starts from [BOS], or from the [EOS] of the line before if the tokenizer has no [BOS]. With `context` none it
starts from its first token, which then has no score. A stream has no lines: the complete text is scored as one line,
from a newline, with its newlines as tokens and nothing after it.

A recurrent model carries its state to the end of a line, which is exact. Windows of a long line are scored side by
side, which is faster and approximate: each window but the first starts without a past, and reads a few tokens before
the ones that it scores. The difference is measured with every such score.

A masked model gives the pseudo-log-likelihood (Salazar et al. 2020): each token of a line is masked in turn and scored
given all other tokens, or all but the later ones of its word (Kauf and Ivanova 2023). In a line beyond the context,
each window scores the token in its middle.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import rnn

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference_fields import ScoringMethod
from trainer.contracts.scores import Expected, LineScore, ScoreRequest, ScoreResponse, Totals, WindowReport, WordScore
from trainer.data.normalization import Line, documents, normalized
from trainer.data.words import without_separators
from trainer.inference.prefix_trees import tree_surprisals
from trainer.inference.windows import Window, context_of, windows
from trainer.inference.word_boundaries import WordBoundaries, word_ends
from trainer.models.base import LanguageModel
from trainer.models.threads import using_threads
from trainer.tokenizers.base import Tokenizer

_MAX_POSITIONS = 1 << 14
_MAX_LOGITS = 1 << 25
"""Limits of one forward pass: positions, and logits (128 MB in 32 bits)."""
_MAX_WINDOWS_PER_BATCH = 64
_MAX_BATCH_TOKENS = 1 << 10
"""Limits of a batch. A transformer scores small batches faster, whose activations stay in the processor's cache."""
_MAX_COMPARED_TOKENS = 4096
_MIN_PACKED_TOKENS = 1 << 11
"""To pack the weights takes about as long as to read some hundred tokens."""


class ScoringJob(NamedTuple):
    """A request, the response to complete, and the lines of the text with their token ids."""

    request: ScoreRequest
    response: ScoreResponse
    lines: list[Line]
    ids: list[list[int]]

    @classmethod
    def of(cls, tokenizer: Tokenizer, request: ScoreRequest, response: ScoreResponse) -> "ScoringJob":
        """Split the text of a request into documents, and encode each.

        Raises INVALID_INPUT if the text has no token to score.
        """
        lines = list(documents(normalized(request.text or "", tokenizer.normalization), tokenizer.documents))
        job = cls(request, response, lines, [tokenizer.encode(line.text) for line in lines])
        if not any(job.ids):
            raise AppError(ErrorCode.INVALID_INPUT, "`text` has nothing to score: it is blank.")
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
        """The number of tokens at the start of each line that have no score."""
        return int(self.request.context == "none")


class Scores(NamedTuple):
    """Scores of the T tokens of a line; rank 1 is the likeliest token, log probabilities fall along K.

    With K = 0, ranks and entropies are not computed, and are 0.
    """

    surprisal: Tensor
    rank: Tensor
    entropy: Tensor
    boundary: Tensor
    """ln p(the next token ends the word before it); 0 where that was not computed."""
    top_ids: Tensor
    """(T, K)"""
    top_log_p: Tensor
    """ln p of `top_ids`, (T, K)"""


class ScoringInput(NamedTuple):
    """A line to score."""

    ids: Sequence[int]
    window_tokens: int | None
    """The largest number of tokens read at once; None: the complete line."""
    has_start: bool = True
    """Read [BOS] before the line."""
    word_ends: Sequence[int] | None = None
    """The end of each token's word, up to which a mask hides tokens; None: a mask hides one token."""
    first: int = 0
    """The first token that is scored."""
    has_end: bool = True
    """Score the end of the line too, after a causal model."""


def score_texts(
    model: LanguageModel, tokenizer: Tokenizer, jobs: Sequence[ScoringJob], *, as_minicons: bool = False
) -> list[ScoreResponse]:
    """Score texts side by side, line by line. [EOS] has no entry in the lists of tokens.

    `loss` is the mean surprisal of the scored tokens and of each line's [EOS], if it has one, `mean_surprisal` the mean
    over the scored tokens alone, `nats` their sum. `topk[i]` is the prediction at the position of token i. For
    `as_minicons` see `word_surprisals`.
    """
    boundaries = WordBoundaries(tokenizer, as_minicons=as_minicons) if any(job.has_words for job in jobs) else None
    inputs = [
        ScoringInput(
            ids,
            _window(model, job.request.window_tokens),
            has_start=not job.n_unscored,
            word_ends=word_ends(tokenizer, line.text) if job.request.pll_within_word else None,
        )
        for job in jobs
        for line, ids in zip(job.lines, job.ids, strict=True)
    ]
    top_k = max(job.top_k or 1 if job.request.detail_level == "per_char" else 0 for job in jobs)
    scores = iter(_score(model, inputs, top_k, None if boundaries is None else boundaries.ids))
    responses: list[ScoreResponse] = []
    for job in jobs:
        of_job = [next(scores) for _ in job.ids]
        lines = tuple(_line_scores(model, tokenizer, job, of_job))
        method = scoring_method(model)
        fields = Totals.of(lines).figures(method)
        if job.request.detail_level != "summary":
            fields["lines"] = lines
        if boundaries is not None and job.has_words:
            fields["words"] = tuple(_words(model, tokenizer, boundaries, job, of_job))
        if job.request.detail_level == "per_char":
            fields |= _details(model, tokenizer, job, of_job)
        window = _window_report(model, job, of_job)
        responses.append(changed(job.response, status="completed", method=method, window=window, **fields))
    return responses


def word_surprisals(
    model: LanguageModel, tokenizer: Tokenizer, text: str, *, as_minicons: bool = False
) -> list[tuple[str, float]]:
    """Return the words of a line with their surprisals in nats.

    As in minicons, `as_minicons` lets only a following word end a word, and does not correct the first word of a line.
    Then the probabilities of all possible next words do not add up to one.
    """
    queued = ScoreResponse(request_id="words", run_id="words", status="running")
    job = ScoringJob.of(tokenizer, ScoreRequest(text=text, detail_level="per_word"), queued)
    [response] = score_texts(model, tokenizer, [job], as_minicons=as_minicons)
    return [(word.text, word.surprisal) for word in response.words or () if word.surprisal is not None]


def score_lines(
    model: LanguageModel, lines: Sequence[Sequence[int]], top_k: int = 1, *, window_tokens: int | None = None
) -> list[Scores]:
    """Score lines of token ids of any length, each from [BOS]. Lines of similar length share a batch.

    Lines longer than `window_tokens`, or than the model's context, are scored by windows.
    """
    scores = _score(model, [ScoringInput(line, _window(model, window_tokens)) for line in lines], top_k)
    return [_truncate(score, len(line)) for score, line in zip(scores, lines, strict=True)]


def score_sequences(model: LanguageModel, sequences: Sequence[Sequence[int]], top_k: int) -> list[Scores]:
    """Score sequences of token ids as they are, without [BOS]; sequences of similar length share a batch.

    Each has at least one id, and fits into the context of the model. The scores are those of its ids but the first, and
    at the end one of [EOS]; ranks and entropies are 0. The model was trained with causal_lm.
    """
    return _score(model, [ScoringInput(ids, None, has_start=False) for ids in sequences], top_k, has_ranks=False)


def sequence_surprisals(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the surprisals of the ids but the first of each sequence, in nats, without [BOS] and [EOS].

    A causal model starts from a zero state, or by windows beyond its context; a masked model gives the
    pseudo-log-likelihood. Each sequence has at least one id.
    """
    inputs = [ScoringInput(ids, _window(model, None), has_start=False) for ids in sequences]
    scores = _score(model, inputs, top_k=0, has_ranks=False)
    first = 1 if model.objective == "masked_lm" else 0
    return [score.surprisal[first : first + len(ids) - 1] for score, ids in zip(scores, sequences, strict=True)]


def line_surprisals(model: LanguageModel, lines: Sequence[ScoringInput]) -> list[list[float]]:
    """Return the surprisals of the tokens of each line from its token `first` on, and of an end, in nats."""
    scored = _scored_lines(lines)
    if model.reads_trees:
        of_lines = iter(_tree_surprisals(model, scored))
    else:
        of_lines = iter(_floats(scores.surprisal) for scores in _score(model, scored, top_k=0, has_ranks=False))
    return [next(of_lines) if _is_scored(line) else [] for line in lines]


def line_predictions(model: LanguageModel, lines: Sequence[ScoringInput]) -> list[tuple[list[float], list[float]]]:
    """Return the surprisals as `line_surprisals` does, with the entropies of the predictions in nats."""
    scores = iter(_score(model, _scored_lines(lines), top_k=1))
    found: list[tuple[list[float], list[float]]] = []
    for line in lines:
        of_line = next(scores) if _is_scored(line) else None
        found.append(([], []) if of_line is None else (_floats(of_line.surprisal), _floats(of_line.entropy)))
    return found


def _scored_lines(lines: Sequence[ScoringInput]) -> list[ScoringInput]:
    return [line for line in lines if _is_scored(line)]


def _is_scored(line: ScoringInput) -> bool:
    return line.first < len(line.ids) + line.has_end


def _tree_surprisals(model: LanguageModel, lines: Sequence[ScoringInput]) -> list[list[float]]:
    model.eval()
    line_windows = [_causal_windows(model, line) for line in lines]
    windows = [window for of_line in line_windows for window in of_line]
    with _packed(model, sum(len(window.ids) for window in windows)):
        surprisals = iter(tree_surprisals(model, windows))
    return [[nats for _ in of_line for nats in next(surprisals)] for of_line in line_windows]


def _window(model: LanguageModel, requested: int | None) -> int | None:
    """Return the largest number of tokens read at once; None: the complete line."""
    return min((tokens for tokens in (model.context_tokens, requested) if tokens is not None), default=None)


def _score(
    model: LanguageModel,
    inputs: Sequence[ScoringInput],
    top_k: int,
    boundary_ids: Sequence[int] | None = None,
    *,
    has_ranks: bool = True,
) -> list[Scores]:
    """Score lines, their windows in batches; a causal model's scores have one more entry, for the end of the line.

    A batch of a masked model has windows of one length, of a causal model also those up to twice as long.
    """
    model.eval()
    device = model.device
    boundaries = None if boundary_ids is None else torch.tensor(boundary_ids, device=device)
    scorer = _LogitScorer(min(top_k, model.vocab_size), boundaries, has_ranks=has_ranks and top_k > 0)
    is_masked = model.objective == "masked_lm"
    line_windows = [_masked_windows(model, line) if is_masked else _causal_windows(model, line) for line in inputs]
    windows = [window for of_line in line_windows for window in of_line]
    lengths = [len(window.ids) for window in windows]
    by_length: list[int] = np.argsort(lengths, kind="stable").tolist()
    scores: dict[int, Scores] = {}
    with _packed(model, sum(lengths)):
        while len(scores) < len(windows):
            shortest = lengths[by_length[len(scores)]]
            size = max(1, _max_positions(model) // shortest) if is_masked else _MAX_WINDOWS_PER_BATCH
            if not is_masked and model.context_tokens is not None:
                size = max(1, min(size, _MAX_BATCH_TOKENS // max(1, shortest - 1)))  # the last id is not read
            longest = shortest if is_masked else 2 * shortest
            numbers = [i for i in by_length[len(scores) : len(scores) + size] if lengths[i] <= longest]
            batch = [windows[i] for i in numbers]
            scored = _score_masked(model, batch, scorer) if is_masked else _score_causal(model, batch, scorer)
            scores |= zip(numbers, scored, strict=True)
    in_order = (scores[i] for i in range(len(windows)))
    return [_concat([next(in_order) for _ in of_line]) for of_line in line_windows]


@contextmanager
def _packed(model: LanguageModel, tokens: int) -> Iterator[None]:
    """Pack the weights if that pays for so many tokens."""
    with ExitStack() as packed:
        if packing_pays(model, tokens, torch.backends.cpu.get_cpu_capability()):
            with using_threads(1):  # beside other programs, several would wait for each other at each matrix
                packed.enter_context(model.packed_products())
        yield


def packing_pays(model: LanguageModel, tokens: int, cpu_capability: str) -> bool:
    """Return True if a transformer reads so many tokens faster with packed weights, on torch's name for the CPU."""
    if model.context_tokens is None or tokens < _MIN_PACKED_TOKENS or cpu_capability != "AVX512":
        return False
    weight = model.input_embedding().weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


class _LogitScorer(NamedTuple):
    """Computes scores from logits."""

    top_k: int
    boundary_ids: Tensor | None
    has_ranks: bool

    def scores(self, logits: Tensor, targets: Tensor) -> Scores:
        """Score targets (…) by logits (…, V)."""
        log_p = functional.log_softmax(logits, dim=-1)
        of_target = log_p.gather(-1, targets.unsqueeze(-1))  # (…, 1)
        surprisal = -of_target.squeeze(-1).clamp_max(0)
        top = log_p.topk(self.top_k, dim=-1)
        ids, zeros = self.boundary_ids, torch.zeros_like(surprisal)
        return Scores(
            surprisal=surprisal,
            rank=(log_p > of_target).sum(-1) + 1 if self.has_ranks else zeros.long(),
            entropy=-(log_p.exp() * log_p).sum(-1) if self.has_ranks else zeros,
            boundary=zeros if ids is None else log_p[..., ids].logsumexp(-1),
            top_ids=top.indices,
            top_log_p=top.values.clamp_max(0),
        )


def _causal_windows(model: LanguageModel, line: ScoringInput) -> list[Window]:
    """Cut a line into windows that together score every token from `first` on, and the end of the line, once."""
    special_ids = model.vocabulary.special_ids
    line_ids: list[int] = [*([special_ids.start] if line.has_start else []), *line.ids, special_ids.line_end]
    length: NDArray[np.int64] = np.full(1, len(line_ids) - 1, dtype=np.int64)
    cut = windows(length, line.window_tokens)
    ranges: list[tuple[int, int, int]] = np.stack((cut.begin, cut.first, cut.end), axis=-1).tolist()
    found: list[Window] = []
    for begin, first, end in ranges:
        first = max(first, line.first - begin)
        end = min(end, len(line_ids) - 1 - (not line.has_end) - begin)
        if first < end:
            found.append(Window(line_ids[begin : begin + end + 1], first, end))
    return found


def _score_causal(model: LanguageModel, windows: list[Window], scorer: _LogitScorer) -> list[Scores]:
    """Score a batch at once, or in chunks along T that carry the state from chunk to chunk."""
    device = model.device
    ids = rnn.pad_sequence([torch.tensor(w.ids) for w in windows], batch_first=True).to(device)  # (B, T + 1)
    chunk = max(1, _max_positions(model) // len(windows))
    chunks: list[Scores] = []
    with torch.inference_mode():
        if ids.shape[1] <= chunk:
            return _score_whole(model, windows, ids, scorer)
        state = model.initial_state(len(windows))
        for start in range(0, ids.shape[1] - 1, chunk):
            targets = ids[:, start + 1 : start + 1 + chunk]
            inputs = ids[:, start : start + targets.shape[1]]
            with model.computing("scoring", model.product_rows(inputs), inputs.numel()):
                logits, state = model.forward_with_state(inputs, state)
                chunks.append(scorer.scores(logits.float(), targets))
    scores = _concat(chunks, dim=1)
    return [Scores(*(tensor[row, w.first : w.end] for tensor in scores)) for row, w in enumerate(windows)]


def _score_whole(model: LanguageModel, windows: list[Window], ids: Tensor, scorer: _LogitScorer) -> list[Scores]:
    """Score the ids (B, T + 1) of a batch in one pass; the output layer reads no padding."""
    ranges: list[tuple[int, int]] = [(window.first, window.end) for window in windows]
    limits = torch.tensor(ranges, device=ids.device)
    columns = torch.arange(ids.shape[1] - 1, device=ids.device)
    is_scored = (columns >= limits[:, :1]) & (columns < limits[:, 1:])  # (B, T)
    ends: list[int] = list(accumulate(window.end - window.first for window in windows))
    inputs, targets = ids[:, :-1], ids[:, 1:][is_scored]
    with model.computing("scoring", min(model.product_rows(inputs), ends[-1]), inputs.numel()):
        hidden = model.hidden_states(inputs)[is_scored]  # (N, H)
        scores = _concat([scorer.scores(model.logits(hidden).float(), targets)])
    return [Scores(*(tensor[begin:end] for tensor in scores)) for begin, end in pairwise([0, *ends])]


def _max_positions(model: LanguageModel) -> int:
    return min(_MAX_POSITIONS, _MAX_LOGITS // model.vocab_size)


def _masked_windows(model: LanguageModel, line: ScoringInput) -> list[Window]:
    """Return a window for each token of a line, with the token as near to the middle as the line allows."""
    special_ids = model.vocabulary.special_ids
    line_ids: list[int] = [special_ids.start, *line.ids, special_ids.eos]
    length = min(line.window_tokens or len(line_ids), len(line_ids))
    found: list[Window] = []
    for position in range(1 + line.first, len(line_ids) - 1):
        end = position + 1 if line.word_ends is None else line.word_ends[position - 1] + 1
        first = min(max(position - length // 2, 0), len(line_ids) - length)
        found.append(Window(line_ids[first : first + length], position - first, min(end - first, length)))
    return found


def _score_masked(model: LanguageModel, windows: list[Window], scorer: _LogitScorer) -> list[Scores]:
    """Score the first masked token of each window of a batch."""
    special_ids, device = model.vocabulary.special_ids, model.device
    rows: list[list[int]] = [window.ids for window in windows]
    ids = torch.tensor(rows, device=device)  # (B, W)
    ranges: list[tuple[int, int]] = [(window.first, window.end) for window in windows]
    masked = torch.tensor(ranges, device=device)
    first, end = masked[:, :1], masked[:, 1:]  # each (B, 1)
    columns = torch.arange(ids.shape[1], device=device)
    is_masked = (columns >= first) & (columns < end)
    mask_id = special_ids.unk if special_ids.mask is None else special_ids.mask
    with torch.inference_mode(), model.computing("scoring", len(ids), ids.numel()):
        hidden = model.hidden_states(ids.masked_fill(is_masked, mask_id))
        of_first = hidden[torch.arange(len(ids), device=device).unsqueeze(-1), first]  # (B, 1, H)
        scores = _concat([scorer.scores(model.logits(of_first).float(), ids.gather(1, first))])
    return [Scores(*(tensor[row] for tensor in scores)) for row in range(len(windows))]


def _concat(parts: Sequence[Scores], dim: int = 0) -> Scores:
    return Scores(*(torch.cat([part[field] for part in parts], dim).cpu() for field in range(len(Scores._fields))))


def _truncate(scores: Scores, count: int) -> Scores:
    return Scores(*(tensor[:count] for tensor in scores))


def _cut_lines(model: LanguageModel, job: ScoringJob, window_tokens: int) -> int:
    """Return the number of lines that are longer than a window, counting the special tokens that the model reads."""
    special = _special_tokens(model) - job.n_unscored
    return sum(len(line) + special > window_tokens for line in job.ids)


def is_cut(model: LanguageModel, ids: Sequence[int]) -> bool:
    """Return True if a line from its start on is longer than the model's context, so that it is scored by windows."""
    return model.context_tokens is not None and len(ids) + _special_tokens(model) > model.context_tokens


def scoring_method(model: LanguageModel) -> ScoringMethod:
    return "causal" if model.objective == "causal_lm" else "pseudo_log_likelihood"


def _special_tokens(model: LanguageModel) -> int:
    """Return the number of special tokens that the model reads with a line."""
    return 2 if model.objective == "masked_lm" else 1


def _window_report(model: LanguageModel, job: ScoringJob, scores: list[Scores]) -> WindowReport | None:
    """Measure the error of the windows on the beginning of the longest line; None if no line needed windows."""
    window_tokens = _window(model, job.request.window_tokens)
    if window_tokens is None:
        return None
    cut_lines = _cut_lines(model, job, window_tokens)
    if job.request.window_tokens is None and not cut_lines:
        return None
    longest = int(np.argmax([len(line) for line in job.ids]))
    ids = job.ids[longest]
    compared, difference = 0, 0.0
    is_causal = model.objective == "causal_lm"  # a masked model would need the time that windows save
    limit = min(max(_MAX_COMPARED_TOKENS, 2 * window_tokens), model.context_tokens or len(ids))
    if is_causal and min(len(ids), limit) > window_tokens:
        exact_input = ScoringInput(ids[:limit], model.context_tokens, has_start=not job.n_unscored)
        exact = _score(model, [exact_input], 1)[0].surprisal[: len(exact_input.ids) - job.n_unscored]
        compared = len(exact)
        difference = float((exact - scores[longest].surprisal[:compared]).abs().max())
    return WindowReport(
        window_tokens=window_tokens,
        context_tokens=context_of(window_tokens),
        stride_tokens=window_tokens - context_of(window_tokens) if is_causal else 1,
        cut_lines=cut_lines,
        compared_tokens=compared,
        max_difference_nats=difference,
    )


def _line_scores(
    model: LanguageModel, tokenizer: Tokenizer, job: ScoringJob, scores: list[Scores]
) -> Iterator[LineScore]:
    has_end = model.objective == "causal_lm" and tokenizer.documents == "line"
    for line, ids, score in zip(job.lines, job.ids, scores, strict=True):
        n_scored, unknown = len(ids) - job.n_unscored, tokenizer.special_ids.unk
        spans = tokenizer.spans(line.text) if job.n_unscored or unknown in ids else []
        scored_text = line.text[spans[0][1] :] if job.n_unscored else line.text
        covered = zip(ids[job.n_unscored :], spans[job.n_unscored :], strict=False)  # no spans: none is unknown
        yield LineScore(
            number=line.number,
            span=(line.start, line.start + len(line.text)),
            n_tokens=len(ids),
            n_scored=n_scored,
            unk_count=ids.count(unknown),
            unknown_chars=sum(end - start for token, (start, end) in covered if token == unknown),
            nats=math.fsum(_floats(score.surprisal[:n_scored])),
            end_nats=float(score.surprisal[n_scored]) if has_end else None,
            n_chars=len(scored_text),
            n_bytes=len(scored_text.encode(errors="surrogatepass")),
        )


def _words(
    model: LanguageModel, tokenizer: Tokenizer, boundaries: WordBoundaries, job: ScoringJob, scores: list[Scores]
) -> Iterator[WordScore]:
    """Yield the words of all lines: sums of their tokens, for a causal model corrected at the word boundaries."""
    for line, ids, score in zip(job.lines, job.ids, scores, strict=True):
        spans = tokenizer.spans(line.text)
        surprisal = [math.nan] * job.n_unscored + _floats(score.surprisal)
        boundary = [math.nan] * job.n_unscored + _floats(score.boundary)
        for first, behind in boundaries.words(ids):
            start, end = spans[first][0], spans[behind - 1][1]
            nats = math.fsum(surprisal[first:behind])
            if model.objective == "causal_lm":
                nats -= boundary[behind]
                if first > 0 or boundaries.has_line_start:
                    nats += boundary[first]
            word = without_separators(line.text[start:end])
            start = line.start + line.text.index(word, start)
            value = None if math.isnan(nats) else max(0.0, nats)
            yield WordScore(text=word, span=(start, start + len(word)), surprisal=value)


def _details(model: LanguageModel, tokenizer: Tokenizer, job: ScoringJob, scores: list[Scores]) -> dict[str, object]:
    """Return the fields of a response that have an entry per token."""
    scored = [_truncate(score, len(ids) - job.n_unscored) for ids, score in zip(job.ids, scores, strict=True)]
    topk: list[Expected] = []
    for score in scored if job.top_k is not None else []:
        top_ids: list[list[int]] = score.top_ids[:, : job.top_k].tolist()
        top: list[list[float]] = score.top_log_p[:, : job.top_k].exp().tolist()
        topk += [()] * job.n_unscored
        topk += [tuple(zip(tokenizer.tokens(a), b, strict=True)) for a, b in zip(top_ids, top, strict=True)]
    return {
        "surprisal": _per_token(job, [score.surprisal for score in scored]),
        "rank": _per_token(job, [score.rank for score in scored]),
        "entropy": _per_token(job, [score.entropy for score in scored]),
        "tokens": tuple(token for ids in job.ids for token in tokenizer.tokens(ids)),
        "unknown_token": tokenizer.tokens([tokenizer.special_ids.unk])[0],
        "char_spans": tuple(
            (line.start + a, line.start + b) for line in job.lines for a, b in tokenizer.spans(line.text)
        ),
        "topk": None if job.top_k is None else tuple(topk),
        "context_tokens": _contexts(model, job),
    }


def _per_token(job: ScoringJob, lines: list[Tensor]) -> tuple[float | None, ...]:
    unscored: list[float | None] = [None] * job.n_unscored
    return tuple(value for line in lines for value in [*unscored, *_floats(line)])


def _contexts(model: LanguageModel, job: ScoringJob) -> tuple[int, ...] | None:
    """Return the number of tokens that each token is given; None if that is always its complete line."""
    window_tokens = _window(model, job.request.window_tokens)
    if window_tokens is None or not _cut_lines(model, job, window_tokens):
        return None
    contexts: list[int] = []
    for ids in job.ids:
        if model.objective == "masked_lm":
            contexts += [min(window_tokens, len(ids) + 2) - 1] * len(ids)
        else:
            cut = _causal_windows(model, ScoringInput(ids, window_tokens, has_start=not job.n_unscored))
            given = [position + 1 for window in cut for position in range(window.first, window.end)]
            contexts += [0] * job.n_unscored + given[:-1]
    return tuple(contexts)


def _floats(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.tolist()
    return values
