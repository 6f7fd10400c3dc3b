"""What a device and a link cost in time. NumPy and ONNX Runtime only: this runs on the device."""
