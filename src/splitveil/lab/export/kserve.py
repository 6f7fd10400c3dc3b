"""A KServe InferenceService (serving.kserve.io/v1beta1) for a bundle's cloud half."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from splitveil.core.errors import InputError, MissingExtraError
from splitveil.core.records import Manifest, write_atomically
from splitveil.wire.bundle import Bundle

GRPC_PORT, HTTP_PORT = 8001, 8000
MOUNT = "/mnt/models"
"""Where KServe's storage initializer puts what STORAGE_URI names."""
TLS, TOKENS = "/etc/splitveil/tls", "/etc/splitveil/tokens"
USER = 65532
"""Nobody in particular; only that it is not root."""


class ClusterSettings(NamedTuple):
    """What a cluster must be told beside the bundle.

    Args:
        storage: URI of the bundle's (or the Triton repository's) copy that the cluster can read: s3://, gs://, pvc://.
        image: container image with SplitVeil inside.
        replicas: least copies.
        cpu: of one copy, requested and allowed.
        memory: of one copy, requested and allowed.
        tls_secret: a Secret with tls.crt and tls.key; ca.crt too with `mutual`.
        mutual: clients must show a certificate of ca.crt.
        token_secret: a Secret whose key ``tokens`` is a token file.
        insecure: neither TLS nor tokens are wanted, and that is known.
    """

    storage: str
    image: str = ""
    replicas: int = 1
    cpu: str = "1"
    memory: str = "1Gi"
    tls_secret: str = ""
    mutual: bool = False
    token_secret: str = ""
    insecure: bool = False


def our_service(manifest: Manifest, wanted: ClusterSettings) -> dict[str, Any]:
    """Our own server as a custom predictor, gRPC on the published port, as a plain deployment (it ends TLS itself).

    Raises:
        InputError: a field that the cluster would refuse, or neither secrets nor `insecure`.
    """
    if not wanted.image:
        raise InputError("expected an image with SplitVeil inside, got none; give --image REGISTRY/NAME:TAG.")
    if not (wanted.insecure or (wanted.tls_secret and wanted.token_secret)):
        raise InputError(
            "expected --tls-secret and --token-secret, for pods can be reached by their neighbours; "
            "give both, or --insecure."
        )
    if wanted.mutual and not wanted.tls_secret:
        raise InputError("expected --tls-secret beside --mutual-tls, got none; name the Secret that holds ca.crt too.")
    args = ["serve", MOUNT, "--host", "0.0.0.0", "--grpc-port", str(GRPC_PORT), "--http-port", str(HTTP_PORT)]  # noqa: S104
    if wanted.tls_secret:
        args += ["--tls-cert", f"{TLS}/tls.crt", "--tls-key", f"{TLS}/tls.key"]
        args += ["--client-ca", f"{TLS}/ca.crt"] if wanted.mutual else []
    if wanted.token_secret:
        args += ["--token-file", f"{TOKENS}/tokens"]
    if wanted.insecure:
        args += ["--insecure"]
    secrets = [
        (n, s, at) for n, s, at in (("tls", wanted.tls_secret, TLS), ("tokens", wanted.token_secret, TOKENS)) if s
    ]
    # The health paths ask for no token, but the kubelet has no client certificate: all it sees then is an open port.
    scheme = "HTTPS" if wanted.tls_secret else "HTTP"
    ready = (
        {"tcpSocket": {"port": GRPC_PORT}}
        if wanted.mutual
        else {"httpGet": {"path": "/v2/health/ready", "port": HTTP_PORT, "scheme": scheme}}
    )
    container = {
        "name": "kserve-container",
        "image": wanted.image,
        "args": args,
        "env": [{"name": "STORAGE_URI", "value": wanted.storage}],
        "ports": [{"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"}],
        "readinessProbe": {**ready, "periodSeconds": 5, "failureThreshold": 3},
        "resources": _resources(wanted),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, "mountPath": at, "readOnly": True} for name, _, at in secrets],
    }
    predictor = {
        "minReplicas": wanted.replicas,
        "containers": [container],
        "volumes": [{"name": name, "secret": {"secretName": secret}} for name, secret, _ in secrets],
    }
    return _service(manifest, predictor, wanted)


def triton_service(manifest: Manifest, wanted: ClusterSettings) -> dict[str, Any]:
    """Triton as KServe ships it, over a repository that `triton.write_repository` wrote.

    Raises:
        InputError: a field that the cluster would refuse, or one that only our own server knows.
    """
    if wanted.tls_secret or wanted.token_secret or wanted.image:
        raise InputError(
            "expected no image and no secrets with Triton, which knows no tokens; protect it at the cluster's gateway."
        )
    predictor = {
        "minReplicas": wanted.replicas,
        "model": {
            "modelFormat": {"name": "triton"},
            "runtime": "kserve-tritonserver",
            "protocolVersion": "grpc-v2",
            "storageUri": wanted.storage,
            "ports": [{"name": "h2c", "containerPort": 9000, "protocol": "TCP"}],
            "resources": _resources(wanted),
        },
    }
    return _service(manifest, predictor, wanted)


def write_service(bundle: Bundle, path: Path, service: dict[str, Any]) -> None:
    """Write a service as YAML, atomically.

    Raises:
        BundleError: the edge half alone.
        MissingExtraError: PyYAML is not installed.
    """
    bundle.require_cloud()
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingExtraError("KServe manifests need PyYAML; pip install 'splitveil[yaml]'.") from None
    write_atomically(path, yaml.safe_dump(service, sort_keys=False).encode())


def service_name(name: str) -> str:
    """The nearest DNS label (RFC 1123), which is what a cluster takes for a name.

    Raises:
        InputError: nothing of the name is left.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
    if not label:
        raise InputError(f"expected a letter or a digit in the model's name, got {name!r}; fit it under another name.")
    return label


def _service(manifest: Manifest, predictor: dict[str, Any], wanted: ClusterSettings) -> dict[str, Any]:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", wanted.storage):
        raise InputError(
            f"expected a URI that the cluster can read, got {wanted.storage!r}; give --storage s3://BUCKET/PATH."
        )
    if wanted.replicas < 0:
        raise InputError(f"expected 0 replicas or more, got {wanted.replicas}; use --replicas 1.")
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service_name(manifest.name),
            "annotations": {
                "serving.kserve.io/deploymentMode": "RawDeployment",
                "splitveil/contract": manifest.contract,
            },
        },
        "spec": {"predictor": predictor},
    }


def _resources(wanted: ClusterSettings) -> dict[str, Any]:
    amount = {"cpu": wanted.cpu, "memory": wanted.memory}
    return {"requests": amount, "limits": dict(amount)}
