"""Builds corpora by `mt corpus build` in a child process, one at a time; the next process of the bot continues it."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Literal

import structlog
from pydantic import Field, ValidationError

from bot.people.watchers import State, read_ledger
from trainer.config.settings import Settings, child_environment
from trainer.config.validation import shown_name
from trainer.contracts.base import Frozen, Timestamp, changed, now
from trainer.contracts.corpora import BuildFilter, BuildProgress, CorpusManifest
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, RunError
from trainer.contracts.wording import counted
from trainer.data.cleaning import ALPHABETS
from trainer.services.embedded import die_with_parent, end, pipe
from trainer.system.files import DISK, read_record, write_atomically

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

SourceName = Literal["oscar", "culturax", "local"]

_STOP_SECONDS = 5.0
_AGAIN = "Run the same command again: it continues."
_LINE_BYTES = 1 << 22
_OPTIONS = {
    ", or give text that is in IPA already with `--from-ipa`": "",
    "`--threshold 0`": "`threshold:0`",
    "`--langs`": "`languages`",
    "`--threshold": "`threshold",
    "`--source`": "`source`",
    "give the same command again": "run the same command again",
    " where there is a network, or build from a folder of texts": ", or build from `source:local`",
    ", or give a folder of texts": ", or give `source:local`",
}
"""Words of the terminal's command, and those of Discord's."""


class BuildRequest(Frozen):
    """A build as requested in Discord."""

    source: SourceName
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    characters: Annotated[int, Field(ge=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    keep: tuple[BuildFilter, ...] = ()
    """Filters that the build leaves out."""

    def words(self, corpus_folder: Path) -> list[str]:
        """Return the words of the terminal's command."""
        source = str(corpus_folder.resolve() / self.source) if self.source == "local" else self.source
        words = ["corpus", "build", "--json", "--log-format", "json", "--source", source]
        words += ["--langs", ",".join(self.languages), "--threshold", f"{self.threshold}"]
        words += [word for name in self.keep for word in ("--keep", name)]
        return words if self.characters is None else [*words, "--characters", f"{self.characters}"]


class BuildState(State):
    """`build.json`: a build, its progress by language, and in the end its manifest or an error."""

    schema_version: Literal[1] = 1
    created_at: Timestamp
    request: BuildRequest
    progress: tuple[BuildProgress, ...] = ()
    manifest: CorpusManifest | None = None
    error: RunError | None = None

    @property
    def has_ended(self) -> bool:
        return self.manifest is not None or self.error is not None


