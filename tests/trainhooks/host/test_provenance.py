"""Facts about the source code from a real repository."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainhooks.core import credentials
from trainhooks.host import provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which the running script seems to belong to."""
    for arguments in (
        ["init", "-q"],
        ["remote", "add", "origin", "https://someone:word-of-passing@git.example/team/run.git"],
        ["-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (tmp_path / "train.py").write_text("lr = 1\n")
    subprocess.run(["git", "-C", str(tmp_path), "add", "train.py"], check=True)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-q", "-m", "second"]
    subprocess.run(["git", "-C", str(tmp_path), *commit], check=True)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "train.py"))
    return tmp_path


def test_the_commit_and_what_differs_from_it(repository: Path) -> None:
    clean = provenance.code()
    assert (len(str(clean["code.commit"])), clean["code.is_dirty"]) == (40, False)
    (repository / "train.py").write_text("lr = 2\n")
    dirty = provenance.code()
    assert dirty["code.is_dirty"] is True
    assert dirty["code.diff_sha256"] != clean["code.diff_sha256"]
    assert dirty["code.commit"] == clean["code.commit"]


def test_no_credential_of_the_remote_is_kept(repository: Path) -> None:
    assert provenance.code()["code.remote"] == "https://git.example/team/run.git"
    assert credentials.without("https://abc123@git.example/x") == "https://git.example/x"
    assert credentials.without("git@git.example:team/run.git") == "git@git.example:team/run.git"


def test_without_a_repository_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "train.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.code() == {}


def test_the_environment_is_looked_up_without_loading_it() -> None:
    script = (
        "import sys\nfrom trainhooks.host import provenance\n"
        "facts = provenance.environment()\nassert 'environment.torch' in facts\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
