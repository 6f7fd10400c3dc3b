"""Seconds of one request: device, link and server together; estimated from MACs, then timed with the real graphs."""

from dataclasses import dataclass
from functools import cached_property

from splitveil.core.errors import InputError
from splitveil.core.records import Device, Figure, Link
from splitveil.device.profiling import measure_here, scaled, time_graph, transmission_seconds
from splitveil.lab.export import Halves
from splitveil.wire.bundle import CLOUD, EDGE

ANSWER = 4
"""Bytes of one logit."""


@dataclass(frozen=True)
class Way:
    """What a request passes.

    Attributes:
        device: None where nobody said; then there is no latency.
        link: the same.
        server: None for this machine, whose speed is measured when it is first asked for.
        classes: logits that come back.
    """

    device: Device | None
    link: Link | None
    server: Device | None
    classes: int

    @cached_property
    def here(self) -> Device:
        """The machine that plans."""
        return measure_here()

    def estimate(self, edge_macs: float, cloud_macs: float, payload: float) -> Figure | None:
        """From MACs and reference speeds alone: orders choices. What waits for memory is slower than that."""
        if self.device is None or self.link is None:
            return None
        server = self.server or self.here
        seconds = edge_macs / self.device.macs_per_second + cloud_macs / server.macs_per_second
        seconds += transmission_seconds(payload, self.link, ANSWER * self.classes)
        words = (
            f"MACs over the reference speeds of {self.device.name} and {server.name}, and the model of {self.link.name}"
        )
        return Figure(value=seconds, measured=False, source=words)

    @property
    def known(self) -> bool:
        """Whether there is a latency."""
        return self.device is not None and self.link is not None

    def timed(self, halves: Halves, payload: float) -> Figure:
        """With both exported graphs timed here and scaled to device and server; the link is a model all the same.

        Raises:
            InputError: no device or no link.
        """
        if self.device is None or self.link is None:
            raise InputError("expected a device and a link, got none; add --device and --link.")
        server = self.server or self.here
        edge = scaled(time_graph(halves.files[EDGE]), self.here, self.device)
        cloud = scaled(time_graph(halves.files[CLOUD]), self.here, server)
        seconds = edge.value + cloud.value + transmission_seconds(payload, self.link, ANSWER * self.classes)
        words = (
            f"edge: {edge.source or 'measured'}; cloud: {cloud.source or 'measured'}; link: model of {self.link.name}"
        )
        return Figure(value=seconds, measured=False, source=words)
