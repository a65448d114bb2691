"""Resolve a train request: check its parts, and fill in the defaults of its family and the sizes of its preset."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from pydantic_core import to_json

from trainer.config.defaults import (
    BY_SPEED,
    Basis,
    Standard,
    TextCharacters,
    TrainingText,
    chosen_method,
    chosen_size,
    chosen_values,
    chosen_vocab_size,
    is_long_enough,
    row_length,
)
from trainer.config.train_request import CORPORA
from trainer.config.validation import merged, parse, safe_name, set_path, value_at
from trainer.contracts import models, tokenizers
from trainer.contracts.base import Frozen, changed
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, field_error, refusal
from trainer.contracts.models import Objective
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord, TrainRequest
from trainer.contracts.tokenizers import DocumentMode, TokenizerConfig, TokenizerManifest, TokenizerMethod
from trainer.contracts.training_options import (
    DEFAULT_DECAY_RATIO,
    DEFAULT_MLM_PROBABILITY,
    ChosenValue,
    OptimizerConfig,
    Pace,
)

_NOT_HASHED = {
    *("label", "tags", "provenance", "logging", "model_family", "model_size", "devices", "strategy"),
    *("tokenizer_saw_held_out", "test", "has_auto_batch", "has_earlier_hash"),
}
_NOT_HASHED_DEFAULTS: dict[str, object] = {
    **{"decay_ratio": DEFAULT_DECAY_RATIO, "ema_decay": None, "minutes": None, "sample_prompts": "held_out"},
}
"""Fields that earlier versions lack; at these values the hash is that of an earlier version."""
TORCH_BETAS, TORCH_EPS = (0.9, 0.999), 1e-8
TORCH_MOMENTUM = 0.95
TORCH_WEIGHT_DECAY = {"adamw": 1e-2, "adam": 0.0, "sgd": 0.0, "muon": 0.1}
_TORCH_DEFAULTS: dict[str, dict[str, object]] = {
    "adamw": {"betas": TORCH_BETAS, "eps": TORCH_EPS, "weight_decay": TORCH_WEIGHT_DECAY["adamw"]},
    "adam": {"betas": TORCH_BETAS, "eps": TORCH_EPS, "weight_decay": TORCH_WEIGHT_DECAY["adam"]},
    "sgd": {"weight_decay": TORCH_WEIGHT_DECAY["sgd"]},
    "muon": {
        **{"betas": TORCH_BETAS, "eps": TORCH_EPS, "weight_decay": TORCH_WEIGHT_DECAY["muon"]},
        "momentum": TORCH_MOMENTUM,
    },
}
_ROUGH_VOCABULARY = 100
_SHARES = ("holdout_fraction", "test_fraction")

OF_STEPS = (
    *("max_seq_len", "num_epochs", "max_steps", "max_seconds", "minutes", "batch_size"),
    *("gradient_accumulation", "optimizer"),
    *("learning_rate", "lr_schedule", "min_learning_rate", "decay_ratio", "warmup_steps", "warmup_ratio"),
    *("gradient_clipping", "ema_decay"),
    *("init_from_run_id", "freeze_embeddings", "early_stopping", "devices", "strategy", "precision"),
    *("data_num_workers", "data_pin_memory", "checkpoint_every_steps", "checkpoint_schedule"),
    *("eval_every_steps", "log_every_steps", "sample_every_steps"),
)
"""Fields about steps, batches, gradients and the checkpoints between steps."""
_WITHOUT_STEPS: dict[str, object] = {
    **{"device": "cpu", "num_epochs": 1, "max_seq_len": 512, "batch_size": 8},
    **{"learning_rate": 5e-4, "lr_schedule": "constant"},
}
"""Values of a run that counts; only its device is used."""


class Resolved(NamedTuple):
    """A resolved request, and the values in it that rules have chosen."""

    effective: EffectiveRequest
    chosen: tuple[ChosenValue, ...]


def architecture(family: models.ModelFamily) -> models.Architecture:
    return "lstm" if family == "char_lstm" else family


def objective_of(request: TrainRequest) -> models.Objective:
    """Return the training objective, by default the first of the architecture."""
    is_given = "objective" in request.model_fields_set
    return request.objective if is_given else models.CONFIGS[architecture(request.model_family)].objectives[0]


def check_parts(request: TrainRequest) -> None:
    """Raise MODEL_INCOMPATIBLE if the parts of a request do not work together."""
    if problems := list(_problems(request)):
        raise refusal(ErrorCode.MODEL_INCOMPATIBLE, *problems)


def _problems(request: TrainRequest) -> Iterator[FieldProblem]:
    family, objective = request.model_family, objective_of(request)
    config = models.CONFIGS[architecture(family)]
    is_bidirectional = bool((request.model or models.ModelBlock()).bidirectional)
    if objective not in config.objectives and objective == "causal_lm":
        reason = f"must be 'masked_lm' for {family}: it reads both sides and would see what it is to predict"
        yield _problem("objective", reason, "'masked_lm'")
    if objective not in config.objectives and objective == "masked_lm":
        reason = f"must be 'causal_lm' for {family}: it cannot see what comes after a masked token"
        yield _problem("objective", reason, "'causal_lm'")
    if family == "char_lstm" and request.tokenizer is not None and request.tokenizer.method != "char":
        reason = "must be 'char' for char_lstm: take lstm for another tokenizer"
        yield _problem("tokenizer.method", reason, "'char'")
    if is_bidirectional and family == "char_lstm":
        reason = "must be false for char_lstm, which has one direction: take lstm"
        yield _problem("model.bidirectional", reason, "false")
    elif is_bidirectional and objective == "causal_lm":
        reason = (
            "must be false: with causal_lm the model would see what it is to predict; masked_lm takes two directions"
        )
        yield _problem("model.bidirectional", reason, "false")
    if not issubclass(config, models.TransformerConfig) and request.compute.gradient_checkpointing:
        reason = f"is for transformers: with {family} it must be false"
        yield _problem("compute.gradient_checkpointing", reason, "false")
    if config is models.NgramConfig:
        yield from _problems_of_counting(request)
    if objective == "masked_lm" and request.sample_every_steps is not None:
        reason = "must be left out: a model that was trained to fill gaps generates no text"
        yield _problem("sample_every_steps", reason, "null")


def _problems_of_counting(request: TrainRequest) -> Iterator[FieldProblem]:
    """Yield a problem for each field that a model without steps and gradients would ignore."""
    for field in OF_STEPS:
        value: object = getattr(request, field)
        default: object = TrainRequest.model_fields[field].default
        if value != default:
            yield FieldProblem.of(field, " has no effect with ngram, which counts the text once: leave it out")
    if request.device not in ("auto", "cpu"):
        yield _problem("device", "must be 'cpu' or 'auto': ngram counts on the CPU", "'cpu' or 'auto'")


def _problem(path: str, problem: str, allowed: str) -> FieldProblem:
    return FieldProblem.of(path, f" {problem}", allowed=allowed)


def resolve(
    request: TrainRequest,
    *,
    corpus: CorpusRef,
    validation_corpus: CorpusRef | None = None,
    test_corpus: CorpusRef | None = None,
    parent: EffectiveRequest | None = None,
    tokenizer: TokenizerManifest | None = None,
) -> EffectiveRequest:
    """Resolve a request with `resolve_with_reasons`, for a text of as many tokens as its corpus has bytes."""
    return resolve_with_reasons(
        request,
        TrainingText(corpus.bytes, _ROUGH_VOCABULARY),
        {"corpus": corpus, "validation_corpus": validation_corpus, "test_corpus": test_corpus},
        parent=parent,
        tokenizer=tokenizer,
    ).effective


def resolve_with_reasons(
    request: TrainRequest,
    text: TrainingText,
    corpora: Mapping[str, CorpusRef | None],
    *,
    parent: EffectiveRequest | None = None,
    tokenizer: TokenizerManifest | None = None,
    pace: Pace | None = None,
) -> Resolved:
    """Fill in every absent value of a request that `check_parts` accepts; raises AppError if values do not fit.

    The corpora are those of the request, by field. The parent is the run of `init_from_run_id`; the tokenizer is the
    parent's, or that of `tokenizer_id`. The rules of defaults.py choose values for the text, and for the measured pace
    of a request with `minutes`.
    """
    given = _given_fields(request)
    config = request.tokenizer or tokenizer
    usual = models.default_tokenizer_method(request.model_family)
    standard = _standard(request, usual if config is None else config.method)
    is_standard = standard is not None and request.minutes is None and is_long_enough(standard, text)
    standard = standard if is_standard else None
    longest = value_at(given, "max_seq_len") or row_length(text, architecture(request.model_family)).tokens
    size = _size(request, text, standard, pace)
    sizes = _sizes(request, str(size.value), longest, standard) if parent is None else _sizes_of(parent, request)
    chosen = chosen_values(Basis(given, parse(_Model, {"model": sizes}).model, text, standard, pace))
    chosen = [choice for choice in chosen if not (choice.field.startswith("model.") and choice.field[6:] in sizes)]
    values: dict[str, object] = {"split_by": "position"} if request.documents == "stream" else {}
    values["model"] = sizes
    for choice in chosen:
        set_path(values, choice.field, choice.value)
    if has_free_size(request):
        values["model_size"] = size.value
        chosen = [size, *chosen]
    elif request.model_size is None and parent is None:
        chosen = [*_left_to_preset(request, sizes, size), *chosen]
    objective = objective_of(request)
    values = merged(values, {name: value for name, value in given.items() if name != "model"})
    if request.model_family == "ngram":
        values |= _WITHOUT_STEPS
    values |= {
        "objective": objective,
        "mlm_probability": request.mlm_probability if objective == "masked_lm" else DEFAULT_MLM_PROBABILITY,
        "tokenizer": tokenizer_of(request, tokenizer),
        "tokenizer_id": None if tokenizer is None else tokenizer.tokenizer_id,
        **corpora,
    }
    if values.get("warmup_steps") == 0:  # the same as none
        values["warmup_steps"] = None
    values["optimizer"] = _optimizer(values.get("optimizer"))
    effective = parse(EffectiveRequest, values)
    _check(effective)
    if tokenizer is not None:
        effective = changed(effective, tokenizer_saw_held_out=_saw_held_out(tokenizer, effective))
    return Resolved(effective, tuple(chosen))


def with_recorded(resolved: Resolved, record: RunRecord) -> EffectiveRequest:
    """Return the resolved request of a run with the run's values where rules have chosen.

    Other versions have other rules, and other shares of the splits.
    """
    values: dict[str, object] = resolved.effective.model_dump()
    before: dict[str, object] = record.effective.model_dump()
    given = _given_fields(record.request)
    # whole blocks, because each optimizer and each tokenizer has settings of its own
    blocks = {choice.field.partition(".")[0] for choice in (*resolved.chosen, *record.chosen)}
    if blocks & {"model_size", "max_seq_len"}:
        blocks.add("model")
    blocks.update(_SHARES)
    values |= merged({name: before[name] for name in blocks}, {name: given[name] for name in blocks & given.keys()})
    values["has_auto_batch"] = record.effective.has_auto_batch
    return parse(EffectiveRequest, values)


def is_same_request(one: TrainRequest, other: TrainRequest) -> bool:
    """Return True if two requests give the same values, apart from labels and from the names of corpora."""
    left_out = {*CORPORA, *_NOT_HASHED} - {"model_family", "model_size"}
    first, second = (
        {name: value for name, value in _given_fields(request).items() if name not in left_out}
        for request in (one, other)
    )
    return first == second


class _Model(Frozen):
    """A model's sizes, which are checked before rules look at them."""

    model: models.ModelConfig


