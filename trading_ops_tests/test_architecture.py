"""The house keeps its shape: imports, the environment, files and words."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from trading_ops.settings import Settings
from trading_ops_tests.conftest import LONGEST_FIRST, ROOT

MODULES = sorted((ROOT / "trading_ops").rglob("*.py"))


def test_every_import_goes_down():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def reads_environment(tree: ast.AST) -> bool:
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return bool(names & {"environ", "getenv", "environb"})


def test_only_the_settings_read_the_environment():
    readers = [path.name for path in MODULES if reads_environment(ast.parse(path.read_text()))]
    assert readers == ["settings.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_answers(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    if path.name == "__init__.py":
        assert len(tree.body) == 1, "an __init__ holds a docstring: one path for each name"


@pytest.mark.parametrize("path", [p for p in MODULES if ">>>" in p.read_text()], ids=lambda p: p.stem)
def test_every_example_in_a_docstring_is_true(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_example_environment_lists_exactly_what_the_settings_read():
    listed = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M)
    assert sorted(listed) == sorted(["DAGSTER_HOME", *map(variable, Settings.model_fields)])


def variable(name: str) -> str:
    return str(Settings.model_fields[name].validation_alias or f"TRADING_OPS_{name.upper()}")


def test_the_readme_tells_every_setting():
    readme = (ROOT / "README.md").read_text()
    for name in Settings.model_fields:
        assert re.sub(r"_(CRITICAL|WARNING|TARGET)(_USD|_PCT)?$", "", variable(name)) in readme, name


def test_every_version_is_pinned():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line.split(";")[0] for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras) == {"ml", "celery", "postgres", "dev", "bench", "oracles"}
    for requirement in [*project["dependencies"], *(r for extra in extras.values() for r in extra)]:
        name = re.split(r"[\[<>=; ]", requirement)[0].lower()
        assert name in pinned, requirement


def test_compose_binds_to_loopback_and_has_no_default_password():
    text = (ROOT / "docker-compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"webserver", "daemon", "guard", "watchdog", "mongodb"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    needed = "${MONGO_PASSWORD:?set MONGO_PASSWORD in .env}"
    assert re.findall(r"PASSWORD: (.*)", text) == [needed]
    assert re.findall(r":([^:]*)@mongodb:", text.replace(needed, "NEEDED")) == ["NEEDED"]


def test_who_watches_expects_a_guard_where_one_is_started():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["guard"]["command"].startswith("trading-ops guard watch --heartbeat ")
    assert services["watchdog"]["command"] == "trading-ops watchdog --expect-guard"


def test_dagster_writes_below_one_folder_and_sends_nothing_home():
    instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    assert instance["telemetry"] == {"enabled": False}
    folders = [section["config"]["base_dir"] for section in instance.values() if "config" in section]
    assert len(folders) == 5
    assert all(folder.startswith("var/dagster") for folder in folders)
    assert "/var/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_files_that_are_begun_first_are_there():
    assert [name for name in LONGEST_FIRST if not (ROOT / "trading_ops_tests" / name).is_file()] == []
