"""Makes .venv from pyproject.toml, then runs one of the project's commands in it.

    python scripts/setup.py [--extra NAME]… [COMMAND]

COMMAND is demo, up, test, unit, check, lint, bench, browser, docs, pictures, constraints, chaos, fuzz,
mutations, scale-test or slurm-test. The commands start, stop, restart and clean need Docker instead of .venv.

It needs Python and nothing else; an older Python only looks for one that is new enough. uv installs if it is on the
PATH or pip can fetch it, else pip does. TORCH=cpu (the default) asks for torch without CUDA; TORCH=auto, TORCH=cu130
and so on go to uv as they are. Later calls keep an extra of pyproject.toml, such as corpora.
A second call finds the stamp in .venv and goes straight to the command.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / ".mt-stamp"
INCOMPLETE = "incomplete"
PROGRAM = ["discord", "train"]
"""The extras of the demo and of the bot, with nothing for development."""
EXTRAS = {"demo": PROGRAM, "up": PROGRAM, "docs": [*PROGRAM, "docs"]}
"""The extras of commands that do without those of the tests."""
TESTED = ["dev", "docs", "onnx", "parity", "tensorboard", "trackio"]
PYTHON_NAMES = ["python3.11", "python3.12", "python3.13", "python3.14", "python3", "python"]
# without bytecode each of the many processes would compile the project anew
WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
# most tests wait for processes that they start, so two cores take six tests at a time
WAITING_TESTS = max(6, os.cpu_count() or 1)
NPM_OPTIONS = ["--prefix", str(VENV / "node"), "--no-audit", "--no-fund", "axe-core@4"]
CUDA_PACKAGE = re.compile(r"(nvidia|cuda|triton)\b")
# the version that the tests and the containers have; its builds for the CPU and for GPUs have one public version
_PEOPLE = {"DISCORD__OWNER_ID", "DISCORD__ADMIN_IDS", "DISCORD__ALLOWED_USER_IDS", "DISCORD__ALLOWED_GUILD_IDS"}
TORCH = "torch==2.13.0"


class Given(argparse.Namespace):
    """The words of the command line."""

    command: str | None
    extra: list[str]


class Terminated(KeyboardInterrupt):
    """SIGTERM: unlike Ctrl-C in a terminal, the child has not got it too."""


def main() -> int:
    commands = {"test": test, "unit": unit, "check": check, "lint": lint}
    commands |= {"bench": bench, "browser": browser, "docs": docs, "pictures": pictures, "constraints": constraints}
    commands |= {"chaos": chaos, "fuzz": fuzz, "mutations": mutations}
    commands |= {"scale-test": scale_test, "slurm-test": slurm_test}
    about = "Makes .venv, then runs one of the project's commands in it."
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    none: list[str] = []
    extra_help = "install this extra too, now and in later calls; repeatable"
    parser.add_argument("--extra", action="append", default=none, choices=known_extras(), help=extra_help)
    containers = {"start": start, "stop": stop, "restart": restart, "clean": clean, "image": image}
    choices = ["demo", "up", *commands, *containers]
    parser.add_argument("command", nargs="?", choices=choices)
    given = Given()
    parser.parse_args(namespace=given)
    command = given.command
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and children inherit that
    try:
        if command in containers:
            return containers[command]()
        of_command = PROGRAM if command is None and given.extra else EXTRAS.get(command or "", TESTED)
        set_up(os.environ.get("TORCH") or "cpu", [*of_command, *given.extra])
        compile_step()
        if command is None:
            return 0
        return commands[command]() if command in commands else run(BIN / "mt", command, env=WITH_BYTECODE)
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


def known_extras() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[project.")[0]
    names: list[str] = re.findall(r"^([\w-]+) = \[", section, re.MULTILINE)
    return names


def unit() -> int:
    """The tests that start no process and open no connection."""
    processes = os.cpu_count() or 1  # these tests compute all the time
    return run(*pytest_command("quick", "not slow and not process", processes), "tests/unit", env=WITH_BYTECODE)


def test() -> int:
    """Lint, types and each promise once; its variants, which are marked slow, are left to `check`."""
    return run_checks(pytest_command("quick", "not slow", WAITING_TESTS), WITH_BYTECODE)


def check() -> int:
    """Lint, types and all tests, with the coverage of the product and of its child processes."""
    # an absolute file, so that child processes in other directories are measured too
    environment = {**WITH_BYTECODE, "COVERAGE_FILE": str(ROOT / ".coverage")}
    command = [*pytest_command("repeatable", "", WAITING_TESTS), "--cov", "--cov-report=", "--cov-fail-under=0"]
    return run_checks(command, environment, coverage=True)


def pytest_command(profile: str, markers: str, processes: int) -> list[str]:
    """Return the pytest command line for a hypothesis profile, a marker expression and a number of processes."""
    parallel = ["-n", str(processes), "--dist", "worksteal"]
    return [str(PYTHON), "-m", "pytest", *parallel, "-m", markers, "--durations=10", f"--hypothesis-profile={profile}"]


def run_checks(tests: list[str], environment: Mapping[str, str], *, coverage: bool = False) -> int:
    """Run ruff and mypy beside the tests and print a table; the coverage report needs passing tests."""
    python = [str(PYTHON), "-m"]
    static = {
        "lint": ["ruff", "check"],
        "format": ["ruff", "format", "--check"],
        "types": ["mypy"],
        "docstrings": ["scripts.docstrings"],
    }
    verdicts: dict[str, str] = {}
    seconds: dict[str, float] = {}
    with ThreadPoolExecutor(len(static)) as pool:
        beside = {step: pool.submit(captured, *python, *words) for step, words in static.items()}
        started = time.monotonic()
        verdicts["tests"] = "FAILED" if run(*tests, env=environment) else "passed"
        seconds["tests"] = time.monotonic() - started
    for step, future in beside.items():
        code, printed, seconds[step] = future.result()
        verdicts[step] = "FAILED" if code else "passed"
        print(f"$ python -m {shlex.join(static[step])}\n{printed}", end="")
    if coverage and verdicts["tests"] == "FAILED":
        verdicts["coverage"] = "skipped, because tests failed"
    elif coverage:
        verdicts["coverage"] = "FAILED" if run(*python, "coverage", "report", env=environment) else "passed"
    print()
    for step, verdict in verdicts.items():
        duration = f"{seconds[step]:.1f} s" if step in seconds else ""
        print(f"{step:<11}{duration:>9}  {verdict}")
    return 1 if "FAILED" in verdicts.values() else 0


def captured(*command: str) -> tuple[int, str, float]:
    """Run a command at the project's root; return its exit code, its output and its seconds."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout, time.monotonic() - started


