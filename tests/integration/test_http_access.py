"""Access to the HTTP API: each route needs a key, and a key opens what its role and its runs allow."""

from typing import Literal
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from tests.support import ended, tiny_request, wait_for_status
from tests.support.batteries import PAIRS
from tests.support.http import ADMIN, ANA, BOB, PERSON, PERSON_ID, WRONG, Site, lab_site, site, with_api
from tests.support.lab import Lab
from tests.support.markers import slow_except
from tests.support.refusals import refused
from tests.support.worker_runs import LONG
from trainer.contracts.base import HttpOrigin, changed
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.errors import ErrorCode
from trainer.contracts.http_answers import CheckedTraining
from trainer.contracts.runs import Accepted

KEYS = (ADMIN, ANA, BOB)


async def ended_run(here: Site, key: str, **fields: object) -> str:
    """A short run that a key has started."""
    answer = await here.post("/runs/train?wait=60", tiny_request(max_steps=1, **fields), key=key)
    run_id = str(answer.fields["run_id"])
    await wait_for_status(here.queue, run_id, ended)
    return run_id


async def test_route__needs_a_valid_key(here: Site) -> None:
    keys: dict[str, dict[str, str]] = {
        "none": {},
        "empty": {"X-Api-Key": ""},
        "wrong": {"X-Api-Key": WRONG},
        "the beginning": {"X-Api-Key": ADMIN[:-1]},
        "more": {"X-Api-Key": f"{ADMIN}x"},
        "wrong bearer": {"Authorization": f"Bearer {WRONG}"},
        "another scheme": {"Authorization": f"Basic {ADMIN}"},
        "a name": {"X-Api-Key": "root"},
    }
    for headers in keys.values():
        refused = await here.get("/runs", key=None, headers=headers)
        assert refused.outcome == (401, "UNAUTHORIZED"), headers
        assert refused.headers["WWW-Authenticate"] == "Bearer"
    for key in (ADMIN, ANA):
        for name in ("X-API-KEY", "x-api-key"):
            assert (await here.get("/runs", key=None, headers={name: key})).status == 200
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert (await here.get("/runs", key=None, headers={"Authorization": f"{scheme} {key}"})).status == 200
    for header in ("X-Api-Key: schlüssel".encode(), b"X-Api-Key: \xff\xfe", b"Authorization: Bearer \xe9"):
        raw = await here.say(b"GET /runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 401 ")


async def test_name__is_meant_for_a_run_that_the_client_may_see(lab: Lab) -> None:
    async with lab_site(lab, private_runs=True) as here:
        label = quote("Соңғы үлгі")
        of_ana, of_bob = [await ended_run(here, key, label="Соңғы үлгі") for key in (ANA, BOB)]
        newest = await ended_run(here, ADMIN)
        for key, run_id in ((ANA, of_ana), (BOB, of_bob), (ADMIN, newest)):
            assert (await here.get("/runs/last", key=key)).fields["run_id"] == run_id
            scored = await here.post("/runs/last/score?wait=60", {"text": "abc"}, key=key)
            assert (scored.status, scored.fields["run_id"]) == (200, run_id)
            warm = await here.post("/runs/check", tiny_request(init_from_run_id="last", max_steps=1), key=key)
            assert warm.record(CheckedTraining).effective.init_from_run_id == run_id
        for key, run_id in ((ANA, of_ana), (BOB, of_bob)):
            for path in (f"/runs/{label}/config.yaml", f"/artifacts/models/{label}", f"/v1/models/{run_id[:-1]}"):
                assert (await here.get(path, key=key)).status == 200, path
        several = await here.get(f"/runs/{label}", key=ADMIN)
        assert several.outcome == (422, "INVALID_INPUT")
        assert f"'Соңғы үлгі' names 2 runs: {of_bob}, {of_ana}." in several.error.message
        refused = await here.ask("DELETE", "/runs/last", key=ANA)
        assert refused.outcome == (422, "INVALID_INPUT") and f"give '{of_ana}'" in refused.error.message
        completed = await here.post("/v1/completions", {"model": "last", "prompt": "abc", "max_tokens": 1}, key=ANA)
        assert completed.fields["model"] == of_ana
        assert (await here.get(f"/runs/{of_ana[:-1]}x", key=BOB)).outcome == (404, "RUN_NOT_FOUND")
        for key, run_id in ((ANA, of_ana), (BOB, of_bob)):
            assert (await here.ask("DELETE", f"/runs/{run_id}", key=key)).status == 204


