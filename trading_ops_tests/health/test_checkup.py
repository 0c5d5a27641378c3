"""Is everything looked at side by side, in time, and a second time where it is bad? Over real sockets."""

import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from trading_ops.health.checkup import Probe, ProbeFailed, check_up
from trading_ops.health.components import check_components
from trading_ops.health.rules import LABELS, Limits, Status, Verdict, judge_answer, worst
from trading_ops_tests.conftest import NOON
from trading_ops_tests.servers.bot import Says, ScriptedServer, Turns, drip, make_authority, raw_server, serving

HEALTH = "/api/health"
WELL = {"healthy": True, "now": NOON.isoformat(), "last_candle_at": NOON.isoformat()}
NOBODY = "http://127.0.0.1:9"
TOKEN = "geheim-token-0123456789"


def found(services: Any) -> dict[str, Verdict]:
    return {verdict.component: verdict for verdict in check_components(services)}


def seen(verdict: Verdict) -> tuple[Status, str, int]:
    return verdict.status, verdict.found, verdict.tries


@pytest.fixture
def web():
    """A server that is the bot under `/api/health`, the AI service under `/ai` and the frontend under `/`."""
    scripted = ScriptedServer({HEALTH: WELL, "/ai": {"ok": True}, "/": Says(b"<html>", content_type="text/html")})
    with serving(scripted) as address:
        yield address, scripted


@pytest.fixture
def watching(make_services, web):
    """Services of a bot, AI service and frontend that answer as scripted; no candles."""
    address, scripted = web
    usual = {"bot_url": address, "ai_service_url": f"{address}/ai", "frontend_url": address,
             "health_timeout_s": 2.0, "health_off": ("candles",)}  # fmt: skip
    return lambda **more: (make_services(**usual | more), scripted)


def test_a_fresh_machine_is_healthy_and_what_has_no_address_is_listed_and_not_bad(services):
    verdicts = check_components(services)
    assert [verdict.component for verdict in verdicts] == list(LABELS)
    by_name = {verdict.component: verdict.status for verdict in verdicts}
    for name in ("ai_service", "frontend", "document_db", "cache", "broker"):
        assert by_name[name] is Status.NOT_CONFIGURED
    assert by_name["engine"] is by_name["candles"] is Status.HEALTHY
    used = [verdict.numbers["used_pct"] for verdict in verdicts if verdict.component in ("disk", "memory")]
    assert all(0 < pct <= 100 for pct in used)


def test_what_is_switched_off_is_not_looked_at_and_not_bad(watching):
    services, scripted = watching(bot_url=None, health_off=("frontend", "disk", "candles", "engine"))
    verdicts = found(services)
    for name in ("frontend", "disk", "candles", "engine"):
        assert seen(verdicts[name]) == (Status.NOT_CONFIGURED, "switched off", 1)
    assert scripted.paths() == ["/ai"]


def test_services_that_answer_are_healthy_and_asked_once(watching):
    services, scripted = watching()
    verdicts = found(services)
    assert [verdicts[name].status for name in ("engine", "ai_service", "frontend")] == [Status.HEALTHY] * 3
    assert sorted(scripted.paths()) == ["/", "/ai", HEALTH]


def test_an_engine_that_refuses_and_an_ai_service_with_500_are_critical_in_any_order_B002_B003(watching):
    services, scripted = watching(bot_url=NOBODY)
    scripted.script["/ai"] = Says({"error": "no GPU"}, 500)
    verdicts = found(services)
    assert verdicts["engine"].status is Status.DOWN
    assert "engine is down: no connection to 127.0.0.1:9: [Errno 111]" in verdicts["engine"].found
    assert seen(verdicts["ai_service"]) == (Status.UNHEALTHY, "AI service is unhealthy: HTTP 500", 2)
    for order in (list(verdicts.values()), list(verdicts.values())[::-1]):
        assert worst(verdict.status for verdict in order) is Status.CRITICAL


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (WELL, Status.HEALTHY, "HTTP 200"),
        ({"success": True, "data": WELL}, Status.HEALTHY, "HTTP 200"),
        ({"healthy": False, "detail": "exchange offline"}, Status.UNHEALTHY, "exchange offline"),
        ({"success": False, "error": "locked"}, Status.UNHEALTHY, "the bot says it failed: locked"),
        ({"status": "ok"}, Status.UNHEALTHY, "healthy"),
        (Says(b"<html>", content_type="text/html"), Status.UNHEALTHY, "/api/health"),
        (Says({"error": "database is locked"}, 500), Status.UNHEALTHY, "HTTP 500, database is locked"),
        (Says({"error": "no entry"}, 403), Status.UNHEALTHY, "HTTP 403, no entry"),
    ],
)
def test_an_engine_says_itself_how_it_is_B009(watching, answer, status, said):
    services, scripted = watching()
    scripted.script[HEALTH] = answer
    engine = found(services)["engine"]
    assert engine.status is status
    assert said in engine.found


