"""The OpenAPI 3.1 description, made from the table of operations."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from trainer.contracts.errors import ErrorBody
from trainer.contracts.operations import RUN
from trainer.http.answers import Link, ResponseSpec
from trainer.http.error_answers import OpenAiErrorBody, is_openai
from trainer.http.operations import HttpOperation
from trainer.lab.requests import IDEMPOTENCY_KEY
from trainer.lab.schemas import Json, for_programs, parameters

_IDEMPOTENCY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
    "description": "A request that is repeated with the same key is not run again.",
}
_ERROR_TEXT = "An error: the table of error codes has the HTTP status of each code"
_ERRORS = {
    401: "The API key is missing or wrong",
    403: "The client may not do this",
    404: "Something that the request names does not exist",
    409: "The run is not in the state for it, or the request contradicts an earlier one",
    415: "The body is not of the media type of this operation",
    422: "A field or parameter is wrong, or does not fit others, the run, the corpus or the machine",
    429: "The client has sent too many requests",
}


def describe_api(operations: Sequence[HttpOperation], *, has_keys: bool = True, address: str = ".") -> Json:
    """Return the description of the API as JSON values; `address` is that of the server, or relative to the text's."""
    models = list(_models(operations))
    found: tuple[object, dict[str, Json]] = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas = for_programs(found[1]["$defs"])
    paths: dict[str, Json] = {}
    for one in operations:
        described: Json = {
            "operationId": one.row.name,
            "summary": one.summary.split("\n")[0],
            "tags": [one.row.tag],
            "parameters": [
                *parameters(one.path_model, "path"),
                *parameters(one.query_model, "query"),
                *([_IDEMPOTENCY] if one.row.method == "POST" else []),
            ],
            "responses": {
                **{str(status): _answer(answer, schemas) for status, answer in one.answers.items()},
                **{str(status): _error(one, text, schemas) for status, text in _errors(one, has_keys=has_keys).items()},
                "default": _error(one, _ERROR_TEXT, schemas),
            },
            "security": [{"key": []}, {"bearer": []}] if has_keys and not one.row.is_open else [],
        }
        if one.body_model is not None:
            content = _json(_reference(one.body_model, "Input", schemas))
            if one.row.example is not None and RUN not in one.row.example.values():
                content["application/json"]["example"] = dict(one.row.example)
            described["requestBody"] = {"required": True, "content": content}
        if one.row.body_type is not None:
            described["requestBody"] = {"required": True, "content": {one.row.body_type: {}}}
        paths.setdefault(one.row.path, {})[one.row.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Trainer",
            "version": version("model-trainer"),
            "description": "Train small language models and query them.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": address}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _models(operations: Sequence[HttpOperation]) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    yield ErrorBody, "serialization"
    yield OpenAiErrorBody, "serialization"
    for one in operations:
        if one.body_model is not None:
            yield one.body_model, "validation"
        for answer in one.answers.values():
            if answer.content is not None and not isinstance(answer.content, str):
                yield answer.content, "serialization"


def _answer(answer: ResponseSpec, schemas: Json) -> Json:
    described: Json = {"description": answer.description}
    content: dict[str, Json] = {}
    if isinstance(answer.content, str):
        content[answer.content] = {"schema": {"type": "string"}} if answer.content in _PLAIN else {}
    elif answer.content is not None:
        content = _json(_reference(answer.content, "Output", schemas))
    if answer.streams:
        content["text/event-stream"] = {}
    if content:
        described["content"] = content
    if answer.links:
        described["links"] = {link.operation: _link(link) for link in answer.links}
    return described


_PLAIN = ("text/plain", "application/octet-stream")
"""Media types whose content has no structure."""


def _link(link: Link) -> Json:
    described: Json = {"operationId": link.operation, "parameters": dict(link.parameters)}
    if link.body is not None:
        described["requestBody"] = dict(link.body)
    return described


def _error(one: HttpOperation, text: str, schemas: Json) -> Json:
    body = OpenAiErrorBody if is_openai(one.row.path) else ErrorBody
    return {"description": text, "content": _json(_reference(body, "Output", schemas))}


def _errors(one: HttpOperation, *, has_keys: bool) -> dict[int, str]:
    """Return the usual errors of an operation by status."""
    names_something = bool(one.path_model.model_fields) or one.body_model is not None
    has_input = names_something or bool(one.query_model.model_fields) or one.row.method == "POST"
    found = {
        401: has_keys and not one.row.is_open,
        403: not one.row.is_open,
        404: names_something,
        409: names_something,
        415: one.body_model is not None or one.row.body_type is not None,
        422: has_input,
        429: not one.row.is_open,
    }
    return {status: text for status, text in _ERRORS.items() if found[status]}


def _reference(model: type[BaseModel], mode: Literal["Input", "Output"], schemas: Json) -> Json:
    """Return the reference to a record; one whose two modes differ has two schemas."""
    name = f"{model.__name__}-{mode}"
    return {"$ref": f"#/components/schemas/{name if name in schemas else model.__name__}"}


def _json(schema: Json) -> dict[str, Json]:
    return {"application/json": {"schema": schema}}
