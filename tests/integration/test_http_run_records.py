"""What a run has stored, over HTTP: the request that trains it again, and the samples of its training."""

from tests.support import tiny_request
from tests.support.http import ANA, BOB, Site
from tests.support.worker_runs import LONG
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.inference import Sample, TrainingSample
from trainer.contracts.runs import Accepted
from trainer.http.run_records import RunRequest, TrainingSamples

SAMPLES = [
    TrainingSample(step=step, sample=Sample(prompt="a", text=f"b{step}", seed=1, steps=2, stop_reason="eos"))
    for step in (10, 20, 30)
]


async def test_request__of_a_run_trains_it_again(here: Site, run: RunDirectory) -> None:
    sent: dict[str, object] = tiny_request(init_from_run_id=run.run_id, tokenizer=None, **LONG).model_dump(
        mode="json", exclude_unset=True
    )
    first = (await here.post("/runs/train", sent)).record(Accepted)
    got = await here.get(f"/runs/{first.run_id}/request", key=BOB)
    answer = got.record(RunRequest)
    assert (answer.parent_run_id, answer.resumed_from_run_id, answer.experiment_id) == (run.run_id, None, None)
    assert (await here.post(f"/runs/{first.run_id}/cancel")).status == 200
    again = (await here.post("/runs/train", got.fields["request"])).record(Accepted)
    runs = here.queue.runs
    assert runs.get(again.run_id).record().request_hash == runs.get(first.run_id).record().request_hash
    assert (await here.post(f"/runs/{again.run_id}/cancel")).status == 200


async def test_samples__of_a_training_are_read_while_it_writes_them(here: Site, copied: RunDirectory) -> None:
    path = f"/runs/{copied.run_id}/samples"
    assert (await here.get(path)).record(TrainingSamples) == TrainingSamples(run_id=copied.run_id, samples=(), total=0)
    lines = "".join(sample.model_dump_json() + "\n" for sample in SAMPLES)
    copied.training_samples.write_text(lines + '{"step": 40, "sam', encoding="utf-8")
    answer = (await here.get(f"{path}?limit=2")).record(TrainingSamples)
    assert (answer.samples, answer.total) == (tuple(SAMPLES[1:]), 3)
    assert (await here.get(path, key=ANA)).outcome == (403, "FORBIDDEN")
