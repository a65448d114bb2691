"""All mistakes of an experiment file are reported at once, each with its path in the file."""

from pathlib import Path

import pytest

from tests.support.experiments import (
    TRANSFORMER,
    Blocks,
    Change,
    document,
    only_problem,
    refusal,
    rnn,
    transformer,
    whole,
)
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.contracts.errors import AppError, ErrorCode


def test_all_that_is_wrong_is_told_at_once__each_with_path_value_and_what_is_allowed() -> None:
    def spoil(blocks: Blocks) -> None:
        blocks["data"] |= {"batch_size": 0, "training_corpus": "/etc/passwd", "sise": 1}
        blocks["training"] |= {"learning_rate": 5, "use_amp": "no", "output_dir": "../x", "adam_beta2": 1}
        del blocks["training"]["epochs"]
        blocks["run"] = {"test_fraction": 0.9, "corpus": "a/../../b", "label": 5}
        blocks["tokenizer"]["tokenizer_type"] = "morse"

    code, problems = refusal(spoil, seed=-1)

    assert code is ErrorCode.UNSUPPORTED_BACKEND
    assert {problem.path: (problem.value, problem.allowed) for problem in problems} == {
        "tokenizer.tokenizer_type": (
            "'morse'",
            "one of 'sentencepiece', 'wordpiece', 'bpe', 'character', 'byte', 'word'",
        ),
        "data.batch_size": ("0", "an integer ≥ 1 and ≤ 4096"),
        "data.training_corpus": ("'/etc/passwd'", "a relative path without `..`"),
        "data.sise": (
            "1",
            "one of source_corpus, training_corpus, validation_corpus, test_corpus, batch_size, max_sequence_length",
        ),
        "training.learning_rate": ("5", "a number > 0 and ≤ 1"),
        "training.use_amp": ("'no'", "true or false"),
        "training.output_dir": ("'../x'", "a relative path without `..`"),
        "training.adam_beta2": ("1", "a number ≥ 0 and < 1"),
        "training.epochs": (None, "an integer ≥ 1 and ≤ 1000"),
        "run.test_fraction": ("0.9", "a number ≥ 0 and < 0.5"),
        "run.corpus": ("'a/../../b'", "a relative path without `..`"),
        "run.label": ("5", "text of 1 to 64 characters or null"),
        "seed": ("-1", "an integer ≥ 0 and < 4294967296"),
    }


def test_missing_architecture__is_said_in_the_words_of_the_requirement() -> None:
    sentence = (
        "Missing required field 'architecture' in model config. Must be one of: gpt2, bert, lstm, gru, rnn, llama, qwen"
    )
    expected = (ErrorCode.CONFIG_INVALID, "model.architecture", sentence)
    assert only_problem(lambda b: b["model"].pop("architecture")) == expected
    assert only_problem(lambda b: b.update(model={})) == expected


INCOMPATIBLE: list[tuple[Change, str, str]] = [
    (lambda b: rnn(b).update(bidirectional=True), "model.rnn.bidirectional", "would see what it is to predict"),
    (
        lambda b: b["training"].update(use_gradient_checkpointing=True),
        "training.use_gradient_checkpointing",
        "is for transformers: with a recurrent model it must be false",
    ),
    (lambda b: b.update(model=transformer("bert")), "training.objective", "must be 'masked_lm' for bert"),
    (
        lambda b: b.update(model=transformer("qwen"), training=b["training"] | {"objective": "masked_lm"}),
        "training.objective",
        "must be 'causal_lm' for qwen",
    ),
]


@pytest.mark.parametrize(("change", "path", "sentence"), INCOMPATIBLE)
def test_parts__that_cannot_be_trained_together_are_told_at_their_path(
    change: Change, path: str, sentence: str
) -> None:
    code, found, message = only_problem(change)
    assert (code, found) == (ErrorCode.MODEL_INCOMPATIBLE, path)
    assert sentence in message


