"""`mt validate` and `mt config`: a file is checked without starting anything, and any run is written as one."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support import ROOT, add_corpus, environment_in, settings_in, some_text
from trainer.artifacts.runs import RunStore
from trainer.commands.main import main
from trainer.config.presets import request_hash
from trainer.config.validation import parse_json
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.contracts.runs import TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request

SHIPPED = sorted(set((ROOT / "configs").glob("*.yaml")) - set((ROOT / "configs").glob("experiment_*.yaml")))
EARLIER = ROOT / "tests" / "fixtures" / "finished_run"
FOLDER_NOTE = "mt: Ignored settings: `training.output_dir`. Each run has its own folder and log.\n"


class Shell:
    """A folder to type `mt` in."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def type(self, *words: str) -> tuple[int, str, str]:
        """Run a command in this process; return exit code, standard output, standard error."""
        code = main(words)
        out, err = self._capsys.readouterr()
        return code, out, err

    def hash_of(self, *words: str) -> str:
        """The request hash that `mt validate` shows to a person."""
        code, out, err = self.type("validate", *words)
        assert code == 0 and err in ("", FOLDER_NOTE)
        [line] = [line for line in out.splitlines() if line.startswith("request hash")]
        return line.split()[-1]

    def hash_of_posted(self, json: str) -> str:
        """The request hash of a train request that comes as JSON."""
        settings = settings_in(self.folder)
        request = parse_json(TrainRequest, json)
        return request_hash(asyncio.run(resolve_request(request, CorpusStore(settings), settings)))


@pytest.fixture(name="shell")
def shell_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name, value in environment_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOGGING__LEVEL", raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


@pytest.mark.parametrize("config", SHIPPED, ids=[path.name for path in SHIPPED])
def test_validate__shipped_config_and_its_json_are_the_same_request(config: Path, shell: Shell) -> None:
    code, out, err = shell.type("validate", str(config), "--json")
    assert (code, err, out.count("\n")) == (0, FOLDER_NOTE if config.name.startswith("test_") else "", 1)
    assert shell.hash_of_posted(out) == shell.hash_of(str(config))
    assert list(shell.folder.iterdir()) == []  # nothing was started or written


def test_validate__json_holds_what_was_given_and_nothing_else(shell: Shell) -> None:
    add_corpus(shell.folder, some_text())
    words = [
        "validate",
        str(ROOT / "configs" / "char_lstm_ipa.yaml"),
        "--corpus",
        "text",
        "--set",
        "learning_rate=1e-3",
    ]
    code, out, _ = shell.type(*words, "--set", "label=123", "--json")
    request = parse_json(TrainRequest, out)
    assert code == 0
    assert (request.corpus, request.learning_rate, request.label) == ("text", 0.001, "123")
    assert "early_stopping" not in request.model_fields_set


