"""Each service in an environment with nothing but what it declares: an undeclared dependency shows here.

Builds wheels of the suite, installs each service from them into an empty environment, imports every module that neither
needs the engine nor serves tests, and asks for `--help`. Run by `make alone`; takes the services to check as arguments.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVICES = ("tools", "subagent", "lead", "inference", "trainer")
#: Needs vLLM, which a user picks as an extra (cpu or cuda).
ENGINE = [f"wideseek_inference.adapters.vllm_{name}" for name in ("engine", "route", "worker")]
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
names = [n for n in names if not n.endswith(("__main__", ".testing")) and n not in sys.argv[2:]]
for name in names:
    importlib.import_module(name)
assert "vllm" not in sys.modules
print(len(names), "modules")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed; fails with its errors."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def main() -> None:
    """Check the services named, or all."""
    uv = Path(sys.executable).parent / "uv"
    links = os.environ.get("PIP_FIND_LINKS", "").split()
    torch_source = [part for link in links for part in ("--find-links", link)] or ["--torch-backend", "cpu"]
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch) / "wheels"
        for project in [ROOT / "protos", *ROOT.glob("libs/*"), *ROOT.glob("services/*")]:
            if (project / "pyproject.toml").exists():
                copy = Path(scratch) / "src" / project.name
                run("cp", "-r", project, copy.parent if copy.parent.exists() else _made(copy.parent))
                run(uv, "build", "-q", "--wheel", "--no-build-isolation", "-p", sys.executable, "-o", wheels, copy)
        for service in sys.argv[1:] or SERVICES:
            home = Path(scratch) / service
            run(uv, "venv", "-q", "-p", sys.executable, home)
            python = home / "bin" / "python"
            constraints = ROOT / "requirements" / "local.txt"
            run(
                uv,
                "pip",
                "install",
                "-q",
                "-p",
                python,
                "-c",
                constraints,
                "--find-links",
                wheels,
                *torch_source,
                f"wideseek-{service}",
            )
            modules = run(python, "-W", "ignore", "-c", IMPORT_ALL, f"wideseek_{service}", *ENGINE, cwd=home)
            run(python, "-m", f"wideseek_{service}", "--help", cwd=home)  # the first start also writes byte code
            start = time.monotonic()
            run(python, "-m", f"wideseek_{service}", "--help", cwd=home)
            sys.stdout.write(f"{service}: {modules}, --help in {time.monotonic() - start:.1f} s\n")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


if __name__ == "__main__":
    main()
