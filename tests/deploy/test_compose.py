"""compose.yaml is read as data: what keeps the service shut in, and the money in flight safe, must stay in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def service(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["services"]["kdproxy"]
    return found


def test_no_port_is_open_beyond_this_host(service: dict[str, Any]) -> None:
    assert service["ports"] == ["127.0.0.1:8400:8400"]
    assert "network_mode" not in service


def test_service_is_shut_in(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "user"} & service.keys()


def test_no_secret_stands_in_the_file(document: dict[str, Any], service: dict[str, Any]) -> None:
    assert service["secrets"] == ["kdproxy_token"]
    assert set(document["secrets"]["kdproxy_token"]) == {"file"}
    assert [entry for entry in service["environment"] if not entry.startswith("KDPROXY_ALLOWED_HOSTS=")] == []
    assert [set(entry) for entry in service["env_file"]] == [{"path", "required"}]


def test_data_outlives_the_container_and_only_data_is_writable(
    document: dict[str, Any], service: dict[str, Any]
) -> None:
    writable = [mount for mount in service["volumes"] if not mount.endswith(":ro")]
    assert writable == ["data:/data"]
    assert "data" in document["volumes"]


def test_stop_waits_longer_than_the_drain(service: dict[str, Any]) -> None:
    assert int(service["stop_grace_period"].removesuffix("s")) > 60


def test_files_it_names_exist(service: dict[str, Any]) -> None:
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    # Nothing else of the checkout: an example that git tracks is no live config, and a secret has no place there.
    assert [mount for mount in service["volumes"] if mount.startswith(".")] == []


def test_health_check_asks_what_the_image_asks(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"][-1] in (FOLDER / "Dockerfile").read_text(encoding="utf-8")