def _given_fields(request: TrainRequest) -> dict[str, object]:
    """Return the fields that a request gives; `null` leaves a value to a rule, except where it means none."""
    not_of_training = {"resume", "allow_same_corpus", "seeds"}
    given: dict[str, object] = request.model_dump(exclude_unset=True, exclude_none=True, exclude=not_of_training)
    if request.batch_size == "auto":
        given.pop("batch_size")
    return given if request.gradient_clipping is not None else {**given, "gradient_clipping": None}


class Filled(NamedTuple):
    """A request with values that it left out, and these values."""

    request: TrainRequest
    values: tuple[ChosenValue, ...]


def with_parent(request: TrainRequest, parent: EffectiveRequest, *, is_same_corpus: bool) -> Filled:
    """Return the request of a warm start with values of its parent that it leaves out, and what was taken over.

    Equal shares and seeds hold out equal lines of an equal corpus, of which none has trained the parent. The unit of
    the splits is taken over for an equal corpus only, because another one may have no files to draw. Nothing is taken
    over from another architecture, which is refused later.
    """
    if architecture(request.model_family) != parent.model.architecture:
        return Filled(request, ())
    taken: list[ChosenValue] = []
    fields = (*_OF_PARENT, "split_by") if is_same_corpus else _OF_PARENT
    usual: dict[str, object] = request.model_dump()
    reason = f"as in its parent '{request.init_from_run_id}'"
    for field in fields:
        value: bool | int | float | str | None = getattr(parent, field)
        if value is not None and field not in request.model_fields_set and value != usual.get(field):
            taken.append(ChosenValue(field=field, value=value, reason=reason))
    values: dict[str, object] = {one.field: one.value for one in taken}
    return Filled(changed(request, **values), tuple(taken))


