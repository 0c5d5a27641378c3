"""Does the platform at work write a secret anywhere: terminal, audit trail, outbox, Dagster's storage, logs?"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from trading_ops.bot.client import BotError
from trading_ops.services import Services
from trading_ops.settings import InvalidSettings, load_settings
from trading_ops_tests import processes
from trading_ops_tests.planted import FIELDS, VARIABLES, everything_below, forms, found_in, plant
from trading_ops_tests.servers.bot import make_authority
from trading_ops_tests.servers.mongod import Mongod
from trading_ops_tests.servers.smtp import MailServer
from trading_ops_tests.servers.vendors import Answer, Asked, VendorServer
from trading_ops_tests.test_cli import new_home

# Several commands in one process, and every host but this machine is a server that nobody trusts.
SESSION = """
import json, socket, sys, traceback
ask, untrusted = socket.getaddrinfo, int(sys.argv[1])
def here(host, port, *rest, **options):
    outside = host not in ("127.0.0.1", "localhost", None)
    return ask("127.0.0.1" if outside else host, untrusted if outside else port, *rest, **options)
socket.getaddrinfo = here
from trading_ops.cli.main import app
for line in json.loads(sys.argv[2]):
    print("$", *line, flush=True)
    try:
        app(line)
    except SystemExit as end:
        print("ended with", end.code, flush=True)
    except BaseException:
        traceback.print_exc()
from dagster import DagsterInstance, build_sensor_context
from trading_ops.definitions import SERVICES, defs
from trading_ops.defs.notifications import outbox_sensor
print(outbox_sensor(build_sensor_context(resources={"services": SERVICES})))
print(repr(SERVICES.settings), SERVICES.settings, SERVICES.store_label, SERVICES.bot_label)
with DagsterInstance.get() as instance:
    runs = instance.get_runs()
    print("dagster has", len(runs), "runs:", [run.status.value for run in runs])
    for run in runs:
        for entry in instance.all_logs(run.run_id):
            print(entry.user_message, entry)
