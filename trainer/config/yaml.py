"""YAML 1.2 as far as JSON can say it: one document of named values, lists, text, numbers, true, false and null."""

import re
import warnings
from typing import NoReturn, Protocol

from ruamel.yaml import YAML
from ruamel.yaml.error import ReusedAnchorWarning, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.validation import shown_name

MOST_BYTES = 256 * 1024
_MOST_VALUES = 20_000
_DEEPEST = 50
_MAPPING: type[Node] = MappingNode
_SEQUENCE: type[Node] = SequenceNode
_SCALAR: type[Node] = ScalarNode
_TAGS = "tag:yaml.org,2002:"
_TEXT = {"str", "timestamp", "merge", "value"}
"""What YAML reads as text, or as something that JSON has not, where the text as written is what is meant."""
_SCALARS = {"int", "float", "bool", "null"} | _TEXT
_REFUSED = (
    (re.compile(r"^%", re.MULTILINE), "directives that begin with % are not taken; the text is YAML 1.2"),
    (re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"), "it holds a control character"),
)
_PLACE = re.compile(r'^(.*)\n  in "<unicode string>", line (\d+)', re.MULTILINE)
"""The end of what ruamel says: the problem, and the line that it is in."""


def parse_yaml(text: str, name: str) -> object:
    """Read a YAML text as JSON would hold it; raises CONFIG_INVALID naming what is wrong in which line."""
    if len(text.encode(errors="surrogatepass")) > MOST_BYTES:
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is too long: at most {MOST_BYTES // 1024} KiB are taken.")
    for pattern, problem in _REFUSED:
        if found := pattern.search(text):
            _refuse(name, text.count("\n", 0, found.start()) + 1, problem)
    reader = YAML(typ="safe", pure=True)
    constructor: _Constructor = reader.constructor
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            document: Node | None = reader.compose(text)
        return None if document is None else _Values(name, constructor).of(document)
    except YAMLError as error:
        told: list[tuple[str, str]] = _PLACE.findall(str(error))
        problem, line = told[-1]
        hint = " (indent with spaces, not with tabs)" if "'\\t'" in problem else ""
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is not YAML: line {line}, {problem}{hint}.") from None
    except ValueError:  # of chr()
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is not YAML: a \\U names no character.") from None
    except RecursionError:
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is nested deeper than {_DEEPEST} levels.") from None


class _Constructor(Protocol):
    def construct_object(self, node: Node) -> object: ...


class _Values:
    """Turns the nodes of a document into values; counts them, since aliases let a short text mean a huge one."""

    def __init__(self, name: str, constructor: _Constructor) -> None:
        self._name = name
        self._constructor = constructor
        self._count = 0

    def of(self, node: Node, depth: int = 0) -> object:
        self._count += 1
        if self._count > _MOST_VALUES or depth > _DEEPEST:
            what = f"more than {_MOST_VALUES:,} values" if depth <= _DEEPEST else f"more than {_DEEPEST} levels"
            self._refuse(node, f"the text comes to {what} here (aliases count each time)")
        kind = (node.tag or "").removeprefix(_TAGS)
        if isinstance(node, _MAPPING) and kind == "map":
            return self._mapping(node, depth)
        if isinstance(node, _SEQUENCE) and kind == "seq":
            items: list[Node] = node.value
            return [self.of(item, depth + 1) for item in items]
        if isinstance(node, _SCALAR) and kind in _SCALARS:
            return self._scalar(node, kind)
        self._refuse(node, f"the tag {shown_name(node.tag or '')} is not taken here")

    def _mapping(self, node: Node, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        pairs: list[tuple[Node, Node]] = node.value
        for key, value in pairs:
            name = self.of(key, depth + 1)
            if not isinstance(name, str):
                self._refuse(key, "a name must be text, not a number, a truth value, null or a block")
            if name in values:
                self._refuse(key, f"`{shown_name(name)}` is given twice")
            values[name] = self.of(value, depth + 1)
        return values

    def _scalar(self, node: Node, kind: str) -> object:
        escaped: str = node.value
        try:  # two \u of a character beyond the first 65,536 are one, as in JSON
            text = escaped.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._refuse(node, "a \\u names half a character")
        if kind in _TEXT:
            return text
        try:
            return self._constructor.construct_object(node)
        except (LookupError, ValueError):
            self._refuse(node, f"'{shown_name(text)}' is no {kind} that can be read")

    def _refuse(self, node: Node, problem: str) -> NoReturn:
        mark: StringMark = node.start_mark
        _refuse(self._name, mark.line + 1, problem)


def _refuse(name: str, line: int, problem: str) -> NoReturn:
    raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}', line {line}: {problem}.")
