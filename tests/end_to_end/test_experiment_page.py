"""docs/experiment.md: its commands run, from a folder with two texts to the report."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support import ROOT, mt
from trainer.artifacts.experiments import ExperimentStore

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "experiment.md").read_text(encoding="utf-8")


def test_commands_of_the_page__run(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for language in ("kk", "tr"):
        text = (ROOT / "corpora" / "udhr_ipa" / f"{language}.txt").read_text(encoding="utf-8")
        (texts / f"{language}.txt").write_text(text, encoding="utf-8")
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    [commands] = blocks
    experiments = ExperimentStore(tmp_path / "artifacts")
    for line in commands.splitlines():
        newest = [one.experiment_id for one in experiments.all()][:1]
        words = [newest[0] if word == "EXPERIMENT" else word for word in shlex.split(line)[1:]]
        done = mt(tmp_path, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout

    assert len(experiments.all()) == 2
    assert (tmp_path / "report" / "report.html").exists()


def test_pictures_of_the_page__exist() -> None:
    pictures: list[str] = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(pictures) == 2
    assert all((ROOT / "docs" / picture).stat().st_size > 10_000 for picture in pictures)
