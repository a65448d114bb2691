"""The training of a tokenizer as a job of its own: what was asked, and how it stands."""

from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field
from pydantic_core import to_json

from trainer.contracts.base import Count, Frozen, Identifier, JobState, Timestamp
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.runs import CorpusName, CorpusRef, Label
from trainer.contracts.tokenizers import (
    CONFIGS,
    METHODS,
    Normalization,
    RenamedTokens,
    SpecialStyle,
    TokenizerConfig,
    TokenizerStats,
    VocabularySize,
)
from trainer.contracts.validation import parse


class TokenizerTrainRequest(Frozen):
    """A tokenizer as a person asks for it."""

    method: Annotated[str, Field(max_length=32)]
    corpora: Annotated[tuple[CorpusName, ...], Field(min_length=1, max_length=16)]
    """The vocabulary is made from all of them together."""
    vocab_size: VocabularySize | None = None
    min_frequency: Count | None = None
    """None, as for `vocab_size`: what the method has by default."""
    normalization: Normalization = Normalization()
    model_type: Literal["unigram", "bpe"] | None = None
    """Of SentencePiece; None is unigram."""
    special_style: SpecialStyle | None = None
    """Whose special tokens a subword tokenizer has: None for bert's with wordpiece, else gpt2's."""
    special_tokens: RenamedTokens = None
    """Names in place of those of the style; char and word keep theirs."""
    holdout_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """The share of lines that the vocabulary does not see; the statistics are theirs."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """How many cores the training uses, which changes nothing of what comes of it; 0: the physical ones."""
    label: Label | None = None


class TokenizerRecord(Frozen):
    """`request.json`: what was promised when the tokenizer was accepted."""

    schema_version: Literal[1] = 1
    tokenizer_id: Identifier
    created_at: Timestamp
    request: TokenizerTrainRequest
    corpora: tuple[CorpusRef, ...]


class TokenizerAccepted(Frozen):
    """The answer to a train request."""

    tokenizer_id: Identifier
    job_id: Identifier
    status: JobState


class TokenizerStatus(Frozen):
    """How a tokenizer stands."""

    tokenizer_id: Identifier
    status: JobState
    message: str
    method: str
    vocab_size: int | None
    """None until it is known."""
    stats: TokenizerStats | None
    artifact: str
    """Its folder, relative to the artifacts."""
    error: RunError | None
    label: str | None
    created_at: Timestamp


class TokenizerList(Frozen):
    """All tokenizers, newest first."""

    tokenizers: tuple[TokenizerStatus, ...]


_OPTIONS = {"vocab_size", "min_frequency", "normalization", "special_style", "special_tokens", "model_type"}


def config_of(request: TokenizerTrainRequest) -> TokenizerConfig:
    """The part of a request that the method takes; raises AppError for a method, or an option of it, that is none."""
    if request.method not in METHODS:
        raise AppError(
            ErrorCode.UNSUPPORTED_BACKEND, f"`method` must be one of {', '.join(METHODS)}, you gave '{request.method}'."
        )
    kind = CONFIGS[request.method]
    fields: dict[str, object] = request.model_dump(include=_OPTIONS, exclude_none=True)
    for name in fields:
        if name not in kind.model_fields:
            raise AppError(
                ErrorCode.INVALID_INPUT, f"`{name}` means nothing to method '{request.method}': leave it out."
            )
    return parse(kind, fields)


def tokenizer_id_of(request: TokenizerTrainRequest, corpora: tuple[CorpusRef, ...]) -> str:
    """The id of what a request makes: equal for equal texts and options, whatever the texts are called.

    An option that is left at its default does not count, so one that comes later changes no id.
    """
    config: dict[str, object] = config_of(request).model_dump(mode="json", exclude_defaults=True)
    identity: dict[str, object] = {
        "method": request.method,
        "config": config,
        "corpora": [corpus.sha256 for corpus in corpora],
        "holdout_fraction": request.holdout_fraction,
        "seed": request.seed,
    }
    return f"{request.method}-{sha256(to_json(identity)).hexdigest()[:16]}"
