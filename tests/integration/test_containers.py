"""Image recipes, compose files and manifests are valid, give each process what it needs, and hold no secrets."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import pytest
from aiohttp import ClientSession
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json
from ruamel.yaml import YAML

from local_discord import LocalDiscord, Upload
from local_discord.client import OptionValue
from local_discord.state import Guild, User
from tests.support import ROOT, add_corpus, environment_in, settings_in, some_text, tiny_request
from tests.support.bot import FORM, buttons, discord_alone, environment_on, read
from tests.support.extras import link_libraries
from tests.support.http import ADMIN, ALL_KEYS
from tests.support.hub_batteries import HUB_LIBRARIES
from tests.support.inference import RUN, finished_run
from tests.support.linters import lint
from tests.support.markers import slow_except
from tests.support.readings import times_table
from tests.support.redis_servers import served
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import with_redis
from trainer.artifacts.batteries import BatteryStore
from trainer.config.validation import block, merged, value_at
from trainer.contracts.base import changed
from trainer.contracts.exports import ExportFormat, ExportStatus
from trainer.contracts.installation import DISTRIBUTION
from trainer.contracts.jobs import WorkerInfo
from trainer.contracts.operations import CHAT_COMMANDS, JOB_ROWS, OPERATIONS
from trainer.contracts.runs import Accepted, RunStatus
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.verification import VerificationStatus
from trainer.lab.permissions import typed_command
from trainer.store.store import connect
from trainer.system.hardware import process_name
from trainer.worker.health_check import trouble
from trainer.worker.supervisor import CHECKPOINT_SECONDS

KUBERNETES = ROOT / "deploy" / "kubernetes"
SECRETS = {"DISCORD__TOKEN", "DISCORD_TOKEN", "SECURITY__API_KEY", "SECURITY__API_KEYS"}
JSON = {"Content-Type": "application/json"}
SERVICES = {"prod": ["redis", "bot", "worker"], "dev": ["redis", "bot-dev", "worker-dev"]}
Table = dict[str, object]
_table = TypeAdapter(Table)
Record = TypeVar("Record", bound=BaseModel)
FORMATS: tuple[ExportFormat, ...] = ("hf", "torchscript", "archive", "csv")
_OVERRIDES = pytest.mark.parametrize(
    "overrides", slow_except([(), ("docker-compose.gpu.yml",)], ()), ids=["base", "gpu"]
)
_PROFILES = pytest.mark.parametrize("profile", ["dev", "prod"])


def loaded(path: Path) -> list[Table]:
    """The documents of a YAML file."""
    documents: object = YAML(typ="safe").load_all(path)
    return TypeAdapter(list[Table]).validate_python(documents)


def compose(profile: str, overrides: tuple[str, ...]) -> Table:
    [project] = loaded(ROOT / "docker-compose.yml")
    for name in overrides:  # whose lists are in no other file
        project = merged(project, loaded(ROOT / name)[0])
    services = block(project, "services")
    of_profile: Table = {
        name: service for name in services if profile in str((service := block(services, name))["profiles"])
    }
    return project | {"services": of_profile}


def test_dockerfile__passes_hadolint() -> None:
    assert lint("hadolint", "Dockerfile") == ""


@_OVERRIDES
@_PROFILES
def test_compose__follows_the_schema_in_every_profile(profile: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    project = compose(profile, overrides)
    file = tmp_path / "docker-compose.yml"
    YAML(typ="safe").dump(project, file)
    assert list(block(project, "services")) == SERVICES[profile]
    assert "ok" in lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


@_OVERRIDES
@_PROFILES
def test_compose__is_accepted_by_docker(profile: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    client = ["docker", "compose"]
    if shutil.which("docker") is None or subprocess.run([*client, "version"], capture_output=True).returncode:
        client = ["docker-compose"]
    if shutil.which(client[0]) is None:
        pytest.skip("Docker Compose is not installed")
    names = ("docker-compose.yml", *overrides)
    for name in names:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".env").touch()
    words = [*client, *(word for name in names for word in ("-f", name)), "--profile", profile, "config", "--services"]
    environment = {**os.environ, "REDIS_PASSWORD": "own"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(SERVICES[profile])


def test_compose__only_the_worker_has_torch_and_reserves_a_gpu() -> None:
    on_cpu, on_gpu = (block(compose("prod", names), "services") for names in ((), ("docker-compose.gpu.yml",)))
    assert value_at(on_cpu, "bot.build.target") == "bot" and value_at(on_cpu, "bot.build.args") is None
    assert value_at(on_cpu, "worker.build.target") == "worker"
    for services, backend in ((on_cpu, "cpu"), (on_gpu, "cu130")):
        given = {"TORCH_BACKEND": f"${{TORCH_BACKEND:-{backend}}}", "EXTRAS": "${WORKER_EXTRAS-corpora}"}
        assert value_at(services, "worker.build.args") == given
    assert [name for name in on_cpu if value_at(on_cpu, f"{name}.deploy") is not None] == []
    assert [name for name in on_gpu if "gpu" in str(value_at(on_gpu, f"{name}.deploy"))] == ["worker"]


def stages() -> dict[str, list[str]]:
    """The lines of each stage of the Dockerfile, with those of the stage that it is made from."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            found[name] = list(found.get(base, []))
        elif name:
            found[name].append(line)
    return found