NESTED_TRANSFORMER = (
    "model: {architecture: llama, transformer: {layers: 2, embedding_size: 64, hidden_size: 64,"
    " intermediate_hidden_size: 256, attention_heads: 2, dropout: 0.1, attention_dropout: 0.1}}"
)
NESTED = "model: {architecture: gru, rnn: {embedding_size: 128, hidden_size: 256, num_layers: 2}}"
SPECIAL: list[tuple[Change, str, str]] = [
    (
        lambda b: b.update(model={"architecture": "gru", "hidden_size": 8, "num_layers": 1}),
        "model.hidden_size",
        f"`model.hidden_size` must be in the block `model.rnn`: {NESTED}",
    ),
    (lambda b: b["model"].pop("rnn"), "model.rnn", f"`model.rnn` is missing: {NESTED}"),
    (
        lambda b: b.update(model={"architecture": 3, "rnn": b["model"]["rnn"]}),
        "model.architecture",
        "must be 'gpt2', 'bert'",
    ),
    (
        lambda b: rnn(b).update(rnn_type="lstm"),
        "model.rnn.rnn_type",
        "must equal `model.architecture`, 'gru', you gave",
    ),
    (lambda b: b["model"].update(transformer={}), "model.transformer", "belongs to another architecture: gru takes"),
    (lambda b: b["model"].update(bert={}), "model.bert", "belongs to another architecture: gru takes `model.rnn`"),
    (
        lambda b: b.update(model={"architecture": "llama", **TRANSFORMER}),
        "model.embedding_size",
        f"`model.embedding_size` must be in the block `model.transformer`: {NESTED_TRANSFORMER}",
    ),
    (
        lambda b: b.update(model={"architecture": "llama"}),
        "model.transformer",
        f"`model.transformer` is missing: {NESTED_TRANSFORMER}",
    ),
    (
        lambda b: b.update(model=transformer() | {"rnn": {}}),
        "model.rnn",
        "`model.rnn` belongs to another architecture: gpt2 takes `model.transformer`",
    ),
    (lambda b: b.update(model=transformer() | {"bert": {}}), "model.bert", "gpt2 takes `model.transformer`"),
    (lambda b: b.update(model=transformer(layer=2)), "model.transformer.layer", "did you mean `layers`"),
    (
        lambda b: b.update(model=transformer(activation_function="gelo")),
        "model.transformer.activation_function",
        "must be",
    ),
    (lambda b: b["logging"].update(use_wandb=True), "logging.use_wandb", "the tracker wandb is not installed"),
    (lambda b: b.update({"": {"dataset_manipulation": [{"a": 1}]}}), "dataset_manipulation", "is not supported"),
    (
        lambda b: b["training"].update(checkpoint_schedule=[3, 3]),
        "training.checkpoint_schedule",
        "must be in ascending order, each step once, you gave [3, 3]",
    ),
    (
        lambda b: b["training"].update(checkpoint_schedule=[-1, 3]),
        "training.checkpoint_schedule.0",
        "must be greater than or equal to 0, you gave -1",
    ),
    (
        lambda b: b["training"].update(auto_generate_checkpoints=True, checkpoint_schedule=[1]),
        "training.auto_generate_checkpoints",
        "contradicts `training.checkpoint_schedule`: give one of both",
    ),
    (
        lambda b: b["training"].update(auto_generate_checkpoints=True, log_base=1),
        "training.log_base",
        "must be greater than or equal to 2, you gave 1",
    ),
    (
        lambda b: b["run"].update(checkpoint_schedule={"log_base": 1}),
        "run.checkpoint_schedule.log_base",
        "must be greater than or equal to 2, you gave 1",
    ),
    (
        lambda b: b["run"].update(checkpoint_schedule=[]),
        "run.checkpoint_schedule",
        "must have at least 1 item",
    ),
    (lambda b: b["run"].update(checkpoint_schedule=7), "run.checkpoint_schedule", "must be a block of fields"),
    (lambda b: b["logging"].update(level="LOUD"), "logging.level", "must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or"),
    (
        lambda b: b["tokenizer"].update(tokenizer_type="bpe", special_tokens={"bos": "<a>"}),
        "tokenizer.special_tokens.bos",
        "unknown field `tokenizer.special_tokens.bos`; did you mean `bos_token`",
    ),
    (
        lambda b: b["tokenizer"].update(tokenizer_type="bpe", special_tokens={"bos_token": "begin"}),
        "tokenizer.special_tokens.bos_token",
        "must be letters (a-z, A-Z), digits, '_', '.' or '-' in <> or [], as <s> or [CLS], you gave 'begin'",
    ),
    (
        lambda b: b["tokenizer"].update(tokenizer_type="bpe", special_tokens={"bos_token": "<a>", "cls_token": "<b>"}),
        "tokenizer.special_tokens",
        "must name `bos_token` or `cls_token`, not both: they are the same token",
    ),
    (
        lambda b: b["tokenizer"].update(tokenizer_type="bpe", special_tokens={"pad_token": "<a>", "unk_token": "<a>"}),
        "tokenizer.special_tokens",
        "must have different names: one is given twice",
    ),
    (
        lambda b: b["tokenizer"].update(tokenizer_type="bpe", special_tokens={"pad_token": "</s>"}),
        "tokenizer.special_tokens",
        "must have different names: </s> is already the `eos_token`; rename that one, too",
    ),
    (
        lambda b: b.update(run={"precision": "fp32"}, training=b["training"] | {"use_amp": True}),
        "run.precision",
        "`run.precision` 'fp32' contradicts `training.use_amp` true: give one of both",
    ),
    (
        lambda b: b.update(run={"precision": "bf16"}, training=b["training"] | {"use_amp": False}),
        "run.precision",
        "`run.precision` 'bf16' contradicts `training.use_amp` false: give one of both",
    ),
    (lambda b: b.update({"": {"experiment_name": "a b"}}), "experiment_name", "must be 1 to 64 letters"),
    (lambda b: b.update({"": {"model": 3}}), "model", "`model` must be a block of fields, you gave 3"),
    (lambda b: b.pop("logging"), "logging", "`logging` is required"),
    (lambda b: b.pop("tokenizer"), "tokenizer", "`tokenizer` is required"),
    (lambda b: b.pop("training"), "training", "`training` is required"),
    (lambda b: b.update({"": {"run": [1]}}), "run", "`run` must be a block of fields, you gave [1]"),
    (
        lambda b: b["training"].update(epoch=3),
        "training.epoch",
        "unknown field `training.epoch`; did you mean `epochs`",
    ),
    (lambda b: b["run"].update(sed=3), "run.sed", "unknown field `run.sed`; did you mean `seed`"),
    (lambda b: b["run"].update(model={"hiden_size": 3}), "run.model.hiden_size", "did you mean `hidden_size`"),
    (lambda b: b["run"].update(optimizer={"betas": [0.9, 1]}), "run.optimizer.betas.1", "must be less than 1"),
    (lambda b: b["data"].update(training_corpus=""), "data.training_corpus", "must be a relative path"),
    (lambda b: b["data"].update(validation_corpus="..\\x"), "data.validation_corpus", "must be a relative path"),
]


