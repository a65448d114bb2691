"""The files that GitHub reads follow their schemas, and the workflows have no more rights than they need."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.linters import lint

WORKFLOWS = ".github/workflows/*.yml"


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/[bf]*.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("vendor.citation-file-format", "CITATION.cff"),
    ],
)
def test_files__follow_the_schema_of_their_kind(schema: str, pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    words = ["--default-filetype", "yaml", "--builtin-schema", schema]
    assert files and "ok" in lint("check-jsonschema", *words, *files)


def test_workflows__pass_zizmor() -> None:
    assert "No findings to report" in lint("zizmor", "--offline", "--no-progress", ".github")


def test_workflows__call_commands_of_the_set_up_script() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob(WORKFLOWS))
    called = {match[1] for match in re.finditer(r"scripts/setup\.py (\S+)", text)}
    listed = {match[0] for match in re.finditer(r"[\w-]+", lint("python", "scripts/setup.py", "--help"))}
    assert called and called <= listed


def test_release__has_the_section_of_its_version_as_notes(tmp_path: Path) -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    script = re.search(r"awk .*?notes\.md", workflow, re.DOTALL)
    assert script is not None
    sections = ["# Changelog\n\nHead.\n", "## [Unreleased]\n\n- C.\n", "## [1.0.1] - 2026-12-02\n\n### Fixed\n\n- B.\n"]
    (tmp_path / "CHANGELOG.md").write_text(
        "\n".join([*sections, "## [1.0.0] - 2026-12-01\n\n- A.\n"]), encoding="utf-8"
    )
    for tag, notes in (("v1.0.1", "### Fixed\n\n- B."), ("v1.0.0", "- A."), ("v1.0", "")):
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        subprocess.run(["bash", "-ec", script[0]], cwd=tmp_path, env=environment, check=True)
        assert (tmp_path / "notes.md").read_text(encoding="utf-8").strip() == notes
