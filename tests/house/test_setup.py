"""The shell under `make`: the environment is made once, mended when it was cut short, and refusals carry a hint."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENV_SCRIPT = ROOT / "tools" / "venv.sh"
SCRIPTS = sorted((ROOT / "tools").glob("*.sh"))
INTERPRETER = getattr(sys, "_base_executable", sys.executable)


def _make_venv(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(VENV_SCRIPT), str(venv)],
        env={"PATH": os.environ["PATH"], "PYTHON": INTERPRETER, "KDPROXY_GOAL": "serve", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _stand_in(path: Path, *, refuses: str) -> Path:
    """An interpreter that is the real one but for code holding the given word, which fails in it."""
    path.write_text(f'#!/bin/sh\ncase "$*" in *{refuses}*) exit 1 ;; esac\nexec {INTERPRETER} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    venv = tmp_path_factory.mktemp("made") / ".venv"
    done = _make_venv(venv)
    assert done.returncode == 0, done.stderr
    return venv


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_plain_posix_shell(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert not [word for word in ("[[", "function ", "local ", "<<<", "pipefail", "source ") if word in text]
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_a_working_environment_is_kept(made: Path) -> None:
    (made / "somebody-elses-file").touch()
    done = _make_venv(made)
    assert (done.returncode, done.stderr) == (0, "")
    assert (made / "somebody-elses-file").exists()


def test_a_package_cut_short_is_forgotten_so_that_pip_installs_it_again(made: Path) -> None:
    (site,) = (made / "lib").glob("python3*/site-packages")
    cut = site / "half-1.0.dist-info"
    cut.mkdir()
    (cut / "METADATA").write_text("Name: half\n")
    (made / ".unfinished").touch()
    done = _make_venv(made)
    assert done.returncode == 0
    assert "half-1.0 was left half installed" in done.stderr
    assert not cut.exists()
    assert not (made / ".unfinished").exists()


@pytest.mark.parametrize("wreck", ["no interpreter", "dead link", "no pip"])
def test_a_wreck_is_made_again(made: Path, tmp_path: Path, wreck: str) -> None:
    venv = tmp_path / ".venv"
    if wreck == "no pip":
        shutil.copytree(made, venv, symlinks=True)
        (site,) = (venv / "lib").glob("python3*/site-packages")
        shutil.rmtree(site)
    else:
        (venv / "bin").mkdir(parents=True)
        if wreck == "dead link":
            (venv / "bin" / "python").symlink_to(tmp_path / "gone")
    done = _make_venv(venv)
    assert done.returncode == 0, done.stderr
    assert "it is made again" in done.stderr
    subprocess.run([venv / "bin" / "python", "-m", "pip", "--version"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        ("version_info", "kdproxy needs Python 3.11 or later"),
        ("ensurepip", "its venv module is not"),
    ],
)
def test_an_unfit_python_is_refused_with_a_hint(tmp_path: Path, refuses: str, says: str) -> None:
    python = _stand_in(tmp_path / "python3", refuses=refuses)
    done = _make_venv(tmp_path / ".venv", PYTHON=str(python))
    assert done.returncode == 1
    assert says in done.stderr
    assert "python3-venv" in done.stderr or "brew install" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_interpreter_that_does_not_run_is_refused(tmp_path: Path) -> None:
    done = _make_venv(tmp_path / ".venv", PYTHON=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "does not run" in done.stderr


@pytest.mark.parametrize("program", ["/bin/true", "/bin/cat", "/bin/echo"])
def test_a_program_that_is_no_python_is_refused_in_a_sentence(tmp_path: Path, program: str) -> None:
    """It starts and ends with 0, or prints what it was given, and makes no environment."""
    done = _make_venv(tmp_path / ".venv", PYTHON=program)
    assert done.returncode == 1
    assert f"PYTHON={program} does not run as a Python" in done.stderr
    assert "give the path of a Python 3.11 or later" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_environment_of_an_old_python_is_refused_and_kept(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    _stand_in(venv / "bin" / "python", refuses="version_info")
    done = _make_venv(venv)
    assert done.returncode == 1
    assert "make clean" in done.stderr
    assert (venv / "bin" / "python").exists()


@pytest.fixture
def make() -> str:
    found = shutil.which("make")
    if found is None:
        pytest.skip("make is not installed")
    return found


def _make(make: str, *arguments: str, cwd: Path) -> str:
    # A bare environment: this suite itself runs under make, which hands its own settings down.
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [make, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _dry_run(make: str, *arguments: str, cwd: Path) -> str:
    return _make(make, "-n", *arguments, cwd=cwd)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A tree as a fresh clone has it: no .venv, no stamp."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("tools", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def test_serve_in_a_fresh_clone_installs_and_starts(make: str, clone: Path) -> None:
    steps = _dry_run(make, "serve", "UPSTREAM=lab=http://127.0.0.1:9/v1", "SERVE_ARGS=--port 8401", cwd=clone)
    wanted = ["tools/venv.sh", "build.lock", "runtime.lock", "install.sh .venv .", "kdproxy serve"]
    assert [steps.find(step) for step in wanted] == sorted(steps.find(step) for step in wanted)
    assert -1 not in [steps.find(step) for step in wanted]
    assert "--upstream 'lab=http://127.0.0.1:9/v1' --port 8401" in steps
    assert "dev.lock" not in steps


def test_second_start_installs_nothing(make: str, clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(INTERPRETER)
    (clone / ".venv" / ".stamp-python").touch()
    (clone / ".venv" / ".stamp-runtime").touch()
    told, *rest = _dry_run(make, "serve", cwd=clone).splitlines()
    assert ". .venv/bin/activate" in told
    assert " ".join(rest).split() == ["exec", ".venv/bin/kdproxy", "serve"]
    later = time.time() + 60
    os.utime(clone / "requirements" / "runtime.lock", (later, later))
    assert "runtime.lock" in _dry_run(make, "serve", cwd=clone)


def test_clean_spares_the_data(make: str, clone: Path) -> None:
    assert "kdproxy-data" not in _dry_run(make, "clean", cwd=clone)


def test_help_lists_every_target(make: str, clone: Path) -> None:
    listing = _make(make, cwd=clone)
    for target in ("serve", "test", "setup", "check", "demo", "faults", "bench", "soak", "lock", "clean"):
        assert f"make {target} " in listing