_OF_PARENT = (
    *("objective", "mlm_probability", "documents", "max_seq_len"),
    *(*_SHARES, "split_seed"),
)


def with_tokenizer(request: TrainRequest, text: TextCharacters) -> Filled:
    """Return the request with the tokenizer that rules choose for its training split, and their values.

    A request whose tokenizer is trained already is returned as it is.
    """
    if request.tokenizer_id is not None or request.init_from_run_id is not None:
        return Filled(request, ())
    config, chosen = request.tokenizer, list[ChosenValue]()
    if config is None:
        method = chosen_method(request.model_family, text)
        chosen += [] if method is None else [method]
        usual = models.default_tokenizer_method(request.model_family)
        config = tokenizers.CONFIGS[usual if method is None else str(method.value)]()
    if isinstance(config, tokenizers.SubwordConfig) and "vocab_size" not in config.model_fields_set:
        size = chosen_vocab_size(config, text)
        chosen.append(size)
        config = changed(config, vocab_size=size.value)
    return Filled(changed(request, tokenizer=config) if chosen else request, tuple(chosen))


def _saw_held_out(tokenizer: TokenizerManifest, run: EffectiveRequest) -> bool:
    """Return True if a tokenizer was trained on text that a run holds out.

    Splits by line and by position are nested: one that holds out more holds out the lines of one that holds out less,
    unless lines are so frequent that only the larger split can have them.
    """
    if tokenizer.method == "byte":
        return False  # its vocabulary is the same for every text
    known = {corpus.sha256 for corpus in tokenizer.corpus}
    validation, test = run.validation_corpus, run.test_corpus
    if any(corpus.sha256 in known for corpus in (validation, test) if corpus is not None):
        return True
    if run.corpus.sha256 not in known:
        return False
    fractions = (0.0 if validation else run.holdout_fraction, 0.0 if test else run.test_fraction)
    left_out = (tokenizer.holdout_fraction, tokenizer.test_fraction)
    is_drawn = run.split_by != "position"
    is_same_order = tokenizer.split_by == run.split_by and not (is_drawn and tokenizer.seed != run.split_seed)
    has_left_out = fractions == left_out or (run.split_by != "file" and sum(fractions) < sum(left_out))
    return sum(fractions) > 0 and not (is_same_order and has_left_out)


