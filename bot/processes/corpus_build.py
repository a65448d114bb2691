"""Builds corpora by `mt corpus build` in a child process, one at a time; the next process of the bot continues it."""

import asyncio
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import ValidationError

from bot.people.watchers import read_ledger
from trainer.artifacts.corpus_builds import BuildDirectory, BuildRecord, BuildRequest, BuildStatus, BuildStore
from trainer.config.settings import Settings, child_environment
from trainer.config.validation import safe_name
from trainer.contracts.base import changed, now
from trainer.contracts.corpora import BuildProgress, CorpusManifest
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, RunError, field_error
from trainer.contracts.wording import counted
from trainer.data.cleaning import ALPHABETS
from trainer.services.embedded import die_with_parent, end, pipe
from trainer.system.python import python_command

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_STOP_SECONDS = 5.0
_AGAIN = "Run the same command again: it continues."
_LINE_BYTES = 1 << 22


def _words(request: BuildRequest, corpus_folder: Path) -> list[str]:
    """Return the words of the terminal's command."""
    source = str(corpus_folder.resolve() / request.source) if request.source == "local" else request.source
    words = ["corpus", "build", "--json", "--log-format", "json", "--source", source]
    words += ["--langs", ",".join(request.languages), "--threshold", f"{request.threshold}"]
    words += [word for name in request.keep for word in ("--keep", name)]
    return words if request.characters is None else [*words, "--characters", f"{request.characters}"]


class CorpusBuild:
    """A running build in a child process."""

    def __init__(self, directory: BuildDirectory, status: BuildStatus, process: Process) -> None:
        self.status = status
        self.directory = directory
        self.changed = asyncio.Event()
        """Set at the first change of `status`."""
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
                progress = {known.language: known for known in self.status.progress} | {one.language: one}
                await self._change(changed(self.status, progress=tuple(progress.values())))
        output, code = await result, await self._process.wait()
        if not self._is_stopped:
            await self._change(_ended(self.status, output, code))

    async def _change(self, status: BuildStatus) -> None:
        try:
            await asyncio.to_thread(self.directory.save, status)
        except OSError as error:  # the build itself can go on
            log.error("corpus_build_not_stored", build_id=self.directory.build_id, exc_info=error)
        self.status = status
        self.changed.set()


def _ended(status: BuildStatus, output: bytes, code: int) -> BuildStatus:
    """Return the status after the end of the process, from what it has written."""
    try:
        if code == 0:
            return changed(status, manifest=CorpusManifest.model_validate_json(output))
        body = ErrorBody.model_validate_json(output)
        error = AppError(body.code, body.message, body.details)
    except ValidationError:
        log.error("corpus_build_died", exit_code=code)
        error = AppError(ErrorCode.INTERNAL_ERROR, f"The build ended unexpectedly. {_AGAIN}")
    return changed(status, error=RunError.of(error))


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
            for directory in await asyncio.to_thread(self._builds.all):
                try:
                    status = await asyncio.to_thread(directory.status)
                    is_watched = bool((await asyncio.to_thread(read_ledger, directory)).watchers)
                except (OSError, ValueError) as error:
                    log.error("build_unreadable", build_id=directory.build_id, exc_info=error)
                    continue
                if not is_watched:  # its start was never answered
                    await asyncio.to_thread(directory.remove)
                elif not status.has_ended:
                    self.current = await self._run(directory, status)

    async def start(self, request: BuildRequest) -> CorpusBuild:
        """Start a build; raises INVALID_INPUT, DATA_NOT_FOUND, and CONFLICT while another build runs."""
        unknown = [language for language in request.languages if language not in ALPHABETS]
        if unknown:
            message = f"must be of {', '.join(ALPHABETS)}, you gave '{safe_name(','.join(unknown))}'."
            raise field_error(ErrorCode.INVALID_INPUT, "languages", message)
        if request.source == "local" and not (self._folder / request.source).is_dir():
            message = "There is no folder `local` in the corpus folder: put a text per language into it, as `kk.txt`."
            raise AppError(ErrorCode.DATA_NOT_FOUND, message)
        async with self._starting:
            if self.current is not None and not self.current.status.has_ended:
                raise AppError(ErrorCode.CONFLICT, f"A build is running: {_summary(self.current.status)}.")
            record = BuildRecord(created_at=now(), request=request)
            directory = await asyncio.to_thread(self._builds.create, record)
            self.current = await self._run(directory, BuildStatus(request=request))
            return self.current

    async def _run(self, directory: BuildDirectory, status: BuildStatus) -> CorpusBuild:
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(),
            *python_command("-m", "trainer", *_words(status.request, self._folder)),
            env=child_environment(self._settings),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES,
        )
        return CorpusBuild(directory, status, process)

    async def stop(self) -> None:
        """End the process of the build."""
        if self.current is not None and not self.current.status.has_ended:
            await self.current.stop()


def _summary(status: BuildStatus) -> str:
    """Return the progress of a build in a few words."""
    done = ", ".join(f"{one.language} {counted(one.documents, 'document')}" for one in status.progress)
    return f"{status.request.source}, {done or 'no document yet'}"
