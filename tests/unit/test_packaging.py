"""A fresh machine and a container get what pyproject.toml says: set-up script, constraints, compose file, CI."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dotenv import dotenv_values
from pydantic import BaseModel, TypeAdapter
from ruamel.yaml import YAML

from scripts.setup import stamp, stamped_extras, uv_settings
from trainer.config.settings import PLAIN_NAMES, environment_names

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
REDIS_PASSWORD = "${REDIS_PASSWORD:?set it in .env; make start does}"  # noqa: S105  (the name of one: none is committed)


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


def compose() -> Compose:
    content: object = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return Compose.model_validate(content)


def package(requirement: str) -> str:
    """The package's name as pip compares names: `ruamel.yaml>=0.18` is `ruamel-yaml`."""
    name = requirement
    for separator in ";[<>=!~ ":
        name = name.split(separator)[0]
    return name.lower().replace(".", "-").replace("_", "-")


def constraint_lines() -> list[str]:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_constraints__hold_no_address_and_no_cuda_package() -> None:
    lines = constraint_lines()
    assert [] == [line for line in lines if "://" in line or line.startswith("-") or " @ " in line]
    assert [] == [
        line for line in lines if package(line).split("-")[0] in {"torch", "nvidia", "cuda", "triton", "pytorch"}
    ]


def test_constraints__pin_every_direct_dependency_but_torch() -> None:
    pyproject: object = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tables = TypeAdapter(dict[str, object]).validate_python(pyproject)
    project = TypeAdapter(dict[str, object]).validate_python(tables["project"])
    direct = TypeAdapter(list[str]).validate_python(project["dependencies"])
    extras = TypeAdapter(dict[str, list[str]]).validate_python(project["optional-dependencies"])
    of_extras = [requirement for requirements in extras.values() for requirement in requirements]
    wanted = {package(requirement) for requirement in [*direct, *of_extras]} - {"torch"}
    assert set() == wanted - {package(line) for line in constraint_lines() if "==" in line}


def test_uv_settings__say_what_pip_was_told() -> None:
    settings = uv_settings(
        "global.cert='/certs/ca.pem'\n"
        "global.disable-pip-version-check='1'\n"
        "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'\n"
        "global.find-links='/wheels /more wheels'\n"
        "global.index-url='https://user:word@c.example/simple?x=1'\n",
        {},
    )

    assert settings == {
        "SSL_CERT_FILE": "/certs/ca.pem",
        "UV_INDEX": "https://a.example/simple https://b.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more,wheels",
        "UV_DEFAULT_INDEX": "https://user:word@c.example/simple?x=1",
    }


def test_uv_settings__follow_pips_order_of_sources() -> None:
    text = ":env:.index-url='https://env.example'\ninstall.index-url='https://install.example'\n"
    assert uv_settings(text, {}) == {"UV_DEFAULT_INDEX": "https://env.example"}
    assert uv_settings("global.cert='/global'\n" + text, {"UV_DEFAULT_INDEX": "mine"}) == {"SSL_CERT_FILE": "/global"}


def test_uv_settings__are_empty_without_pip_settings() -> None:
    assert uv_settings("", {}) == {}
    assert uv_settings("global.index-url=''\n", {}) == {}


def test_stamp__changes_with_each_of_its_inputs(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("one", encoding="utf-8")
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path, moved)
    stamps = [
        stamp(tmp_path, "cpu", "3.11.7", ["dev"]),
        stamp(tmp_path, "cu130", "3.11.7", ["dev"]),
        stamp(tmp_path, "cpu", "3.12.1", ["dev"]),
        stamp(tmp_path, "cpu", "3.11.7", ["corpora", "dev"]),
        stamp(moved, "cpu", "3.11.7", ["dev"]),
    ]
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("two", encoding="utf-8")
        stamps.append(stamp(tmp_path, "cpu", "3.11.7", ["dev"]))

    assert len(set(stamps)) == len(stamps) == 7
    assert stamps[-1] == stamp(tmp_path, "cpu", "3.11.7", ["dev"])
    assert stamped_extras(stamps[3]) == ["corpora", "dev"]
    assert stamped_extras("incomplete") == stamped_extras("") == []


@pytest.mark.parametrize("words", [("tset",), ("--extra", "tset"), ("--extra", "corpora", "--extra", "tset")])
def test_setup__refuses_an_unknown_word_before_it_does_anything(words: tuple[str, ...]) -> None:
    script = ROOT / "scripts" / "setup.py"
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'tset'" in done.stderr


