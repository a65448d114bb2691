"""The YAML form of a training: read onto the fields of the one train request, and written back from any run's."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from posixpath import normpath
from types import MappingProxyType, NoneType
from typing import NamedTuple, Protocol, get_args

from ruamel.yaml import YAML
from ruamel.yaml.nodes import Node
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from trainer.config.experiment_schema import (
    LOGS,
    BertBlock,
    ExperimentConfig,
    RnnBlock,
    TransformerBlock,
    relative_path,
)
from trainer.config.nested_dict import block, difference, merged, put, says, value_at
from trainer.config.train_request import not_available, train_request, with_family
from trainer.config.yaml import MOST_BYTES, parse_yaml
from trainer.contracts.base import changed
from trainer.contracts.compatibility import architecture
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.models import CONFIGS, PRESETS, Architecture, ModelFamily, TransformerConfig
from trainer.contracts.runs import CheckpointRule, CorpusRef, RunRecord, Setting, TrainRequest
from trainer.contracts.validation import combined, parse, refusal, shown_name, shown_value

_ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
_METHOD_OF = {
    "sentencepiece": "sentencepiece",
    "wordpiece": "wordpiece",
    "bpe": "bpe",
    "character": "char",
    "word": "word",
}
CORPORA = ("corpus", "validation_corpus", "test_corpus")
_NESTED = {
    "rnn": "model: {architecture: lstm, rnn: {embedding_size: 128, hidden_size: 256, num_layers: 2}}",
    "transformer": "model: {architecture: gpt2, transformer: {layers: 2, embedding_size: 64, hidden_size: 64,"
    " intermediate_hidden_size: 256, attention_heads: 2, dropout: 0.1, attention_dropout: 0.1}}",
}

_PLACES = {
    "model_family": "model.architecture",
    "label": "experiment_name",
    "seed": "random_seed",
    "corpus": "data.training_corpus",
    "validation_corpus": "data.validation_corpus",
    "test_corpus": "data.test_corpus",
    "provenance.source_corpus": "data.source_corpus",
    "batch_size": "data.batch_size",
    "max_seq_len": "data.max_sequence_length",
    "tokenizer.method": "tokenizer.tokenizer_type",
    "tokenizer.vocab_size": "tokenizer.vocab_size",
    "tokenizer.special_tokens": "tokenizer.special_tokens",
    "objective": "training.objective",
    "mlm_probability": "training.mlm_probability",
    "learning_rate": "training.learning_rate",
    "optimizer.betas.0": "training.adam_beta1",
    "optimizer.betas.1": "training.adam_beta2",
    "optimizer.eps": "training.adam_epsilon",
    "num_epochs": "training.epochs",
    "max_steps": "training.train_steps",
    "warmup_steps": "training.warmup_steps",
    "warmup_ratio": "training.warmup_ratio",
    "gradient_accumulation": "training.gradient_accumulation_steps",
    "gradient_clipping": "training.max_grad_norm",
    "precision": "training.use_amp",
    "compute.gradient_checkpointing": "training.use_gradient_checkpointing",
    "compute.tf32": "training.use_tf32",
    "resume": "training.resume_from_checkpoint",
    "checkpoint_schedule": "training.checkpoint_schedule",
    **{f"checkpoint_schedule.{name}": f"training.{name}" for name in CheckpointRule.model_fields},
    "log_every_steps": "logging.log_metrics_every_n_steps",
    "logging.level": "logging.level",
}
"""Where a file says what a field of the train request says, the sizes of the model apart."""

_NAMES = {
    "layers": "num_layers",
    "attention_heads": "num_attention_heads",
    "intermediate_hidden_size": "intermediate_size",
    "tied": "tie_word_embeddings",
}
"""Sizes that the blocks name otherwise than requests."""
_SIZE_PLACES = {
    "rnn": {
        f"model.{_NAMES.get(name, name)}": f"model.rnn.{name}" for name in RnnBlock.model_fields if name != "rnn_type"
    },
    "transformer": {
        **{
            f"model.{_NAMES.get(name, name)}": f"model.transformer.{name}"
            for name in TransformerBlock.model_fields
            if name != "embedding_size"
        },
        **{f"model.{name}": f"model.bert.{name}" for name in BertBlock.model_fields},
    },
}

_SENTENCES = {
    "dataset_manipulation": "is not supported: it must be []",
    "logging.use_wandb": "must be false: the tracker wandb is not installed",
}
"""What is said of a field that can only have one value yet."""

_REPLACES = {
    "tokenizer": ("tokenizer_id",),
    "tokenizer_id": ("tokenizer",),
    "init_from_run_id": ("tokenizer", "tokenizer_id"),
    "warmup_steps": ("warmup_ratio",),
    "warmup_ratio": ("warmup_steps",),
    "model_family": ("model.architecture",),
}
"""Which fields of a file lose their meaning when another one is typed beside the file, what a preset says apart."""

_USED_OF_LOGGING = {"level", "log_metrics_every_n_steps", "use_wandb"}


class Experiment(NamedTuple):
    """A training as it was asked for: the fields of its request, and what is wrong with them so far."""

    fields: dict[str, object]
    errors: tuple[AppError, ...] = ()
    requested_paths: tuple[str, ...] | None = None
    """The output folders that a file names: recorded, never used, since a run has its own directory."""
    unused_settings: Mapping[str, Setting] = MappingProxyType({})
    """What a file says that has no effect here, by path: recorded too."""
    place: Callable[[str], str] = str
    """Where a field of the request was given: its path in the file, if it came from one."""
    file_says: Callable[[str], bool] | None = None
    """Tell if the file says something at a path that nothing typed replaces; None without a file."""

    def with_family(self, parent: ModelFamily | None) -> "Experiment":
        """Name the family where neither the file nor the options do; a file of blocks has to name it itself."""
        if self.place("model_family") != "model_family":
            return self
        return self._replace(fields=with_family(self.fields, parent))

    def located(self, error: AppError, field: str = "") -> AppError:
        """The same error with each problem at the place where its field was given; the whole may be of one field."""
        if not field and error.message.startswith("`"):
            field = error.message.split("`")[1]
        elif not field and error.code is ErrorCode.TOKENIZER_NOT_FOUND:
            field = "tokenizer_id"
        path = field if field.split(".")[0] in TrainRequest.model_fields else ""
        said = error.message.replace("`corpus`", f"`{path}`") if path in CORPORA else error.message
        problems = error.details or (FieldProblem(path=path, message=said.removesuffix(".")),)
        return refusal(error.code, *(self._placed(problem) for problem in problems))

    def _placed(self, problem: FieldProblem) -> FieldProblem:
        place = self.place(problem.path)
        given = value_at(self.fields, problem.path)
        message = problem.message.replace(f"`{problem.path}`", f"`{place}`")
        is_named = place in ("", "corpus") or f"`{place}`" in message
        return changed(
            problem,
            path=place,
            message=message if is_named else f"`{place}`: {message}",
            value=problem.value or (None if given is None else shown_value(given)),
        )

    def _is_of_file(self, path: str) -> bool:
        place = self.place(path)
        return place != path or (self.file_says is not None and self.file_says(place))

    def combined(self, errors: Sequence[AppError]) -> AppError:
        """One error of them all."""
        return combined(errors, ErrorCode.INVALID_INPUT if self.file_says is None else ErrorCode.CONFIG_INVALID)

    def request(self) -> TrainRequest:
        """The request that it stands for; raises all that is wrong."""
        found = list(self.errors)
        request: TrainRequest | None = None
        try:
            request = train_request(self.fields)
        except AppError as error:
            in_file = any(self._is_of_file(path) for path in _paths([error]))
            told = self.located(error)
            if in_file and told.code is ErrorCode.INVALID_INPUT:
                told = refusal(ErrorCode.CONFIG_INVALID, *told.details)
            found += _besides(_paths(found), told)
        if request is None or found:
            raise self.combined(found)
        return request


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML mapping; raises CONFIG_INVALID naming what is wrong in which line."""
    name = shown_name(path.name)
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8-sig")
    except FileNotFoundError:
        raise AppError(ErrorCode.CONFIG_INVALID, f"There is no file '{name}'.") from None
    except OSError:
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is no file that can be read.") from None
    except UnicodeDecodeError as error:
        raise AppError(
            ErrorCode.CONFIG_INVALID, f"'{name}' is not UTF-8: byte {error.start:,} cannot be decoded."
        ) from None
    loaded = parse_yaml(text, name)
    if not isinstance(loaded, dict):
        kind = "a list" if isinstance(loaded, list) else "empty" if loaded is None else "a single value"
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' must hold lines of `name: value`; it is {kind}.")
    return {str(name): value for name, value in loaded.items()}


