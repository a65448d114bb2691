"""Health and figures of the HTTP API: what a load balancer and Prometheus read."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support import settings_in, tiny_request, wait_for_status
from tests.support.http import Got, Site, inside, with_api
from tests.support.redis_servers import embedded, served
from tests.support.stories import Story, run_record
from tests.support.worker_runs import LONG, with_redis
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.runs import Accepted
from trainer.queue.queue import JobQueue
from trainer.store.store import connect


def figures(answer: Got) -> dict[str, float]:
    """Each sample of Prometheus' text with its labels."""
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels: dict[str, str] = sample.labels
            name = ",".join((sample.name, *(f"{key}={value}" for key, value in sorted(labels.items()))))
            found[name] = sample.value
    return found


async def test_service__with_a_worker_is_ready(here: Site) -> None:
    for path in ("/healthz", "/health"):
        assert (await here.get(path, key=None)).text == '{"status":"ok"}'
    ready = await here.get("/readyz", key=None)
    assert (ready.status, ready.fields) == (200, {"status": "ready", "reason": None})


async def test_service__without_a_worker_is_not_ready(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, _), inside(queue, with_api(settings)) as (here, _):
        degraded = await here.get("/readyz", key=None)
        assert (await here.get("/healthz", key=None)).status == 200
    assert (degraded.status, degraded.fields) == (503, {"status": "degraded", "reason": "no-worker"})


async def test_service__without_redis_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        settings = with_api(settings_in(tmp_path).model_copy(update=with_redis(server.url)))
        queue = JobQueue(settings, await connect(server.url, retries=0))
        async with inside(queue, settings) as (here, _):
            assert figures(await here.get("/metrics"))["mt_queue_depth,queue=training"] == 0
            (tmp_path / "data" / "corpus").mkdir(parents=True)
            (tmp_path / "data" / "corpus" / "text.txt").write_text("a b c\n" * 20)
            Story(tmp_path / "artifacts", run_record("char_lstm-1", user_id=None))
            await server.kill()
            degraded = await here.get("/readyz", key=None)
            status = await here.get("/runs/char_lstm-1")
            tokenizer = {"method": "char", "corpora": ["text"]}
            refused = await here.post("/tokenizers/train", tokenizer, headers={"Idempotency-Key": "1"})
            after = figures(await here.get("/metrics"))
            assert (await here.get("/healthz", key=None)).status == 200
        await queue.close()
    assert (degraded.status, degraded.fields) == (503, {"status": "degraded", "reason": "redis-unavailable"})
    assert (status.status, status.fields["reachable"]) == (200, False)
    assert refused.outcome == (503, "SERVICE_UNAVAILABLE")
    assert after["mt_workers"] == 0
    assert [name for name in after if "queue_depth" in name] == []


async def test_figures__count_requests_runs_and_jobs(here: Site, run: RunDirectory) -> None:
    before = figures(await here.get("/metrics"))
    for _ in range(3):
        await here.get(f"/runs/{run.run_id}")
    await here.get("/runs/none")
    await here.ask("HEAD", "/healthz")
    for number in range(5):
        await here.get(f"/nowhere/{number}")
        await here.ask("PATCH", f"/runs/{number}")
    await here.events(f"/runs/{run.run_id}/events")
    running = (await here.post("/runs/train", tiny_request(**LONG))).record(Accepted).run_id
    await here.post("/runs/train", tiny_request(**LONG))
    await wait_for_status(here.queue, running, lambda status: (status.tokens_per_second or 0) > 0)
    async with here.stream(f"/runs/{running}/events"):
        after = figures(await here.get("/metrics"))
    moved = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)}
    requests = {name: count for name, count in moved.items() if name.startswith("mt_http_requests_total")}
    assert requests == {
        "mt_http_requests_total,method=GET,route=/metrics,status=200": 1,
        "mt_http_requests_total,method=GET,route=/runs/{run_id},status=200": 3,
        "mt_http_requests_total,method=GET,route=/runs/{run_id},status=404": 1,
        "mt_http_requests_total,method=GET,route=/runs/{run_id}/events,status=200": 1,
        "mt_http_requests_total,method=HEAD,route=/healthz,status=200": 1,
        "mt_http_requests_total,method=POST,route=/runs/train,status=202": 2,
        "mt_http_requests_total,method=other,route=unknown,status=404": 5,
        "mt_http_requests_total,method=other,route=unknown,status=405": 5,
    }
    assert moved["mt_http_request_seconds_count,method=GET,route=/runs/{run_id}"] == 4
    assert "mt_http_request_seconds_count,method=GET,route=/runs/{run_id}/events" not in after
    assert (moved["mt_runs,state=running"], moved["mt_runs,state=queued"]) == (1, 1)
    assert after["mt_runs,state=completed"] >= 1
    assert after["mt_queue_depth,queue=training"] == 2
    assert after["mt_workers"] == 1
    assert after["mt_http_streams"] == 1
    assert after["mt_training_tokens_per_second"] > 0
