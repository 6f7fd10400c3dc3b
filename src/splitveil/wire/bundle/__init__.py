"""The deployable artefact: both halves (or one), what they agreed on and the leakage card, in one folder with hashes.

NumPy, pydantic and the standard library only: this is what a device and a server read. JSON, ONNX and safetensors; no
pickle. Hashes find damage and mix-ups; whoever can write the manifest can write them too: against that there are
signatures (`signing`).
"""

from splitveil.wire.bundle.folder import (
    AUDITED,
    CARD,
    CLOUD,
    CLOUD_WEIGHTS,
    EDGE,
    EDGE_WEIGHTS,
    FLOAT_EDGE,
    GOLDEN,
    MANIFEST,
    REQUIRED,
    SIGNATURE,
    Bundle,
    codec,
    contract_id,
)
from splitveil.wire.bundle.halving import write_half
from splitveil.wire.bundle.replacing import OPEN, SECRET, replaced
from splitveil.wire.bundle.signing import check_signature, load_signed, make_keys, sign, verify_signature
from splitveil.wire.bundle.writing import parts, refuse_foreign, refuse_taken, refuse_there, with_card, write_bundle

__all__ = [
    "AUDITED",
    "CARD",
    "CLOUD",
    "CLOUD_WEIGHTS",
    "EDGE",
    "EDGE_WEIGHTS",
    "FLOAT_EDGE",
    "GOLDEN",
    "MANIFEST",
    "OPEN",
    "REQUIRED",
    "SECRET",
    "SIGNATURE",
    "Bundle",
    "check_signature",
    "codec",
    "contract_id",
    "load_signed",
    "make_keys",
    "parts",
    "refuse_foreign",
    "refuse_taken",
    "refuse_there",
    "replaced",
    "sign",
    "verify_signature",
    "with_card",
    "write_bundle",
    "write_half",
]
