"""Runs on the Hugging Face hub: a repository for a run, with a revision for its final model and each checkpoint.

Every revision gets its files in one commit, and `main` last: until then a revision has no model.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha1
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils.tqdm import disable_progress_bars
from pydantic import SecretStr

from trainer.artifacts.archives import PASSPORT_FILES, PORTABLE_NAME, add_run, portable_files, staging_folder
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.config.validation import safe_name
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import DISTRIBUTION
from trainer.contracts.runs import RunManifest
from trainer.export.card import ExportRecord, Publication
from trainer.export.revisions import RUN_FOLDER, Revision, read_revision, revisions_of, write_revision
from trainer.export.verification import check_whole
from trainer.inference.model_files import WEIGHTS_FILE
from trainer.system.destination import RECORD_FILE
from trainer.system.files import BrokenFile, changed_files, file_records, read_record, read_regular

_MANIFEST = f"{RUN_FOLDER}/manifest.json"
_PART = r"\w([\w.-]{0,94}\w)?"
_REPOSITORY = re.compile(rf"(?!.*(--|\.\.)){_PART}/{_PART}(?<!\.git)", re.ASCII)
"""The hub's rules for names, as its client has them."""
_HttpError: type[Exception] = getattr(import_module("huggingface_hub.errors"), "HTTPError")  # noqa: B009  (no export)
"""The base of the errors of the client's HTTP library: httpx2, or httpx before version 2 of the client."""


class Prepared(NamedTuple):
    """A revision in a folder, with the manifest of its run and all its files."""

    name: str
    folder: Path
    manifest: RunManifest
    files: tuple[FileRecord, ...]


class Pushed(NamedTuple):
    """The result of a push."""

    url: str
    is_private: bool
    sent: tuple[str, ...]
    """The revisions that got files; the others had them."""
    kept: tuple[str, ...]
    """Card and citation, if those of the hub are others and were left there."""


class Pulled(NamedTuple):
    run: RunDirectory
    is_new: bool
    """False if the run was on this machine already."""


def check_repository(name: str) -> None:
    """Raise INVALID_INPUT unless the hub takes a text as the name of a repository, OWNER/NAME."""
    if not _REPOSITORY.fullmatch(name):
        message = (
            f"'{safe_name(name)}' is not the name of a repository: give OWNER/NAME with letters, digits, `-`, `_` and"
            " `.`, such as ana/kazakh-gru."
        )
        raise AppError(ErrorCode.INVALID_INPUT, message)


