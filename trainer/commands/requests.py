"""Input of the command line on its way into a request: assignments, and files of this machine as corpora."""

from pathlib import Path

from pydantic import BaseModel

from trainer.config.nested_dict import set_path
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
    set_path(fields, key, text if is_plain else parse_yaml(text, f"--set {shown_name(key)}"))


async def corpus_name(name: str, yaml_file: Path | None, corpora: CorpusStore) -> str:
    """Return the name by which requests find a corpus.

    A path relative to the working directory or to the YAML file is offered to the corpus store, by its hash.
    """
    if corpora.has(name):
        return name
    folders = [Path()] if yaml_file is None else [Path(), yaml_file.parent]
    for folder in folders:
        if (folder / name).exists():
            return await corpora.offer(folder / name)
    return name


async def checked_corpus(name: str, corpora: CorpusStore) -> str:
    """Return the name of a corpus, offering a file of this machine; raises AppError where it is not a corpus."""
    name = await corpus_name(name, None, corpora)
    await corpora.describe(name)
    return name