def request_hash(effective: EffectiveRequest) -> str:
    """Return the SHA-256 of all values that determine the result, without labels, preset and corpus names."""
    dumped: dict[str, object] = effective.model_dump(mode="json", exclude=_NOT_HASHED)
    values = {name: value for name, value in dumped.items() if value != _NOT_HASHED_DEFAULTS.get(name, ...)}
    if effective.has_auto_batch:
        values["batch_size"] = "auto"
    if effective.optimizer.momentum is None:
        optimizer: dict[str, object] = effective.optimizer.model_dump(mode="json", exclude={"momentum"})
        values["optimizer"] = optimizer
    for field in CORPORA:
        reference: CorpusRef | None = getattr(effective, field)
        values[field] = reference and reference.sha256
    return sha256(to_json(values)).hexdigest()


def recorded_hash(record: RunRecord) -> str:
    """Return the hash that the request of a run must have when it is resolved again."""
    return request_hash(record.effective) if record.effective.has_earlier_hash else record.request_hash


def check_checkpoint(record: RunRecord, checkpoint_hash: str) -> None:
    """Raise MODEL_INCOMPATIBLE for a checkpoint of version 0.1.0 that was trained with the values of a search."""
    known = (recorded_hash(record), record.checkpoint_request_hash)
    if record.effective.has_earlier_hash and checkpoint_hash not in known:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            "Version 0.1.0 trained this run with values of its own search, so this version cannot continue it."
            " Start a new training; with `search`, it compares settings again.",
        )