def read_experiment(document: dict[str, object], typed: Mapping[str, object]) -> Experiment:
    """Map an experiment file onto the fields of a train request; what was typed beside the file wins over it.

    A file has any fields of a train request under their own names, or all blocks of ExperimentConfig.
    """
    if not _has_blocks(document):
        fields = merged(_without_replaced(document, typed), typed)
        return Experiment(fields, tuple(_path_errors(document, "")), file_says=_file_says(document, typed))
    run = block(document, "run")
    own = merged(run, typed)
    places = _places(value_at(document, "model.architecture"))
    errors, settled = _model_errors(document.get("model"))
    errors += _other_errors(document, own)
    source: dict[str, object] = document
    requested_paths: tuple[str, ...] | None = None
    unused_settings: dict[str, Setting] = {}
    try:
        config = parse(ExperimentConfig, document, ErrorCode.CONFIG_INVALID)
    except AppError as error:
        errors += _besides([*_paths(errors), *settled], refusal(error.code, *map(_in_better_words, error.details)))
    else:
        source = config.model_dump(mode="json")
        requested_paths = (config.tokenizer.output_dir, config.training.output_dir, config.logging.dir)
        settings: dict[str, Setting] = config.logging.model_dump(exclude_unset=True, exclude=_USED_OF_LOGGING)
        unused_settings = {"training.output_dir": config.training.output_dir}
        unused_settings |= {f"logging.{name}": value for name, value in settings.items()}

    def place(path: str) -> str:
        if says(typed, path):
            return path
        if says(run, path):
            return f"run.{path}"
        block_path, _, last = path.rpartition(".")
        of_block = f"{places[block_path]}.{last}" if block_path in places else path  # an item of a list
        return places.get(path, of_block)

    said = merged(_implied(source, own, places), run)
    fields = merged(_without_replaced(said, typed), typed)
    file_says = _file_says(document, typed)
    return Experiment(fields, tuple(errors), requested_paths, unused_settings, place, file_says)


