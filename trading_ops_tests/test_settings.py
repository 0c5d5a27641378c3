"""Is what the operator configured refused where it cannot be used, without telling a password?"""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

import trading_ops
from trading_ops.settings import InvalidSettings, load_settings, overruled_variables, unknown_variables
from trading_ops.watchdog.rules import WATCHDOG_SILENT
from trading_ops_tests.conftest import QuietSettings
from trading_ops_tests.test_definitions import HEAVY, bare

ROOT = Path(trading_ops.__file__).parents[1]
WRONG = [
    "localhost:27017/trail",
    "postgres://ops:gehe@im@db/trail",
    "mongodb://",
    "mongodb://ops:gehe/im@db/trail",
    "mongodb://ops:gehe@im@db/trail",
    "mongodb://ops:gehe%im@db/trail",
    "mongodb://ops:geheim@db:port/trail",
    "mongodb://ops:geheim@db/trail?tsl=true",
    "mongodb://ops:geheim@db/?tls=true&tlsCAFile=/no/ca.pem",
    "mongodb+srv://ops:geheim@db:27017/trail",
]
RIGHT = [
    "mongodb://db/trail",
    "mongodb://ops:p%2Fw%40rd@db:27017,db2:27017/trail?replicaSet=rs0&authSource=admin",
    "mongodb+srv://ops:geheim@cluster.invalid/trail",
]


@pytest.fixture(autouse=True)
def _no_env_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("variable", ["MONGODB_URI", "TRADING_OPS_COPY_TO"])
@pytest.mark.parametrize("address", WRONG)
def test_an_address_that_mongodb_would_refuse_is_named_and_not_told(monkeypatch, variable, address):
    monkeypatch.setenv(variable, address)
    with pytest.raises(InvalidSettings, match=f"^{variable}: .*give ") as refused:
        load_settings()
    assert "gehe" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("name", ["mongodb_uri", "copy_to"])
def test_a_refused_address_is_not_told_by_the_settings_themselves(name):
    with pytest.raises(ValidationError) as refused:
        QuietSettings(**{name: "mongodb://ops:geheim@db/trail?tsl=true"})
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("address", RIGHT)
def test_an_address_that_can_be_one_is_taken_without_asking_anybody(monkeypatch, address):
    monkeypatch.setenv("MONGODB_URI", address)
    monkeypatch.setenv("TRADING_OPS_COPY_TO", address)
    settings = load_settings()
    assert settings.store_uri == address
    assert "geheim" not in repr(settings)


def test_a_copy_may_go_to_sqlite_and_the_file_is_not_made_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("TRADING_OPS_COPY_TO", "sqlite:///new/audit.db")
    assert load_settings().copy_to is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["TRADING_OPS_STORE", "TRADING_OPS_COPY_TO"])
@pytest.mark.parametrize("address", ["sqlite:audit.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///a/", "audit.db"])
def test_a_file_that_sqlite_could_not_open_is_refused(monkeypatch, variable, address):
    monkeypatch.setenv(variable, address)
    with pytest.raises(InvalidSettings, match=f"^{variable}: .*give sqlite:///relative.db"):
        load_settings()


def test_a_plain_configuration_imports_no_driver(tmp_path):
    code = f"import sys, trading_ops.settings as s; s.load_settings(); print([m for m in {HEAVY} if m in sys.modules])"
    assert bare(code, tmp_path).stdout == "[]\n"


def test_an_impossible_address_is_named_when_the_definitions_load(tmp_path):
    done = bare("import trading_ops.definitions", tmp_path, MONGODB_URI="mongodb://ops:gehe/im@db/trail")
    assert done.returncode == 1
    assert "InvalidSettings: MONGODB_URI: " in done.stderr.splitlines()[-1]
    assert "gehe" not in done.stderr


@pytest.mark.parametrize("name", ["MONGODB_URL", "MONGODB_URIS", "MONGO_URI", "MONGO_URL", "TRADING_OPS_STORES"])
def test_a_slip_in_a_name_is_found_in_the_environment_and_in_the_env_file(monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "x")
    assert unknown_variables() == [name]
    monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{name}=x\n")
    assert unknown_variables() == [name]


