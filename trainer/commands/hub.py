"""`mt push` and `mt pull`: runs on the Hugging Face hub, and of the server of MT_URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.artifacts.replication import complete_run
from trainer.artifacts.runs import RunDirectory
from trainer.commands.arguments import Argument, Commands, Options, RunOptions, flag, option
from trainer.commands.connection import command_here, note_new_place, noting_wait, settings_for_any, with_server
from trainer.commands.export import check_license
from trainer.commands.terminal import Terminal, columns, summary
from trainer.config.settings import Settings
from trainer.contracts.wording import counted
from trainer.data.corpora import bundled_licence

if TYPE_CHECKING:  # torch, and the HTTP client
    from trainer.client.remote import Remote
    from trainer.export.card import Publication


class _PushOptions(RunOptions):
    repository = Argument[str]("OWNER/NAME", help="repository on the hub, created if it is missing")
    yes = flag("--yes", "send it; without this option the command only shows what it would send")
    public = flag("--public", "create the repository for everybody to read; default: private")
    new_card = flag("--new-card", "replace card and citation, which people may have edited on the hub")
    license = option("--license ID", str, "license of the model for its card, such as mit")
    data_license = option("--data-license ID", str, "license of the text for the card, such as cc0-1.0")


class _PullOptions(Options):
    source = Argument[str](
        "SOURCE", help="run of the server of MT_URL; or repository on the hub, as OWNER/NAME[@REVISION], default: main"
    )


def add_to(commands: Commands) -> None:
    commands.add("push", _PushOptions, _push)
    commands.add("pull", _PullOptions, _pull)


def _push(options: _PushOptions, terminal: Terminal) -> int:
    check_license("--license", options.license)
    check_license("--data-license", options.data_license)
    from trainer.export import hub  # torch

    hub.check_repository(options.repository)
    settings = settings_for_any()
    with _run_here(options.run, settings, terminal) as run:
        return _push_run(run, options, settings, terminal)


@contextmanager
def _run_here(run_id: str, settings: Settings, terminal: Terminal) -> Iterator[RunDirectory]:
    """Yield a run of this machine, or one of the server of MT_URL in a temporary folder."""
    if settings.client.url is None:
        yield complete_run(settings, run_id)
        return
    with TemporaryDirectory() as folder:
        yield with_server(settings, lambda server: _pulled(server, run_id, Path(folder), terminal))[0]


def _push_run(run: RunDirectory, options: _PushOptions, settings: Settings, terminal: Terminal) -> int:
    from trainer.export import hub
    from trainer.export.card import Publication
    from trainer.export.revisions import revisions_of

    data_licence = options.data_license or bundled_licence(run.completed_manifest().effective.corpus)
    steps = tuple(revision.step for revision in revisions_of(run) if revision.step is not None)
    publication = Publication(options.repository, options.license, data_licence, steps)
    if not options.yes:
        return _show_plan(run, publication, options, terminal)
    terminal.continues_when_repeated = True

    def report(name: str, is_sent: bool) -> None:
        terminal.note(f"{name}: {'sent' if is_sent else 'is there already'}")

    pushed = hub.push(
        run,
        publication,
        settings.hf.token,
        is_public=options.public,
        with_new_card=options.new_card,
        report=report,
    )
    visible = "private" if pushed.is_private else "public"
    kept = Text(f"Edited on the hub and left as they are: {', '.join(pushed.kept)}. `--new-card` replaces them.")
    terminal.show(
        {"run_id": run.run_id, "repository": options.repository, "url": pushed.url, "private": pushed.is_private}
        | {"revisions": len(steps) + 1, "sent": list(pushed.sent), "kept": list(pushed.kept)},
        Text(f"{run.run_id} is in {pushed.url} ({visible}, {counted(len(steps) + 1, 'revision')})."),
        *([kept] if pushed.kept else []),
    )
    return 0


def _show_plan(run: RunDirectory, publication: "Publication", options: _PushOptions, terminal: Terminal) -> int:
    """Show what a push would send, without the hub and without a token."""
    from trainer.export import hub
    from trainer.export.revisions import MAIN, revisions_of

    revisions: list[object] = []
    rows, files_of_main = [("revision", "files", "bytes")], [(f"file of {MAIN}", "bytes")]
    for revision in revisions_of(run):
        with hub.prepared(run, revision, publication._replace(step=revision.step)) as one:
            size = sum(file.bytes for file in one.files)
            revisions.append({"name": one.name, "files": one.files, "bytes": size})
            rows.append((one.name, f"{len(one.files):,}", f"{size:,}"))
            if one.name == MAIN:
                files_of_main += [(file.path, f"{file.bytes:,}") for file in one.files]
    missing = publication.missing(run.completed_manifest())
    visible = "public" if options.public else "private"
    facts: dict[str, str | None] = {
        "repository": f"{options.repository}, {visible} if it is created",
        "license": options.license or "unknown",
        "license of the text": publication.data_licence or "unknown",
        "missing in the card": "\n".join(missing),
    }
    answer: dict[str, object] = {"run_id": run.run_id, "repository": options.repository, "sent": []}
    answer |= {"private": not options.public, "revisions": revisions, "missing": list(missing)}
    terminal.show(
        answer,
        summary(run.run_id, facts),
        columns(rows),
        columns(files_of_main),
        Text("Nothing was sent: give the same command with `--yes` to send it."),
    )
    return 0


def _pull(options: _PullOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    if settings.client.url is not None and "/" not in options.source:
        return _pull_from_server(options.source, settings, terminal)
    from trainer.export import hub  # torch
    from trainer.export.revisions import MAIN

    repository, _, revision = options.source.partition("@")
    hub.check_repository(repository)
    run, is_new = hub.pull(repository, revision or MAIN, settings.app.artifacts_root, settings.hf.token)
    return _show_pulled(run.run_id, settings, terminal, is_new=is_new)


def _pull_from_server(source: str, settings: Settings, terminal: Terminal) -> int:
    note_new_place(settings, terminal)

    async def pull(server: "Remote") -> int:
        run_id = await server.full_run_id(source)
        run, is_new = await _pulled(server, run_id, settings.app.artifacts_root, terminal)
        return _show_pulled(run.run_id, settings, terminal, is_new=is_new)

    return with_server(settings, pull)


async def _pulled(server: "Remote", run_id: str, artifacts_root: Path, terminal: Terminal) -> tuple[RunDirectory, bool]:
    """Bring a run of the server to an artifacts folder, with a progress bar."""
    from trainer.client.exports import pull_run

    with terminal.transferring(f"pull {run_id}") as progress:
        async with noting_wait(server, terminal):
            return await pull_run(server, run_id, artifacts_root, progress)


def _show_pulled(run_id: str, settings: Settings, terminal: Terminal, *, is_new: bool) -> int:
    command = command_here(settings, f'score {run_id} "…"')
    on_machine = "" if settings.client.url is None else " on this machine"
    place = f"here. Score a text{on_machine} with: {command}" if is_new else "here already."
    terminal.show({"run_id": run_id, "new": is_new}, Text(f"{run_id} is {place}"))
    return 0