def extras_of(stage: str) -> list[str]:
    [command] = [line for line in stages()[stage] if "--requirement pyproject.toml" in line]
    found: list[str] = re.findall(r"--extra (\w+)", command)
    return found


@pytest.mark.parametrize("name", ["bot", "worker"])
def test_dockerfile__images_have_no_compiler_no_root_and_a_health_check(name: str) -> None:
    lines = stages()[name]
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    assert [line for line in lines if line.startswith("RUN ") and "install" in line] == []
    assert len([line for line in lines if line.startswith("HEALTHCHECK ")]) == 1
    assert f"COPY --from=build-{name} /opt/venv /opt/venv" in lines


def deployed() -> list[tuple[str, Table]]:
    """The manifests of Kubernetes, with the names of their files."""
    return [(path.stem, one) for path in sorted((KUBERNETES / "base").glob("*.yaml")) for one in loaded(path)]


def pods() -> dict[str, tuple[Table, Table]]:
    """Each pod with its one container."""
    found: dict[str, tuple[Table, Table]] = {}
    for name, document in deployed():
        if document["kind"] in ("Deployment", "StatefulSet"):
            pod = _table.validate_python(value_at(document, "spec.template.spec"))
            [container] = TypeAdapter(list[Table]).validate_python(pod["containers"])
            found[name] = pod, container
    return found


def test_kubernetes__manifests_follow_their_schemas() -> None:
    files = [path for path in sorted((KUBERNETES / "base").glob("*.yaml")) if path.name != "kustomization.yaml"]
    printed = lint("kubernetes-validate", "--strict", *files)
    assert printed.count("passed for resource") == len([one for path in files for one in loaded(path)]) == 7
    [kustomization] = loaded(KUBERNETES / "base" / "kustomization.yaml")
    listed = TypeAdapter(list[str]).validate_python(kustomization["resources"])
    assert sorted(listed) == [path.name for path in files]