def test_what_compose_and_a_cluster_set_is_no_slip(monkeypatch):
    for name in ("MONGODB_URI", "MONGO_USERNAME", "MONGO_PASSWORD", "MONGODB_PORT", "MONGODB_PORT_27017_TCP",
                 "MONGODB_SERVICE_HOST", "TRADING_OPS_STORE", "TRADING_OPS_MONGODB_URI"):  # fmt: skip
        monkeypatch.setenv(name, "x")
    assert unknown_variables() == []


def test_the_limits_of_single_strategies_are_read(monkeypatch):
    monkeypatch.setenv("TRADING_OPS_GUARD_LIMITS", "rsi=daily_loss_pct:5, consecutive_losses:8; macd=daily_loss_pct:20")
    read = {"rsi": {"daily_loss_pct": 5.0, "consecutive_losses": 8.0}, "macd": {"daily_loss_pct": 20.0}}
    assert load_settings().guard_limits == read


@pytest.mark.parametrize(
    "text", ["rsi", "rsi=loss:5", "rsi=daily_loss_pct:x", "=daily_loss_pct:5", "rsi=consecutive_losses:0.5"]
)
def test_a_limit_that_is_none_is_refused_with_what_would_be_right(monkeypatch, text):
    monkeypatch.setenv("TRADING_OPS_GUARD_LIMITS", text)
    with pytest.raises(InvalidSettings, match=r"TRADING_OPS_GUARD_LIMITS: .*rsi=daily_loss_pct:5; the limits"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("TRADING_OPS_REDIS_URL", "localhost:6379"),
        ("TRADING_OPS_REDIS_URL", "redis://"),
        ("TRADING_OPS_REDIS_URL", "redis://:gehe/im@cache:6379/0"),
        ("TRADING_OPS_REDIS_URL", "redis://:12/gehe@cache/0"),
        ("TRADING_OPS_REDIS_URL", "redis://:gehe#im@cache/0"),
        ("TRADING_OPS_BROKER_URL", "redis://:geheim@cache/0"),
        ("TRADING_OPS_BROKER_URL", "amqp://ops:gehe/im@mq//"),
        ("TRADING_OPS_BROKER_URL", "amqp://ops:geheim@mq:port//"),
    ],
)
def test_an_address_of_a_server_that_cannot_be_one_is_named_and_not_told(monkeypatch, variable, address):
    monkeypatch.setenv(variable, address)
    with pytest.raises(InvalidSettings, match=f"^{variable}: .*give ") as refused:
        load_settings()
    assert "gehe" not in str(refused.value)


def test_the_health_settings_are_read_as_they_are_written(monkeypatch):
    monkeypatch.setenv("TRADING_OPS_REDIS_URL", "rediss://:p%2Fw%40rd@cache:6380/1")
    monkeypatch.setenv("TRADING_OPS_BROKER_URL", "amqp://ops:geheim@mq/trading")
    monkeypatch.setenv("TRADING_OPS_HEALTH_EXPECTED", "engine=403; frontend = 401, 403")
    monkeypatch.setenv("TRADING_OPS_HEALTH_OFF", "disk, memory")
    settings = load_settings()
    assert settings.health_expected == {"engine": (403,), "frontend": (401, 403)}
    assert settings.health_off == ("disk", "memory")
    assert "geheim" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TRADING_OPS_HEALTH_EXPECTED", "disk=403", "give such as engine=403"),
        ("TRADING_OPS_HEALTH_EXPECTED", "engine=ok", "give such as engine=403"),
        ("TRADING_OPS_HEALTH_OFF", "redis", "no component is called redis"),
        ("TRADING_OPS_HEALTH_DISK_WARNING_PCT", "95", "must not exceed TRADING_OPS_HEALTH_DISK_CRITICAL_PCT"),
        ("TRADING_OPS_FRONTEND_URL", "http://ops:geheim@web", "must hold no name or password"),
        ("TRADING_OPS_HEALTH_TIMEOUT_S", "12", "less than or equal to 11"),
    ],
)
def test_a_health_setting_that_cannot_be_is_named(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=said):
        load_settings()


@pytest.mark.parametrize("value", ["14.9", "0", "-1", "nan", "inf"])
def test_a_patience_that_no_heartbeat_can_meet_is_refused(monkeypatch, value):
    monkeypatch.setenv("TRADING_OPS_WATCHDOG_STALE_S", value)
    with pytest.raises(InvalidSettings, match="TRADING_OPS_WATCHDOG_STALE_S"):
        load_settings()
    monkeypatch.setenv("TRADING_OPS_WATCHDOG_STALE_S", "15")
    assert load_settings().watchdog_stale_s == 15.0


