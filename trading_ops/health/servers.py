"""Do MongoDB, Redis and RabbitMQ do what they are there for, beyond taking a connection?"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit

from amqp import AMQPError, Connection, NotFound
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from trading_ops.audit.mongo_client import MongoServer
from trading_ops.audit.store import StoreUnavailable
from trading_ops.health.checkup import ProbeFailed
from trading_ops.health.rules import Limits, Verdict, judge_answer, judge_queues
from trading_ops.notifications.channels.redaction import Redaction

AMQP_PORTS = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671}


def look_at_mongodb(uri: str, limits: Limits, *, timeout_s: float) -> Verdict:
    """The replica set's primary answers a ping; raises ProbeFailed where there is none or it does not."""
    server = MongoServer(uri, timeout_s)
    began = time.monotonic()
    try:
        server.ping()
    except StoreUnavailable as error:
        raise ProbeFailed(str(error)) from None
    finally:
        server.close()
    return judge_answer("document_db", time.monotonic() - began, limits)


def look_at_redis(url: str, limits: Limits, *, timeout_s: float) -> Verdict:
    """Redis answers PING, which it refuses while it loads its data or cannot save them.

    Raises ProbeFailed where nobody answers.
    """
    began, told = time.monotonic(), Redaction(unquote(urlsplit(url).password or ""))
    try:
        with Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        ) as server:
            connection = server.connection_pool.make_connection()
            try:
                with _broken_off(timeout_s, lambda: connection._sock):
                    connection.connect()
                    connection.send_command("PING")
                    connection.read_response()
            finally:
                connection.disconnect()
    except (ResponseError, AuthenticationError, BusyLoadingError) as error:
        return judge_answer("cache", time.monotonic() - began, limits, complaint=told(str(error)))
    except (RedisError, OSError) as error:
        raise ProbeFailed(told(str(error))) from None
    return judge_answer("cache", time.monotonic() - began, limits)


def look_at_rabbitmq(url: str, queues: Sequence[str], limits: Limits, *, timeout_s: float) -> Verdict:
    """RabbitMQ lets us in, and its queues are worked off; one that was never declared holds nothing.

    Raises ProbeFailed where nobody answers.
    """
    broker = urlsplit(url)
    password = unquote(broker.password or "guest")
    began, told = time.monotonic(), Redaction(password)
    connection = Connection(
        host=f"{broker.hostname}:{broker.port or AMQP_PORTS[broker.scheme]}",
        userid=unquote(broker.username or "guest"),
        password=password,
        virtual_host=unquote(broker.path[1:]) or "/",
        ssl={"server_hostname": broker.hostname} if broker.scheme == "amqps" else False,  # else the name is not checked
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        write_timeout=timeout_s,
    )
    try:
        with _broken_off(timeout_s, lambda: connection.transport and connection.transport.sock):
            connection.connect()
            latency_s = time.monotonic() - began
            depths = _depths(connection, queues)
            connection.close()
    except AMQPError as error:
        return judge_answer("broker", time.monotonic() - began, limits, complaint=told(str(error)))
    except OSError as error:
        raise ProbeFailed(f"no connection to {broker.hostname}: {told(str(error))}") from None
    finally:
        connection.collect()  # also what was not closed in order
    return judge_queues(depths, latency_s, limits)


def _depths(connection: Connection, queues: Sequence[str]) -> Mapping[str, int]:
    """The messages that wait in each queue that there is."""
    depths = {}
    for queue in queues:
        channel = connection.channel()  # one each: a refusal ends it
        try:
            depths[queue] = int(channel.queue_declare(queue, passive=True).message_count)
            channel.close()
        except NotFound:
            continue
    return depths


@contextmanager
def _broken_off(timeout_s: float, socket_of: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Ends a connection with its time: a client bounds each read alone, so a server that drips could go on for ever.

    Raises TimeoutError then.
    """
    over = threading.Event()

    def break_off() -> None:
        over.set()
        if (open_socket := socket_of()) is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, break_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise TimeoutError(f"timed out: no whole answer within {timeout_s:g} s") from error
        raise
    finally:
        timer.cancel()
