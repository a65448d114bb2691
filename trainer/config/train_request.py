"""Drafts of train requests: fields from options and files, merged, checked, and their problems located."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, get_args

from pydantic_core import to_json

from trainer.config.validation import block, combined, format_value, merged, parse, safe_name, value_at
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, field_error, refusal
from trainer.contracts.models import PRESETS, ModelFamily, default_tokenizer_method
from trainer.contracts.runs import LENGTHS, Setting, TrainRequest
from trainer.contracts.seeds import read_seeds
from trainer.contracts.studies import SET_BY_STUDY, StudyRequest
from trainer.contracts.tokenizers import METHODS, TokenizerManifest

_FAMILIES: tuple[ModelFamily, ...] = get_args(ModelFamily)
_MAX_STUDY_NAME = 32
_QUICK_MINUTES = 0.5
CORPORA = ("corpus", "validation_corpus", "test_corpus")
_REPLACED_BY = {
    "tokenizer": ("tokenizer_id",),
    "tokenizer_id": ("tokenizer",),
    "init_from_run_id": ("tokenizer", "tokenizer_id"),
    **dict.fromkeys(LENGTHS, ("minutes",)),
    "max_steps": ("minutes", "num_epochs"),
    "minutes": LENGTHS,
    "warmup_steps": ("warmup_ratio",),
    "warmup_ratio": ("warmup_steps",),
    "model_family": ("model.architecture",),
}
"""Fields of a file that an option replaces, besides the option's own field."""


class RequestOption(NamedTuple):
    """An option: the field it sets and a description of at most 100 characters, as Discord allows."""

    field: str
    help: str


TRAIN_OPTIONS = {
    "corpus": RequestOption("corpus", "Name of the corpus to train on; on the command line also the path of a file"),
    "model": RequestOption("model_family", "Model family: char_lstm, lstm, gru, rnn, gpt2, llama, qwen, bert or ngram"),
    "size": RequestOption("model_size", "Preset of the model's sizes, such as tiny, small or base"),
    "epochs": RequestOption("num_epochs", "Passes over the training split"),
    "max_steps": RequestOption("max_steps", "Stop after this many optimizer steps"),
    "quick": RequestOption("minutes", "A first model in half a minute; without it a good one, which takes minutes"),
    "minutes": RequestOption("minutes", "Minutes that the run takes: they choose size, steps and batch"),
    "search": RequestOption("search", "Start a study of so many settings of learning rate and dropout"),
    "batch_size": RequestOption("batch_size", "Rows per batch, or auto"),
    "learning_rate": RequestOption("learning_rate", "Learning rate at its highest"),
    "tokenizer": RequestOption("tokenizer", f"{', '.join(METHODS)}, or the id of a trained tokenizer"),
    "seed": RequestOption("seed", "Seed of every random choice but the splits"),
    "seeds": RequestOption("seeds", "A run for each of N seeds from `seed` on, or for each of these seeds: 1,2,3"),
    "name": RequestOption("label", "Name of the run; default: corpus and model"),
    "init_from": RequestOption("init_from_run_id", "Completed run to take the initial weights and the tokenizer from"),
    "freeze_embeddings": RequestOption("freeze_embeddings", "Do not train the embedding taken over by init_from"),
    "devices": RequestOption(
        "devices", "Processes that train together, each on its own GPU or share of the CPU threads"
    ),
    "early_stopping": RequestOption("early_stopping", "Stop after this many evaluations without improvement; 0: off"),
}
"""Every option by its name on Discord; the command line writes hyphens for underscores."""


def request_fields(options: Mapping[str, object]) -> dict[str, object]:
    """Return the request fields that options set; an option that is None sets none.

    A tokenizer that is a method name sets `tokenizer.method`, any other name sets `tokenizer_id`. A patience of 0
    turns early stopping off. Seeds are text: `5`, or `1,2,3`. `quick` is a number of minutes, unless these are given.
    """
    fields: dict[str, object] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name == "tokenizer":
            is_method = value in METHODS
            fields["tokenizer" if is_method else "tokenizer_id"] = {"method": value} if is_method else value
        elif name == "early_stopping":
            fields["early_stopping"] = {"enabled": True, "patience": value} if value else {"enabled": False}
        elif name == "quick":
            fields |= {"minutes": fields.get("minutes", _QUICK_MINUTES)} if value else {}
        elif name == "seeds":
            fields["seeds"] = read_seeds(str(value))
        else:
            fields[TRAIN_OPTIONS[name].field] = value
    return fields


