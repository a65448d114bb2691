"""Cues of word boundaries in a text without spaces, by a model and by the best n-gram of its training text."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import structlog

from trainer.contracts.base import changed
from trainer.contracts.errors import AppError
from trainer.contracts.runs import Leak, largest_leak
from trainer.contracts.segmentation import SegmentRequest, SegmentResponse
from trainer.data.normalization import normalized
from trainer.inference.leaks import LeakSearch, leak_of_lines
from trainer.inference.scoring import Scores, is_cut, score_lines
from trainer.inference.tokenizations import has_several, marginals
from trainer.models.base import LanguageModel
from trainer.models.ngram import CountedText, are_same_surprisals
from trainer.reading.segmentation import Floats, LineCues, lines_of, segmentation
from trainer.tokenizers.base import Tokenizer

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)
_BEAM_SIZE = 32
"""128 take four times as long, halve the largest bound, and give the same boundaries (docs/segmentation.md)."""


class _Cues(NamedTuple):
    lines: list[LineCues]
    bound_nats: float | None = None
    """The largest bound of the surprisal of a character; None for exact ones."""

    def surprisals(self) -> Iterator[float]:
        for line in self.lines:
            nats: list[float] = line.surprisal.tolist()
            yield from nats


def segment(
    model: LanguageModel,
    tokenizer: Tokenizer,
    request: SegmentRequest,
    response: SegmentResponse,
    count_text: Callable[[], CountedText] | None,
    search: LeakSearch | None = None,
) -> SegmentResponse:
    """Predict the word boundaries of a text by a model and by the n-gram that `count_text` returns.

    Raises the errors of `lines_of`. Without the training text, there is no n-gram. `search` looks for the lines with
    their spaces and without them.
    """
    lines = lines_of(request, tokenizer.manifest.method, tokenizer.normalization)
    texts = [line.text for line in lines]
    counted, together = _counted(count_text), "\n".join(texts)
    own = _cues(model, tokenizer, texts)
    cues = {response.model: own}
    of_ngram = None if counted is None else _cues(counted.ngram, tokenizer, texts)
    is_ngram = of_ngram is not None and are_same_surprisals(own.surprisals(), of_ngram.surprisals())
    if counted is not None and of_ngram is not None and not is_ngram:
        cues[f"{counted.order}-gram"] = of_ngram
    of_letters = {
        name: [of_line.of_letters(line.starts) for line, of_line in zip(lines, one.lines, strict=True)]
        for name, one in cues.items()
    }
    found = changed(
        segmentation(lines, of_letters, request.seed),
        n_cut=sum(is_cut(model, tokenizer.encode(text)) for text in texts),
        n_unknown=tokenizer.unknown_characters(together, tokenizer.encode_documents(together)),
        has_ngram=counted is not None,
        is_ngram=is_ngram,
        is_trained_with_spaces=counted is not None and counted.has_spaces,
        leak=_leak(search, normalized(request.text, tokenizer.normalization).split("\n"), texts),
        bound_nats=max((one.bound_nats for one in cues.values() if one.bound_nats is not None), default=None),
    )
    return changed(response, status="completed", segmentation=found)


def _leak(search: LeakSearch | None, *forms: Sequence[str]) -> Leak | None:
    """Return the larger leak of the forms of a text."""
    return largest_leak(leak for lines in forms if (leak := leak_of_lines(search, lines)) is not None)


def _counted(count_text: Callable[[], CountedText] | None) -> CountedText | None:
    """Count the training text; None if it is deleted or has changed."""
    try:
        return None if count_text is None else count_text()
    except AppError as error:
        log.warning("counts_not_possible", error_code=error.code)
        return None


def _cues(model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str]) -> _Cues:
    """Return the cues of each character of normalized lines, for subwords by a sum over all tokenizations."""
    if not has_several(tokenizer):
        scores = score_lines(model, [tokenizer.encode(text) for text in texts])
        return _Cues([_of_tokens(tokenizer, text, score) for text, score in zip(texts, scores, strict=True)])
    found = marginals(model, tokenizer, texts, [range(len(text) + 1) for text in texts], _BEAM_SIZE)
    lines = [LineCues(np.array(one.part_nats, dtype=np.float64), None) for one in found]
    return _Cues(lines, max(nats for one in found for nats in one.part_left_out_nats))


def _of_tokens(tokenizer: Tokenizer, text: str, scores: Scores) -> LineCues:
    """Return the cues of characters by those of their tokens: one each, or the bytes of each."""
    places = [start for start, _ in tokenizer.spans(text)]
    token_nats: Floats = scores.surprisal.double().numpy()
    token_entropies: Floats = scores.entropy.double().numpy()
    surprisal: Floats = np.bincount(places, token_nats).astype(np.float64)
    entropy: Floats = token_entropies[np.searchsorted(places, np.arange(len(text)))]
    return LineCues(surprisal, entropy)