def _standard(request: TrainRequest, method: TokenizerMethod) -> Standard | None:
    """Return the standard model that a request stands for: char_lstm, or a recurrent family of words without sizes."""
    family = request.model_family
    if family == "char_lstm":
        return "char_lstm"
    is_of_words = models.CONFIGS[family] is models.RnnConfig and method == "word"
    return "keyboard" if is_of_words and request.model is None and request.model_size is None else None


def has_free_size(request: TrainRequest) -> bool:
    """Return True if a rule chooses the size of a model that takes none over from another run."""
    return request.model_size is None and request.model is None and request.init_from_run_id is None


def _size(request: TrainRequest, text: TrainingText, standard: Standard | None, pace: Pace | None) -> ChosenValue:
    """Return the name of the preset that a model's sizes come from."""
    if request.model_size is not None:
        return ChosenValue(field="model_size", value=request.model_size, reason="given")
    if request.model_family == "ngram":
        return ChosenValue(field="model_size", value="base", reason="the validation split chooses the order")
    size = chosen_size(text, standard, pace)
    return size if request.minutes is None or pace is not None else changed(size, reason=BY_SPEED)


def _optimizer(given: object) -> dict[str, object]:
    """Return the optimizer with the defaults of torch filled in, so that stating them does not change the hash."""
    optimizer = OptimizerConfig() if given is None else parse(OptimizerConfig, given)
    chosen: dict[str, object] = optimizer.model_dump(exclude_none=True)
    defaults = _TORCH_DEFAULTS[optimizer.name]
    for name in chosen:
        if name not in {"name", "weight_decay_exclude", *defaults}:
            message = f"is not an option of {optimizer.name}: leave it out."
            raise field_error(ErrorCode.INVALID_INPUT, f"optimizer.{name}", message)
    return {**defaults, **chosen}


