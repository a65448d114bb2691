"""The page and the page of the API: served without a key, only its own files, and what its modules may do."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from scripts.page_types import PAGE_TYPES, page_types
from tests.support import ROOT
from tests.support.http import Site
from trainer.config.validation import value_at
from trainer.contracts import (
    base,
    generations,
    runs,
)
from trainer.http.routes import OPERATIONS
from trainer.http.server import CONTENT_TYPES, FILES, page_file

FOLDER = ROOT / "trainer" / "http" / "page"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES}
DEVELOPMENT = {"jsconfig.json", PAGE_TYPES.name}
TSC = shutil.which("tsc") or shutil.which("tsc", path=ROOT / "node_modules" / ".bin")
OUTSIDE = re.compile(r"(https?:)?//[a-z0-9-]+\.[a-z]|@import\s+['\"u]|url\(")
CODE_FROM_TEXT = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser")
INLINE = re.compile(r"\sstyle=|\son[a-z]+=\"|<script>|<style")


async def test_page__is_served_once_without_a_key_under_a_strict_policy(here: Site) -> None:
    got = {address: await here.get(address, key=None) for address in FILES}
    openapi = await here.get("/openapi.json", key=None)
    head = await here.ask("HEAD", "/", key=None)
    for address, name in FILES.items():
        assert got[address].status == 200
        assert got[address].body == page_file(name, OPERATIONS)
        suffix = "." + name.rpartition(".")[2]
        assert got[address].headers["Content-Type"] == f"{CONTENT_TYPES[suffix]}; charset=utf-8"
    for answer in (*got.values(), openapi, head):
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"].split("; ")
        for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
            assert f"{name} 'none'" in policy
        assert {one for one in policy if "self" in one} == {
            *(f"{name} 'self'" for name in ("script-src", "style-src", "connect-src")),
            "img-src 'self' data:",
        }
    assert head.body == b"" and openapi.headers["Content-Type"].startswith("application/json")
    for address, first in (*got.items(), ("/openapi.json", openapi)):
        etag = first.headers["ETag"]
        again = await here.get(address, key=None, headers={"If-None-Match": f'"other", W/{etag}'})
        other = await here.get(address, key=None, headers={"If-None-Match": '"other"'})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
        assert (other.status, other.body) == (200, first.body)


async def test_page__has_no_other_files(here: Site) -> None:
    for path in ("/page/", "/page/jsconfig.json", "/page/..%2fserver.py", "/page/../server.py", "/page//main.js"):
        refused = await here.get(path, key=None)
        assert refused.outcome == (404, "NOT_FOUND")


def test_files__of_the_folder_are_served_and_name_only_each_other() -> None:
    everything = "".join(SOURCES.values())
    named = set(all_of(r"(?:src|href)=\"\.(/page/[^\"]+)", everything))
    imported = set(all_of(r"(?:^import [^;(]+ from |\bimport\()\"\./([^\"]+)\"", everything))
    typed = set(all_of(r"@import [^;]+? from \"\./([^\"]+)\"", everything))
    assert {path.name for path in FOLDER.iterdir()} | DEVELOPMENT == set(FILES.values()) | DEVELOPMENT
    assert named | {f"/page/{name}" for name in imported} == set(FILES) - {"/", "/docs"}
    assert {"records.js"} < typed <= {"records.js", *FILES.values()}


def test_sources__need_no_other_server_and_never_turn_text_into_code() -> None:
    for name, source in SOURCES.items():
        own = source.replace("http://www.w3.org/2000/svg", "")
        assert [OUTSIDE.search(own), CODE_FROM_TEXT.search(own), INLINE.search(own)] == [None] * 3, name


def test_fields_for_sampling__have_the_limits_and_defaults_of_the_request() -> None:
    source = SOURCES["generation.js"].replace("max: MAX_SEED", "max: 4294967295").replace("_000", "000")
    assert "MAX_SEED = 4_294_967_295" in SOURCES["generation.js"]
    names, fields = all_of(r": number\(\"(\w+)\"", source), all_of(r": number\(\"\w+\", \{(.*?)\}\)", source)
    assert len(names) == 5
    for name, field in zip(names, fields, strict=True):
        limits = dict(pair.split(": ") for pair in all_of(r"(?:min|max|value): \d+", field))
        usual: dict[str, object] = {"prompt_text": "", **({name: int(limits["value"])} if "value" in limits else {})}
        assert generations.GenerateRequest.model_validate(usual) == generations.GenerateRequest(prompt_text="")
        wrong = [int(limits["min"]) - 1, *([int(limits["max"]) + 1] if "max" in limits else [])]
        for value in wrong:
            with pytest.raises(ValidationError, match=name):
                generations.GenerateRequest.model_validate(usual | {name: value})


def test_names_in_forms_and_lists__are_those_of_the_requests() -> None:
    [groups] = all_of(r"const GROUPS = (.*?);", SOURCES["train.js"])
    assert {*all_of(r"\"([a-z_]+)\"", groups)} <= runs.TrainRequest.model_fields.keys()
    [model] = all_of(r"MODEL_NAME = \"([^\n]*)\"", SOURCES["surprisal.js"])
    schema: dict[str, object] = TypeAdapter[str](base.ModelName).json_schema()
    assert f"^{model}$".replace(r"\\-", "-") == schema["pattern"]


def all_of(pattern: str, text: str) -> list[str]:
    """All matches of a pattern, or of its group."""
    found: list[str] = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return found


def test_wheel__takes_the_folder() -> None:
    pyproject: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = value_at(pyproject, "tool.hatch.build.targets.wheel.packages")
    served = [FOLDER / name for name in FILES.values()]
    ignored = subprocess.run(["git", "check-ignore", *served], cwd=ROOT, capture_output=True, check=False)
    assert packages == ["bot", "trainer", "local_discord"]  # all their files that git does not ignore
    assert ignored.stdout == b""


@pytest.mark.skipif(TSC is None, reason="needs tsc on the PATH or in node_modules: `npm install typescript`")
def test_modules__have_strict_types(tmp_path: Path) -> None:
    assert TSC is not None
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / PAGE_TYPES.name).write_text(page_types(), encoding="utf-8")
    project = tmp_path / "jsconfig.json"
    checked = subprocess.run([TSC, "--project", project], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")
