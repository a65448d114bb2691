"""From a request as sent to the request as run: defaults of its family, sizes of its preset (DEC D23, D45)."""

from hashlib import sha256

from pydantic_core import to_json

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import Architecture, ModelBlock, ModelFamily
from trainer.contracts.runs import CorpusRef, EffectiveRequest, OptimizerConfig, RunManifest, TrainRequest
from trainer.contracts.tokenizers import CharTokenizerConfig, TokenizerConfig, TokenizerManifest
from trainer.contracts.validation import parse

_NOT_HASHED = {"label", "tags", "provenance", "model_family", "model_size"}
_NEUTRAL: dict[str, object] = {
    "tokenizer_id": None,
    "init_from_run_id": None,
    "freeze_embeddings": False,
    "data_num_workers": None,
    "data_pin_memory": None,
    "sample_every_steps": None,
}
"""Fields that came later, and the value with which each counts as absent: the hashes of older runs stand."""

_TORCH_DEFAULTS: dict[str, dict[str, object]] = {
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "sgd": {"weight_decay": 0.0},
}


class Sizes(Frozen):
    """The sizes of a recurrent network under a preset's name."""

    embedding_size: int
    hidden_size: int
    num_layers: int
    dropout: float


PRESETS = {
    "tiny": Sizes(embedding_size=32, hidden_size=64, num_layers=1, dropout=0.0),
    "small": Sizes(embedding_size=128, hidden_size=256, num_layers=2, dropout=0.1),
    "base": Sizes(embedding_size=256, hidden_size=512, num_layers=2, dropout=0.2),
}


class FamilyDefaults(Frozen):
    """What a family puts in place of the general defaults where the request says nothing."""

    max_seq_len: int
    batch_size: int
    optimizer: OptimizerConfig
    learning_rate: float
    holdout_fraction: float | None = None
    test_fraction: float | None = None


_CHAR_LSTM = FamilyDefaults(
    max_seq_len=256,
    batch_size=64,
    optimizer=OptimizerConfig(name="adamw"),
    learning_rate=2e-3,
    holdout_fraction=0.05,
    test_fraction=0.10,
)
_RECURRENT = FamilyDefaults(max_seq_len=30, batch_size=64, optimizer=OptimizerConfig(name="adam"), learning_rate=1e-3)


def resolve(
    request: TrainRequest,
    *,
    corpus: CorpusRef,
    validation_corpus: CorpusRef | None,
    test_corpus: CorpusRef | None,
    threads: int,
    parent: RunManifest | None = None,
    tokenizer: TokenizerManifest | None = None,
) -> EffectiveRequest:
    """Fill every absent value of a request; raises AppError where its parts do not fit together.

    The parent is the completed run of `init_from_run_id`; the tokenizer is the parent's, or that of `tokenizer_id`.
    """
    given: dict[str, object] = request.model_dump(exclude_unset=True)
    values: dict[str, object] = {
        **_defaults(request),
        **given,
        "model": _sizes(request) if parent is None else _sizes_of(parent, request),
        "tokenizer": _tokenizer(request) if tokenizer is None else _given_tokenizer(tokenizer, request),
        "tokenizer_id": None if tokenizer is None else tokenizer.tokenizer_id,
        "corpus": corpus,
        "validation_corpus": validation_corpus,
        "test_corpus": test_corpus,
        "threads": threads,
    }
    values["optimizer"] = _optimizer(values.get("optimizer"))
    return parse(EffectiveRequest, values)


def request_hash(effective: EffectiveRequest) -> str:
    """SHA-256 of what determines the result; a preset's name, labels and corpus names do not count."""
    values: dict[str, object] = effective.model_dump(mode="json", exclude=_NOT_HASHED)
    for field in ("corpus", "validation_corpus", "test_corpus"):
        reference: CorpusRef | None = getattr(effective, field)
        values[field] = reference and reference.sha256
    ordered = {name: values[name] for name in sorted(values) if values[name] != _NEUTRAL.get(name, values)}
    return sha256(to_json(ordered)).hexdigest()


def architecture(family: ModelFamily) -> Architecture:
    return "lstm" if family == "char_lstm" else family


