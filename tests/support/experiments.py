"""Experiment files for tests, and what is read from them."""

from collections.abc import Callable

import pytest

from trainer.config.experiment_file import read_experiment
from trainer.config.presets import resolve
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunManifest, TrainRequest
from trainer.contracts.tokenizers import TokenizerManifest

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
        parent=parent,
        tokenizer=tokenizer,
    )


def rnn(blocks: Blocks) -> dict[str, object]:
    block = blocks["model"]["rnn"]
    assert isinstance(block, dict)
    return block
