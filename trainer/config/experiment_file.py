"""Experiment files: YAML with fields of the train request, read, and written for any run; plans of experiments."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import normpath

from trainer.config.experiment_blocks import corpus_path_errors, has_blocks, is_stated, read_blocks
from trainer.config.presets import OF_STEPS
from trainer.config.train_request import CORPORA, RequestDraft, override
from trainer.config.validation import block, decoded, did_you_mean, merged, parse, safe_name, unreadable
from trainer.config.yaml import MAX_BYTES, parse_yaml
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentRequest
from trainer.contracts.installation import PLAN_PREFIX, RECIPES, recipes
from trainer.contracts.models import ModelBlock
from trainer.contracts.runs import CorpusRef, RunRecord, TrainRequest
from trainer.contracts.studies import StudyRequest


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML mapping; raises CONFIG_INVALID with the line of the problem."""
    name = safe_name(path.name)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AppError(ErrorCode.CONFIG_INVALID, unreadable(path, error)) from None
    loaded = parse_yaml(decoded(data, f"'{name}'", ErrorCode.CONFIG_INVALID).removeprefix("\ufeff"), name)
    if not isinstance(loaded, dict):
        kind = "a list" if isinstance(loaded, list) else "empty" if loaded is None else "a single value"
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' must hold lines of `name: value`; it is {kind}.")
    return {str(name): value for name, value in loaded.items()}


def read_experiment(document: dict[str, object], options: Mapping[str, object]) -> RequestDraft:
    """Read an experiment file, in flat or block form; options replace its values."""
    if has_blocks(document):
        return read_blocks(document, options)
    errors = tuple(corpus_path_errors(document))
    return RequestDraft(override(document, options), errors, is_in_file=is_stated(document, options))


_NOT_WRITTEN = {"model_size", "tokenizer_saw_held_out", "has_auto_batch", "has_earlier_hash"}


def experiment_yaml(record: RunRecord) -> str:
    """Write a run as an experiment file, which gives a request with the same hash."""
    effective = record.effective
    fields: dict[str, object] = effective.model_dump(mode="json", exclude=_NOT_WRITTEN)
    for name in CORPORA:
        reference: CorpusRef | None = getattr(effective, name)
        fields[name] = None if reference is None else normpath(reference.name)
    model = block(fields, "model")
    unwritten = {"architecture"}
    if model.get("max_position_embeddings") == effective.max_seq_len:  # the default, whatever the length
        unwritten.add("max_position_embeddings")
    given = ModelBlock.model_fields.keys() - unwritten
    fields["model"] = {name: size for name, size in model.items() if name in given}
    if effective.model_family == "ngram":
        fields = {name: value for name, value in fields.items() if name not in OF_STEPS}
    elif effective.warmup_steps is None and effective.warmup_ratio is None:
        fields["warmup_steps"] = 0  # absent, a rule chooses them
    if effective.tokenizer_id is not None:
        fields.pop("tokenizer")
    if effective.counts_steps or effective.minutes is not None:  # `max_steps` or `minutes` alone gives it
        fields.pop("num_epochs", None)
    defaults: dict[str, object] = TrainRequest(model_family=effective.model_family, corpus="x").model_dump(mode="json")
    required = {"model_family", "corpus", "optimizer", "holdout_fraction", "test_fraction"}
    required |= {"split_by"} & record.request.model_fields_set  # makes the files of a folder one text
    written = {name: value for name, value in fields.items() if name in required or value != defaults[name]}
    return f"# The run {record.run_id}; absent fields have their defaults.\n" + "".join(_lines(written, ""))


def _lines(fields: Mapping[str, object], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:\n"
            yield from _lines(block(fields, name), f"{indent}  ")
        elif value is not None or name == "gradient_clipping":
            yield f"{indent}{name}: {_value(value)}\n"


def _value(value: object) -> str:
    """Write a value as JSON, which is YAML, with simple words unquoted."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[a-z][a-z0-9_]*", value) and value not in ("true", "false", "null"):
        return value
    escaped = (s if s.isprintable() and s not in '"\\' else f"\\U{ord(s):08x}" for s in value)
    return f'"{"".join(escaped)}"'


def request_path(file: Path) -> Path:
    """Return an experiment file, given by its path or as the name of a recipe such as `word_lstm_keyboard`."""
    recipe = RECIPES / f"{file.name}.yaml"
    return recipe if file.name == str(file) and not file.exists() and recipe.is_file() else file


def plan_path(plan: str) -> Path:
    """Return the file of a plan, given by its path or as the name of a recipe; raises CONFIG_INVALID."""
    if plan in recipes():
        return RECIPES / f"{PLAN_PREFIX}{plan}.yaml"
    if Path(plan).is_file():
        return Path(plan)
    known = recipes()
    near = did_you_mean(plan, known) or f"; the recipes are {', '.join(known)}."
    raise AppError(ErrorCode.CONFIG_INVALID, f"There is no plan '{safe_name(plan)}'{near}")


def read_plan(path: Path, options: Mapping[str, object], languages: Sequence[str] = ()) -> ExperimentRequest:
    """Read a plan, of which options replace values, and `languages` all languages.

    Raises CONFIG_INVALID naming every wrong field.
    """
    plan = merged(read_yaml(path), options)
    if languages:
        planned = block(plan, "languages")
        plan["languages"] = {code: planned.get(code, {}) for code in languages}
    return parse(ExperimentRequest, plan, ErrorCode.CONFIG_INVALID)


def read_study(path: Path | None, options: Mapping[str, object]) -> StudyRequest:
    """Read the file of a study, of which options replace values; without one, the options are all.

    Raises CONFIG_INVALID naming every wrong field, and INVALID_INPUT without a file.
    """
    fields = dict(options) if path is None else merged(read_yaml(path), options)
    return parse(StudyRequest, fields, ErrorCode.INVALID_INPUT if path is None else ErrorCode.CONFIG_INVALID)