def _has_blocks(document: Mapping[str, object]) -> bool:
    """Tell if a file has blocks; `tokenizer`, `model` and `logging` are names of fields too."""
    if (ExperimentConfig.model_fields.keys() - TrainRequest.model_fields.keys()) & document.keys():
        return True
    of_blocks = ("tokenizer.tokenizer_type", "tokenizer.output_dir", "model.rnn", "model.transformer", "model.bert")
    return any(value_at(document, path) is not None for path in of_blocks)


def _file_says(document: Mapping[str, object], typed: Mapping[str, object]) -> Callable[[str], bool]:
    return lambda path: says(document, path) and not says(typed, path)


def _without_replaced(fields: Mapping[str, object], typed: Mapping[str, object]) -> dict[str, object]:
    """The fields of a file without those that a typed field of another name replaces."""
    replaced = {name for given, names in _REPLACES.items() if typed.get(given) is not None for name in names}
    preset = _preset(merged(fields, typed))
    said = {*preset, "embedding_size"} if preset else set[str]()  # of a transformer it is the hidden size
    if typed.get("model_size") is not None:
        replaced |= {f"model.{name}" for name in said}
    left = {name: value for name, value in fields.items() if name not in replaced}
    if isinstance(left.get("model"), Mapping):
        left["model"] = {name: value for name, value in block(left, "model").items() if f"model.{name}" not in replaced}
    if block(typed, "model").keys() & said and "model_size" not in typed:  # the others stay those of the file's preset
        left["model"] = {**preset, **block(left, "model")}
        left.pop("model_size", None)
    return left


