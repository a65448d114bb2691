"""Surprisals of the parts of sequences, such as the regions of a sentence, each given all that stands before it."""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise

from trainer.contracts.base import changed
from trainer.contracts.sequences import SequenceBound, SequenceScore, SequencesRequest, SequencesResponse
from trainer.data.normalization import normalized
from trainer.inference.scoring import ScoringInput, is_cut, line_predictions, line_surprisals, scoring_method
from trainer.inference.tokenizations import has_several, marginals
from trainer.inference.word_boundaries import word_ends
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Span, Tokenizer

_NON_SPACE = re.compile(r"\S")
_CLOSED = re.compile(r"(?s).*[ \u3400-\u9fff]")
"""A text up to its last character that composes with none after it: a space or an ideograph."""


def score_parts(
    model: LanguageModel, tokenizer: Tokenizer, request: SequencesRequest, response: SequencesResponse
) -> SequencesResponse:
    """Score sequences side by side.

    For marginal tokenizations, numbers of tokens are those of the canonical ones.
    """
    texts = [normalized(sequence.text, tokenizer.normalization) for sequence in request.sequences]
    bounds = [part_ends(tokenizer, sequence.context, sequence.parts) for sequence in request.sequences]
    lines: list[ScoringInput] = []
    parts_of_tokens: list[list[int]] = []
    for text, of_text in zip(texts, bounds, strict=True):
        # a part ends where the next one starts, and the last one has the white space after it, too
        places = token_places(text, tokenizer.spans(text))
        parts = [min(bisect_right(of_text, place), len(of_text) - 1) for place in places]
        n_given = parts.count(0)
        ends = word_ends(tokenizer, text) if request.pll_within_word else None
        lines.append(
            ScoringInput(
                tokenizer.encode(text),
                model.context_tokens,
                word_ends=ends,
                first=n_given,
                has_end=request.has_end,
            )
        )
        parts_of_tokens.append(parts[n_given:])
    scores: list[SequenceScore] = []
    if request.has_entropies:
        predictions = line_predictions(model, lines)
    else:
        predictions = [(surprisals, []) for surprisals in line_surprisals(model, lines)]
    for index, (surprisals, entropies) in enumerate(predictions):
        end_nats = surprisals.pop() if request.has_end else None
        firsts: list[float | None] = [None] * len(request.sequences[index].parts)
        for part, entropy in zip(parts_of_tokens[index], entropies, strict=False):  # the end has one, too
            firsts[part - 1] = entropy if firsts[part - 1] is None else firsts[part - 1]
        parts_nats: list[list[float]] = [[] for _ in request.sequences[index].parts]
        for part, nats in zip(parts_of_tokens[index], surprisals, strict=True):
            parts_nats[part - 1].append(nats)
        line, scored_text = lines[index], texts[index][bounds[index][0] :].strip()
        score = SequenceScore(
            nats=math.fsum(surprisals),
            part_nats=tuple(
                math.fsum(nats) if nats or not texts[index][start:end].strip() else None
                for nats, (start, end) in zip(parts_nats, pairwise(bounds[index]), strict=True)
            ),
            part_entropies=tuple(firsts) if request.has_entropies else None,
            n_tokens=len(surprisals),
            n_chars=len(scored_text),
            n_bytes=len(scored_text.encode(errors="surrogatepass")),
            unk_count=line.ids[line.first :].count(tokenizer.special_ids.unk),
            is_cut=is_cut(model, line.ids),
            end_nats=end_nats,
        )
        scores.append(score)
    done = changed(response, status="completed", scores=tuple(scores), method=scoring_method(model))
    if request.tokenizations == "canonical":
        return done
    if not has_several(tokenizer):
        exact = [SequenceBound(nats=0.0, part_nats=(0.0,) * len(score.part_nats)) for score in scores]
        return changed(done, bounds=tuple(exact))
    # white space belongs to the part of the next character, as a token of white space does
    borders = [
        [*(len(text[:end].rstrip()) for end in of_text[:-1]), len(text)]
        for text, of_text in zip(texts, bounds, strict=True)
    ]
    found = marginals(model, tokenizer, texts, borders, request.beam_size)
    return changed(
        done,
        scores=tuple(
            changed(score, nats=math.fsum(of_text.part_nats), part_nats=of_text.part_nats)
            for score, of_text in zip(scores, found, strict=True)
        ),
        bounds=tuple(SequenceBound(nats=one.bound_nats, part_nats=one.part_left_out_nats) for one in found),
    )


def part_ends(tokenizer: Tokenizer, context: str, parts: Iterable[str]) -> list[int]:
    """Return where the context and each part end in the normalized text."""
    ends: list[int] = []
    length, rest = 0, ""
    for part in (context, *parts):
        rest += part
        closed = _CLOSED.match(rest)
        done = "" if closed is None else closed.group()
        length, rest = length + len(normalized(done, tokenizer.normalization)), rest[len(done) :]
        ends.append(length + len(normalized(rest, tokenizer.normalization)))
    return ends


def token_places(text: str, spans: Iterable[Span]) -> list[int]:
    """Return for each token the position of its first non-space character, or else of the next one after it."""
    places: list[int] = []
    place = -1
    for start, _ in spans:
        if start > place:
            found = _NON_SPACE.search(text, start)
            place = len(text) if found is None else found.start()
        places.append(place)
    return places