async def test_private_runs__are_listed_for_their_owners_and_admins(lab: Lab) -> None:
    async with lab_site(lab, private_runs=True) as here:
        run_id = await ended_run(here, ANA, split_seed=98)  # no other run has this tokenizer
        facts = here.queue.runs.get(run_id).completed_manifest().tokenizer
        assert facts is not None
        body = {"runs": [run_id], "files": [{"name": "private.csv", "content": PAIRS}]}
        battery_id = (await here.post("/batteries", body, key=ANA)).record(BatteryStatus).battery_id
        ids = {"/runs?limit=1": run_id, "/v1/models": run_id, "/tokenizers": facts.id, "/batteries": battery_id}
        listed = [{key: one in (await here.get(path, key=key)).text for key in KEYS} for path, one in ids.items()]
        own = await here.post("/predict", {"text": "a"}, key=BOB)
        reused = await here.post("/runs/train", tiny_request(tokenizer_id=facts.id, split_seed=98), key=BOB)
    assert listed == [{ADMIN: True, ANA: True, BOB: False}] * len(ids)
    assert reused.outcome == (403, "FORBIDDEN")
    assert own.status == 404 or own.fields["run_id"] != run_id, "another test may have trained a run of Bob"


ITEMS: dict[str, object] = {"table": {"text": ["abc"]}, "text_column": "text"}
PROMPT: dict[str, object] = {"model": "{run}", "prompt": "abc", "max_tokens": 1}
GREEDY: dict[str, object] = {"prompt_text": "ab", "temperature": 0}
DETAILED: list[tuple[str, dict[str, object]]] = [
    ("/runs/{run}/score", {"text": "abc", "detail_level": "per_word"}),
    ("/runs/{run}/score", {"text": "abc", "detail_level": "per_char"}),
    ("/runs/{run}/items", {**ITEMS, "per": "word"}),
    ("/runs/{run}/items", {**ITEMS, "per": "char"}),
    ("/runs/{run}/items", {**ITEMS, "group_column": "text"}),
    ("/v1/completions", {**PROMPT, "temperature": 0, "logprobs": 1, "echo": True}),
    ("/v1/completions", {**PROMPT, "temperature": 0, "logprobs": 11}),
    ("/v1/completions", {**PROMPT, "logprobs": 0}),  # of any sampled token
    ("/v1/completions", {**PROMPT, "logprobs": 1, "stream": True}),
    ("/runs/{run}/predict", {"text": "ab", "k": 11}),
    ("/predict?run_id={run}", {"text": "ab", "k": 100}),
    ("/runs/{run}/generate", {"prompt_text": "ab", "logprobs": True}),
    ("/runs/{run}/generate", {"prompt_text": "ab", "top_logprobs": 1, "temperature": 0.5}),
    ("/runs/{run}/generate", {**GREEDY, "top_logprobs": 11}),
    ("/runs/{run}/generate", {**GREEDY, "top_logprobs": 1, "banned_tokens": ["a"]}),  # the likeliest of the others
    ("/runs/{run}/generate", {**GREEDY, "logprobs": True, "alphabet": "a"}),
    ("/runs/{run}/generate", {**GREEDY, "logprobs": True, "repetition_penalty": 9}),
]
SUMMED: list[tuple[str, dict[str, object]]] = [
    ("/runs/{run}/score", {"text": "abc"}),
    ("/runs/{run}/score", {"text": "abc", "detail_level": "per_line"}),
    ("/runs/{run}/items", ITEMS),
    ("/v1/completions", {**PROMPT, "echo": True}),
    ("/v1/completions", {**PROMPT, "temperature": 0, "logprobs": 10}),
    ("/runs/{run}/predict", {"text": "ab", "k": 10}),
    ("/runs/{run}/generate", {"prompt_text": "ab", "banned_tokens": ["a"]}),
    ("/runs/{run}/generate", {**GREEDY, "logprobs": True, "top_logprobs": 10}),
]


