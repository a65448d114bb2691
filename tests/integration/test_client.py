"""`trainer.Client`: the runs and models of a server, with the numbers of `trainer.load`."""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

import trainer
from tests.support import tiny_request
from tests.support.api_server import KEY, LabServer, Prepared, prepared
from tests.support.refusals import refused
from tests.support.stories import Story, run_record
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.worker_runs import LONG
from trainer.api import Model
from trainer.artifacts.checkpoint_files import checkpoint_steps
from trainer.client import downloads, http_api, remote
from trainer.client.client import BackgroundLoop, Client, RemoteModel
from trainer.commands.training import recovery_hint
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, RunError
from trainer.contracts.events import Event, JobCancelled, MetricsProgress
from trainer.contracts.exports import ExportStatus
from trainer.contracts.http_answers import ArtifactFiles, RunPage
from trainer.contracts.predictions import PredictResponse
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.verification import VerificationStatus

TEXT, SPACED = "abc cab\n\nab", "abc cab\nab c\n" * 5
LABEL, UNKNOWN = r"text-char_lstm(-\d+)?", "char_lstm-20261127-00000000"
EMPTY_PAGE = RunPage(runs=(), total=0, next_cursor=None).model_dump_json().encode()


def client_of(server: LabServer) -> Client:
    return Client(server.url, KEY)


def model_of(client: Client) -> RemoteModel:
    """The model of a run on a server whose answers are prepared."""
    return RemoteModel("run", "causal_lm", client._server, client._loop, client)


def refusal_of(code: ErrorCode, status: int) -> Prepared:
    return Prepared(status, ErrorBody(code=code, message="Later.", request_id="r").model_dump_json().encode())


def test_model__has_the_methods_and_the_numbers_of_a_loaded_run(server: LabServer) -> None:
    with client_of(server) as client:
        remote, local = client.load(server.run.run_id), trainer.load(server.run.path)
        assert RemoteModel.surprisal is Model.surprisal and RemoteModel.score is Model.score
        assert RemoteModel.generate is Model.generate and RemoteModel.predict_next is Model.predict_next
        assert RemoteModel.items is Model.items
        assert remote.run_id == local.run_id
        assert remote.surprisal(TEXT) == local.surprisal(TEXT) != []
        mine, its = remote.score(TEXT, top_k=2), local.score(TEXT, top_k=2)
        assert mine == changed(its, request_id=mine.request_id)
        options: dict[str, object] = {"max_new_tokens": 5, "num_return_sequences": 2, "seed": 3}
        assert remote.generate("ab", **options) == local.generate("ab", **options)
        assert remote.predict_next("ab", 3) == local.predict_next("ab", 3)
        there, here = remote.segment(SPACED), local.segment(SPACED)  # without the training text, which the server has
        of_run = [changed(one, f1_minus_ngram=None) for one in there.scores if not one.model.endswith("-gram")]
        assert of_run == [*here.scores]
        assert (there.has_ngram, here.has_ngram) == (True, False) and RemoteModel.segment is Model.segment
        for model in (remote, local):
            with refused(ErrorCode.INVALID_INPUT, "temperatur"):
                model.generate("ab", temperatur=2)
            with refused(ErrorCode.MODEL_INCOMPATIBLE, "for masked models only"):
                model.score("ab", pll_within_word=True)
            with refused(ErrorCode.INVALID_INPUT, "blank"):
                model.surprisal(" ")


