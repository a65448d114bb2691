"""Names in reports: runs by what people have called them, in place of their ids."""

import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue, TypeAdapter
from pydantic_core import to_json

from trainer.contracts.base import run_of
from trainer.contracts.reports import Report
from trainer.contracts.runs import RunModel
from trainer.contracts.seeds import group_id_of

_ADDRESSES = ("address", "addresses", "file", "template")
"""Fields of a report that say where something is, and English texts, which have no names."""
_COMMAND = "`mt "
_report_fields: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def run_names(runs: Iterable[tuple[str, str | None]]) -> Mapping[str, str]:
    """Return the names of runs and of their groups for people, by id: the label; the id of a run without one.

    `runs` are ids, also of groups, or names of checkpoints, each with its label. Where several have one label, the end
    of the id stands behind it: `demo-lstm (s1)`, `demo-lstm (30ebfa44)`.
    """
    labels = {run_of(name): label for name, label in runs}
    groups = {group: label for name, label in labels.items() if (group := group_id_of(name)) is not None}
    names = {name: name for name in labels}
    for alike in (labels, groups):
        of_label = dict[str, list[str]]()
        for name, label in alike.items():
            if label is not None:
                of_label.setdefault(label, []).append(name)
        for label, ids in of_label.items():
            ends = _ends(ids)
            names |= {name: f"{label} ({ends[name]})" if len(ids) > 1 else label for name in ids}
    return names


def _ends(ids: Sequence[str]) -> Mapping[str, str]:
    """Return the shortest ends of different ids, of complete words, that are different as well."""
    words = 1
    while True:
        ends = {one: "-".join(one.split("-")[-words:]) for one in ids}
        if len({*ends.values()}) == len(ids):
            return ends
        words += 1


def names_of_models(models: Iterable[RunModel]) -> Mapping[str, str]:
    """Return `run_names` of the models of a job."""
    return run_names((one.run_id, one.label) for one in models)


def name_of_model(model: str, names: Mapping[str, str]) -> str:
    """Return the name of a run or of a checkpoint for people, given those of the runs."""
    run, at, checkpoint = model.partition("@")
    return f"{names.get(run, run)}{at}{checkpoint}"


def named(report: Report, names: Mapping[str, str]) -> Report:
    """Return a report in which ids stand by their names; addresses, files and commands keep the ids."""
    known = {name: shown for name, shown in names.items() if name != shown}
    if not known:
        return report
    ids = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w-])(?:{ids})(?![\w-])")

    def name_of(found: re.Match[str]) -> str:
        return known[found.group()]

    def renamed(value: JsonValue) -> JsonValue:
        match value:
            case str():
                return pattern.sub(name_of, value)
            case list():
                return [*map(renamed, value)]
            case dict():
                is_command = _COMMAND in str(value.get("template"))
                return {
                    field: one if is_command or field in _ADDRESSES else renamed(one) for field, one in value.items()
                }
            case _:
                return value

    fields = _report_fields.validate_json(report.model_dump_json())
    return Report.model_validate_json(to_json(renamed(fields)))
