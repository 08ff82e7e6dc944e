"""The files of ``deploy`` against each other, against the program, and against the tools that read them."""

import plistlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana import build
from llmproxy.config.settings import Settings
from tests.deploy.prometheus import DEPLOY, program

PROMETHEUS = DEPLOY / "prometheus"


def read(file: str) -> Any:
    return yaml.safe_load((DEPLOY / file).read_text())


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments], cwd=folder, text=True, capture_output=True, timeout=60, check=False
    )


def test_the_configuration_is_one() -> None:
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_fire_where_they_should_and_only_there() -> None:
    tested = promtool("test", "rules", "alerts.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_both_ways() -> None:
    alerts = {rule["alert"] for group in read("prometheus/alerts.yml")["groups"] for rule in group["rules"]}
    cases = [case for test in read("prometheus/alerts.test.yml")["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


@pytest.mark.parametrize(
    ("before", "after"),
    [("> 5\n", "> 50\n"), ("< 0.2\n", "< 0.02\n"), ("max(llmproxy_job_oldest", "sum(llmproxy_job_oldest")],
)
def test_the_tests_of_the_alerts_can_fail(tmp_path: Path, before: str, after: str) -> None:
    rules = (PROMETHEUS / "alerts.yml").read_text()
    assert before in rules
    (tmp_path / "alerts.yml").write_text(rules.replace(before, after))
    (tmp_path / "alerts.test.yml").write_text((PROMETHEUS / "alerts.test.yml").read_text())
    assert promtool("test", "rules", "alerts.test.yml", folder=tmp_path).returncode != 0


def test_dashboards_are_up_to_date() -> None:
    build.main(["--check"])


def test_a_dashboard_that_is_not_is_noticed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="llmproxy-program"):
        build.main(["--check"])
    build.main([])
    build.main(["--check"])
    committed = {file.name: file.read_text() for file in (DEPLOY / "grafana" / "dashboards").iterdir()}
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == committed


def test_the_composition_fits_together() -> None:
    composed = read("compose.yaml")
    services, proxy = composed["services"], composed["services"]["proxy"]
    assert set(services) == {"proxy", "ollama", "prometheus", "grafana"}
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        # what runs next year is what runs today
        assert "build" in service or re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
        # nothing is offered to others than this machine
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in composed["volumes"]
    assert {name.removeprefix("LLMPROXY_").lower() for name in proxy["environment"]} <= Settings.model_fields.keys()
    assert (DEPLOY / proxy["build"] / "Dockerfile").exists()


def test_a_service_is_waited_for_only_where_its_health_is_known() -> None:
    services = read("compose.yaml")["services"]
    waited = [(name, on) for name, service in services.items() for on in service.get("depends_on", [])]
    for name, on in waited:
        healthy = isinstance(services[name]["depends_on"], dict)
        assert not healthy or "healthcheck" in services[on], on


def test_what_the_composition_asks_for_is_written_where_it_looks() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    written = re.search(r'^echo "(\w+)=.*" > \.env$', (DEPLOY / "README.md").read_text(), re.MULTILINE)
    assert written is not None
    assert asked == {written.group(1)}
    assert (DEPLOY / ".gitignore").read_text().split() == [".env"]


def test_nobody_has_a_password_for_grafana() -> None:
    settings = read("compose.yaml")["services"]["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert (settings["GF_AUTH_DISABLE_LOGIN_FORM"], settings["GF_AUTH_BASIC_ENABLED"]) == ("true", "false")


def test_what_is_named_in_one_file_is_there_in_the_other() -> None:
    composed = read("compose.yaml")["services"]
    (job,) = read("prometheus/prometheus.yml")["scrape_configs"]
    ((target,),) = (each["targets"] for each in job["static_configs"])
    host, _, port = target.partition(":")
    assert composed[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert composed[host]["environment"]["LLMPROXY_ALLOWED_HOSTS"] == host
    assert job["job_name"] == "llmproxy"
    assert set(re.findall('job="([^"]*)"', (PROMETHEUS / "alerts.yml").read_text())) == {"llmproxy"}
    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana/provisioning/dashboards/llmproxy.yml")["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in composed["grafana"]["volumes"]}
    assert mounted[provider["options"]["path"]] == "./grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./grafana/provisioning"


def test_the_unit_of_systemd_is_one(tmp_path: Path) -> None:
    unit = (DEPLOY / "llmproxy.service").read_text()
    assert "After=" not in unit.partition("[Unit]")[2], "it waits for no model server"
    settings = re.findall(r"^(?:# .* |Environment=)(\w+)=", unit, re.MULTILINE)
    assert {name.removeprefix("LLMPROXY_").lower() for name in settings} <= Settings.model_fields.keys()
    installed = "/opt/llmproxy/bin/llmproxy"
    assert f"ExecStart={installed} serve\n" in unit
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / "llmproxy.service"
    copy.write_text(unit.replace(installed, "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], text=True, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_agent_of_launchd_is_one() -> None:
    agent = plistlib.loads((DEPLOY / "llmproxy.plist").read_bytes())
    assert agent["ProgramArguments"] == ["/opt/llmproxy/bin/llmproxy", "serve"]
    assert agent["RunAtLoad"] is agent["KeepAlive"] is True
    assert {
        name.removeprefix("LLMPROXY_").lower() for name in agent["EnvironmentVariables"]
    } <= Settings.model_fields.keys()