@contextmanager
def prepared(run: RunDirectory, revision: Revision, publication: Publication) -> Iterator[Prepared]:
    """Yield a revision in a temporary folder; raises as `write_revision`."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / revision.name
        manifest = write_revision(run, revision, folder, publication)
        files = file_records(folder, (path for path in folder.rglob("*") if path.is_file()))
        yield Prepared(revision.name, folder, manifest, files)


def push(
    run: RunDirectory,
    publication: Publication,
    token: SecretStr | None,
    *,
    is_public: bool = False,
    with_new_card: bool = False,
    report: Callable[[str, bool], None] = lambda revision, is_sent: None,
) -> Pushed:
    """Bring a run to a repository, which is created if it is missing; a repeated push continues an interrupted one.

    `report` gets each revision that is complete, and whether it was sent. Files that are there are not sent again. A
    card or a citation that people may have edited stays, unless `with_new_card`. Raises CONFLICT for a repository of
    another run or model, UNAUTHORIZED and FORBIDDEN for the token, SERVICE_UNAVAILABLE if the hub does not answer, and
    as `prepared`.
    """
    *steps, main = revisions_of(run)
    repository, api = publication.repository, _client(token)
    sent: list[str] = []
    kept: set[str] = set()

    def send(one: Prepared) -> None:
        with _hub_errors(repository):
            if one.name not in branches:
                api.create_branch(repository, branch=one.name, revision=without_model, exist_ok=True)
            at = api.model_info(repository, revision=one.name, files_metadata=True)
            differing = _differing(one, at)
            edited = set[str]() if with_new_card else _hashes(at).keys() & {*PASSPORT_FILES}.intersection(differing)
            additions = [CommitOperationAdd(path, one.folder / path) for path in differing if path not in edited]
            if additions:
                _check_same_run(api, repository, at, one)
                message = f"Add {one.manifest.run_id}"
                api.create_commit(
                    repository, additions, commit_message=message, revision=one.name, parent_commit=at.sha
                )
                sent.append(one.name)
        kept.update(edited)
        report(one.name, bool(additions))

    with prepared(run, main, publication) as final:
        with _hub_errors(repository):
            url: str = api.create_repo(repository, private=not is_public, exist_ok=True).url
            info = api.model_info(repository, files_metadata=True)
            _check_same_run(api, repository, info, final)  # before anything is sent
            branches = {branch.name for branch in api.list_repo_refs(repository).branches}
            without_model = api.list_repo_commits(repository)[-1].commit_id
        for revision in steps:
            with prepared(run, revision, publication._replace(step=revision.step)) as one:
                send(one)
        send(final)
    return Pushed(url, info.private is True, tuple(sent), tuple(sorted(kept)))


def pull(repository: str, revision: str, artifacts_root: Path, token: SecretStr | None) -> Pulled:
    """Make a run of a revision that `push` has sent, atomically; nothing of the repository is executed.

    Does nothing if the run is here. Raises CONFLICT if another run has its id, INVALID_INPUT for a repository of
    another origin or changed files, DATA_NOT_FOUND for one that is not there, and SERVICE_UNAVAILABLE as `push` does.
    """
    api = _client(token)
    with _hub_errors(repository), staging_folder(artifacts_root) as staging:
        info = api.model_info(repository, revision=revision)
        names = [path for path in _hashes(info) if PORTABLE_NAME.fullmatch(path)]
        if not {RECORD_FILE, _MANIFEST} <= set(names):
            message = f"'{repository}' has no run at '{safe_name(revision)}': `mt pull` reads what `mt push` has sent."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        try:
            file: str = api.hf_hub_download(repository, _MANIFEST, revision=info.sha, local_dir=staging / "first")
            manifest = read_record(Path(file), RunManifest)
            if (there := RunStore(artifacts_root).find(manifest.run_id)) is not None:
                if _identity(there.completed_manifest()) != _identity(manifest):
                    raise AppError(
                        ErrorCode.CONFLICT,
                        f"There is another run '{manifest.run_id}' here: delete it first, or set APP__ARTIFACTS_ROOT to"
                        " another folder.",
                    )
                return Pulled(there, is_new=False)
            api.snapshot_download(repository, revision=info.sha, local_dir=staging / "files", allow_patterns=names)
            run = RunDirectory(staging / manifest.run_id)
            _restore(staging / "files", run)
        except BrokenFile as error:
            raise AppError(ErrorCode.INVALID_INPUT, f"'{repository}' was changed after its push: {error}") from None
        return Pulled(add_run(run, artifacts_root), is_new=True)


def _restore(folder: Path, run: RunDirectory) -> None:
    """Check the files of a downloaded folder against its record, and write the run of it."""
    record = read_record(folder / RECORD_FILE, ExportRecord)
    if changed := changed_files(folder, record.files):
        raise BrokenFile(f"'{changed[0]}' differs from its record.")
    try:
        read_revision(folder, record, run)
        check_whole(run)
    except (AppError, ValueError) as error:
        raise BrokenFile(str(error)) from None
    written = {path for path in run.path.rglob("*") if path.is_file()}
    if record.run_id != run.run_id or run.completed_manifest().run_id != run.run_id or written != portable_files(run):
        raise BrokenFile("Its files do not belong to one run.")


def _identity(manifest: RunManifest) -> tuple[str, list[str]]:
    """Return what makes two runs of one id the same: their request and their weights."""
    return manifest.request_hash, [file.sha256 for file in manifest.files if file.path == WEIGHTS_FILE]


def _client(token: SecretStr | None) -> HfApi:
    """Return the hub's client; without a token of the settings it takes the one of `hf auth login`, if any."""
    disable_progress_bars()
    # its warnings have the addresses of uploads, which are secret for some minutes
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return HfApi(token=None if token is None else token.get_secret_value(), library_name=DISTRIBUTION)