def study_name(text: str) -> str:
    """Return the name of a study that is called after a label or a corpus; that of a sent text is its hash."""
    is_hash = re.fullmatch("[0-9a-f]{64}", text) is not None
    return "study" if is_hash else re.sub("[^a-z0-9-]", "-", text.lower())[:_MAX_STUDY_NAME].strip("-") or "study"


class RequestDraft(NamedTuple):
    """Fields of a train request before they are checked, with the places where they were given."""

    fields: dict[str, object]
    errors: tuple[AppError, ...] = ()
    """Problems found when the file was read."""
    requested_paths: tuple[str, ...] | None = None
    """Output folders that the file names; recorded only."""
    unused_settings: Mapping[str, Setting] = MappingProxyType({})
    """Settings of the file without effect, by path; recorded only."""
    place: Callable[[str], str] = str
    """Returns the path in the file of a field of the request."""
    is_in_file: Callable[[str], bool] | None = None
    """Tells if the file has a value at a path that no option replaces; None without a file."""

    def study(self) -> StudyRequest | None:
        """Return the study that `search` starts over the draft; None for a training without `search`.

        Raises one AppError with the problems of the file, or INVALID_INPUT for a wrong number.
        """
        train = dict(self.fields)
        variants = train.pop("search", None)
        if variants is None:
            return None
        if self.errors:
            raise self.combined(self.errors)
        label, seed = str(train.pop("label", None) or train.get("corpus", "")), train.pop("seed", None)
        for field in SET_BY_STUDY:
            if train.get(field) in (None, False):  # as files in blocks have them
                train.pop(field, None)
        name = study_name(label)
        seeded = {} if seed is None else {"seed": seed}
        try:
            return parse(StudyRequest, {"name": name, "train": train, "variants": variants, **seeded})
        except AppError as error:
            problems = (one.named("search" if one.path == "variants" else one.path) for one in error.details)
            raise refusal(error.code, *problems) from None

    def with_family(self, parent: ModelFamily | None) -> "RequestDraft":
        """Add the default model family, if neither options nor a flat file name one."""
        if self.place("model_family") != "model_family":
            return self
        return self._replace(fields=with_family(self.fields, parent))

    def located(self, error: AppError, field: str = "") -> AppError:
        """Return the error with each problem at the place where its field was given; `field` is for a single one."""
        problems = error.details or (FieldProblem(path=field, message=error.message.removesuffix(".")),)
        return refusal(error.code, *(self._located(problem) for problem in problems))

    def _located(self, problem: FieldProblem) -> FieldProblem:
        place, given = self.place(problem.path), value_at(self.fields, problem.path)
        value = problem.value or (None if given is None else format_value(given))
        if problem.around_name is None and place not in ("", "corpus"):
            return FieldProblem.of(place, f": {problem.message}", value=value, allowed=problem.allowed)
        return changed(problem.named(place), value=value)

    def combined(self, errors: Sequence[AppError]) -> AppError:
        """Combine errors into one."""
        return combined(errors, ErrorCode.INVALID_INPUT if self.is_in_file is None else ErrorCode.CONFIG_INVALID)

    def request(self) -> TrainRequest:
        """Return the request; raises one AppError with all problems."""
        errors = list(self.errors)
        request: TrainRequest | None = None
        try:
            request = train_request(self.fields)
        except AppError as error:
            located = self.located(error)
            if located.code is ErrorCode.INVALID_INPUT and any(map(self._is_of_file, problem_paths([error]))):
                located = refusal(ErrorCode.CONFIG_INVALID, *located.details)
            errors += without_problems_at(problem_paths(errors), located)
        if request is None or errors:
            raise self.combined(errors)
        return request

    def _is_of_file(self, path: str) -> bool:
        place = self.place(path)
        return place != path or (self.is_in_file is not None and self.is_in_file(place))


def problem_paths(errors: Sequence[AppError]) -> list[str]:
    return [problem.path for error in errors for problem in error.details if problem.path]


def without_problems_at(paths: Sequence[str], error: AppError) -> list[AppError]:
    """Drop the problems at or below the given paths; return no error if none is left."""
    problems = [
        problem
        for problem in error.details
        if not any(problem.path == path or problem.path.startswith(f"{path}.") for path in paths)
    ]
    return [refusal(error.code, *problems)] if problems else []


