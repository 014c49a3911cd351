"""Every command of README.md and of each page, typed in a fresh clone with an empty home: run, or why not.

A page's commands run in its order. Ports and folders that a reader fills in are filled in; nothing else changes.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import click
import pytest

from tests.checkout import ROOT, Checkout, make_checkout

SHELL = re.compile(r"^ *```(sh|bash|shell|console)?\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
_UNTAGGED = re.compile(r"#!|(?:sbatch|make|kdproxy|trainhooks|python3?|pip|pipx|uv|sh|sudo|docker|export) ")
PAGES = ["README.md", "CONTRIBUTING.md", "deploy/README.md", *sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")
)]  # fmt: skip
WAIT_SECONDS = 60.0

ROOT_ONLY = "it wants root, and changes the machine"
ENGINE = "it wants a Docker engine; the image's steps are tested in tests/deploy/test_dockerfile.py"
CLUSTER = "it wants a cluster"
SUITE = "it is this suite, or its CI"

NOT_RUN = {
    ("README.md", "make test"): SUITE,
    ("CONTRIBUTING.md", "make test"): SUITE,
    ("CONTRIBUTING.md", "make check"): SUITE,
    ("deploy/README.md", "sudo chown 10001"): ROOT_ONLY,
    ("deploy/README.md", "docker build"): ENGINE,
    ("deploy/README.md", "sudo docker run"): ENGINE,
    ("deploy/README.md", "sudo docker compose"): ENGINE,
    ("deploy/README.md", "sudo python3 -m venv /opt/kdproxy"): ROOT_ONLY,
    ("deploy/README.md", "sudo /opt/kdproxy/bin/pip install"): ROOT_ONLY,
    ("deploy/README.md", "sudo install -m 0644 deploy/kdproxy.service"): ROOT_ONLY,
    ("deploy/README.md", "sudo systemctl"): ROOT_ONLY,
    ("deploy/README.md", "journalctl"): ROOT_ONLY,
    ("deploy/README.md", "sbatch"): CLUSTER,
    ("docs/preemption.md", "sbatch"): CLUSTER,
    ("docs/preemption.md", "TORCHELASTIC_SIGNALS_TO_HANDLE"): CLUSTER,
}
"""(page, beginning of a command) -> why it is not run."""

ELSEWHERE = {
    ("docs/integration.md", ""): "tests/docs/test_integration.py",
    ("docs/cli.md", "kdproxy serve --port 0 --port-file"): "tests/deploy/test_slurm.py",
    ("docs/cli.md", "exports=$(kdproxy ready"): "tests/deploy/test_slurm.py",
    ("docs/cli.md", 'eval "$exports"'): "tests/deploy/test_slurm.py",
    ("docs/install.md", 'eval "$(_KDPROXY_COMPLETE'): "tests/house/test_dist.py",
    ("docs/install.md", 'eval "$(_TRAINHOOKS_COMPLETE'): "tests/house/test_dist.py",
    ("docs/training.md", "trainhooks rehearse"): "tests/trainhooks/cli/test_rehearse.py",
    ("docs/troubleshooting.md", "export NO_PROXY"): "tests/e2e/test_first_contact.py",
    ("deploy/README.md", "install -d -m 0700 ~/.config/kdproxy"): "tests/deploy/test_recipes.py",
    ("deploy/README.md", "(umask 077; python3"): "tests/deploy/test_recipes.py",
    ("deploy/README.md", "sudo install -d -m 0755 /etc/kdproxy"): "tests/deploy/test_recipes.py",
    ("deploy/README.md", "sudo install -m 0644 deploy/kdproxy.example.toml"): "tests/deploy/test_recipes.py",
    ("deploy/README.md", "python3 -c 'import secrets"): "tests/deploy/test_recipes.py",
    ("deploy/README.md", "printf 'OPENAI_API_KEY"): "tests/deploy/test_recipes.py",
}
"""(page, beginning of a command) -> the test that types it."""


def commands(page: str) -> list[str]:
    """Return the commands of a page's shell blocks: lines joined, comments dropped."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for language, block in SHELL.findall(text):
        if not language and not _UNTAGGED.match(block):
            continue
        if "#SBATCH" in block:
            found.append("sbatch SCRIPT")
            continue
        for line in block.replace("\\\n", " ").splitlines():
            stripped = re.sub(r"(?:^|\s)#.*", "", line).strip()
            if stripped:
                found.append(re.sub(r"\s+", " ", stripped) if "'" not in stripped else stripped)
    return found


