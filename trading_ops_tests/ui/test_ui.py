"""Does a person see in the UI of `make ui` what was measured? Chromium looks at it after a real backfill."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

from trading_ops.performance.verdict import describe
from trading_ops.watchdog.heartbeat import Heartbeats

TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DAYS = 14  # of 1,000 simulated days at most 3 in a row pass performance_within_limits
GROUPS = {  # in this order the boxes of the graph do not overlap
    "api_costs": "costs",
    "candles": "market",
    "closed_trades": "performance",
    "equity_snapshots": "health",
    "performance_metrics": "performance",
    "portfolio_report": "portfolio",
    "strategy_risk": "guard",
    "system_health": "health",
}
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the UI must do without the internet
]


@dataclass(frozen=True, slots=True)
class Dagster:
    """A running UI, and the newest day's document as the backfill printed it."""

    url: str
    home: Path
    newest: dict[str, Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGS)
        except Error as error:
            if found or "Executable doesn't exist" not in error.message:
                raise
            missing = (
                "no Chromium: apt-get install chromium, or playwright install chromium, or set CHROMIUM to its path"
            )
            pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def dagster(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    """After `chromium`, so that nothing is measured where no browser can look at it."""
    home = tmp_path_factory.mktemp("dagster_home")
    for name in ("Makefile", ".env.example", "dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(PROJECT / name, home)
    (home / "trading_ops").symlink_to(PROJECT / "trading_ops")
    (home / ".venv").symlink_to(sys.prefix)
    env = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "DAGSTER_HOME": str(home)}
    backfill = subprocess.run(
        [BIN / "trading-ops", "backfill", "--days", str(DAYS), "--json"],
        cwd=home, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert backfill.returncode == 0, backfill.stderr
    port, log = _free_port(), home / "ui.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            ["make", "ui", f"PORT={port}", "--old-file=.venv/.run"],  # what is installed already stays as it is
            cwd=home, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _until(lambda: _answers(port) or server.poll() is not None, timeout_s=400)
        assert server.poll() is None, log.read_text()
        yield Dagster(f"http://127.0.0.1:{port}", home, json.loads(backfill.stdout)["performance"])
    finally:
        left = _end(server)
    assert not left, f"still running after SIGKILL: {left}"


@pytest.fixture
def page(chromium: Browser, dagster: Dagster) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1600, "height": 1000}, base_url=dagster.url)
    context.set_default_timeout(TIMEOUT_MS)
    # a fresh home greets its first visitor with Dagster's newsletter
    context.request.post("/graphql", data={"query": "mutation { setNuxSeen }"})
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Callable[[str], None]:
    """Saves what the window shows, once the page has loaded all of it."""
    folder = Path(os.environ.get("TRADING_OPS_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str) -> None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return save


def test_the_asset_graph_shows_every_asset_in_its_group(page: Page, shoot: Callable[[str], None]) -> None:
    groups = list(dict.fromkeys(GROUPS.values()))
    page.set_viewport_size({"width": 2000, "height": 1000})  # what is outside the window is not drawn
    page.add_init_script("localStorage.setItem('asset-graph-direction', '\"vertical\"')")
    page.goto("/asset-groups~" + quote(" or ".join(f'key:"{asset}"' for asset in GROUPS)))
    for group in groups:
        expect(_in_graph(page, group)).to_be_visible()
    expect(page.get_by_text("fetching statuses")).to_have_count(0)
    shoot("asset_groups")
    page.keyboard.press("Alt+e")  # expand all groups
    for asset, group in GROUPS.items():
        node = _in_graph(page, asset)
        expect(node).to_be_visible()
        node.element_handle().wait_for_element_state("stable")
        assert _inside(node, _in_graph(page, group)), f"{asset} is not drawn in {group}"
    expect(page.get_by_text("Loading")).to_have_count(0)
    shoot("asset_graph")


def test_a_day_of_performance_metrics_shows_its_table_and_its_plot(
    page: Page, dagster: Dagster, shoot: Callable[[str], None]
) -> None:
    day, strategies = dagster.newest["day"], dagster.newest["strategies"]
    page.goto(f"/assets/performance_metrics?view=partitions&partition={day}")
    table = _metadata(page, "strategies").locator("table")
    for strategy, metrics in strategies.items():
        row = table.get_by_role("row").filter(has=page.get_by_role("cell", name=strategy, exact=True))
        expect(row).to_contain_text(str(metrics["total_trades"]))
        expect(row).to_contain_text(metrics["status"])
    shoot("performance_metrics")
    _metadata(page, "equity_and_win_rate").get_by_text("Show Markdown").click()
    plot = page.get_by_alt_text("equity and win rate")
    expect(plot).to_be_visible()
    page.wait_for_function("plot => plot.complete && plot.naturalWidth > 200", arg=plot.element_handle())
    assert _inside(plot, page.get_by_role("dialog")), "the plot is cut off"
    shoot("performance_metrics_plot")


def test_a_failed_check_is_seen_with_what_it_found(page: Page, dagster: Dagster, shoot: Callable[[str], None]) -> None:
    page.goto("/assets/performance_metrics?view=checks&checkDetail=performance_within_limits")
    expect(page.get_by_text("Failed", exact=True).last).to_be_visible()
    expect(_metadata(page, "what_to_do")).to_contain_text("retrain")
    findings = _metadata(page, "findings").locator("table")
    expect(findings.get_by_role("row").nth(1)).to_contain_text("is below")
    for strategy, metrics in dagster.newest["strategies"].items():
        for alert in metrics["alerts"]:
            text = describe(alert["metric"], alert["value"], alert["limit"])
            found = findings.get_by_role("row").filter(has_text=f"{strategy}: {text}")
            expect(found.filter(has_text=dagster.newest["day"])).to_have_count(1)
    shoot("performance_within_limits")


def test_a_backfill_of_a_job_launched_in_the_ui_measures_its_days_in_one_run(page: Page, dagster: Dagster) -> None:
    """The daemon brings the range; the job's own default day must not stand in its way."""
    days = ["2025-03-05", "2025-03-06", "2025-03-07"]
    (repository,) = _ask(page, "{repositoriesOrError{... on RepositoryConnection{nodes{name location{name}}}}}")[
        "repositoriesOrError"
    ]["nodes"]
    launch = """mutation($params: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $params) {
        __typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"""
    selector = {"repositoryLocationName": repository["location"]["name"], "repositoryName": repository["name"]}
    params = {
        "selector": {"partitionSetName": "daily_portfolio_report_partition_set", "repositorySelector": selector},
        "partitionNames": days,
    }
    launched = _ask(page, launch, {"params": params})["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    asked = f"""{{partitionBackfillOrError(backfillId: "{launched["backfillId"]}") {{
        ... on PartitionBackfill {{status error {{message}} runs {{status tags {{key value}}}}}}}}}}"""

    def backfill() -> dict[str, Any]:
        return _ask(page, asked)["partitionBackfillOrError"]

    assert _until(lambda: backfill()["status"] in ("COMPLETED_SUCCESS", "COMPLETED", "FAILED"), timeout_s=400), (
        backfill()
    )
    done = backfill()
    assert done["error"] is None
    assert [run["status"] for run in done["runs"]] == ["SUCCESS"]
    tags = {tag["key"]: tag["value"] for tag in done["runs"][0]["tags"]}
    assert tags["dagster/asset_partition_range_start"] == days[0]
    assert tags["dagster/asset_partition_range_end"] == days[-1]


def test_schedules_and_sensors_tick_and_the_watchdog_watches_beside_the_ui(dagster: Dagster) -> None:
    heartbeats = Heartbeats(dagster.home / "var" / "heartbeats")
    assert _until(lambda: heartbeats.daemon() is not None and heartbeats.watchdog() is not None, timeout_s=60)


def _ask(page: Page, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = page.context.request.post("/graphql", data={"query": query, "variables": variables or {}}).json()
    assert "errors" not in answer, answer
    return answer["data"]


def _in_graph(page: Page, name: str) -> Locator:
    """The box of a group or an asset in the lineage graph."""
    return page.locator("foreignObject").filter(has=page.get_by_text(name, exact=True))


def _metadata(page: Page, key: str) -> Locator:
    """The row of one metadata entry."""
    return page.locator("tr").filter(has=page.locator("td:first-child").get_by_text(key, exact=True)).first


def _inside(inner: Locator, outer: Locator) -> bool:
    small, large = inner.bounding_box(), outer.bounding_box()
    assert small is not None
    assert large is not None
    return all(
        large[start] <= small[start] and small[start] + small[size] <= large[start] + large[size]
        for start, size in (("x", "width"), ("y", "height"))
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _until(true: Callable[[], bool], *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (reached := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return reached


def _end(server: subprocess.Popen) -> list[str]:
    """End the server with everything it started; what survived even SIGKILL."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, ending)
        if _until(lambda: server.poll() is not None and not _members(server.pid), timeout_s=15):
            break
    return _members(server.pid)


def _members(session: int) -> list[str]:
    """The processes of a session; not those that are dead and only wait to be reaped by their parent."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, fields = stat.read_text().rsplit(")", 1)
            state, _, _, in_session = fields.split()[:4]
            if int(in_session) == session and state != "Z":
                found.append(name + ")")
    return found
