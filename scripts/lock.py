"""Writes requirements/{cpu,cuda,jobctl,build,dev}.txt from pyproject.toml: exact versions with hashes.

All are parts of one resolution, so that a checkout can install several of them, and none names a registry. cpu.txt and
cuda.txt are the workers' alone.

Needs `uv` on PATH and, for the CPU file's hash of torch, a CPU wheel that pip can find (otherwise the old hash stays).
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
TORCH = "torch==2.13.0"
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton)")
HEADER = "# Made by `make lock` from pyproject.toml. {what}\n"


def compile_requirements(extras: list[str], *pins: str) -> list[str]:
    """One block of lines a package, as uv resolves them for every Python >= 3.11 and platform."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as pin:
        pin.write("\n".join(pins))
        pin.flush()
        command = ["uv", "pip", "compile", "pyproject.toml", pin.name, "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
        command += [part for extra in extras for part in ("--extra", extra)]
        text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return re.findall(r"^[a-zA-Z0-9].*\n(?:    .*\n)*", text, flags=re.M)


def names_of(extra: str, *pins: str) -> set[str]:
    """Every package that an extra of pyproject.toml needs, the project's own dependencies aside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = "\n".join([*project["optional-dependencies"][extra], *pins])
    command = ["uv", "pip", "compile", "-", "--universal", "--python-version", "3.11", "--no-annotate", "--quiet"]
    text = subprocess.run(command, input=wanted, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name_of(line) for line in text.splitlines() if line and not line.startswith("#")}


def name_of(block: str) -> str:
    return re.split(r"[=\s;\[]", block, maxsplit=1)[0]


def cpu_torch(old: Path) -> str:
    """The block of torch's CPU wheel, by the hash of the wheel that pip finds here."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", temporary, TORCH]
        subprocess.run(command, check=True)
        wheel = next(Path(temporary).glob("torch-*.whl"))
        if "+cpu" in wheel.name:
            return f"{TORCH} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    found = re.search(rf"^{re.escape(TORCH)}.*\n(?:    .*\n)*", old.read_text(), flags=re.M)
    if found is None:
        sys.exit("pip finds no CPU wheel of torch here, and requirements/cpu.txt has no hash of one to keep")
    return found.group()


def main() -> None:
    runtime = compile_requirements(["worker", "build"], TORCH)
    everything = compile_requirements(["worker", "build", "dev"], TORCH)
    controller = {name_of(block) for block in compile_requirements([])}

    def only(names: set[str]) -> list[str]:
        return [block for block in runtime if name_of(block) in names]

    workers = only(names_of("worker", TORCH))
    cpu = [block for block in workers if not CUDA_ONLY.match(block) and not block.startswith("torch==")]
    files = {
        "cuda.txt": ("The workers', with torch's build for CUDA, which runs on a CPU too.", workers),
        "cpu.txt": (
            "The workers', with torch's CPU build, where pip finds one.",
            sorted([*cpu, cpu_torch(REQUIREMENTS / "cpu.txt")]),
        ),
        "jobctl.txt": ("What jobctl needs.", only(controller)),
        "build.txt": ("What installs a checkout.", only(names_of("build"))),
        "dev.txt": ("What the tests need beyond the runtime.", [b for b in everything if b not in runtime]),
    }
    for name, (what, blocks) in files.items():
        (REQUIREMENTS / name).write_text(HEADER.format(what=what) + "".join(blocks))


if __name__ == "__main__":
    main()