def _sizes(request: TrainRequest, size: str, max_seq_len: object, standard: Standard | None) -> dict[str, object]:
    """Return the sizes of the preset, replaced by the given ones."""
    kind = architecture(request.model_family)
    given = _given_sizes(request)
    sizes = {**_preset(size, kind), **given, "architecture": kind}
    config = models.CONFIGS[kind]
    if issubclass(config, models.TransformerConfig):
        if given.get("hidden_size", sizes["hidden_size"]) != _preset(size, kind)["hidden_size"]:
            sizes["intermediate_size"] = config.usual_intermediate_size(int(str(sizes["hidden_size"])))
        return {"max_position_embeddings": max_seq_len, **sizes, **given}
    is_char_lstm = request.model_family == "char_lstm"
    tied = sizes.get("tie_word_embeddings", is_char_lstm)
    of_recurrent: dict[str, object] = {
        "tie_word_embeddings": tied,
        "initialization": "keyboard" if tied or standard == "keyboard" else "torch",
    }
    if not is_char_lstm:  # a rule chooses its places
        of_recurrent["dropout_places"] = "between_layers" if tied else "all"
    return {**(of_recurrent if config is models.RnnConfig else {}), **sizes}


def _left_to_preset(request: TrainRequest, sizes: Mapping[str, object], size: ChosenValue) -> Iterator[ChosenValue]:
    """Yield the sizes that a model block leaves to the preset that a rule has chosen."""
    given = _given_sizes(request)
    for field, value in _preset(str(size.value), architecture(request.model_family)).items():
        if field not in given:
            is_of_preset = sizes[field] == value
            reason = f"of {size.value}, {size.reason}" if is_of_preset else "usual for the given hidden_size"
            yield parse(ChosenValue, {"field": f"model.{field}", "value": sizes[field], "reason": reason})


def _sizes_of(parent: EffectiveRequest, request: TrainRequest) -> dict[str, object]:
    """Return the sizes of the parent; a warm start can change only dropout."""
    sizes: dict[str, object] = parent.model.model_dump()
    kind = architecture(request.model_family)
    asked = _given_sizes(request) | {"architecture": kind}
    if request.model_size is not None:
        asked = _preset(request.model_size, kind) | asked
    if sizes["architecture"] != kind:
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "model_family",
            f"is '{request.model_family}', but its parent run '{request.init_from_run_id}' has"
            f" '{parent.model_family}': give the same value, or leave it out.",
        )
    for field, value in asked.items():
        if field not in _NO_SIZES and value != sizes.get(field, False):
            raise field_error(
                ErrorCode.MODEL_INCOMPATIBLE,
                f"model.{field}",
                f"would be {value}, but its parent run '{request.init_from_run_id}' has"
                f" {sizes.get(field, False)}: give the same value, or leave it out.",
            )
    return sizes | asked


_NO_SIZES = {"dropout", "dropout_places", "attention_dropout"}


def _preset(name: str, kind: models.Architecture) -> dict[str, object]:
    if name not in models.PRESETS[kind]:
        message = f"must be one of {', '.join(models.PRESETS[kind])}, you gave '{safe_name(name)}'."
        raise field_error(ErrorCode.INVALID_MODEL_SIZE, "model_size", message)
    return dict(models.PRESETS[kind][name])


def _given_sizes(request: TrainRequest) -> dict[str, object]:
    """Return the model block, whose values win over the preset; raises AppError if it contradicts the family."""
    block = request.model or models.ModelBlock()
    given: dict[str, object] = block.model_dump(exclude_none=True)
    kind = architecture(request.model_family)
    if given.pop("architecture", kind) != kind:
        raise field_error(
            ErrorCode.INVALID_INPUT,
            "model.architecture",
            f"must be '{kind}' for model_family '{request.model_family}', you gave '{block.architecture}'.",
        )
    sizes = [name for name in models.ModelBlock.model_fields if name in models.CONFIGS[kind].model_fields]
    for field in given:
        if field not in sizes:
            message = f"is not a size of {kind}, which has {', '.join(sizes)}."
            raise field_error(ErrorCode.INVALID_INPUT, f"model.{field}", message)
    return given