def test_kubernetes__pods_have_no_more_rights_than_they_need() -> None:
    assert {name: value_at(pod, "securityContext.runAsUser") for name, (pod, _) in pods().items()} == {
        **{"bot": 1000, "worker": 1000, "valkey": 999}
    }
    for pod, container in pods().values():
        assert value_at(pod, "securityContext.runAsNonRoot") is True and pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            **{"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        }
        assert "readinessProbe" in container


def test_kubernetes__bot_and_worker_have_separate_secrets() -> None:
    for name in ("bot", "worker"):
        assert pods()[name][1]["envFrom"] == [{"secretRef": {"name": name}}]
    text = "".join(path.read_text(encoding="utf-8") for path in KUBERNETES.rglob("*.yaml"))
    assert [name for name in (*SECRETS, "kind: Secret") if name in text] == []


def test_stopping__leaves_time_for_a_checkpoint() -> None:
    [project] = loaded(ROOT / "docker-compose.yml")
    in_compose = str(value_at(project, "services.worker.stop_grace_period")).removesuffix("s")
    in_kubernetes = str(pods()["worker"][0]["terminationGracePeriodSeconds"])
    assert min(float(in_compose), float(in_kubernetes)) > 2 * CHECKPOINT_SECONDS


def triggers() -> list[dict[str, str]]:
    """The figures that tell the autoscaler how many workers there are to be."""
    [scaled] = loaded(KUBERNETES / "autoscaler.yaml")
    assert (value_at(scaled, "spec.scaleTargetRef.name"), value_at(scaled, "spec.minReplicaCount")) == ("worker", 1)
    found = TypeAdapter(list[Table]).validate_python(value_at(scaled, "spec.triggers"))
    return [TypeAdapter(dict[str, str]).validate_python(trigger["metadata"]) for trigger in found]


def test_kubernetes__the_autoscaler_changes_the_workers() -> None:
    names = [str(value_at(one, "metadata.name")) for _, one in deployed() if one["kind"] == "Deployment"]
    assert sorted(names) == ["bot", "worker"]
    assert [trigger["threshold"] for trigger in triggers()] == ["1"]


_READ_ONLY = """
mount --make-rprivate /
[ ! -d /usr/share/fonts ] || mount -t tmpfs none /usr/share/fonts
mount --bind "$0" "$0"
cut -d' ' -f5 /proc/self/mountinfo | while read -r point; do
  case "$point" in "$0"|/proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro "$point" ;; esac
done
if [ -d "$0/data/batteries" ]; then
  mount --bind "$0/data" "$0/data"
  mount -o remount,bind,ro "$0/data"
  for name in batteries corpus_cache; do
    mount --bind "$0/data/$name" "$0/data/$name"
    mount -o remount,bind,rw "$0/data/$name"
  done
fi
exec "$@"
"""


def in_container(volumes: Path, *command: str | Path) -> list[str]:
    """A command for which everything but the folder `volumes` is read-only, and which has no fonts of the system.

    Where the data root has the folder `batteries`, it is only read but for its mounts, as in the images.
    """
    return ["unshare", "--mount", "sh", "-ec", _READ_ONLY, str(volumes), *map(str, command)]


@pytest.fixture(name="volumes")
def volumes_fixture(tmp_path: Path) -> Iterator[Path]:
    with TemporaryDirectory() as short:  # the addresses of sockets have 108 bytes at most
        folder = Path(short)
        for name in ("data", "artifacts", "scratch"):
            (folder / name).mkdir()
        add_corpus(folder, some_text())
        probe = in_container(folder, "sh", "-c", f"touch {folder}/scratch/x; ! touch {tmp_path}/x")
        tried = subprocess.run(probe, capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"mounts cannot be made read-only here: {tried.stderr.strip()}")
        yield folder


@pytest.fixture(name="bot_python")
def bot_python_fixture(tmp_path: Path) -> Path:
    """The Python of an environment with the packages of the bot's image, of which torch is none."""
    folder = tmp_path / "bot"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    link_libraries(packages, *extras_of("build-bot"))
    [record] = {file.parts[0] for file in distribution(DISTRIBUTION).files or [] if ".dist-info" in file.parts[0]}
    (packages / record).symlink_to(str(distribution(DISTRIBUTION).locate_file(record)))  # has the version
    python = folder / "bin" / "python"
    find = "import importlib.util as u; print([u.find_spec(name) for name in ('torch', 'transformers', 'safetensors')])"
    printed = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout
    assert printed == "[None, None, None]\n"
    return python


class Shape(NamedTuple):
    """A bot in the image's shape, and a worker on a machine of its own, whose libraries fetch batteries."""

    discord: LocalDiscord
    owner: User
    guild: Guild
    url: str
    artifacts: Path
    environment: dict[str, str]

    async def ask(self, command: str, options: Mapping[str, OptionValue]) -> str:
        """Return the answer to a command of the owner: where a result replaces it that result, and what it starts."""
        typed = typed_command(command.partition(" detail:")[0]).removeprefix("/")
        guild = self.guild if typed.startswith("mt-admin") else None
        call = await self.discord.slash(self.owner, typed, options, guild=guild)
        await until(lambda: call.callback_type == FORM or call.original is not None or bool(call.followups))
        if call.callback_type == FORM:
            return "a form"
        answer = await read(call)
        while "replaces this message" in answer.text:
            await asyncio.sleep(0.1)
            answer = await read(call)
        if command == "mt-study start":
            message = await call.reply()
            answer = await read(await self.discord.click(self.owner, message, buttons(message)["Start"]))
        return answer.text

    def newest(self, kind: str) -> str:
        """Return the id of the job of a kind that was started last, a word that is no id where there is none."""
        requests = {
            file.stat().st_mtime_ns: file.parent.name for file in (self.artifacts / kind).glob("*/request.json")
        }
        return requests.get(max(requests, default=0), "none")

    async def ended(self, kind: str) -> None:
        """Wait until the newest job of a kind has a result."""
        folder = self.artifacts / kind / self.newest(kind)
        await until(lambda: (folder / "result.json").exists() or (folder / "error.json").exists())
        assert not (folder / "error.json").exists(), (folder / "error.json").read_text(encoding="utf-8")


@asynccontextmanager
async def shape_of_image(tmp_path: Path, volumes: Path, bot_python: Path) -> AsyncIterator[Shape]:
    for name in ("batteries", "corpus_cache"):
        (volumes / "data" / name).mkdir()
    shutil.copytree(volumes / "data", volumes / "elsewhere")
    finished_run(volumes)
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for name, code in HUB_LIBRARIES.items():
        (libraries / name).write_text(code, encoding="utf-8")
    async with served(tmp_path) as server, discord_alone() as discord, AsyncExitStack() as undo:
        owner = discord.add_user("ana")
        guild = discord.add_guild("lab", [owner])
        every = environment_in(volumes, **{"TMPDIR": str(volumes / "scratch"), "REDIS__URL": server.url})
        every = {name: value for name, value in every.items() if not name.startswith("COVERAGE")}
        of_bot = environment_on(discord, DISCORD__OWNER_ID=str(owner.id), DISCORD__CDN_BASE_URL=discord.cdn_base_url)
        of_bot |= {"HTTP__PORT": "0", "SECURITY__API_KEYS": ALL_KEYS, "APP__ENV": "prod", "PYTHONPATH": str(ROOT)}
        of_bot |= {"HOME": "/nonexistent"}
        of_worker = {"APP__DATA_ROOT": str(volumes / "elsewhere"), "PYTHONPATH": f"{libraries}:{ROOT}"}
        commands = {
            "up": (in_container(volumes, bot_python, "-m", "trainer", "up"), every | of_bot),
            "worker": ([sys.executable, "-m", "trainer", "worker"], every | of_worker),
        }
        for name, (command, environment) in commands.items():
            log = undo.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = await asyncio.create_subprocess_exec(*command, cwd="/", env=environment, stdout=log, stderr=log)
            undo.push_async_callback(stopped, process)
        log_file = tmp_path / "up.log"
        await until(lambda: "http_started" in log_file.read_text(encoding="utf-8"))
        await discord.connected()
        await discord.synced()
        port = re.search(r'"port": (\d+)', log_file.read_text(encoding="utf-8"))
        assert port is not None
        yield Shape(discord, owner, guild, f"http://127.0.0.1:{port[1]}", volumes / "artifacts", every | of_bot)


WRONG = re.compile(
    "Internal error|INTERNAL_ERROR|Service unavailable|Traceback|UNSUPPORTED_BACKEND|[Uu]nsupported backend"
    "|torch|librar|cannot be (written|used)",
)
"""What no answer of a bot in the image's shape says."""
_RUN: dict[str, OptionValue] = {"run": RUN}
_TIMES = Upload("times.csv", times_table().encode())
IN_CHAT: dict[str, dict[str, OptionValue]] = {
    "help": {},
    "settings": {},
    "queue": {},
    "mt-battery start": {**_RUN, "battery": "multiblimp:tur"},
    "mt-battery list": {},
    "train": {"corpus": "text", "minutes": 0.1, "name": "mine"},
    "runs": {},
    "status": _RUN,
    "annotate": _RUN,
    "logs": _RUN,
    "watch": {"run": "mine"},
    "unwatch": {"run": "mine"},
    "score": {**_RUN, "text": "the sun"},
    "score detail:per_char": {**_RUN, "text": "the sun मैं घर", "detail": "per_char"},
    "predict": {**_RUN, "text": "the"},
    "generate": {**_RUN, "prompt": "the", "max_new_tokens": 5},
    "chat": {**_RUN, "message": "the"},
    "compare": {"a": RUN, "b": "mine"},
    "eval": _RUN,
    "unlock": _RUN,
    "export": _RUN,
    "corpus add": {"file": Upload("more.txt", b"abc abd\n" * 40), "name": "more"},
    "corpus list": {},
    "corpus show": {"corpus": "text"},
    "tokenizer train": {"corpora": "text", "method": "char"},
    "tokenizer list": {},
    "tokenizer show": {"tokenizer": "newest tokenizers"},
    "mt-reading start": {**_RUN, "data": _TIMES, "options": "baseline: [length, position]"},
    "mt-reading list": {},
    "mt-reading show": {"reading": "newest readings"},
    "mt-reading segment": {**_RUN, "file": Upload("words.txt", b"the sun was shining\nhe did his best\n" * 5)},
    "mt-reading cancel": {"reading": "newest readings"},
    "mt-study start": {"corpus": "text", "variants": 2},
    "mt-study list": {},
    "mt-study show": {"study": "newest studies"},
    "mt-study cancel": {"study": "newest studies"},
    "mt-experiment start": {"recipe": "smoke"},
    "mt-experiment list": {},
    "mt-experiment show": {"experiment": "newest experiments"},
    "mt-experiment export": {"experiment": "newest experiments"},
    "mt-experiment cancel": {"experiment": "newest experiments"},
    "mt-battery show": {"battery": "newest batteries"},
    "mt-battery cancel": {"battery": "newest batteries"},
    "cancel": {"run": "mine"},
    "resume": {"run": "mine"},
    "mt-admin workers": {},
    "mt-admin jobs": {"kind": "exports"},
    "mt-admin access": {"member": "MEMBER", "level": "user"},
    "mt-admin build-corpora": {"source": "local", "languages": "kk"},
    "mt-admin lock-corpus": {"corpus": "more"},
    "mt-admin doctor": {},
    "mt-admin delete": {"run": "mine"},
    "corpus delete": {"corpus": "more"},
}
"""Options for each command of the bot, in the order in which they are typed; a kind stands for its newest job."""
STARTS = ("mt-battery start", "train", "tokenizer train", "mt-reading start", "mt-study start", "mt-experiment start")
"""Commands whose job is accepted."""
QUICK = ("mt-battery start", "train", "score detail:per_char", "mt-reading start", "mt-study start", "mt-admin doctor")


@pytest.mark.parametrize("commands", slow_except([tuple(IN_CHAT), QUICK], QUICK), ids=["all", "quick"])
async def test_bot_of_the_image__answers_every_command(
    commands: tuple[str, ...], tmp_path: Path, volumes: Path, bot_python: Path
) -> None:
    assert {*IN_CHAT} == {*CHAT_COMMANDS}, "each command of the bot has its options here"
    wrong: list[tuple[str, str]] = []
    async with shape_of_image(tmp_path, volumes, bot_python) as shape:
        member = shape.discord.add_user("bob")
        for command in commands:
            options = dict(IN_CHAT[command])
            for name, value in options.items():
                if value == "MEMBER":
                    options[name] = member
                elif isinstance(value, str) and value.startswith("newest "):
                    options[name] = shape.newest(value.removeprefix("newest "))
            async with asyncio.timeout(PATIENCE_SECONDS):
                said = await shape.ask(command, options)
            is_accepted = "⏳ Queued" in said or command not in STARTS
            if WRONG.search(said) or not is_accepted or (command == "mt-admin doctor" and "❌" in said):
                wrong.append((command, said))
            if command == "mt-battery start":
                await shape.ended("batteries")
        assert wrong == [], (tmp_path / "up.log").read_text(encoding="utf-8")[-3000:]
        if len(commands) > len(QUICK):
            assert [one async for one in wrong_over_http(shape)] == []
        words = in_container(volumes, bot_python, "-m", "trainer", "doctor", "--json")
        doctor = await asyncio.to_thread(run_doctor, words, shape.environment)
        assert (doctor.returncode, doctor.stderr) == (0, ""), doctor.stdout
    found = [info for job in BatteryStore(volumes / "artifacts").all() for info in job.record().batteries]
    assert ("multiblimp:tur", "jumelet/multiblimp@abc123") in {(info.name, info.source) for info in found}


def run_doctor(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)


async def wrong_over_http(shape: Shape) -> AsyncIterator[tuple[str, str]]:
    """Yield the operations of the HTTP API, which agents call too, whose answer is a fault of the bot."""
    named: list[str] = re.findall(r"{(\w+)}", " ".join(row.path for row in OPERATIONS))
    ids = dict.fromkeys(named, "none")
    ids |= {"run_id": RUN, "corpus": "text", "model": RUN, "kind": "models", "item_id": RUN}
    ids |= {f"{row.word}_id": shape.newest(kind) for kind, row in JOB_ROWS.items()}
    async with ClientSession(shape.url, headers={"X-Api-Key": ADMIN}) as session:
        for row in OPERATIONS:
            if not row.route or row.method == "DELETE" or row.name.startswith(("cancel_", "stream_")):
                continue
            path = row.path.format_map(ids)
            data = None if row.example is None else to_json(row.example).replace(b'"RUN"', to_json(RUN))
            headers = JSON if data else {}
            query = {**row.query_example, **({"runs": f"{RUN},{RUN}"} if row.name.startswith("compare") else {})}
            async with session.request(row.method, path, params=query, data=data, headers=headers) as answer:
                said = (await answer.read())[:2000].decode(errors="replace")
            if answer.status >= 500 or (answer.status >= 400 and WRONG.search(said)):
                yield row.name, said


@pytest.mark.slow
async def test_containers__do_all_jobs_with_a_read_only_root_and_a_bot_without_torch(
    tmp_path: Path, volumes: Path, bot_python: Path
) -> None:
    async with served(tmp_path) as server, AsyncExitStack() as undo:
        scratch = str(volumes / "scratch")
        environment = environment_in(
            volumes,
            **{"PYTHONPATH": str(ROOT), "HOME": scratch, "TMPDIR": scratch, "REDIS__URL": server.url},
            **{"ONEDNN_MAX_CPU_ISA": "AVX2"},  # whose CPU has no bf16, which oneDNN needs for LSTMs
            **{"HTTP__PORT": "0", "SECURITY__API_KEYS": ALL_KEYS, "QUEUE__EMBEDDED_WORKERS": "0", "APP__ENV": "prod"},
        )
        # their files of coverage would be on the read-only side
        environment = {name: value for name, value in environment.items() if not name.startswith("COVERAGE")}

        async def started(python: str | Path, *words: str) -> Process:
            log = undo.enter_context((tmp_path / f"{words[0]}.log").open("wb"))
            process = await asyncio.create_subprocess_exec(
                *in_container(volumes, python, "-m", "trainer", *words),
                cwd="/",
                env=environment,
                stdout=log,
                stderr=log,
            )
            undo.push_async_callback(stopped, process)
            return process

        bot = await started(bot_python, "up", "--no-discord")
        worker = await started(sys.executable, "worker")
        bot_log = tmp_path / "up.log"
        await until(lambda: "http_started" in bot_log.read_text(encoding="utf-8"))
        port = re.search(r'"port": (\d+)', bot_log.read_text(encoding="utf-8"))
        assert port is not None
        url = f"http://127.0.0.1:{port[1]}"
        async with ClientSession(url, headers={"X-Api-Key": ADMIN}) as session, asyncio.timeout(PATIENCE_SECONDS):
            while await status_of(session, "/readyz") != 200:
                await asyncio.sleep(0.05)
            async with session.post("/runs/train", data=to_json(tiny_request()), headers=JSON) as answer:
                accepted = Accepted.model_validate_json(await answer.read())
            while (status := await run_of(session, accepted.run_id)).status in ("queued", "running"):
                await asyncio.sleep(0.05)
            run = f"/runs/{accepted.run_id}"
            exports = [await posted(session, f"{run}/export", {"format": form}, ExportStatus) for form in FORMATS]
            checked = await posted(session, f"{run}/verify", None, VerificationStatus)
            in_bf16 = await posted(session, "/runs/train", tiny_request(precision="bf16"), RunStatus)
            async with session.get("/metrics") as answer:
                figures = await answer.text()
        [query] = [trigger["query"] for trigger in triggers()]
        assert (status.status, status.error) == ("completed", None)
        assert (volumes / "artifacts" / "models" / accepted.run_id / "model.safetensors").exists()
        assert [(one.format, one.status, one.error) for one in exports] == [
            (form, "completed", None) for form in FORMATS
        ]
        assert checked.verification is not None and checked.verification.ok, checked
        assert in_bf16.status == "failed" and in_bf16.error is not None
        assert in_bf16.error.message == (
            "`precision` must be 'fp32' or 'auto': this machine's CPU cannot train LSTM models in bf16."
            " GRU models work in bf16."
        )
        assert f"\n{query.removeprefix('max(').removesuffix(')')} " in figures  # the autoscaler's
        assert [await stopped(process) for process in (worker, bot)] == [0, 0]


@pytest.mark.slow
def test_runs__of_a_folder_that_may_only_be_read_are_scored_and_nothing_is_trained(
    tmp_path: Path, volumes: Path
) -> None:
    finished_run(tmp_path)
    own = {
        "APP__DATA_ROOT": str(volumes / "data"),
        "HOME": str(volumes / "scratch"),
        "TMPDIR": str(volumes / "scratch"),
    }
    environment = {**environment_in(tmp_path), **own, "COVERAGE_FILE": str(volumes / "scratch" / "coverage")}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = in_container(volumes, sys.executable, "-m", "trainer", *words)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    scored = typed("score", RUN, "the sun", "--json")
    assert scored.returncode == 0, scored.stderr
    assert ScoreResponse.model_validate_json(scored.stdout).n_scored == len("the sun")
    refused = typed("train", "text", "--model", "ngram")
    assert refused.returncode == 1
    assert "could not be written to disk (Read-only file system); nothing was queued." in refused.stderr
    assert [path.name for path in (tmp_path / "artifacts" / "models").iterdir()] == [RUN]


async def stopped(process: Process) -> int:
    """Terminate a process and return its exit code."""
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await process.wait()


async def posted(session: ClientSession, path: str, body: object, model: type[Record]) -> Record:
    """Send a request for a job, and return its status at the end."""
    data = None if body is None else to_json(body)
    async with session.post(f"{path}?wait=60", data=data, headers={} if body is None else JSON) as answer:
        assert answer.status == 200, await answer.text()
        return model.model_validate_json(await answer.read())


async def status_of(session: ClientSession, path: str) -> int:
    async with session.get(path) as answer:
        return answer.status


async def run_of(session: ClientSession, run_id: str) -> RunStatus:
    async with session.get(f"/runs/{run_id}") as answer:
        return RunStatus.model_validate_json(await answer.read())


@pytest.mark.slow
async def test_health_check__answers_for_the_worker_of_this_host_only(tmp_path: Path) -> None:
    def worker(name: str) -> WorkerInfo:
        return WorkerInfo(name=name, version="1", slots=1, seen_at=time.time())

    async with served(tmp_path, "--requirepass", "word") as server:
        url = server.url.replace("redis://", "redis://:word@")
        here = changed(settings_in(tmp_path), **with_redis(url))
        store = await connect(url)
        await store.renew_worker(seconds=60, worker=worker("elsewhere:7"))
        assert "No worker of this host" in str(await trouble(here))
        await store.renew_worker(seconds=60, worker=worker(process_name()))
        assert await trouble(here) is None
        await store.close()
        for address, code, said in (
            (url, 0, ""),
            (server.url, 1, "Redis asks for a password. Put it into `REDIS__URL`: redis://:PASSWORD@HOST:6379/0.\n"),
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "trainer.worker.health_check"),
                cwd=ROOT,
                env=environment_in(tmp_path, REDIS__URL=address, QUEUE__LEASE_SECONDS="60"),
                stderr=PIPE,
            )
            _, errors = await process.communicate()
            assert (process.returncode, errors.decode()) == (code, said)
    for settings in (here, settings_in(tmp_path / "new")):
        assert await trouble(settings) == "Redis does not respond."
