"""YAML 1.2 with the values of JSON: no anchors, aliases, tags or directives."""

import re
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import NoReturn

from pydantic_core import PydanticSerializationError, from_json, to_json
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tokens import Token

from trainer.contracts.errors import AppError, ErrorCode

MAX_BYTES = 256 * 1024
_REFUSED = (
    (re.compile(r"^%", re.MULTILINE), "directives that begin with % are not taken"),
    (re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"), "it holds a control character"),
)
_REFUSED_TOKENS = {"AliasToken", "AnchorToken", "TagToken"}
_OPENING_TOKENS = ("MappingStartToken", "SequenceStartToken")
_CLOSING_TOKENS = ("BlockEndToken", "MappingEndToken", "SequenceEndToken")
_MAX_DEPTH = 32
"""The time of ruamel's scanner grows with the square of the depth: 9,000 brackets would take half a minute."""
_PROBLEM = re.compile(r'^(.*)\n  in "<unicode string>", line (\d+)', re.MULTILINE)
"""A problem and its line in an error message of ruamel."""


def parse_yaml(text: str, name: str) -> object:
    """Parse a YAML text; raises CONFIG_INVALID with the line of the problem."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is too long: at most {MAX_BYTES // 1024} KiB are allowed.")
    for pattern, problem in _REFUSED:
        if found := pattern.search(text):
            _refuse(name, text.count("\n", 0, found.start()) + 1, problem)
    try:
        tokens: Iterator[Token] = YAML(typ="safe", pure=True).scan(text)
        depth = 0
        for token in tokens:
            kind = type(token).__name__
            depth += kind.endswith(_OPENING_TOKENS) - kind.endswith(_CLOSING_TOKENS)
            if depth > _MAX_DEPTH:
                _refuse(name, token.start_mark.line + 1, f"values are nested deeper than {_MAX_DEPTH} levels")
            if kind in _REFUSED_TOKENS:
                _refuse(name, token.start_mark.line + 1, "anchors, aliases and tags are not taken")
        loaded: object = YAML(typ="safe", pure=True).load(text)
        as_json: object = from_json(to_json(loaded))  # dates become text, as do names that are numbers
        return as_json
    except YAMLError as error:
        found_problems: list[tuple[str, str]] = _PROBLEM.findall(str(error))
        problem, line = found_problems[-1]
        hint = " (indent with spaces, not with tabs)" if "'\\t'" in problem else ""
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' is not YAML: line {line}, {problem}{hint}.") from None
    except (PydanticSerializationError, TypeError, ValueError):  # ruamel: TypeError for a list in the name of a field
        raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}' holds a value that cannot be read.") from None


def yaml_text(fields: Mapping[str, object]) -> str:
    """Write fields as YAML in their order, with each text on one line."""
    writer, text = YAML(), StringIO()
    writer.width = 1 << 30
    writer.dump(fields, text)
    return text.getvalue()


def _refuse(name: str, line: int, problem: str) -> NoReturn:
    raise AppError(ErrorCode.CONFIG_INVALID, f"'{name}', line {line}: {problem}.")
