"""`mt mcp`: this installation, or the server of MT_URL, for an agent on standard input and output."""

from collections.abc import Sequence
from typing import get_args

from trainer.commands.arguments import Argument, Commands, Options
from trainer.commands.connection import Installation, settings_for_any, with_services
from trainer.commands.terminal import Terminal
from trainer.contracts.installation import require_extras
from trainer.contracts.operations import Tag

_TAGS: tuple[Tag, ...] = get_args(Tag)


class _AgentOptions(Options):
    tags = Argument[Sequence[Tag]](
        "--tags TAG",
        nargs="+",
        default=(),
        choices=_TAGS,
        help="only tools of these sections, as /docs has them, for clients that take few; default: all",
    )


def add_to(commands: Commands) -> None:
    commands.add("mcp", _AgentOptions, _serve, with_json=False)


def _serve(options: _AgentOptions, terminal: Terminal) -> int:
    require_extras("agents")
    from trainer.client.remote import Remote
    from trainer.lab.requests import ApiClient
    from trainer.mcp.installations import LabInstallation, ServerInstallation
    from trainer.mcp.server import serve_stdio

    async def serve(installation: Installation) -> int:
        if isinstance(installation, Remote):
            await serve_stdio(ServerInstallation(installation), options.tags)
        else:
            operator = ApiClient(None, is_admin=True)
            await serve_stdio(LabInstallation(installation.lab, operator), options.tags)
        return 0

    return with_services(settings_for_any(level="INFO"), terminal, serve)
