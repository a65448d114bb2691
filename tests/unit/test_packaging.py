"""A fresh machine and a container get what pyproject.toml says: constraints, compose file, units, make, CI."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dotenv import dotenv_values
from packaging.version import Version
from pydantic import BaseModel, Field
from ruamel.yaml import YAML

from scripts.setup import TORCH
from tests.support import ROOT
from trainer.config.settings import PLAIN_NAMES, environment_names

_MISSING = (
    "set REDIS_PASSWORD and SECURITY__API_KEY in .env (make start writes them), and for Discord DISCORD__TOKEN and"
    " DISCORD__OWNER_ID"
)
REDIS_PASSWORD = f"${{REDIS_PASSWORD:?{_MISSING}}}"
PROFILES = [("prod", ""), ("dev", "-dev")]
"""Profiles of docker-compose.yml, and the ends of the names of their services."""


class Project(BaseModel):
    classifiers: list[str]
    dependencies: list[str]
    extras: dict[str, list[str]] = Field(alias="optional-dependencies")


class PyProject(BaseModel):
    project: Project


class Service(BaseModel):
    profiles: list[str]
    command: list[str]
    volumes: list[str]
    user: str
    read_only: bool
    cap_drop: list[str]
    security_opt: list[str]
    tmpfs: list[str]
    stop_grace_period: str
    restart: str
    networks: list[str]
    environment: dict[str, str] = {}
    env_file: str | None = None
    image: str | None = None
    ports: list[str] = []


class Compose(BaseModel):
    services: dict[str, Service]
    volumes: dict[str, None]
    networks: dict[str, dict[str, bool] | None]


@pytest.fixture(name="compose", scope="module")
def compose_fixture() -> Compose:
    content: object = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return Compose.model_validate(content)


def lines_of(*path: str) -> list[str]:
    return ROOT.joinpath(*path).read_text(encoding="utf-8").splitlines()


def package(requirement: str) -> str:
    """The package's name as pip compares names: `ruamel.yaml>=0.18` is `ruamel-yaml`."""
    name: list[str] = re.findall(r"^[\w.-]+", requirement.lower())
    return "".join(name).replace(".", "-").replace("_", "-")


def project() -> Project:
    content: object = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return PyProject.model_validate(content).project


def test_constraints__pin_every_direct_dependency() -> None:
    extras = project().extras.values()
    direct = [*project().dependencies, *(one for extra in extras for one in extra)]
    lines = lines_of("constraints.txt")
    assert {package(one) for one in direct} - {"model-trainer"} <= {package(line) for line in lines if "==" in line}
    assert [] == [line for line in lines if "://" in line or line.startswith("-") or " @ " in line]
    families = {package(line).split("-")[0] for line in lines}
    assert not families & {"nvidia", "cuda", "triton", "pytorch"}
    assert TORCH in lines, "no build for one device, such as +cpu"


