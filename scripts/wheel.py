"""Hatch's hook that adds the pages of the documentation and the compiled decode step to a wheel.

With the step, the wheel is one for a platform and any Python 3.
"""

import platform
import re
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parents[1]))

from trainer.native.build import build, compiler

_ZIG = "ziglang>=0.13,<0.18"
_OLDEST_GLIBC = 17
"""The minor version of the oldest glibc 2 that pip has a name for."""


class StepHook(BuildHookInterface[BuilderConfig]):
    """Compiles by the compiler of the machine, else by ziglang; where both fail, the wheel is one for any platform."""

    def dependencies(self) -> list[str]:
        return [] if compiler() else [_ZIG]

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        if version == "editable":  # the set-up of a checkout compiles
            return
        docs = Path(self.root) / "docs"
        pages = {
            str(page): f"trainer/bundled/{page.relative_to(docs.parent).as_posix()}" for page in docs.rglob("*.md")
        }
        build_data["force_include"] = pages
        self._folder = TemporaryDirectory()
        problem = build(Path(self._folder.name))
        if problem:
            self.app.display_warning(f"{problem} This wheel has no compiled decode step.")
            return
        library = Path(self._folder.name) / "step.so"
        build_data["force_include"] = {**pages, str(library): "trainer/native/step.so"}
        build_data |= {"pure_python": False, "tag": f"py3-none-{_platform(library)}"}

    def finalize(self, version: str, build_data: dict[str, object], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def _platform(library: Path) -> str:
    """Return the name of the platforms that can load a library: on Linux those with a glibc that is new enough."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        minors: list[bytes] = re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())
        return f"manylinux_2_{max([_OLDEST_GLIBC, *map(int, minors)])}_{platform.machine()}"
    if sys.platform == "darwin":
        return f"macosx_11_0_{platform.machine()}"
    return re.sub(r"[-.]", "_", sysconfig.get_platform())
