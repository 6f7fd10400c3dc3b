"""The manifest against the structure of KServe's public custom resource definition, and against our own options."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from splitveil.cli.serve import run as serve
from splitveil.core.errors import BundleError, InputError, MissingExtraError
from splitveil.lab.export.kserve import ClusterSettings, our_service, service_name, triton_service, write_service
from splitveil.wire.bundle import Bundle, write_half

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Amount = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$")]
PortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,15}$")]


class Part(BaseModel):
    """Nothing that the definition does not know, no number for a text."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True)


class Resources(Part):
    requests: dict[Literal["cpu", "memory"], Amount]
    limits: dict[Literal["cpu", "memory"], Amount]


class Port(Part):
    name: PortName
    container_port: int
    protocol: Literal["TCP", "UDP"]


class Http(Part):
    path: str
    port: int
    scheme: Literal["HTTP", "HTTPS"]


class Tcp(Part):
    port: int


class Probe(Part):
    http_get: Http | None = None
    tcp_socket: Tcp | None = None
    period_seconds: int
    failure_threshold: int


class Variable(Part):
    name: str
    value: str


class Mount(Part):
    name: Label
    mount_path: str
    read_only: bool


class Capabilities(Part):
    drop: list[str]


class Security(Part):
    run_as_non_root: bool
    run_as_user: int
    allow_privilege_escalation: bool
    read_only_root_filesystem: bool
    capabilities: Capabilities


class Container(Part):
    name: Literal["kserve-container"]
    image: str
    args: list[str]
    env: list[Variable]
    ports: list[Port]
    readiness_probe: Probe
    resources: Resources
    security_context: Security
    volume_mounts: list[Mount]


class Format(Part):
    name: str


class Model(Part):
    model_format: Format
    runtime: str
    protocol_version: Literal["v1", "v2", "grpc-v1", "grpc-v2"]
    storage_uri: str
    ports: list[Port]
    resources: Resources


class Secret(Part):
    secret_name: Label


class Volume(Part):
    name: Label
    secret: Secret


class Predictor(Part):
    min_replicas: int
    containers: list[Container] = []
    volumes: list[Volume] = []
    model: Model | None = None


class Spec(Part):
    predictor: Predictor


class Metadata(Part):
    name: Label
    annotations: dict[str, str]


class Service(Part):
    api_version: Literal["serving.kserve.io/v1beta1"]
    kind: Literal["InferenceService"]
    metadata: Metadata
    spec: Spec


OURS = ClusterSettings(
    "s3://models/tiny", image="registry/splitveil:0.1.0", tls_secret="tls-of-tiny", token_secret="tokens", mutual=True
)
OPEN = ClusterSettings("pvc://models/tiny", image="registry/splitveil:0.1.0", insecure=True)


def written(bundle: Bundle, folder: Path, service: dict[str, Any]) -> Service:
    write_service(bundle, folder / "service.yaml", service)
    return Service.model_validate(yaml.safe_load((folder / "service.yaml").read_text()))


def test_our_server_is_a_custom_predictor_with_its_secrets(bundle: Bundle, tmp_path: Path) -> None:
    found = written(bundle, tmp_path, our_service(bundle.manifest, OURS))
    assert found.metadata.name == "tiny-net"
    assert found.metadata.annotations["splitveil/contract"] == bundle.manifest.contract
    [container] = found.spec.predictor.containers
    assert container.env == [Variable(name="STORAGE_URI", value="s3://models/tiny")]
    mounts = {mount.mount_path: mount.name for mount in container.volume_mounts}
    secrets = {volume.name: volume.secret.secret_name for volume in found.spec.predictor.volumes}
    assert {path: secrets[name] for path, name in mounts.items()} == {
        "/etc/splitveil/tls": "tls-of-tiny", "/etc/splitveil/tokens": "tokens"
    }  # fmt: skip
    files = [word for word in container.args if word.startswith("/etc/")]
    assert files == [f"/etc/splitveil/{name}" for name in ("tls/tls.crt", "tls/tls.key", "tls/ca.crt", "tokens/tokens")]
    assert "--insecure" not in container.args
    # The kubelet has no certificate to show.
    assert container.readiness_probe.tcp_socket == Tcp(port=8001)
    assert container.resources.limits == {"cpu": "1", "memory": "1Gi"}


