"""Stored records: their earlier forms are read, and no form changes without a version of its own."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pkgutil import iter_modules, resolve_name

import pytest
from pydantic import BaseModel, ValidationError

import trainer.artifacts
import trainer.contracts
from tests.support.earlier_labs import STORED
from tests.support.stories import run_record
from tests.support.studies import study_record
from trainer.artifacts.runs import manifest_of
from trainer.contracts.batteries import BatteryManifest
from trainer.contracts.development import Development
from trainer.contracts.earlier_forms import EARLIER, OtherForm, auto_rows, read_stored, upgraded_event, version_of
from trainer.contracts.events import MetricsConfig, type_of
from trainer.contracts.http_answers import RunReport
from trainer.contracts.reports import Note
from trainer.contracts.runs import RunManifest, RunRecord
from trainer.contracts.studies import StudyRecord

_OTHER_MODULES = (
    *("bot.people.user_settings", "bot.people.watchers", "bot.session.deferred", "trainer.batteries.sources"),
    *("trainer.export.card", "trainer.export.curves", "trainer.http.webhooks.ledger", "trainer.inference.model_files"),
    "trainer.lab.permissions",
)
_WITHOUT_VERSION = {
    *("BatteryItem", "CheckpointManifest", "CellRuns", "ExperimentTexts", "FileRecord"),
    *("ModelWords", "RunError", "Sample", "StepProgress", "TrainingSample", "UnitScores"),
    *("Validity", "Verification", "WordTexts"),
}
"""Stored forms that have not changed so far: the field comes with version 2."""


def _models(base: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def stored_forms() -> dict[str, tuple[int, str]]:
    """Return version and digest of each stored form; descriptions do not count."""
    for package in (trainer.contracts, trainer.artifacts):
        for module in iter_modules(package.__path__):
            resolve_name(f"{package.__name__}.{module.name}")
    for name in _OTHER_MODULES:
        resolve_name(name)
    found: dict[str, tuple[int, str]] = {}
    for model in _models():
        is_ours = model.__module__.startswith(("trainer.", "bot.")) and model is not RunReport  # which is only answered
        if is_ours and ("schema_version" in model.model_fields or model.__name__ in _WITHOUT_VERSION):
            described: dict[str, object] = model.model_json_schema()
            schema = json.dumps(_undescribed(described), sort_keys=True)
            name = f"{model.__module__}.{model.__name__}"
            found[name] = version_of(model), sha256(schema.encode()).hexdigest()
    return found


def _undescribed(value: object) -> object:
    if isinstance(value, dict):
        fields: dict[str, object] = value
        return {name: _undescribed(one) for name, one in fields.items() if not _is_text(name, one)}
    if isinstance(value, list):
        items: list[object] = value
        return [*map(_undescribed, items)]
    return value


def _is_text(name: str, value: object) -> bool:
    return name in ("description", "title", "examples") and not isinstance(value, dict)


def test_stored_forms__change_with_their_version_only() -> None:
    known: dict[str, dict[str, str]] = json.loads((STORED / "forms.json").read_text(encoding="utf-8"))
    found = stored_forms()
    changed = [name for name, (version, digest) in found.items() if known.get(name, {}).get(str(version)) != digest]
    remedy = (
        "Raise its schema_version, add the changes to EARLIER and a folder of the version before to"
        " tests/fixtures/stored; then add the new digest to forms.json"
    )
    news = {name: {str(found[name][0]): found[name][1]} for name in sorted(changed)}
    assert news == {}, remedy
    assert known.keys() == found.keys()


def test_versions__follow_from_the_changes() -> None:
    versions = {name.rpartition(".")[2]: version for name, (version, _) in stored_forms().items()}
    events = {type_of(MetricsConfig)}
    assert {name: len(steps) + 1 for name, steps in EARLIER.items() if name not in events} == {
        name: version for name, version in versions.items() if version > 1
    }


@pytest.mark.parametrize(
    ("family", "on_cuda", "rows"),
    [("lstm", False, 8), ("gpt2", False, 8), ("lstm", True, 16), ("gpt2", True, 32), ("char_lstm", True, 64)],
)
def test_auto__is_what_version_010_took(family: str, on_cuda: bool, rows: int) -> None:
    assert auto_rows(family, on_cuda=on_cuda) == rows


def _fields(record: BaseModel) -> dict[str, object]:
    fields: dict[str, object] = json.loads(record.model_dump_json())
    return fields


def _block(fields: dict[str, object], name: str) -> dict[str, object]:
    block = fields[name]
    assert isinstance(block, dict)
    return block


def _blocks(fields: dict[str, object], name: str) -> list[dict[str, object]]:
    blocks = fields[name]
    assert isinstance(blocks, list)
    return blocks


@pytest.mark.parametrize(("device", "rows"), [("auto", 8), ("cpu", 8), ("cuda:1", 64)])
def test_record_of_version_1__has_what_today_has_in_its_place(device: str, rows: int) -> None:
    fields = _fields(run_record("char_lstm-1"))
    effective, request = _block(fields, "effective"), _block(fields, "request")
    fields["schema_version"], effective["device"], effective["batch_size"] = 1, device, "auto"
    effective |= {"search": 3, "searched": ["learning_rate"], "tags": ["", "a\u202eb"]}
    del effective["has_auto_batch"], effective["has_earlier_hash"]
    request |= {"search": 3, "tags": ["\n"]}
    record = read_stored(RunRecord, json.dumps(fields).encode())
    assert (record.schema_version, record.effective.batch_size, record.effective.has_auto_batch) == (4, rows, True)
    assert record.effective.has_earlier_hash and record.effective.tags == ("ab",) and record.request.tags == ()


def test_study_of_version_2__knows_no_equal_settings() -> None:
    record = study_record()
    fields = _fields(record)
    variants = [{name: value for name, value in one.items() if name != "equals"} for one in _blocks(fields, "variants")]
    fields |= {"schema_version": 2, "variants": variants}
    assert read_stored(StudyRecord, json.dumps(fields).encode()) == record


def test_manifest_of_version_1__knows_the_device_of_its_worker() -> None:
    fields = _fields(manifest_of(run_record("char_lstm-1"), "failed"))
    _block(fields, "effective")["batch_size"] = "auto"
    fields |= {"schema_version": 1, "search": {"trials": []}, "environment": {"device": "cuda"}}
    with pytest.raises(OtherForm, match=r"`environment\.\w+` is not as in schema_version 1: Field required"):
        read_stored(RunManifest, json.dumps(fields).encode())
    del fields["environment"]
    assert read_stored(RunManifest, json.dumps(fields).encode()).effective.batch_size == 8


def test_notes_of_version_1__are_templates_without_translation() -> None:
    found = read_stored(Development, b'{"run_id":"a","points":[],"curves":[],"notes":["{a} text",{"template":"b"}]}')
    assert found.notes == (Note(template="{text}", values={"text": "{a} text"}), Note(template="b"))


def test_event_of_version_1__is_read_without_the_search() -> None:
    line = b'{"type":"trainer.metrics.config.v1","search":3,"seq":1}'
    assert upgraded_event(line) == b'{"type":"trainer.metrics.config.v1","seq":1}'
    assert upgraded_event(b'{"type":"trainer.job.queued.v1"}') is None and upgraded_event(b"{") is None


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("4", "it has schema_version 4, and this program reads up to 3: update the program"),
        ("3", "`battery_id` is not as in schema_version 3: Field required"),
        ('"x"', "`schema_version` is not as in schema_version x: Input should be 3"),
    ],
)
def test_record_of_another_form__is_no_damaged_one(version: str, said: str) -> None:
    with pytest.raises(OtherForm) as caught:
        read_stored(BatteryManifest, f'{{"schema_version":{version}}}'.encode())
    assert str(caught.value) == said
    with pytest.raises(ValidationError):
        read_stored(BatteryManifest, b"{")
    with pytest.raises(ValidationError):
        read_stored(Note, b"[]")
    with pytest.raises(OtherForm, match="`template` is not as"):
        read_stored(Note, b"{}")