def lint() -> int:
    """Format the source and fix what ruff can fix, then check types, docstrings and the rules of the source."""
    commands = [["ruff", "check", "--fix"], ["ruff", "format"], ["mypy"], ["scripts.docstrings"]]
    commands.append(["pytest", "-q", "tests/unit/test_source_rules.py", "tests/unit/test_floors.py"])
    return max([run(PYTHON, "-m", *words) for words in commands])


def bench() -> int:
    """Speed against what users would use instead; QUICK=1 of the environment takes minutes instead of an hour."""
    return run(PYTHON, "-m", "benchmarks")


def browser() -> int:
    """Install what the tests of the page need, and run them: Debian's Chromium, Node, and packages of npm."""
    if shutil.which("apt-get") is None:
        raise SystemExit(
            "This needs apt-get. Elsewhere put Chromium or Google Chrome, node and npm on the PATH, and run"
            f" `npm install {shlex.join(NPM_OPTIONS)}`."
        )
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    node = [package for program, package in (("node", "nodejs"), ("npm", "npm")) if shutil.which(program) is None]
    packages = ["--yes", "--no-install-recommends", "chromium", "fonts-noto-color-emoji", *node]
    return (
        run(*sudo, "apt-get", "update")
        or run(*sudo, "apt-get", "install", *packages)
        or run("npm", "install", *NPM_OPTIONS)
        or run(PYTHON, "-m", "pytest", "-m", "browser")
    )


def docs() -> int:
    """Build the documentation site into site/; it needs the extra `docs`."""
    source = VENV / "docs"
    build = ["-m", "mkdocs", "build", "--site-dir", str(ROOT / "site"), "--config-file", str(source / "mkdocs.yml")]
    pages = run(PYTHON, "-m", "scripts.site_pages", source)
    return pages or run(PYTHON, *build, env={"NO_MKDOCS_2_WARNING": "1"})


def pictures() -> int:
    """Draw the pictures of docs/discord.md and docs/page.md from the real bot and a real server."""
    return run(PYTHON, "-m", "scripts.pictures") or run(PYTHON, "-m", "scripts.page_pictures")


def chaos() -> int:
    """A campaign of random faults; MINUTES and SEED of the environment say how long and which."""
    return run(PYTHON, "-m", "tests.faults", "chaos")


def fuzz() -> int:
    """A campaign of schemathesis against the HTTP API; SEED and CASES of the environment say which and how long."""
    return run(PYTHON, "-m", "tests.faults", "fuzz")


