"""Do the probes see what real servers of MongoDB, Redis and RabbitMQ do, and what broken ones say?"""

import time

import pytest

from trading_ops.health.checkup import ProbeFailed
from trading_ops.health.rules import Limits, Status
from trading_ops.health.servers import look_at_mongodb, look_at_rabbitmq, look_at_redis
from trading_ops_tests.servers.bot import ScriptedServer, make_authority, raw_server, serving
from trading_ops_tests.servers.mongod import Mongod
from trading_ops_tests.servers.rabbitmq import queue_of, rabbitmq
from trading_ops_tests.servers.redis import redis_server

LIMITS = Limits()
PATIENCE_S = 5.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as host:
        yield host


def test_a_primary_that_answers_is_healthy(mongod):
    assert look_at_mongodb(mongod.address("health"), LIMITS, timeout_s=PATIENCE_S).status is Status.HEALTHY


def test_a_member_without_a_primary_is_no_answer(tmp_path):
    with Mongod(tmp_path / "db") as server:
        from pymongo import MongoClient

        with MongoClient(server.address("", directConnection="true")) as client:
            client.admin.command("replSetStepDown", 60, force=True)
        with pytest.raises(ProbeFailed, match="has no primary to write to at present"):
            look_at_mongodb(server.address("x", replicaSet="rs0"), LIMITS, timeout_s=1.0)


def test_a_mongod_that_hangs_or_is_gone_is_no_answer(tmp_path):
    with Mongod(tmp_path / "db") as server:
        uri = server.address("x", replicaSet="rs0")
        with server.frozen(), pytest.raises(ProbeFailed):
            look_at_mongodb(uri, LIMITS, timeout_s=0.5)
        assert look_at_mongodb(uri, LIMITS, timeout_s=PATIENCE_S).status is Status.HEALTHY
        server.kill()
        with pytest.raises(ProbeFailed, match="cannot be reached"):
            look_at_mongodb(uri, LIMITS, timeout_s=0.5)


def test_redis_answers_a_ping_with_the_right_password_only(tmp_path):
    with redis_server(tmp_path, "--requirepass", "ge:heim") as port:
        right, wrong = (f"redis://:{password}@127.0.0.1:{port}/0" for password in ("ge%3Aheim", "other"))
        assert look_at_redis(right, LIMITS, timeout_s=PATIENCE_S).status is Status.HEALTHY
        refused = look_at_redis(wrong, LIMITS, timeout_s=PATIENCE_S)
        assert refused.status is Status.UNHEALTHY
        assert "cache is unhealthy: " in refused.found
        assert "other" not in refused.found
    with pytest.raises(ProbeFailed, match="refused"):
        look_at_redis(right, LIMITS, timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    "says",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MISCONF Redis is configured to save RDB snapshots, but it cannot write on disk\r\n",
    ],
)
def test_a_redis_that_cannot_do_its_work_is_unhealthy(says):
    def refuse_all(connection, _):
        while True:
            connection.sendall(says)
            if not connection.recv(65_536):
                return

    with raw_server(refuse_all) as (address, _):
        verdict = look_at_redis(address.replace("http", "redis"), LIMITS, timeout_s=PATIENCE_S)
    assert verdict.status is Status.UNHEALTHY
    assert "Redis is" in verdict.found


@pytest.mark.parametrize(("messages", "status"), [(1000, Status.HEALTHY), (1001, Status.DEGRADED)])
def test_the_depth_of_a_queue_is_read_from_the_broker_B016(broker, messages, status):
    with queue_of(broker, messages) as queue:
        verdict = look_at_rabbitmq(
            f"amqp://guest:guest@{broker}//", [queue, "never declared"], LIMITS, timeout_s=PATIENCE_S
        )
    assert (verdict.status, verdict.numbers) == (status, {"depths": {queue: messages}})


@pytest.mark.parametrize(
    ("address", "said"),
    [("amqp://guest:geheim@{}//", "ACCESS_REFUSED"), ("amqp://guest:guest@{}/nowhere", "vhost nowhere not found")],
)
def test_a_broker_that_does_not_let_us_in_is_unhealthy(broker, address, said):
    verdict = look_at_rabbitmq(address.format(broker), [], LIMITS, timeout_s=PATIENCE_S)
    assert verdict.status is Status.UNHEALTHY
    assert said in verdict.found
    assert "geheim" not in verdict.found


def test_a_broker_that_is_gone_or_hangs_is_no_answer_B015():
    with pytest.raises(ProbeFailed, match="Connection refused"):
        look_at_rabbitmq("amqp://127.0.0.1:9//", [], LIMITS, timeout_s=PATIENCE_S)
    with raw_server(lambda connection, _: time.sleep(3)) as (address, _), pytest.raises(ProbeFailed, match="timed out"):
        look_at_rabbitmq(address.replace("http", "amqp"), [], LIMITS, timeout_s=0.3)


@pytest.mark.parametrize(
    ("host", "trusted", "said"),
    [("127.0.0.1", False, "unable to get local issuer certificate"), ("localhost", True, "Hostname mismatch")],
)
def test_no_login_goes_to_a_server_whose_certificate_is_not_the_brokers(tmp_path, monkeypatch, host, trusted, said):
    authority, certificate, key = make_authority(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with serving(ScriptedServer(), certificate=certificate, key=key) as address:
        port = address.rpartition(":")[2]
        with pytest.raises(ProbeFailed, match=said):
            look_at_rabbitmq(f"amqps://ops:geheim@{host}:{port}//", [], LIMITS, timeout_s=PATIENCE_S)
        with pytest.raises(ProbeFailed, match=said):
            look_at_redis(f"rediss://:geheim@{host}:{port}/0", LIMITS, timeout_s=PATIENCE_S)


def test_a_server_that_repeats_the_password_tells_it_to_nobody():
    def repeat(connection, _):
        while True:
            connection.sendall(b"-ERR you said geheimnis\r\n")
            if not connection.recv(65_536):
                return

    with raw_server(repeat) as (address, _):
        verdict = look_at_redis(address.replace("http://", "redis://:geheimnis@"), LIMITS, timeout_s=PATIENCE_S)
    assert verdict.status is Status.UNHEALTHY
    assert "you said [secret]" in verdict.found
