"""The block form of an experiment file maps onto the one train request; its mistakes keep their paths."""

from collections.abc import Mapping

import pytest
from pydantic import BaseModel

from tests.support.experiments import TRANSFORMER, Fields, document, request_of, resolved, transformer
from tests.support.refusals import refused
from trainer.config.experiment_file import read_experiment
from trainer.config.presets import check_parts, request_hash
from trainer.config.validation import value_at
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.training_options import CheckpointRule, OptimizerConfig

Values = Mapping[str, object]
AUTO = "training.auto_generate_checkpoints"
KEYS: Fields = {"first_epoch_checkpoints": 7, "subsequent_epochs_spacing": "linear", "linear_interval": 9}
BPE: Fields = {"tokenizer.tokenizer_type": "bpe"}
RENAMED: Fields = {"bos_token": "<|a|>", "pad_token": "[P]"}
OF_RULE: Fields = {f"training.{name}": value for name, value in KEYS.items()}
BERT = transformer("bert", activation_function="relu") | {"bert": {"type_vocab_size": 3}}
MASKED: Fields = {"training.objective": "masked_lm"}
OF_BERT = {"model": BERT, **MASKED, "training.mlm_probability": 0.2, "training.use_gradient_checkpointing": True}
BERT_SIZES: Fields = {"num_layers": 2, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
BERT_SIZES |= {"dropout": 0.1, "attention_dropout": 0.2, "activation_function": "relu", "type_vocab_size": 3}


def dumped(record: BaseModel) -> Fields:
    fields: Fields = record.model_dump(exclude_none=True)
    return fields


def rule(**keys: object) -> Fields:
    return {"checkpoint_schedule": {**dumped(CheckpointRule()), **keys}}


MAPPED: list[tuple[Values, Values, Values]] = [
    (
        {},
        {},
        {
            **{"model_family": "gru", "model.hidden_size": 16, "tokenizer.vocab_size": 50, "corpus": "kk"},
            **{"label": "x", "seed": 3, "batch_size": 4, "max_seq_len": 32, "provenance.source_corpus": "web"},
            **{"optimizer.name": "adamw", "optimizer.betas": (0.9, 0.98), "optimizer.eps": 1e-6},
            **{"learning_rate": 0.001, "num_epochs": 3, "gradient_clipping": None, "lr_schedule": "linear"},
            **{"warmup_ratio": 0.1, "warmup_steps": None, "log_every_steps": 7, "precision": "fp32"},
            **{"checkpoint_schedule": None, "resume": False, "logging.level": "INFO"},
        },
    ),
    (BPE | {"tokenizer.special_tokens": RENAMED}, {}, {"tokenizer.method": "bpe", "tokenizer.special_tokens": RENAMED}),
    ({"training.warmup_steps": 9}, {}, {"warmup_steps": 9, "warmup_ratio": None}),
    ({"training.use_amp": True, "training.use_tf32": False}, {}, {"precision": "auto", "compute.tf32": False}),
    ({"training.use_amp": True, "run.precision": "bf16"}, {}, {"precision": "bf16"}),
    (
        {"run": {"lr_schedule": "cosine", "warmup_steps": 4, "optimizer": {"name": "adam"}}},
        {},
        {"lr_schedule": "cosine", "warmup_steps": 4, "warmup_ratio": None, "optimizer.betas": (0.9, 0.98)},
    ),
    ({"run": {"optimizer": {"name": "adam"}, "test_fraction": 0}}, {}, {"optimizer.name": "adam", "test_fraction": 0}),
    ({"run.optimizer": {"name": "sgd"}}, {}, {"optimizer": dumped(OptimizerConfig(name="sgd"))}),
    (
        {"run": {"seed": 8, "model": {"dropout": 0.5}}},
        {"seed": 9, "warmup_steps": 2, "model": {"num_layers": 3}},
        {
            **{"seed": 9, "warmup_steps": 2, "warmup_ratio": None},
            **{"model.dropout": 0.5, "model.num_layers": 3, "model.hidden_size": 16},
        },
    ),
    *(
        (BPE | in_file, typed, {"tokenizer": None, field: "there"})
        for field in ("tokenizer_id", "init_from_run_id")
        for in_file, typed in (({}, {field: "there"}), ({"run": {field: "there"}}, {}))
    ),
    ({"training.checkpoint_schedule": [], **OF_RULE}, {}, {"checkpoint_schedule": None}),
    ({"training.checkpoint_schedule": [0, 5, 9], AUTO: False}, {}, {"checkpoint_schedule": (0, 5, 9)}),
    ({"training.checkpoint_schedule": {"words": ["1k", 5000]}}, {}, {"checkpoint_schedule": {"words": (1000, 5000)}}),
    ({"run": {"checkpoint_schedule": {"tokens": "log2"}}}, {}, {"checkpoint_schedule": {"tokens": "log2"}}),
    ({AUTO: True}, {}, rule()),
    ({AUTO: True, **OF_RULE}, {}, rule(**KEYS)),
    ({AUTO: True, "run": {"checkpoint_schedule": {"log_base": 3}}}, {}, rule(log_base=3)),
    ({AUTO: True}, {"checkpoint_schedule": [4]}, {"checkpoint_schedule": (4,)}),
    ({AUTO: True}, {"checkpoint_schedule": None}, {"checkpoint_schedule": None}),
    ({"model.rnn.bidirectional": True, **MASKED}, {}, {"model.bidirectional": True}),
    (OF_BERT, {}, {"model_family": "bert", "objective": "masked_lm", "mlm_probability": 0.2, "model": BERT_SIZES}),
    (OF_BERT, {}, {"compute.gradient_checkpointing": True}),
]


@pytest.mark.parametrize(("changes", "typed", "expected"), MAPPED)
def test_blocks__reach_their_fields_run_and_typed_values_win(changes: Values, typed: Values, expected: Values) -> None:
    request = dumped(request_of(changes, **typed))
    assert {path: value_at(request, path) for path in expected} == expected


def test_settings_without_effect__are_recorded_and_change_no_hash() -> None:
    folder: Fields = {"training.output_dir": "models/x"}
    assert read_experiment(document(), {}).unused_settings == folder
    assert read_experiment(document(), {}).requested_paths == ("tok", "models/x", "logs")
    logging: Fields = {"max_log_files": 3, "wandb_project": None, "level": "ERROR", "use_wandb": False, "dir": "x"}
    unused: Fields = {f"logging.{name}": logging[name] for name in ("max_log_files", "wandb_project", "dir")}
    assert read_experiment(document({"logging": logging}), {}).unused_settings == {**folder, **unused}
    after = request_of({"training.resume_from_checkpoint": True, "logging.level": "WARNING"})
    assert (after.resume, after.logging.level) == (True, "WARNING")
    assert request_hash(resolved(after)) == request_hash(resolved(request_of()))


def test_all_mistakes__are_reported_at_once_with_the_allowed_values() -> None:
    spoilt: Fields = {
        **{"data.batch_size": 0, "data.training_corpus": "/etc/passwd", "data.sise": 1},
        **{"training.learning_rate": 5, "training.use_amp": "no", "training.output_dir": "../x"},
        **{"training.adam_beta2": 1, "training.epochs": ..., "tokenizer.tokenizer_type": "morse"},
        "run": {"test_fraction": 0.9, "corpus": "a/../../b", "label": 5},
    }
    with pytest.raises(AppError) as caught:
        request_of(spoilt, seed=-1)
    relative, methods = "a relative path without `..`", "'sentencepiece', 'wordpiece', 'bpe', 'character', 'byte', "
    data = "source_corpus, training_corpus, validation_corpus, test_corpus, batch_size, max_sequence_length"
    assert caught.value.code is ErrorCode.UNSUPPORTED_BACKEND
    assert {problem.path: (problem.value, problem.allowed) for problem in caught.value.details} == {
        "tokenizer.tokenizer_type": ("'morse'", f"one of {methods}'word'"),
        "data.batch_size": ("0", "an integer ≥ 1 and ≤ 4096"),
        "data.training_corpus": ("'/etc/passwd'", relative),
        "data.sise": ("1", f"one of {data}"),
        "training.learning_rate": ("5", "a number > 0 and ≤ 1"),
        "training.use_amp": ("'no'", "true or false"),
        "training.output_dir": ("'../x'", relative),
        "training.adam_beta2": ("1", "a number ≥ 0 and < 1"),
        "training.epochs": (None, "an integer ≥ 1 and ≤ 1000"),
        "run.test_fraction": ("0.9", "a number ≥ 0 and < 0.5"),
        "run.corpus": ("'a/../../b'", relative),
        "run.label": ("5", "text of 1 to 64 characters or null"),
        "seed": ("-1", "an integer ≥ 0 and < 4294967296"),
    }


def model(architecture: object, **sizes: object) -> Fields:
    return {"model": {"architecture": architecture, **sizes}}


def renamed(**tokens: str) -> Fields:
    """Special tokens of bpe with other names."""
    return BPE | {"tokenizer.special_tokens": {f"{role}_token": token for role, token in tokens.items()}}


ABSENT: list[object] = [...]
WRONG: dict[str, list[object]] = {
    **{"logging": ABSENT, "tokenizer": ABSENT, "training": ABSENT, "model": [3], "run": [[1]]},
    **{"experiment_name": ["a b"], "logging.level": ["LOUD"], "training.epoch": [3], "run.sed": [3]},
    **{"model.architecture": [3], "run.model.hiden_size": [3], "run.checkpoint_schedule": [[], 7]},
    **{"data.training_corpus": [""], "data.validation_corpus": ["..\\x"], "training.checkpoint_schedule": [[3, 3]]},
    "tokenizer.special_tokens": [{"pad_token": "<p>"}],
}
"""Values that are a mistake at their own path."""


@pytest.mark.parametrize(("path", "value"), [(path, value) for path in WRONG for value in WRONG[path]])
def test_wrong_value__is_one_problem_at_its_path(path: str, value: object) -> None:
    with refused(ErrorCode.CONFIG_INVALID, f"`{path}`", path):
        request_of({path: value})


NESTED_TRANSFORMER = (
    "model: {architecture: llama, transformer: {layers: 2, embedding_size: 64, hidden_size: 64,"
    " intermediate_hidden_size: 256, attention_heads: 2, dropout: 0.1, attention_dropout: 0.1}}"
)
MISSING = "Missing required field 'architecture' in model config. Must be one of: gpt2, bert, lstm, gru, rnn, llama, qw"
OTHER_BLOCK = "belongs to another architecture: gru takes `model.rnn`"
GPT2 = "belongs to another architecture: gpt2 takes `model.transformer`"
MISTAKES: dict[ErrorCode, list[tuple[Values, str, str]]] = {
    ErrorCode.CONFIG_INVALID: [
        ({"model": {}}, "model.architecture", MISSING),
        (model("llama"), "model.transformer", f"is missing: {NESTED_TRANSFORMER}"),
        (model("llama", **TRANSFORMER), "model.embedding_size", f"block `model.transformer`: {NESTED_TRANSFORMER}"),
        ({"model.transformer": {}}, "model.transformer", OTHER_BLOCK),
        ({"model.bert": {}}, "model.bert", OTHER_BLOCK),
        ({"model": transformer() | {"rnn": {}}}, "model.rnn", GPT2),
        ({"model": transformer() | {"bert": {}}}, "model.bert", GPT2),
        ({"model": transformer(layer=2)}, "model.transformer.layer", "did you mean `layers`"),
        ({"model": transformer(activation_function="x")}, "model.transformer.activation_function", "must be"),
        (model("ngram"), "model.architecture", "'ngram' is for a file without blocks: write `model_family: ngram`"),
        ({"model_family": "lstm"}, "model_family", "is a field of the train request: in a file with blocks write it"),
        ({"run.optimizer.betas": [0.9, 1]}, "run.optimizer.betas.1", "must be less than 1"),
        ({"training.checkpoint_schedule": [-1, 3]}, "training.checkpoint_schedule.0", "or equal to 0, you gave -1"),
        ({AUTO: True, "training.log_base": 1}, "training.log_base", "greater than or equal to 2, you gave 1"),
        ({"run.checkpoint_schedule": {"log_base": 1}}, "run.checkpoint_schedule.log_base", "than or equal to 2, you "),
        ({"run.precision": "fp32", "training.use_amp": True}, "run.precision", "contradicts `training.use_amp` true"),
        ({"run.precision": "bf16", "training.use_amp": False}, "run.precision", "contradicts `training.use_amp` false"),
        (renamed(bos="begin"), "tokenizer.special_tokens.bos_token", "must be letters (a-z, A-Z), digits, '_', '.' or"),
        (BPE | {"tokenizer.special_tokens.bos": "<a>"}, "tokenizer.special_tokens.bos", "did you mean `bos_token`"),
    ],
    ErrorCode.UNSUPPORTED_BACKEND: [
        ({"run.model_family": "gpt3"}, "run.model_family", "'gpt3' is not available; it must be one of 'char_lstm',"),
    ],
    ErrorCode.MODEL_INCOMPATIBLE: [
        ({"model": transformer("bert")}, "training.objective", "must be 'masked_lm' for bert"),
        ({"model": transformer("qwen"), **MASKED}, "training.objective", "must be 'causal_lm' for qwen"),
    ],
}


@pytest.mark.parametrize(
    ("code", "changes", "path", "said"), [(code, *mistake) for code, all_of in MISTAKES.items() for mistake in all_of]
)
def test_one_mistake__is_one_problem_at_its_path(code: ErrorCode, changes: Values, path: str, said: str) -> None:
    draft = read_experiment(document(changes), {})
    with refused(code, said, path):
        request = draft.request()
        try:
            check_parts(request)
        except AppError as error:
            raise draft.located(error) from error


def test_refusal__is_located_at_its_field_in_the_file() -> None:
    experiment = read_experiment(document({"run.model_size": "huge"}), {"seed": 1})

    def located(error: AppError, field: str = "") -> tuple[str, str, str | None]:
        [problem] = experiment.located(error, field).details
        return problem.path, problem.message, problem.value

    for field, path, value in (
        ("model_size", "run.model_size", "'huge'"),
        ("learning_rate", "training.learning_rate", "0.001"),
        ("seed", "seed", "1"),
    ):
        odd = field_error(ErrorCode.INVALID_INPUT, field, "is odd.")
        assert located(odd) == (path, f"`{path}` is odd", value)
    assert located(AppError(ErrorCode.INVALID_INPUT, "`seed` is odd")) == ("", "`seed` is odd", None)
    empty = located(AppError(ErrorCode.CORPUS_EMPTY, "'kk' is empty"), "corpus")
    assert empty == ("data.training_corpus", "`data.training_corpus`: 'kk' is empty", "'kk'")