def test_a_403_is_healthy_only_where_the_settings_say_so_B008(watching):
    services, scripted = watching(health_expected={"engine": (403,)})
    scripted.script |= {HEALTH: Says("no", 403), "/": Says("no", 403)}
    verdicts = found(services)
    assert (verdicts["engine"].status, verdicts["frontend"].status) == (Status.HEALTHY, Status.UNHEALTHY)


def test_a_frontend_that_was_not_modified_is_healthy_B007(watching):
    services, scripted = watching()
    scripted.script["/"] = Says(b"", 304)
    assert found(services)["frontend"].status is Status.HEALTHY


def test_a_slow_answer_is_degraded_and_not_asked_for_again_B005(watching):
    services, scripted = watching(health_slow_s=0.1)

    async def slowly(_: Any) -> Any:
        import asyncio

        await asyncio.sleep(0.2)
        return {}

    scripted.script["/ai"] = lambda asked: slowly(asked)
    verdict = found(services)["ai_service"]
    assert (verdict.status, verdict.tries) == (Status.DEGRADED, 1)
    assert verdict.found == f"AI service is slow: {verdict.latency_ms}ms"


def test_a_failure_that_passes_before_the_second_look_is_healthy_B017(watching):
    services, scripted = watching()
    scripted.script["/ai"] = Turns(Says("not yet", 503), {"ok": True})
    verdict = found(services)["ai_service"]
    assert (verdict.status, verdict.tries) == (Status.HEALTHY, 2)


def test_a_second_failure_counts_at_once_B017(watching):
    services, scripted = watching()
    scripted.script["/ai"] = Turns(Says("no", 503), Says("no", 503), {"ok": True})
    assert seen(found(services)["ai_service"]) == (Status.UNHEALTHY, "AI service is unhealthy: HTTP 503", 2)


def test_a_timeout_is_tried_again_in_the_same_run_then_down_B018(make_services):
    with raw_server(lambda connection, _: time.sleep(5)) as (address, connections):
        services = make_services(ai_service_url=address, health_timeout_s=0.4, health_off=("candles", "engine"))
        verdict = found(services)["ai_service"]
    assert (verdict.status, verdict.tries, len(connections)) == (Status.DOWN, 2, 2)
    assert "no answer" in verdict.found


def test_a_timeout_that_passes_is_healthy_B018(make_services):
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    hang_once = lambda connection, number: time.sleep(5) if number == 1 else connection.sendall(ok)  # noqa: E731
    with raw_server(hang_once) as (address, _):
        services = make_services(ai_service_url=address, health_timeout_s=0.5, health_off=("candles", "engine"))
        assert found(services)["ai_service"].status is Status.HEALTHY


class Silence:
    """A socket that takes connections and never says a word."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def test_the_check_ends_after_two_timeouts_with_everything_hanging_B004(make_services):
    """Silent sockets, dripped headers, dripped bodies; one verdict a component all the same."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
    sent: list[int] = []
    with ExitStack() as stack:
        silent = stack.enter_context(Silence())
        drips, _ = stack.enter_context(raw_server(lambda c, _: drip(c, head * 25, 0.05, sent)))

        def drip_the_body(connection: socket.socket, _: int) -> None:
            connection.sendall(head + b"\r\n")
            drip(connection, b"x" * 1000, 0.05, sent)

        bodies, _ = stack.enter_context(raw_server(drip_the_body))
        services = make_services(
            bot_url=f"http://{silent}",
            ai_service_url=drips,
            frontend_url=bodies,
            redis_url=f"redis://:geheim@{silent}/0",
            broker_url=f"amqp://ops:geheim@{silent}/trading",
            mongodb_uri=f"mongodb://ops:geheim@{silent}/trail",
            health_timeout_s=1.0,
        )
        began = time.monotonic()
        verdicts = found(services)
        took_s = time.monotonic() - began
    for name in ("engine", "ai_service", "frontend", "document_db", "cache", "broker"):
        assert (verdicts[name].status, verdicts[name].tries) == (Status.DOWN, 2), verdicts[name]
    assert verdicts["candles"].status is Status.UNKNOWN  # the engine's outage tells it
    assert {verdicts["disk"].status, verdicts["memory"].status}.isdisjoint({Status.DOWN, Status.UNKNOWN})
    assert took_s < 20  # two timeouts of 1 s, on a busy machine; each drip would last 50 s, and a silence for ever
    assert "geheim" not in repr(verdicts)