@pytest.mark.parametrize("corpus", ["mine.txt", "mine.csv", "plain", "texts", "mine.jsonl", "demo"])
def test_validate__takes_a_corpus_in_the_place_of_an_experiment_file(corpus: str, shell: Shell) -> None:
    lines = [f"{number}: {line}" for number, line in enumerate(some_text().splitlines())]
    (shell.folder / "texts").mkdir()
    for name in ("mine.txt", "mine.csv", "plain", "texts/a.txt"):
        (shell.folder / name).write_text("\n".join(lines), encoding="utf-8")
    (shell.folder / "mine.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    wanted = shell.hash_of("--corpus", corpus, "--model", "gru")
    assert shell.hash_of(corpus, "--model", "gru") == shell.hash_of("--model", "gru", corpus) == wanted


def test_validate__takes_an_experiment_file_without_its_suffix_or_from_a_pipe(shell: Shell) -> None:
    request = {"model_family": "gru", "corpus": "demo"}
    for name in ("again", "again.JSON"):
        (shell.folder / name).write_text(json.dumps(request), encoding="utf-8")
    read, write = os.pipe()
    os.write(write, json.dumps(request).encode())
    os.close(write)
    wanted = shell.hash_of("demo", "--model", "gru")
    assert [shell.hash_of(name) for name in ("again", "again.JSON", f"/dev/fd/{read}")] == [wanted] * 3
    os.close(read)
    (shell.folder / "verses").write_bytes((ROOT / "corpora" / "demo.txt").read_bytes())
    by_option = shell.hash_of("--corpus", "verses", "--model", "gru")
    assert shell.hash_of("verses", "--model", "gru") == by_option


def test_validate__tells_a_person_of_each_problem_in_a_line_of_its_own(shell: Shell) -> None:
    config = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
    spoiled = config.replace("epochs: 5", "epochs: 0").replace("corpus: demo", "corpus: nix\n  test_corpus: two.txt")
    (shell.folder / "two.txt").write_bytes(b"a\xff")
    (shell.folder / "x.yaml").write_text(spoiled, encoding="utf-8")
    for command in ("validate", "train"):
        code, out, err = shell.type(command, "x.yaml")

        assert (code, out) == (2, "")
        assert err.splitlines() == [
            "mt: `training.epochs` must be greater than or equal to 1, you gave 0"
            " (allowed: an integer ≥ 1 and ≤ 1000).",
            "mt: `data.training_corpus`: There is no corpus 'nix'; known are demo, udhr_ipa.",
            "mt: `data.test_corpus`: 'two.txt' is not UTF-8: byte 1 cannot be decoded. Save the text as UTF-8.",
        ]
        body = ErrorBody.model_validate_json(shell.type(command, "x.yaml", "--json")[1])
        assert body.code is ErrorCode.CONFIG_INVALID
        assert [(problem.path, problem.value) for problem in body.details] == [
            ("training.epochs", "0"),
            ("data.training_corpus", "'nix'"),
            ("data.test_corpus", "'two.txt'"),
        ]


def test_validate__an_unfinished_file_is_told_all_that_it_lacks(shell: Shell) -> None:
    (shell.folder / "x.yaml").write_text("experiment_name: x\nrandom_seed: 3\n", encoding="utf-8")
    for command in ("validate", "train", "selftest"):
        code, _, err = shell.type(command, "x.yaml")
        missing = [line.split("`")[1] for line in err.splitlines()]
        assert (code, missing) == (2, ["data", "tokenizer", "model", "training", "logging"])


def test_validate__takes_some_fields_from_a_file_and_the_rest_from_what_is_typed(shell: Shell) -> None:
    add_corpus(shell.folder, some_text())
    (shell.folder / "x.yaml").write_text("model_family: gru\nmodel: {hidden_size: 9}\n", encoding="utf-8")
    options = ["--corpus", "text", "--set", "model_size=tiny", "--set", "max_seq_len=16"]
    code, out, err = shell.type("validate", "x.yaml", *options, "--json")
    assert (code, err) == (0, "")
    made = parse_json(TrainRequest, out)
    assert (made.model_family, made.model_size, made.corpus, made.label) == ("gru", "tiny", "text", "text")


@pytest.mark.parametrize("said", ["", "model: {dropout: 0.5}\n"])
def test_warm_start__takes_the_family_of_its_parent(shell: Shell, said: str) -> None:
    shutil.copytree(EARLIER, shell.folder, dirs_exist_ok=True)
    parent = next((shell.folder / "artifacts" / "models").iterdir())
    for name in ("request.json", "manifest.json"):
        text = (parent / name).read_text(encoding="utf-8")
        (parent / name).write_text(text.replace('"char_lstm"', '"lstm"'), encoding="utf-8")
    (shell.folder / "x.yaml").write_text(f"init_from_run_id: {parent.name}\n{said}", encoding="utf-8")
    code, out, err = shell.type("validate", "x.yaml", "--corpus", "text", "--json")
    assert (code, err) == (0, "")
    assert parse_json(TrainRequest, out).model_family == "lstm"


def test_train__texts_are_told_by_the_fields_that_name_them_with_all_else(shell: Shell) -> None:
    add_corpus(shell.folder, "a\nb\n", "two")
    add_corpus(shell.folder, "", "nothing")

    def problems(*assignments: str) -> list[tuple[str, str | None]]:
        words = [word for assignment in assignments for word in ("--set", assignment)]
        code, out, _ = shell.type("train", *words, "--json")
        assert code == 2
        return [(problem.path, problem.value) for problem in ErrorBody.model_validate_json(out).details]

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
    shutil.copytree(EARLIER, shell.folder, dirs_exist_ok=True)
    [run] = RunStore(shell.folder / "artifacts").all()
    code, out, err = shell.type("config", run.run_id)
    (shell.folder / "again.yaml").write_text(out, encoding="utf-8")
    assert (code, err) == (0, "")
    assert shell.hash_of("again.yaml") == run.record().request_hash
    answer: dict[str, object] = json.loads(shell.type("config", run.run_id, "--json")[1])
    assert answer == {"yaml": out}


def test_cost__is_told_before_a_training_and_what_cannot_fit_is_not_begun(shell: Shell) -> None:
    config = str(ROOT / "configs" / "char_lstm_ipa.yaml")
    too_large = ["--set", "model={num_layers: 500, hidden_size: 30000}", "--set", "device=cpu"]
    code, out, _ = shell.type("validate", config)
    assert code == 0
    assert "It needs about 9" in out and "parameters, about 1.2 GiB of memory and" in out
    for words in (
        ["validate", config, *too_large],
        ["train", config, *too_large],
        ["validate", config, *too_large, "--json"],
    ):
        code, out, err = shell.type(*words)
        assert (code, out == "") == (2, "--json" not in words)
        assert "This training needs at least" in out + err and "and this machine has" in out + err
    assert list(shell.folder.iterdir()) == []