def _preset(fields: Mapping[str, object]) -> Mapping[str, int | float | str]:
    """The sizes of the preset that these fields name; none where they name none."""
    family = with_family(fields)["model_family"]
    kind = "lstm" if family == "char_lstm" else family
    sizes = next((presets for name, presets in PRESETS.items() if name == kind), {})
    return next((preset for name, preset in sizes.items() if name == fields.get("model_size")), {})


def experiment_yaml(record: RunRecord) -> str:
    """Write what a run does as an experiment file; read again, it is a request with the same hash."""
    effective = record.effective
    actual: dict[str, object] = effective.model_dump(
        mode="json", exclude={"model_size": True, "model_family": True, "model": {"architecture"}}
    )
    if (
        value_at(actual, "model.max_position_embeddings") == effective.max_seq_len
    ):  # as it is where nothing is said of them
        put(
            actual,
            "model",
            {name: size for name, size in block(actual, "model").items() if name != "max_position_embeddings"},
        )
    for field in CORPORA:
        reference: CorpusRef | None = getattr(effective, field)
        actual[field] = None if reference is None else normpath(reference.name)
    document = _blocks(actual, record)
    run = {name: actual[name] for name in ("tokenizer_id", "init_from_run_id") if actual[name] is not None}
    unsaid = {"tokenizer"} if run else set[str]()
    unsaid |= {name for name in ("label", "provenance") if actual[name] is None}
    if effective.optimizer.name != "adamw":
        run["optimizer"] = {"name": effective.optimizer.name}
    request = train_request(read_experiment({**document, "run": run}, {}).fields)
    implied: dict[str, object] = request.model_dump(mode="json")
    left = difference({name: value for name, value in actual.items() if name not in unsaid}, implied)
    return _written(record, {**document, "run": merged(run, left)})


def _places(chosen: object) -> dict[str, str]:
    """Where a file of this architecture says what a field of the train request says."""
    return _PLACES | _SIZE_PLACES[_block_of(chosen)]


def _block_of(chosen: object) -> str:
    attends = [name for name, config in CONFIGS.items() if issubclass(config, TransformerConfig)]
    return "transformer" if chosen in attends else "rnn"


def _implied(source: Mapping[str, object], own: Mapping[str, object], places: Mapping[str, str]) -> dict[str, object]:
    """What the blocks of a file say, as fields of a request; `own` are the fields given under their own names."""
    fields: dict[str, object] = {"lr_schedule": "linear"}
    for field, place in places.items():
        if says(source, place) and not (field.startswith("model.") and value_at(source, place) is None):
            put(fields, field, _translated(field, value_at(source, place)))
    fields["checkpoint_schedule"] = _schedule(block(source, "training"))
    betas = block(fields, "optimizer").get("betas")
    if isinstance(betas, dict):
        put(fields, "optimizer.betas", [betas.get("0"), betas.get("1")])
    if value_at(own, "optimizer.name") == "sgd":  # which has none of what the blocks say of Adam
        fields.pop("optimizer", None)
    if {"warmup_steps", "warmup_ratio"} & set(own):
        unsaid = {"warmup_steps", "warmup_ratio"}
    else:
        unsaid = {"warmup_steps"} if fields.get("warmup_steps") is None else {"warmup_ratio"}
    if _has_tokenizer(own):
        unsaid.add("tokenizer")
    return {name: value for name, value in fields.items() if name not in unsaid}


def _translated(field: str, value: object) -> object:
    if field == "tokenizer.method":
        return _METHOD_OF.get(value, value) if isinstance(value, str) else value
    if field == "precision":
        return "auto" if value is True else "fp32"
    return value


def _schedule(training: Mapping[str, object]) -> object:
    if training.get("auto_generate_checkpoints") is True:
        return {name: training[name] for name in CheckpointRule.model_fields if name in training}
    return training.get("checkpoint_schedule") or None


def _has_tokenizer(own: Mapping[str, object]) -> bool:
    """Whether a request names a tokenizer that is there: then the tokenizer block is for none."""
    return any(own.get(name) is not None for name in ("tokenizer_id", "init_from_run_id"))


