"""Tokenizer requests: their configs and ids, and the records of tokenizers that runs have trained."""

from hashlib import sha256
from pathlib import PurePath

from pydantic_core import to_json

from trainer.config.presets import check_newlines
from trainer.config.validation import parse
from trainer.contracts import tokenizers
from trainer.contracts.errors import ErrorCode, field_error
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord
from trainer.contracts.tokenizer_jobs import TokenizerRecord, TokenizerTrainRequest

_SPLIT = {"documents", "split_by", "split_seed", "holdout_fraction", "test_fraction"}
_OPTIONS = {
    *("vocab_size", "min_frequency", "normalization", "special_style", "special_tokens", "model_type"),
    "byte_fallback",
}


def config_of(request: TokenizerTrainRequest) -> tokenizers.TokenizerConfig:
    """Return the config of the requested method; raises AppError for unknown methods and options."""
    if request.method not in tokenizers.METHODS:
        message = f"must be one of {', '.join(tokenizers.METHODS)}, you gave '{request.method}'."
        raise field_error(ErrorCode.UNSUPPORTED_BACKEND, "method", message)
    kind = tokenizers.CONFIGS[request.method]
    fields: dict[str, object] = request.model_dump(include=_OPTIONS, exclude_none=True)
    for name in fields:
        if name not in kind.model_fields:
            message = f"is not an option of method '{request.method}': leave it out."
            raise field_error(ErrorCode.INVALID_INPUT, name, message)
    config = parse(kind, fields)
    check_newlines(request.documents, config.method)
    return config


def tokenizer_id_of(request: TokenizerTrainRequest, corpora: tuple[CorpusRef, ...]) -> str:
    """Return the id of the requested tokenizer: equal for equal corpus contents and options.

    An option that is left at its default does not count, so one that comes later changes no id.
    """
    config: dict[str, object] = config_of(request).model_dump(mode="json", exclude_defaults=True)
    identity: dict[str, object] = {
        "method": request.method,
        "config": config,
        "corpora": [corpus.sha256 for corpus in corpora],
        "split": [request.split, request.holdout_fraction, request.test_fraction, request.seed],
        **({"documents": request.documents} if request.documents != "line" else {}),
    }
    return f"{request.method}-{sha256(to_json(identity)).hexdigest()[:16]}"


def run_source(effective: EffectiveRequest) -> str:
    """Return a hash of what determines the tokenizer that a run trains for itself: corpora, split and options."""
    fields: dict[str, object] = effective.model_dump(mode="json", include=_SPLIT | {"tokenizer"})
    fields |= effective.hashes_by_field()
    return sha256(to_json(fields)).hexdigest()


def record_of_run(run: RunRecord, tokenizer: tokenizers.TokenizerManifest) -> TokenizerRecord:
    """Return the record of the tokenizer that a run has trained; a mask token stands in the manifest only."""
    effective = run.effective
    config: dict[str, object] = tokenizer.config.model_dump(include={"method", *_OPTIONS}, exclude_none=True)
    split: dict[str, object] = effective.model_dump(include=_SPLIT)
    seed, corpora = split.pop("split_seed"), [effective.corpus.name]
    fields = {**config, **split, "seed": seed, "corpora": corpora, "label": _label_of_run(run)}
    return TokenizerRecord(
        tokenizer_id=tokenizer.tokenizer_id,
        created_at=tokenizer.created_at,
        request=parse(TokenizerTrainRequest, fields),
        corpora=(effective.corpus,),
        source=run_source(effective),
        user_id=run.user_id,
        http=run.http,
    )


def _label_of_run(run: RunRecord) -> str | None:
    """Return the label of a run's tokenizer: the tokenizer folder of the run's file, else the corpus.

    Runs of other people on this corpus have this tokenizer, too, so the run's label is for attached texts only.
    """
    corpus = run.effective.corpus
    name = run.request.label if corpus.is_attached else PurePath(corpus.name).stem
    if run.requested_paths is not None:
        name = run.requested_paths[0]
    return name[:64] if name is not None and name.isprintable() else None
