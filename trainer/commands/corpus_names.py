"""Corpora of the command line: names of the installation's corpora, and files of this machine."""

import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.commands.connection import Installation, with_installation
from trainer.commands.terminal import Terminal
from trainer.config.settings import Settings
from trainer.config.validation import safe_name, unreadable
from trainer.contracts.corpora import CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.corpora import CorpusStore, note_on_name, only_name
from trainer.data.folders import folder_notes
from trainer.lab.calls import LIST_CORPORA
from trainer.lab.here import Here

if TYPE_CHECKING:  # the HTTP client
    from trainer.client.remote import Remote

_KNOWN_DATA_SETS = tuple(
    "babylm bookcorpus c4 enwik8 gutenberg lambada openwebtext penntreebank ptb shakespeare text8 tinyshakespeare"
    " tinystories wikipedia wikitext".split()
)
"""Beginnings of the names of data sets that people expect by name."""


async def corpus_name(name: str, yaml_file: Path | None, corpora: CorpusStore) -> str:
    """Return the name by which requests find a corpus; raises DATA_NOT_FOUND for the path of no file.

    A path relative to the working directory or to the YAML file is offered to the corpus store, by its hash. The
    beginning of a name stands for it where only one corpus begins so.
    """
    found = _local_path(name, yaml_file)
    if corpora.has(name):
        corpora.table_notes[name] = _note_on_path(name, found)
        return name
    if found is not None:
        return await corpora.offer(found)
    full_name = corpora.full_name(name)
    if full_name != name:
        corpora.table_notes[full_name] = note_on_name(name, full_name)
        return full_name
    _check_known_elsewhere(name)
    if os.sep in name or Path(name).suffix:
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(name, FileNotFoundError()))
    return name


async def installed_corpus(name: str, yaml_file: Path | None, installation: Installation, terminal: Terminal) -> str:
    """Return the name by which the installation finds a corpus, once it has a file or a folder of this machine."""
    if isinstance(installation, Here):
        return await corpus_name(name, yaml_file, installation.corpora)
    return await server_corpus_name(name, yaml_file, installation, terminal)


async def offered(path: Path, installation: Installation, terminal: Terminal) -> str:
    """Return the name of a file or a folder of this machine, once the installation has it."""
    if isinstance(installation, Here):
        return await installation.corpora.offer(path)
    return (await uploaded(path, installation, terminal)).name


async def uploaded(
    path: Path,
    server: "Remote",
    terminal: Terminal,
    name: str | None = None,
    *,
    language: str | None = None,
    is_ipa: bool | None = None,
) -> CorpusOverview:
    """Upload a file or a folder with a progress bar; without a name, requests find it by its hash only."""
    from trainer.client.uploads import upload_corpus

    with terminal.transferring(f"upload {safe_name(path.name)}") as progress:
        return await upload_corpus(server, path, name, language=language, is_ipa=is_ipa, progress=progress)


async def server_corpus_name(name: str, yaml_file: Path | None, server: "Remote", terminal: Terminal) -> str:
    """Return the name by which the server finds a corpus, uploading a file or a folder of this machine.

    A corpus of the server by this name comes first, as on this machine.
    """
    found = _local_path(name, yaml_file)
    if found is None:
        if name.startswith((os.sep, ".")):
            raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(name, FileNotFoundError()))
    names = [corpus.name for corpus in (await server.call(LIST_CORPORA)).corpora]
    if name in names:
        for note in _note_on_path(name, found):
            terminal.note(f"Note: {note}")
        return name
    if found is None:
        full_name = only_name(name, names)
        if full_name is None:
            _check_known_elsewhere(name)
        else:
            for note in note_on_name(name, full_name):
                terminal.note(f"Note: {note}")
        return full_name or name
    for note in folder_notes(found, safe_name(found.name)):  # the server does not get what is left out
        terminal.note(f"Note: {note}")
    added = await uploaded(found, server, terminal)
    for note in added.notes:
        terminal.note(f"Note: '{safe_name(found.name)}': {note}")
    return added.name


def _note_on_path(name: str, path: Path | None) -> tuple[str, ...]:
    """Return a sentence on the corpus that was taken in place of a file or a folder of the same name."""
    if path is None:
        return ()
    shown = safe_name(name)
    return (f"'{shown}' names a corpus and a path: the corpus was taken. For the path, write './{shown}'.",)


def _check_known_elsewhere(name: str) -> None:
    """Raise DATA_NOT_FOUND for the name of a well-known data set, with the way to get it."""
    plain = "".join(filter(str.isalnum, name.rpartition("/")[2].lower()))
    builds = {"wikitext2": "wikitext-2", "oscar": "oscar --langs LANGS", "culturax": "culturax --langs LANGS"}
    build = next((build for known, build in builds.items() if plain.startswith(known)), None)
    if build is not None:
        advice = f"Download it with `mt corpus build --source {build}`"
    elif plain.startswith(_KNOWN_DATA_SETS):
        advice = "Download its text, and give the path of the file"
    else:
        return
    raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no corpus '{safe_name(name)}' yet. {advice}.")


def _local_path(name: str, yaml_file: Path | None) -> Path | None:
    """Return the file or folder of a name, relative to the working directory or to the YAML file."""
    folders = [Path()] if yaml_file is None else [Path(), yaml_file.parent]
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def note_tables(installation: Installation, terminal: Terminal) -> None:
    """Show how the tables were read that this machine's installation is offered; uploads show it by themselves."""
    if isinstance(installation, Here):
        for note in chain.from_iterable(installation.corpora.table_notes.values()):
            terminal.note(f"Note: {note}")


class CorpusToMeasure:
    """A corpus on which models are measured; raises AppError where it is none. A server checks the name itself."""

    def __init__(self, path: Path, settings: Settings, terminal: Terminal) -> None:
        self._corpora = CorpusStore(settings)

        async def named(installation: Installation) -> str:
            if isinstance(installation, Here):
                name = await corpus_name(str(path), None, self._corpora)
                await self._corpora.describe(name)
                for note in self._corpora.layout(name, ["split_by"]).notes:
                    terminal.note(f"Note: {note}")
                return name
            return await server_corpus_name(str(path), None, installation, terminal)

        self.name = with_installation(settings, named)
        """The name for requests."""

    async def store(self) -> None:
        """Store a file of this machine as a corpus."""
        await self._corpora.store_offered()