"""


def echo(asked: Asked) -> Answer:
    """Refuses, and repeats everything it was told, the secrets too."""
    headers = ", ".join(f"{name} is {value}" for name, value in asked.headers.items())
    heard = f"{headers}; {asked.path}?{asked.query} {asked.body.decode('ascii', 'replace')}"
    told = {"error": heard, "message": heard, "description": heard, "errors": [asked.path, heard]}
    return Answer(400, told, {"X-Echo": asked.path})


def unfit(asked: Asked) -> Answer:
    """Takes it, but does not say so as the service does, and repeats what it was told."""
    return Answer(200, f"thanks for {asked.path} {asked.headers} {asked.body.decode('ascii', 'replace')}".encode())


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[VendorServer]:
    files = make_authority(tmp_path)
    with VendorServer(echo) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files[1], files[2])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return new_home(tmp_path / "home")


def session(home: Path, environment: dict[str, str], untrusted: VendorServer, *lines: str) -> str:
    """What the commands say, one after the other in one process."""
    env = {"PATH": f"{processes.BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), **environment}
    asked = json.dumps([line.split() for line in lines])
    script = home.parent / "session.py"
    script.write_text(SESSION)
    done = processes.run([str(script), str(untrusted.server_address[1]), asked], home, env, timeout_s=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def assert_unwritten(planted: dict[str, str], said: str, home: Path) -> None:
    found = {place: names for place, text in everything_below(home) if (names := found_in(text, planted))}
    if names := found_in(said, planted):
        found["the terminal"] = names
    assert found == {}


def variables(planted: dict[str, str], url: str, mongodb: str) -> dict[str, str]:
    """Every secret in its variable; addresses hold it as a path, or as a password."""
    values = dict(planted)
    for name in FIELDS:
        if name in ("redis_url", "broker_url"):
            scheme = {"redis_url": "redis", "broker_url": "amqp"}[name]
            values[name] = f"{scheme}://ops:{quote(planted[name], safe='')}@{url.partition('://')[2]}/0"
        elif name.endswith("_url"):
            values[name] = _address(url, planted[name])
        elif name in ("mongodb_uri", "copy_to"):
            values[name] = f"mongodb://ops:{quote(planted[name], safe='')}@{mongodb}/trail?timeoutMS=2000"
    return {VARIABLES[name]: value for name, value in values.items()}


def _address(url: str, secret: str) -> str:
    return f"{url}/{quote(secret, safe='')}?key={quote(secret, safe='')}"


CHOSEN = {
    "NOTIFICATION_CHANNELS": "console,slack,discord,telegram,pagerduty,webhook,email",
    "TELEGRAM_CHAT_ID": "-1001",
    "SMTP_HOST": "127.0.0.1",
    "SMTP_SECURITY": "none",
    "SMTP_USERNAME": "ops",
    "EMAIL_FROM": "ops@example.org",
    "EMAIL_TO": "a@example.org",
    "PYTHONWARNINGS": "ignore",
}


def test_no_secret_is_written_while_every_channel_fails_in_its_own_way(home: Path, untrusted: VendorServer):
    planted = plant()
    with (
        VendorServer(echo) as echoing,
        VendorServer(unfit) as wrong,
        MailServer(make_authority(home), "none") as mail,
    ):
        environment = {
            **variables(planted, echoing.url, "127.0.0.1:9"),
            **CHOSEN,
            "DISCORD_WEBHOOK_URL": _address(wrong.url, planted["discord_webhook_url"]),
            "SMTP_PORT": str(mail.port),
            "MONGODB_URI": "",
        }
        said = session(home, environment, untrusted, "backfill --days 1", "alerts list", "alerts list --json",
                       "alerts retry", "alerts test", "doctor", "health", "audit verify",
                       "history notifications --json")  # fmt: skip
    assert {len(server.asked) > 1 for server in (echoing, wrong)} == {True}
    for told in ("HTTP 400", "not Discord's answer", "certificate verify failed", "SMTP 535", "dagster has 1 runs"):
        assert told in said, told
    assert "Traceback" not in said
    assert_unwritten(planted, said, home)


def test_no_secret_is_written_while_neither_the_store_nor_the_bot_nor_a_channel_answers(
    home: Path, untrusted: VendorServer, mongod: Mongod
):
    """MongoDB knows no such user, the bot refuses and repeats the token, nobody listens where the channels are."""
    planted = plant()
    with VendorServer(echo) as bot:
        environment = {
            **variables(planted, "http://127.0.0.1:9", f"127.0.0.1:{mongod.port}"),
            **CHOSEN,
            "TRADING_OPS_BOT_URL": bot.url,
            "SMTP_PORT": "9",
        }
        said = session(home, environment, untrusted, "backfill --first 2025-03-01 --last 2025-03-01", "doctor",
                       "alerts list", "alerts test", "audit copy", "health --json")  # fmt: skip
    assert any(planted["bot_token"] in str(asked.headers) for asked in bot.asked)
    for told in ("no connection to 127.0.0.1", "failed", "127.0.0.1:9"):
        assert told in said, told
    assert_unwritten(planted, said, home)


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_that_is_refused_is_not_repeated(name: str, monkeypatch: pytest.MonkeyPatch):
    secret = plant()[name]
    monkeypatch.setenv(VARIABLES[name], f"ä {secret}\x7f://{secret}@")
    monkeypatch.setenv("TRADING_OPS_BOT_URL", "http://127.0.0.1")
    with pytest.raises((InvalidSettings, BotError), match=VARIABLES[name]) as refused:
        assert Services(load_settings()).bot
    assert found_in(f"{refused.value} {refused.getrepr(chain=True)}", {name: secret}) == []


def test_a_planted_secret_would_be_found():
    secret = "s3cret+/=%!x"
    dressed = [
        "c3VwZXI6czNjcmV0Ky89JSF4",  # super:
        "AG9wcwBzM2NyZXQrLz0lIXg=",  # \0ops\0
        "http://a:s3cret%2B%2F%3D%25%21x@b",
        '{"password": "s3cret+/=%!x"}',
        "7333637265742b2f3d252178",
    ]
    for text in dressed:
        assert found_in(text, {"x": secret}) == ["x"], text
    assert found_in("s3cret", {"x": secret}) == []
    assert min(map(len, forms(secret))) > 8
