"""Check requests, answers and objects against Discord's official OpenAPI description."""

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import NamedTuple

from jsonschema_rs import Draft202012Validator, Registry, ValidationError, ValidationErrorKind
from pydantic import JsonValue

from local_discord.wire import Json, decode, items, mapping, rows, text

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """A problem of a request: its path, Discord's error code and the message."""

    path: Path
    code: str
    message: str


class Operation(NamedTuple):
    """A method of a path of the API description; `template` is the path with {names}."""

    id: str
    method: str
    template: str
    pattern: re.Pattern[str]
    query: Json
    """Schemas of the query parameters."""
    body: Json
    responses: Json

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def has_token(self) -> bool:
        """Return True if the token is in the path: the operation needs no header, and has no global limit."""
        return "_token}" in self.template


class Description:
    """The API description, its operations, and validators that are compiled on first use."""

    def __init__(self) -> None:
        source = resources.files("local_discord").joinpath("discord_openapi/openapi.json").read_text(encoding="utf-8")
        answers = mapping(decode(source.replace('"#/components', '"urn:answer#/components')))
        requests = mapping(decode(source.replace('"#/components', '"urn:request#/components')))
        # Discord takes integers for snowflakes in requests (discord.py sends them); only the answers
        # keep to strings. The description knows one form only.
        mapping(mapping(mapping(requests["components"])["schemas"])["SnowflakeType"])["type"] = ["string", "integer"]
        self._registry = Registry([("urn:answer", answers), ("urn:request", requests)])
        self._validators: dict[str, Draft202012Validator] = {}
        operations = _operations(mapping(requests["paths"]), mapping(answers["paths"]))
        self._operations = sorted(operations, key=_placeholders)

    def match(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """Return the operation and the path parameters of a concrete path; literal paths come first."""
        for operation in self._operations:
            if operation.method == method and (found := operation.pattern.fullmatch(path)):
                ids: dict[str, str] = found.groupdict()
                return operation, ids
        return None

    def read_query(self, operation: Operation, query: Mapping[str, str]) -> tuple[Json, list[Problem]]:
        """Return the query in the declared types, and its problems."""
        message = "The description has no such query parameter."
        problems = [Problem((name,), "UNKNOWN_PARAMETER", message) for name in query if name not in operation.query]
        schemas = {name: mapping(operation.query[name]) for name in query if name in operation.query}
        values: Json = {name: _typed(query[name], schema) for name, schema in schemas.items()}
        for name, schema in schemas.items():
            problems += self._problems(schema, values[name], (name,))
        return values, problems

    def body_problems(self, operation: Operation, body: JsonValue) -> list[Problem]:
        if not operation.body:
            return [] if body is None else [Problem((), "UNEXPECTED_BODY", "The operation takes no body.")]
        if body is None:
            return [required(())] if operation.body.get("required") else []
        return self._problems(_schema(operation.body), body)

    def answer_problems(self, operation: Operation, status: int, body: JsonValue) -> list[Problem]:
        if status >= 400:
            # `errors` is left out: the description says its codes are integers, the true ones are words.
            known: Json = {name: value for name, value in mapping(body).items() if name != "errors"}
            return self.object_problems("RatelimitedResponse" if status == 429 else "ErrorResponse", known)
        declared = mapping(operation.responses.get(str(status)))
        if not declared:
            return [Problem((), "STATUS", f"The description has no status {status} here.")]
        if "content" not in declared:
            return [] if body is None else [Problem((), "BODY", f"Status {status} has no body.")]
        return self._problems(_schema(declared), body)

    def object_problems(self, schema: str, value: JsonValue) -> list[Problem]:
        """Return the differences between `value` and a schema of the API description."""
        return self._problems({"$ref": f"urn:answer#/components/schemas/{schema}"}, value)

    def _problems(self, schema: Json, value: JsonValue, prefix: Path = ()) -> list[Problem]:
        key = str(schema)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator(
                schema, registry=self._registry, validate_formats=True, mask="The value"
            )
        found = self._validators[key].iter_errors(value)
        return [_problem(inner, prefix) for error in found for inner in _innermost(error)]


def form_errors(problems: Iterable[Problem]) -> Json:
    """Return problems as the nested `errors` object of Discord's code 50035."""
    errors: Json = {}
    for problem in problems:
        node = errors
        for part in problem.path:
            node = mapping(node.setdefault(str(part), {}))
        items(node.setdefault("_errors", [])).append({"code": problem.code, "message": problem.message})
    return errors


def required(path: Path) -> Problem:
    return Problem(path, "BASE_TYPE_REQUIRED", "This field is required")


def too_long(path: Path, limit: int) -> Problem:
    return Problem(path, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")


def _operations(requests: Json, answers: Json) -> Iterable[Operation]:
    for template, path_item in requests.items():
        shared = mapping(path_item)
        pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)))
        for method in ("get", "put", "post", "patch", "delete"):
            declared = mapping(shared.get(method))
            if not declared:
                continue
            parameters = rows(shared.get("parameters")) + rows(declared.get("parameters"))
            query = {text(row["name"]): row["schema"] for row in parameters if row["in"] == "query"}
            body = mapping(declared.get("requestBody"))
            responses = mapping(mapping(mapping(answers[template])[method])["responses"])
            yield Operation(text(declared["operationId"]), method.upper(), template, pattern, query, body, responses)


def _placeholders(operation: Operation) -> int:
    return operation.template.count("{")


def _schema(declared: Json) -> Json:
    """Return the schema of a body."""
    return mapping(mapping(mapping(declared["content"])["application/json"])["schema"])


def _typed(value: str, schema: Json) -> JsonValue:
    if schema.get("type") == "boolean" and value.lower() in ("0", "1", "true", "false"):
        return value.lower() in ("1", "true")
    return int(value) if schema.get("type") == "integer" and value.isdecimal() else value


def _innermost(error: ValidationError) -> list[ValidationError]:
    """Return the errors of the only member of a union with a fitting `type`, or the error itself."""
    if not isinstance(error.kind, ValidationErrorKind.OneOfNotValid | ValidationErrorKind.AnyOf):
        return [error]
    fitting = [branch for branch in error.kind.context if not any(_other(item, error) for item in branch)]
    return [deep for item in fitting[0] for deep in _innermost(item)] if len(fitting) == 1 else [error]


def _other(item: ValidationError, union: ValidationError) -> bool:
    at_type = item.instance_path == [*union.instance_path, "type"] and item.kind.name in ("enum", "const")
    return at_type or (item.instance_path == union.instance_path and item.kind.name == "type")


def _problem(error: ValidationError, prefix: Path) -> Problem:
    path: Path = (*prefix, *error.instance_path)
    match error.kind:
        case ValidationErrorKind.Required(property=name):
            return required((*path, str(name).strip('"')))
        case ValidationErrorKind.MaxLength(limit=limit):
            return too_long(path, limit)
        case _:
            return Problem(path, "BASE_TYPE_INVALID", error.message[:300])


DISCORD = Description()
"""Shared by all local Discords of a process: it takes a tenth of a second to read, and keeps compiled validators."""