@pytest.mark.parametrize("surprisals", slow_except(["owner", "all"], "owner"))
async def test_surprisals__of_single_words_and_tokens_are_for_owner_and_admins(
    lab: Lab, surprisals: Literal["owner", "all"]
) -> None:
    async with lab_site(lab, surprisals=surprisals) as here:
        run_id = await ended_run(here, ANA)

        async def statuses(path: str, body: dict[str, object]) -> dict[str, int]:
            sent = body | ({"model": run_id} if "model" in body else {})
            return {key: (await here.post(path.format(run=run_id), sent, key=key)).status for key in KEYS}

        opened = [set((await statuses(path, body)).values()) for path, body in SUMMED]
        detailed = [await statuses(path, body) for path, body in DETAILED]
        scored = await here.post(f"/runs/{run_id}/score", DETAILED[0][1])
        read = {key: (await here.get(scored.location, key=key)).status for key in KEYS}
    others = {200, 202} if surprisals == "all" else {403}
    assert all(one <= {200, 202} for one in opened)
    for one in detailed:
        assert {one[ANA], one[ADMIN]} <= {200, 202} and one[BOB] in others
    assert {key for key, status in read.items() if status != 404} == {ADMIN}, "results are for those who asked"


async def test_key_with_the_name_of_a_discord_user__starts_runs_of_that_user(here: Site) -> None:
    own = await ended_run(here, PERSON)
    accepted = await here.queue.train(tiny_request(max_steps=1), user_id=PERSON_ID)
    await wait_for_status(here.queue, accepted.run_id, ended)
    record = here.queue.runs.get(own).record()
    assert (record.user_id, record.http) == (PERSON_ID, HttpOrigin(api_key=str(PERSON_ID)))
    assert (await here.get(f"/runs/{accepted.run_id}")).fields["owner"] == str(PERSON_ID)
    assert (await here.get(f"/runs/{accepted.run_id}/logs", key=PERSON)).status == 200


async def test_resumed_training__is_one_of_the_same_client(here: Site) -> None:
    """`resume` looks for an equal request, which may be somebody else's."""
    request = tiny_request(**LONG, label="resumed-by-whom", resume=True)
    first = (await here.post("/runs/train", request, key=ANA)).record(Accepted).run_id
    await wait_for_status(here.queue, first, lambda status: status.last_checkpoint_step is not None)
    await here.post(f"/runs/{first}/cancel", key=ANA)
    await wait_for_status(here.queue, first, ended)
    origins = {}
    for key in (BOB, PERSON, ADMIN, ANA):
        run_id = (await here.post("/runs/train", request, key=key)).record(Accepted).run_id
        origins[key] = here.queue.runs.get(run_id).record().resumed_from_run_id
        await here.post(f"/runs/{run_id}/cancel", key=key)
    assert origins == {BOB: None, PERSON: None, ADMIN: None, ANA: first}


