"""The files of deploy/ and the workflows fit together and fit the program.

Not here: that Prometheus and Grafana ask for metrics that there are (``test_operating``). No test has a
container engine: docs/deploy.md says what was run where.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kalshi_fast.commands.parser import parser
from kalshi_fast.config import SETTINGS, load, template
from kalshi_fast.errors import (
    ConfigError,
    ConnectError,
    JournalError,
    KalshiFastError,
    RefusedError,
    RestError,
    SinkError,
    UnreachableError,
)
from operators import tool

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
NAMES = {setting.name for setting in SETTINGS}


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load(path.read_text())


STACK = read_yaml(COMPOSE / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
RECORDERS = ("recorder", "recorder-simulated")


# --- the environment file ---------------------------------------------------------------------------


def test_the_environment_file_is_what_the_program_makes_of_its_settings() -> None:
    assert (DEPLOY / "kalshi-fast.env.example").read_text() == template(), (
        "kalshi-fast config --template > deploy/kalshi-fast.env.example"
    )


def test_it_names_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = template().splitlines()
    given = dict(line[1:].split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))
    assert given == {setting.name: setting.default for setting in SETTINGS}
    for uncommented in (False, True):
        file = tmp_path / "recorder.env"
        file.write_text(re.sub(r"^#(?=[A-Z_]+=)", "" if uncommented else "#", template(), flags=re.MULTILINE))
        loaded = load({}, environ={}, env_file=file, toml_file=Path("/dev/null"))
        assert loaded.settings == load({}, environ={}, env_file=None, toml_file=Path("/dev/null")).settings


# --- containers -------------------------------------------------------------------------------------


def environment(service: str, told: dict[str, str] | None = None) -> dict[str, str]:
    """What compose gives it: of its variables those that are told, their defaults, or the name of one that
    has to be told."""
    own = told or {}

    def value(found: re.Match[str]) -> str:
        return own.get(found[1]) or (found[3] if found[2] == "-" else f"<{found[1]}>")

    given = SERVICES[service].get("environment", {})
    return {name: re.sub(r"\$\{([A-Z_]+):([?-])([^}]*)\}", value, str(text)) for name, text in given.items()}


def assignments(file: str) -> dict[str, str]:
    lines = (COMPOSE / file).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("service", RECORDERS)
def test_what_a_recorder_is_told_are_settings(service: str, tmp_path: Path) -> None:
    told = image_environment() | environment(service)
    assert told.keys() - {"PATH", "PYTHONDONTWRITEBYTECODE"} <= NAMES
    if "WS_CAFILE" in told:
        told["WS_CAFILE"] = str(DEPLOY / "Dockerfile")  # a file that exists
    loaded = load({}, environ=told, env_file=None, toml_file=Path("/dev/null")).settings
    assert loaded.clickhouse_url == "http://clickhouse:8123"
    assert loaded.http_listen == ("0.0.0.0", 9187)
    assert loaded.journal_dir.is_relative_to("/data")
    assert loaded.parquet_dir is not None
    assert loaded.parquet_dir.is_relative_to("/data")
    assert loaded.clickhouse_password == environment("clickhouse")["CLICKHOUSE_PASSWORD"]
    assert loaded.clickhouse_user == environment("clickhouse")["CLICKHOUSE_USER"]


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) >= 4
    assert all(str(port).startswith("127.0.0.1:") for port in published)
    assert "ports" not in SERVICES["clickhouse"], "a database is nobody's but the stack's"


def test_no_password_is_known_to_everybody_but_those_of_the_simulated_stack() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    passwords = re.findall(r"\$\{([A-Z_]*PASSWORD)(\S\S?)", text)
    assert len(passwords) >= 4
    assert {form for _, form in passwords} == {":?"}, "without one nothing starts"
    assert {assignments("env.example")[name] for name, _ in passwords} == {""}
    simulated = assignments("simulated.env")
    assert all(simulated[name] for name, _ in passwords)
    assert simulated["COMPOSE_PROJECT_NAME"] != STACK["name"], "volumes of its own"
    for service in SERVICES.values():
        told = json.dumps([service.get("command"), service.get("healthcheck")])
        assert "PASSWORD" not in told, "command lines are seen by others"


def test_the_stack_returns_after_a_reboot_and_after_any_outage() -> None:
    assert {service["restart"] for service in SERVICES.values()} == {"unless-stopped"}


@pytest.mark.parametrize("file", ["env.example", "simulated.env"])
def test_grafana_asks_the_database_that_is_recorded_into(file: str) -> None:
    told = assignments(file)
    name = "recorder-simulated" if file == "simulated.env" else "recorder"
    database = environment(name, told)["CLICKHOUSE_DATABASE"]
    assert database == environment("grafana", told)["CLICKHOUSE_DATABASE"]
    assert database == ("kalshi_simulated" if file == "simulated.env" else "kalshi")


def test_whoever_is_waited_for_says_how_it_is() -> None:
    for name, service in SERVICES.items():
        waits = service.get("depends_on", {})
        for other in waits:
            assert other in SERVICES, name
            if isinstance(waits, dict) and waits[other]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], other
    built = {name for name, service in SERVICES.items() if "build" in service}
    assert all("healthcheck" in service for name, service in SERVICES.items() if name not in built)


def test_what_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0] if isinstance(mount, str) else mount["source"]
            if not source.startswith("."):
                assert source in STACK["volumes"], (name, source)
            elif source != "./secrets/kalshi.pem":  # the user's own
                assert (COMPOSE / source).resolve().exists(), (name, source)
        build = service.get("build")
        if build is not None:
            assert ((COMPOSE / build["context"]) / build["dockerfile"]).resolve().is_file()


def test_recorders_have_no_rights_that_they_need_not() -> None:
    for name in (*RECORDERS, "simulator"):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    key = next(mount for mount in SERVICES["recorder"]["volumes"] if not isinstance(mount, str))
    assert key["target"] == environment("recorder")["PROD_KEYFILE"]
    assert key["read_only"] is True


def test_the_simulated_recorder_finds_the_simulator() -> None:
    told, command = environment("recorder-simulated"), SERVICES["simulator"]["command"]
    options = parser().parse_args(command)
    assert options.host == "simulator"
    assert told["WS_URL"].startswith(f"wss://{options.host}:{options.port}/")
    assert told["REST_URL"].startswith(f"https://{options.host}:{options.port}/")
    assert Path(told["WS_CAFILE"]).parent == Path(told["PROD_KEYFILE"]).parent == options.dir
    assert SERVICES["simulator"]["profiles"] == SERVICES["recorder-simulated"]["profiles"] != ["live"]


def test_other_images_are_of_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/-]+:v?\d[\d.]+\}", image), image
    example = (COMPOSE / "env.example").read_text()
    for image in images:
        name, _, default = image.removeprefix("${").removesuffix("}").partition(":-")
        assert f"#{name}={default}\n" in example
    asked = {*re.findall(r"\$\{([A-Z_]+)", (COMPOSE / "compose.yaml").read_text())}
    assert asked == {*re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, joined over lines, without comments."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def image_environment() -> dict[str, str]:
    last = max(at for at, (word, _) in enumerate(instructions()) if word == "FROM")
    given = [rest for word, rest in instructions()[last:] if word == "ENV"]
    return dict(part.split("=", 1) for rest in given for part in shlex.split(rest))


def test_the_image_is_run_by_nobody_in_particular() -> None:
    found = dict(instructions())  # the last of each
    user, group = found["USER"].split(":")
    assert int(user) == int(group) > 1000
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(found["ENTRYPOINT"])[-1] == "kalshi-fast"
    assert parser().parse_args(json.loads(found["CMD"])).command == "run"
    check = found["HEALTHCHECK"].partition(" CMD ")[2]
    assert "/healthz" in json.loads(check)[-1]
    assert image_environment().keys() - {"PATH", "PYTHONDONTWRITEBYTECODE"} <= NAMES
    assert "/data" in json.loads(found["VOLUME"])


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert self.path == "/healthz"
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """It says nothing."""


def test_the_image_is_unhealthy_when_the_recorder_is_and_only_then() -> None:
    _, code, program = json.loads(dict(instructions())["HEALTHCHECK"].partition(" CMD ")[2])

    def ends_with(listen: str) -> int:
        told = {**os.environ, "HTTP_LISTEN": listen}
        done = subprocess.run(
            [sys.executable, code, program], env=told, stderr=subprocess.DEVNULL, check=False
        )
        return done.returncode

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for server.status, expected in ((200, 0), (503, 1)):  # type: ignore[attr-defined]
            assert ends_with(f"0.0.0.0:{server.server_port}") == expected
        server.shutdown()
    assert ends_with("127.0.0.1:9") == 1, "nobody answers"
    for off in ("off", "OFF", ""):
        assert ends_with(off) == 0, "nobody can be asked"


def test_the_image_is_built_from_what_is_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


# --- Prometheus and Grafana -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [COMPOSE / "prometheus.yml", DEPLOY / "prometheus" / "prometheus.yml"], ids=str
)
def test_prometheus_asks_under_the_name_that_the_alerts_know(path: Path, tmp_path: Path) -> None:
    told = read_yaml(path)
    rules = (DEPLOY / "prometheus" / "kalshi-fast.rules.yml").read_text()
    (job,) = told["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in rules
    (target,) = job["static_configs"][0]["targets"]
    host = target.removesuffix(":9187")
    aliases = {alias for name in RECORDERS for alias in SERVICES[name]["networks"]["inside"]["aliases"]}
    assert host in {"127.0.0.1", *aliases}
    assert told["rule_files"] == ["kalshi-fast.rules.yml"]
    shutil.copy(path, tmp_path / "prometheus.yml")
    (tmp_path / "kalshi-fast.rules.yml").write_text(rules)
    promtool = [tool("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    checked = subprocess.run(promtool, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_grafana_finds_its_sources_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    sources = read_yaml(provisioning / "datasources" / "kalshi-fast.yaml")["datasources"]
    by_type = {source["type"]: source for source in sources}
    dashboard = json.loads((DEPLOY / "grafana" / "kalshi-fast.json").read_text())
    variable = next(one for one in dashboard["templating"]["list"] if one["type"] == "datasource")
    assert by_type[variable["query"]]["isDefault"] is True
    assert by_type["prometheus"]["url"] == "http://prometheus:9090"
    plugin = "grafana-clickhouse-datasource"
    assert environment("grafana")["GF_PLUGINS_PREINSTALL"] == plugin
    assert by_type[plugin]["jsonData"]["host"] in SERVICES
    assert by_type[plugin]["jsonData"]["username"] == environment("clickhouse")["CLICKHOUSE_USER"]
    assert by_type[plugin]["jsonData"]["defaultDatabase"].removeprefix("$") in environment("grafana")
    assert by_type[plugin]["secureJsonData"]["password"].removeprefix("$") in environment("grafana")
    provider = read_yaml(provisioning / "dashboards" / "kalshi-fast.yaml")["providers"][0]
    mounts = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]
    assert any(mount.startswith(provider["options"]["path"] + "/") for mount in mounts)


# --- systemd ----------------------------------------------------------------------------------------

UNIT = DEPLOY / "systemd" / "kalshi-fast.service"


def unit() -> dict[str, list[str]]:
    """Its settings, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_service_is_started_as_the_command_line_has_it() -> None:
    told = unit()
    program, *arguments = shlex.split(told["ExecStart"][0])
    assert Path(program).name == "kalshi-fast"
    options = parser().parse_args(arguments)
    assert options.command == "run"
    assert f"AssertPathExists={options.env_file}\n" in UNIT.read_text()
    assert told["Environment"] == ["PROD_KEYFILE=%d/kalshi.pem"]
    assert told["LoadCredential"][0].startswith("kalshi.pem:")
    assert told["ExecReload"] == ["/bin/kill -HUP $MAINPID"], "as `run` reads its markets anew"
    assert told["WorkingDirectory"] == [f"/var/lib/{told['StateDirectory'][0]}"]


