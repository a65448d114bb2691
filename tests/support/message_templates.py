"""The templates of the messages that the program words in English and chat shows in the reader's language.

A template is read from the code: a string constant, an f-string, or constants joined by `+`. The values of an f-string
are numbered: {0}, {1}. A message that is built in another way cannot be read, so nobody may build one: a text of
more than one word in the walked code is a template, unless `NO_MESSAGES` names it.
"""

import ast
import re
from collections.abc import Iterator

from tests.support import ROOT

OTHER_FACES = (
    "trainer/commands",
    "trainer/http",
    "trainer/mcp",
    "trainer/client",
    "trainer/export",
    "trainer/native",
    "trainer/models",
    "trainer/reports",
    "bot",
)
"""Folders that only other faces import, or whose texts are no messages.

The command line, HTTP, the tools of agents, the client; exports for the hub; the build of the C library; layers, whose
errors are those of a programmer. Reports have notes, and the bot has `_()`: other tests see to these.
"""
NO_MODULES = (
    "bot/app.py",
    "bot/main.py",
    "bot/rest/proxy.py",
    "trainer/__init__.py",
    "trainer/api.py",
    "trainer/artifacts/archives.py",
    "trainer/artifacts/replication.py",
    "trainer/config/schema.py",
    "trainer/config/settings.py",
    "trainer/contracts/completions.py",
    "trainer/contracts/earlier_forms.py",
    "trainer/contracts/exports.py",
    "trainer/contracts/operations.py",
    "trainer/contracts/parameters.py",
    "trainer/contracts/reports.py",
    "trainer/inference/completion.py",
    "trainer/lab/here.py",
    "trainer/lab/requests.py",
    "trainer/ngrams/arpa.py",
    "trainer/reading/r_script.py",
    "trainer/services/embedded.py",
    "trainer/store/address.py",
    "trainer/store/store.py",
    "trainer/system/destination.py",
    "trainer/system/gpus.py",
    "trainer/system/hardware.py",
    "trainer/system/sockets.py",
    "trainer/training/selftest.py",
    "trainer/worker/health_check.py",
)
"""Modules whose texts only other faces show, an operator reads in a terminal, or no person reads."""
_NO_CALLS = (
    *("Field", "RequestOption", "compile", "split", "encode", "search", "startswith", "rpartition", "removeprefix"),
    *("warning", "info", "error", "debug", "exception", "_log_phase", "get", "substitute", "TypeError"),
    *("_", "plural", "count", "note", "counted_note", "column", "section", "choice"),
)
"""Calls whose texts are descriptions, patterns, lines of a log, or translated already."""
_ERRORS = ("AppError", "Refused", "Finding", "field_error")
"""What the bot and the reports raise or show with a text in English."""
_COUNTED = ("counted", "_limit")
"""Functions that return a number with a noun."""
NO_MESSAGES = (
    *("uv tool install", "pip install", "max number of clients", "unknown command", "object store"),
    *("redirect without LOCATION", "can't allocate memory", "Debug source:", '"event": "tokenizer_'),
    *("number {0}", "unlock {0}", "cuda:{0} {1}", "# The run {0}; absent fields have their defaults"),
    "layers: 2, embedding_size: 64, hidden_size: 64, intermediate_hidden_size: 256, attention_heads: 2, dropout: 0.1,"
    " attention_dropout: 0.1",
    "model: {architecture: {0}, {1}: {{2}}}",
    "text of the United Nations, free to reproduce",
    *("context 1", "context 2", "target 1", "target 2", "right context", "wrong context", "place of the right one"),
    *("must be", "must have", "must hold", "must name", "unknown field"),
    *("must be a path within its folder", "the archive is compressed", "the archive is not an optimizer state"),
    "a tensor is larger than its storage",
)
"""Commands, keys, examples of files, names of columns, errors of a programmer, and texts of other programs."""
PARSERS = (
    *("expected the node content, but found '{0}'", "expected <block end>, but found '{0}'"),
    *("mapping values are not allowed here", "could not find expected ':'", "found unexpected end of stream"),
    *("found character '{0}' that cannot start any token", "found unknown escape character '{0}'"),
)
"""What PyYAML says of files that people write, as it is in our messages."""
JOINS = (
    *("{0} and {1}", "{0} or {1}", "must have {0}", "must hold {0}", "must name {0}", "must be text"),
    *("unknown field `{0}`", "unknown field `{0}`; did you mean `{1}`?"),
)
"""Templates of functions that put other messages together."""


