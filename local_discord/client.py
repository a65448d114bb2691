"""What a Discord client does before it sends: check a person's input and write the interaction's data."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue

from local_discord import limits
from local_discord.state import Upload, User
from local_discord.wire import Json, mapping, number, rows, text

OptionValue: TypeAlias = str | int | float | bool | Upload | User
FieldValue: TypeAlias = str | bool | list[str] | list[Upload]

SUB_COMMAND, SUB_COMMAND_GROUP, STRING, INTEGER, BOOLEAN, USER, NUMBER, ATTACHMENT = 1, 2, 3, 4, 5, 6, 10, 11
OPTION_TYPES: dict[int, type | tuple[type, ...]] = {
    **{STRING: str, INTEGER: int, BOOLEAN: bool, USER: User, NUMBER: (int, float), ATTACHMENT: Upload},
}


class ClientRefusal(Exception):
    """A Discord client would not have let the person send this."""


class Leaf(NamedTuple):
    """A top-level command and the sub-command path that was typed, with the leaf's options."""

    command: Json
    path: list[Json]
    options: list[Json]


class Resolved:
    """Collects the objects that option values refer to; `store` keeps an upload and describes it."""

    def __init__(self, store: Callable[[Upload], Json], member: Callable[[User], Json | None]) -> None:
        self._store, self._member = store, member
        self.payload: Json = {}

    def add(self, value: Upload | User) -> str:
        """The id under which the value is found in `resolved`."""
        if isinstance(value, Upload):
            if len(value.data) > limits.ATTACHMENT_BYTES:
                raise ClientRefusal(f"{value.filename} is larger than {limits.ATTACHMENT_BYTES} bytes.")
            attachment = self._store(value)
            return self._put("attachments", text(attachment["id"]), attachment)
        member = self._member(value)
        if member is not None:
            partial: Json = {key: part for key, part in member.items() if key not in ("user", "mute", "deaf")}
            self._put("members", str(value.id), {**partial, "permissions": "0"})
        return self._put("users", str(value.id), value.payload())

    def _put(self, kind: str, id: str, value: Json) -> str:
        self.payload[kind] = {**mapping(self.payload.get(kind)), id: value}
        return id


def find_command(commands: list[Json], typed: str) -> Leaf:
    """The chat command for words as typed, without the slash: "mt train"."""
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


def command_data(leaf: Leaf, values: Mapping[str, OptionValue], resolved: Resolved, focused: str | None = None) -> Json:
    """The data of a command (or, with `focused`, of its autocomplete), every option checked as a client does."""
    known = {text(option["name"]): option for option in leaf.options}
    if unknown := set(values) - set(known):
        raise ClientRefusal(f"Unknown options {sorted(unknown)}; known: {sorted(known)}.")
    given: list[JsonValue] = []
    for name, option in known.items():
        if name in values:
            value = values[name]
            if name != focused:
                _check(name, option, value)
            sent: JsonValue = resolved.add(value) if isinstance(value, Upload | User) else value
            row: Json = {"name": name, "type": option["type"], "value": sent}
            given.append({**row, "focused": True} if name == focused else row)
        elif option.get("required") is True and focused is None:
            raise ClientRefusal(f"Option {name} is required.")
    for part in reversed(leaf.path):
        given = [{"name": part["name"], "type": part["type"], "options": given}]
    data: Json = {"id": leaf.command["id"], "name": leaf.command["name"], "type": 1, "options": given}
    return {**data, "resolved": resolved.payload} if resolved.payload else data


def component_data(components: list[Json], custom_id: str, values: list[str] | None) -> Json:
    """The data of a pressed button or a used select."""
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


def modal_data(form: Json, values: Mapping[str, FieldValue], resolved: Resolved) -> Json:
    """The data of a submitted modal; fields not named in `values` keep what the form was opened with."""
    fields = {text(found["custom_id"]) for _, found in limits.walk(form["components"]) if "custom_id" in found}
    if unknown := set(values) - fields:
        raise ClientRefusal(f"Unknown fields {sorted(unknown)}; known: {sorted(fields)}.")
    sent: list[JsonValue] = []
    for index, part in enumerate(rows(form["components"])):
        base: Json = {"type": part["type"], "id": index + 1}
        if "component" in part:
            sent.append({**base, "component": _field(mapping(part["component"]), values, resolved)})
        elif "components" in part:
            sent.append({**base, "components": [_field(row, values, resolved) for row in rows(part["components"])]})
        else:
            sent.append(base)
    data: Json = {"custom_id": form["custom_id"], "components": sent}
    return {**data, "resolved": resolved.payload} if resolved.payload else data


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


def _field(component: Json, values: Mapping[str, FieldValue], resolved: Resolved) -> Json:
    custom_id, kind = text(component["custom_id"]), number(component["type"])
    value = values.get(custom_id)
    row: Json = {"type": kind, "custom_id": custom_id, "id": number(component.get("id"), 1)}
    if kind == limits.TEXT_INPUT:
        content = value if isinstance(value, str) else text(component.get("value"))
        least = max(number(component.get("min_length")), 1 if component.get("required") is not False else 0)
        if not least <= len(content) <= number(component.get("max_length"), 4000):
            raise ClientRefusal(f"Field {custom_id} has {len(content)} characters, which its limits refuse.")
        return {**row, "value": content}
    if isinstance(value, list):
        ids = [resolved.add(part) if isinstance(part, Upload) else part for part in value]
        return {**row, "values": [*ids] if kind == limits.FILE_UPLOAD else _selected(component, ids)}
    options = rows(component.get("options"))
    chosen = [option["value"] for option in options if option.get("default") is True]
    if kind == limits.CHECKBOX:
        return {**row, "value": value if isinstance(value, bool) else component.get("default") is True}
    if value is None and not chosen and component.get("required") is not False:
        raise ClientRefusal(f"Field {custom_id} is required.")
    if kind != limits.RADIO_GROUP:
        return {**row, "values": [*chosen]}
    if value is not None and value not in [option["value"] for option in options]:
        raise ClientRefusal(f"{value!r} is not among the options of {custom_id}.")
    return {**row, "value": value if isinstance(value, str) else chosen[0] if chosen else None}


def _selected(component: Json, values: list[str]) -> list[JsonValue]:
    options = [text(option["value"]) for option in rows(component.get("options"))]
    if options and set(values) - set(options):
        raise ClientRefusal(f"{values} are not all among the options {options}.")
    if not number(component.get("min_values"), 1) <= len(values) <= number(component.get("max_values"), 1):
        raise ClientRefusal(f"{len(values)} values are too few or too many.")
    return [*values]
