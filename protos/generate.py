"""Generates protos/gen from the .proto files, or with --check proves that it is fresh.

Run by `make gen` and `make gen-check`. The output holds nothing that was not generated in this run.
"""

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent


def generate(out: Path) -> None:
    """Write messages, stubs and their types for every .proto below `protos/wideseek` to `out`."""
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.glob("wideseek/**/*.proto"))
    well_known = files("grpc_tools") / "_proto"
    arguments = [
        "protoc",
        f"-I{HERE}",
        f"-I{HERE / 'third_party'}",
        f"-I{well_known}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet,only_async:{out}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    for package in out.glob("wideseek/*/v1"):
        (package / "py.typed").touch()


def differences(left: Path, right: Path) -> list[str]:
    """Paths that are missing on a side or differ between the two trees."""

    def same(name: Path) -> bool:
        both = (left / name, right / name)
        return all(path.is_file() for path in both) and filecmp.cmp(*both, shallow=False)

    names = {
        path.relative_to(root) for root in (left, right) for path in root.glob("wideseek/**/*.py*") if path.is_file()
    }
    return sorted(str(name) for name in names if "__pycache__" not in name.parts and not same(name))


def main() -> None:
    """Generate, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when protos/gen is not what the .proto files give")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        if check:
            stale = differences(fresh, HERE / "gen")
            if stale:
                sys.exit("protos/gen is stale (run `make gen`):\n  " + "\n  ".join(stale))
            return
        shutil.rmtree(HERE / "gen", ignore_errors=True)
        shutil.copytree(fresh, HERE / "gen")


if __name__ == "__main__":
    main()