def test_train__takes_fields_a_request_an_experiment_file_or_a_run(
    server: LabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("corpus: text\nmax_seq_len: 16\nmodel: {hidden_size: 8, embedding_size: 8}\n", encoding="utf-8")
    with client_of(server) as client:
        given: dict[str, object] = tiny_request().model_dump(mode="json", exclude_unset=True)
        runs = [
            client.train(given, label="a mapping"),
            client.train(tiny_request(), label="a request"),
            client.train(file, num_epochs=1, label="a file"),
            client.train(**given | {"label": "keywords"}),
            client.train(corpus="text", init_from_run_id=server.run.run_id, max_seq_len=16, num_epochs=1),
        ]
        ended = [client.wait(run.run_id) for run in runs]
        assert {run.status for run in ended} == {"completed"} and ended[-1].model_family == "char_lstm"
        labels = [run.label or "" for run in ended]
        assert labels[:4] == ["a mapping", "a request", "a file", "keywords"] and re.fullmatch(LABEL, labels[4])
        assert [run.run_id for run in client.runs(search="keywords")] == [runs[3].run_id]
        assert list(client.runs(search="a label of no run")) == []
        annotated = client.annotate(runs[3].run_id, note="a remarkable run", tags=["pilot"])
        assert list(client.runs(search="remarkable")) == list(client.runs(search="pilot")) == [annotated]
        assert {run.model_family for run in client.runs(status="completed", family="char_lstm")} == {"char_lstm"}
        monkeypatch.setattr(remote, "_MAX_PAGE", 2)
        listed = list(client.runs())
        assert {run.run_id for run in runs} <= {run.run_id for run in listed}
        assert len({run.run_id for run in listed}) == len(listed)
        times = [run.created_at for run in listed]
        assert times == sorted(times, reverse=True)
        with refused(ErrorCode.DATA_NOT_FOUND, "no-such-corpus"):
            client.train(given, corpus="no-such-corpus")
        with refused(ErrorCode.INVALID_INPUT, "hiden_size", "model.hiden_size"):
            client.train(given, model={"hiden_size": 8})
        with refused(ErrorCode.RUN_NOT_FOUND, "There is no run 'none'"):
            client.train(corpus="text", init_from_run_id="none")


def test_cancelled_run__has_no_model_and_is_resumed_once(server: LabServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAIT_SECONDS", 0.0)
    with client_of(server) as client:
        run_id = client.train(tiny_request(**LONG | {"checkpoint_every_steps": 5})).run_id
        directory = server.lab.settings.app.artifacts_root / "models" / run_id
        for _ in client.events(run_id):
            if checkpoint_steps(directory / "checkpoints"):
                break
        cancelling = threading.Timer(0.2, client.cancel, (run_id,))
        cancelling.start()
        ended = client.wait(run_id)
        cancelling.join()
        assert ended.status == "cancelled" and ended.last_checkpoint_step is not None
        resumed = client.resume(run_id)
        assert resumed.run_id != run_id
        client.cancel(resumed.run_id)
        assert client.wait(resumed.run_id).status == "cancelled"
        with refused(ErrorCode.RUN_FINISHED, "has already ended"):
            client.cancel(run_id)
        with refused(ErrorCode.RUN_FINISHED, "is completed"):
            client.resume(server.run.run_id)
        with refused(ErrorCode.RUN_NOT_READY, "has been cancelled: it has no model"):
            client.load(run_id)
        with refused(ErrorCode.RUN_NOT_FOUND, "There is no run 'none'"):
            client.load("none")


@pytest.mark.slow
def test_following__continues_after_a_restart_of_the_server(server: LabServer) -> None:
    with client_of(server) as client:
        run_id = client.train(tiny_request(**LONG)).run_id
        events: list[Event] = []
        lines = client.logs(run_id, follow=True)
        first_line = next(lines)
        for event in client.events(run_id):
            if isinstance(event, MetricsProgress) and not any(isinstance(one, MetricsProgress) for one in events):
                server.stop()
                server.start()
                client.cancel(run_id)
            events.append(event)
        rest = list(lines)
        assert client.wait(run_id).status == "cancelled"
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert isinstance(events[-1], JobCancelled)
        assert [first_line, *rest] == list(client.logs(run_id, tail=10_000)), "no line is lost or repeated"


async def fail() -> None:
    raise OSError


@pytest.mark.parametrize("last", [partial(asyncio.sleep, 0), fail])
def test_call__that_another_thread_waits_for_ends_with_the_client(
    last: Callable[[], Coroutine[object, object, None]],
) -> None:
    loop, has_begun = BackgroundLoop(), threading.Event()

    async def wait() -> None:
        has_begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(loop.call, wait())
        has_begun.wait()
        loop.stop(last())
        with refused(ErrorCode.CANCELLED, "This client has been closed: make another one."):
            waiting.result(PATIENCE_SECONDS)


def test_closed_client__refuses_calls_and_ends_open_iterators(server: LabServer) -> None:
    client = client_of(server)
    runs = client.runs()
    first = next(runs)
    client.close()
    calls: list[Callable[[], object]] = [
        lambda: next(runs),
        lambda: next(client.runs()),
        lambda: next(client.events(first.run_id)),
        lambda: client.load(first.run_id),
    ]
    for call in calls:
        with refused(ErrorCode.CANCELLED, "This client has been closed"):
            call()


def test_download__is_a_folder_that_trainer_loads(server: LabServer, tmp_path: Path) -> None:
    with client_of(server) as client:
        folder = client.download(server.run.run_id, tmp_path / "run")
        assert trainer.load(folder).surprisal(TEXT) == trainer.load(server.run.path).surprisal(TEXT)
        assert not list(folder.rglob("*.part"))
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        weights.rename(folder / "model.safetensors.part")
        (folder / "model.safetensors.part").write_bytes(content[:100])
        (folder / "config.json").unlink()
        (folder / "config.json.part").write_bytes((server.run.path / "config.json").read_bytes())
        client.download(server.run.run_id, folder)
        assert weights.read_bytes() == content and (folder / "config.json").is_file()
        weights.write_bytes(b"damaged")
        (folder / "model.safetensors.part").write_bytes(b"x" * 100)
        with refused(ErrorCode.MODEL_LOAD_FAILED, "'model.safetensors' is damaged"):
            client.download(server.run.run_id, folder)
        client.download(server.run.run_id, folder)
        assert weights.read_bytes() == content


def listed(path: str, content: bytes) -> Prepared:
    record: dict[str, object] = {"path": path, "bytes": len(content), "sha256": sha256(content).hexdigest()}
    body: dict[str, object] = {"kind": "models", "id": "run", "files": [record], "result_bytes": len(content)}
    return Prepared(body=ArtifactFiles.model_validate(body, strict=False).model_dump_json().encode())


def test_download__that_breaks_off_continues_or_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)
    partial = Prepared(206, b"45", {"Content-Length": "6", "Content-Range": "bytes 4-9/10"})
    complete = Prepared(200, b"0123456789")
    broken = Prepared(200, b"0123", {"Content-Length": "10"})
    with (
        prepared(listed("a/file", b"0123456789"), broken, partial, complete) as server,
        Client(server.url, KEY) as client,
    ):
        client.download(UNKNOWN, tmp_path)
        sent = [(one.headers.get("Range"), one.headers.get("If-Range")) for one in server.sent[1:]]
    etag = f'"{sha256(b"0123456789").hexdigest()}"'
    assert (tmp_path / "a" / "file").read_bytes() == b"0123456789"
    assert sent == [("bytes=0-", etag), ("bytes=4-", etag), ("bytes=6-", etag)]


@pytest.mark.parametrize("path", ["../file", "/file", ""])
def test_download__writes_nothing_outside_of_its_folder(path: str, tmp_path: Path) -> None:
    with (
        prepared(listed(path, b"x")) as server,
        Client(server.url, KEY) as client,
        pytest.raises(AppError, match="outside of the folder"),
    ):
        client.download(UNKNOWN, tmp_path / "here")
    assert not list(tmp_path.iterdir())


def test_client__names_what_is_wrong_with_its_address_or_key(
    server: LabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere, secure = "http://127.0.0.1:1", server.url.replace("http:", "https:")
    sentence = f"No server answers at {nowhere}. Check MT_URL, and that the server is running."
    for url, key, code, said in (
        (server.url, "a-wrong-key-of-nobody", ErrorCode.UNAUTHORIZED, "Send a valid API key"),
        (nowhere, KEY, ErrorCode.SERVICE_UNAVAILABLE, sentence),
        (secure, KEY, ErrorCode.SERVICE_UNAVAILABLE, f"No server answers at {secure}: TLS failed"),
    ):
        with Client(url, key) as client, refused(code, said):
            next(client.runs())
    for url, said in (("lab:8000", "`url`"), ("", "No server is named")):
        with refused(ErrorCode.CONFIG_INVALID, said):
            Client(url, KEY)
    with pytest.raises(AppError, match="`key` must have at least 16 characters") as caught:
        Client(server.url, "short")
    assert "short" not in caught.value.message
    monkeypatch.setenv("MT_URL", server.url)
    monkeypatch.setenv("MT_KEY", KEY)
    with trainer.Client() as client:
        assert client.status(server.run.run_id).status == "completed"


def test_request_without_an_answer__is_repeated_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = PredictResponse(request_id="r", run_id="run", status="completed", suggestions=())
    proxy = Prepared(502, b"<html>Bad Gateway</html>")
    limited = refusal_of(ErrorCode.RATE_LIMIT_EXCEEDED, 429)
    answers = [limited, Prepared(body=ended.model_dump_json().encode())]
    monkeypatch.setattr(remote, "_RATE_PAUSE_SECONDS", 0.0)
    with prepared(None, proxy, *answers) as server, Client(server.url, KEY) as client:
        assert model_of(client).predict_next("a") == []
        assert len({one.headers["Idempotency-Key"] for one in server.sent}) == 1
        assert [one.method for one in server.sent] == ["POST"] * 4


def test_patience__ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "_FIRST_PATIENCE_SECONDS", -1.0)
    monkeypatch.setattr(remote, "_RATE_SECONDS", -1.0)
    limited = refusal_of(ErrorCode.RATE_LIMIT_EXCEEDED, 429)
    with prepared(Prepared(503, b"busy"), limited) as server, Client(server.url, KEY) as client:
        said = f"A proxy before {server.url} answered 503 (Service Unavailable): the server behind it does not answer"
        with refused(ErrorCode.SERVICE_UNAVAILABLE, said):
            next(client.runs())
        with refused(ErrorCode.RATE_LIMIT_EXCEEDED, "Later."):
            model_of(client).predict_next("a")


def test_answer_of_another_program__is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared(Prepared(404, b"no"), Prepared(200, b"{}"), Prepared(body=EMPTY_PAGE)) as server:
        with Client(f"{server.url}/under/", KEY) as client:
            with refused(ErrorCode.SERVICE_UNAVAILABLE, "HTTP 404, which is no answer of Model Trainer"):
                next(client.runs())
            with pytest.raises(AppError, match="Install the server's version"):
                next(client.runs())
            assert list(client.runs()) == []
        assert server.sent[0].path.startswith("/under/runs?limit=25")
        assert server.sent[0].headers["X-Api-Key"] == KEY


HTML = {"Content-Type": "text/html; charset=utf-8"}
FOREIGN = [
    (Prepared(200, b"<title>Welcome to the hotel</title>", HTML), "answers with a web page, such as that of a login"),
    (
        Prepared(302, b"", {"Location": "https://u:p@login.example.org/in?token=x"}),
        "to https://login.example.org/in. Set",
    ),
    (Prepared(308, b"", {"Location": "/mt/runs"}), "redirects to http://127.0.0.1:"),
    (
        Prepared(401, b"<h1>401</h1>", HTML | {"WWW-Authenticate": "Basic"}),
        "answered 401 (Unauthorized): it wants a login",
    ),
    (Prepared(403, b"<h1>403</h1>", HTML), "answered 403 (Forbidden): it wants a login"),
    (Prepared(511, b"<h1>511</h1>", HTML), "it wants a login"),
    (Prepared(413, b"<h1>413</h1>", HTML), "answered 413 ("),
    (Prepared(429, b"<h1>429</h1>", HTML), "answered 429 (Too Many Requests): it takes no more requests for now"),
    (Prepared(500, b'{"message": "no"}'), "answers with HTTP 500, which is no answer of Model Trainer"),
    *((Prepared(status, b"<h1>no</h1>", HTML), f"answered {status} (") for status in (502, 503, 504, 521, 530)),
]


@pytest.mark.parametrize(("answer", "said"), FOREIGN)
def test_answer_of_a_proxy__is_reported_as_one(
    answer: Prepared, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(http_api, "_FIRST_PATIENCE_SECONDS", -1.0)
    code = ErrorCode.PAYLOAD_TOO_LARGE if answer.status == 413 else ErrorCode.SERVICE_UNAVAILABLE
    calls: list[Callable[[Client], object]] = [
        lambda client: next(client.runs()),
        lambda client: client.cancel("run"),
        lambda client: next(client.logs("run")),
        lambda client: client.download("run", tmp_path / "here"),
        lambda client: client.train({"corpus": "demo"}),
    ]
    with prepared(*[answer] * len(calls)) as server, Client(f"{server.url}/mt", KEY) as client:
        for call in calls:
            with refused(code, said) as caught:
                call(client)
            assert "token" not in caught.value.message and "u:p" not in caught.value.message
        assert all(one.path.startswith("/mt/") for one in server.sent)
    assert not list(tmp_path.iterdir())


def test_failed_request__raises_its_error(tmp_path: Path) -> None:
    error = RunError.of(AppError(ErrorCode.OUT_OF_MEMORY, "Too long."))
    waiting = ScoreResponse(request_id="r", run_id="run", status="queued").model_dump_json().encode()
    failed = ScoreResponse(request_id="r", run_id="run", status="failed", error=error).model_dump_json().encode()
    with prepared(Prepared(202, waiting), Prepared(body=failed)) as server, Client(server.url, KEY) as client:
        with refused(ErrorCode.OUT_OF_MEMORY, "Too long."):
            model_of(client).score("a")
        assert server.sent[1].path.startswith("/runs/run/score/r?wait=")
    verification = VerificationStatus(
        verification_id="v", run_id="run", status="failed", created_at=now(), error=error
    ).model_dump_json()
    with prepared(Prepared(body=verification.encode())) as server, Client(server.url, KEY) as client:
        with refused(ErrorCode.OUT_OF_MEMORY, "Too long."):
            client.verify("run")
    export = ExportStatus(
        export_id="e", run_id="run", format="hf", license=None, status="failed", created_at=now(), error=error
    ).model_dump_json()
    answers = [Prepared(body=export.encode())] * 2
    with prepared(*answers) as server, Client(server.url, KEY) as client:
        with refused(ErrorCode.OUT_OF_MEMORY, "Too long."):
            client.export("run", "hf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_key__is_sent_to_the_origin_of_the_server_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_api, "_PATIENCE_SECONDS", -1.0)
    content, nothing = b"an archive", Prepared(404, b"{}")
    with prepared(Prepared(200, content), nothing) as other, prepared() as server, Client(server.url, KEY) as client:
        secure = other.url.replace("http:", "https:")
        links = {"own": server.url, "other": other.url, "lost": other.url, "secure": secure, "path": "/exports/e"}
        links["nobody"] = nobody = "http://127.0.0.1:1"
        for name, origin in links.items():
            file: dict[str, object] = {"name": "run.tar", "bytes": len(content), "sha256": sha256(content).hexdigest()}
            file |= {"url": f"{origin}/e?signature=s", "expires_at": now()}
            status = ExportStatus.model_validate(
                {"export_id": "e", "run_id": "run", "format": "archive", "status": "completed", "created_at": now()}
                | {"file": file}
            )
            is_own = name in ("own", "path")
            answers = [Prepared(body=status.model_dump_json().encode())] * 2
            server.answers = [*answers, *[Prepared(200, content)] * is_own]
            if is_own or name == "other":
                client.export("run", "archive", tmp_path / name)
                assert (tmp_path / name).read_bytes() == content
                continue
            with pytest.raises(AppError) as caught:
                client.export("run", "archive", tmp_path / name)
            said = {
                "lost": f"{other.url} answers with HTTP 404",
                "secure": f"No server answers at {secure}: TLS failed",
                "nobody": f"No server answers at {nobody}, which the server names in a link: check its",
            }
            assert said[name] in caught.value.message
        assert {one.headers.get("X-Api-Key") for one in server.sent} == {KEY}
        assert [one.path for one in other.sent] == ["/e?signature=s"] * 2
        assert not any(KEY in value for one in other.sent for value in one.headers.values())


def test_failed_run_of_a_server__names_the_step_that_it_is_resumed_from(tmp_path: Path) -> None:
    status = Story(tmp_path, run_record("lstm-1")).start().checkpoint(20).follower().status
    error = RunError.of(AppError(ErrorCode.MODEL_TRAIN_FAILED, "It failed."))
    failed = changed(status, error=error, label=None)
    with prepared() as server, Client(server.url, KEY) as client:
        hint = client._loop.call(recovery_hint(failed, client._server))
    assert hint == ["See its log with `mt logs lstm-1`; resume it from step 20 with `mt resume lstm-1`."]


def test_stream_that_breaks_off__continues_after_its_last_event(
    server: LabServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 0.0)
    with client_of(server) as client:
        first, *_, last = client.events(server.run.run_id)
        status = client.status(server.run.run_id).model_dump_json().encode()
    stream = {"Content-Type": "text/event-stream"}
    cut = stream | {"Content-Length": "100000"}
    one = f"id: 1\nevent: x\ndata: {first.model_dump_json()}\n\n".encode()
    two = f"id: 2\nevent: x\ndata: {last.model_dump_json()}\n\n".encode()
    with prepared(Prepared(200, one, cut), Prepared(200, two, stream)) as fake, Client(fake.url, KEY) as client:
        assert list(client.events(UNKNOWN)) == [first, last]
        assert [sent.headers.get("Last-Event-ID") for sent in fake.sent] == [None, "1"]
    lines = [f'{{"timestamp": "2026-01-01T00:00:0{i}Z", "level": "info", "message": "m{i}"}}' for i in range(3)]
    sent = [f"data: {line}\n\n".encode() for line in [*lines, "not JSON"]]
    answers = [Prepared(body=status), Prepared(200, b"".join(sent[:2]), cut)]
    answers += [Prepared(body=status), Prepared(200, b"".join(sent), stream)]
    with prepared(*answers) as fake, Client(fake.url, KEY) as client:
        assert [line[-2:] for line in client.logs(UNKNOWN, tail=5, follow=True)] == ["m0", "m1", "m2", "ON"]
        assert [one.path for one in fake.sent[1::2]] == [
            f"/runs/{UNKNOWN}/logs/stream?tail=5&stored=true",
            f"/runs/{UNKNOWN}/logs/stream?tail=10000&stored=true",
        ]
    broken = Prepared(200, b"", stream | {"Content-Length": "9"})
    ended = Prepared(body=status)
    with prepared(ended, broken, ended, refusal_of(ErrorCode.NOT_FOUND, 404)) as fake, Client(fake.url, KEY) as client:
        with refused(ErrorCode.NOT_FOUND, "Later."):
            list(client.logs(UNKNOWN, tail=0, follow=True))
        assert fake.sent[-1].path.endswith("?tail=0&stored=true")