def mutations() -> int:
    """Switch one safeguard after the other off, and see that the tests notice."""
    return run(PYTHON, "-m", "tests.faults", "mutations")


def scale_test() -> int:
    """Workers on machines of their own that fail; SEED and RUNS of the environment say which campaign."""
    return run(PYTHON, "-m", "tests.faults", "scale")


def slurm_test() -> int:
    """Workers of deploy/slurm on two nodes of Debian's Slurm, which is installed first where it is missing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise SystemExit("This needs root, because each node of Slurm gets its own host name and process numbers.")
    if any(shutil.which(program) is None for program in ("slurmctld", "slurmd", "sbatch", "munged")):
        if shutil.which("apt-get") is None:
            raise SystemExit("This needs apt-get. Elsewhere put Slurm and munge on the PATH.")
        packages = ["--yes", "--no-install-recommends", "slurmctld", "slurmd", "slurm-client", "munge"]
        if run("apt-get", "update") or run("apt-get", "install", *packages):
            return 1
    return run(PYTHON, "-m", "tests.faults", "slurm")


def constraints() -> int:
    """Remake constraints.txt from the newest versions that fit, for every platform and without addresses."""
    uv = find_uv()
    if uv is None:
        raise SystemExit("uv is needed to remake constraints.txt, and pip could not install it.")
    file = ROOT / "constraints.txt"
    what = ["--all-extras", "--universal", "--upgrade", "--no-emit-package", "torch"]
    bare = ["--quiet", "--no-emit-index-url", "--no-header", "--no-annotate", "--output-file", str(file)]
    env = uv_settings(pip_config(), os.environ)
    code = run(uv, "pip", "compile", "pyproject.toml", *what, *bare, env=env)
    lines = [TORCH, *file.read_text(encoding="utf-8").splitlines()]
    lines.sort(key=package_of)
    file.write_text("".join(f"{line}\n" for line in lines if not CUDA_PACKAGE.match(line)), encoding="utf-8")
    return code


def package_of(line: str) -> str:
    return line.split("==")[0]


def compose(*words: str, env: Mapping[str, str] | None = None) -> int:
    """Call Docker Compose; PROFILE of the environment is prod, or dev for logs as text."""
    if shutil.which("docker") is None or captured("docker", "compose", "version")[0] != 0:
        raise SystemExit("This needs Docker with its plugin Compose: see https://docs.docker.com/engine/install.")
    return run("docker", "compose", "--profile", os.environ.get("PROFILE") or "prod", *words, env=env)


def start() -> int:
    """Start bot, worker and Valkey as containers, with the folders and secrets that they need."""
    folders, file = [ROOT / name for name in ("corpus", "artifacts", "batteries")], ROOT / ".env"
    if not file.exists():
        raise SystemExit("There is no .env: copy .env.example to .env, and set its first two settings for Discord.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SystemExit("`.env` is not UTF-8: save it as UTF-8.") from None
    of_file: list[str] = re.findall(r"(?m)^[ \t]*(?:export[ \t]+)?([A-Z_]+)[ \t]*=[ \t]*\S", text)
    given = {*of_file, *(name for name, value in os.environ.items() if value)}
    _check_people(given)
    secrets_of = {
        "REDIS_PASSWORD": {"REDIS_PASSWORD"},
        "SECURITY__API_KEY": {"SECURITY__API_KEY", "SECURITY__API_KEYS"},
    }
    with file.open("a", encoding="utf-8") as dotenv:
        for name, names in secrets_of.items():
            if not names & given:
                dotenv.write(f"\n{name}={secrets.token_hex(16)}\n")
    own: dict[str, str] = {}
    for folder in folders:
        folder.mkdir(exist_ok=True)
    if hasattr(os, "getuid") and "MT_USER" not in given:
        if os.getuid() == 0:  # the containers have the user 1000
            for folder in folders:
                os.chown(folder, 1000, 1000)
        else:
            own = {"MT_USER": f"{os.getuid()}:{os.getgid()}"}
    return compose("up", "--detach", "--build", env=own)


def _check_people(given: set[str]) -> None:
    """Refuse a bot that nobody may use; without a token there is none."""
    if not {"DISCORD__TOKEN", "DISCORD_TOKEN"} & given:
        print("`.env` has no DISCORD__TOKEN: this starts the HTTP API and its page, without Discord.")
    elif not _PEOPLE & given:
        raise SystemExit("`.env` has no DISCORD__OWNER_ID, so nobody may use the bot: set it to your user id.")


def stop() -> int:
    """Stop the containers; runs resume with the next start."""
    return compose("stop")


def restart() -> int:
    """Restart the containers; runs resume."""
    return compose("restart")


def clean() -> int:
    """Remove this stack's containers, images and volumes; ./artifacts and ./corpus stay."""
    return compose("down", "--rmi", "local", "--volumes", "--remove-orphans")