async def test_limits__are_those_of_each_client(lab: Lab) -> None:
    async with lab_site(lab, limits={"runs_per_user": 1, "requests_per_minute": 1}) as here:
        run = await lab.finished_run(here.queue)
        for path, body in (("/runs/train", tiny_request(**LONG)), (f"/runs/{run.run_id}/score", {"text": "a"})):
            for key, status in ((ANA, 202), (ANA, 429), (BOB, 202), (ADMIN, 202)):
                assert (await here.post(path, body, key=key)).status == status, (path, key)
        refused = await here.post(f"/runs/{run.run_id}/score", {"text": "a"}, key=ANA)
    seconds = int(refused.headers["Retry-After"])
    assert 0 < seconds <= 60
    assert refused.error.message == f"The limit is 1 request per minute. Try again in {seconds} s."


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
async def test_server__that_others_reach_needs_keys(lab: Lab, host: str) -> None:
    with refused(ErrorCode.CONFIG_INVALID, "set SECURITY__API_KEYS"):
        async with site(with_api(lab.settings, "", http={"host": host})):
            pass


async def test_server__that_others_reach_starts_with_a_key(lab: Lab) -> None:
    settings = with_api(lab.settings, "", http={"host": "0.0.0.0"})  # noqa: S104
    own = changed(settings, security=changed(settings.security, api_key=SecretStr(ADMIN)))
    async with site(own) as here:
        foreign = await here.get("/runs", headers={"Host": "example.org", "Origin": "https://example.org"})
        assert foreign.status == 200, "its page has a key"
        behind = dict.fromkeys(FORWARDED, "198.51.100.7")
        assert (await here.get("/runs", headers=behind)).status == 200, "a proxy's clients have keys"
        assert (await here.get("/runs", key=None)).status == 401


HOSTS = ("example.org", "127.0.0.1.example.org", "localhost.example.org:8000", "[::2]", "")
ORIGINS = ("https://example.org", "null", "http://127.0.0.1:1")
FOREIGN = [*({"Host": host} for host in HOSTS), *({"Origin": origin} for origin in ORIGINS)]

FORWARDED = (
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix"),
    *("X-Real-IP", "X-Original-URI", "X-Client-IP", "X-Cluster-Client-Ip", "True-Client-IP", "CF-Connecting-IP"),
    *("CF-Ray", "CDN-Loop", "Fastly-Client-IP", "Fly-Client-IP", "X-Envoy-External-Address", "x-forwarded"),
    *("X-Amzn-Trace-Id", "X-Azure-ClientIP", "Tailscale-User-Login", "Proxy-Connection", "Client-IP"),
)


async def test_server_without_keys__is_for_all_here_and_nobody_through_a_page_or_proxy(lab: Lab) -> None:
    async with lab_site(lab, "") as here:
        own = {"Host": f"localhost:{here.port}", "Origin": f"http://localhost:{here.port}"}
        assert (await here.get("/runs", key=None)).status == 200
        assert (await here.get("/runs", key=None, headers=own)).status == 200
        assert (await here.get("/runs", key=None, headers={"Host": "[::1]:1"})).status == 200
        for headers in FOREIGN:
            for path in ("/runs", "/healthz", "/openapi.json", "/no-such-page"):
                refused = await here.get(path, key=None, headers=headers)
                assert refused.outcome == (403, "FORBIDDEN"), headers
        for name in FORWARDED:
            for method, path in (("GET", "/runs"), ("POST", "/runs/train"), ("DELETE", "/runs/x"), ("GET", "/")):
                refused = await here.ask(method, path, key=None, headers={name: "198.51.100.7"})
                assert refused.outcome == (403, "FORBIDDEN") and "proxy" in refused.error.message, (name, path)
                assert "SECURITY__API_KEYS" in refused.error.message
        # nginx's plain proxy_pass adds no header
        bare = await here.say(f"GET /runs HTTP/1.0\r\nHost: 127.0.0.1:{here.port}\r\n\r\n".encode())
        assert bare.startswith(b"HTTP/1.0 403 ") and b"proxy" in bare
        run_id = (await here.post("/runs/train", tiny_request(**LONG), key=None)).record(Accepted).run_id
        record = here.queue.runs.get(run_id).record()
        assert (record.user_id, record.http) == (None, HttpOrigin(api_key=None))
        assert (await here.post(f"/runs/{run_id}/cancel", key=None)).status == 200
