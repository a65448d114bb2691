"""The OpenAPI 3.1 description, made from the table of operations."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from bot.http.operations import IDEMPOTENCY_KEY, Answer, Operation
from trainer.contracts.errors import ErrorBody

Json = dict[str, object]

_IDEMPOTENCY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
    "description": "A request that is repeated with the same key is not run again.",
}
_ERROR_TEXT = "An error: the table of error codes has the HTTP status of each code"


def describe_api(operations: Sequence[Operation]) -> Json:
    """Return the description of the API as JSON values."""
    models = list(_models(operations))
    found: tuple[object, dict[str, Json]] = models_json_schema(models, ref_template="#/components/schemas/{model}")
    schemas = found[1]["$defs"]
    paths: dict[str, Json] = {}
    for one in operations:
        described: Json = {
            "operationId": one.name,
            "summary": one.summary.split("\n")[0],
            "tags": [one.tag],
            "parameters": [
                *_parameters(one.path_model, "path"),
                *_parameters(one.query_model, "query"),
                *([_IDEMPOTENCY] if one.method == "POST" else []),
            ],
            "responses": {
                **{str(status): _answer(answer, schemas) for status, answer in one.answers.items()},
                "default": {"description": _ERROR_TEXT, "content": _json(_reference(ErrorBody, "Output", schemas))},
            },
            "security": [] if one.access == "open" else [{"key": []}, {"bearer": []}],
        }
        if one.body_model is not None:
            content = _json(_reference(one.body_model, "Input", schemas))
            content["application/json"] |= {} if one.example is None else {"example": dict(one.example)}
            described["requestBody"] = {"required": True, "content": content}
        paths.setdefault(one.path, {})[one.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Trainer",
            "version": version("model-trainer"),
            "description": "Train small language models and query them.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _models(operations: Sequence[Operation]) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    yield ErrorBody, "serialization"
    for one in operations:
        if one.body_model is not None:
            yield one.body_model, "validation"
        for answer in one.answers.values():
            if answer.content is not None and not isinstance(answer.content, str):
                yield answer.content, "serialization"


def _answer(answer: Answer, schemas: Json) -> Json:
    described: Json = {"description": answer.description}
    if isinstance(answer.content, str):
        described["content"] = {answer.content: {"schema": {"type": "string"}}}
    elif answer.content is not None:
        described["content"] = _json(_reference(answer.content, "Output", schemas))
    return described


def _reference(model: type[BaseModel], mode: Literal["Input", "Output"], schemas: Json) -> Json:
    """Return the reference to a record; one whose two modes differ has two schemas."""
    name = f"{model.__name__}-{mode}"
    return {"$ref": f"#/components/schemas/{name if name in schemas else model.__name__}"}


def _json(schema: Json) -> dict[str, Json]:
    return {"application/json": {"schema": schema}}


def _parameters(model: type[BaseModel], place: str) -> Iterator[Json]:
    described: dict[str, dict[str, Json]] = model.model_json_schema()
    for name, schema in described.get("properties", {}).items():
        about = {key: value for key, value in schema.items() if key not in ("title", "description")}
        is_required = place == "path" or model.model_fields[name].is_required()
        parameter: Json = {"name": name, "in": place, "required": is_required, "schema": _without_null(about)}
        if "description" in schema:
            parameter["description"] = schema["description"]
        yield parameter


def _without_null(schema: Json) -> Json:
    """Return the schema of a parameter that may be left out: a query has no null."""
    members: object = schema.get("anyOf")
    if not isinstance(members, list):
        return schema
    found: list[Json] = members
    [member] = [one for one in found if one != {"type": "null"}]
    return member
