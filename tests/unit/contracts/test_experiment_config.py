"""The YAML form of a training maps onto the one train request, says what is wrong with a file, and is written back."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.properties import for_all
from tests.unit.models.families import FAMILIES, TRANSFORMERS
from tests.unit.models.families import request_of as request_of_family
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.experiment_config import experiment_yaml, read_experiment, read_yaml
from trainer.contracts.fields import block, value_at
from trainer.contracts.presets import request_hash, resolve
from trainer.contracts.runs import (
    CorpusRef,
    EffectiveRequest,
    OptimizerConfig,
    RunManifest,
    RunRecord,
    Timings,
    TrainRequest,
)
from trainer.contracts.tokenizers import CharTokenizerConfig, Normalization, TokenizerManifest, TokenizerStats
from trainer.contracts.train_requests import train_request
from trainer.contracts.yaml_text import parse_yaml

CONFIGS = Path(__file__).parents[3] / "configs"
Blocks = dict[str, dict[str, object]]
Change = Callable[[Blocks], object]


def document() -> Blocks:
    training: dict[str, object] = {
        "output_dir": "models/x",
        "learning_rate": 0.001,
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "epochs": 3,
        "max_grad_norm": None,
    }
    return {
        "data": {"source_corpus": "web", "training_corpus": "kk", "batch_size": 4, "max_sequence_length": 32},
        "tokenizer": {"output_dir": "tok", "vocab_size": 50, "tokenizer_type": "character"},
        "model": {"architecture": "gru", "rnn": {"embedding_size": 8, "hidden_size": 16, "num_layers": 1}},
        "training": training,
        "logging": {"log_metrics_every_n_steps": 7},
        "run": {},
    }


def whole(blocks: Blocks) -> dict[str, object]:
    """A file of these blocks; what stands under "" in them stands beside them."""
    beside = blocks.pop("", {})
    return {"experiment_name": "x", "random_seed": 3, **blocks, **beside}


def request_of(blocks: Blocks, **typed: object) -> TrainRequest:
    return read_experiment(whole(blocks), typed).request()


def refusal(change: Change, **typed: object) -> tuple[ErrorCode, tuple[FieldProblem, ...]]:
    blocks = document()
    change(blocks)
    with pytest.raises(AppError) as caught:
        request_of(blocks, **typed)

    return caught.value.code, caught.value.details


def only_problem(change: Change, **typed: object) -> tuple[ErrorCode, str, str]:
    """Code, path and sentence of the one thing that is wrong."""
    code, problems = refusal(change, **typed)
    assert len(problems) == 1, problems
    return code, problems[0].path, problems[0].message


def test_mapping__every_block_reaches_its_field() -> None:
    request = request_of(document())

    assert (request.model_family, request.label, request.seed) == ("gru", "x", 3)
    assert (request.corpus, request.batch_size, request.max_seq_len) == ("kk", 4, 32)
    assert request.provenance is not None and request.provenance.source_corpus == "web"
    assert request.tokenizer is not None and request.tokenizer.vocab_size == 50
    assert request.model is not None and request.model.hidden_size == 16
    assert (request.optimizer.name, request.optimizer.betas, request.optimizer.eps) == ("adamw", (0.9, 0.98), 1e-6)
    assert (request.learning_rate, request.num_epochs, request.gradient_clipping) == (0.001, 3, None)
    assert (request.lr_schedule, request.warmup_ratio, request.log_every_steps) == ("linear", 0.1, 7)
    assert request.precision == "fp32"


def test_mapping__explicit_warmup_steps_win_over_the_ratio() -> None:
    blocks = document()
    blocks["training"] |= {"warmup_steps": 9, "use_amp": True}

    request = request_of(blocks)

    assert (request.warmup_steps, request.warmup_ratio, request.precision) == (9, None, "auto")


def test_mapping__run_block_wins_over_what_the_others_imply() -> None:
    blocks = document()
    blocks["run"] = {"lr_schedule": "cosine", "warmup_steps": 4, "optimizer": {"name": "adam"}, "holdout_fraction": 0.2}

    request = request_of(blocks)

    assert (request.lr_schedule, request.warmup_steps, request.warmup_ratio) == ("cosine", 4, None)
    assert (request.optimizer.name, request.optimizer.betas, request.holdout_fraction) == ("adam", (0.9, 0.98), 0.2)


def test_mapping__sgd_takes_nothing_of_what_the_file_says_of_adam() -> None:
    blocks = document()
    blocks["run"] = {"optimizer": {"name": "sgd"}}

    assert request_of(blocks).optimizer == OptimizerConfig(name="sgd")


def test_mapping__what_is_typed_wins_over_the_run_block() -> None:
    blocks = document()
    blocks["run"] = {"seed": 8, "model": {"dropout": 0.5}}

    request = request_of(blocks, seed=9, warmup_steps=2, model={"num_layers": 3})

    assert (request.seed, request.warmup_steps, request.warmup_ratio) == (9, 2, None)
    assert request.model is not None
    assert (request.model.dropout, request.model.num_layers, request.model.hidden_size) == (0.5, 3, 16)


@pytest.mark.parametrize("field", ["tokenizer_id", "init_from_run_id"])
def test_mapping__a_tokenizer_that_is_there_takes_the_place_of_the_block(field: str) -> None:
    blocks = document()
    blocks["tokenizer"] |= {"tokenizer_type": "bpe"}
    typed: dict[str, object] = {field: "there"}

    assert request_of(blocks, **typed).tokenizer is None
    blocks["run"] = typed
    assert request_of(blocks).tokenizer is None


def test_shipped_char_lstm_config__is_the_preset() -> None:
    experiment = read_experiment(read_yaml(CONFIGS / "char_lstm_ipa.yaml"), {})
    fields = dict(experiment.fields)
    fields["tokenizer"] = {"method": "char"}  # the file must name a cap for the vocabulary, the preset has none
    fields["precision"] = "auto"
    preset: dict[str, object] = {"model_family": "char_lstm", "corpus": "demo", "warmup_ratio": 0.0}

    assert request_hash(resolved(train_request(fields))) == request_hash(resolved(train_request(preset)))


def test_output_folders__are_recorded() -> None:
    assert read_experiment(whole(document()), {}).requested_paths == ("tok", "models/x", "logs")


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
            "one of 'sentencepiece', 'wordpiece', 'bpe', 'character', 'word'",
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


TRANSFORMER: dict[str, object] = {
    "layers": 2,
    "embedding_size": 16,
    "hidden_size": 16,
    "intermediate_hidden_size": 32,
    "attention_heads": 2,
    "dropout": 0.1,
    "attention_dropout": 0.2,
}


def transformer(architecture: str = "gpt2", **changes: object) -> dict[str, object]:
    return {"architecture": architecture, "transformer": TRANSFORMER | changes}


def test_mapping__sizes_of_a_transformer_reach_their_fields() -> None:
    blocks = document()
    blocks["model"] = transformer("bert", activation_function="relu") | {"bert": {"type_vocab_size": 3}}
    blocks["training"] |= {"objective": "masked_lm", "mlm_probability": 0.2, "use_gradient_checkpointing": True}

    request = request_of(blocks)

    assert request.model is not None
    given: dict[str, object] = request.model.model_dump(exclude_none=True)
    assert given == TRANSFORMER | {"activation_function": "relu", "type_vocab_size": 3}
    assert (request.model_family, request.objective, request.mlm_probability) == ("bert", "masked_lm", 0.2)
    assert request.compute.gradient_checkpointing


def test_mapping__two_directions_are_for_masked_tokens() -> None:
    blocks = document()
    rnn(blocks)["bidirectional"] = True
    blocks["training"]["objective"] = "masked_lm"

    request = request_of(blocks)

    assert request.model is not None and request.model.bidirectional


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
        f"`model.hidden_size` stands beside the architecture; write the sizes under `model.rnn`: {NESTED}",
    ),
    (lambda b: b["model"].pop("rnn"), "model.rnn", f"`model.rnn` is missing; write the sizes under it: {NESTED}"),
    (lambda b: b.update(model={"architecture": 3, "rnn": b["model"]["rnn"]}), "model.architecture", "must be 'lstm', "),
    (lambda b: rnn(b).update(rnn_type="lstm"), "model.rnn.rnn_type", "must equal the architecture, 'gru', you gave"),
    (lambda b: b["model"].update(transformer={}), "model.transformer", "belongs to another architecture: gru takes"),
    (lambda b: b["model"].update(bert={}), "model.bert", "belongs to another architecture: gru takes `model.rnn`"),
    (
        lambda b: b.update(model={"architecture": "llama", **TRANSFORMER}),
        "model.embedding_size",
        f"`model.embedding_size` stands beside the architecture; write the sizes under `model.transformer`:"
        f" {NESTED_TRANSFORMER}",
    ),
    (
        lambda b: b.update(model={"architecture": "llama"}),
        "model.transformer",
        f"`model.transformer` is missing; write the sizes under it: {NESTED_TRANSFORMER}",
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
        lambda b: b["training"].update(resume_from_checkpoint=True),
        "training.resume_from_checkpoint",
        "a run that was interrupted goes on by itself",
    ),
    (
        lambda b: b["training"].update(checkpoint_schedule=[10]),
        "training.checkpoint_schedule",
        "say `run.checkpoint_every_steps` instead",
    ),
    (
        lambda b: b["training"].update(auto_generate_checkpoints=True),
        "training.auto_generate_checkpoints",
        "say `run.checkpoint_every_steps` instead",
    ),
    (lambda b: b["tokenizer"].update(special_tokens={}), "tokenizer.special_tokens", "leave it out"),
    (
        lambda b: b.update(run={"precision": "fp32"}, training=b["training"] | {"use_amp": True}),
        "run.precision",
        "`run.precision` 'fp32' contradicts `training.use_amp` true: give one of both",
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
            "`run.model_family` 'gpt3' is not available; it must be one of 'char_lstm', 'lstm', 'gru', 'rnn', 'gpt2',"
            " 'bert', 'llama', 'qwen'",
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
    (b"a: \xff", "'f.yaml' is not UTF-8: byte 3 cannot be decoded."),
    ("a: 1".encode("utf-16"), "'f.yaml' is not UTF-8: byte 0 cannot be decoded."),
    (b"#" * 300_000, "'f.yaml' is too long: at most 256 KiB are taken."),
]


@pytest.mark.parametrize(("content", "sentence"), FILES)
def test_files__that_hold_no_fields_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(content)

    with pytest.raises(AppError) as caught:
        read_yaml(tmp_path / "f.yaml")

    assert (caught.value.code, caught.value.message) == (ErrorCode.CONFIG_INVALID, sentence)


def test_files__that_cannot_be_read_are_named_without_their_folder(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"^There is no file 'no\.yaml'\.$"):
        read_yaml(tmp_path / "no.yaml")
    with pytest.raises(AppError, match=rf"^'{re.escape(tmp_path.name)}' is no file that can be read\.$"):
        read_yaml(tmp_path)


def test_files__may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")

    assert read_yaml(tmp_path / "f.yaml") == {"a": 1}


def resolved(
    request: TrainRequest, *, parent: RunManifest | None = None, tokenizer: TokenizerManifest | None = None
) -> EffectiveRequest:
    """As a machine with three cores resolves it, on which every text has a content that depends on its name."""
    references = [
        None if name is None else CorpusRef(name=name, sha256=f"{sum(name.encode()):064x}", bytes=1)
        for name in (request.corpus, request.validation_corpus, request.test_corpus)
    ]
    assert references[0] is not None
    return resolve(
        request,
        corpus=references[0],
        validation_corpus=references[1],
        test_corpus=references[2],
        threads=request.threads or 3,
        parent=parent,
        tokenizer=tokenizer,
    )


def record_of(effective: EffectiveRequest, request: TrainRequest) -> RunRecord:
    return RunRecord(
        run_id="a-run",
        user_id=None,
        created_at=now(),
        request=request,
        effective=effective,
        request_hash=request_hash(effective),
    )


Strategies = dict[str, st.SearchStrategy[object]]
NONE: Strategies = {}


def drawn(required: Strategies, optional: Strategies = NONE) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries(required, optional=optional)


def fraction(below: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(0, below, exclude_max=True)


positive = st.floats(0, 1, exclude_min=True)
count = st.integers(1, 10_000)
text = st.text(min_size=1, max_size=30)
name = st.from_regex(r"[a-zçәı][a-z0-9 çә_-]{0,9}(/[a-z .]{1,5}x)?", fullmatch=True)
sizes = drawn(
    {},
    {
        "embedding_size": count,
        "hidden_size": count,
        "num_layers": st.integers(1, 9),
        "dropout": fraction(),
        "tied": st.booleans(),
    },
)
adam = drawn(
    {"name": st.sampled_from(["adam", "adamw"])},
    {"betas": st.tuples(fraction(), fraction()), "eps": positive, "weight_decay": fraction()},
)
sgd = drawn({"name": st.just("sgd")}, {"weight_decay": fraction()})
normalization = drawn({"lowercase": st.booleans()})
style = st.sampled_from(["gpt2", "gpt2_mask", "bert"])
tokenizer_block = (
    drawn(
        {"method": st.sampled_from(["char", "word"])},
        {"vocab_size": st.none() | count, "min_frequency": count, "normalization": normalization},
    )
    | drawn(
        {"method": st.sampled_from(["bpe", "wordpiece"])},
        {"vocab_size": count, "min_frequency": count, "special_style": style, "normalization": normalization},
    )
    | drawn(
        {"method": st.just("sentencepiece")},
        {"vocab_size": count, "model_type": st.sampled_from(["unigram", "bpe"]), "special_style": style},
    )
)
common: Strategies = {
    "label": st.none() | st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=64),
    "tags": st.lists(text, max_size=3),
    "provenance": st.none() | drawn({"source_corpus": text}),
    "split_by": st.sampled_from(["line", "file", "position"]),
    "validation_corpus": st.none() | name,
    "test_corpus": st.none() | name,
    "max_seq_len": st.integers(8, 4096),
    "num_epochs": st.integers(1, 1000),
    "max_steps": st.none() | count,
    "max_seconds": st.none() | positive,
    "batch_size": st.integers(1, 4096) | st.just("auto"),
    "gradient_accumulation": st.integers(1, 1024),
    "optimizer": adam | sgd,
    "learning_rate": positive,
    "lr_schedule": st.sampled_from(["constant", "linear", "cosine"]),
    "gradient_clipping": st.none() | positive,
    "holdout_fraction": st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    "test_fraction": fraction(0.5),
    "seed": st.integers(0, 2**32 - 1),
    "freeze_embeddings": st.booleans(),
    "early_stopping": drawn({"enabled": st.booleans(), "patience": st.integers(1, 100)}),
    "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
    "precision": st.sampled_from(["auto", "fp32"]),
    "threads": st.integers(0, 8),
    "data_num_workers": st.none() | st.integers(0, 64),
    "data_pin_memory": st.none() | st.booleans(),
    "checkpoint_every_steps": st.none() | count,
    "eval_every_steps": st.none() | count,
    "log_every_steps": count,
    "sample_every_steps": st.none() | count,
}
warmups = (
    st.just(dict[str, object]())
    | drawn({"warmup_steps": st.none() | count})
    | drawn({"warmup_ratio": st.none() | st.floats(0, 1)})
)
families = drawn(
    {"model_family": st.just("char_lstm")},
    {"model": drawn({"hidden_size": count}), "tokenizer": tokenizer_block},
) | drawn(
    {"model_family": st.sampled_from(["lstm", "gru", "rnn"]), "tokenizer": tokenizer_block},
    {"model": sizes},
)
presets = drawn({}, {"model_size": st.sampled_from(["tiny", "small", "base"])})


def one_request(parts: tuple[dict[str, object], ...]) -> TrainRequest:
    fields: dict[str, object] = {}
    for part in parts:
        fields |= part
    if "model_size" in fields:
        fields.pop("model", None)
    return train_request(fields)


@for_all(st.tuples(drawn({"corpus": name}, common), families, warmups, presets).map(one_request))
def test_any_run_written_as_a_file__is_the_same_request_again(request: TrainRequest) -> None:
    effective = resolved(request)

    written = parse_yaml(experiment_yaml(record_of(effective, request)), "f.yaml")
    assert isinstance(written, dict)
    experiment = read_experiment(written, {})
    again = resolved(experiment.request())

    assert request_hash(again) == request_hash(effective)
    unsaid: dict[str, object] = {"model_family": "lstm", "model_size": None, "label": None, "provenance": None}
    assert again.model_copy(update=unsaid) == effective.model_copy(update=unsaid)
    assert effective.label in (None, again.label)
    assert effective.provenance in (None, again.provenance)


def test_a_warm_start_written_as_a_file__names_its_parent_and_no_tokenizer_of_its_own() -> None:
    first = train_request(
        {"model_family": "gru", "corpus": "kk", "tokenizer": {"method": "char"}, "model": {"tied": True}}
    )
    parent = RunManifest(
        run_id="first",
        status="completed",
        request=first,
        effective=resolved(first),
        request_hash="a" * 64,
        timings=Timings(created=now(), finished=now()),
        seed=1,
    )
    stats = TokenizerStats(
        coverage=1,
        oov_rate=0,
        token_count=1,
        char_coverage=1,
        avg_tokens_per_char=1,
        avg_tokens_per_word=1,
        holdout_lines=1,
    )
    tokenizer = TokenizerManifest(
        tokenizer_id="tok-1",
        method="char",
        vocab_size=9,
        special_tokens={},
        normalization=Normalization(),
        corpus=(),
        config=CharTokenizerConfig(),
        stats=stats,
        seed=1,
        holdout_fraction=0.1,
        versions={},
        created_at=now(),
        files=(),
    )
    asked: dict[str, object] = {"model_family": "gru", "corpus": "ky", "init_from_run_id": "first"}
    request = train_request(asked)
    effective = resolved(request, parent=parent, tokenizer=tokenizer)

    written = parse_yaml(experiment_yaml(record_of(effective, request)), "f.yaml")
    assert isinstance(written, dict)
    experiment = read_experiment(written, {})
    again = resolved(experiment.request(), parent=parent, tokenizer=tokenizer)

    assert value_at(written, "run.init_from_run_id") == "first"
    assert value_at(written, "run.tokenizer") is None
    assert request_hash(again) == request_hash(effective)


def rnn(blocks: Blocks) -> dict[str, object]:
    block = blocks["model"]["rnn"]
    assert isinstance(block, dict)
    return block


@pytest.mark.parametrize("name_of_family", FAMILIES)
def test_run_of_any_family__written_as_a_file_is_the_same_request(name_of_family: str) -> None:
    wide: dict[str, object] = {"model": {"positions": 64, **block(FAMILIES[name_of_family], "model")}}
    for values in ({}, wide if name_of_family in TRANSFORMERS else {"mlm_probability": 0.3}):
        request = request_of_family(name_of_family, **values)
        effective = resolved(request)
        document = parse_yaml(experiment_yaml(record_of(effective, request)), "f.yaml")
        assert isinstance(document, dict)

        again = resolved(read_experiment(document, {}).request())

        assert request_hash(again) == request_hash(effective)
        assert ("positions" in str(document)) == (values == wide)
