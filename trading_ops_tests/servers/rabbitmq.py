"""How do the tests get a real RabbitMQ: the one of this machine, else one of their own, which takes long to start?"""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amqp import AMQPError, Connection

BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one in the PATH changes the user
START_S = 120


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """The host and port of a broker that lets guest in. Where there is none the test is skipped."""
    if _lets_in("127.0.0.1:5672"):
        yield "127.0.0.1:5672"
        return
    if not BINARY.exists():
        pytest.skip("no RabbitMQ: apt-get install rabbitmq-server")
    port, distribution = _free_port(), _free_port()
    (folder / "plugins").write_text("[].")
    env = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "RABBITMQ_NODENAME": f"t{uuid.uuid4().hex}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution), "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOGS": "-", "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"), "RABBITMQ_PID_FILE": str(folder / "pid"),
    }  # fmt: skip
    log = (folder / "log").open("wb")
    with log, subprocess.Popen([BINARY], env=env, stdout=log, stderr=log, start_new_session=True) as broker:
        try:
            until = time.monotonic() + START_S
            while not _lets_in(f"127.0.0.1:{port}"):
                assert time.monotonic() < until, (folder / "log").read_text()[-3_000:]
                assert broker.poll() is None, (folder / "log").read_text()[-3_000:]
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(broker.pid, signal.SIGKILL)


@contextmanager
def queue_of(host: str, messages: int) -> Iterator[str]:
    """A queue of its own that holds `messages`, and is gone afterwards."""
    name = f"trading_ops_tests.{uuid.uuid4().hex}"
    with Connection(host=host) as connection:
        channel = connection.channel()
        channel.confirm_select()
        channel.queue_declare(name, durable=False, auto_delete=False)
        try:
            fill(channel, name, messages)
            yield name
        finally:
            channel.queue_delete(name)


def fill(channel: object, queue: str, messages: int) -> None:
    """Publish to the default exchange, the last one confirmed: the others come before it."""
    from amqp import Message

    for number in range(messages):
        publish = channel.basic_publish_confirm if number == messages - 1 else channel.basic_publish  # type: ignore[attr-defined]
        publish(Message(""), routing_key=queue)


def _lets_in(host: str) -> bool:
    try:
        with Connection(host=host, connect_timeout=5, read_timeout=5):
            return True
    except (AMQPError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