def _check(effective: EffectiveRequest) -> None:
    """Refuse values that do not fit together: of documents, of devices, of row lengths, of learning rates."""
    for misfit in _misfits(effective):
        raise field_error(*misfit)


def _misfits(effective: EffectiveRequest) -> Iterator[tuple[ErrorCode, str, str]]:
    """Yield the code, the field and the message of each value that does not fit the others."""
    invalid, incompatible = ErrorCode.INVALID_INPUT, ErrorCode.MODEL_INCOMPATIBLE
    if effective.documents == "stream":
        if effective.objective == "masked_lm":
            yield incompatible, "documents", "must be 'line' for masked_lm: 'stream' is for causal_lm."
        check_newlines(effective.documents, effective.tokenizer.method)
        if effective.split_by == "line":
            message = "'stream' needs `split_by` 'position' or 'file': lines drawn at random are no stream."
            yield invalid, "documents", message
    if effective.devices > 1:
        yield from _misfits_of_devices(effective, effective.devices)
    model, longest = effective.model, effective.max_seq_len
    if isinstance(model, models.TransformerConfig) and longest > model.max_position_embeddings:
        message = (
            f"is {longest}, but `model.max_position_embeddings` is {model.max_position_embeddings}: make `max_seq_len`"
            " smaller or `model.max_position_embeddings` larger."
        )
        yield incompatible, "max_seq_len", message
    if effective.decay_ratio != DEFAULT_DECAY_RATIO and effective.lr_schedule != "wsd":
        message = f"has no effect with `lr_schedule` '{effective.lr_schedule}': leave it out, or take 'wsd'."
        yield invalid, "decay_ratio", message
    lowest, highest = effective.min_learning_rate, effective.learning_rate
    if lowest and effective.lr_schedule == "constant":
        message = "has no effect with `lr_schedule` 'constant': leave it out, or take 'linear', 'cosine' or 'wsd'."
        yield invalid, "min_learning_rate", message
    if lowest > highest:
        yield invalid, "min_learning_rate", f"is {lowest:g} but must not exceed `learning_rate`, which is {highest:g}."


def _misfits_of_devices(effective: EffectiveRequest, devices: int) -> Iterator[tuple[ErrorCode, str, str]]:
    invalid = ErrorCode.INVALID_INPUT
    if effective.device.startswith("cuda:"):
        yield invalid, "device", f"'{effective.device}' names one GPU, but `devices` is {devices}: give 'cuda'."
    if (rows := effective.batch_size) < devices:
        message = f"must be {devices} or more, you gave {rows}: each of the `devices` needs a row."
        yield invalid, "batch_size", message
    if effective.strategy == "fsdp" and not isinstance(effective.model, models.TransformerConfig):
        message = f"'fsdp' is for transformers, and {effective.model_family} is none: use 'ddp'."
        yield ErrorCode.MODEL_INCOMPATIBLE, "strategy", message


def tokenizer_of(request: TrainRequest, trained: TokenizerManifest | None) -> TokenizerConfig:
    """Return the config of a trained tokenizer, or of one to train, in the style of its model.

    Raises MODEL_INCOMPATIBLE; masked_lm needs a mask token.
    """
    objective = objective_of(request)
    if trained is not None:
        return _given_tokenizer(trained, request, objective)
    config = request.tokenizer or tokenizers.CONFIGS[models.default_tokenizer_method(request.model_family)]()
    is_masked = objective == "masked_lm"
    match config:
        case tokenizers.WordTokenizerConfig():
            if is_masked:
                raise field_error(
                    ErrorCode.MODEL_INCOMPATIBLE,
                    "tokenizer.method",
                    "must not be 'word': masked_lm needs a mask token, and words have none.",
                )
            return config
        case tokenizers.CharTokenizerConfig() | tokenizers.ByteTokenizerConfig():
            if is_masked and not config.mask_token and "mask_token" in config.model_fields_set:
                message = "must be true: masked_lm needs the token."
                raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "tokenizer.mask_token", message)
            return changed(config, mask_token=True) if is_masked else config
        case _:
            if config.special_style is not None:
                if is_masked and tokenizers.style_of(config) == "gpt2":
                    message = "must be 'gpt2_mask' or 'bert': masked_lm needs a mask token."
                    raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "tokenizer.special_style", message)
                return config
            style = "bert" if request.model_family == "bert" else "gpt2_mask" if is_masked else "gpt2"
            return changed(config, special_style=style)


