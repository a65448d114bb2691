"""`mt unlock`: reads the test split once for the named runs."""

from trainer.commands.arguments import RUN_HELP, RUN_IDS, Argument, Commands, Options
from trainer.commands.connection import Installation, full_run_id, settings_for_any, with_inference
from trainer.commands.terminal import EXIT_FAILED, Terminal
from trainer.config.validation import parse
from trainer.contracts.looks import UnlockRequest
from trainer.contracts.parameters import WaitQuery
from trainer.lab.calls import UNLOCK
from trainer.lab.waits import asked_to_end
from trainer.reports.unlock_report import unlock_report

_WAIT_SECONDS = 30.0


class _UnlockOptions(Options):
    runs = Argument[list[str]]("RUN", nargs="+", completion=RUN_IDS, help=RUN_HELP)


def add_to(commands: Commands) -> None:
    commands.add("unlock", _UnlockOptions, _unlock, with_unit=True)


def _unlock(options: _UnlockOptions, terminal: Terminal) -> int:
    names = {full_run_id(given, or_group=True): given for given in options.runs}
    request = parse(UnlockRequest, {"runs": [*names]})

    async def unlock(installation: Installation) -> int:
        query = WaitQuery(wait=_WAIT_SECONDS)  # the same request again counts no new look
        found = await asked_to_end(lambda: installation.call(UNLOCK, query=query, body=request))
        terminal.show_report(found, unlock_report(found))
        return 0 if all(run.status == "completed" for run in found.runs) else EXIT_FAILED

    return with_inference(settings_for_any(), terminal, unlock)