@pytest.mark.parametrize("value", ["121", "inf", "nan", "0"])
def test_looks_of_the_watchdog_after_which_it_would_be_missed_are_refused(monkeypatch, value):
    monkeypatch.setenv("TRADING_OPS_WATCHDOG_INTERVAL_S", value)
    with pytest.raises(InvalidSettings, match="TRADING_OPS_WATCHDOG_INTERVAL_S"):
        load_settings()
    monkeypatch.setenv("TRADING_OPS_WATCHDOG_INTERVAL_S", "120")
    assert timedelta(seconds=2 * load_settings().watchdog_interval_s) < WATCHDOG_SILENT


def test_a_line_of_the_env_file_that_dagster_would_prefer_to_the_environment_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "TRADING_OPS_BOT_URL=\nTRADING_OPS_SYMBOLS=BTCUSDT\nNOTIFICATION_CHANNELS=\nOTHER=1\n"
    )
    assert overruled_variables() == []
    monkeypatch.setenv("TRADING_OPS_BOT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TRADING_OPS_SYMBOLS", "BTCUSDT")
    monkeypatch.setenv("OTHER", "2")
    assert overruled_variables() == ["TRADING_OPS_BOT_URL"]


def test_the_example_overrules_nothing_in_the_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    monkeypatch.setenv("NOTIFICATION_CHANNELS", "console")
    assert overruled_variables() == []


def test_the_settings_of_the_llm_are_read_as_they_are_written(monkeypatch):
    assert (load_settings().openai_api_key, load_settings().llm_calls_an_hour, load_settings().llm_prices) == (
        None,
        5,
        {},
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-geheim")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1")
    monkeypatch.setenv("OPENAI_MODEL", "org/llama3:8b")
    monkeypatch.setenv("TRADING_OPS_LLM_PRICES", " org/llama3:8b = 0.15/0.075/0.60; a=b=1/0/2.5 ;")
    settings = load_settings()
    assert settings.openai_model == "org/llama3:8b"
    assert settings.llm_prices == {"org/llama3:8b": ("0.15", "0.075", "0.60"), "a=b": ("1", "0", "2.5")}
    assert str(settings.openai_base_url) == "http://127.0.0.1:11434/v1"
    assert "geheim" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OPENAI_API_KEY", "sk-gehe im", "give the key alone"),
        ("OPENAI_API_KEY", "sk-geheüm", "give the key alone"),
        ("OPENAI_BASE_URL", "ftp://llm", "http"),
        ("OPENAI_BASE_URL", "https://ops:geheim@llm/v1", "the key is OPENAI_API_KEY"),
        ("OPENAI_BASE_URL", "https://llm/v1?key=geheim", "the key is OPENAI_API_KEY"),
        ("OPENAI_MODEL", "gpt 4", "OPENAI_MODEL"),
        ("OPENAI_API", "grpc", "'chat' or 'responses'"),
        ("OPENAI_TIMEOUT_S", "0", "greater than 0"),
        ("OPENAI_TIMEOUT_S", "nan", "OPENAI_TIMEOUT_S"),
        ("TRADING_OPS_LLM_CALLS_AN_HOUR", "-1", "greater than or equal to 0"),
        ("TRADING_OPS_LLM_PRICES", "my-model", "such as my-model=0.15/0.075/0.60"),
        ("TRADING_OPS_LLM_PRICES", "=1/1/1", "such as my-model=0.15/0.075/0.60"),
        ("TRADING_OPS_LLM_PRICES", "a=1/1", "such as my-model=0.15/0.075/0.60"),
        ("TRADING_OPS_LLM_PRICES", "a=1/1/-1", "such as my-model=0.15/0.075/0.60"),
        ("TRADING_OPS_LLM_PRICES", "a=1/1/nan", "such as my-model=0.15/0.075/0.60"),
        ("TRADING_OPS_LLM_PRICES", "a=1/1/1e3", "such as my-model=0.15/0.075/0.60"),
        ("TRADING_OPS_LLM_PRICES", "a=1/1/1; a=2/2/2", "each model once"),
    ],
)
def test_a_setting_of_the_llm_that_cannot_be_is_named(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=f"^{variable}: .*{said}|{said}.*") as refused:
        load_settings()
    assert variable in str(refused.value)
    assert "gehe" not in str(refused.value)
