"""Layers, names, and the one line that a bad setting stops the start with."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.config.load import FILE_VARIABLE, ConfigError, load
from llmproxy.config.settings import CachePolicy, LogLevel, Settings
from llmproxy.config.values import INSTRUCTIONS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``llmproxy.toml`` but the test's own."""
    monkeypatch.chdir(tmp_path)


def refusal(flags: dict[str, object] | None = None, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, env or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_setting_has_a_default_and_its_source() -> None:
    loaded = load({}, {})
    assert loaded.settings.port == 4141
    assert set(loaded.sources) == set(Settings.model_fields)
    assert set(loaded.sources.values()) == {"default"}


def test_each_layer_wins_over_the_ones_before_it() -> None:
    Path("llmproxy.toml").write_text("port = 1\nhost = '127.0.0.2'\ncache_max_size = 5\nhistory = false\n")
    env = {"LLMPROXY_PORT": "2", "LLMPROXY_HOST": "127.0.0.3"}
    loaded = load({"port": 3, "database_path": None}, env)
    assert (loaded.settings.port, loaded.sources["port"]) == (3, "flag")
    assert (loaded.settings.host, loaded.sources["host"]) == ("127.0.0.3", "environment LLMPROXY_HOST")
    assert (loaded.settings.cache_max_size, loaded.sources["cache_max_size"]) == (5, "llmproxy.toml")
    assert not loaded.settings.history
    assert loaded.sources["database_path"] == "default"


def test_the_environment_given_is_the_only_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPROXY_PORT", "7")
    assert load({}, {}).settings.port == 4141
    assert load({}).settings.port == 7


@pytest.mark.parametrize(
    ("variable", "name", "text", "value"),
    [
        ("CACHE_MAX_SIZE", "cache_max_size", "7", 7),
        ("CACHE_TTL_HOURS", "cache_ttl_hours", "0.5", 0.5),
        ("DATABASE_PATH", "database_path", "/x/y.db", Path("/x/y.db")),
        ("TASK_QUEUE_WORKERS", "task_queue_workers", "0", 0),
    ],
)
def test_bare_names_work_and_give_way_to_prefixed_ones(variable: str, name: str, text: str, value: object) -> None:
    loaded = load({}, {variable: text})
    assert getattr(loaded.settings, name) == value
    assert loaded.sources[name] == f"environment {variable}"
    both = load({}, {variable: text, f"LLMPROXY_{variable}": "9"})
    assert both.sources[name] == f"environment LLMPROXY_{variable}"


def test_the_bare_database_url_works() -> None:
    assert load({}, {"DATABASE_URL": "postgres://a:b@c/d"}).settings.database == "postgresql+asyncpg://a:b@c/d"


def test_other_bare_names_are_not_settings() -> None:
    assert load({}, {"PORT": "9", "HOST": "0.0.0.0"}).settings.port == 4141


def test_words_are_split_in_the_environment_and_listed_in_the_file() -> None:
    Path("llmproxy.toml").write_text('cors_origins = ["http://a", "http://b"]')
    settings = load({}, {"LLMPROXY_UPSTREAM": "http://one/v1, http://two/"}).settings
    assert settings.upstream == ("http://one", "http://two")
    assert settings.cors_origins == ("http://a", "http://b")


def test_instructions_are_added_to_the_usual_ones() -> None:
    Path("llmproxy.toml").write_text("[instructions]\npirate = 'Arr.'\ncode = 'Only code.'\n")
    from_file = load({}, {}).settings.instructions
    assert from_file == {**INSTRUCTIONS, "pirate": "Arr.", "code": "Only code."}
    from_environment = load({}, {"LLMPROXY_INSTRUCTIONS": '{"poet": "In verse."}'}).settings.instructions
    assert from_environment == {**INSTRUCTIONS, "poet": "In verse."}
    assert {"default", "concise", "code", "summarize", "translate"} <= load({}, {}).settings.instructions.keys()


@pytest.mark.parametrize("text", ["pirate", "[1]", '{"poet": 3}'])
def test_instructions_that_are_none_are_refused(text: str) -> None:
    assert "LLMPROXY_INSTRUCTIONS" in refusal(env={"LLMPROXY_INSTRUCTIONS": text})


def test_a_webhook_is_a_web_address() -> None:
    assert "LLMPROXY_WEBHOOK_URL" in refusal(env={"LLMPROXY_WEBHOOK_URL": "ftp://hooks.example/x"})
    assert load({}, {"LLMPROXY_WEBHOOK_URL": "https://hooks.example/x"}).settings.webhook_url


def test_an_empty_variable_counts_as_absent() -> None:
    assert load({}, {"LLMPROXY_PORT": "", "LLMPROXY_ADMIN_TOKEN": ""}).settings.admin_token is None


def test_a_path_from_a_higher_layer_replaces_the_url_below_it() -> None:
    url = {"DATABASE_URL": "postgres://a/b"}
    loaded = load({"database_path": "x.db"}, url)
    assert loaded.settings.database == "sqlite+aiosqlite:///x.db"
    assert loaded.sources["database_url"] == "default"
    same_layer = load({}, {**url, "DATABASE_PATH": "x.db"})
    assert same_layer.settings.database == "postgresql+asyncpg://a/b"


def test_the_file_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("port = 8")
    assert load({}, {FILE_VARIABLE: str(file)}).settings.port == 8
    assert load({}, {}, file).sources["port"] == str(file)


@pytest.mark.parametrize("content", [None, "port = ", b"\xff"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "broken.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(file) in refusal(env={FILE_VARIABLE: str(file)})


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    assert "LLMPROXY_PORT" in refusal(env={"LLMPROXY_PORTT": "1"})
    Path("llmproxy.toml").write_text("cache_polcy = 'all'")
    assert "cache_policy" in refusal()
    Path("llmproxy.toml").write_text("[server]\nport = 1")
    assert "'server'" in refusal()


@pytest.mark.parametrize(
    ("env", "line"),
    [
        (
            {"LLMPROXY_PORT": "x"},
            "port = 'x' (environment LLMPROXY_PORT): allowed is an integer from 0 to 65535",
        ),
        (
            {"CACHE_MAX_SIZE": "-1"},
            "cache_max_size = '-1' (environment CACHE_MAX_SIZE): allowed is an integer, 0 or more",
        ),
        (
            {"LLMPROXY_IDLE_TIMEOUT": "0"},
            "idle_timeout = '0' (environment LLMPROXY_IDLE_TIMEOUT): allowed is a number above 0",
        ),
        (
            {"LLMPROXY_TOTAL_TIMEOUT": "inf"},
            "total_timeout = 'inf' (environment LLMPROXY_TOTAL_TIMEOUT): allowed is a number, 0 or more",
        ),
        (
            {"LLMPROXY_HISTORY": "maybe"},
            "history = 'maybe' (environment LLMPROXY_HISTORY): allowed is true or false",
        ),
        (
            {"LLMPROXY_REPLAY": "slow"},
            "replay = 'slow' (environment LLMPROXY_REPLAY): allowed is one of fast, paced",
        ),
    ],
)
def test_a_bad_value_is_one_line_with_setting_value_and_what_is_allowed(env: dict[str, str], line: str) -> None:
    assert refusal(env=env) == line


def test_a_check_across_settings_is_one_line_too() -> None:
    assert "LLMPROXY_ADMIN_TOKEN" in refusal({"host": "0.0.0.0"})


def test_secrets_never_show() -> None:
    Path("llmproxy.toml").write_text("api_keys = ['alice:s3cret', 7]")
    assert "s3cret" not in refusal()
    Path("llmproxy.toml").unlink()
    line = refusal(env={"LLMPROXY_UPSTREAM": "ftp://me:s3cret@host"})
    assert "s3cret" not in line
    assert "http://" in line
    loaded = load({}, {"LLMPROXY_ADMIN_TOKEN": "s3cret"})
    assert "s3cret" not in repr(loaded)


@pytest.mark.parametrize(
    "keys",
    [
        "alice:,bob:kb",
        "alice: ,bob:kb",
        "alice:ka,bob:",
        ":ka",
        " :ka",
        ":",
        ",",
        " ",
        "ka,",
        ",ka",
        "alice:ka,,bob:kb",
        "alice:ka,alice:kb",
        "alice:ka,bob:ka",
        "ka,ka",
        "alice:ka,ka",
        "alice: ka",
        "alice:k\ta",
        "alice:k\na",
        "alice:k\u00e9",
        "alice:k\u200b",
        "al\nice:ka",
    ],
)
def test_keys_that_would_let_others_in_stop_the_start(keys: str) -> None:
    line = refusal(env={"LLMPROXY_API_KEYS": keys})
    assert line.startswith("api_keys = (hidden) (environment LLMPROXY_API_KEYS): key ")
    assert "\n" not in line
    assert not {"ka", "kb"} & {*re.findall("k[ab]", line)}


@pytest.mark.parametrize("key", ["alice:", "", " ", ":", "alice: ka"])
def test_keys_of_a_file_are_held_to_the_same(key: str) -> None:
    Path("llmproxy.toml").write_text(f"api_keys = ['bob:kb', '{key}']")
    assert refusal().startswith("api_keys = (hidden) (llmproxy.toml): key 2 ")


def test_keys_may_hold_all_that_a_header_can_say() -> None:
    keys = load({}, {"LLMPROXY_API_KEYS": "alice:sk-a:b/c+d==, bob smith:~!#, sk-alone"}).settings.api_keys
    assert [key.get_secret_value() for key in keys] == ["alice:sk-a:b/c+d==", "bob smith:~!#", "sk-alone"]


@pytest.mark.parametrize("name", ["admin_token", "upstream_api_key", "webhook_secret"])
@pytest.mark.parametrize("value", [" ", "\t", "\n", "\u00a0"])
def test_a_blank_secret_is_none(name: str, value: str) -> None:
    assert refusal(env={f"LLMPROXY_{name.upper()}": value}).startswith(f"{name} = (hidden) ")
    Path("llmproxy.toml").write_text(f"{name} = ''")
    assert refusal().startswith(f"{name} = (hidden) (llmproxy.toml): ")


@pytest.mark.parametrize("name", ["admin_token", "upstream_api_key"])
@pytest.mark.parametrize("value", [" s3cret", "s3cret\n", "s3cr\u00e9t"])
def test_what_no_header_can_say_is_no_secret(name: str, value: str) -> None:
    line = refusal(env={f"LLMPROXY_{name.upper()}": value})
    assert line.startswith(f"{name} = (hidden) ")
    assert "s3" not in line


def test_types_that_flags_carry_are_kept() -> None:
    settings = load({"log_level": LogLevel.DEBUG, "cache_policy": CachePolicy.OFF}, {}).settings
    assert settings.log_level is LogLevel.DEBUG
    assert settings.cache_policy is CachePolicy.OFF


@given(
    name=st.sampled_from(sorted(Settings.model_fields)),
    text=st.text(max_size=20).filter(lambda t: "\0" not in t),
)
def test_whatever_the_environment_holds_it_loads_or_is_refused_in_one_line(name: str, text: str) -> None:
    variable = f"LLMPROXY_{name.upper()}"
    try:
        told = load({}, {"LLMPROXY_ADMIN_TOKEN": "token", variable: text}).sources[name]
    except ConfigError as error:
        told = str(error)
    assert told in ("default", f"environment {variable}") or ("\n" not in told and name in told.lower())
