"""The tests that the onnx package carries, run on inferkit and judged."""
