"""The work of a Discord client: check a person's input and write the interaction's data."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue

from local_discord import limits
from local_discord.state import Upload
from local_discord.wire import Json, mapping, number, rows, text

OptionValue: TypeAlias = str | int | float | bool | Upload

SUB_COMMAND, SUB_COMMAND_GROUP, STRING, INTEGER, BOOLEAN, NUMBER, ATTACHMENT = 1, 2, 3, 4, 5, 10, 11
OPTION_TYPES: dict[int, type | tuple[type, ...]] = {
    **{STRING: str, INTEGER: int, BOOLEAN: bool, NUMBER: (int, float), ATTACHMENT: Upload},
}


class ClientRefusal(Exception):
    """Raised for input that a Discord client does not send."""


class Leaf(NamedTuple):
    """A top-level command, the typed path of sub-commands, and the options of the last one."""

    command: Json
    path: list[Json]
    options: list[Json]


def find_command(commands: list[Json], typed: str) -> Leaf:
    """Find the command for typed words without the slash: "mt train"."""
    names = typed.split()
    command = next((row for row in commands if row["name"] == names[0] and row["type"] == 1), None)
    if command is None:
        known = ", ".join(text(row["name"]) for row in commands) or "none"
        raise ClientRefusal(f"There is no command /{names[0]}; registered: {known}.")
    path: list[Json] = []
    options = rows(command.get("options"))
    for name in names[1:]:
        part = next((row for row in options if row["name"] == name and row["type"] in (1, 2)), None)
        if part is None:
            raise ClientRefusal(f"/{typed} has no part {name}.")
        path.append(part)
        options = rows(part.get("options"))
    if any(option["type"] in (SUB_COMMAND, SUB_COMMAND_GROUP) for option in options):
        raise ClientRefusal(f"/{typed} is a group; name one of its commands.")
    return Leaf(command, path, options)


def command_data(
    leaf: Leaf, values: Mapping[str, OptionValue], store: Callable[[Upload], Json], focused: str | None = None
) -> Json:
    """Return the data of a command or, with `focused`, of its autocomplete; checks every option.

    `store` stores an attachment and describes it.
    """
    known = {text(option["name"]): option for option in leaf.options}
    if unknown := set(values) - set(known):
        raise ClientRefusal(f"Unknown options {sorted(unknown)}; known: {sorted(known)}.")
    given: list[JsonValue] = []
    attachments: Json = {}
    for name, option in known.items():
        if name in values:
            value = values[name]
            if name != focused:
                _check(name, option, value)
            sent: JsonValue = None
            if isinstance(value, Upload):
                if len(value.data) > limits.ATTACHMENT_BYTES:
                    raise ClientRefusal(f"{value.filename} is larger than {limits.ATTACHMENT_BYTES} bytes.")
                attachment = store(value)
                sent = text(attachment["id"])
                attachments[sent] = attachment
            else:
                sent = value
            row: Json = {"name": name, "type": option["type"], "value": sent}
            given.append({**row, "focused": True} if name == focused else row)
        elif option.get("required") is True and focused is None:
            raise ClientRefusal(f"Option {name} is required.")
    for part in reversed(leaf.path):
        given = [{"name": part["name"], "type": part["type"], "options": given}]
    data: Json = {"id": leaf.command["id"], "name": leaf.command["name"], "type": 1, "options": given}
    return {**data, "resolved": {"attachments": attachments}} if attachments else data


def component_data(components: list[Json], custom_id: str, values: list[str] | None) -> Json:
    """Return the data of a pressed button or a select."""
    tree = limits.walk([*components])
    component = next((found for _, found in tree if found.get("custom_id") == custom_id), None)
    if component is None:
        known = [text(found.get("custom_id")) for _, found in limits.walk([*components]) if found.get("custom_id")]
        raise ClientRefusal(f"The message has no component {custom_id}; it has {known}.")
    if component.get("disabled") is True:
        raise ClientRefusal(f"Component {custom_id} is disabled.")
    data: Json = {"custom_id": custom_id, "component_type": component["type"], "id": component["id"]}
    if component["type"] == limits.BUTTON:
        return data
    return {**data, "values": _selected(component, values or [])}


def modal_data(form: Json, values: Mapping[str, str]) -> Json:
    """Return the data of a submitted modal; fields without a value keep their initial text."""
    inputs = [mapping(part["component"]) for part in rows(form["components"])]
    names = [text(field["custom_id"]) for field in inputs]
    if unknown := set(values) - set(names):
        raise ClientRefusal(f"Unknown fields {sorted(unknown)}; known: {sorted(names)}.")
    sent: list[JsonValue] = []
    for index, (name, field) in enumerate(zip(names, inputs, strict=True)):
        content = values.get(name, text(field.get("value")))
        least = max(number(field.get("min_length")), 1 if field.get("required") is not False else 0)
        if not least <= len(content) <= number(field.get("max_length"), 4000):
            raise ClientRefusal(f"Field {name} has {len(content)} characters, which its limits refuse.")
        entry: Json = {"type": limits.TEXT_INPUT, "custom_id": name, "id": 2 * index + 2, "value": content}
        sent.append({"type": limits.LABEL, "id": 2 * index + 1, "component": entry})
    return {"custom_id": form["custom_id"], "components": sent}


def _check(name: str, option: Json, value: OptionValue) -> None:
    kind = number(option["type"])
    wanted = OPTION_TYPES.get(kind)
    if wanted is None or not isinstance(value, wanted) or (isinstance(value, bool) and kind != BOOLEAN):
        raise ClientRefusal(f"Option {name} does not take {type(value).__name__}.")
    choices = [choice["value"] for choice in rows(option.get("choices"))]
    if choices and value not in choices:
        raise ClientRefusal(f"Option {name} must be one of {choices}, not {value!r}.")
    size = len(value) if isinstance(value, str) else value
    for low, high in (("min_length", "max_length"), ("min_value", "max_value")):
        least, most = option.get(low), option.get(high)
        if isinstance(size, int | float):
            if isinstance(least, int | float) and size < least:
                raise ClientRefusal(f"Option {name} must be at least {least}.")
            if isinstance(most, int | float) and size > most:
                raise ClientRefusal(f"Option {name} must be at most {most}.")


def _selected(component: Json, values: list[str]) -> list[JsonValue]:
    options = [text(option["value"]) for option in rows(component.get("options"))]
    if options and set(values) - set(options):
        raise ClientRefusal(f"{values} are not all among the options {options}.")
    if not number(component.get("min_values"), 1) <= len(values) <= number(component.get("max_values"), 1):
        raise ClientRefusal(f"{len(values)} values are too few or too many.")
    return [*values]
