"""Check requests, answers and objects against Discord's official OpenAPI description."""

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import NamedTuple
from urllib.parse import quote

from jsonschema_rs import Draft202012Validator, Registry, ValidationError, ValidationErrorKind
from multidict import MultiMapping
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
    parameters: list[Json]


# Discord's own codes, by the JSON Schema keyword which was not met.
ERROR_CODES = {
    "maxLength": "BASE_TYPE_MAX_LENGTH",
    "minLength": "BASE_TYPE_MIN_LENGTH",
    "maxItems": "BASE_TYPE_BAD_LENGTH",
    "minItems": "BASE_TYPE_BAD_LENGTH",
    "required": "BASE_TYPE_REQUIRED",
    "enum": "BASE_TYPE_CHOICES",
    "const": "BASE_TYPE_CHOICES",
    "maximum": "NUMBER_TYPE_MAX",
    "minimum": "NUMBER_TYPE_MIN",
    "uniqueItems": "SET_TYPE_ALREADY_CONTAINS_VALUE",
}
# A callback's schema is a union over `type`: its own member gives exact paths in the error.
CALLBACK_SCHEMAS = {
    1: "PongInteractionCallbackRequest",
    4: "CreateMessageInteractionCallbackRequest",
    5: "CreateMessageInteractionCallbackRequest",
    6: "UpdateMessageInteractionCallbackRequest",
    7: "UpdateMessageInteractionCallbackRequest",
    8: "ApplicationCommandAutocompleteCallbackRequest",
    9: "ModalInteractionCallbackRequest",
}


class Description:
    """The API description, its operations, and validators that are compiled on first use."""

    def __init__(self) -> None:
        source = resources.files("local_discord").joinpath("discord_openapi/openapi.json").read_bytes()
        self._document = mapping(decode(source))
        lenient = mapping(decode(source))
        # Discord takes integers for snowflakes in requests (discord.py sends them); only the answers
        # keep to strings. The description knows one form only.
        mapping(mapping(mapping(lenient["components"])["schemas"])["SnowflakeType"])["type"] = ["string", "integer"]
        pages = [("urn:answer", self._document), ("urn:request", lenient)]
        self._registry = Registry(pages)
        self._validators: dict[str, Draft202012Validator] = {}
        self.operations = sorted(self._operations(), key=_placeholders)

    def match(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """Return the operation and the path parameters of a concrete path; literal paths come first."""
        for operation in self.operations:
            if operation.method == method and (found := operation.pattern.fullmatch(path)):
                return operation, {name: value or "" for name, value in _groups(found)}
        return None

    def parameter_problems(
        self, operation: Operation, path: Mapping[str, str], query: MultiMapping[str]
    ) -> tuple[Json, list[Problem]]:
        """Return the query in the declared types, and the problems of path and query."""
        values: Json = {}
        problems = [
            Problem((name,), "UNKNOWN_PARAMETER", "The description has no such query parameter.")
            for name in query
            if name not in {text(row["name"]) for row in operation.parameters if row["in"] == "query"}
        ]
        for row in operation.parameters:
            name = text(row["name"])
            pointer = f"urn:request#{text(row['pointer'])}"
            if row["in"] == "path":
                problems += self._problems(pointer, path[name], (name,))
            elif name in query:
                values[name] = _typed(query.getall(name), mapping(row["schema"]))
                problems += self._problems(pointer, values[name], (name,))
            elif row.get("required") is True:
                problems.append(Problem((name,), "BASE_TYPE_REQUIRED", "This field is required"))
        return values, problems

    def body_problems(self, operation: Operation, body: JsonValue) -> list[Problem]:
        pointer = _pointer("paths", operation.template, operation.method.lower(), "requestBody")
        declared = mapping(self._at(operation).get("requestBody"))
        if not declared:
            return [] if body is None else [Problem((), "UNEXPECTED_BODY", "The operation takes no body.")]
        if body is None:
            return [Problem((), "BASE_TYPE_REQUIRED", "A body is required")] if declared.get("required") else []
        if operation.id == "create_interaction_response":
            name = CALLBACK_SCHEMAS.get(_kind(body))
            if name is None:
                return [Problem(("type",), "BASE_TYPE_CHOICES", "Not an interaction callback type known here.")]
            return self._problems(f"urn:request#/components/schemas/{name}", body)
        schema = mapping(mapping(mapping(declared["content"])["application/json"])["schema"])
        suffix = _pointer("content", "application/json", "schema", *(("anyOf", "0") if "anyOf" in schema else ()))
        return self._problems(f"urn:request#{pointer}{suffix}", body)

    def answer_problems(self, operation: Operation, status: int, body: JsonValue) -> list[Problem]:
        if status >= 400:
            # `errors` is left out: the description says its codes are integers, the true ones are words.
            known: Json = {name: value for name, value in mapping(body).items() if name != "errors"}
            return self.object_problems("RatelimitedResponse" if status == 429 else "ErrorResponse", known)
        declared = mapping(mapping(self._at(operation)["responses"]).get(str(status)))
        if not declared:
            return [Problem((), "STATUS", f"The description has no status {status} here.")]
        if "content" not in declared:
            return [] if body is None else [Problem((), "BODY", f"Status {status} has no body.")]
        pointer = _pointer(
            *("paths", operation.template, operation.method.lower(), "responses", str(status)),
            *("content", "application/json", "schema"),
        )
        return self._problems(f"urn:answer#{pointer}", body)

    def object_problems(self, schema: str, value: JsonValue) -> list[Problem]:
        """Return the differences between `value` and a schema of the API description."""
        return self._problems(f"urn:answer#/components/schemas/{schema}", value)

    def _problems(self, reference: str, value: JsonValue, prefix: Path = ()) -> list[Problem]:
        validator = self._validators.get(reference)
        if validator is None:
            schema = {"$ref": reference}
            validator = Draft202012Validator(schema, registry=self._registry, validate_formats=True, mask="The value")
            self._validators[reference] = validator
        return [_problem(error, prefix) for found in validator.iter_errors(value) for error in _innermost(found)]

    def _operations(self) -> Iterable[Operation]:
        for template, path_item in mapping(self._document["paths"]).items():
            shared = _located(mapping(path_item), _pointer("paths", template))
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(template)))
            for method, value in mapping(path_item).items():
                if method in ("get", "put", "post", "patch", "delete"):
                    declared = mapping(value)
                    own = _located(declared, _pointer("paths", template, method))
                    yield Operation(text(declared["operationId"]), method.upper(), template, pattern, [*shared, *own])

    def _at(self, operation: Operation) -> Json:
        return mapping(mapping(mapping(self._document["paths"])[operation.template])[operation.method.lower()])


