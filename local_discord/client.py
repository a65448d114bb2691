"""The work of a Discord client: check a person's input and write the interaction's data."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue

from local_discord import limits
from local_discord.state import Upload, User
from local_discord.wire import Json, mapping, number, rows, text

OptionValue: TypeAlias = str | int | float | bool | Upload | User

SUB_COMMANDS = (1, 2)
STRING, BOOLEAN, USER, ATTACHMENT = 3, 5, 6, 11
OPTION_TYPES: dict[int, tuple[type, ...]] = {
    **{3: (str,), 4: (int,), 5: (bool,), 6: (User,), 10: (int, float)},
    11: (Upload,),
}


class ClientRefusal(Exception):
    """Raised for input that a Discord client does not send."""


class Leaf(NamedTuple):
    """A top-level command, the typed path of sub-commands, and the options of the last one by name."""

    command: Json
    path: list[Json]
    options: dict[str, Json]


def find_command(commands: list[Json], typed: str) -> Leaf:
    """Find the command for typed words without the slash: "mt train"."""
    path: list[Json] = []
    level = commands
    for name in typed.split():
        part = next((row for row in level if row["name"] == name and row["type"] in SUB_COMMANDS), None)
        if part is None:
            known = ", ".join(text(row["name"]) for row in level) or "none"
            raise ClientRefusal(f"There is no command /{typed}: {name} is not among {known}.")
        path.append(part)
        level = rows(part.get("options"))
    if any(option["type"] in SUB_COMMANDS for option in level):
        raise ClientRefusal(f"/{typed} is a group; name one of its commands.")
    return Leaf(path[0], path[1:], {text(option["name"]): option for option in level})


def command_data(
    leaf: Leaf, values: Mapping[str, OptionValue], store: Callable[[Upload], Json], focused: str | None = None
) -> Json:
    """Return the data of a command or, with `focused`, of its autocomplete; checks every option.

    `store` stores an attachment and describes it.
    """
    if unknown := set(values) - set(leaf.options):
        raise ClientRefusal(f"Unknown options {sorted(unknown)}; known: {sorted(leaf.options)}.")
    given: list[JsonValue] = []
    attachments: Json = {}
    users: Json = {}
    for name, option in leaf.options.items():
        if name not in values:
            if option.get("required") is True and focused is None:
                raise ClientRefusal(f"Option {name} is required.")
            continue
        value = values[name]
        row: Json = {"name": name, "type": option["type"]}
        if name == focused:
            row["focused"] = True
        else:
            _check(name, option, value)
        if isinstance(value, Upload):
            attachment = store(value)
            row["value"] = attachment["id"]
            attachments[text(attachment["id"])] = attachment
        elif isinstance(value, User):
            row["value"] = str(value.id)
            users[str(value.id)] = value.payload()
        else:
            row["value"] = value
        given.append(row)
    for part in reversed(leaf.path):
        given = [{"name": part["name"], "type": part["type"], "options": given}]
    data: Json = {"id": leaf.command["id"], "name": leaf.command["name"], "type": 1, "options": given}
    resolved: Json = {"attachments": attachments} if attachments else {}
    if users:
        resolved["users"] = users
    return {**data, "resolved": resolved} if resolved else data


def component_data(components: list[Json], custom_id: str, values: list[str]) -> Json:
    """Return the data of a pressed button or a select."""
    known = {text(found.get("custom_id")): found for _, found in limits.walk([*components])}
    component = known.get(custom_id)
    if component is None:
        raise ClientRefusal(f"The message has no component {custom_id}; it has {sorted(known)}.")
    if component.get("disabled") is True:
        raise ClientRefusal(f"Component {custom_id} is disabled.")
    data: Json = {"custom_id": custom_id, "component_type": component["type"], "id": component["id"]}
    if component["type"] == limits.BUTTON:
        return data
    options = {text(option["value"]) for option in rows(component.get("options"))}
    least, most = number(component["min_values"]), number(component["max_values"])
    if not set(values) <= options or not least <= len(values) <= most:
        raise ClientRefusal(f"{values} is not a selection of {sorted(options)}.")
    return {**data, "values": [*values]}


def modal_data(form: Json, values: Mapping[str, str]) -> Json:
    """Return the data of a submitted modal; fields without a value keep their initial text."""
    inputs = [mapping(part["component"]) for part in rows(form["components"])]
    fields = {text(field["custom_id"]): field for field in inputs}
    if unknown := set(values) - set(fields):
        raise ClientRefusal(f"Unknown fields {sorted(unknown)}; known: {sorted(fields)}.")
    sent: list[JsonValue] = []
    for index, (name, field) in enumerate(fields.items()):
        entry: Json = {"type": field["type"], "custom_id": name, "id": 2 * index + 2}
        if field["type"] == limits.SELECT:
            entry["values"] = [_selected(name, field, values.get(name))]
        else:
            content = values.get(name, text(field.get("value")))
            least = max(number(field.get("min_length")), 1 if field.get("required") is not False else 0)
            if not least <= len(content) <= number(field.get("max_length"), 4000):
                raise ClientRefusal(f"Field {name} has {len(content)} characters, which its limits refuse.")
            entry["value"] = content
        sent.append({"type": limits.LABEL, "id": 2 * index + 1, "component": entry})
    return {"custom_id": form["custom_id"], "components": sent}


def _selected(name: str, field: Json, value: str | None) -> str:
    """Return the selected option of a list of a form: a value, or else the option that is selected at first."""
    options = {text(option["value"]): option.get("default") is True for option in rows(field.get("options"))}
    first = [option for option, is_default in options.items() if is_default]
    chosen = [value] if value is not None else first
    if len(chosen) != 1 or chosen[0] not in options:
        raise ClientRefusal(f"{chosen} is not a selection of {sorted(options)} in {name}.")
    return chosen[0]


def _check(name: str, option: Json, value: OptionValue) -> None:
    kind = number(option["type"])
    if not isinstance(value, OPTION_TYPES[kind]) or (isinstance(value, bool) and kind != BOOLEAN):
        raise ClientRefusal(f"Option {name} does not take {type(value).__name__}.")
    if isinstance(value, User):
        return
    choices = [choice["value"] for choice in rows(option.get("choices"))]
    if choices and value not in choices:
        raise ClientRefusal(f"Option {name} must be one of {choices}, not {value!r}.")
    size = value if isinstance(value, int | float) else len(value.data if isinstance(value, Upload) else value)
    least, most = (option.get(f"{end}_{'length' if kind == STRING else 'value'}") for end in ("min", "max"))
    if kind == ATTACHMENT:
        most = limits.ATTACHMENT_BYTES
    if isinstance(least, int | float) and size < least:
        raise ClientRefusal(f"Option {name} must be at least {least}.")
    if isinstance(most, int | float) and size > most:
        raise ClientRefusal(f"Option {name} must be at most {most}.")
