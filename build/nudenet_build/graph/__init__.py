"""The network as an ONNX graph: export and precisions."""