def form_errors(problems: list[Problem]) -> Json:
    """Return problems as the nested `errors` object of Discord's code 50035."""
    errors: Json = {}
    for problem in problems:
        node = errors
        for part in problem.path:
            child = node.setdefault(str(part), {})
            node = mapping(child)
        listed = items(node.setdefault("_errors", []))
        listed.append({"code": problem.code, "message": problem.message})
    return errors


def _placeholders(operation: Operation) -> int:
    return operation.template.count("{")


def _located(declared: Json, pointer: str) -> list[Json]:
    parameters = enumerate(rows(declared.get("parameters")))
    return [{**row, "pointer": f"{pointer}/parameters/{index}/schema"} for index, row in parameters]


def _pointer(*parts: str) -> str:
    escaped = (part.replace("~", "~0").replace("/", "~1") for part in parts)
    return "".join("/" + quote(part, safe="~@") for part in escaped)


def _groups(found: re.Match[str]) -> Iterable[tuple[str, str]]:
    groups: dict[str, str] = found.groupdict()
    return groups.items()


def _typed(values: list[str], schema: Json) -> JsonValue:
    value, kind = values[-1], schema.get("type")
    if kind == "array":
        return [*values]
    if kind == "boolean" and value.lower() in ("0", "1", "true", "false"):
        return value.lower() in ("1", "true")
    return int(value) if kind == "integer" and value.lstrip("-").isdecimal() else value


def _kind(body: JsonValue) -> int:
    kind = mapping(body).get("type")
    return kind if isinstance(kind, int) else 0


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
    code = ERROR_CODES.get(error.kind.name, "BASE_TYPE_INVALID")
    match error.kind:
        case ValidationErrorKind.Required(property=name):
            return Problem((*path, str(name).strip('"')), code, "This field is required")
        case ValidationErrorKind.MaxLength(limit=limit):
            return Problem(path, code, f"Must be {limit} or fewer in length.")
        case _:
            return Problem(path, code, error.message[:300])
