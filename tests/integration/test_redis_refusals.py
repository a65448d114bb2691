"""Refusals of Redis: each in its own words at start and in the doctor's report, and in one log line a minute."""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import HttpUrl

from tests.support import settings_in
from tests.support.faulty_proxy import FaultyProxy, HalfOpenProxy
from tests.support.redis_servers import answering, served, told_server
from tests.support.waiting import captured_logs, until
from tests.support.worker_runs import log_of_worker, with_redis, worker_in
from trainer.client.http_api import HttpApi
from trainer.config.settings import ClientSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services, answering_server
from trainer.services.health import Finding, check_data
from trainer.store.store import Store, connect


async def refusal_at(url: str, folder: Path) -> str:
    """Return the sentence of a start, which is that of the doctor too; "" if the server can be used."""
    settings = changed(settings_in(folder, embedded_workers=0), **with_redis(url))
    found = (await check_data(settings))["redis"]
    services = Services(settings)
    try:
        await services.start()
    except AppError as error:
        assert error.code in (ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.CONFIG_INVALID)
        assert found == Finding("failure", error.message)
        return error.message
    await services.stop()
    assert found.state != "failure"
    return ""


WRITES = "Redis takes no writes"
REFUSALS = {
    "a password is missing": ("--requirepass word", "", "Redis asks for a password."),
    "the password is wrong": ("--requirepass word", ":wrong@", "Redis refuses the user name or the password"),
    "the user is unknown": ("", "nobody:word@", "Redis refuses the user name or the password"),
    "no password is set": ("", ":word@", "Redis has no password, but `REDIS__URL` gives one."),
    "no such database": ("--databases 3", "/3", "Redis has no database of the number in `REDIS__URL`."),
    "a replica": ("--replicaof 127.0.0.1 1", "", "is a replica that takes no writes"),
    "a replica alone": (
        "--replicaof 127.0.0.1 1 --replica-serve-stale-data no",
        "",
        "is a replica that has lost its primary",
    ),
    "no memory": ("--maxmemory 1", "", f"{WRITES}: its memory is full."),
    "no replicas": ("--min-replicas-to-write 1", "", f"{WRITES}: too few replicas"),
    "a cluster": ("--cluster-enabled yes", "", "Redis Cluster is not supported."),
    "a database of a cluster": ("--cluster-enabled yes", "/1", "Redis "),
    "no right to a command": (
        "--user default on nopass ~* &* +@all -set",
        "",
        "Redis does not let the user of `REDIS__URL` run `set`.",
    ),
    "no right to a command of a script": (
        "--user default on nopass ~* &* +@all -zrangebyscore",
        "",
        "Redis does not let the user of `REDIS__URL` run `zrangebyscore`.",
    ),
    "no right to a key": (
        "--user default on nopass ~other:* &* +@all",
        "",
        "a command on one of the program's keys",
    ),
    "no right to report": ("--user default on nopass ~* &* +@all -info -config", "", ""),
    "another database": ("--databases 3", "/2", ""),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_refusal__is_reported_at_start_and_by_the_doctor(tmp_path: Path, case: str) -> None:
    options, change, sentence = REFUSALS[case]
    async with served(tmp_path, *options.split()) as server:
        user, database = (change, "/0") if change.endswith("@") else ("", change or "/0")
        said = await refusal_at(f"redis://{user}127.0.0.1:{server.port}{database}", tmp_path)
    assert sentence in said and bool(sentence) == bool(said)
    assert "word" not in said.replace("password", "")


async def test_server_that_cannot_save__is_reported_at_start(tmp_path: Path) -> None:
    (tmp_path / "server" / "dump.rdb").mkdir(parents=True)  # a snapshot cannot replace it, not even as root
    async with served(tmp_path, "--save", "3600 1") as server:
        store = await connect(server.url)
        await told_server(store, "BGSAVE")
        while b"rdb_last_bgsave_status:err" not in await information(server.port):
            await asyncio.sleep(0.05)
        await store.close()
        assert f"{WRITES}, because it cannot save to its disk (MISCONF)." in await refusal_at(server.url, tmp_path)


async def information(port: int) -> bytes:
    """Return what a server reports of itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"INFO\r\nQUIT\r\n")
    answer = await reader.read()
    writer.close()
    return answer


ANSWERS = {
    "-LOADING Redis is loading the dataset in memory": "Redis is still loading its data.",
    "-ERR max number of clients reached": "Redis accepts no further connection.",
    "-MOVED 3999 127.0.0.1:6381": "Redis Cluster is not supported.",
    "-CLUSTERDOWN The cluster is down": "Redis Cluster is not supported.",
    "-ERR unknown command 'PING', with args beginning with: ": "lacks a command",
    "-SOMETHING else": "Redis refuses a command (SOMETHING).",
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_error_reply__has_its_own_message(tmp_path: Path, answer: str) -> None:
    async with answering(f"{answer}\r\n".encode()) as address:
        assert ANSWERS[answer] in await refusal_at(f"redis://{address}", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        (["CONFIG SET maxmemory 1"], "its memory is full"),
        (["REPLICAOF 127.0.0.1 1"], "is a replica that takes no writes"),
        (["CONFIG SET requirepass word", "CLIENT KILL TYPE normal SKIPME yes"], "Redis asks for a password."),
    ],
)
async def test_refusal_that_lasts__is_one_line_a_minute(tmp_path: Path, commands: Sequence[str], reason: str) -> None:
    async with served(tmp_path) as server, worker_in(tmp_path, REDIS__URL=server.url):
        await until(lambda: "worker_ready" in log_of_worker(tmp_path))
        store = await connect(server.url)
        since = time.monotonic()
        for command in commands:
            await told_server(store, *command.split())
        await until(lambda: reason in log_of_worker(tmp_path))
        refused = await refused_commands(store)
        while await refused_commands(store) < refused + 10:
            await asyncio.sleep(0.1)
        lines = log_of_worker(tmp_path).count(reason)
        assert 1 <= lines <= 1 + (time.monotonic() - since) // 60
        await store.close()
    assert "word" not in log_of_worker(tmp_path).replace("password", "").replace("PASSWORD", "")


async def refused_commands(store: Store) -> int:
    """Return how many commands a server has refused."""
    found = re.search(r"'total_error_replies': (\d+)", str(await told_server(store, "INFO", "stats")))
    return int(found[1]) if found else 0


class Authority:
    """An authority of the test's own, with the files of its certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        self.file = folder / "authority.pem"
        own = self._signed("test authority", self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        self.file.write_bytes(own.public_bytes(Encoding.PEM))

    def issue(self, name: str, host: str) -> Path:
        """Return a file with a certificate for a host and with its key."""
        key, alternative = ec.generate_private_key(ec.SECP256R1()), x509.DNSName(host)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host)) if host[0].isdigit() else alternative])
        certificate = self._signed(host, key.public_key(), names)
        path = self._folder / f"{name}.pem"
        path.write_bytes(
            certificate.public_bytes(Encoding.PEM)
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return path

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, SHA256())
        )


