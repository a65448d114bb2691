"""Requests and responses of scores of sequences in parts."""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.contracts.base import Frozen
from trainer.contracts.inference_fields import (
    MAX_TEXT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    ScoringMethod,
    check_text_length,
)

Tokenizations = Literal["canonical", "marginal"]
"""The tokens that the tokenizer makes of a text, or all tokens that spell it."""
BEAM_SIZE = 128
MAX_PARTS = 1000
"""Parts of a sequence: the time to find where each ends grows with the square of their number."""

Separator = Annotated[str, Field(max_length=20, pattern=r"^[^\n\r]*$")]
"""What stands between two texts that are joined; a space of it belongs to the text after it."""
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese and Japanese."""
_SHORT = 4
"""Characters of a word in these scripts."""
_QUOTES = frozenset('"\u201c\u201d\u201e\u00ab\u00bb')
"""Signs that open a quotation in some languages and close it in others."""
_OPENING = re.compile(
    r"([(\[{\u00bf\u00a1\u2018\u3008-\u3011\uff08]|``"
    r"|(?<![\w'\u2019])([cdjlmnst]|(jus|lors|puis|quoi)?qu|un|(de|a|ne|da|su|que)ll|quest)['\u2019])$",
    re.IGNORECASE,
)
"""The end of a text before which a space is written, but not after it: brackets, and French and Italian elisions."""
_CLOSING = re.compile(
    r"[.,;:!?\u2026\u060c\u061b\u061f\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f]+(?!\w)|[)\]}%\uff09]|[\u201d\u00bb](?!\w)"
    r"|''|\u2019$|(n['\u2019]t|['\u2019](s|m|d|t|re|ve|ll))\b(?!['\u2019])",
    re.IGNORECASE,
)
"""The beginning of a text before which no space is written: punctuation, and English clitics."""
_BETWEEN = re.compile(f"[{_SPACELESS}] [{_SPACELESS}]")


def joined(texts: Iterable[str], separator: str | None) -> list[str]:
    """Return texts as parts of one, with a separator before each but the first; none before an empty text.

    None stands for a space where one is usually written.
    """
    parts: list[str] = []
    before, is_quoted = "", False
    for text in texts:
        between = ""
        if before and text:
            between = _usual_separator(before, text, is_quoted=is_quoted) if separator is None else separator
        parts.append(f"{between}{text}")
        is_quoted ^= len([sign for sign in text if sign in _QUOTES]) % 2 == 1
        before = text or before
    return parts


def _usual_separator(before: str, after: str, *, is_quoted: bool) -> str:
    """Return a space, or nothing where none is usually written; signs of quotations open and close in turn."""
    if after[0] in _QUOTES and not after[1:2].isalnum():
        return "" if is_quoted else " "
    if is_quoted and before[-1] in _QUOTES and not before[-2:-1].isalnum():
        return ""
    return "" if has_unwritten_space(before, f" {after}") else " "


def has_unwritten_space(before: str, after: str) -> bool:
    """Return whether the second text begins with a space after the first that is not usually written."""
    if not before or after[:1] != " ":
        return False
    is_beside = _OPENING.search(before) or _CLOSING.match(after, 1) or _BETWEEN.match(f"{before[-1]}{after[:2]}")
    return is_beside is not None


def is_one_word(text: str) -> bool:
    """Return whether a text is one word, as far as white space or, in scripts without it, its length shows."""
    return len(text.split()) == 1 and (len(text) <= _SHORT or not re.search(f"[{_SPACELESS}]", text))


class SequenceParts(Frozen):
    """A line to score in parts, which together are its text.

    A token belongs to the part in which its first non-space character lies. A token of white space alone belongs to the
    part of the next character that is none, and to the last part where there is none.
    """

    context: str = ""
    """Text before the parts, which is given and not scored; without it the parts start from [BOS]."""
    parts: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_PARTS)]

    @property
    def text(self) -> str:
        return self.context + "".join(self.parts)

    @property
    def has_unwritten_space(self) -> bool:
        """True if a part begins with a space that is not usually written after the text before it."""
        texts = filter(None, (self.context, *self.parts))
        return any(has_unwritten_space(before, after) for before, after in pairwise(texts))

    @model_validator(mode="after")
    def _one_scored_line(self) -> "SequenceParts":
        if not "".join(self.parts).strip():
            raise ValueError("`parts` have nothing to score: they are blank")
        if "\n" in self.text:
            raise ValueError("a sequence is one line: write a space instead of a newline")
        return self


class SequencesRequest(InferenceRequest):
    """A request to score sequences, each by itself."""

    sequences: Annotated[tuple[SequenceParts, ...], Field(min_length=1, max_length=10_000)]
    pll_within_word: bool = False
    """For masked models: mask the later tokens of a word too (Kauf and Ivanova 2023)."""
    untrained_seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    """Score by the architecture of the run with random weights, drawn from this seed."""
    has_end: bool = False
    """For causal models: score the line end after each sequence too, by itself."""
    has_entropies: bool = False
    """Also return how uncertain the model is before each part."""
    tokenizations: Tokenizations = "canonical"
    """For causal models: score the canonical tokenization, or sum the probabilities of all (marginal)."""
    beam_size: Annotated[int, Field(ge=1, le=10_000)] = BEAM_SIZE
    """For `marginal`: the most tokenizations that are continued at a position, 16 times those at the end of a word."""

    @classmethod
    def response_type(cls) -> "type[SequencesResponse]":
        return SequencesResponse

    @model_validator(mode="after")
    def _not_too_long(self) -> "SequencesRequest":
        characters = sum(len(sequence.text) for sequence in self.sequences)
        check_text_length("`sequences`", characters, MAX_TEXT_CHARACTERS)
        return self

    @model_validator(mode="after")
    def _has_no_marginal_end(self) -> "SequencesRequest":
        if self.has_end and self.tokenizations == "marginal":
            raise ValueError("`has_end` is for `tokenizations` 'canonical' only")
        return self


class SequenceScore(Frozen):
    """The score of the parts of a sequence."""

    nats: float
    """The sum of the surprisals of the tokens of all parts."""
    part_nats: tuple[float | None, ...]
    """None for a part that begins and ends inside a token of another part, and has none of its own."""
    part_entropies: tuple[float | None, ...] | None = None
    """The entropies of the predictions of each part's first token, in nats; None for a part without tokens.

    None as a whole unless they were requested.
    """
    n_tokens: int
    """Scored tokens; 0 where the tokenizer has no token for the parts."""
    n_chars: int
    """Characters of the parts in the normalized text, without white space at both ends; bytes are counted so, too."""
    n_bytes: int
    unk_count: int
    is_cut: bool
    """True if the sequence is longer than the model's context, so that it is scored by windows."""
    end_nats: float | None = None
    """The surprisal of the line end after the sequence, which `nats` does not have; None unless it was requested."""


class SequenceBound(Frozen):
    """The errors of surprisals that leave out improbable tokenizations."""

    nats: float
    """The largest difference of `nats` from the sum over all tokenizations.

    Tokenizations that were dropped count as if the rest of the text were certain after them. So it is large for a text
    of many words.
    """
    part_nats: tuple[float, ...]
    """An estimate of how much lower each of `part_nats` would be over all tokenizations, given those before it."""


class SequencesResponse(Response):
    scores: tuple[SequenceScore, ...] | None = None
    """In the order of the request."""
    bounds: tuple[SequenceBound, ...] | None = None
    """In the order of the request; None for canonical tokenizations."""
    method: ScoringMethod = "causal"


class SequencesRecord(InferenceRecord):
    kind: Literal["sequences"] = "sequences"
    request: SequencesRequest
    response: SequencesResponse