def _model_errors(model: object) -> tuple[list[AppError], list[str]]:
    """What people get wrong most often (MF-03, MF-51, MF-56), and the paths of which it says all that is to be said."""
    if not isinstance(model, dict):
        return [], []
    errors: list[AppError] = []
    chosen: object = model.get("architecture")
    if chosen is None:
        listed = ", ".join(_ARCHITECTURES)
        said = f"Missing required field 'architecture' in model config. Must be one of: {listed}"
        errors.append(_error("model.architecture", said, allowed=f"one of {listed}"))
    elif missing := not_available({"model": model}, "model.architecture", _ARCHITECTURES):
        return missing, ["model"]
    wanted = _block_of(chosen)
    nested = _NESTED[wanted]
    if isinstance(chosen, str):
        nested = nested.replace("lstm", chosen).replace("gpt2", chosen)
    flat = [name for name in (*RnnBlock.model_fields, *TransformerBlock.model_fields) if name in model]
    if flat:
        said = f"`model.{flat[0]}` stands beside the architecture; write the sizes under `model.{wanted}`: {nested}"
        errors.append(_error(f"model.{flat[0]}", said, value=model[flat[0]], allowed=nested))
    elif wanted not in model and chosen is not None:
        said = f"`model.{wanted}` is missing; write the sizes under it: {nested}"
        errors.append(_error(f"model.{wanted}", said, allowed=nested))
    others = [name for name in ("rnn", "transformer") if name != wanted] + ([] if chosen == "bert" else ["bert"])
    for other in [name for name in others if name in model and chosen is not None]:
        said = f"`model.{other}` belongs to another architecture: {chosen} takes `model.{wanted}`"
        errors.append(_error(f"model.{other}", said))
        flat.append(other)
    embedding, hidden = (value_at(model, f"transformer.{name}") for name in ("embedding_size", "hidden_size"))
    if isinstance(embedding, int) and isinstance(hidden, int) and embedding != hidden:
        said = f"`model.transformer.embedding_size` must equal `hidden_size`, {hidden}, you gave {embedding}"
        errors.append(_error("model.transformer.embedding_size", said, value=embedding, allowed=str(hidden)))
    rnn_type = value_at(model, "rnn.rnn_type")
    if isinstance(rnn_type, str) and isinstance(chosen, str) and rnn_type != chosen:
        said = f"`model.rnn.rnn_type` must equal the architecture, '{chosen}', you gave {shown_value(rnn_type)}"
        errors.append(_error("model.rnn.rnn_type", said, value=rnn_type, allowed=f"'{chosen}'"))
    settled = [f"model.{name}" for name in flat] + ([] if wanted in model else [f"model.{wanted}"])
    return errors, settled


def _other_errors(document: Mapping[str, object], own: Mapping[str, object]) -> Iterator[AppError]:
    """What cannot be trained, or contradicts itself, though each value may stand where it is."""
    run = block(document, "run")
    precision, use_amp = run.get("precision"), value_at(document, "training.use_amp")
    if isinstance(precision, str) and isinstance(use_amp, bool) and use_amp == (precision == "fp32"):
        shown = shown_value(use_amp)
        said = f"`run.precision` '{shown_name(precision)}' contradicts `training.use_amp` {shown}: give one of both"
        allowed = "'auto', 'fp16' or 'bf16'" if use_amp else "'fp32'"
        yield _error("run.precision", said, value=precision, allowed=allowed)
    if value_at(document, "training.auto_generate_checkpoints") is True:
        steps = value_at(document, "training.checkpoint_schedule")
        if steps not in (None, []):
            said = "`training.auto_generate_checkpoints` contradicts `training.checkpoint_schedule`: give one of both"
            yield _error("training.auto_generate_checkpoints", said, value=True, allowed="false")
    yield from _path_errors(run, "run.")


def _path_errors(fields: Mapping[str, object], block_path: str) -> Iterator[AppError]:
    """A file names texts by relative paths only."""
    for field in CORPORA:
        name, path = fields.get(field), f"{block_path}{field}"
        try:
            relative_path(name if isinstance(name, str) else "none")
        except ValueError as error:
            allowed = str(error).removeprefix("must be ")
            yield _error(path, f"`{path}` {error}", value=name, allowed=allowed)


