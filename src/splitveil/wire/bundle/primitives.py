"""What signing takes of ``cryptography``; imported only when something is signed or verified."""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

__all__ = ["InvalidSignature", "UnsupportedAlgorithm", "ed25519", "serialization"]
