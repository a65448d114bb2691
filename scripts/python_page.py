"""Writes the reference of the Python API from its source."""

import ast
import re
from collections.abc import Iterator, Set
from pathlib import Path

_TRAINER = Path(__file__).resolve().parent.parent / "trainer"
_HEAD = """\
# Python API

`trainer.load` returns a `trainer.api.Model` of this machine, with a PyTorch module as `model` and its `tokenizer`.
`trainer.Client` uses the runs and the models of a server, as [another machine](../remote.md) shows; `close()` or the
end of a `with` block closes its connections. Models of both have the same methods.

All functions raise `trainer.contracts.errors.AppError`: its `code` is an [ErrorCode](http.md#errorcode), and its
`message` is a sentence. Events are those of [webhooks](../webhooks.md)."""
_SECTIONS = {
    "trainer.load": ("__init__.py", "load"),
    "trainer.Client": ("client/client.py", "Client"),
    "Models": ("client/notebook.py", "NotebookModel"),
    "Surprisal": ("client/notebook.py", "Surprisal"),
}
"""Headings with the file and the name of a function or a class."""


def python_page(records: Set[str]) -> str:
    """Return the text of the page; `records` are the names of those that the page of the HTTP API describes."""
    lines = [_HEAD]
    for title, (file, name) in _SECTIONS.items():
        source = (_TRAINER / file).read_text(encoding="utf-8")
        lines += ["", f"## {title}"]
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                lines += _function(node, source, records)
            elif isinstance(node, ast.ClassDef) and node.name == name:
                lines += _class(node, source, records)
    return "\n".join([*lines, ""])


def _class(node: ast.ClassDef, source: str, records: Set[str]) -> Iterator[str]:
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")]
    yield from ("", ast.get_docstring(node) or "")
    if not methods:
        yield from ("", "```python", ast.get_source_segment(source, node) or "", "```")
    for method in methods:
        yield from ("", f"### {method.name}", *_function(method, source, records))


def _function(node: ast.FunctionDef, source: str, records: Set[str]) -> Iterator[str]:
    """Yield the signature and the docstring of a function, and links to the records that they name."""
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    signature = [line[node.col_offset :] for line in lines]
    docstring = ast.get_docstring(node) or ""
    yield from ("", "```python", *signature, "```", "", docstring)
    named: list[str] = re.findall(r"\w+", " ".join([*signature, docstring]))
    once: dict[str, None] = dict.fromkeys(named)
    if links := [f"[{name}](http.md#{name.lower()})" for name in once if name in records]:
        yield from ("", f"Records: {', '.join(links)}.")
