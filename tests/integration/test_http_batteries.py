"""Batteries over HTTP: started, followed to the end, and their files downloaded."""

from tests.support.batteries import PAIRS
from tests.support.checkpoints import keep_checkpoint
from tests.support.http import ANA, BOB, Site
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.batteries import BatteryList, BatteryStatus, BatterySummary
from trainer.contracts.http_answers import ArtifactFiles


def body(run: RunDirectory) -> dict[str, object]:
    return {"runs": [run.run_id], "files": [{"name": "pairs.csv", "content": PAIRS}]}


async def test_battery__runs_to_its_results(here: Site, run: RunDirectory) -> None:
    accepted = await here.post("/batteries", body(run), key=ANA)
    address = accepted.location
    done = accepted.record(BatteryStatus)
    while done.status in ("queued", "running"):
        done = (await here.get(f"{address}?wait=60", key=ANA)).record(BatteryStatus)
    assert (accepted.status, done.status, done.error, done.done) == (202, "completed", None, 8)
    listed = (await here.get("/batteries", key=BOB)).record(BatteryList).batteries
    assert (done.battery_id, "completed", ()) in [(one.battery_id, one.status, one.files) for one in listed]
    files = (await here.get(f"/artifacts{address}", key=ANA)).record(ArtifactFiles).files
    assert files == done.files
    result = await here.get(f"/artifacts{address}/download?path=result.json", key=ANA)
    summary = result.record(BatterySummary)
    assert summary == here.queue.batteries.get(done.battery_id).summary()
    assert summary.runs[0].groups[0].n_items == 4
    again = await here.post("/batteries", body(run), key=ANA)
    assert again.record(BatteryStatus) == done, "an equal request names the same job"
    assert (await here.post(f"{address}/cancel", key=ANA)).outcome == (409, "CONFLICT")


async def test_development__of_a_run_over_its_checkpoints_is_measured(here: Site, run: RunDirectory) -> None:
    kept = [keep_checkpoint(run, step) and step for step in (3, 5)]
    fields: dict[str, object] = {"development": {"split": "validation", "has_words": True, "words": ["abc"]}}
    accepted = await here.post("/batteries?wait=60", body(run) | fields, key=ANA)
    status = accepted.record(BatteryStatus)
    assert (status.status, status.development_of) == ("completed", run.run_id)
    assert status.runs == tuple(f"{run.run_id}@{step}" for step in kept)
    development = here.queue.batteries.get(status.battery_id).development()
    assert development is not None and [one.step for one in development.points] == kept
    assert {one.measure for one in development.curves} == {"accuracy", "loss", "bits_per_char"}
    [word] = development.acquisitions
    assert (word.word, word.reason) == ("abc", "too_few_checkpoints")
    for wrong, outcome in (
        ({"runs": [run.run_id, "other"]}, (422, "INVALID_INPUT")),
        ({"runs": [f"{run.run_id}@3"]}, (422, "INVALID_INPUT")),
        ({"development": {"has_words": True, "words": ["two words"]}}, (202, "")),
    ):
        answer = await here.post("/batteries", body(run) | fields | wrong, key=ANA)
        if outcome[1]:
            assert answer.outcome == outcome
        else:  # the words are read with the text
            ended = await here.get(f"{answer.location}?wait=60", key=ANA)
            error = ended.record(BatteryStatus).error
            assert error is not None and "is not one word" in error.message


async def test_battery__that_cannot_be_scored_is_refused(here: Site, run: RunDirectory) -> None:
    for fields, outcome in (
        ({"runs": ["nothing"]}, (404, "RUN_NOT_FOUND")),
        ({"files": [{"name": "a.csv", "content": "good,bad\na\n"}]}, (422, "INVALID_INPUT")),
        ({"files": []}, (422, "INVALID_INPUT")),
        ({"files": [], "batteries": ["nothing"]}, (404, "DATA_NOT_FOUND")),
        ({"runs": [run.run_id] * 2}, (422, "INVALID_INPUT")),
        ({"pll_within_word": True}, (422, "MODEL_INCOMPATIBLE")),
    ):
        assert (await here.post("/batteries", body(run) | fields, key=ANA)).outcome == outcome
