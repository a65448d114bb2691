"""Requests, responses and records of scores of texts."""

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from trainer.contracts.base import CountOptions, Frozen, Seed, exactly_one, json_schema_rule
from trainer.contracts.inference_fields import (
    MAX_TEXT_CHARACTERS,
    InferenceRecord,
    InferenceRequest,
    Response,
    ScoringMethod,
    limited,
)
from trainer.contracts.reports import Note
from trainer.contracts.runs import CorpusName, Leak
from trainer.contracts.units import perplexity

DetailLevel = Literal["summary", "per_line", "per_word", "per_char"]


MIN_SEARCHED_CHARACTERS = 1000
"""Shorter texts are not searched for in the training text, which may take longer than to score them."""


class ScoreRequest(CountOptions, InferenceRequest, json_schema_extra=json_schema_rule(exactly_one("text", "path"))):
    """A request to score a text, or a corpus by its name, line by line, each line from [BOS].

    A run with `documents` stream scores the text as one line, with its newlines as tokens.
    """

    corpus_field: ClassVar[str | None] = "path"

    text: Annotated[str, Field(min_length=1), limited("text", MAX_TEXT_CHARACTERS)] | None = None
    path: CorpusName | None = None
    detail_level: DetailLevel = "summary"
    """Each level adds to the one before: the totals, then a list of lines, then words, then lists of tokens."""
    top_k: Annotated[int, Field(ge=1, le=50)] | None = None
    """With `per_char`: number of the likeliest tokens to list at each position."""
    context: Literal["bos", "none"] = "bos"
    """`none` reads no [BOS] before a line, so that its first token has no score (causal models only)."""
    pll_within_word: bool = False
    """For masked models: mask the later tokens of a word too (Kauf and Ivanova 2023)."""
    window_tokens: Annotated[int, Field(ge=64, le=65536)] | None = None
    """Score longer lines by windows of this many tokens; None is exact for recurrent models.

    Lines longer than a transformer's context are always scored by windows.
    """
    seed: Seed | None = None
    """Accepted without effect: scoring is deterministic."""

    @classmethod
    def response_type(cls) -> "type[ScoreResponse]":
        return ScoreResponse

    def without_quotes(self) -> Self | None:
        return None if self.has_surprisals else self

    @property
    def is_searched(self) -> bool:
        return self.has_counts is not False and (self.text is None or len(self.text) >= MIN_SEARCHED_CHARACTERS)

    @property
    def has_surprisals(self) -> bool:
        return self.detail_level in ("per_word", "per_char")

    @model_validator(mode="after")
    def _one_text(self) -> "ScoreRequest":
        if (self.text is None) == (self.path is None):
            raise ValueError("give either `text` or `path`")
        return self


class WindowReport(Frozen):
    """The windows of a score, and their measured difference from the exact score."""

    window_tokens: int
    context_tokens: int
    """Tokens that each window except a line's first reads before the scored ones."""
    stride_tokens: int = 0
    """Tokens that each window except a line's first scores; 1 for a masked model."""
    cut_lines: int = 0
    """Lines longer than a window, counting the special tokens that the model reads."""
    compared_tokens: int
    """Tokens of the longest line that were scored both ways; 0 if no line is longer than a window, if the model cannot
    read more than a window, and for a masked model."""
    max_difference_nats: float
    """The largest difference of a token's two surprisals."""


Span = tuple[int, int]
"""A half-open range of the normalized text."""
Expected = tuple[tuple[str, float], ...]
"""Most probable tokens at a position with their probabilities, in descending order."""


class LineScore(Frozen):
    """The totals of one line, or of the complete text with a stream."""

    number: Annotated[int, Field(ge=1)]
    """The number of the line in the text, blank lines included."""
    span: Span
    n_tokens: int
    n_scored: int
    unk_count: int
    unknown_chars: int = 0
    """Characters of its scored tokens that are unknown."""
    nats: float
    """The sum of the surprisals of its scored tokens."""
    end_nats: float | None = None
    """The surprisal of its [EOS]; None for a masked model, and in a stream."""
    n_chars: int
    n_bytes: int

    @property
    def n_ends(self) -> int:
        return int(self.end_nats is not None)