def template_of(node: ast.expr) -> str | None:
    """Return the text of an expression with its values as `{}`; None if the code does not show it."""
    match node:
        case ast.Constant(value=str(text)):  # {name} is for `format`
            return re.sub(r"\{\w+(?::[^}]*)?\}", "{}", text)
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = template_of(left), template_of(right)
            return None if first is None or second is None else first + second
        case _:
            return None


def numbered(template: str) -> str:
    """Return a template with numbers in its braces, as the catalogues have it."""
    first, *others = template.strip().removesuffix(".").split("{}")
    return first + "".join(f"{{{number}}}{part}" for number, part in enumerate(others))


def is_message(template: str) -> bool:
    """Whether a text has two words or more, and is no path, pattern or type."""
    words = re.sub(r"`[^`]*`|\{\}", "§", template.strip())
    has_word = re.search(r"(?<![\w/-])[a-z]{2,}(?![\w/-])", words) is not None
    return has_word and " " in words and not re.search(r"[\n|]", words) and numbered(template) not in NO_MESSAGES


def templates() -> dict[str, str]:
    """Return the templates of all messages that chat can show, with the module of each."""
    found = {text: name for name, module in modules_of_messages().items() for text in templates_of(module)}
    for path in (*(ROOT / "trainer" / "reports").glob("*.py"), *(ROOT / "bot").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node) in _ERRORS and name not in NO_MODULES:
                found |= dict.fromkeys(templates_of(node), name)
    return found


def nouns() -> set[str]:
    """Return the nouns that messages count."""
    calls = (node for module in modules_of_messages().values() for node in ast.walk(module))
    counts = (node for node in calls if isinstance(node, ast.Call) and _name(node) in _COUNTED)
    return {text for call in counts for arg in call.args if (text := template_of(arg)) is not None}


def modules_of_messages() -> dict[str, ast.Module]:
    """Return the modules whose texts are messages, by their paths."""
    paths = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "trainer").rglob("*.py"))}
    folders = tuple(f"{folder}/" for folder in OTHER_FACES)
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if name not in NO_MODULES and not name.startswith(folders)
    }


def templates_of(tree: ast.AST) -> Iterator[str]:
    """Yield the messages in a module or another part of the code, outermost first."""
    annotations: set[ast.AST] = set()
    match tree:
        case ast.AnnAssign(annotation=annotation):
            annotations = {annotation}
        case ast.arg(annotation=ast.expr() as annotation):
            annotations = {annotation}
        case ast.FunctionDef(returns=ast.expr() as returns) | ast.AsyncFunctionDef(returns=ast.expr() as returns):
            annotations = {returns}
        case _:
            pass
    for node in ast.iter_child_nodes(tree):
        if node not in annotations:
            yield from _templates_of_node(node)


def _templates_of_node(node: ast.AST) -> Iterator[str]:
    text = template_of(node) if isinstance(node, ast.expr) else None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Call) and _name(node) in (*_NO_CALLS, *_COUNTED):
        return
    if text is None:
        yield from templates_of(node)
        return
    if is_message(text):
        yield numbered(text)
    for part in ast.walk(node):
        if isinstance(part, ast.FormattedValue):
            yield from _templates_of_node(part.value)


def _name(call: ast.Call) -> str:
    """Return the last name of a called function."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
