"""Is a channel that was chosen whole, and a slip named before anything runs?"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trading_ops.notifications.configuration import NEEDS
from trading_ops.services import Services
from trading_ops.settings import InvalidSettings, load_settings, unknown_variables
from trading_ops_tests.conftest import QuietSettings
from trading_ops_tests.test_definitions import HEAVY, bare

WHOLE = {
    "console": {},
    "slack": {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/GEHEIM"},
    "email": {"SMTP_HOST": "mail.example.org", "EMAIL_FROM": "ops@example.org", "EMAIL_TO": "a@example.org, b@x.org"},
    "discord": {"DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/GEHEIM"},
    "telegram": {"TELEGRAM_BOT_TOKEN": "123:GEHEIM", "TELEGRAM_CHAT_ID": "-100"},
    "pagerduty": {"PAGERDUTY_ROUTING_KEY": "GEHEIMkey"},
    "webhook": {"WEBHOOK_URL": "https://example.org/GEHEIM", "WEBHOOK_SECRET": "GEHEIM"},
}
BOT = {"SLACK_BOT_TOKEN": "xoxb-GEHEIM", "SLACK_CHANNEL": "#ops"}


@pytest.fixture(autouse=True)
def _no_env_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def refused(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    with pytest.raises(InvalidSettings) as error:
        load(monkeypatch, **environment)
    assert "GEHEIM" not in str(error.value)
    return str(error.value)


def test_every_channel_can_be_built_and_needs_only_what_there_is():
    assert set(WHOLE) == set(NEEDS)
    services = Services(QuietSettings())
    assert {name: services.channel(name).name for name in NEEDS} == {name: name for name in NEEDS}
    read = {str(field.validation_alias) for field in QuietSettings.model_fields.values()}
    assert {v for groups in NEEDS.values() for group in groups for v in group} <= read


@pytest.mark.parametrize("name", NEEDS)
def test_a_whole_channel_is_active_and_shows_no_secret(monkeypatch, name):
    settings = load(monkeypatch, NOTIFICATION_CHANNELS=name, **WHOLE[name])
    assert settings.active_channels == (name,)
    (channel,) = Services(settings).channels.values()
    assert channel.target != "not configured"
    assert "GEHEIM" not in f"{channel.target}{settings!r}{settings.model_dump()}"


@pytest.mark.parametrize(
    ("name", "missing"), [(name, variable) for name, variables in WHOLE.items() for variable in variables]
)
def test_a_channel_that_lacks_something_is_an_error_that_names_it(monkeypatch, name, missing):
    given = {variable: value for variable, value in WHOLE[name].items() if variable != missing}
    assert missing in refused(monkeypatch, NOTIFICATION_CHANNELS=name, **given)


@pytest.mark.parametrize(("missing", "given"), [tuple(BOT), tuple(BOT)[::-1]])
def test_of_two_ways_the_one_that_was_begun_is_named(monkeypatch, missing, given):
    said = refused(monkeypatch, NOTIFICATION_CHANNELS="slack", **{given: BOT[given]})
    assert said.endswith(f"the channel slack lacks {missing}")


def test_a_bot_is_enough_for_slack(monkeypatch):
    settings = load(monkeypatch, NOTIFICATION_CHANNELS="slack", **BOT)
    assert Services(settings).channels["slack"].target == "#ops, by a bot"


@pytest.mark.parametrize("listed", ["", " ", ",", " , "])
@pytest.mark.parametrize("enabled", ["", "true"])
def test_B102_enabled_with_an_empty_list_is_not_enabled(monkeypatch, listed, enabled):
    settings = load(monkeypatch, NOTIFICATIONS_ENABLED=enabled, NOTIFICATION_CHANNELS=listed)
    assert settings.active_channels == ()
    assert list(Services(settings).channels) == ["console"]


@pytest.mark.parametrize(
    ("listed", "active"),
    [(" slack, discord", ("slack", "discord")), (",slack", ("slack",)), ("Slack,SLACK , ", ("slack",))],
)
def test_B103_spaces_and_empty_places_in_the_list_are_no_channels(monkeypatch, listed, active):
    settings = load(monkeypatch, NOTIFICATION_CHANNELS=listed, **WHOLE["slack"], **WHOLE["discord"])
    assert settings.active_channels == active
    assert tuple(Services(settings).channels) == active


def test_B104_an_unknown_channel_names_the_variable_and_the_known_names(monkeypatch, tmp_path):
    said = refused(monkeypatch, NOTIFICATION_CHANNELS="slak, email")
    assert said.startswith("NOTIFICATION_CHANNELS: ")
    assert all(name in said for name in ("slak", *NEEDS))
    done = bare("import trading_ops.definitions", tmp_path, NOTIFICATION_CHANNELS="slak")
    assert done.returncode == 1
    assert "NOTIFICATION_CHANNELS" in done.stderr.splitlines()[-1]


def test_what_is_switched_off_goes_to_the_terminal_however_incomplete(monkeypatch):
    settings = load(monkeypatch, NOTIFICATIONS_ENABLED="false", NOTIFICATION_CHANNELS="slack,email")
    assert list(Services(settings).channels) == ["console"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SMTP_PORT", "smtp"), ("SMTP_PORT", "0"), ("SMTP_PORT", "70000"), ("SMTP_SECURITY", "tls"),
        ("EMAIL_FROM", "ops"), ("EMAIL_TO", "a@example.org, b"), ("EMAIL_TO", "a@x.org\nBcc: GEHEIM@x.org"),
        ("SLACK_WEBHOOK_URL", "hooks.slack.com/GEHEIM"), ("SLACK_WEBHOOK_URL", "http://hooks.slack.com/GEHEIM"),
        ("DISCORD_WEBHOOK_URL", "https:///GEHEIM"), ("DISCORD_WEBHOOK_URL", "http://discord.com/GEHEIM"),
        ("WEBHOOK_URL", "ftp://x/GEHEIM"), ("WEBHOOK_URL", "https://x:port/GEHEIM"),
        ("TELEGRAM_BOT_TOKEN", "123:GE HEIM"), ("PAGERDUTY_ROUTING_KEY", "GEHEIM\n2"), ("WEBHOOK_SECRET", "GEHEIMß"),
        ("SMTP_PASSWORD", "GEHEIMß"), ("SMTP_PASSWORD", "GEHEIM\udcff"), ("SMTP_USERNAME", "jürgen"),
        ("SMTP_USERNAME", "ops\udcff"), ("SMTP_PASSWORD", "GEHEIM\n"),
        ("DISCORD_WEBHOOK_URL", "https://discord.com/api/webhooks/1/GEHEIM#thread"),
        ("WEBHOOK_URL", "https://ops:GEHEIM@example.org/hook"), ("DISCORD_WEBHOOK_URL", "https://GEHEIM@discord.com/x"),
        ("SMTP_HOST", "smtp://mail.example.org"), ("SMTP_HOST", "mail.example.org:587"), ("SMTP_HOST", "[::1]:25"),
        ("SMTP_HOST", "mail.example.org/x"), ("SMTP_HOST", "ops@mail.example.org"), ("SMTP_HOST", "mail example.org"),
        ("NOTIFICATIONS_ENABLED", "perhaps"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_under_its_name_and_not_told(monkeypatch, variable, value):
    assert refused(monkeypatch, **{variable: value}).startswith(f"{variable}: ")


@pytest.mark.parametrize("name", ["slack_webhook_url", "telegram_bot_token", "webhook_secret"])
def test_a_refused_secret_is_not_told_by_the_settings_themselves(name):
    with pytest.raises(ValidationError) as error:
        QuietSettings(**{name: "GEHEIM mit Leerzeichen"})
    assert "GEHEIM" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SMTP_USERNAME": "ops"}, "lacks SMTP_PASSWORD"),
        ({"SMTP_PASSWORD": "GEHEIM"}, "lacks SMTP_USERNAME"),
        ({"SMTP_SECURITY": "none"}, "SMTP_SECURITY is none, which is for this machine alone"),
    ],
)
def test_half_a_login_and_mail_in_the_open_are_refused(monkeypatch, changes, said):
    assert said in refused(monkeypatch, NOTIFICATION_CHANNELS="email", **WHOLE["email"], **changes)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_mail_in_the_open_is_for_this_machine(monkeypatch, host):
    mail = {**WHOLE["email"], "SMTP_HOST": host, "SMTP_SECURITY": "None"}
    assert load(monkeypatch, NOTIFICATION_CHANNELS="email", **mail).smtp_security == "none"


@pytest.mark.parametrize("host", ["mail.example.org", "mail", "192.0.2.7", "2001:db8::7", " mail.example.org "])
def test_a_mail_server_is_a_name_or_an_address(monkeypatch, host):
    assert load(monkeypatch, SMTP_HOST=host).smtp_host == host.strip()


@pytest.mark.parametrize("name", ["NOTIFICATION_CHANNEL", "NOTIFICATIONS_CHANNELS", "NOTIFICATION_ENABLED"])
def test_a_slip_in_a_name_is_found(monkeypatch, name):
    monkeypatch.setenv(name, "slack")
    assert unknown_variables() == [name]


def test_channels_that_are_configured_cost_nothing_before_an_alert(tmp_path):
    code = f"import sys, trading_ops.definitions; print([m for m in {(*HEAVY, 'smtplib')} if m in sys.modules])"
    environment = {variable: value for whole in WHOLE.values() for variable, value in whole.items()}
    done = bare(code, tmp_path, NOTIFICATION_CHANNELS=",".join(NEEDS), **environment)
    assert "httpx" not in done.stdout, done.stderr
    assert done.returncode == 0
