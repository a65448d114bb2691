"""Experiment files for tests, and what is read from them."""

from collections.abc import Mapping
from types import MappingProxyType

from trainer.config.experiment_file import read_experiment
from trainer.config.presets import resolve
from trainer.config.validation import block, set_path
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunManifest, TrainRequest
from trainer.contracts.tokenizers import TokenizerManifest

Fields = dict[str, object]
RNN: Fields = {"embedding_size": 8, "hidden_size": 16, "num_layers": 1}
TRANSFORMER: Fields = {"layers": 2, "embedding_size": 16, "hidden_size": 16, "intermediate_hidden_size": 32}
TRANSFORMER |= {"attention_heads": 2, "dropout": 0.1, "attention_dropout": 0.2}
TRAINING: Fields = {"output_dir": "models/x", "learning_rate": 0.001, "adam_beta1": 0.9, "adam_beta2": 0.98}
TRAINING |= {"adam_epsilon": 1e-6, "epochs": 3, "max_grad_norm": None}
BLOCKS: Fields = {
    "experiment_name": "x",
    "random_seed": 3,
    "data": {"source_corpus": "web", "training_corpus": "kk", "batch_size": 4, "max_sequence_length": 32},
    "tokenizer": {"output_dir": "tok", "vocab_size": 50, "tokenizer_type": "character"},
    "model": {"architecture": "gru", "rnn": RNN},
    "training": TRAINING,
    "logging": {"log_metrics_every_n_steps": 7},
    "run": {},
}


def document(changes: Mapping[str, object] = MappingProxyType({})) -> Fields:
    """A file in block form with other values at some paths, of which `...` leaves the path out."""
    file = dict(BLOCKS)
    for path, value in changes.items():
        parent, _, name = path.rpartition(".")
        if value is not ...:
            set_path(file, path, value)
        elif parent:
            file[parent] = {key: inner for key, inner in block(file, parent).items() if key != name}
        else:
            del file[name]
    return file


def transformer(architecture: str = "gpt2", **changes: object) -> Fields:
    return {"architecture": architecture, "transformer": TRANSFORMER | changes}


def request_of(changes: Mapping[str, object] = MappingProxyType({}), **typed: object) -> TrainRequest:
    return read_experiment(document(changes), typed).request()


def resolved(
    request: TrainRequest, *, parent: RunManifest | None = None, tokenizer: TokenizerManifest | None = None
) -> EffectiveRequest:
    """As a machine with three cores resolves it, on which every text has a content that depends on its name."""
    references = [
        None if name is None else CorpusRef(name=name, sha256=f"{sum(name.encode()):064x}", bytes=1)
        for name in (request.corpus, request.validation_corpus, request.test_corpus)
    ]
    corpus, validation, test = references
    assert corpus is not None
    return resolve(
        request,
        corpus=corpus,
        validation_corpus=validation,
        test_corpus=test,
        parent=None if parent is None else parent.effective,
        tokenizer=tokenizer,
    )
