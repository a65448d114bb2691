"""`mt validate` and `mt config`: a file is checked without starting anything, and any run is written as one."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, settings_in, some_text
from tests.support.run_shell import Shell, sets
from trainer.config.presets import request_hash
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request

SHIPPED = sorted(set((ROOT / "configs").glob("*.yaml")) - set((ROOT / "configs").glob("experiment_*.yaml")))
FOLDER_NOTE = "mt: Ignored settings: `training.output_dir`. Each run has its own folder and log.\n"


def hash_of(shell: Shell, *words: str) -> str:
    """The request hash that `mt validate` shows to a person."""
    out = shell.type("validate", *words)
    assert shell.err in ("", FOLDER_NOTE)
    [line] = [line for line in out.splitlines() if line.startswith("request hash")]
    return line.split()[-1]


@pytest.mark.parametrize("config", SHIPPED, ids=[path.name for path in SHIPPED])
def test_validate__shipped_config_and_its_json_have_the_same_hash(config: Path, shell: Shell) -> None:
    request = shell.read(TrainRequest, "validate", str(config))
    has_blocks = config.name.startswith("test_") and config.name != "test_ngram_tiny.yaml"
    assert shell.err == (FOLDER_NOTE if has_blocks else "")
    settings = settings_in(shell.folder)
    posted = asyncio.run(resolve_request(request, CorpusStore(settings), settings))
    assert request_hash(posted) == hash_of(shell, str(config))
    assert list(shell.folder.iterdir()) == []  # nothing was started or written


def test_validate__json_has_only_the_given_fields(shell: Shell) -> None:
    add_corpus(shell.folder, some_text())
    words = ("validate", str(ROOT / "configs" / "char_lstm_ipa.yaml"), "--corpus", "text")
    request = shell.read(TrainRequest, *words, *sets("learning_rate=1e-3", "label=123"))
    assert (request.corpus, request.learning_rate, request.label) == ("text", 0.001, "123")
    assert "threads" not in request.model_fields_set


@pytest.mark.parametrize("corpus", ["mine.txt", "mine.csv", "plain", "texts", "mine.jsonl", "demo"])
def test_validate__takes_a_corpus_in_place_of_an_experiment_file(corpus: str, shell: Shell) -> None:
    lines = [f"{number}: {line}" for number, line in enumerate(some_text().splitlines())]
    for name in ("mine.txt", "plain", "texts/a.txt"):
        shell.write(name, "\n".join(lines))
    shell.write("mine.csv", "\n".join(["text", *(json.dumps(line) for line in lines)]))
    shell.write("mine.jsonl", "\n".join(json.dumps(line) for line in lines))
    wanted = hash_of(shell, "--corpus", corpus, "--model", "gru")
    assert hash_of(shell, corpus, "--model", "gru") == hash_of(shell, "--model", "gru", corpus) == wanted


def test_validate__takes_an_experiment_file_without_suffix_or_from_a_pipe(shell: Shell) -> None:
    request = {"model_family": "gru", "corpus": "demo"}
    for name in ("again", "again.JSON"):
        shell.write(name, json.dumps(request))
    read, write = os.pipe()
    os.write(write, json.dumps(request).encode())
    os.close(write)
    wanted = hash_of(shell, "demo", "--model", "gru")
    assert [hash_of(shell, name) for name in ("again", "again.JSON", f"/dev/fd/{read}")] == [wanted] * 3
    os.close(read)
    shell.write("verses", (ROOT / "corpora" / "demo.txt").read_bytes())
    by_option = hash_of(shell, "--corpus", "verses", "--model", "gru")
    assert hash_of(shell, "verses", "--model", "gru") == by_option


def test_validate__shows_one_problem_per_line(shell: Shell) -> None:
    config = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
    spoiled = config.replace("epochs: 5", "epochs: 0").replace("corpus: demo", "corpus: nix\n  test_corpus: two.txt")
    shell.write("two.txt", b"a\xff")
    shell.write("x.yaml", spoiled)
    for command in ("validate", "train"):
        assert shell.type(command, "x.yaml", code=2) == ""
        assert shell.err.splitlines() == [
            "mt: `training.epochs` must be greater than or equal to 1, you gave 0"
            " (allowed: an integer ≥ 1 and ≤ 1000).",
            "mt: `data.training_corpus`: There is no corpus 'nix'; known are demo, udhr_ipa.",
            "mt: `data.test_corpus`: 'two.txt' is not UTF-8: byte 1 cannot be decoded. Save the text as UTF-8.",
        ]
        body = shell.error(command, "x.yaml")
        assert body.code is ErrorCode.CONFIG_INVALID
        assert [(problem.path, problem.value) for problem in body.details] == [
            ("training.epochs", "0"),
            ("data.training_corpus", "'nix'"),
            ("data.test_corpus", "'two.txt'"),
        ]


def test_train__names_the_fields_of_wrong_corpora(shell: Shell) -> None:
    add_corpus(shell.folder, "a\nb\n", "two")
    add_corpus(shell.folder, "", "nothing")

    def problems(*assignments: str) -> list[tuple[str, str | None]]:
        return [(problem.path, problem.value) for problem in shell.error("train", *sets(*assignments)).details]

    assert problems("corpus=two") == [("corpus", "'two'")]  # too short for three splits
    assert problems("corpus=two", "test_corpus=nothing", "init_from_run_id=nobody") == [
        ("init_from_run_id", "'nobody'"),
        ("test_corpus", "'nothing'"),
    ]
    assert problems("corpus=nix", "corpus=", "validation_corpus=5", "seed=x") == [
        ("seed", "'x'"),
        ("corpus", "''"),
        ("validation_corpus", "'5'"),
    ]


def test_config__of_a_run_is_a_file_with_the_same_hash(shell: Shell) -> None:
    run = shell.add_finished_run()
    out = shell.type("config", run.run_id)
    assert shell.err == ""
    shell.write("again.yaml", out)
    assert hash_of(shell, "again.yaml") == run.record().request_hash
    answer: dict[str, object] = json.loads(shell.type("config", run.run_id, "--json"))
    assert answer == {"yaml": out}


def test_validate__shows_values_chosen_by_rules_with_reasons(shell: Shell) -> None:
    out = shell.type("validate", "--corpus", "demo", "--learning-rate", "0.02")
    _, chosen = out.split("Values by rule, unless you give others:\n")
    reasons = {line.split()[0]: line.split(maxsplit=2)[1:] for line in chosen.splitlines()}
    assert reasons["num_epochs"] == ["31", "a short text is read more often: 92,000 training tokens"]
    assert reasons["early_stopping.patience"] == ["6", "a fifth of the epochs, at least 3"]
    assert "learning_rate" not in reasons
    assert "Values by rule" not in shell.type("validate", "test_ngram_tiny")
    of_characters = "tokenizer.method char better with a short text: 90,000 training characters"
    out = shell.type("validate", "--corpus", "demo", "--model", "gpt2")
    assert of_characters in [" ".join(line.split()) for line in out.splitlines()]


def test_cost__is_shown_before_a_training_and_one_that_cannot_fit_is_refused(shell: Shell) -> None:
    config = str(ROOT / "configs" / "char_lstm_ipa.yaml")
    out = shell.type("validate", config)
    assert "It has about 9" in out and "parameters and needs about 1.2 GiB of memory and" in out
    words = (config, *sets("model={num_layers: 500, hidden_size: 30000}", "device=cpu"))
    told = [shell.refuse("validate", *words), shell.refuse("train", *words), shell.error("validate", *words).message]
    assert all("This training needs at least" in one and "and this machine has" in one for one in told)
    assert list(shell.folder.iterdir()) == []
