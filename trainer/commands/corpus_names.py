"""Corpora of the command line: names of the installation's corpora, and files of this machine."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from trainer.config.settings import Settings
from trainer.config.validation import safe_name, unreadable
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.corpora import CorpusStore


async def corpus_name(name: str, yaml_file: Path | None, corpora: CorpusStore) -> str:
    """Return the name by which requests find a corpus; raises DATA_NOT_FOUND for the path of no file.

    A path relative to the working directory or to the YAML file is offered to the corpus store, by its hash.
    """
    if corpora.has(name):
        return name
    found = _local_path(name, yaml_file)
    if found is None and (os.sep in name or Path(name).suffix):
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(name, FileNotFoundError()))
    return name if found is None else await corpora.offer(found)


@contextmanager
def corpora_on_server(*names: object, yaml_file: Path | None = None) -> Iterator[None]:
    """Explain, where the server does not know a corpus, that a file of this machine cannot be one."""
    try:
        yield
    except AppError as error:
        for name in names:
            is_unknown = error.code is ErrorCode.DATA_NOT_FOUND or str(name).startswith(("/", "."))
            if isinstance(name, str) and is_unknown and _local_path(name, yaml_file) is not None:
                message = (
                    f"'{safe_name(name)}' is a file of this machine, and corpora are not uploaded: put it into the"
                    " corpus folder of the server, and give its name there."
                )
                raise AppError(ErrorCode.DATA_NOT_FOUND, message) from None
        raise


def _local_path(name: str, yaml_file: Path | None) -> Path | None:
    """Return the file or folder of a name, relative to the working directory or to the YAML file."""
    folders = [Path()] if yaml_file is None else [Path(), yaml_file.parent]
    return next((folder / name for folder in folders if (folder / name).exists()), None)


async def checked_corpus(name: str, corpora: CorpusStore) -> str:
    """Return the name of a corpus, offering a file of this machine; raises AppError where it is not a corpus."""
    name = await corpus_name(name, None, corpora)
    await corpora.describe(name)
    return name


class CorpusToMeasure:
    """A corpus on which models are measured; raises AppError where it is none. A server checks the name itself."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._given = str(path)
        self._is_on_server = settings.client.url is not None
        self._corpora = CorpusStore(settings)
        self.name = self._given if self._is_on_server else asyncio.run(checked_corpus(self._given, self._corpora))
        """The name for requests."""

    @asynccontextmanager
    async def available(self) -> AsyncGenerator[None, None]:
        """Store a file of this machine as a corpus; explain that a server has no such file."""
        await self._corpora.store_offered()
        with corpora_on_server(*([self._given] if self._is_on_server else [])):
            yield
