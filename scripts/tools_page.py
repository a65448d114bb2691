"""Writes the reference of the tools of agents, from the table of operations."""

from trainer.mcp.tools import Tool, tools

_HINTS = {"readOnlyHint": "reads", "destructiveHint": "deletes or ends"}


def tools_page() -> str:
    """Return the text of the page."""
    lines = [
        "# Tools of agents",
        "",
        "The arguments of a tool are the fields of the path, the query and the body of its operation, which the"
        " [reference of the HTTP API](http.md) describes. [Agents](../agents.md) says how to use them.",
    ]
    for tag in {one.call.operation.tag: None for one in tools().values()}:
        lines += ["", f"## {tag.capitalize()}", "", "| tool | arguments | | |", "| --- | --- | --- | --- |"]
        lines += [_row(one) for one in tools().values() if one.call.operation.tag == tag]
    return "\n".join([*lines, ""])


def _row(tool: Tool) -> str:
    hint = next((word for name, word in _HINTS.items() if tool.annotations[name]), "")
    return f"| `{tool.name}` | {_arguments(tool)} | {hint} | {tool.description.replace('|', '&#124;')} |"


def _arguments(tool: Tool) -> str:
    return ", ".join(f"`{name}`" for name in tool.arguments)