def _in_better_words(problem: FieldProblem) -> FieldProblem:
    sentence = _SENTENCES.get(problem.path)
    if problem.path in TrainRequest.model_fields and problem.message.startswith("unknown field"):
        sentence = "is a field of the train request: in a file with blocks write it under `run`"
    return problem if sentence is None else _reworded(problem, sentence)


def _reworded(problem: FieldProblem, sentence: str) -> FieldProblem:
    return changed(problem, message=f"`{problem.path}` {sentence}")


def _error(path: str, message: str, *, value: object = None, allowed: str | None = None) -> AppError:
    shown = None if value is None else shown_value(value)
    return refusal(ErrorCode.CONFIG_INVALID, FieldProblem(path=path, message=message, value=shown, allowed=allowed))


def _paths(errors: Sequence[AppError]) -> list[str]:
    return [problem.path for error in errors for problem in error.details if problem.path]


def _besides(told: Sequence[str], error: AppError) -> list[AppError]:
    """An error without its problems at or below paths of which something was said already: none, if none is left."""
    problems = [
        problem
        for problem in error.details
        if not any(problem.path == path or problem.path.startswith(f"{path}.") for path in told)
    ]
    return [refusal(error.code, *problems)] if problems else []


def _blocks(actual: Mapping[str, object], record: RunRecord) -> dict[str, object]:
    """An experiment file with all that its blocks can say of a request; they need a value even where it has none."""
    folders = record.requested_paths or (f"tokenizers/{record.run_id}", f"models/{record.run_id}", LOGS)
    effective = record.effective
    document: dict[str, object] = {}
    for place, value in {
        "experiment_name": re.sub(r"[^A-Za-z0-9_.-]+", "-", effective.label or "").strip("-") or record.run_id,
        "random_seed": effective.seed,
        "data.source_corpus": actual["corpus"],
        "data.training_corpus": actual["corpus"],
        "data.batch_size": 8,
        "tokenizer.output_dir": folders[0],
        "tokenizer.tokenizer_type": next(kind for kind, m in _METHOD_OF.items() if m == effective.tokenizer.method),
        "tokenizer.vocab_size": 1000,
        "model.architecture": architecture(effective.model_family),
        "training.output_dir": folders[1],
        "training.adam_beta1": 0.9,
        "training.adam_beta2": 0.999,
        "training.adam_epsilon": 1e-8,
        "training.use_amp": effective.precision != "fp32",
        "training.auto_generate_checkpoints": isinstance(effective.checkpoint_schedule, CheckpointRule),
    }.items():
        put(document, place, value)
    if isinstance(effective.model, TransformerConfig):
        put(document, "model.transformer.embedding_size", effective.model.hidden_size)
    if folders[2] != LOGS:
        put(document, "logging.dir", folders[2])
    betas = effective.optimizer.betas
    stated = {"model_family", "label", "tokenizer.method", "precision"}
    for field, place in _places(effective.model.architecture).items():
        value = value_at(actual, field) if betas is None or "betas" not in field else betas[int(field[-1])]
        if field not in stated and value not in (None, "auto") and not isinstance(value, dict):
            put(document, place, value)
    return document


def _written(record: RunRecord, document: Mapping[str, object]) -> str:
    writer = YAML()
    representer: _Representer = writer.representer
    representer.add_representer(NoneType, _null)
    text = StringIO()
    writer.dump(_quoted(document), text)
    head = f"# What the run {record.run_id} does; what stands under `run` wins over the blocks."
    return f"{head}\n{text.getvalue()}"


class _Representer(Protocol):
    def add_representer(self, kind: type[None], represent: "Callable[[_Representer, None], Node]") -> None: ...
    def represent_scalar(self, tag: str, value: str) -> Node: ...


def _null(representer: _Representer, _: None) -> Node:
    """Write null as `null`; ruamel writes nothing."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _quoted(value: object) -> object:
    """The same, with text that is not printable in double quotes, the one form that keeps every character."""
    if isinstance(value, dict):
        fields: dict[str, object] = value
        return {name: _quoted(inner) for name, inner in fields.items()}
    if isinstance(value, list):
        items: list[object] = value
        return [_quoted(item) for item in items]
    if isinstance(value, str) and not value.isprintable():
        quoted: str = DoubleQuotedScalarString(value)
        return quoted
    return value
