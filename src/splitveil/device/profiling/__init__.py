"""What a device and a link cost in time. NumPy, Pillow and ONNX Runtime only: this runs on the device."""

from splitveil.device.profiling.devices import DEVICES, find_device, measure_here
from splitveil.device.profiling.graph import by_node, graph_macs, time_graph
from splitveil.device.profiling.links import LINKS, find_link, transmission_seconds
from splitveil.device.profiling.pictures import picture_sizes
from splitveil.device.profiling.reference import reference_speed, scaled, time_reference

__all__ = [
    "DEVICES",
    "LINKS",
    "by_node",
    "find_device",
    "find_link",
    "graph_macs",
    "measure_here",
    "picture_sizes",
    "reference_speed",
    "scaled",
    "time_graph",
    "time_reference",
    "transmission_seconds",
]
