"""A camera that asks over mutual TLS with a token: frame after frame, and many at once in an event loop."""

import asyncio
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import splitveil as sv
from splitveil.device import ClientTls, Retry
from splitveil.lab.export import save

CA = "-CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE"
CERTIFICATES = {"ca": "", "server": f"{CA} -addext subjectAltName=IP:127.0.0.1", "device": CA}


def certify(folder: Path) -> None:
    """An authority, and certificates of it for the server and one device."""
    for name, more in CERTIFICATES.items():
        words = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -days 1 {more}"
        subprocess.run([*words.split(), "-keyout", f"{name}.key", "-out", f"{name}.pem"], cwd=folder, check=True,
                       stderr=subprocess.DEVNULL)  # fmt: skip


async def at_once(edge: sv.Edge, frames: Iterable[np.ndarray]) -> list[int]:
    """Answers to frames that are all on their way together; the event loop stays free."""
    async with edge:
        return [int(logits.argmax()) for logits in await asyncio.gather(*(edge.ask_async(x[None]) for x in frames))]


data = sv.load_data("digits")
halves = sv.split(sv.load_model("small", shape=data.shape, classes=10, weights=None).model, "relu3",
                  torch.zeros(2, *data.shape))  # fmt: skip
protected, _ = sv.protect(halves, "noise:sigma=0.5", "uniform:bits=8", data, epochs=3)
with tempfile.TemporaryDirectory() as name:
    folder, token = Path(name), secrets.token_hex(32)
    bundle = save(protected, folder / "digits", name="digits", model_spec="small", image_shape=data.shape,
                  classes=data.classes)  # fmt: skip
    certify(folder)
    (folder / "tokens").write_text(token)
    words = "serve digits --port 0 --tls-cert server.pem --tls-key server.key --client-ca ca.pem --token-file tokens"
    server = subprocess.Popen([sys.executable, "-m", "splitveil", *words.split()], cwd=folder, text=True,
                              stdout=subprocess.PIPE)  # fmt: skip
    try:
        address = server.stdout.readline().split()[-1]
        tls = ClientTls(folder / "ca.pem", folder / "device.pem", folder / "device.key")
        with sv.Edge(bundle, address, tls=tls, token=token, retries=Retry(attempts=3), timeout=10) as edge:
            seen = [int(answer.logits.argmax()) for answer in edge.stream(iter(data.test.x[:20]), in_flight=4)]
            print(f"one after the other: {seen}")
            print(f"all at once:         {asyncio.run(at_once(edge, data.test.x[:20]))}")
            print(f"true:                {data.test.y[:20].tolist()}")
    finally:
        server.terminate()
        server.wait(10)