def known(page: str, command: str, table: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    return [key for key in table if key[0] == page and command.startswith(key[1])]


@dataclass(kw_only=True)
class Terminal:
    """One shell of the reader, which keeps what was exported; and what runs in the background."""

    checkout: Checkout
    cwd: Path
    environment: dict[str, str]
    fill_in: dict[str, str] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    is_activated: bool = False

    def filled_in(self, command: str) -> str:
        for name, value in self.fill_in.items():
            command = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", value, command)
        return command

    def type(self, command: str, *, code: int = 0) -> str:
        """Type one command; what it exports stays."""
        self.typed.append(command)
        text = self.filled_in(command)
        if text == ". .venv/bin/activate":
            self.is_activated = True
        if match := re.fullmatch(r"export (\w+)=(\S+)", text):
            self.environment[match[1]] = match[2]
            return ""
        done = self.checkout.sh(text, self.environment, is_activated=self.is_activated, cwd=self.cwd)
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        self.outputs[command] = done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def background(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """Type a command that stays, and interrupt it on the way out as Ctrl-C does."""
        self.typed.append(command)
        with subprocess.Popen(
            ["sh", "-euc", f"exec {self.filled_in(command)}"],
            cwd=self.cwd,
            env=self.checkout.environment(self.environment, is_activated=self.is_activated),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
                said: list[str] = []
                reader = threading.Thread(target=lambda: said.append(process.stdout.read() if process.stdout else ""))
                reader.start()
                reader.join(WAIT_SECONDS)
                self.outputs[command] = "".join(said)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_listening(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        with contextlib.suppress(URLError, ConnectionError), urlopen(f"http://127.0.0.1:{port}/_kdproxy/healthz"):
            return
        time.sleep(0.05)
    raise AssertionError("it does not listen")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return make_checkout(tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def teacher_port(checkout: Checkout) -> Iterator[int]:
    """The scripted teacher as a process of its own, on loopback."""
    port = free_port()
    command = [str(checkout.bin / "python"), "-m", "kdproxy.testing.teacher", "--port", str(port)]
    with subprocess.Popen(command, cwd=checkout.path, env=checkout.environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield port
        process.terminate()


def calls(teacher_port: int) -> dict[str, int]:
    with urlopen(f"http://127.0.0.1:{teacher_port}/_teacher/calls") as reply:
        counts: dict[str, int] = json.load(reply)["by_path"]
    return counts


def test_the_tour_of_the_readme(checkout: Checkout, teacher_port: int) -> None:
    """Two runs of a script, the second for free; then each line of the table of commands."""
    port = free_port()
    settings = {
        "KDPROXY_UPSTREAM": f"teacher=http://127.0.0.1:{teacher_port}/v1",
        "KDPROXY_PORT": str(port),
        "OPENAI_API_KEY": "of-the-test",
    }
    prompts = checkout.path / "examples" / "prompts.txt"
    script = checkout.path / "your_distillation_script.py"
    script.write_text((checkout.path / "examples" / "distill_openai.py").read_text())
    (checkout.path / "prompts.txt").write_text("\n".join(prompts.read_text().splitlines()[:3]))
    one, other = (
        Terminal(checkout=checkout, cwd=checkout.path, environment=dict(settings), fill_in={"8400": str(port)})
        for _ in range(2)
    )
    typed = commands("README.md")
    serve, *rest = [command for command in dict.fromkeys(typed) if not known("README.md", command, NOT_RUN)]
    with one.background(serve) as process:
        wait_until_listening(port, process)
        for command in rest:
            other.type(command)
        other.type(rest[-1])
        assert calls(teacher_port)["/v1/chat/completions"] == 3
        rows = (checkout.path / "train-openai.jsonl").read_text().count("\n")
        assert rows == 3
        table = re.findall(
            r"^\| [^|]+ \| `((?:kdproxy|trainhooks) [^`]+)`", (ROOT / "README.md").read_text(), re.MULTILINE
        )
        assert len(table) >= 6
        (checkout.path / "api_recovery.jsonl").write_bytes((ROOT / "tests" / "data" / "journal_v2.jsonl").read_bytes())
        for command in table:
            if not command.startswith("kdproxy serve"):
                other.type(command)
    assert sorted({*one.typed, *other.typed} & set(typed)) == sorted({serve, *rest})
    (replay,) = [command for command in table if command.startswith("kdproxy serve")]
    with other.background(replay) as process:
        wait_until_listening(port, process)
        other.type(rest[-1])  # all of it is there: replay answers
    assert checkout.git("status", "--porcelain", "--", "kdproxy-data") == ""
    assert (checkout.home / "kdproxy-data" / "api_recovery.jsonl").is_file()


def test_what_serve_prints_on_a_laptop(checkout: Checkout, teacher_port: int) -> None:
    """deploy/README.md: the lines that it shows are those that `make serve` prints."""
    page = "deploy/README.md"
    serve, export = [
        command
        for command in commands(page)
        if not known(page, command, NOT_RUN) and not known(page, command, ELSEWHERE)
    ][:2]
    assert export == "export OPENAI_BASE_URL=http://127.0.0.1:8400/v1"
    port = free_port()
    terminal = Terminal(
        checkout=checkout,
        cwd=checkout.path,
        environment={"KDPROXY_PORT": str(port), "KDPROXY_UPSTREAM": f"http://127.0.0.1:{teacher_port}/v1"},
    )
    with terminal.background(serve) as process:
        wait_until_listening(port, process)
    assert export.replace("8400", str(port)) in terminal.outputs[serve]


RUN = """
from trainhooks import training_progress_context
for name in ("a", "b"):
    with training_progress_context({"run_name": name, "lr": 0.1}, f"runs/{name}", 10) as progress:
        for step in range(10):
            progress.update_metrics(step, loss=1 / (step + 1))
"""


@pytest.mark.parametrize("page", ["docs/recovery.md", "docs/training.md"])
def test_looking_at_a_run(checkout: Checkout, tmp_path: Path, page: str) -> None:
    done = checkout.sh(f"python -c {shlex.quote(RUN)}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    terminal = Terminal(
        checkout=checkout, cwd=tmp_path, environment={}, fill_in={"DIR": "runs/a", "NAME": "a"}, is_activated=True
    )
    typed = [command for command in commands(page) if not known(page, command, ELSEWHERE)]
    for command in typed:
        if " -f " not in command:
            terminal.type(command)
            continue
        with terminal.background(command) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("step 0")
        assert "Traceback" not in terminal.outputs[command]
    assert terminal.typed == typed


def test_setting_up_twice_installs_nothing(checkout: Checkout) -> None:
    page = "CONTRIBUTING.md"
    terminal = Terminal(checkout=checkout, cwd=checkout.path, environment={})
    for command in commands(page):
        if not known(page, command, NOT_RUN):
            assert "installing" not in terminal.type(command)
    assert terminal.typed == ["make setup"]


RUN_HERE = {
    "README.md": test_the_tour_of_the_readme,
    "CONTRIBUTING.md": test_setting_up_twice_installs_nothing,
    "docs/recovery.md": test_looking_at_a_run,
    "docs/training.md": test_looking_at_a_run,
}
LAPTOP = ("make serve", "export OPENAI_BASE_URL=http://127.0.0.1:8400/v1")


@pytest.mark.parametrize("page", PAGES)
def test_no_command_is_a_promise_alone(page: str) -> None:
    """Each is run here, typed by another test, or has its reason in NOT_RUN; and no reason is left over."""
    promises = [
        command
        for command in commands(page)
        if page not in RUN_HERE
        and not (page == "deploy/README.md" and command in LAPTOP)
        and not known(page, command, NOT_RUN)
        and not known(page, command, ELSEWHERE)
    ]
    assert promises == []
    used = {key for table in (NOT_RUN, ELSEWHERE) for command in commands(page) for key in known(page, command, table)}
    assert {key for table in (NOT_RUN, ELSEWHERE) for key in table if key[0] == page} == used


def test_the_tests_elsewhere_read_the_page_or_hold_what_the_command_is_about() -> None:
    """The page's name, or the longest word of the command, in the test or in a script of deploy/ that it runs."""
    scripts = [path for path in (ROOT / "deploy").iterdir() if path.suffix in (".sh", ".sbatch")]
    for (page, command), test in ELSEWHERE.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        text += "".join(path.read_text(encoding="utf-8") for path in scripts if path.name in text)
        word = max(
            re.findall(r"[A-Za-z]+", command.replace("KDPROXY", "").replace("TRAINHOOKS", "")), key=len, default=page
        )
        assert Path(page).name in text or word in text, (page, command, test)


SPAN = re.compile(r"`((?:kdproxy|trainhooks|make|python examples/|sh deploy/)[^`\n]*)`")


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_a_sentence_exist_with_their_options(page: str) -> None:
    """`kdproxy VERB --option`, `make TARGET` and scripts, wherever a sentence or a table names them."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    wrong = [span for span in SPAN.findall(text) if (problem := _problem(span)) and problem]
    assert wrong == []


def _problem(span: str) -> str | None:
    program, *words = span.split()
    if program == "make":
        return None if not words or re.search(rf"^{words[0]}:", _makefile(), re.MULTILINE) else "no such target"
    if program in ("python", "sh"):
        return None if (ROOT / words[0]).is_file() else "no such file"
    if program not in ("kdproxy", "trainhooks"):
        return None  # a name that begins so
    from kdproxy.cli.main import main as kdproxy
    from trainhooks.cli.main import main as trainhooks

    command: click.Command | None = kdproxy if program == "kdproxy" else trainhooks
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z]+", words[0]):
        command = command.get_command(click.Context(command), words.pop(0))
        if command is None:
            return "no such verb"
    assert command is not None
    taken = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {
        "--help",
        "-h",
        "--version",
    }
    words = words[: words.index("--")] if "--" in words else words  # what follows is another program's
    options = [word.partition("=")[0].strip(",;:.") for word in words if word.startswith("--")]
    return next((option for option in options if option not in taken), None)


def _makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")