def test_the_service_is_started_again_unless_a_setting_is_wrong() -> None:
    told = unit()
    assert told["Restart"] == ["on-failure"]
    assert told["RestartPreventExitStatus"] == [str(ConfigError.exit_code)]
    assert told["KillMode"] == ["mixed"]
    passing = [ConnectError, UnreachableError, SinkError, RestError, JournalError, KalshiFastError]
    assert ConfigError.exit_code not in {error.exit_code for error in passing}
    assert RefusedError("the clock", may_pass=True).exit_code != ConfigError.exit_code
    assert RefusedError("the key").exit_code == ConfigError.exit_code


def test_the_service_has_the_rights_of_the_tuning_guide() -> None:
    guide = (ROOT / "docs" / "tuning.md").read_text()
    told = unit()
    for name in ("LimitNICE", "LimitRTPRIO", "LimitMEMLOCK"):
        assert f"`{name}={told[name][0]}`" in guide
    assert told["LimitCORE"] == ["1"], "with 0 a program in core_pattern gets the dump"
    assert "RestrictRealtime" not in told


def test_systemd_understands_the_service(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    copy = tmp_path / UNIT.name
    program = unit()["ExecStart"][0].split()[0]
    copy.write_text(UNIT.read_text().replace(program, "/bin/true"))
    verified = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    said = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    assert said == []
    assert verified.returncode == 0, verified.stderr


# --- workflows --------------------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_use_what_is_pinned_and_run_what_is_there(path: Path) -> None:
    told = read_yaml(path)
    assert told["permissions"] == {}, "each job says what it needs"
    makefile = (ROOT / "Makefile").read_text()
    steps = [step for job in told["jobs"].values() for step in job["steps"]]
    assert all("timeout-minutes" in job and "permissions" in job for job in told["jobs"].values())
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step
        for target in re.findall(r"^make (\w+)", step.get("run", ""), re.MULTILINE):
            assert f"\n{target}:" in makefile
        for script in re.findall(r"^(\.ci/\w+)", step.get("run", ""), re.MULTILINE):
            assert (ROOT / script).stat().st_mode & 0o100, "it can be run"


def test_a_release_is_published_without_a_token_and_only_when_a_tag_is_pushed_and_tests_are_green() -> None:
    jobs = read_yaml(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert {*jobs["publish"]["needs"]} == {"tests", "sdist", "wheels"}
    assert jobs["tests"]["steps"][-1] == {"run": ".ci/run", "env": {"KALSHI_FAST_TOOLS": "required"}}
    assert jobs["publish"]["if"] == "github.event_name == 'push' && github.ref_type == 'tag'"
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()