def test_setup__in_an_environment_of_another_user_is_one_sentence() -> None:
    as_other = "import os, setup\nif os.geteuid() == 0: os.setuid(65534)  # every folder is open to root\nsetup.main()"
    with TemporaryDirectory() as name:  # other users cannot enter a folder of pytest
        folder = Path(name)
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        for file in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / file, folder)
        (folder / ".venv").mkdir(mode=0o555)
        folder.chmod(0o755)
        command = [sys.executable, "-c", as_other]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder / "scripts")
    told = "belongs to another user: run this as that user, or in a checkout of your own."
    first_line, *_ = done.stderr.splitlines()  # coverage, which cannot write its file, says so behind it
    assert (done.returncode, first_line) == (1, f"{folder.resolve() / '.venv'} {told}")


def test_compose__both_profiles_list_every_service() -> None:
    assert {name: service.profiles for name, service in compose().services.items()} == {
        "redis": ["dev", "prod"],
        "bot": ["dev", "prod"],
        "worker": ["dev", "prod"],
    }


@pytest.mark.parametrize("name", ["bot", "worker"])
def test_compose__bot_and_worker_have_exactly_the_promised_mounts(name: str) -> None:
    assert compose().services[name].volumes == [
        "./corpus:/data/corpus:ro",
        "./artifacts:/data/artifacts",
        "hf_cache:/hf-cache",
        "corpus_cache:/data/corpus_cache",
    ]


