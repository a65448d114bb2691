"""README.md and the pages of docs: commands run, examples are valid, and tables are complete."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

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
def test_experiment_page__its_commands_lead_to_a_report(shell: Shell) -> None:
    for language in ("kk", "tr"):
        shell.write(f"texts/{language}.txt", (ROOT / "corpora" / "udhr_ipa" / f"{language}.txt").read_bytes())
    experiments = ExperimentStore(shell.artifacts)
    for _, *words in commands("experiment"):
        found = [one.experiment_id for one in experiments.all()][:1]
        assert shell.type(*(found[0] if word == "EXPERIMENT" else word for word in words))
    assert len(experiments.all()) == 2
    assert (shell.folder / "report" / "report.html").exists()


@pytest.mark.slow
def test_batteries_page__leads_from_a_corpus_to_the_table(lab_shell: Shell) -> None:
    lab_shell.write("text.txt", some_text(200))
    lab_shell.write("pairs.csv", page("batteries").split("```csv\n")[1].split("```")[0])
    ids: dict[str, str] = {}
    for _, *words in commands("batteries"):
        out = lab_shell.type(*(ids.get(word, word) for word in words))
        if words[0] == "train":
            ids[f"RUN{len(ids) + 1}"] = lab_shell.runs.all()[0].run_id
        elif words[1] == "run":
            [ids["ID"], *_] = BatteryStore(lab_shell.artifacts).names()
            assert all(name in out for name in ("agreement", "order", "mean over paradigms", "p (Holm)"))
    assert "All numbers are those of result.json." in lab_shell.err
    assert (lab_shell.folder / "results" / "report.html").exists()


@pytest.mark.slow
def test_development_page__leads_from_a_training_to_the_curves(lab_shell: Shell) -> None:
    lab_shell.write("stories.txt", some_text(5000))
    lab_shell.write("pairs.csv", page("development").split("```csv\n")[1].split("```")[0])
    ids: dict[str, str] = {}
    for _, *words in commands("development"):
        run, at, checkpoint = (words[1] if len(words) > 1 else "").partition("@")
        out = lab_shell.type(
            *(ids.get(word, word) for word in (words[0], f"{ids.get(run, run)}{at}{checkpoint}", *words[2:]))
        )
        if words[0] == "train":
            ids["RUN"] = lab_shell.runs.all()[0].run_id
        elif words[0] == "develop":
            [ids["ID"], *_] = BatteryStore(lab_shell.artifacts).names()
            assert all(name in out for name in ("step", "pairs", "test: bits per character", "age of acquisition"))
    assert "All numbers are those of result.json." in lab_shell.err
    assert (lab_shell.folder / "results" / "accuracy.png").exists()


@pytest.mark.slow
def test_generating_page__its_commands_run(lab_shell: Shell) -> None:
    (_, *training), *asking = commands("generating")
    lab_shell.type(*training)
    run_id = lab_shell.runs.all()[0].run_id
    for typed, *words in asking:
        assert lab_shell.type(*(run_id if word == "RUN" else word for word in words), typed=typed)


@pytest.mark.slow
def test_tokenizer_page__its_commands_run(shell: Shell) -> None:
    for _, *words in commands("tokenizers"):
        shell.type(*words)
    assert "bpe-" in shell.type("tokenizer", "list")


@pytest.mark.slow
def test_corpus_page__its_commands_run(shell: Shell) -> None:
    (shell.folder / "corpora").symlink_to(ROOT / "corpora")
    for _, *words in commands("corpora"):
        shell.type(*words)


SCORING = find(r"^mt (.*)$", page("scoring"))


@pytest.mark.parametrize("command", SCORING)
def test_scoring_page__its_command_runs_as_it_stands(command: str, lab_shell: Shell) -> None:
    assert len(SCORING) == 11
    if not (lab_shell.artifacts / "models" / RUN).exists():
        finished_run(lab_shell.root)
    lab_shell.write("text.txt", "the sun was\n\nshining on\u0416\r\n")
    lab_shell.write("items.csv", "sentence,subject,verb\nthe sun was,sun,was\n")
    lab_shell.write("items.tsv", "before\tr1\tr2\tr3\nthe sun\tis\t\tshining\n")
    lab_shell.write("words.tsv", "item\tcondition\tword\n1\ta\tthe\n1\ta\tsun\n1\tb\tthe\n")
    lab_shell.type(*shlex.split(command.replace("RUN", RUN)))
    assert lab_shell.err.endswith("`log_frequency` is empty\n" if "--items" in command else "")
    assert lab_shell.err.count("\n") == command.count("--items")
    for name in find(r"(?:--out|--heatmap) (\S+)", command):
        assert (lab_shell.folder / name).stat().st_size > 0


@pytest.mark.parametrize("name", ["architectures", "objectives"])
def test_page__its_trainings_are_valid(name: str, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    examples = find(r"^mt train (.*)$", page(name))
    assert examples
    for words in examples:
        assert "Valid. Nothing was started." in shell.type("validate", *words.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["configuration", "training"])
def test_page__its_experiment_file_is_valid(name: str, tmp_path: Path) -> None:
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
def test_tokenizer_page__its_python_gives_the_ids_of_the_program(tmp_path: Path) -> None:
    [program] = find(r"```python\n((?:.|\n)*?)```", page("tokenizers"))
    made = [tokenizer_of(method, ["a text of a few words", "a text"] * 3) for method in ("bpe", "sentencepiece")]
    for tokenizer in made:
        tokenizer.save(tmp_path)
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == [str(tokenizer.encode("a text")) for tokenizer in made]


@pytest.mark.slow
def test_pages__name_what_they_are_about() -> None:
    for method in METHODS:
        specials = " ".join(tokenizer_of(method, ["a text"] * 3).manifest.special_tokens)
        assert find(rf"^\| `{method}` \|.*`{re.escape(specials)}`", page("tokenizers")), specials
    assert all(f"| {name} |" in page("training") for name in {*CONFIGS, "lstm-bidirectional"} - {"ngram"})
    fields = [name for name in GenerateRequest.model_fields if not re.search(f"`{name}[` ]", page("generating"))]
    assert fields == ["prompt_path"]
    pictures = find(r"!\[[^\]]+\]\(([^)]+)\)", page("experiment"))
    assert len(pictures) == 2
    assert all((ROOT / "docs" / picture).stat().st_size > 10_000 for picture in pictures)
