"""README.md: every block runs, and what it shows is what is printed, up to small differences between CPUs."""

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.support import ROOT, environment_in, mt
from tests.support.api_process import api_process
from trainer.artifacts.runs import RunStore
from trainer.contracts.inference import PredictResponse

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
_RUN_ID, _TIME, _SPEED = r"gru-\d{8}-[0-9a-f]{8}", r"\d{4}-\d\d-\d\d \d\d:\d\d", r"[\d,]+ tokens/s"
_NUMBER, _BORDER, _LEFT_OUT, _BAR = r"-?\d[\d,]*(?:\.\d+)?", "─+", "[…]", "━ "
_RELATIVE, _ABSOLUTE = 0.03, 0.02
"""More than CPUs differ by, and less than an older version's numbers did."""


def test_blocks__run_and_print_what_they_show(tmp_path: Path) -> None:
    (_, setting_up), (_, typed), (_, request), (_, notebook) = BLOCKS
    offered = subprocess.run([sys.executable, "scripts/setup.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert all(re.search(rf"\b{line.split()[1]}\b", offered.stdout) for line in setting_up.splitlines())

    with api_process(tmp_path, SECURITY__API_KEYS="") as api:
        for command, *shown in (part.splitlines() for part in typed.split("$ ")[1:]):
            words = shlex.split(command.replace("RUN", newest_run(tmp_path)))
            done = mt(tmp_path, *words[1:], COLUMNS="120")
            assert done.returncode == 0, done.stderr
            printed = [line.lstrip(_BAR) for line in (done.stderr + done.stdout).splitlines()]
            if words[1] == "generate":  # one letter that differs changes all that follow
                assert len(printed) > len(shown) and printed[0]
                continue
            for line in shown:
                assert any(is_shown(line.lstrip(_BAR), other) for other in printed), (line, printed)
        [url, body] = find(r"(?<=localhost:8000)\S+|(?<=-d ').*(?=')", request)
        answer = httpx2.post(api.url + url, content=body, headers={"Content-Type": "application/json"})
        assert len(PredictResponse.model_validate_json(answer.content).suggestions or ()) == 5

    light = "import sys, trainer; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", light + notebook.replace("RUN", newest_run(tmp_path))],
        cwd=tmp_path,
        env=environment_in(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(find(r"(?m)^\d+-\d+  '.'  \d+\.\d{3} nats$", done.stdout)) == len("Бүгін ауа райы жақсы.")


def newest_run(folder: Path) -> str:
    return next((run.run_id for run in RunStore(folder / "artifacts").all()), "RUN")


def is_shown(shown: str, printed: str) -> bool:
    """Return whether a line was printed as the page shows it: equal words, close numbers, anything for `[…]`."""
    for pattern in (_RUN_ID, _TIME, _SPEED, _BORDER):
        shown, printed = re.sub(pattern, "#", shown), re.sub(pattern, "#", printed)
    if shown.endswith(_LEFT_OUT):
        shown = shown.removesuffix(_LEFT_OUT).rstrip()
        printed = printed[: len(shown)]
    numbers = zip(find(_NUMBER, shown), find(_NUMBER, printed), strict=False)
    return re.sub(_NUMBER, "#", shown).split() == re.sub(_NUMBER, "#", printed).split() and all(
        math.isclose(float(one.replace(",", "")), float(other.replace(",", "")), rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        for one, other in numbers
    )


def find(pattern: str, text: str) -> list[str]:
    found: list[str] = re.findall(pattern, text)
    return found