def test_a_token_hides_no_readiness(bundle: Bundle, tmp_path: Path) -> None:
    wanted = OURS._replace(mutual=False)
    [container] = written(bundle, tmp_path, our_service(bundle.manifest, wanted)).spec.predictor.containers
    assert container.readiness_probe.http_get == Http(path="/v2/health/ready", port=8000, scheme="HTTPS")
    assert container.readiness_probe.tcp_socket is None


def test_without_secrets_readiness_is_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    [container] = written(bundle, tmp_path, our_service(bundle.manifest, OPEN)).spec.predictor.containers
    assert container.readiness_probe.http_get == Http(path="/v2/health/ready", port=8000, scheme="HTTP")
    assert container.args[-1] == "--insecure"
    assert container.volume_mounts == []


@pytest.mark.parametrize("wanted", [OURS, OPEN])
def test_the_arguments_are_those_of_serve(bundle: Bundle, wanted: ClusterSettings) -> None:
    [container] = our_service(bundle.manifest, wanted)["spec"]["predictor"]["containers"]
    app = typer.Typer()
    app.command("serve")(serve)
    known = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
    assert container["args"][:2] == ["serve", "/mnt/models"]
    assert {word for word in container["args"] if word.startswith("--")} <= known


def test_triton_reads_the_repository(bundle: Bundle, tmp_path: Path) -> None:
    found = written(
        bundle, tmp_path, triton_service(bundle.manifest, ClusterSettings("gs://models/repository", replicas=2))
    )
    model = found.spec.predictor.model
    assert model is not None
    assert (model.model_format.name, model.runtime, model.storage_uri) == (
        "triton", "kserve-tritonserver", "gs://models/repository"
    )  # fmt: skip
    assert found.spec.predictor.min_replicas == 2
    assert model.ports[0].container_port == 9000


def test_the_schema_can_fail(bundle: Bundle) -> None:
    service = our_service(bundle.manifest, OURS)
    changes: list[dict[str, Any]] = [
        {"kind": "Pod"}, {"status": {}}, {"metadata": {"name": "Tiny_net", "annotations": {}}}
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ValidationError):
            Service.model_validate(service | change)


def test_what_would_not_run_is_refused(bundle: Bundle) -> None:
    m = bundle.manifest
    for wanted, message in (
        (OURS._replace(tls_secret=""), "--tls-secret and --token-secret"),
        (OURS._replace(token_secret=""), "--tls-secret and --token-secret"),
        (OURS._replace(image=""), "--image"),
        (OURS._replace(storage="models/tiny"), "--storage"),
        (OURS._replace(replicas=-1), "0 replicas or more"),
        (OPEN._replace(mutual=True), "--tls-secret"),
    ):
        with pytest.raises(InputError, match=message):
            our_service(m, wanted)
    with pytest.raises(InputError, match="knows no tokens"):
        triton_service(m, OURS)


def test_an_edge_half_is_not_served(bundle: Bundle, tmp_path: Path) -> None:
    edge = write_half(bundle, "edge", tmp_path / "edge")
    with pytest.raises(BundleError, match="expected the cloud half"):
        write_service(edge, tmp_path / "service.yaml", our_service(edge.manifest, OURS))
    assert not (tmp_path / "service.yaml").exists()


def test_names_become_labels() -> None:
    assert [service_name(n) for n in ("cat.dog_2", "--A--", "x" * 80)] == ["cat-dog-2", "a", "x" * 63]
    with pytest.raises(InputError, match="letter or a digit"):
        service_name("...")


def test_without_yaml_the_extra_is_named(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"splitveil\[yaml\]"):
        write_service(bundle, tmp_path / "service.yaml", our_service(bundle.manifest, OURS))