@asynccontextmanager
async def encrypted(folder: Path, host: str, *, asks: bool = False) -> AsyncIterator[tuple[str, Authority]]:
    """A Redis with a password behind TLS, whose certificate is for a host; yields its address without parameters."""
    authority = Authority(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.issue("server", host))
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    async with served(folder, "--requirepass", "p#w@%/") as server:
        proxy = FaultyProxy(server.port, context)
        await proxy.start()
        yield f"rediss://:p%23w%40%25%2F@localhost:{proxy.port}/", authority
        await proxy.stop()


@contextmanager
def half_open(folder: Path, server_port: int) -> Iterator[tuple[HalfOpenProxy, Path]]:
    """A way by TLS to a server that confirms no end of a connection, and the file of its authority."""
    authority = Authority(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.issue("server", "localhost"))
    with HalfOpenProxy(server_port, context) as proxy:
        yield proxy, authority.file


TRUSTED = "?ssl_ca_certs={authority}"
CERTIFICATES = {
    "its host": ("localhost", TRUSTED, ""),
    "another host": ("redis.example.org", TRUSTED, "certificate is not valid for 'localhost'"),
    "another host, unchecked": ("redis.example.org", f"{TRUSTED}&ssl_check_hostname=false", ""),
    "an address in place of the host": ("127.0.0.1", TRUSTED, "certificate is not valid for 'localhost'"),
    "an unknown authority": ("localhost", "", "The certificate of the server at `REDIS__URL` is refused"),
    "nothing checked": ("redis.example.org", "?ssl_cert_reqs=none", ""),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_certificate__must_be_of_the_host_and_a_trusted_authority(tmp_path: Path, case: str) -> None:
    host, parameters, sentence = CERTIFICATES[case]
    async with encrypted(tmp_path, host) as (url, authority):
        said = await refusal_at(url + parameters.format(authority=authority.file), tmp_path)
    assert sentence in said and bool(sentence) == bool(said), said


async def test_certificate_that_the_server_asks_for__is_given(tmp_path: Path) -> None:
    async with encrypted(tmp_path, "localhost", asks=True) as (url, authority):
        trusted = url + TRUSTED.format(authority=authority.file)
        assert "`REDIS__URL`" in await refusal_at(trusted, tmp_path)
        own = authority.issue("client", "client")
        assert await refusal_at(f"{trusted}&ssl_certfile={own}", tmp_path) == ""
        assert await refusal_at(f"{trusted}&ssl_certfile={own}&ssl_keyfile={own}", tmp_path) == ""


async def test_end_of_a_connection_that_the_server_does_not_confirm__is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it for the HTTP client of another server."""
    async with served(tmp_path) as server:
        with half_open(tmp_path, server.port) as (proxy, authority):
            url = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={authority}"
            assert await refusal_at(url, tmp_path) == ""
            queue = await JobQueue.connect(changed(settings_in(tmp_path), **with_redis(url)), url)
            with captured_logs() as logs:
                await queue.close()
            assert proxy.ends >= 3
    assert [(line["event"], line["log_level"]) for line in logs] == [("redis_end_unconfirmed", "debug")]
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as address:
        with half_open(tmp_path, int(address.rpartition(":")[2])) as (proxy, authority):
            monkeypatch.setenv("SSL_CERT_FILE", str(authority))
            api = HttpApi(ClientSettings(url=HttpUrl(f"https://localhost:{proxy.port}")))
            await api.send("GET", "/", {})
            await api.close()
            await until(lambda: proxy.ends == 1)


@pytest.mark.slow
async def test_encryption__that_the_server_lacks_is_reported(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        said = await refusal_at(server.url.replace("redis:", "rediss:"), tmp_path)
    assert "Use redis:// for a server without TLS" in said or "No Redis answers" in said, said


@pytest.mark.parametrize("form", ["redis://{}", "redis://{}/", "valkey://{}/0", "REDIS://{}/00", " redis://{}?db=0\n"])
async def test_address__has_each_form_that_redis_py_reads(tmp_path: Path, form: str) -> None:
    async with served(tmp_path, "--requirepass", "p#w@%/") as server:
        url = form.format(f":p%23w%40%25%2F@127.0.0.1:{server.port}")
        assert await refusal_at(url, tmp_path) == ""
        assert await answering_server(changed(settings_in(tmp_path), **with_redis(url))) == url