def _defaults(request: TrainRequest) -> dict[str, object]:
    if request.model_family == "char_lstm":
        defaults: dict[str, object] = _CHAR_LSTM.model_dump(exclude_none=True)
    elif request.model is None and request.model_size is None:
        defaults = _RECURRENT.model_dump(exclude_none=True)
    else:
        defaults = {}
    return defaults


def _optimizer(given: object) -> dict[str, object]:
    """The optimizer with torch's defaults written out, so that a request that spells them has the same hash."""
    optimizer = OptimizerConfig() if given is None else parse(OptimizerConfig, given)
    chosen: dict[str, object] = optimizer.model_dump(exclude_none=True)
    defaults = _TORCH_DEFAULTS[optimizer.name]
    for name in chosen:
        if name not in {"name", *defaults}:
            raise AppError(
                ErrorCode.INVALID_INPUT, f"`optimizer.{name}` means nothing to {optimizer.name}: leave it out."
            )
    return {**defaults, **chosen}


def _sizes(request: TrainRequest) -> dict[str, object]:
    """The model block with the preset's sizes under the ones that were given."""
    name = request.model_size or ("small" if request.model_family == "char_lstm" else "base")
    tied = request.model_family == "char_lstm"
    return {**_preset(name), "tied": tied, **_given_sizes(request), "architecture": architecture(request.model_family)}


def _sizes_of(parent: RunManifest, request: TrainRequest) -> dict[str, object]:
    """The parent's sizes, which a warm start cannot change; dropout is no size."""
    sizes: dict[str, object] = parent.effective.model.model_dump()
    asked = _given_sizes(request) | {"architecture": architecture(request.model_family)}
    if request.model_size is not None:
        asked = _preset(request.model_size) | asked
    for field, value in asked.items():
        if field != "dropout" and value != sizes[field]:
            raise AppError(
                ErrorCode.MODEL_INCOMPATIBLE,
                f"`model.{field}` would be {value}, but the run '{parent.run_id}' that this one starts from has"
                f" {sizes[field]}: ask for the same, or leave it out.",
            )
    return sizes | asked


def _preset(name: str) -> dict[str, object]:
    if name not in PRESETS:
        raise AppError(
            ErrorCode.INVALID_MODEL_SIZE,
            f"`model_size` must be one of {', '.join(PRESETS)}, you gave '{name}'.",
        )
    sizes: dict[str, object] = PRESETS[name].model_dump()
    return sizes


def _given_sizes(request: TrainRequest) -> dict[str, object]:
    """The request's model block, where it does not contradict the family or the preset."""
    block = request.model or ModelBlock()
    given: dict[str, object] = block.model_dump(exclude_none=True)
    family_architecture = architecture(request.model_family)
    if given.pop("architecture", family_architecture) != family_architecture:
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"`model.architecture` must be '{family_architecture}' for model_family '{request.model_family}',"
            f" you gave '{block.architecture}'.",
        )
    preset = {} if request.model_size is None else _preset(request.model_size)
    for field, value in preset.items():
        if given.get(field, value) != value:
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"`model.{field}` is {given[field]} but model_size '{request.model_size}' says {value}:"
                " give one of both.",
            )
    return given


def _tokenizer(request: TrainRequest) -> TokenizerConfig:
    if request.tokenizer is not None:
        return request.tokenizer
    if request.model_family == "char_lstm":
        return CharTokenizerConfig()
    raise AppError(
        ErrorCode.UNSUPPORTED_BACKEND,
        f"`tokenizer.method` must be given for {request.model_family}: its default, 'word', is not available yet;"
        " 'char' is.",
    )


def _given_tokenizer(tokenizer: TokenizerManifest, request: TrainRequest) -> TokenizerConfig:
    """The config of a tokenizer that is there already; a warm start's weights know the ids of no other."""
    if request.tokenizer_id not in (None, tokenizer.tokenizer_id):
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"`tokenizer_id` is '{request.tokenizer_id}', but the run '{request.init_from_run_id}' that this one starts"
            f" from has '{tokenizer.tokenizer_id}': leave it out.",
        )
    if request.tokenizer not in (None, tokenizer.config):
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"`tokenizer` is not that of the run '{request.init_from_run_id}' that this one starts from: leave it out.",
        )
    return tokenizer.config
