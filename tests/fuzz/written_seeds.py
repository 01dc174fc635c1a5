"""Models of several nodes that passes rewrite: products of dequantized bytes, and loops with values that go round."""

from __future__ import annotations

from collections.abc import Iterator

GRAPHS = {
    "qdq_matmul": """
        g (float[2, 4] x) => (float[2, 3] y)
        <float s = {0.5}, uint8 z = {3}, int8[4, 3] w = {1, -2, 3, 4, 5, -6, 7, 8, 9, 10, -11, 12},
         float[3] ws = {0.1, 0.2, 0.3}, int8[3] wz = {1, 0, -1}> {
           q = QuantizeLinear (x, s, z)  a = DequantizeLinear (q, s, z)
           b = DequantizeLinear <axis = 1> (w, ws, wz)  y = MatMul (a, b)
        }""",
    "qdq_gemm": """
        g (float[2, 4] x) => (uint8[2, 3] y)
        <float s = {0.5}, uint8 z = {3}, int32[3] c = {5, 6, 7},
         uint8[3, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}> {
           q = QuantizeLinear (x, s, z)  a = DequantizeLinear (q, s, z)  b = DequantizeLinear (w, s, z)
           d = DequantizeLinear (c, s)  e = Gemm <transB = 1> (a, b, d)  y = QuantizeLinear (e, s, z)
        }""",
    "qdq_conv": """
        g (float[1, 1, 5, 4] x) => (float[1, 4, 3, 2] y)
        <float s = {0.5}, int8 z = {-3}, int8[4, 1, 3, 3] w = {
           1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9},
         float[4] ws = {0.1, 0.2, 0.3, 0.4}, float[4] c = {5, 6, 7, 8}> {
           q = QuantizeLinear (x, s, z)  a = DequantizeLinear (q, s, z)
           b = DequantizeLinear <axis = 0> (w, ws)  y = Conv <group = 1, pads = [0, 0, 0, 0]> (a, b, c)
        }""",
    "dynamic": """
        g (float[2, 4] x) => (float[2, 3] y)
        <int8[4, 3] w = {1, -2, 3, 4, 5, -6, 7, 8, 9, 10, -11, 12}, int8 wz = {1}> {
           q, s, z = DynamicQuantizeLinear (x)  i = MatMulInteger (q, w, z, wz)
           f = Cast <to = 1> (i)  y = Mul (f, s)
        }""",
    "loop": """
        g (float[2, 3] x, int64 n) => (float[2, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, -9}, bool yes = {1}> {
           s, v, k = Loop (n, yes, x, w, x) <
             body = b (int64 i, bool c, float[2, 3] t, float[3, 3] u, float[2, 3] m)
                    => (bool d, float[2, 3] o, float[3, 3] p, float[2, 3] m) {
                d = Identity (c)  a = MatMul (t, u)  o = Add (a, m)  p = Identity (u)
             }
           >
           y = Add (s, k)
        }""",
    "scan": """
        g (float[4, 3] x, float[3] z) => (float[3] y, float[4, 3] r) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, -9}> {
           y, v, r = Scan (z, w, x) <num_scan_inputs = 1,
             body = b (float[3] s, float[3, 3] u, float[3] row) => (float[3] t, float[3, 3] o, float[3] p) {
                p = MatMul (row, u)  t = Add (s, p)  o = Identity (u)
             }
           >
        }""",
}


def models() -> Iterator[tuple[str, bytes]]:
    """Names and models."""
    from onnx import parser

    for name, text in GRAPHS.items():
        source = f'<ir_version: 9, opset_import: ["" : 19]>\n{text}'
        yield f"written_{name}", parser.parse_model(source).SerializeToString()