def _hashes(info: ModelInfo) -> dict[str, str | None]:
    """Return the SHA-256 of the large files of a revision, and git's hash of the others, by path."""
    return {file.rfilename: file.blob_id if file.lfs is None else file.lfs.sha256 for file in info.siblings or ()}


def _differing(one: Prepared, info: ModelInfo) -> list[str]:
    """Return the paths of the files that a revision lacks, or has with another content."""
    there = _hashes(info)
    return [file.path for file in one.files if there.get(file.path) not in (file.sha256, _git_hash(one, file))]


def _git_hash(one: Prepared, file: FileRecord) -> str:
    content = read_regular(one.folder / file.path, file.bytes)
    return sha1(b"blob %d\0" % file.bytes + content, usedforsecurity=False).hexdigest()


def _check_same_run(api: HfApi, repository: str, info: ModelInfo, one: Prepared) -> None:
    """Raise CONFLICT if a push would replace files of another run or of another model."""
    there = _hashes(info).keys() - PASSPORT_FILES
    if not there.intersection(_differing(one, info)):
        return
    found = _run_id(api, repository, info) if RECORD_FILE in there else None
    if found != one.manifest.run_id:
        of = "files of another model" if found is None else f"the run '{found}'"
        raise AppError(ErrorCode.CONFLICT, f"'{repository}' has {of}: give the name of a new repository.")


def _run_id(api: HfApi, repository: str, info: ModelInfo) -> str | None:
    """Return the id of the run of a revision; None if its record is not one of ours."""
    with TemporaryDirectory() as folder:
        file: str = api.hf_hub_download(repository, RECORD_FILE, revision=info.sha, local_dir=folder)
        with suppress(BrokenFile):
            return read_record(Path(file), ExportRecord).run_id
    return None


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Raise an error of the hub as one sentence, without the client's words, addresses and headers."""
    try:
        yield
    except (OSError, _HttpError, RuntimeError, ValueError) as error:
        is_wrapped = isinstance(error, RuntimeError) and error.__cause__ is not None  # by an upload of a large file
        refusal = _refusal(error.__cause__ if is_wrapped else error, repository)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: BaseException | None, repository: str) -> AppError | None:
    """Return the sentence for an error of the client; None for one that is not of the hub."""
    match error:
        case RevisionNotFoundError():
            message = f"'{repository}' has no such revision: leave out `@` and its name for the final model."
            return AppError(ErrorCode.DATA_NOT_FOUND, message)
        case HfHubHTTPError():
            status = 404 if isinstance(error, RepositoryNotFoundError) else error.response.status_code
            code, message = _REFUSALS.get(status, _FAILURE)
            return AppError(code, message.format(repository=repository, status=status))
        case _ if isinstance(error, (_HttpError, ConnectionError, LocalEntryNotFoundError, RuntimeError)):
            message = "The hub cannot be reached: give the same command again where there is a network; it continues."
            return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
        case OSError(errno=None):  # of the client; an error of a disk has a number
            message = "A file was not transferred completely: give the same command again."
            return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
        case ValueError() if "Invalid metadata" in str(error):
            message = "The hub does not accept the model card: give a `--license` that it knows, such as mit."
            return AppError(ErrorCode.INVALID_INPUT, message)
        case ValueError():
            message = "The hub's answer cannot be read: give the same command again later."
            return AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
        case _:
            return None


_FAILURE = (ErrorCode.SERVICE_UNAVAILABLE, "The hub failed (HTTP {status}): give the same command again later.")
_CHANGED = (ErrorCode.CONFLICT, "'{repository}' was changed meanwhile: give the same command again.")
_REFUSALS: Mapping[int, tuple[ErrorCode, str]] = {
    401: (ErrorCode.UNAUTHORIZED, "The hub needs a valid token: set HF_TOKEN to one with the right to write."),
    403: (ErrorCode.FORBIDDEN, "The token of HF_TOKEN has no right to write to '{repository}'."),
    404: (
        ErrorCode.DATA_NOT_FOUND,
        "There is no repository '{repository}', or it is private: check its name, and set HF_TOKEN to a token that may"
        " read it.",
    ),
    409: _CHANGED,
    412: _CHANGED,
    429: (ErrorCode.RATE_LIMIT_EXCEEDED, "The hub has had too many requests: give the same command again later."),
}
