"""The systemd unit: its directives are read everywhere, and judged by systemd itself where its tools are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "kdproxy.service"
# systemd-analyze security: 0 is shut in entirely, 10 not at all; its own word for up to 2.0 is "OK".
MAX_EXPOSURE = 1.5

HARDENING = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "ProtectProc": "invisible",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateUsers": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "StateDirectory": "kdproxy",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
}


def _directives() -> dict[str, dict[str, list[str]]]:
    """Section -> directive -> its values in order; systemd lets a directive stand more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, f"not a directive: {line}"
            sections.setdefault(section, {}).setdefault(name, []).append(value)
    return sections


def test_hardening_is_complete() -> None:
    service = _directives()["Service"]
    assert {name: service.get(name) for name in HARDENING} == {name: [value] for name, value in HARDENING.items()}
    assert service["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]


def test_listens_on_loopback_and_writes_its_state_directory_only() -> None:
    service = _directives()["Service"]
    (command,) = service["ExecStart"]
    assert "--host 127.0.0.1" in command
    assert "--data-dir ${STATE_DIRECTORY}" in command
    assert "ReadWritePaths" not in service


def test_secrets_come_as_credentials_or_files_never_as_values() -> None:
    service = _directives()["Service"]
    assert all(re.fullmatch(r"[a-z_]+:/etc/kdproxy/[a-z_]+", value) for value in service["LoadCredential"])
    assert "KDPROXY_TOKEN_FILE=%d/token" in service["Environment"]
    assert not [value for value in service["Environment"] if re.match(r"\w*(KEY|TOKEN)=", value)]


def test_stop_waits_longer_than_the_drain_and_a_crash_restarts() -> None:
    service = _directives()["Service"]
    assert int(service["TimeoutStopSec"][0]) > 60
    assert service["Restart"] == ["on-failure"]


@pytest.fixture
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd is not installed")
    return found


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """The unit with a command that exists: systemd refuses one that starts nothing."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/kdproxy/bin/kdproxy", "/bin/true"))
    return unit


def test_systemd_takes_the_unit(systemd_analyze: str, installed_unit: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", installed_unit], capture_output=True, text=True, timeout=60, check=False
    )
    # Anything that it says of our unit counts, an unknown directive (which it only ignores) too.
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, [])


def test_systemd_calls_the_exposure_low(systemd_analyze: str, installed_unit: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "security", "--no-pager", "--offline=true", installed_unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "offline" in done.stderr:
        pytest.skip("this systemd judges running units only (before release 250)")
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= MAX_EXPOSURE
