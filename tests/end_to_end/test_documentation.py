"""README.md and the pages of docs: commands run, examples are valid, and tables are complete."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from tests.support import ROOT, settings_in, some_text
from tests.support.inference import RUN, finished_run
from tests.support.pages import find
from tests.support.run_shell import Shell
from tests.support.tiny_models import tokenizer_of
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.experiments import ExperimentStore
from trainer.config import experiment_blocks as blocks
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.contracts.base import Frozen
from trainer.contracts.generations import GenerateRequest
from trainer.contracts.models import CONFIGS
from trainer.contracts.readings import LIMITS_MS, MEASURES, Predictor, ReadingOptions, Reason
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizers import METHODS
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request

BLOCKS: dict[str, type[Frozen]] = {
    "data": blocks.DataBlock,
    "tokenizer": blocks.TokenizerBlock,
    "model": blocks.ArchitectureBlock,
    "model.rnn": blocks.RnnBlock,
    "model.transformer": blocks.TransformerBlock,
    "model.bert": blocks.BertBlock,
    "training": blocks.TrainingBlock,
    "logging": blocks.LoggingBlock,
}


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def commands(name: str) -> list[list[str]]:
    """The words of each command in the shell blocks of a page, without `mt`; text that is piped in comes first."""
    lines = [line for block in page(name).split("```sh\n")[1:] for line in block.split("```")[0].splitlines()]
    return [[typed, *shlex.split(line)[1:]] for typed, _, line in (line.rpartition(" | ") for line in lines)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shown", "file"),
    [
        ("experiment", [], "report/report.html"),
        (
            "batteries",
            ["agreement", "order", "mean over paradigms", "p (Holm)", "All numbers are those of result.json."],
            "results/report.html",
        ),
        (
            "development",
            ["pairs", "test: bits per character", "age of acquisition", "All numbers are those of result.json."],
            "results/accuracy.png",
        ),
        ("generating", [], ""),
        ("tokenizers", ["bpe-"], ""),
        ("corpora", [], "built/udhr_ipa_kk_ipa.txt"),
    ],
)
def test_page__commands_run_in_order(name: str, shown: list[str], file: str, lab_shell: Shell) -> None:
    """`RUN` and `RUN1` are the first run that the page trains; other names are the newest battery and experiment."""
    for language in ("kk", "tr"):
        lab_shell.write(f"texts/{language}.txt", (ROOT / "corpora" / "udhr_ipa" / f"{language}.txt").read_bytes())
    lab_shell.write("text.txt", some_text(200))
    lab_shell.write("stories.txt", some_text(5000))
    lab_shell.write("pairs.csv", "".join(find(r"```csv\n((?:.|\n)*?)```", page(name))))
    (lab_shell.folder / "corpora").symlink_to(ROOT / "corpora")
    trained, said = list[str](), ""

    def id_of(found: re.Match[str]) -> str:
        match found[0]:
            case "ID":
                return next(iter(BatteryStore(lab_shell.artifacts).names()))
            case "EXPERIMENT":
                return ExperimentStore(lab_shell.artifacts).all()[0].experiment_id
            case run:
                return trained[int(run[3:] or 1) - 1]

    for typed, *words in commands(name):
        said += lab_shell.type(*(re.sub(r"\b(RUN\d?|ID|EXPERIMENT)\b", id_of, word) for word in words), typed=typed)
        said += lab_shell.err
        if words[0] == "train":
            trained.append(lab_shell.runs.all()[0].run_id)
    assert [text for text in shown if text not in said] == []
    assert (lab_shell.folder / file).exists()


SCORING = find(r"^mt (.*)$", page("scoring"))


@pytest.mark.parametrize("command", SCORING)
def test_scoring_page__each_command_runs(command: str, lab_shell: Shell) -> None:
    assert len(SCORING) == 11
    if not (lab_shell.artifacts / "models" / RUN).exists():
        finished_run(lab_shell.root)
    lab_shell.write("text.txt", "the sun was\n\nshining on\u0416\r\n")
    lab_shell.write("items.csv", "sentence,subject,verb\nthe sun was,sun,was\n")
    lab_shell.write("items.tsv", "before\tr1\tr2\tr3\nthe sun\tis\t\tshining\n")
    lab_shell.write("words.tsv", "item\tcondition\tword\n1\ta\tthe\n1\ta\tsun\n1\tb\tthe\n")
    lab_shell.type(*shlex.split(command.replace("RUN", RUN)))
    assert ("--items" in command) == lab_shell.err.endswith("`log_frequency` is empty\n")
    assert lab_shell.err.count("was not searched for in it.\n") == command.count("--path") + command.count("--items")
    assert lab_shell.err.count("\n") == command.count("--path") + 2 * command.count("--items")
    for name in find(r"(?:--out|--heatmap) (\S+)", command):
        assert (lab_shell.folder / name).stat().st_size > 0


@pytest.mark.parametrize("name", ["architectures", "objectives"])
def test_page__example_trainings_are_valid(name: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    examples = find(r"^mt train (.*)$", page(name))
    assert examples
    for words in examples:
        assert "Valid. Nothing was started." in shell.type("validate", *words.split())


def first_cells(section: str) -> list[str]:
    """The code in the first cells of the rows of a section's table."""
    return [name for cell in find(r"^\| (`[^|]*) \|", section) for name in find(r"`(\w+)`", cell)]