def test_platform_page__names_settings_and_targets_that_exist() -> None:
    page = (ROOT / "docs" / "platform.md").read_text(encoding="utf-8")
    names: list[str] = re.findall(r"`([A-Z]+_[A-Z_]+)`", page)
    targets: list[str] = re.findall(r"^FROM app AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {"REDIS_URL", "SECURITY__API_KEYS", "APP__ARTIFACTS_ROOT"} <= set(names)
    assert set(names) <= {*environment_names(), *PLAIN_NAMES, "HF_HOME"}
    assert all(f"| `{target}` | `mt " in page for target in targets) and len(targets) == 2


def test_compose__named_volumes_are_declared() -> None:
    sources = {mount.split(":")[0] for service in compose().services.values() for mount in service.volumes}
    assert set(compose().volumes) == {source for source in sources if not source.startswith(".")}


def test_compose__bot_leaves_the_work_to_the_worker() -> None:
    services = compose().services
    shared = {
        "APP__ENV": "${PROFILE:-prod}",
        "REDIS_URL": f"redis://:{REDIS_PASSWORD}@redis:6379/0",
        "APP__DATA_ROOT": "/data",
        "APP__ARTIFACTS_ROOT": "/data/artifacts",
        "HF_HOME": "/hf-cache",
    }

    assert services["bot"].command == ["mt", "up"]
    assert services["worker"].command == ["mt", "worker"]
    served = {"HTTP__HOST": "0.0.0.0", "HTTP__PORT": "8000"}  # noqa: S104  (inside of a container)
    secrets = ("DISCORD__TOKEN", "DISCORD_TOKEN", "SECURITY__API_KEY", "SECURITY__API_KEYS")
    hidden = (*secrets, "WEBHOOKS__URL", "WEBHOOKS__SECRET")
    assert services["bot"].environment == {**shared, "QUEUE__EMBEDDED_WORKERS": "0", **served}
    assert services["worker"].environment == {**shared, **dict.fromkeys(hidden, "")}
    assert services["bot"].env_file == services["worker"].env_file == ".env"


def test_compose__redis_keeps_every_write_and_stays_inside() -> None:
    redis = compose().services["redis"]
    options = " ".join(redis.command)
    assert redis.image == "${REDIS_IMAGE:-valkey/valkey:8-alpine}"
    assert "--appendonly yes --appendfsync always" in options
    assert "--maxmemory-policy noeviction" in options
    assert redis.volumes == ["redis_data:/data"]
    assert '--requirepass "$$REDISCLI_AUTH"' in options
    assert redis.environment == {"REDISCLI_AUTH": REDIS_PASSWORD}
    assert redis.networks == ["queue"]
    assert compose().networks["queue"] == {"internal": True}
    assert redis.ports == []


def test_compose__publishes_the_api_on_this_machine_only() -> None:
    services = compose().services
    assert services["bot"].ports == ["${API_ADDRESS:-127.0.0.1}:${API_PORT:-8000}:8000"]
    assert services["worker"].ports == []


@pytest.mark.parametrize("name", ["redis", "bot", "worker"])
def test_compose__no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = compose().services[name]
    assert service.read_only
    assert service.tmpfs == ["/tmp"]  # noqa: S108  (a mount point, not a file)
    assert service.cap_drop == ["ALL"]
    assert service.security_opt == ["no-new-privileges:true"]
    assert service.stop_grace_period == "30s"
    assert service.user.split(":")[0] not in {"0", "root"}
    assert service.restart == "unless-stopped"


@pytest.mark.parametrize(("name", "command"), [("bot", "mt up"), ("worker", "mt worker")])
def test_units__start_again_and_may_do_no_more_than_they_need(name: str, command: str) -> None:
    unit = (ROOT / "deploy" / f"model-trainer-{name}.service").read_text(encoding="utf-8").splitlines()
    assert {"Restart=always", "KillMode=mixed", "User=model-trainer", "NoNewPrivileges=yes"} <= set(unit)
    assert {"ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "CapabilityBoundingSet="} <= set(unit)
    assert f"ExecStart=/opt/model-trainer/.venv/bin/{command}" in unit
    assert "TimeoutStopSec=60" in unit  # a child has 8 s for its checkpoint


def test_image__has_no_development_tools_no_root_and_no_secrets() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert {line.split()[1] for line in dockerfile if line.startswith("FROM")} == {"python:3.11-slim", "build", "app"}
    assert "ARG TORCH_BACKEND=cpu" in dockerfile
    assert [] == [line for line in dockerfile if "dev" in line or "--extra" in line]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".*", "/tests"} <= set(ignored)  # .* is .env, .git and .venv
    assert [] == [line for line in ignored if line.startswith("!.env")]


def test_ci__runs_make_test_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert script == ["#!/usr/bin/env bash", 'cd "$(dirname "$0")/.." && exec make test']


@pytest.mark.parametrize(
    "target",
    "demo up test unit check lint bench browser constraints mutations scale-test slurm-test".split(),
)
def test_make__calls_the_set_up_script(target: str) -> None:
    assert make_plan(target) == [f"python3 scripts/setup.py {target}"]


def test_make__drives_the_containers() -> None:
    compose_command = "docker compose --profile prod"
    start = ["mkdir -p corpus artifacts", f"{compose_command} up --detach --build"]
    assert make_plan("start")[0] == start[0]
    assert make_plan("start")[-1] == start[1]
    assert make_plan("stop") == [f"{compose_command} stop"]
    assert make_plan("restart") == [f"{compose_command} restart"]
    assert make_plan("clean")[0] == f"{compose_command} down --rmi local --volumes --remove-orphans"
    assert make_plan("clean")[-len(make_plan("start")) :] == make_plan("start")
    assert make_plan("stop", "PROFILE=dev") == ["docker compose --profile dev stop"]


def test_make__puts_a_redis_password_into_dotenv_once(tmp_path: Path) -> None:
    started = make_start(tmp_path)
    assert started.returncode != 0
    assert "copy .env.example to .env" in started.stderr
    (tmp_path / ".env").write_text("DISCORD__TOKEN=t0ken\nREDIS_PASSWORD=", encoding="utf-8")
    assert make_start(tmp_path).stdout == "docker prod\n"
    first = dotenv_values(tmp_path / ".env")
    assert make_start(tmp_path, "PROFILE=dev").stdout == "docker dev\n"
    assert first == dotenv_values(tmp_path / ".env")
    assert first["DISCORD__TOKEN"] == "t0ken"  # noqa: S105
    assert re.fullmatch("[0-9a-f]{32}", first["REDIS_PASSWORD"] or "")


def test_make__leaves_a_password_of_the_shell_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("", encoding="utf-8")
    assert make_start(tmp_path, REDIS_PASSWORD="own").returncode == 0  # noqa: S106
    assert "REDIS_PASSWORD" not in (tmp_path / ".env").read_text(encoding="utf-8")


def test_make__gives_the_api_a_random_key_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_PASSWORD=own", encoding="utf-8")
    assert make_start(tmp_path).returncode == make_start(tmp_path).returncode == 0
    password, key = (tmp_path / ".env").read_text(encoding="utf-8").split()
    assert password == "REDIS_PASSWORD=own"  # noqa: S105
    assert re.fullmatch("SECURITY__API_KEY=[0-9a-f]{32}", key)


def make_start(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make start` where `docker` says only which profile it is to be for, as docker-compose.yml reads it."""
    docker = folder / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text('#!/bin/sh\necho docker "${PROFILE:-prod}"\n', encoding="ascii")
    docker.chmod(0o755)
    make = shutil.which("make")
    assert make is not None
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "REDIS_", "PROFILE"))}
    return subprocess.run(
        [make, "--silent", "--file", ROOT / "Makefile", "start", *words],
        cwd=folder,
        env={**kept, "PATH": f"{docker.parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def make_plan(*words: str) -> list[str]:
    make = shutil.which("make")
    assert make is not None
    command = [make, "--dry-run", "--no-print-directory", *words]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not in `make test`
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