@pytest.mark.parametrize(("change", "path", "sentence"), SPECIAL)
def test_one_mistake__is_one_problem_at_its_path_in_the_file(change: Change, path: str, sentence: str) -> None:
    code, found, message = only_problem(change)
    assert (code, found) == (ErrorCode.CONFIG_INVALID, path)
    assert sentence in message


def test_special_tokens_of_characters__are_told_to_keep_their_names_at_their_place() -> None:
    _, path, message = only_problem(lambda b: b["tokenizer"].update(special_tokens={"pad_token": "<p>"}))
    assert path == "tokenizer.special_tokens"
    assert message.startswith("`tokenizer.special_tokens` must be null: this method keeps its own special tokens")


def test_what_is_not_available_is_said_with_what_is() -> None:
    changes: list[tuple[Change, str, str]] = [
        (
            lambda b: b.update(model={"architecture": "t5", "transformer": {}}),
            "model.architecture",
            "`model.architecture` 't5' is not available; it must be one of 'gpt2', 'bert', 'lstm', 'gru', 'rnn',"
            " 'llama', 'qwen'",
        ),
        (
            lambda b: b.update(run={"model_family": "gpt3"}),
            "run.model_family",
            "`run.model_family` 'gpt3' is not available; it must be one of 'char_lstm', 'gpt2', 'bert', 'lstm', 'gru',"
            " 'rnn', 'llama', 'qwen'",
        ),
    ]
    for change, path, sentence in changes:
        assert only_problem(change) == (ErrorCode.UNSUPPORTED_BACKEND, path, sentence)


def test_a_refusal_without_details__is_told_at_the_place_that_it_names() -> None:
    blocks = document()
    blocks["run"] = {"model_size": "huge"}
    experiment = read_experiment(whole(blocks), {"seed": 1})

    def placed(message: str, field: str = "") -> tuple[str, str, str | None]:
        [problem] = experiment.located(AppError(ErrorCode.INVALID_INPUT, message), field).details
        return problem.path, problem.message, problem.value

    assert placed("`model_size` must be one.") == ("run.model_size", "`run.model_size` must be one", "'huge'")
    assert placed("`learning_rate` is odd.") == ("training.learning_rate", "`training.learning_rate` is odd", "0.001")
    assert placed("`seed` is odd.") == ("seed", "`seed` is odd", "1")
    assert placed("'kk' is empty.", "corpus") == (
        "data.training_corpus",
        "`data.training_corpus`: 'kk' is empty",
        "'kk'",
    )
    assert placed("`mt` is odd.") == ("", "`mt` is odd", None)


FILES: list[tuple[bytes, str]] = [
    (b"- 1", "'f.yaml' must hold lines of `name: value`; it is a list."),
    (b"# nothing\n", "'f.yaml' must hold lines of `name: value`; it is empty."),
    (b"text", "'f.yaml' must hold lines of `name: value`; it is a single value."),
    (b"a: \xff", "'f.yaml' is not UTF-8: byte 3 cannot be decoded. Save the text as UTF-8."),
    ("a: 1".encode("utf-16"), "'f.yaml' is UTF-16 text. Save it as UTF-8."),
    (b"#" * 300_000, "'f.yaml' is too long: at most 256 KiB are allowed."),
]


@pytest.mark.parametrize(("content", "sentence"), FILES)
def test_files__that_hold_no_fields_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(content)
    with pytest.raises(AppError) as caught:
        read_yaml(tmp_path / "f.yaml")
    assert (caught.value.code, caught.value.message) == (ErrorCode.CONFIG_INVALID, sentence)


def test_files__may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "f.yaml") == {"a": 1}
