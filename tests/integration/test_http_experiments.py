"""Experiments over HTTP: started, followed to the end, and their files downloaded."""

import csv
from io import StringIO

from tests.support import ROOT
from tests.support.http import ANA, Site
from trainer.config.experiment_file import read_plan
from trainer.contracts.experiments import ExperimentList, ExperimentStatus
from trainer.contracts.http_answers import ArtifactFiles
from trainer.http.routes import OPERATIONS

SMOKE = read_plan(ROOT / "configs" / "experiment_smoke.yaml", {})
[START] = [operation for operation in OPERATIONS if operation.row.name == "start_experiment"]


async def test_smoke__runs_to_its_report(here: Site) -> None:
    accepted = await here.post("/experiments", SMOKE)
    address = accepted.location
    done = accepted.record(ExperimentStatus)
    while done.status in ("queued", "running"):
        done = (await here.get(f"{address}?wait=60", key=ANA)).record(ExperimentStatus)
    assert (accepted.status, done.status, done.error) == (202, "completed", None)
    assert done.cells_done == len(done.cells) == 4
    listed = (await here.get("/experiments", key=ANA)).record(ExperimentList).experiments
    assert (done.experiment_id, "completed", ()) in [(one.experiment_id, one.status, one.cells) for one in listed]
    files = (await here.get(f"/artifacts/experiments/{done.experiment_id}")).record(ArtifactFiles).files
    assert files == done.files
    table = await here.get(f"/artifacts/experiments/{done.experiment_id}/download?path=matrix.csv", key=ANA)
    rows: list[dict[str, str]] = list(csv.DictReader(StringIO(table.text)))
    assert {(row["listener_language"], row["text_language"]) for row in rows} == {
        (listener, text) for listener in ("kk", "tr") for text in ("kk", "tr")
    }
    for row in rows:
        is_own = row["listener_language"] == row["text_language"]
        assert (float(row["excess_cross_entropy"]) == 0.0) is is_own
    again = await here.post("/experiments", SMOKE)
    assert again.record(ExperimentStatus) == done
    assert (await here.post(f"{address}/cancel")).outcome == (409, "CONFLICT")


async def test_plan__that_does_not_fit_is_refused(here: Site) -> None:
    fields: dict[str, object] = {**(START.row.example or {}), "corpora": "nowhere"}
    missing = await here.post("/experiments", fields)
    assert missing.outcome == (404, "DATA_NOT_FOUND")
    assert "There is no corpus 'kk'" in missing.error.message
    fields = {**fields, "corpora": "udhr_ipa", "texts": {"held_out": False}}
    empty = await here.post("/experiments", fields)
    assert empty.outcome == (422, "INVALID_INPUT")
    assert "names nothing to score" in empty.error.message