def image() -> int:
    """Build the two images, and run `mt doctor` in each as the containers run."""
    if shutil.which("docker") is None:
        print("skipped: no Docker here")
        return 0
    for name in ("bot", "worker"):
        tag = f"model-trainer-{name}:checked"
        confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]  # noqa: S108
        code = run("docker", "build", "--target", name, "--tag", tag, ".")
        code = code or run("docker", "run", "--rm", *confined, tag, "mt", "doctor")
        if code:
            return code
    return 0


def set_up(torch: str, wanted: Sequence[str]) -> None:
    """Make .venv with these extras, or bring it up to date; no child process at all where its stamp fits."""
    demand_access(os.R_OK | os.X_OK)
    saved = STAMP.read_text(encoding="utf-8") if STAMP.is_file() else ""
    extras = sorted({*wanted, *stamped_extras(saved)})
    if PYTHON.exists() and saved == stamp(ROOT, torch, venv_version(), extras) and is_editable():
        return
    demand_access(os.W_OK)
    started = time.monotonic()
    whole = saved == "" or saved.splitlines()[-1] == str(ROOT)  # no stamp: made by hand, so kept; else not moved
    if not (whole and PYTHON.exists() and output(PYTHON, "-m", "pip", "--version")):
        python = find_python()
        if VENV.exists():
            print(".venv is broken, half-made or moved: making it anew")
            shutil.rmtree(VENV)
        saved = ""
        VENV.mkdir()
        STAMP.write_text(INCOMPLETE, encoding="utf-8")
        demand(python, "-m", "venv", VENV)
    STAMP.write_text(INCOMPLETE, encoding="utf-8")
    changed_torch = saved != "" and saved.splitlines()[1:2] != [torch]
    install(torch, extras, ["--reinstall-package", "torch"] if changed_torch else [])
    STAMP.write_text(stamp(ROOT, torch, venv_version(), extras), encoding="utf-8")
    size = sum(file.stat().st_size for file in VENV.rglob("*") if file.is_file() and not file.is_symlink())
    print(f".venv is ready: {size / 1e9:.2f} GB in {time.monotonic() - started:.0f} s", flush=True)


def compile_step() -> None:
    """Compile the decode step if its library is missing or older than its source."""
    library, *sources = (ROOT / "trainer" / "native" / name for name in ("step.so", "step.c", "build.py"))
    if library.exists() and all(source.stat().st_mtime <= library.stat().st_mtime for source in sources):
        return
    if run(PYTHON, sources[-1]):
        print(
            "Everything works without it, but generation is slower. `--extra compiler` installs a compiler.", flush=True
        )


def demand_access(needed: int) -> None:
    """End with one sentence if .venv, or the folder for it, is another user's."""
    folder = VENV if VENV.exists() else ROOT
    if not os.access(folder, needed):
        raise SystemExit(f"{folder} belongs to another user: run this as that user, or in a checkout of your own.")


