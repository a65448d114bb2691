"""Batteries by name: stored ones, and those that are fetched from the hub, with stand-ins for its libraries."""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from socket import gethostname

import pytest
from pydantic import SecretStr

from tests.support import settings_in
from tests.support.hub_batteries import HUB_LIBRARIES
from tests.support.libraries import stand_ins
from tests.support.refusals import refused
from trainer.batteries.reading import Battery
from trainer.batteries.sources import battery_names, find_battery, must_fetch
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.batteries import BatteryOptions
from trainer.contracts.errors import ErrorCode

OPTIONS = BatteryOptions()
GONE = SecretStr("gone")


@pytest.fixture(name="settings")
def settings_fixture(tmp_path: Path) -> Iterator[Settings]:
    """The settings of a folder, with libraries of the hub that note how they are called."""
    with stand_ins(tmp_path / "libraries", HUB_LIBRARIES):
        yield settings_in(tmp_path)


def read(name: str, settings: Settings) -> Battery:
    return find_battery(name, OPTIONS, settings)


def calls() -> list[object]:
    found: list[object] = getattr(sys.modules["datasets"], "calls")  # noqa: B009  the stand-in has it
    return found


def test_part_of_a_data_set__is_fetched_once_with_its_revision_and_licence(settings: Settings) -> None:
    battery = read("multiblimp:tur", settings)
    assert (battery.info.source, battery.info.licence) == ("jumelet/multiblimp@abc123", "cc-by-4.0")
    assert (battery.info.name, battery.info.n_items, battery.items[1].name) == ("multiblimp:tur", 2, "tur:2")
    assert [one.parts for one in battery.items[1].sequences] == [("tur iyi 2",), ("tur kötü 2",)]
    assert calls() == [
        ("jumelet/multiblimp", "abc123", None),
        ("jumelet/multiblimp", "tur", "abc123", None),
    ]
    assert read("multiblimp:tur", settings) == battery and len(calls()) == 2, "it repeats offline"


def test_rest_of_a_data_set__is_fetched_from_the_same_revision(settings: Settings) -> None:
    read("multiblimp:tur", settings)
    whole = read("multiblimp", settings)
    assert calls()[2:] == [("jumelet/multiblimp", "kaz", "abc123", None)]
    assert [item.name for item in whole.items] == ["kaz:1", "kaz:2", "tur:1", "tur:2"]
    assert read("multiblimp", settings) == whole and len(calls()) == 3
    stored: dict[str, object] = json.loads((settings.app.data_root / "batteries/multiblimp/.source.json").read_text())
    assert stored["parts"] == ["tur", "kaz"]
    assert "multiblimp" in battery_names(settings)


def test_unknown_part__is_refused_after_the_parts_are_known(settings: Settings) -> None:
    read("multiblimp:tur", settings)
    with refused(ErrorCode.DATA_NOT_FOUND, "'multiblimp' has no part 'turk'; did you mean `multiblimp:tur`?"):
        read("multiblimp:turk", settings)
    with refused(ErrorCode.DATA_NOT_FOUND, "'multiblimp' has no part 'xyz'."):
        read("multiblimp:xyz", settings)


def test_own_folder__is_read_in_place_of_the_data_set(settings: Settings) -> None:
    folder = settings.app.data_root / "batteries" / "blimp"
    folder.mkdir(parents=True)
    (folder / "mine.tsv").write_text("a b\tb a\n", encoding="utf-8")
    (folder / "README").write_text("x", encoding="utf-8")
    (folder.parent / "other.csv").write_text("good,bad\na,b\n", encoding="utf-8")
    assert read("blimp", settings).info.n_items == read("blimp:mine", settings).info.n_items == 1
    assert read("blimp", settings).info.source is None
    assert [read(name, settings).items[0].name for name in ("other", "other.csv")] == ["other:2"] * 2
    assert {"blimp", "other", "zhoblimp"} <= {*battery_names(settings)}


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a:../b", "a:", "a\\b", "a\0b", "ә" * 101])
def test_path__is_no_name(name: str, settings: Settings) -> None:
    with refused(ErrorCode.INVALID_INPUT, "' is no name of a battery"):
        read(name, settings)


def test_unknown_name__is_refused_with_the_known_ones(settings: Settings) -> None:
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no battery 'blimpp': give a file, a folder, or one of the names"):
        read("blimpp", settings)


def test_fetching__that_was_interrupted_continues(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, suppress(KeyboardInterrupt):
        interrupted.setattr(import_module("datasets"), "load_dataset", end)
        read("multiblimp", settings)
    assert must_fetch("multiblimp", settings) and must_fetch("multiblimp:tur", settings)
    assert read("multiblimp", settings).info.n_items == 4
    assert not must_fetch("multiblimp", settings) and not must_fetch("multiblimp:nothing", settings)


def test_hub_that_is_away__is_named_with_what_to_do(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    away = changed(settings, hf=changed(settings.hf, token=GONE))
    said = f"The machine '{gethostname()}' could not fetch 'turblimp' from the Hugging Face hub: try again when it has"
    with refused(ErrorCode.SERVICE_UNAVAILABLE, said):
        read("turblimp", away)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with refused(
        ErrorCode.UNSUPPORTED_BACKEND, "cannot fetch 'turblimp' without the library `datasets`: run `"
    ) as error:
        read("turblimp", settings)
    assert "WORKER_EXTRAS=corpora" in error.value.message
