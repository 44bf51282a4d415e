"""Deployment files: current, parsed, every name in them exists, and everything that must be there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from crypto_assets.databricks.clusters import ENDPOINT_LIBRARIES, NEVER_ON_A_CLUSTER, STEP_LIBRARIES, secret_key
from crypto_assets.databricks.deploy import unity
from crypto_assets.databricks.pipeline.configuration import SCHEMA_SUFFIX
from crypto_assets.databricks.pipeline.datasets import DATASETS
from crypto_assets.engine.spark import SHORT_QUERIES
from crypto_assets.settings import Settings
from crypto_assets.settings_docs import documented

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def bundle(path: Path) -> dict[str, Any]:
    """A bundle with the resources of the files that it includes."""
    document = yaml.safe_load(path.read_text())
    for name in document.get("include", []):
        document["resources"] |= yaml.safe_load((path.parent / name).read_text())["resources"]
    return document


BUNDLE = bundle(DEPLOY / "databricks.yml")
TERRAFORM = json.loads((DEPLOY / "terraform" / "main.tf.json").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SECRETS = [s.names[0] for s in documented(Settings) if s.secret]
NAMES = {name for setting in documented(Settings) for name in setting.names}
"""Every environment name that sets something."""
COMPOSE_ALONE = {"POSTGRES_PASSWORD", "CRYPTO_ASSETS_IMAGE_TAG"}
"""Variables of compose itself, which no setting reads."""
OURS = ("mlflow", "code", "webserver", "daemon")
COMMAND = "databricks/command.py"
POLICY = "crypto-assets-jobs"


def default(field: str) -> str:
    """Default of a setting as text."""
    return str(Settings.model_fields[field].default)


def texts(value: Any) -> list[str]:
    """Every text in a document, keys included."""
    if isinstance(value, dict):
        return [t for k, v in value.items() for t in (str(k), *texts(v))]
    if isinstance(value, list):
        return [t for v in value for t in texts(v)]
    return [str(value)]


def deployed_files() -> list[Path]:
    """Files of `deploy/` that are written by hand or rendered; not locks, nor bytecode of its scripts."""
    return [p for p in DEPLOY.rglob("*") if p.is_file() and p.suffix not in {".lock", ".pyc"}]


def test_every_secret_has_a_place_and_no_file_holds_one() -> None:
    example = (DEPLOY / ".env.example").read_text()
    for name in SECRETS:
        assert f"# {name}=\n" in example + "\n"
    for path in deployed_files():
        for line in path.read_text().splitlines():
            given = re.search(r"(?i)(?:password|secret|token|api_key)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/]{6,})", line)
            assert given is None, f"{path.name}: {line}"


def test_every_setting_that_a_file_names_exists() -> None:
    named = {p.name: re.findall(r"\bCRYPTO_ASSETS_[A-Z0-9_]+", p.read_text()) for p in deployed_files()}
    assert {
        (name, setting) for name, found in named.items() for setting in found if setting not in NAMES | COMPOSE_ALONE
    } == set()
    assert {"main.tf.json", "compose.yaml", "databricks.yml"} <= {name for name, found in named.items() if found}
    for line in (DEPLOY / ".env.example").read_text().splitlines():
        if name := re.match(r"#? ?([A-Z0-9_]+)=", line):
            assert name[1] in NAMES | COMPOSE_ALONE


def test_secret_names_are_those_the_launcher_uses() -> None:
    assert secret_key("KAFKA_SASL_PASSWORD") == "kafka-sasl-password"
    stream = json.dumps(BUNDLE["resources"]["jobs"]["stream"])
    for scope, key in re.findall(r"{{secrets/([^/]+)/([^}]+)}}", stream):
        assert scope == default("databricks_secret_scope")
        assert key in {secret_key(name) for name in SECRETS}


# --- bundle -----------------------------------------------------------------------------------------------------------


def test_bundle_variables_and_references_lead_somewhere() -> None:
    referred = {m for text in texts(BUNDLE) for m in re.findall(r"\$\{([\w.]+)\}", text)}
    declared = {f"var.{v}" for v in BUNDLE["variables"]} | {"bundle.target", "workspace.file_path"}
    declared |= {f"resources.schemas.{s}.name" for s in BUNDLE["resources"]["schemas"]}
    assert referred <= declared
    used = {r.removeprefix("var.") for r in referred if r.startswith("var.")}
    assert used == set(BUNDLE["variables"])


def test_bundle_has_every_schema_and_volume_and_no_other() -> None:
    schemas = {key: s["comment"] for key, s in BUNDLE["resources"]["schemas"].items()}
    own = {f"{s}{SCHEMA_SUFFIX}": f"{s} of the declarative pipeline." for s in {t.schema for t in DATASETS}}
    assert schemas == {**unity.SCHEMAS, **own}
    assert all(s["name"] == key for key, s in BUNDLE["resources"]["schemas"].items())
    volumes = BUNDLE["resources"]["volumes"].values()
    placed = {(re.findall(r"schemas\.(\w+)\.", v["schema_name"])[0], v["name"], v["comment"]) for v in volumes}
    assert placed == {(v.schema, v.name, v.description) for v in unity.VOLUMES}


def test_bundle_targets_run_as_a_service_principal_in_catalogs_of_their_own() -> None:
    targets = BUNDLE["targets"]
    assert set(targets) == {"dev", "prod"}
    assert all(t["run_as"] == {"service_principal_name": "${var.run_as}"} for t in targets.values())
    assert targets["prod"]["variables"]["catalog"] == default("catalog")
    assert targets["dev"]["variables"]["catalog"] != targets["prod"]["variables"]["catalog"]
    assert targets["prod"]["mode"] == "production"


def test_bundle_tasks_name_files_that_exist() -> None:
    for job in BUNDLE["resources"]["jobs"].values():
        for task in job["tasks"]:
            assert (DEPLOY / task["spark_python_task"]["python_file"]).is_file()
            environments = {e["environment_key"] for e in job.get("environments", [])}
            clusters = {c["job_cluster_key"] for c in job.get("job_clusters", [])}
            assert task.get("environment_key") in environments or task.get("job_cluster_key") in clusters
    for path in BUNDLE["sync"]["paths"]:
        assert (DEPLOY / path).is_dir()


def test_the_command_of_jobs_runs_from_a_package_that_is_not_installed(tmp_path: Path) -> None:
    script = [sys.executable, str(DEPLOY / COMMAND)]
    done = subprocess.run(
        [*script, "--package", str(ROOT), "coins", "--help"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "retire" in done.stdout
    refused = subprocess.run([*script, "coins"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "--package FOLDER" in refused.stderr


def test_jobs_call_commands_that_exist() -> None:
    from crypto_assets.cli.main import app

    known = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    for job in BUNDLE["resources"]["jobs"].values():
        for task in job["tasks"]:
            if task["spark_python_task"]["python_file"] == COMMAND:
                assert task["spark_python_task"]["parameters"][2] in known


@pytest.mark.parametrize("decision", ["rollback", "promote"])
def test_the_job_that_decides_on_a_model_gives_the_command_what_it_takes(decision: str) -> None:
    from crypto_assets.cli import models
    from crypto_assets.cli.main import app

    job = BUNDLE["resources"]["jobs"]["decide_model"]
    given = {"decision": decision, "model": "anomaly", "version": "2026-11-28-union", "why": "flags tripled"}
    assert {p["name"]: p["default"] for p in job["parameters"]}.keys() == given.keys()
    (task,) = job["tasks"]
    arguments = [
        re.sub(r"{{job\.parameters\.(\w+)}}", lambda found: given[found[1]], text)
        for text in task["spark_python_task"]["parameters"][2:]
    ]
    with pytest.MonkeyPatch.context() as patch:
        asked: list[tuple[Any, ...]] = []
        patch.setattr(models, "decide", lambda _settings, *told, now: asked.append(told) or 0)
        for name, value in job["job_clusters"][0]["new_cluster"]["spark_env_vars"].items():
            patch.setenv(name, value.replace("${var.catalog}", "prices_prod"))
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    kind = {"rollback": "rolled_back", "promote": "promoted_by_hand"}[decision]
    assert asked == [("anomaly", "2026-11-28-union", kind, "flags tripled")]


def test_the_pipeline_of_the_bundle_exists() -> None:
    for pipeline in BUNDLE["resources"]["pipelines"].values():
        for library in pipeline["libraries"]:
            assert (DEPLOY / library["file"]["path"]).is_file()


def test_bundle_environment_names_are_settings() -> None:
    for job in BUNDLE["resources"]["jobs"].values():
        for cluster in job.get("job_clusters", []):
            new = cluster["new_cluster"]
            assert set(new["spark_env_vars"]) <= NAMES
            assert new["data_security_mode"] == "SINGLE_USER"
            assert new["policy_id"] == "${var.policy_id}"
            assert new["spark_conf"] == SHORT_QUERIES
            assert new["custom_tags"]["project"] == default("databricks_project")
    assert BUNDLE["variables"]["spark_version"]["default"] == default("databricks_spark_version")


def test_bundle_libraries_are_pinned_by_the_lock_and_never_the_runtime_own() -> None:
    (task,) = BUNDLE["resources"]["jobs"]["stream"]["tasks"]
    (pipeline,) = BUNDLE["resources"]["pipelines"].values()
    (published,) = BUNDLE["resources"]["jobs"]["publish_models"]["environments"]
    of_endpoint = published["spec"]["dependencies"]
    assert {pin.split("==")[0] for pin in of_endpoint} == set(ENDPOINT_LIBRARIES)
    pins = [*(entry["pypi"]["package"] for entry in task["libraries"]), *pipeline["environment"]["dependencies"]]
    pins += of_endpoint
    (deciding,) = BUNDLE["resources"]["jobs"]["decide_model"]["tasks"]
    pins += (of_decision := [entry["pypi"]["package"] for entry in deciding["libraries"]])
    assert set(STEP_LIBRARIES) - {"databricks-sdk"} <= {pin.split("==")[0] for pin in of_decision}
    lock = (ROOT / "requirements.lock").read_text().lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ours = {re.split(r"[\[<>=]", d)[0] for d in project}
    stale = [pin for pin in pins if not re.search(rf"^{re.escape(pin)}(\s|$)", lock, flags=re.MULTILINE)]
    assert not stale, "deploy/databricks.yml pins other versions than requirements.lock"
    for pin in pins:
        assert pin.split("==")[0] in ours or pin in of_endpoint
        assert pin.split("==")[0] not in NEVER_ON_A_CLUSTER


# --- terraform --------------------------------------------------------------------------------------------------------


def test_terraform_references_lead_somewhere() -> None:
    for text in texts(TERRAFORM):
        for expression in re.findall(r"\$\{([^}]+)\}", text):
            for variable in re.findall(r"var\.(\w+)", expression):
                assert variable in TERRAFORM["variable"]
            for kind, name in re.findall(r"(databricks_\w+)\.(\w+)", expression):
                assert name in TERRAFORM["resource"][kind]
            for role in re.findall(r'groups\["(\w+)"\]', expression):
                assert role in unity.ROLES
    assert set(TERRAFORM["variable"]["groups"]["default"]) == set(unity.ROLES)


def test_terraform_defaults_are_those_of_the_settings() -> None:
    variables = TERRAFORM["variable"]
    assert variables["catalog"]["default"] == unity.CATALOG == default("catalog")
    for name in ("spark_version", "secret_scope"):
        assert variables[name]["default"] == default(f"databricks_{name}")
    assert variables["groups"]["default"] == {role: unity.group_of(role) for role in unity.ROLES}


def test_every_role_may_use_the_catalog_and_only_steps_read_secrets() -> None:
    resources = TERRAFORM["resource"]
    grants = resources["databricks_grants"]["catalog"]["grant"]
    assert [g["principal"] for g in grants] == [f'${{var.groups["{r}"]}}' for r in unity.ROLES]
    assert {p for g in grants for p in g["privileges"]} == {"USE_CATALOG"}
    assert set(resources["databricks_secret_acl"]) == {r for r in unity.ROLES if unity.ROLES[r].writes}
    assert {a["permission"] for a in resources["databricks_secret_acl"].values()} == {"READ"}
    assert "databricks_secret" not in resources  # values would lie in the state


def test_the_policy_is_json_once_its_variables_are_filled_in() -> None:
    definition = TERRAFORM["resource"]["databricks_cluster_policy"]["jobs"]["definition"]
    filled = definition.replace("${jsonencode(var.node_types)}", '["a", "b"]').replace("${var.spark_version}", "v")
    policy = json.loads(filled)
    assert policy["data_security_mode"] == {"type": "fixed", "value": "SINGLE_USER", "hidden": True}
    assert policy["node_type_id"]["values"] == ["a", "b"]
    assert policy["custom_tags.project"]["value"] == default("databricks_project")
    assert TERRAFORM["resource"]["databricks_cluster_policy"]["jobs"]["name"] == POLICY
    assert BUNDLE["variables"]["policy_id"]["lookup"] == {"cluster_policy": POLICY}


def test_one_tool_owns_each_kind_of_object() -> None:
    owners: dict[str, set[str]] = {}
    by_terraform = {"databricks_catalog": "CATALOG", "databricks_schema": "SCHEMA", "databricks_volume": "VOLUME",
                    "databricks_sql_table": "TABLE"}  # fmt: skip
    for kind in TERRAFORM["resource"]:
        owners.setdefault(by_terraform.get(kind, kind), set()).add("terraform")
    for kind, made in (("SCHEMA", "schemas"), ("VOLUME", "volumes"), ("CATALOG", "catalogs"), ("TABLE", "tables")):
        if made in BUNDLE["resources"]:
            owners.setdefault(kind, set()).add("bundle")
    for file in unity.sql_files():
        for statement in file.statements:
            kind = re.match(r"CREATE (?:OR REPLACE )?(\w+)", statement)
            if kind:
                owners.setdefault(kind[1], set()).add(file.owner)
    assert {k: sorted(v) for k, v in owners.items() if len(v) > 1} == {}
    assert (owners["CATALOG"], owners["SCHEMA"], owners["TABLE"]) == ({"terraform"}, {"bundle"}, {"sql"})
    assert "grants" not in json.dumps(BUNDLE["resources"])


# --- compose ----------------------------------------------------------------------------------------------------------


def test_compose_has_every_part_healthy_before_the_next() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"kafka", "postgres", *OURS}
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            assert how == {"condition": "service_healthy"}
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()
        assert all(p.startswith("127.0.0.1:") for p in service.get("ports", []))


def test_images_have_versions_and_ours_is_built_here() -> None:
    images = [s["image"] for s in COMPOSE["services"].values()]
    images += re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    for image in images:
        tag = image.split(":", 1)[1]
        assert tag
        assert "latest" not in tag
    for name in OURS:
        build = COMPOSE["services"][name]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_the_code_server_is_set_by_settings_only() -> None:
    environment = COMPOSE["services"]["code"]["environment"]
    assert set(environment) - {"DAGSTER_POSTGRES_URL"} <= NAMES
    assert {"CRYPTO_ASSETS_HOME", "CRYPTO_ASSETS_AUTOMATION", "KAFKA_BOOTSTRAP_SERVERS", "MLFLOW_TRACKING_URI"} <= set(
        environment
    )
    assert COMPOSE["services"]["code"]["env_file"] == [{"path": ".env", "required": False}]
    assert "env_file" not in COMPOSE["services"]["webserver"]
    assert environment["KAFKA_BOOTSTRAP_SERVERS"].endswith("kafka:9092}")
    assert "INTERNAL://kafka:9092" in COMPOSE["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


def test_dagster_yaml_differs_from_the_packaged_one_only_in_storage() -> None:
    packaged = yaml.safe_load((ROOT / "crypto_assets/orchestration/dagster.yaml").read_text())
    deployed = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert deployed.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    del packaged["event_log_storage"]
    assert deployed == packaged
    assert all("DAGSTER_POSTGRES_URL" in COMPOSE["services"][s]["environment"] for s in ("code", "webserver", "daemon"))


def test_the_workspace_is_the_code_server() -> None:
    (entry,) = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())["load_from"]
    assert entry["grpc_server"]["host"] in COMPOSE["services"]
    command = COMPOSE["services"]["code"]["command"]
    assert command[command.index("--port") + 1] == str(entry["grpc_server"]["port"])
    module = command[command.index("-m") + 1]
    assert (ROOT / (module.replace(".", "/") + ".py")).is_file()


def test_the_image_is_installed_by_hash_runs_as_nobody_special_and_copies_only_what_exists() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\w+)", text, flags=re.MULTILINE) == ["app"]
    assert "HEALTHCHECK" in text
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for sources in re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", text, flags=re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source.removeprefix("./")).exists(), source
            assert source in allowed
    locked = (DEPLOY / "requirements-postgres.lock").read_text()
    assert set(re.findall(r"^([\w-]+)==", locked, flags=re.MULTILINE)) == {"dagster-postgres", "psycopg2-binary"}
    version = re.findall(r"^dagster-databricks==(\S+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert f"dagster-postgres=={version[0]} " in locked


# --- helpers and vendors' own validators ------------------------------------------------------------------------------


def validator(*command: str, cwd: Path, usable: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a vendor's validator; skip by name when the tool or what it needs is absent."""
    tool = " ".join(command[:2])
    if shutil.which(command[0]) is None:
        pytest.skip(f"{tool}: {command[0]} is not installed")
    probe = subprocess.run(usable, check=False, cwd=cwd, capture_output=True, text=True, timeout=60)
    if probe.returncode:
        said = (probe.stderr or probe.stdout).strip()
        reason = next((line for line in said.splitlines() if re.search(r"(?i)error|unknown", line)), said[:80])
        pytest.skip(f"{tool}: not usable here: `{' '.join(usable)}` says {reason.strip()!r}")
    return subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    environment.write_text("POSTGRES_PASSWORD=fortest\n")
    command = ("docker", "compose", "--env-file", str(environment), "-f", str(DEPLOY / "compose.yaml"), "config", "-q")
    done = validator(*command, cwd=tmp_path, usable=("docker", "compose", "version"))
    assert done.returncode == 0, done.stderr


def test_terraform_accepts_the_files(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "terraform" / "main.tf.json", tmp_path)
    init = ("terraform", "init", "-backend=false", "-input=false", "-no-color")
    done = validator("terraform", "validate", "-no-color", cwd=tmp_path, usable=init)
    assert done.returncode == 0, done.stderr


def test_the_databricks_cli_accepts_the_bundle() -> None:
    done = validator("databricks", "bundle", "validate", cwd=DEPLOY, usable=("databricks", "auth", "describe"))
    assert done.returncode == 0, done.stderr
