"""Jobs that train a tokenizer: requests, records and status."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.config import JsonDict, JsonValue

from trainer.contracts import tokenizers
from trainer.contracts.base import (
    Count,
    Frozen,
    Identifier,
    JobRecord,
    RunState,
    Seed,
    Sha256,
    WaitReason,
    json_schema_rule,
    requires_field,
)
from trainer.contracts.job_status import JobPage, JobStatus
from trainer.contracts.runs import CorpusName, CorpusRef
from trainer.contracts.training_options import Label

_METHODS: list[JsonValue] = [*tokenizers.METHODS]
_NONE: JsonDict = {"type": "null"}


def _methods_with(option: str) -> JsonDict:
    return {"enum": [method for method, config in tokenizers.CONFIGS.items() if option in config.model_fields]}


_OPTION_RULES = [
    requires_field(option, _NONE, "method", _methods_with(option))
    for option in ("min_frequency", "model_type", "byte_fallback", "special_style")
]
_ALL_NULL: JsonDict = {"anyOf": [_NONE, {"additionalProperties": _NONE}]}
_RENAMES = requires_field("special_tokens", _ALL_NULL, "method", _methods_with("special_style"))


class TokenizerTrainRequest(Frozen, json_schema_extra=json_schema_rule(*_OPTION_RULES, _RENAMES)):
    method: Annotated[str, Field(max_length=32, json_schema_extra={"x-enum": _METHODS})]
    corpora: Annotated[
        tuple[CorpusName, ...], Field(min_length=1, max_length=16, json_schema_extra={"x-uniqueItems": True})
    ]
    """Corpora; the vocabulary covers all of them."""
    vocab_size: tokenizers.VocabularySize | None = None
    min_frequency: Count | None = None
    """Fewest occurrences of a token or merged pair; default, like `vocab_size`: that of the method."""
    normalization: tokenizers.Normalization = tokenizers.Normalization()
    model_type: Literal["unigram", "bpe"] | None = None
    """Algorithm of SentencePiece; default: unigram."""
    byte_fallback: bool | None = None
    """Encode unknown characters as their UTF-8 bytes; default: false."""
    special_style: tokenizers.SpecialStyle | None = None
    """Style of a subword tokenizer's special tokens; default: bert for wordpiece, else gpt2."""
    special_tokens: tokenizers.RenamedTokens = None
    """Other names for special tokens; not for char and word."""
    documents: tokenizers.DocumentMode = "line"
    """Documents of the runs that take the tokenizer; with stream, a newline is a token."""
    split_by: tokenizers.SplitBy | None = None
    """Units in which each corpus is split, as for runs; default: line, or position in a stream."""
    holdout_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of each corpus held out for the statistics; runs validate on it."""
    test_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of each corpus left out, on which runs are tested."""
    seed: Seed = 42
    """Draws the splits, as `split_seed` of runs does."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads, without effect on the result; 0: as many as physical cores."""
    label: Label | None = None

    @property
    def split(self) -> tokenizers.SplitBy:
        """Units in which each corpus is split."""
        return self.split_by or ("line" if self.documents == "line" else "position")


class TokenizerRecord(JobRecord):
    """`request.json`: an accepted request."""

    schema_version: Literal[1] = 1
    tokenizer_id: Identifier
    request: TokenizerTrainRequest
    corpora: tuple[CorpusRef, ...]
    source: Sha256 | None = None
    """The `run_source` of a run's tokenizer; None for a tokenizer trained alone."""


class TokenizerAccepted(Frozen):
    tokenizer_id: Identifier
    job_id: Identifier
    status: RunState


class TokenizerStatus(JobStatus):
    tokenizer_id: Identifier
    message: str
    waits_for: WaitReason | None = None
    method: str
    vocab_size: int | None
    """None until the training ends."""
    stats: tokenizers.TokenizerStats | None
    artifact: str
    """Address of its files on a server."""
    label: str | None
    is_of_run: bool = False
    """True if a run has trained it for itself."""


class TokenizerList(JobPage):
    tokenizers: tuple[TokenizerStatus, ...]