class Totals(NamedTuple):
    """The totals of scored lines or texts."""

    nats: float = 0.0
    n_chars: int = 0
    n_bytes: int = 0
    n_tokens: int = 0
    n_scored: int = 0
    unk_count: int = 0
    unknown_chars: int = 0
    end_nats: float = 0.0
    """The sum of the surprisals of each line's [EOS]."""
    n_ends: int = 0
    """Lines with a scored [EOS]; 0 for a masked model, and in a stream."""

    @classmethod
    def of(cls, lines: "Iterable[LineScore | Totals]") -> "Totals":
        parts = list(lines)
        return cls(
            nats=math.fsum(part.nats for part in parts),
            n_chars=sum(part.n_chars for part in parts),
            n_bytes=sum(part.n_bytes for part in parts),
            n_tokens=sum(part.n_tokens for part in parts),
            n_scored=sum(part.n_scored for part in parts),
            unk_count=sum(part.unk_count for part in parts),
            unknown_chars=sum(part.unknown_chars for part in parts),
            end_nats=math.fsum(part.end_nats or 0.0 for part in parts),
            n_ends=sum(part.n_ends for part in parts),
        )

    def figures(self, method: ScoringMethod) -> dict[str, object]:
        """Return the fields of a response. At least one token must have a score."""
        fields: dict[str, object] = {
            **self._asdict(),
            "unknown_char_share": self.unknown_chars / self.n_chars,
            "mean_surprisal": self.nats / self.n_scored,
        }
        if not self.n_ends:
            fields["end_nats"] = None
        if method == "pseudo_log_likelihood":
            return fields
        nats = self.nats + self.end_nats
        loss = nats / (self.n_scored + self.n_ends)
        bits = nats / math.log(2)
        return fields | {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_char": bits / self.n_chars,
            "bits_per_byte": bits / self.n_bytes,
        }


class WordScore(Frozen):
    """A word between white space; its surprisal does not depend on how the tokenizer splits it."""

    text: str
    span: Span
    surprisal: float | None
    """In nats; None if its first token is not scored."""


class ScoreResponse(Response):
    """Scores in nats. Lists of tokens have `n_tokens` entries, None for a token that is not scored."""

    loss: float | None = None
    """Mean over the scored tokens and the [EOS] of each line, as in an evaluation; a stream has no [EOS].

    None for a masked model, as are `perplexity`, `bits_per_char` and `bits_per_byte`.
    """
    perplexity: float | None = None
    mean_surprisal: float | None = None
    """Mean over the scored tokens, without [EOS]."""
    bits_per_char: float | None = None
    bits_per_byte: float | None = None
    """Bits per UTF-8 byte of the normalized lines."""
    nats: float | None = None
    """The sum of the surprisals of all scored tokens."""
    end_nats: float | None = None
    """The sum of the surprisals of each line's [EOS]."""
    n_ends: int | None = None
    n_chars: int | None = None
    """Characters of the scored tokens in the normalized lines; bytes are counted the same way."""
    n_bytes: int | None = None
    n_tokens: int | None = None
    n_scored: int | None = None
    unk_count: int | None = None
    unknown_chars: int | None = None
    """Characters of the scored tokens that the tokenizer does not know."""
    unknown_char_share: float | None = None
    """Their share of `n_chars`; above 0.001, figures are too low to compare."""
    unit: Literal["nats"] = "nats"
    method: ScoringMethod = "causal"
    """The context of a surprisal: the tokens before it, or all other tokens of its line."""
    surprisal: tuple[float | None, ...] | None = None
    rank: tuple[int | None, ...] | None = None
    entropy: tuple[float | None, ...] | None = None
    tokens: tuple[str, ...] | None = None
    unknown_token: str | None = None
    char_spans: tuple[Span, ...] | None = None
    """Half-open character ranges of the tokens in the normalized text."""
    topk: tuple[Expected, ...] | None = None
    """`topk[i]`: the prediction at the position of token i; empty for a token that is not scored."""
    context_tokens: tuple[int, ...] | None = None
    """The number of context tokens of each token, special ones included; None if no line was cut."""
    lines: tuple[LineScore, ...] | None = None
    words: tuple[WordScore, ...] | None = None
    window: WindowReport | None = None
    """None for exact scores."""
    leak: Leak | None = None
    """How much of a text of 1,000 characters or more the run and its ancestors have trained on.

    None for a shorter one, without their texts, or if not yours.
    """
    notes: tuple[Note, ...] = ()
    """Warnings of the leak."""

    @property
    def totals(self) -> Totals:
        counts = self.n_chars, self.n_bytes, self.n_tokens, self.n_scored, self.unk_count, self.unknown_chars
        totals = Totals(self.nats or 0.0, *(count or 0 for count in counts))
        return totals._replace(end_nats=self.end_nats or 0.0, n_ends=self.n_ends or 0)


class ScoreRecord(InferenceRecord):
    kind: Literal["score"] = "score"
    request: ScoreRequest
    response: ScoreResponse
