"""Settings: who wins, what is refused, that all is told at once, and that no secret is shown."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdproxy.core.policy import Mode
from kdproxy.errors import ConfigError
from kdproxy.settings import Loaded, Settings, describe, load

NO_FILE = Path(os.devnull)
TOKEN = "a-token-of-enough-letters"


def loaded(flags: dict[str, Any] | None = None, toml: Path = NO_FILE, **environment: str) -> Loaded:
    return load(flags or {}, environment=environment, config=toml)


def problems(flags: dict[str, Any] | None = None, toml: Path = NO_FILE, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(flags, toml, **environment)
    return caught.value.problems


def toml(directory: Path, text: str) -> Path:
    path = directory / "some.toml"
    path.write_text(text)
    return path


def test_defaults_are_loopback_and_cache() -> None:
    found = loaded().settings
    assert (found.host, found.port, found.mode) == ("127.0.0.1", 8400, Mode.CACHE)
    assert found.token is None
    assert found.use_environment_proxy is False


def test_flags_over_variables_over_file_over_defaults(tmp_path: Path) -> None:
    file = toml(tmp_path, 'port = 1\nmode = "record"\nlog_level = "error"\n')
    found = loaded({"port": "3", "mode": None}, file, KDPROXY_PORT="2", KDPROXY_MODE="replay")
    assert (found.settings.port, found.settings.mode, found.settings.log_level) == (3, Mode.REPLAY, "error")
    assert found.origins["port"] == "flag"
    assert found.origins["mode"] == "KDPROXY_MODE"
    assert found.origins["log_level"] == str(file)
    assert found.origins["host"] == "default"


def test_the_file_here_is_read_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({}, environment={}).settings.port == 8400
    (tmp_path / "kdproxy.toml").write_text("port = 5")
    assert load({}, environment={}).settings.port == 5
    assert load({}, environment={"KDPROXY_CONFIG": os.devnull}).settings.port == 8400


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    (problem,) = problems(toml=tmp_path / "none.toml")
    assert "cannot be read" in problem
    (problem,) = problems(toml=toml(tmp_path, "port = = 1"))
    assert "is not TOML" in problem


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = toml(
        tmp_path, 'prot = 1\ntoken = "in the wrong place"\nread_seconds = true\n[upstreams.a]\nurl = "x"\nuri = 1\n'
    )
    found = problems({"port": "no"}, file, KDPROXY_MODE="fast", KDPROXY_HOST="0.0.0.0")
    assert len(found) == 8
    assert any("did you mean port" in problem for problem in found)
    assert any("a secret does not belong in the config" in problem for problem in found)
    assert not any("wrong place" in problem for problem in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("port", -1), ("port", 65_536), ("port", 1.5), ("port", True), ("port", ""), ("port", "8 400")),
        *(("read_seconds", 0), ("read_seconds", "nan"), ("read_seconds", "inf"), ("read_seconds", [])),
        *(("mode", 3), ("host", ""), ("host", 5), ("match_prompts", "perhaps"), ("log_level", "trace")),
        *(("allowed_hosts", 5), ("allowed_hosts", [1]), ("warm", 5), ("warm", [[]]), ("data_dir", "")),
        *(("data_dir", "~no-such-user/x"), ("warm", ["~no-such-user/x"]), ("token_file", "~no-such-user/x")),
        *(
            ("upstreams", 5),
            ("upstreams", [5]),
            ("upstreams", ["x"]),
            ("upstreams", {"a": "b"}),
            ("upstreams", {"a": {}}),
        ),
        ("upstreams", {"a": {"url": "http://h", "credential_env": 5}}),
        ("upstreams", {"a": {"url": "http://h", "credential_env": ""}}),
        ("upstreams", {"a": {"url": "http://h", "provider": ["openai"]}}),
        ("upstreams", {"a": {"url": "http://h", "provider": "cohere"}}),
        ("upstreams", {"a/b": {"url": "http://h"}}),
        ("upstreams", {"": {"url": "http://h"}}),
        ("upstreams", ["http://h:99999"]),
        ("upstreams", ["http://h:0"]),
        ("upstreams", ["http://"]),
        ("upstreams", ["http://h/ x"]),
        ("upstreams", ["http://[::1"]),
        ("upstreams", ["http://h/#f"]),
        ("upstreams", ["a=http://h", "a=http://i"]),
    ],
    ids=repr,
)
def test_a_wrong_value_is_one_problem_that_names_its_setting(name: str, value: Any) -> None:
    (problem,) = problems({name: value})
    assert problem.startswith(name)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "a", "provider"]), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([found.name for found in fields(Settings)][:-2]), ANYTHING, max_size=3))
def test_any_value_is_taken_or_reported(flags: dict[str, Any]) -> None:
    try:
        found = loaded(flags)
    except ConfigError:
        return
    json.dumps(describe(found))


def test_an_upstream_is_a_url_or_a_named_one() -> None:
    found = loaded({"upstreams": ("teacher=https://h/v1", "http://127.0.0.1:9000/v1")}).settings.upstreams
    assert [(upstream.name, upstream.url) for upstream in found] == [
        ("teacher", "https://h/v1"),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/v1"),
    ]
    assert loaded(KDPROXY_UPSTREAM="a=http://h,b=http://i").settings.upstreams[1].name == "b"


def test_a_credential_in_a_url_is_refused_and_not_repeated() -> None:
    for url in ("https://me:canary@host/v1", "https://host/v1?key=canary", "x=https://canary@host/v1"):
        for flags in ({"upstreams": (url,)}, {"upstreams": {"a": {"url": url}}}):
            assert "canary" not in "".join(problems(flags))
        assert "canary" not in "".join(problems(KDPROXY_UPSTREAM=url))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "box.lan", ""])
def test_a_bind_beyond_loopback_needs_a_token(host: str) -> None:
    assert problems({"host": host})
    if host:
        assert loaded({"host": host}, KDPROXY_TOKEN=TOKEN).settings.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_loopback_needs_none(host: str) -> None:
    assert loaded({"host": host}).settings.token is None


@pytest.mark.parametrize("token", ["", "short", "with space in the middle of it", "ünïcödé-token-0123456789", "a" * 15])
def test_a_weak_token_is_refused_and_not_repeated(token: str) -> None:
    found = problems(KDPROXY_TOKEN=token)
    assert "16 printable" in found[0]
    assert not token or token not in found[0]


def test_the_token_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    found = loaded({"token_file": str(file)})
    assert found.settings.token is not None
    assert found.settings.token.reveal() == TOKEN
    assert found.origins["token"] == "token_file"
    (problem,) = problems({"token_file": str(tmp_path / "none")})
    assert "cannot be read" in problem


def test_credentials_are_read_only_where_there_is_a_token_and_never_for_strangers(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        '[upstreams.mine]\nurl = "http://127.0.0.1:1"\ncredential_env = "MINE"\n'
        '[upstreams.openai]\nurl = "http://127.0.0.1:2"\n'
        '[upstreams.real]\nurl = "https://api.openai.com/v1"\n',
    )
    environment = {"MINE": "mine-secret", "OPENAI_API_KEY": "openai-secret", "ANTHROPIC_API_KEY": "x"}
    assert loaded(toml=file, **environment).settings.credentials == {}
    found = loaded(toml=file, KDPROXY_TOKEN=TOKEN, **environment).settings.credentials
    assert {name: [secret.reveal() for secret in secrets] for name, secrets in found.items()} == {
        "mine": ["mine-secret"],
        "real": ["openai-secret"],
    }
    (problem,) = problems(toml=file, KDPROXY_TOKEN=TOKEN)
    assert "MINE is not set" in problem


@pytest.mark.parametrize("value", ["first-canary\nsecond-canary", "canary\tkey", "canary-ünï"])
def test_a_credential_that_no_header_can_hold_is_reported_and_not_repeated(value: str) -> None:
    (problem,) = problems(KDPROXY_TOKEN=TOKEN, OPENAI_API_KEY=value)
    assert "OPENAI_API_KEY" in problem
    assert "canary" not in problem


def test_secrets_are_stars_wherever_they_are_shown() -> None:
    environment = {"KDPROXY_TOKEN": TOKEN, "OPENAI_API_KEY": "canary-credential"}
    found = loaded(**environment)
    assert found.settings.credentials["openai"][0].reveal() == "canary-credential"
    for text in (repr(found), str(found.settings), json.dumps(describe(found)), f"{found.settings.token}"):
        assert TOKEN not in text
        assert "canary" not in text


def test_every_setting_is_described() -> None:
    rows = describe(loaded())
    assert [row["name"] for row in rows] == [found.name for found in fields(Settings)]
    assert all(row["sentence"].endswith(".") for row in rows)


def test_an_upstream_without_a_scheme_is_shown_what_it_lacks() -> None:
    for bare, meant in {
        "localhost:8080/v1": "http://localhost:8080/v1",
        "127.0.0.1:9": "http://127.0.0.1:9",
        "api.together.xyz/v1": "https://api.together.xyz/v1",
        "vllm:8000": "https://vllm:8000",
    }.items():
        for value in ((bare,), (f"t={bare}",), {"t": {"url": bare}}):
            (problem,) = problems({"upstreams": value})
            assert f"did you mean {meant}?" in problem
            assert "(" + repr(bare) not in problem
    (problem,) = problems({"upstreams": {"a": {"url": "https://h"}, "t": {"url": "h/v1"}}})
    assert "upstreams.t.url" in problem
    (problem,) = problems({"upstreams": ("me:secret-canary@host/v1", "t=me:secret-canary@host")})
    assert "secret-canary" not in problem


def test_a_misspelt_variable_is_a_problem_like_any_other(tmp_path: Path) -> None:
    file = toml(tmp_path, "prot = 1\n")
    found = problems({"port": "no"}, file, KDPROXY_DATADIR="/x", KDPROXY_TOKENS="secret-canary", KDPROXY_NONSENSE="1")
    assert len(found) == 5
    assert "KDPROXY_DATADIR (environment): no such setting; did you mean KDPROXY_DATA_DIR?" in found
    assert any(problem.startswith("KDPROXY_NONSENSE (environment): no such setting") for problem in found)
    assert not any("secret-canary" in problem for problem in found)


def test_a_variable_that_an_upstream_names_is_known() -> None:
    tables = {"t": {"url": "http://h", "credential_env": "KDPROXY_TEACHER_KEY"}}
    found = loaded({"upstreams": tables}, KDPROXY_TEACHER_KEY="any", KDPROXY_TOKEN=TOKEN, KDPROXY_UPSTREAM="http://i")
    assert found.settings.upstreams[0].name == "t"


@pytest.mark.parametrize(
    ("flags", "is_loop"),
    [
        ({"upstreams": ("http://127.0.0.1:8400/v1",)}, True),
        ({"upstreams": ("http://localhost:8400/v1",)}, True),
        ({"upstreams": ("a=http://h", "t=http://127.0.0.1:9000"), "port": 9000}, True),
        ({"upstreams": ("http://[::1]:8400",), "host": "::1"}, True),
        ({"upstreams": ("http://10.1.2.3:8400",), "host": "10.1.2.3"}, True),
        ({"upstreams": ("http://127.0.0.1:8400",), "host": "0.0.0.0"}, True),
        ({"upstreams": ("http://127.0.0.1:8401/v1",)}, False),
        ({"upstreams": ("http://127.0.0.2:8400/v1",)}, False),
        ({"upstreams": ("http://10.1.2.3:8400",)}, False),
        ({"upstreams": ("http://127.0.0.1/v1",)}, False),
    ],
    ids=str,
)
def test_a_proxy_that_would_ask_itself_is_refused(flags: dict[str, Any], is_loop: bool) -> None:
    if not is_loop:
        assert loaded(flags, KDPROXY_TOKEN=TOKEN)
        return
    (problem,) = problems(flags, KDPROXY_TOKEN=TOKEN)
    assert "this proxy itself" in problem


def test_what_an_upstream_adds_to_the_key_and_leaves_out(tmp_path: Path) -> None:
    rules = "key_headers = ['X-Team-Route']\nignore = ['system[0].text~^x-billing:.*']\n"
    found = loaded(toml=toml(tmp_path, f"[upstreams.a]\nurl = 'http://127.0.0.1:1'\n{rules}"))
    [upstream] = found.settings.upstream_models()
    assert upstream.key_headers == ("x-team-route",)
    assert [str(rule) for rule in upstream.ignore] == ["system[0].text~^x-billing:.*"]
    assert "system[0].text~^x-billing:.*" in json.dumps(describe(found))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("key_headers = 'a b'", "must be a list of request headers"),
        ("key_headers = [1]", "must be a list of request headers"),
        ("key_headers = ['Authorization']", "authorization is a credential"),
        ("ignore = ['messages']", "must look like messages[0].content~REGEX"),
        ("ignore = ['a~(']", "no valid regular expression"),
        ("ignore = ['a~(?s).*']", "leaves out all text"),
        ("ignore = 3", "must be a list of texts"),
    ],
)
def test_what_stops_the_start_before_it_mixes_up_answers(tmp_path: Path, line: str, said: str) -> None:
    [problem] = problems(toml=toml(tmp_path, f"[upstreams.a]\nurl = 'http://127.0.0.1:1'\n{line}\n"))
    assert said in problem
    assert "upstreams.a" in problem