def override(fields: Mapping[str, object], options: Mapping[str, object]) -> dict[str, object]:
    """Merge options over the fields of a file, without the fields that an option of another name replaces."""
    replaced = {name for option, names in _REPLACED_BY.items() if options.get(option) is not None for name in names}
    if options.get("model_size") is not None:
        replaced |= {f"model.{name}" for name in _preset(merged(fields, options))}
    left = {name: value for name, value in fields.items() if name not in replaced}
    if isinstance(left.get("model"), Mapping):
        left["model"] = {name: value for name, value in block(left, "model").items() if f"model.{name}" not in replaced}
    return merged(left, options)


def _preset(fields: Mapping[str, object]) -> Mapping[str, int | float | str]:
    """Return the sizes of the preset that the fields name; empty if they name none."""
    family = with_family(fields)["model_family"]
    architecture = "lstm" if family == "char_lstm" else family
    presets = next((presets for name, presets in PRESETS.items() if name == architecture), {})
    return next((preset for name, preset in presets.items() if name == fields.get("model_size")), {})


def train_request(fields: dict[str, object]) -> TrainRequest:
    """Check the fields of a train request.

    Raises UNSUPPORTED_BACKEND or INVALID_INPUT with every problem. `resolve_request` checks whether they fit together.
    """
    fields = _with_method(fields)
    missing = [*not_available(fields, "model_family", _FAMILIES), *not_available(fields, "tokenizer.method", METHODS)]
    try:
        return parse(TrainRequest, fields)
    except AppError as error:
        others = [problem for problem in error.details if problem.path not in problem_paths(missing)]
        raise combined([*missing, *([refusal(error.code, *others)] if others else [])], error.code) from error


def with_family(fields: Mapping[str, object], parent: ModelFamily | None = None) -> dict[str, object]:
    """Add the model family if absent: `model.architecture`, or the family of the parent run, or char_lstm."""
    family: object = value_at(fields, "model.architecture") or parent or "char_lstm"
    return {"model_family": family, **fields}


def _with_method(fields: dict[str, object]) -> dict[str, object]:
    """Add the family's default method to tokenizer options that name none."""
    options = fields.get("tokenizer")
    for family in _FAMILIES:
        if family == fields.get("model_family") and isinstance(options, Mapping) and "method" not in options:
            tokenizer: dict[str, object] = {"method": default_tokenizer_method(family), **options}
            return {**fields, "tokenizer": tokenizer}
    return fields


def with_stored_tokenizer(request: TrainRequest, label: str, manifest: TokenizerManifest) -> TrainRequest:
    """Return the request with the stored tokenizer of a label in place of its tokenizer block.

    Raises MODEL_INCOMPATIBLE if the stored tokenizer differs from the block.
    """
    block = request.tokenizer
    for name in () if block is None else block.model_fields_set:
        wanted: object = getattr(block, name)
        has: object = getattr(manifest.config, name, None)
        is_cap = name == "vocab_size" and has is None and isinstance(wanted, int) and manifest.vocab_size <= wanted
        if wanted != has and not is_cap:
            raise field_error(
                ErrorCode.MODEL_INCOMPATIBLE,
                f"tokenizer.{name}",
                f"is {to_json(wanted).decode()}, but the tokenizer '{manifest.tokenizer_id}', which"
                f" has the label '{label}', was trained with {to_json(has).decode()}: give the same value, or name"
                " another tokenizer folder.",
            )
    return changed(request, tokenizer=None, tokenizer_id=manifest.tokenizer_id)


def not_available(fields: Mapping[str, object], path: str, available: Sequence[str]) -> list[AppError]:
    """Return an UNSUPPORTED_BACKEND error if the name at a path is not among the available ones, else nothing."""
    name = value_at(fields, path)
    if not isinstance(name, str) or name in available:
        return []
    allowed = ", ".join(f"'{one}'" for one in available)
    allowed = f"one of {allowed}" if len(available) > 1 else allowed
    problem = FieldProblem.of(
        path, f" '{safe_name(name)}' is not available; it must be {allowed}", value=format_value(name), allowed=allowed
    )
    return [refusal(ErrorCode.UNSUPPORTED_BACKEND, problem)]