def test_reading_page__has_all_columns_reasons_limits_and_predictors() -> None:
    sections = {part.split("\n")[0]: part for part in page("reading").split("\n## ")}
    left_out, options = sections["What is left out"], ReadingOptions()
    assert sorted(first_cells(sections["The table"])) == sorted(["text", "position", "word", "person", "rt", *MEASURES])
    reasons: tuple[Reason, ...] = get_args(Reason)
    predictors: tuple[Predictor, ...] = get_args(Predictor)
    assert first_cells(left_out) == [*reasons]
    assert first_cells(sections["The predictors"]) == [*predictors]
    limits = [f"{low:,.0f} to {high:,.0f}" for low, high in LIMITS_MS.values()]
    assert find(r"[\d,]+ to [\d,]+", left_out) == limits[:-1] and limits[-1] == limits[-2]
    assert f"exclude='[{','.join(options.exclude)}]'`, the default" in left_out
    assert "length, log frequency and position" in sections["The predictors"]
    assert options.baseline == ("length", "log_frequency", "position")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["configuration", "training"])
def test_page__example_experiment_file_is_valid(name: str, tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(page(name).split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    settings = settings_in(tmp_path)
    experiment = read_experiment(read_yaml(file), {})
    assert experiment.errors == ()
    asyncio.run(resolve_request(experiment.request(), CorpusStore(settings), settings))


def keys() -> dict[str, FieldInfo]:
    """Every key of an experiment file by its path; a block is none."""
    fields = {name: field for name, field in blocks.BlockFile.model_fields.items() if name != "run"}
    for path, block in BLOCKS.items():
        fields |= {f"{path}.{name}": field for name, field in block.model_fields.items()}
    return {path: field for path, field in fields.items() if path not in BLOCKS}


def shown_default(field: FieldInfo) -> str:
    value: object = field.default
    if field.is_required():
        return "required"
    return value if isinstance(value, str) else to_json(value).decode()


@pytest.mark.slow
def test_configuration_page__has_every_key_with_its_default() -> None:
    rows: list[tuple[str, str]] = re.findall(
        r"^\| `([^`]+)` \| .+ \| ([^|]+) \| [^|]+ \|$", page("configuration"), re.MULTILINE
    )
    of_blocks = {path: default for path, default in rows if not path.startswith("run.")}
    assert of_blocks == {path: shown_default(field) for path, field in keys().items()}
    assert set(find(r"`run\.(\w+)`", page("configuration"))) <= set(TrainRequest.model_fields)


@pytest.mark.slow
def test_tokenizer_page__python_example_gives_our_token_ids(tmp_path: Path) -> None:
    [program] = find(r"```python\n((?:.|\n)*?)```", page("tokenizers"))
    made = [tokenizer_of(method, ["a text of a few words", "a text"] * 3) for method in ("bpe", "sentencepiece")]
    for tokenizer in made:
        tokenizer.save(tmp_path)
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == [str(tokenizer.encode("a text")) for tokenizer in made]


@pytest.mark.slow
def test_pages__name_all_methods_architectures_and_options() -> None:
    for method in METHODS:
        specials = " ".join(tokenizer_of(method, ["a text"] * 3).manifest.special_tokens)
        assert find(rf"^\| `{method}` \|.*`{re.escape(specials)}`", page("tokenizers")), specials
    families = " ".join(find(r"(?m)^\| (.*?) \|", page("architectures")))
    assert all(f"`{name}`" in families for name in (*CONFIGS, "char_lstm", "bidirectional"))
    fields = [name for name in GenerateRequest.model_fields if not re.search(f"`{name}[` ]", page("generating"))]
    assert fields == ["prompt_path"]
    pictures = find(r"!\[[^\]]+\]\(([^)]+)\)", page("experiment"))
    assert len(pictures) == 2
    assert all((ROOT / "docs" / picture).stat().st_size > 10_000 for picture in pictures)
