"""Short option names of `/mt train` and `mt train`, and the field of the train request that each one sets."""

from collections.abc import Mapping
from typing import NamedTuple

from trainer.contracts.tokenizers import METHODS


class RequestOption(NamedTuple):
    """An option: the field it sets and a description of at most 100 characters, as Discord allows."""

    field: str
    help: str


TRAIN_OPTIONS = {
    "corpus": RequestOption("corpus", "Corpus to train on: its name, or the path of a text file on the command line"),
    "model": RequestOption("model_family", "Model family: char_lstm, lstm, gru, rnn, gpt2, llama, qwen or bert"),
    "size": RequestOption("model_size", "Preset of the model's sizes, such as tiny, small or base"),
    "epochs": RequestOption("num_epochs", "Passes over the training split"),
    "max_steps": RequestOption("max_steps", "Stop after this many optimizer steps"),
    "batch_size": RequestOption("batch_size", "Rows per batch, or auto"),
    "learning_rate": RequestOption("learning_rate", "Learning rate at its highest"),
    "tokenizer": RequestOption("tokenizer", f"{', '.join(METHODS)}, or the id of a trained tokenizer"),
    "seed": RequestOption("seed", "Seed of every random choice but the splits"),
    "name": RequestOption("label", "Name of the run; default: the name of the corpus"),
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
    turns early stopping off.
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
        else:
            fields[TRAIN_OPTIONS[name].field] = value
    return fields