def is_the_servers(thread: threading.Thread) -> bool:
    return thread.name.endswith(("(serve)", "(accept)"))


@pytest.mark.parametrize(
    ("component", "setting", "scheme", "says"),
    [
        ("engine", "bot_url", "http", b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 100),
        ("ai_service", "ai_service_url", "http", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 900),
        ("cache", "redis_url", "redis", b"+" + b"P" * 900),
        ("broker", "broker_url", "amqp", b"\x01\x00\x00\x00\x00\xff\xff" + b"\x00" * 900),
        ("document_db", "mongodb_uri", "mongodb", b"\xff\x0f\x00\x00" + b"\x00" * 900),
    ],
)  # fmt: skip
def test_a_look_at_a_server_that_drips_ends_with_its_time_and_leaves_no_thread(
    make_services, component, setting, scheme, says
):
    """Each drip lasts 45 s or more."""
    before = set(threading.enumerate())
    with raw_server(lambda connection, _: drip(connection, says, 0.05, [])) as (address, _):
        given = {setting: address.replace("http", scheme), "health_timeout_s": 0.6}
        others = [name for name in LABELS if name != component]
        verdict = found(make_services(**given, health_off=others))[component]
        assert (verdict.status, verdict.tries) == (Status.DOWN, 2)
        until = time.monotonic() + 300
        while {thread for thread in set(threading.enumerate()) - before if not is_the_servers(thread)}:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_look_that_hangs_where_no_socket_can_time_out_is_left_behind():
    """Such as a name server that does not answer: the C library waits for it on its own terms."""
    hangs = threading.Event()

    def waits() -> Verdict:
        hangs.wait(300)
        raise ProbeFailed("too late to be heard")

    probes = [
        Probe("engine", waits),
        Probe("cache", lambda: judge_answer("cache", 0.0, Limits())),
    ]
    engine, cache = check_up(probes, timeout_s=0.2)  # while it hangs
    assert seen(engine) == (Status.DOWN, "engine is down: no answer within 0.2 s", 2)
    assert cache.status is Status.HEALTHY
    hangs.set()


def test_a_probe_that_breaks_holds_up_no_other_and_tells_no_secret():
    def breaks() -> Verdict:
        raise RuntimeError("amqp://ops:geheim@mq")

    def refused() -> Verdict:
        raise ProbeFailed("refused")

    broken, down = check_up([Probe("broker", breaks), Probe("cache", refused)], timeout_s=2.0)
    assert seen(broken) == (Status.UNKNOWN, "message broker is unknown: the probe failed (RuntimeError)", 1)
    assert seen(down) == (Status.DOWN, "cache is down: refused", 2)


def test_the_bots_token_is_sent_and_never_told(watching):
    services, scripted = watching(bot_token=TOKEN)
    scripted.script[HEALTH] = lambda asked: Says({"error": asked.headers["authorization"]}, 500)
    verdict = found(services)["engine"]
    assert {asked.headers.get("authorization") for asked in scripted.asked if asked.path == HEALTH} == {
        f"Bearer {TOKEN}"
    }
    assert "HTTP 500, Bearer [token]" in verdict.found


def test_a_query_in_an_address_is_asked_with_and_not_shown(watching, web):
    services, scripted = watching(ai_service_url=f"{web[0]}/ai?key=geheim")
    verdict = found(services)["ai_service"]
    assert [asked.query for asked in scripted.asked if asked.path == "/ai"] == [{"key": "geheim"}]
    assert verdict.address == f"{web[0]}/ai"
    assert "geheim" not in repr(verdict)


def test_a_certificate_of_an_authority_that_nobody_named_is_no_connection(make_services, tmp_path):
    authority, certificate, key = make_authority(tmp_path)
    with serving(ScriptedServer({HEALTH: WELL}), certificate=certificate, key=key) as address:
        given = {"bot_url": address, "health_timeout_s": 2.0, "health_off": ("candles",)}
        assert found(make_services(**given))["engine"].status is Status.DOWN
        assert found(make_services(**given, bot_ca_file=authority))["engine"].status is Status.HEALTHY