def _given_tokenizer(tokenizer: TokenizerManifest, request: TrainRequest, objective: Objective) -> TokenizerConfig:
    """Return the config of a trained tokenizer; a warm start must keep the tokenizer of its parent."""
    if request.tokenizer_id not in (None, tokenizer.tokenizer_id):
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "tokenizer_id",
            f"is '{request.tokenizer_id}', but its parent run '{request.init_from_run_id}' has"
            f" '{tokenizer.tokenizer_id}': leave it out.",
        )
    if request.tokenizer not in (None, tokenizer.config):
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "tokenizer",
            f"differs from that of the parent run '{request.init_from_run_id}': leave it out.",
        )
    if request.documents != tokenizer.documents:
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "documents",
            f"is '{request.documents}', but the tokenizer '{tokenizer.tokenizer_id}' was trained with"
            f" '{tokenizer.documents}': give the same value, or take another tokenizer.",
        )
    if request.model_family == "char_lstm" and tokenizer.method != "char":
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "model_family",
            f"'char_lstm' takes a 'char' tokenizer only, and '{tokenizer.tokenizer_id}' is a"
            f" '{tokenizer.method}' tokenizer: take lstm.",
        )
    if objective == "masked_lm" and tokenizer.special_ids.mask is None:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"masked_lm needs a tokenizer with a mask token, which '{tokenizer.tokenizer_id}' has not: take"
            " another, or let the run make its own.",
        )
    return tokenizer.config


def halved_batch(rows: int, gradient_accumulation: int) -> tuple[int, int]:
    """Return half the rows per batch, and the gradient accumulation with which a step keeps at least its rows."""
    half = max(1, rows // 2)
    return half, -(-rows * gradient_accumulation // half)


class Bf16Trial(Frozen):
    """The result of trying bf16 on a CPU."""

    architecture: models.Architecture
    trains: bool
    gru_trains: bool
    """True if the CPU can train a GRU in bf16."""


def check_bf16(trial: Bf16Trial) -> None:
    """Raise INVALID_INPUT if the CPU cannot train the architecture in bf16."""
    if not trial.trains:
        instead = " GRU models work in bf16." if trial.gru_trains else ""
        raise field_error(
            ErrorCode.INVALID_INPUT,
            "precision",
            "must be 'fp32' or 'auto': this machine's CPU cannot train"
            f" {trial.architecture.upper()} models in bf16.{instead}",
        )


def check_precision(precision: str, *, on_cuda: bool) -> None:
    """Raise INVALID_INPUT for a precision that the device does not support."""
    if precision == "fp16" and not on_cuda:
        raise field_error(ErrorCode.INVALID_INPUT, "precision", "'fp16' needs CUDA: on the CPU take 'fp32' or 'auto'.")


def check_newlines(documents: DocumentMode, method: TokenizerMethod) -> None:
    """Raise MODEL_INCOMPATIBLE for a stream with a tokenizer that has no token for a newline."""
    if documents == "stream" and method == "sentencepiece":
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "documents",
            "'stream' needs a newline token, which 'sentencepiece' has not: take char, byte, word, bpe or wordpiece.",
        )
