"""A fresh clone as a new user has it, in an environment of its own: empty home, minimal PATH, nobody's settings.

What `make` would install is borrowed from the environment that runs the tests, so that no test waits for it; the
project itself is the clone's own code. The installation is a matter of tests/house/test_setup.py.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
STAMPS = ("python", "runtime", "dev", "demo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A clone, and the home of who uses it."""

    path: Path
    home: Path

    @property
    def bin(self) -> Path:
        """Where `make` puts the commands."""
        return self.path / ".venv" / "bin"

    def environment(self, more: Mapping[str, str] | None = None, *, is_activated: bool = True) -> dict[str, str]:
        """Return what a new login has, after `. .venv/bin/activate` or before."""
        path = f"{self.bin}:{SYSTEM_PATH}" if is_activated else SYSTEM_PATH
        # Torch with all cores of a small machine is slower than with one.
        return {
            "PATH": path,
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(more or {}),
        }

    def sh(
        self,
        script: str,
        more: Mapping[str, str] | None = None,
        *,
        is_activated: bool = True,
        cwd: Path | None = None,
        seconds: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run lines of a shell to their end, the first failure ending them."""
        return subprocess.run(
            ["sh", "-euc", script],
            cwd=cwd or self.path,
            env=self.environment(more, is_activated=is_activated),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def git(self, *arguments: str) -> str:
        """Run git in the clone and return what it printed."""
        # safe.directory and an identity: the home is empty.
        settings = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def make_checkout(folder: Path) -> Checkout:
    """Clone the working tree, what is not committed yet included, with an environment in `.venv`."""
    checkout = Checkout(path=folder / "kdproxy", home=folder / "home")
    checkout.home.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # not one that is deleted and not committed yet
            (checkout.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout.path / name)
    checkout.git("init", "--quiet")
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "a clone")
    _borrow(checkout)
    return checkout


def _borrow(checkout: Checkout) -> None:
    venv = checkout.path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    # The paths alone: no .pth file in there is read, so the project is not the one that is being tested.
    borrowed = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    (site / "borrowed.pth").write_text("\n".join([str(checkout.path), *borrowed]) + "\n")
    for name in ("kdproxy", "trainhooks"):
        script = venv / "bin" / name
        script.write_text(f"#!{venv}/bin/python\nfrom {name}.cli.main import main\nmain()\n")
        script.chmod(0o755)
    for name in STAMPS:
        (venv / f".stamp-{name}").touch()


def have(program: str) -> bool:
    """Tell whether the system has a program."""
    return shutil.which(program, path=os.pathsep.join(SYSTEM_PATH.split(":"))) is not None