class BuildDirectory:
    """Directory of one build: its state, and the messages about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.build_id = path.name
        self.message_ledger = path / "dm.json"
        self.disk = DISK
        self._state = path / "build.json"

    def exists(self) -> bool:
        return self._state.exists()

    def state(self) -> BuildState:
        """Read the state; raises OSError or BrokenFile."""
        return read_record(self._state, BuildState)

    def save(self, state: BuildState) -> None:
        self.disk.make_folder(self.path)
        write_atomically(self._state, state.model_dump_json().encode(), self.disk)

    def remove(self) -> None:
        self.disk.remove_folder(self.path)


class BuildStore:
    """All builds of one artifacts root."""

    def __init__(self, artifacts_root: Path) -> None:
        self._folder = artifacts_root / "corpus_builds"

    def new(self) -> BuildDirectory:
        return BuildDirectory(self._folder / f"build-{token_hex(4)}")

    def find(self, build_id: str) -> BuildDirectory | None:
        return next((build for build in self.all() if build.build_id == build_id), None)

    def all(self) -> Iterator[BuildDirectory]:
        """Yield the builds, in no order."""
        yield from filter(BuildDirectory.exists, map(BuildDirectory, self._folder.glob("build-*")))


class CorpusBuild:
    """A running build in a child process."""

    def __init__(self, directory: BuildDirectory, state: BuildState, process: Process) -> None:
        self.state = state
        self.directory = directory
        self.changed = asyncio.Event()
        """Set at the first change of `state`."""
        self._process = process
        self._is_stopped = False
        self.reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stop(self) -> None:
        """End the process; what it has read is stored."""
        self._is_stopped = True
        await end(self._process, _STOP_SECONDS)
        await asyncio.gather(self.reading, return_exceptions=True)

    async def _read(self) -> None:
        result = asyncio.create_task(pipe(self._process.stdout).read())
        async for line in pipe(self._process.stderr):
            with suppress(ValidationError):  # a warning of a library
                one = BuildProgress.model_validate_json(line)
                progress = {known.language: known for known in self.state.progress} | {one.language: one}
                await self._change(changed(self.state, progress=tuple(progress.values())))
        output, code = await result, await self._process.wait()
        if not self._is_stopped:
            await self._change(_ended(self.state, output, code))

    async def _change(self, state: BuildState) -> None:
        try:
            await asyncio.to_thread(self.directory.save, state)
        except OSError as error:  # the build itself can go on
            log.error("corpus_build_not_stored", build_id=self.directory.build_id, exc_info=error)
        self.state = state
        self.changed.set()


def _ended(state: BuildState, output: bytes, code: int) -> BuildState:
    """Return the state after the end of the process, from what it has written."""
    try:
        if code == 0:
            return changed(state, manifest=CorpusManifest.model_validate_json(output))
        body = ErrorBody.model_validate_json(output)
        error = AppError(body.code, _in_discords_words(body.message))
    except ValidationError:
        log.error("corpus_build_died", exit_code=code)
        error = AppError(ErrorCode.INTERNAL_ERROR, f"The build ended unexpectedly. {_AGAIN}")
    return changed(state, error=RunError.of(error))


class CorpusBuilder:
    """Runs one build at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.app.data_root / "corpus"
        self._builds = BuildStore(settings.app.artifacts_root)
        self.current: CorpusBuild | None = None
        """The last build that was started."""
        self._starting = asyncio.Lock()

    async def resume(self) -> None:
        """Continue the build that was running when the last process of the bot ended."""
        async with self._starting:
            for directory in await asyncio.to_thread(lambda: [*self._builds.all()]):
                try:
                    state = await asyncio.to_thread(directory.state)
                    is_watched = bool((await asyncio.to_thread(read_ledger, directory)).watchers)
                except (OSError, ValueError) as error:
                    log.error("corpus_build_unreadable", build_id=directory.build_id, exc_info=error)
                    continue
                if not is_watched:  # its start was never answered
                    await asyncio.to_thread(directory.remove)
                elif not state.has_ended:
                    self.current = await self._run(directory, state)

    async def start(self, request: BuildRequest) -> CorpusBuild:
        """Start a build; raises INVALID_INPUT, DATA_NOT_FOUND, and CONFLICT while another build runs."""
        unknown = [language for language in request.languages if language not in ALPHABETS]
        if unknown:
            message = f"`languages` must be of {', '.join(ALPHABETS)}, you gave '{shown_name(','.join(unknown))}'."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        if request.source == "local" and not (self._folder / request.source).is_dir():
            message = "There is no folder `local` in the corpus folder: put a text per language into it, as `kk.txt`."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)
        async with self._starting:
            if self.current is not None and not self.current.state.has_ended:
                raise AppError(ErrorCode.CONFLICT, f"A build is running: {_summary(self.current.state)}.")
            directory, state = self._builds.new(), BuildState(created_at=now(), request=request)
            await asyncio.to_thread(directory.save, state)
            self.current = await self._run(directory, state)
            return self.current

    async def _run(self, directory: BuildDirectory, state: BuildState) -> CorpusBuild:
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(),
            *(sys.executable, "-m", "trainer", *state.request.words(self._folder)),
            env=child_environment(self._settings),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES,
        )
        return CorpusBuild(directory, state, process)

    async def stop(self) -> None:
        """End the process of the build."""
        if self.current is not None and not self.current.state.has_ended:
            await self.current.stop()


def _summary(state: BuildState) -> str:
    """Return the progress of a build in a few words."""
    done = ", ".join(f"{one.language} {counted(one.documents, 'document')}" for one in state.progress)
    return f"{state.request.source}, {done or 'no document yet'}"


def _in_discords_words(message: str) -> str:
    for terminal, discord in _OPTIONS.items():
        message = message.replace(terminal, discord)
    return message