def test_platform_page__names_settings_and_targets_that_exist() -> None:
    page = (ROOT / "docs" / "platform.md").read_text(encoding="utf-8")
    names: list[str] = re.findall(r"`([A-Z]+_[A-Z_]+)`", page)
    targets: list[str] = re.findall(r"^FROM app AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {"REDIS_URL", "SECURITY__API_KEYS", "APP__ARTIFACTS_ROOT"} <= set(names)
    assert set(names) <= {*environment_names(), *PLAIN_NAMES, "HF_HOME"}
    assert all(f"| `{target}` | `mt " in page for target in targets) and len(targets) == 2


def test_services__have_both_profiles_and_no_more_rights_than_they_need(compose: Compose) -> None:
    profiles = {name: service.profiles for name, service in compose.services.items()}
    of_apps = {f"{name}{suffix}": [profile] for profile, suffix in PROFILES for name in ("bot", "worker")}
    assert profiles == {"redis": ["dev", "prod"], **of_apps}
    for service in compose.services.values():
        assert service.read_only
        assert service.tmpfs == ["/tmp"]  # noqa: S108  (a mount point, not a file)
        assert (service.cap_drop, service.security_opt) == (["ALL"], ["no-new-privileges:true"])
        assert (service.stop_grace_period, service.restart) == ("30s", "unless-stopped")
        assert service.user.split(":")[0] not in {"0", "root"}
    sources = {mount.split(":")[0] for service in compose.services.values() for mount in service.volumes}
    assert set(compose.volumes) == {source for source in sources if not source.startswith(".")}


@pytest.mark.parametrize(("profile", "suffix"), PROFILES)
def test_bot__leaves_the_work_to_the_worker(profile: str, suffix: str, compose: Compose) -> None:
    bot, worker = compose.services[f"bot{suffix}"], compose.services[f"worker{suffix}"]
    shared = {
        "APP__ENV": profile,
        "REDIS_URL": f"redis://:{REDIS_PASSWORD}@redis:6379/0",
        "APP__DATA_ROOT": "/data",
        "APP__ARTIFACTS_ROOT": "/data/artifacts",
        "HF_HOME": "/hf-cache",
    }
    served = {"HTTP__HOST": "0.0.0.0", "HTTP__PORT": "8000"}  # noqa: S104  (inside of a container)
    secrets = ("DISCORD__TOKEN", "DISCORD_TOKEN", "SECURITY__API_KEY", "SECURITY__API_KEYS")
    hidden = (*secrets, "WEBHOOKS__URL", "WEBHOOKS__SECRET")
    assert (bot.command[:2], worker.command) == (["sh", "-c"], ["mt", "worker"])
    assert bot.environment == {**shared, "QUEUE__EMBEDDED_WORKERS": "0", **served}
    assert worker.environment == {**shared, **dict.fromkeys(hidden, "")}
    assert bot.env_file == worker.env_file == ".env"
    of_host = ["./corpus:/data/corpus:ro", "./artifacts:/data/artifacts", "./batteries:/data/batteries"]
    mounts = [*of_host, "hf_cache:/hf-cache", "corpus_cache:/data/corpus_cache"]
    assert bot.volumes == worker.volumes == mounts
    assert bot.ports == ["${API_ADDRESS:-127.0.0.1}:${API_PORT:-8000}:8000"], "on this machine only"
    assert worker.ports == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("token", "words"), [({}, "--no-discord"), ({"DISCORD__TOKEN": "t"}, ""), ({"DISCORD_TOKEN": "t"}, "")]
)
def test_bot__serves_without_discord_where_there_is_no_token(
    token: dict[str, str], words: str, compose: Compose, tmp_path: Path
) -> None:
    (tmp_path / "mt").write_text('#!/bin/sh\necho "$@"\n', encoding="ascii")
    (tmp_path / "mt").chmod(0o755)
    command = [word.replace("$$", "$") for word in compose.services["bot"].command]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["up", *words.split()]


def test_redis__keeps_every_write_and_stays_inside(compose: Compose) -> None:
    redis = compose.services["redis"]
    options = " ".join(redis.command)
    assert redis.image == "${REDIS_IMAGE:-valkey/valkey:8-alpine}"
    assert "--appendonly yes --appendfsync always" in options
    assert "--maxmemory-policy noeviction" in options
    assert '--requirepass "$$REDISCLI_AUTH"' in options
    assert (redis.volumes, redis.environment) == (["redis_data:/data"], {"REDISCLI_AUTH": REDIS_PASSWORD})
    assert (redis.networks, redis.ports) == (["queue"], [])
    assert compose.networks["queue"] == {"internal": True}


