"""A bill of materials of one lock, as CycloneDX 1.6 JSON on standard output: ``python locks/bill.py locks/server.txt``.

It needs nothing but Python, reads nothing but the lock, and the same lock gives the same bytes. Each package has the
hashes that `pip --require-hashes` takes: one for every file of that version, whatever the platform.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PINNED = re.compile(
    r"^([A-Za-z0-9._-]+)==([^\s;\\]+)[^\n]*((?:\\?\n\s+--hash=sha256:[0-9a-f]{64}[^\n]*)*)", re.MULTILINE
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """One for each pinned package.

    Raises:
        ValueError: a package without a hash.
    """
    found = []
    for name, version, hashes in PINNED.findall(lock):
        known = HASH.findall(hashes)
        if not known:
            raise ValueError(f"{name} {version} has no hash")
        url = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
        files = [{"type": "distribution", "url": url, "hashes": [{"alg": "SHA-256", "content": one}]} for one in known]
        found.append(
            {
                "type": "library",
                "bom-ref": url,
                "name": name,
                "version": version,
                "purl": url,
                "externalReferences": files,
            }
        )
    return found


def bill(path: Path) -> dict[str, Any]:
    """The whole document."""
    root = {"type": "application", "bom-ref": "splitveil", "name": f"splitveil ({path.stem})"}
    parts = components(path.read_text())
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": parts,
        "dependencies": [{"ref": "splitveil", "dependsOn": [part["bom-ref"] for part in parts]}],
    }


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1])), indent=1))
