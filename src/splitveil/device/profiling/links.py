"""Links to plan for, and the time that a payload takes over one."""

import math
import re
from pathlib import Path

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records.device import Link
from splitveil.core.registry import nearest

SEGMENT = 1448
"""Bytes of payload in one packet: TCP with timestamps over Ethernet's 1500."""
TYPICAL = "typical uplink, round numbers of ours, not a measurement"
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
GIVEN = re.compile(r"(?P<bits>[\d.]+)(?P<unit>[kmg]?)/(?P<rtt>[\d.]+)(?P<ms>m?)s(/(?P<loss>[\d.]+)%)?", re.IGNORECASE)
EXAMPLE = "write BANDWIDTH/ROUND TRIP[/LOSS] in bits a second, for example 10M/50ms/1%"


def _preset(name: str, bandwidth_bits: float, rtt_seconds: float, loss: float) -> Link:
    return Link(name=name, bandwidth_bits=bandwidth_bits, rtt_seconds=rtt_seconds, loss=loss, source=TYPICAL)


LINKS: dict[str, Link] = {
    link.name: link
    for link in (
        _preset("3g", 1e6, 0.100, 0.01),
        _preset("lte", 10e6, 0.050, 0.005),
        _preset("wifi", 30e6, 0.010, 0.005),
        _preset("5g", 50e6, 0.020, 0.001),
    )
}
"""Presets by name, slowest first. Real links differ by an order of magnitude; measure one's own."""


def find_link(text: str) -> Link:
    """A preset by its name, ``10M/50ms``, ``10M/50ms/1%``, or a file of a `Link` that ends in ``.json``.

    Raises:
        UnknownNameError: no such preset.
        InputError: figures that are no link.
    """
    if text in LINKS:
        return LINKS[text]
    if text.endswith(".json"):
        return Link.load(Path(text))
    if "/" not in text:
        raise UnknownNameError(f"unknown link {text!r}.{nearest(text, LINKS)} Known: {', '.join(LINKS)}, or {EXAMPLE}.")
    found = GIVEN.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        bits = float(found["bits"]) * UNITS[found["unit"].lower()]
        rtt = float(found["rtt"]) / (1e3 if found["ms"] else 1)
        loss = float(found["loss"] or 0) / 100
    except ValueError:
        raise InputError(f"expected a link, got {text!r}; {EXAMPLE}.") from None
    if not (bits > 0 and loss < 1):
        raise InputError(f"expected a bandwidth above 0 and a loss below 100 %, got {text!r}; {EXAMPLE}.")
    return Link(name=text, bandwidth_bits=bits, rtt_seconds=rtt, loss=loss)


def transmission_seconds(payload_bytes: float, link: Link, answer_bytes: float = 0) -> float:
    """Expected time from the first byte sent to the last byte of the answer, without any computing.

    ``8 * (payload + answer) / bandwidth / (1 - p) + rtt + rtt * (1 - (1 - p)^packets)``: every packet is sent
    1 / (1 - p) times on average, and where any of them is lost, one more round trip passes until it is sent again.
    Our model. It leaves out slow start and handshakes (the connection is open and warm), timeouts, losses in bursts,
    that TCP slows down after a loss (the bandwidth is what remains then), headers, and that answers often come
    faster than requests go.

    Args:
        payload_bytes: what the device sends for one request.
        link: the way.
        answer_bytes: what comes back, over the same bandwidth.

    Raises:
        InputError: fewer than 0 bytes, or not a number.
    """
    for size in (payload_bytes, answer_bytes):
        if not 0 <= size < math.inf:
            raise InputError(f"expected 0 bytes or more, got {size}; give codec.payload_bytes(elements).")
    sent = 8 * (payload_bytes + answer_bytes) / link.bandwidth_bits / (1 - link.loss)
    packets = math.ceil(payload_bytes / SEGMENT) + math.ceil(answer_bytes / SEGMENT)
    return sent + link.rtt_seconds * (2 - (1 - link.loss) ** packets)