def stamp(root: Path, torch: str, python_version: str, extras: Sequence[str]) -> str:
    """Return the inputs of .venv, one per line: a hash, the choice of torch, the extras and the folder."""
    contents = [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts = [*contents, torch.encode(), python_version.encode()]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
    return f"{digest.hexdigest()}\n{torch}\n{','.join(extras)}\n{root}"


def stamped_extras(saved: str) -> list[str]:
    """Return the extras of a stamp; none of an incomplete or older one."""
    lines = saved.splitlines()
    return lines[2].split(",") if len(lines) == 4 else []


def is_editable() -> bool:
    """Return True if .venv imports this checkout: `pip install .` would have put a copy in its place."""
    return any(
        any(VENV.glob(f"{folder}/*model_trainer.pth")) for folder in ("lib/*/site-packages", "Lib/site-packages")
    )


def venv_version() -> str:
    config = VENV / "pyvenv.cfg"
    lines = config.read_text(encoding="utf-8").splitlines() if config.is_file() else []
    return next((line for line in lines if line.startswith("version")), "")


def find_python() -> str:
    """A Python from 3.11 on, outside .venv; a name on the PATH may be a shim without a Python behind it."""
    probe = "import sys; print(sys.version_info >= (3, 11), getattr(sys, '_base_executable', sys.executable))"
    for name in [sys.executable, *PYTHON_NAMES]:
        found = shutil.which(name)
        verdict, _, path = output(found, "-c", probe).strip().partition(" ") if found else ("", "", "")
        if verdict == "True" and VENV not in Path(path).parents:
            return path
    raise SystemExit("Python 3.11 or newer is needed, and none of " + ", ".join(PYTHON_NAMES) + " is one.")


def install(torch: str, extras: Sequence[str], options: list[str]) -> None:
    uv, project = find_uv(), f".[{','.join(extras)}]"
    if uv is not None:
        env = uv_settings(pip_config(), os.environ)
        target = ["--python", str(PYTHON), "--constraint", "constraints.txt"]
        # the many processes of the tests share the bytecode; the demo's imports compile what they need as they start
        target += ["--compile-bytecode"] if "dev" in extras else []
        backend = torch_backend(uv, env, torch)
        if not run(uv, "pip", "install", *target, *options, *backend, "--editable", project, env=env):
            return
        if torch != "cpu":
            raise SystemExit(f"uv could not install torch for TORCH={torch}; its own message stands above.")
        print("uv could not install the project; pip tries it now")
    elif platform.system() == "Linux" or torch != "cpu":
        print("pip cannot choose a build of torch: it takes the newest that its settings lead to, maybe with CUDA")
    demand(PYTHON, "-m", "pip", "install", "--constraint", "constraints.txt", "--editable", project)


def find_uv() -> str | None:
    """uv from the PATH, else from .venv, where pip puts it if it can."""
    own = BIN / ("uv.exe" if os.name == "nt" else "uv")
    on_path = shutil.which("uv")
    if on_path is None and not own.exists():
        run(PYTHON, "-m", "pip", "install", "--quiet", "uv")
    return on_path or (str(own) if own.exists() else None)


def pip_config() -> str:
    return output(PYTHON, "-m", "pip", "config", "list")


def uv_settings(pip_config: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return uv's environment for pip's settings, from the text of `pip config list`; `environ` wins."""
    options: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # the later one wins, as in pip
        for line in pip_config.splitlines():
            name, _, quoted = line.partition("=")
            if name.startswith(section):
                value: object = ast.literal_eval(quoted)
                options[name[len(section) :]] = str(value)
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "trusted-host": "UV_INSECURE_HOST",
        "cert": "SSL_CERT_FILE",
        "client-cert": "SSL_CLIENT_CERT",
        "proxy": "ALL_PROXY",
    }
    settings = {names[option]: value for option, value in options.items() if option in names and value.strip()}
    for name, separator in {"UV_INDEX": " ", "UV_INSECURE_HOST": " ", "UV_FIND_LINKS": ","}.items():
        if name in settings:
            settings[name] = separator.join(settings[name].split())
    if "UV_INDEX" in settings:
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip treats all its indexes as equals
    return {name: value for name, value in settings.items() if name not in environ}


def torch_backend(uv: str, env: Mapping[str, str], torch: str) -> list[str]:
    """uv's options for the wanted build of torch."""
    if torch != "cpu":
        return [f"--torch-backend={torch}"]
    if platform.system() != "Linux":
        return []  # the ordinary wheels of macOS and Windows have no CUDA
    python = ["--python", str(PYTHON), "--constraint", "constraints.txt"]
    resolve = [uv, "pip", "compile", "pyproject.toml", "--extra=train", "--quiet", "--no-annotate", "--no-header"]
    resolve += python
    plain = output(*resolve, env=env)
    if not plain or re.search(r"^torch==\S+\+cpu", plain, re.MULTILINE):
        return []
    if output(*resolve, "--torch-backend=cpu", env=env):
        return ["--torch-backend=cpu"]
    cuda = sum(1 for line in plain.splitlines() if CUDA_PACKAGE.match(line))
    print(f"No index with CPU builds of torch can be reached: {cuda} CUDA packages come too, several GB")
    return []


def demand(*command: str | Path) -> None:
    if run(*command):
        raise SystemExit("Setting up .venv failed; the message of the command stands above.")


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> int:
    """Print the command, run it at the project's root, and leave no child behind if interrupted."""
    words = [str(word) for word in command]
    print("$ " + shlex.join(word.replace(f"{ROOT}{os.sep}", "") for word in words), flush=True)
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **(env or {})})
    try:
        return process.wait()
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Terminated) and os.name != "nt":
            process.send_signal(signal.SIGINT)  # so that pytest and `mt` end what they started
        end(process)
        raise


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for an interrupted process, which ends what it started; end it where that takes minutes."""
    try:
        for _ in range(2):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
                return
            process.terminate()
    finally:
        process.kill()  # does nothing to a process that has ended


def output(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Return the command's output, or an empty string if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout if done.returncode == 0 else ""


def on_terminate(signum: int, frame: object) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