@pytest.mark.parametrize(("name", "command"), [("bot", "mt up"), ("worker", "mt worker")])
def test_units__start_again_and_may_do_no_more_than_they_need(name: str, command: str) -> None:
    unit = lines_of("deploy", f"model-trainer-{name}.service")
    assert {"Restart=always", "KillMode=mixed", "User=model-trainer", "NoNewPrivileges=yes"} <= set(unit)
    assert {"ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "CapabilityBoundingSet="} <= set(unit)
    assert f"ExecStart=/opt/model-trainer/.venv/bin/{command}" in unit
    assert "TimeoutStopSec=60" in unit  # a child has 8 s for its checkpoint


def test_image__has_no_development_tools_no_root_and_no_secrets() -> None:
    dockerfile, ignored = lines_of("Dockerfile"), lines_of(".dockerignore")
    assert {line.split()[1] for line in dockerfile if line.startswith("FROM")} == {"python:3.11-slim", "build", "app"}
    assert "ARG TORCH_BACKEND=cpu" in dockerfile
    assert [] == [line for line in dockerfile if "dev" in line]
    assert {".*", "/tests"} <= set(ignored)  # .* is .env, .git and .venv
    assert [] == [line for line in ignored if line.startswith("!.env")]


def test_version__is_that_of_the_newest_release_or_a_later_one() -> None:
    released: list[str] = re.findall(r"^## \[(\d[^]]*)\]", "\n".join(lines_of("CHANGELOG.md")), re.MULTILINE)
    [version] = [line.split('"')[1] for line in lines_of("pyproject.toml") if line.startswith("version = ")]
    assert Version(version) >= Version(released[0] if released else "0.2.0")


def test_owner__is_the_same_in_every_link() -> None:
    link = re.compile(r"(?:github\.com/([\w-]+)|([\w-]+)\.github\.io)/model-trainer\b")
    patterns = [f"{folder}*.{kind}" for folder in ("", "docs/", ".github/**/") for kind in ("cff", "md", "toml", "yml")]
    texts = [path.read_text(encoding="utf-8") for pattern in patterns for path in ROOT.glob(pattern)]
    owners = {match[1] or match[2] for text in texts for match in link.finditer(text)}
    assert len(owners) == 1


def test_workflow__tries_each_python_of_the_classifiers() -> None:
    [line] = [line for line in lines_of(".github", "workflows", "ci.yml") if line.strip().startswith("python: [")]
    tried: list[str] = re.findall(r'"(3\.\d+)"', line)
    versions = [one.rpartition(" :: ")[2] for one in project().classifiers if "Python :: 3." in one]
    assert tried == versions and len(versions) > 1


def test_ci__runs_make_test_and_nothing_else() -> None:
    assert lines_of(".ci", "run") == ["#!/usr/bin/env bash", 'cd "$(dirname "$0")/.." && exec make test']


def make(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make outside of any other make, and without the settings of the shell that it reads."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "REDIS_", "PROFILE"))}
    command = [shutil.which("make") or "make", *map(str, words)]
    return subprocess.run(command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, check=False)


def make_plan(*words: str) -> list[str]:
    done = make(ROOT, "--dry-run", "--no-print-directory", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.process
@pytest.mark.parametrize(
    "target",
    "demo up test unit check lint bench browser constraints mutations scale-test slurm-test"
    " start stop restart clean image".split(),
)
def test_make__calls_the_set_up_script(target: str) -> None:
    assert make_plan(target) == [f"python3 scripts/setup.py {target}"]


@pytest.fixture(name="checkout")
def checkout_fixture(tmp_path: Path) -> Path:
    """A checkout on a machine where `docker` prints its words."""
    for name in ("Makefile", "pyproject.toml", "scripts/setup.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\necho "MT_USER=$MT_USER" docker "$@"\n', encoding="ascii")
    docker.chmod(0o755)
    return tmp_path


def make_in(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    return make(checkout, "--silent", *words, PATH=path, MT_USER="", **environment)


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("stop",), "--profile prod stop"),
        (("restart", "PROFILE=dev"), "--profile dev restart"),
        (("clean",), "--profile prod down --rmi local --volumes --remove-orphans"),
    ],
)
def test_make__drives_the_containers(words: tuple[str, ...], command: str, checkout: Path) -> None:
    done = make_in(checkout, *words)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, [f"MT_USER= docker compose {command}"]), done.stderr


@pytest.mark.process
def test_make_image__builds_both_and_checks_each_as_it_runs(checkout: Path) -> None:
    done = make_in(checkout, "image")
    commands = [line.partition(" docker ")[2] for line in done.stdout.splitlines() if line.startswith("MT_USER=")]
    assert [command.split()[0] for command in commands] == ["build", "run"] * 2, done.stderr
    assert [command for command in commands if command.startswith("build")] == [
        f"build --target {name} --tag model-trainer-{name}:checked ." for name in ("bot", "worker")
    ]
    for name, command in zip(("bot", "worker"), commands[1::2], strict=True):
        assert command.startswith("run --rm --read-only") and command.endswith(
            f"model-trainer-{name}:checked mt doctor"
        )
    (checkout / "bin" / "docker").write_text("#!/bin/sh\nexit 3\n", encoding="ascii")
    assert "Error 3" in make_in(checkout, "image").stderr


@pytest.mark.process
def test_make_image__is_skipped_without_docker(checkout: Path) -> None:
    (checkout / "bin" / "python3").symlink_to(sys.executable)
    (checkout / "bin" / "docker").unlink()
    alone = make(checkout, "--silent", "image", PATH=str(checkout / "bin"))
    assert (alone.returncode, alone.stdout) == (0, "skipped: no Docker here\n")


@pytest.mark.process
def test_make__without_compose_names_the_requirement(checkout: Path) -> None:
    (checkout / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    stopped = make_in(checkout, "stop")
    assert stopped.returncode != 0 and "Traceback" not in stopped.stderr
    assert "This needs Docker with its plugin Compose: see https://" in stopped.stderr


@pytest.mark.process
def test_make_start__writes_the_secrets_that_dotenv_lacks_once(checkout: Path) -> None:
    started = make_in(checkout, "start")
    assert started.returncode != 0
    assert "copy .env.example to .env" in started.stderr
    (checkout / ".env").write_text("DISCORD__TOKEN=t0ken\n", encoding="utf-8")
    started = make_in(checkout, "start")
    assert started.returncode != 0 and started.stdout.count("docker") == 0
    assert "`.env` has no DISCORD__OWNER_ID, so nobody may use the bot: set it to your user id." in started.stderr
    (checkout / ".env").write_text(
        "DISCORD__TOKEN=t0ken\nDISCORD__OWNER_ID=7\nREDIS_PASSWORD=\n#SECURITY__API_KEYS=x", encoding="utf-8"
    )
    [_, command] = make_in(checkout, "start").stdout.splitlines()
    user = "" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    assert command == f"MT_USER={user} docker compose --profile prod up --detach --build"
    first = dotenv_values(checkout / ".env")
    assert "--profile dev up" in make_in(checkout, "start", "PROFILE=dev").stdout
    assert first == dotenv_values(checkout / ".env")
    assert first["DISCORD__TOKEN"] == "t0ken"  # noqa: S105
    assert all(re.fullmatch("[0-9a-f]{32}", first[name] or "") for name in ("REDIS_PASSWORD", "SECURITY__API_KEY"))


@pytest.mark.process
@pytest.mark.parametrize(
    "own", ["SECURITY__API_KEYS=a:admin:0123456789abcdef", "export SECURITY__API_KEY = 0123456789abcdef"]
)
def test_make_start__keeps_given_secrets(own: str, checkout: Path) -> None:
    own = f"DISCORD__TOKEN=t0ken\nDISCORD__OWNER_ID=7\n{own}"
    (checkout / ".env").write_text(own, encoding="utf-8")
    assert make_in(checkout, "start", REDIS_PASSWORD="own").returncode == 0  # noqa: S106
    assert (checkout / ".env").read_text(encoding="utf-8") == own


@pytest.mark.process
def test_make_start__makes_folders_for_the_user_of_the_containers(checkout: Path) -> None:
    (checkout / ".env").write_text("DISCORD__TOKEN=\n", encoding="utf-8")
    started = make_in(checkout, "start")
    assert started.returncode == 0 and "the HTTP API and its page, without Discord" in started.stdout
    owner = 1000 if os.getuid() == 0 else os.getuid()
    assert {(checkout / name).stat().st_uid for name in ("corpus", "artifacts", "batteries")} == {owner}


@pytest.mark.process
def test_make_start__refuses_a_dotenv_that_is_not_utf8(checkout: Path) -> None:
    (checkout / ".env").write_text("DISCORD__TOKEN=t\n", encoding="utf-16")
    started = make_in(checkout, "start")
    assert "`.env` is not UTF-8: save it as UTF-8." in started.stderr and "Traceback" not in started.stderr


def test_env_example__names_the_variables_of_the_containers_with_their_defaults() -> None:
    files = ["docker-compose.yml", "docker-compose.gpu.yml"]
    used: list[tuple[str, str]] = re.findall(
        r"(?<!\$)\$\{(\w+):?[-?]([^}]*)\}", "\n".join(map("\n".join, map(lines_of, files)))
    )
    example: list[tuple[str, str]] = re.findall(r"^#(\w+)=(.*)$", "\n".join(lines_of(".env.example")), re.MULTILINE)
    defaults = {name: value for name, value in used if name != "REDIS_PASSWORD"} | {"TORCH_BACKEND": "cpu"}
    assert defaults | {"REDIS_PASSWORD": ""} == {name: value for name, value in example if name in dict(used)}
