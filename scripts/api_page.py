"""Writes the reference of the HTTP API."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps

from pydantic import BaseModel, Field
from pydantic_core import to_json

from trainer.config.schema import Schema
from trainer.contracts.operations import BY_NAME, JOB_ROWS, OTHER_RUN, RUN, Role
from trainer.http.answers import ResponseSpec
from trainer.http.openapi import describe_api
from trainer.http.operations import HttpOperation

GROUP, REQUEST, SESSION, UPLOAD, CORPUS = "GROUP", "REQUEST", "SESSION", "UPLOAD", "CORPUS"
_JOBS = {row.id_field: row.word.upper() for row in JOB_ROWS.values()}
_IDS = {
    "run_id": RUN,
    "item_id": RUN,
    "model": RUN,
    "kind": "models",
    "request_id": REQUEST,
    "session_id": SESSION,
    "group_id": GROUP,
    "upload_id": UPLOAD,
    "corpus": CORPUS,
    **_JOBS,
}
"""Example values of the parameters in a path."""
_PLACEHOLDERS = (OTHER_RUN, RUN, GROUP, REQUEST, SESSION, UPLOAD, CORPUS, *_JOBS.values())
_AUDIENCES = {
    Role.USER: "every key",
    Role.OWNER: "the key that started the run or the job, and keys of admins",
    Role.WEIGHTS: "the key that started the run and keys of admins; every key, if the texts of the run all have names"
    " and `SECURITY__OPEN_WEIGHTS` is on",
    Role.ADMIN: "keys of admins",
}
_BYTES = "hello"
"""The body of examples that send bytes."""
_LINE = 120


class _Parameter(BaseModel):
    name: str
    place: str = Field(alias="in")
    required: bool
    described: Schema = Field(alias="schema")
    description: str = ""


class _Method(BaseModel):
    parameters: tuple[_Parameter, ...]


class _Components(BaseModel):
    schemas: dict[str, Schema]


class _Description(BaseModel):
    """The parts of an OpenAPI description that the page shows."""

    paths: dict[str, dict[str, _Method]]
    components: _Components


def api_page(operations: Sequence[HttpOperation]) -> str:
    """Return the text of the page."""
    described = _Description.model_validate(describe_api(operations))
    tags: dict[str, None] = dict.fromkeys(one.row.tag for one in operations)
    lines = [
        "# Reference of the HTTP API",
        "",
        "What holds for all operations, and the codes of errors: [HTTP API](../api.md).",
    ]
    for tag in tags:
        lines += ["", f"## {tag.capitalize()}"]
        for one in operations:
            if one.row.tag == tag:
                lines += _operation(one, described.paths[one.row.path][one.row.method.lower()])
    lines += ["", "## Records", "", "Fields without a default are always present in answers, and required in requests."]
    for name, schema in sorted(described.components.schemas.items()):
        lines += _record(name, schema)
    return "\n".join([*lines, ""])


def example_values(operation: HttpOperation, values: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of an example by name, with values for its placeholders."""
    given = {name: _IDS[name] for name in operation.path_model.model_fields} | dict(operation.row.query_example)
    return {name: _filled(value, values) for name, value in given.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    return ",".join(values.get(part, part) for part in text.split(","))


def _operation(one: HttpOperation, method: _Method) -> Iterator[str]:
    yield from ("", f"### {one.row.method} {one.row.path}", "", one.summary, "", f"Allowed: {_audience(one)}.")
    rows = [
        (f"`{found.name}`", found.place, "required" if found.required else "optional", _values(found.described))
        for found in method.parameters
    ]
    notes = [found.description.replace("\n", " ") for found in method.parameters]
    if rows:
        head = ("parameter", "in", "", "values", "description")
        yield from ("", *_table(head, ((*row, note) for row, note in zip(rows, notes, strict=True))))
    if one.body_model is not None:
        yield from ("", f"Body: {_record_link(one.body_model.__name__)}.")
    if one.row.body_type is not None:
        yield from ("", f"Body: bytes, as `{one.row.body_type}`.")
    yield from ("", *_table(("status", "answer", "content"), _answers(one)))
    yield from ("", "```sh", curl_example(one), "```", "", "```python", python_example(one), "```")


def _audience(one: HttpOperation) -> str:
    if one.row.is_open:
        return "everybody, without a key"
    return _AUDIENCES[BY_NAME[one.row.name].role]


def _answers(one: HttpOperation) -> Iterator[Sequence[str]]:
    for status, answer in one.answers.items():
        yield str(status), answer.description, _content(answer)


def _content(answer: ResponseSpec) -> str:
    kinds: list[str] = []
    if isinstance(answer.content, str):
        kinds.append(f"`{answer.content}`")
    elif answer.content is not None:
        kinds.append(_record_link(answer.content.__name__))
    return " or ".join([*kinds, *(["`text/event-stream`"] if answer.streams else [])])


def curl_example(one: HttpOperation) -> str:
    """Return the example for a shell, with placeholders as variables."""
    words = ["curl"] if one.row.is_open else ["curl", '-H "X-Api-Key: $KEY"']
    if one.row.example is not None:
        body = _body(one.row.example)
        for name in _PLACEHOLDERS:
            body = body.replace(f'"{name}"', f'"\'"${name}"\'"')
        words += ["-H 'Content-Type: application/json'", f"-d '{body}'"]
    elif one.row.method != "GET":
        words.append(f"-X {one.row.method}")
    if one.row.body_type is not None:
        words += [f"-H 'Content-Type: {one.row.body_type}'", f"--data-binary '{_BYTES}'"]
    return " \\\n  ".join([" ".join(words), f'"$URL{_address(one, "$", "")}"'])


def python_example(one: HttpOperation) -> str:
    """Return the example for httpx2, with placeholders as variables."""
    address = _address(one, "{", "}")
    words = [f'{"f" if "{" in address else ""}"{address}"']
    content = next(iter(one.answers.values())).content
    if content == "text/event-stream":
        return (
            f'with api.stream("GET", {words[0]}) as answer:\n    for line in answer.iter_lines():\n        print(line)'
        )
    if one.row.example is not None:
        words.append(f"json={_python(dict(one.row.example), 'json=', '    ')}")
    if one.row.body_type is not None:
        words += [f'content=b"{_BYTES}"', f'headers={{"Content-Type": "{one.row.body_type}"}}']
    given = ", ".join(words)
    call = f"answer = api.{one.row.method.lower()}({given}).raise_for_status()"
    if "\n" in given:
        given = ",\n    ".join(words) + ","
    if len(call) > _LINE:
        call = f"answer = api.{one.row.method.lower()}(\n    {given}\n).raise_for_status()"
    if content is None:
        return call
    shown = "json()" if not isinstance(content, str) else "content" if "octet-stream" in content else "text"
    return f"{call}\nprint(answer.{shown})"


def _address(one: HttpOperation, before: str, after: str) -> str:
    """Return path and query of an example, with placeholders between these signs."""
    values = example_values(one, {name: f"{before}{name}{after}" for name in _PLACEHOLDERS})
    path = one.row.path
    for name in one.path_model.model_fields:
        path = path.replace(f"{{{name}}}", values[name])
    query = "&".join(f"{name}={values[name]}" for name in one.row.query_example)
    return f"{path}?{query}" if query else path


def _record(name: str, schema: Schema) -> Iterator[str]:
    yield from ("", f"### {name}", "")
    if schema.description:
        yield from (" ".join(schema.description.split()), "")
    if not schema.properties:
        yield f"One of {schema.words()}."
        return
    rows = (
        (f"`{field}`", _values(one), "" if field in schema.required else f"`{_json(one.default)}`", one.description)
        for field, one in schema.properties.items()
    )
    yield from _table(("field", "values", "default", "description"), rows)


def _values(schema: Schema) -> str:
    """Return the allowed values, with patterns as code."""
    return re.sub(r"(?<= matches )(\S+)", r"`\1`", schema.words())


def _body(example: Mapping[str, object]) -> str:
    fields: dict[str, object] = dict(example)
    return dumps(fields)


def _python(value: object, before: str, indent: str) -> str:
    """Write a value of an example in Python, a map that is too long for its line with a line for each of its items."""
    text = dumps(value).replace(": true", ": True").replace(": false", ": False")
    for name in _PLACEHOLDERS:
        text = text.replace(f'"{name}"', name)
    if not isinstance(value, dict) or len(f"{indent}{before}{text},") <= _LINE:
        return text
    fields: dict[str, object] = value
    deeper = f"{indent}    "
    items: list[str] = []
    for name, item in fields.items():
        start = f'"{name}": '
        items.append(f"{deeper}{start}{_python(item, start, deeper)},\n")
    return f"{{\n{''.join(items)}{indent}}}"


def _json(value: object) -> str:
    return to_json(value).decode()


def _record_link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Return a text in one line, with bars escaped outside of code."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if number % 2 else part.replace("|", "&#124;") for number, part in enumerate(parts))
