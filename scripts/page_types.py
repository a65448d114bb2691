"""Write the types of the page's modules from the contracts, for `tsc` and editors: `python -m scripts.page_types`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.alias_generators import to_pascal
from pydantic.json_schema import models_json_schema

from trainer.contracts.base import RunState
from trainer.contracts.events import MetricsProgress
from trainer.contracts.experiments import CellKind, ExperimentResult
from trainer.contracts.generations import FinishReason, Sample
from trainer.contracts.job_status import JobPage, JobStatus
from trainer.contracts.reports import Cell, Form, Part, Report
from trainer.contracts.scores import Span
from trainer.http.page_tables import PageTables
from trainer.http.routes import OPERATIONS

PAGE_TYPES = Path(__file__).parents[1] / "trainer" / "http" / "page" / "records.d.ts"


class _Names(BaseModel):
    """Types that have no name in a schema, which the modules name."""

    run_state: RunState
    cell_kind: CellKind
    finish_reason: FinishReason
    form: Form
    points: tuple[tuple[float, float], ...]
    span: Span
    report_cell: Cell
    report_part: Part


class _Schema(BaseModel):
    """What a JSON schema says of the types of values."""

    reference: str | None = Field(None, alias="$ref")
    const: str | int | None = None
    enum: Sequence[str | int] = ()
    any_of: Sequence["_Schema"] = Field((), alias="anyOf")
    one_of: Sequence["_Schema"] = Field((), alias="oneOf")
    type: Literal["string", "number", "integer", "boolean", "null", "array", "object"] | None = None
    prefix_items: Sequence["_Schema"] = Field((), alias="prefixItems")
    items: "_Schema | None" = None
    properties: Mapping[str, "_Schema"] = {}
    property_names: "_Schema | None" = Field(None, alias="propertyNames")
    additional_properties: "_Schema | bool" = Field(False, alias="additionalProperties")


def main() -> None:
    """Write the file into the folder of the modules."""
    PAGE_TYPES.write_text(page_types(), encoding="utf-8")


def page_types() -> str:
    """Return the records of all answers, of live events, stored results and the page's tables as TypeScript."""
    answers = (answer.content for one in OPERATIONS for answer in one.answers.values())
    models = {model.__name__: model for model in answers if model is not None and not isinstance(model, str)}
    for other in (MetricsProgress, PageTables, Report, Sample, ExperimentResult, JobStatus, JobPage, _Names):
        models[other.__name__] = other
    found: tuple[object, dict[str, object]] = models_json_schema([(one, "serialization") for one in models.values()])
    schemas = TypeAdapter[dict[str, _Schema]](dict[str, _Schema]).validate_python(found[1]["$defs"])
    named = {to_pascal(name): schema for name, schema in schemas.pop(_Names.__name__).properties.items()}
    return "".join(f"export type {name} = {_written(schema)};\n" for name, schema in sorted((named | schemas).items()))


def _written(schema: _Schema) -> str:
    """Return the type of the values of a schema."""
    if schema.reference is not None:
        return schema.reference.rpartition("/")[2]
    if schema.const is not None or schema.enum:
        return " | ".join(_literal(one) for one in (schema.const, *schema.enum) if one is not None)
    if kinds := (*schema.any_of, *schema.one_of):
        return " | ".join(map(_written, kinds))
    match schema.type:
        case "array" if schema.prefix_items:
            return f"[{', '.join(map(_written, schema.prefix_items))}]"
        case "array":
            return f"({_written(schema.items or _Schema())})[]"
        case "object" if schema.properties:
            return f"{{ {'; '.join(_fields(schema))} }}"
        case "object":
            values = schema.additional_properties
            written = _written(values) if isinstance(values, _Schema) else "unknown"
            return f"Record<{_written(schema.property_names or _Schema(type='string'))}, {written}>"
        case "integer":
            return "number"
        case None:
            return "unknown"
        case name:
            return name


def _fields(schema: _Schema) -> Iterator[str]:
    yield from (f"{name}: {_written(field)}" for name, field in schema.properties.items())


def _literal(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


if __name__ == "__main__":
    main()
