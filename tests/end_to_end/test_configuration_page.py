"""docs/configuration.md: every key of an experiment file with its default, and an example that is valid."""

import asyncio
import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from tests.support import ROOT, settings_in
from trainer.config.experiment_blocks import (
    ArchitectureBlock,
    BertBlock,
    BlockFile,
    DataBlock,
    LoggingBlock,
    RnnBlock,
    TokenizerBlock,
    TrainingBlock,
    TransformerBlock,
)
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.contracts.base import Frozen
from trainer.contracts.runs import TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
BLOCKS: dict[str, type[Frozen]] = {
    "data": DataBlock,
    "tokenizer": TokenizerBlock,
    "model": ArchitectureBlock,
    "model.rnn": RnnBlock,
    "model.transformer": TransformerBlock,
    "model.bert": BertBlock,
    "training": TrainingBlock,
    "logging": LoggingBlock,
}


def keys() -> dict[str, FieldInfo]:
    """Every key of a file by its path; a block is none."""
    found = {name: field for name, field in BlockFile.model_fields.items() if name not in (*BLOCKS, "run")}
    for path, block in BLOCKS.items():
        fields = {f"{path}.{name}": field for name, field in block.model_fields.items()}
        found |= {name: field for name, field in fields.items() if name not in BLOCKS}
    return found


def shown_default(field: FieldInfo) -> str:
    value: object = field.default
    if field.is_required():
        return "required"
    return value if isinstance(value, str) else to_json(value).decode()


def test_page__has_every_key_with_its_default_and_no_other() -> None:
    rows: list[tuple[str, str]] = re.findall(r"^\| `([^`]+)` \| .+ \| ([^|]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    of_blocks = {path: default for path, default in rows if not path.startswith("run.")}
    assert of_blocks == {path: shown_default(field) for path, field in keys().items()}


def test_page__names_only_fields_of_the_request_under_run() -> None:
    named: list[str] = re.findall(r"`run\.(\w+)`", PAGE)
    assert set(named) - set(TrainRequest.model_fields) == set()


@pytest.mark.parametrize("page", ["configuration.md", "training.md"])
def test_example_of_a_page__is_valid(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    file = tmp_path / "example.yaml"
    file.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    settings = settings_in(tmp_path)
    experiment = read_experiment(read_yaml(file), {})
    assert experiment.errors == ()
    asyncio.run(resolve_request(experiment.request(), CorpusStore(settings), settings))
