"""What is typed on the command line on its way into a request: fields, and files of this machine as corpora."""

from pathlib import Path

from pydantic import BaseModel

from trainer.config.nested_dict import put
from trainer.config.yaml import parse_yaml
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import shown_name, takes_any_text
from trainer.data.corpora import CorpusStore


def assign(record: type[BaseModel], fields: dict[str, object], assignment: str) -> None:
    """Put KEY=VALUE into the fields of a record; dots in KEY lead into blocks, VALUE is YAML or, for a name, text."""
    key, equals, text = assignment.partition("=")
    if not key or not equals:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--set {shown_name(assignment)}` must have the form KEY=VALUE.")
    is_plain = takes_any_text(record, key) and text not in ("null", "~") and text[:1] not in ("'", '"')
    put(fields, key, text if is_plain else parse_yaml(text, f"--set {shown_name(key)}"))


async def corpus_name(name: str, yaml_file: Path | None, corpora: CorpusStore) -> str:
    """The name under which a request finds a corpus: a file of this machine is offered by its content (DEC D06)."""
    if corpora.has(name):
        return name
    folders = [Path()] if yaml_file is None else [Path(), yaml_file.parent]
    for folder in folders:
        if (folder / name).exists():
            return await corpora.offer(folder / name)
    return name


async def checked_corpus(name: str, corpora: CorpusStore) -> str:
    """The name of a corpus, or of a file of this machine that is offered as one; raises AppError where it is none."""
    name = await corpus_name(name, None, corpora)
    await corpora.describe(name)
    return name
