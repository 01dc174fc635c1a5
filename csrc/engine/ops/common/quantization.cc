#include "engine/ops/common/quantization.h"

#include "base/counted.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/small_convert.h"
#include "graph/onnx_tensor.h"

namespace inferkit {

int64_t block_size(const NodeContext& c) {
  const int64_t block = c.version() >= 21 ? c.attr_int("block_size", 0) : 0;
  if (block < 0) c.fail(cat("block_size ", block));
  return block;
}

ScaleLayout scale_layout(const NodeContext& c) {
  const Shape &x = c.input(0).shape, &scale = c.input(1).shape;
  const int64_t block = block_size(c);
  ScaleLayout l;
  if (block == 0 && scale.elements() == 1 && scale.rank() <= 1) {
    l.inner = x.elements();
    return l;
  }
  if (c.version() < 13) c.fail(cat("the scale must be a scalar before opset 13, not ", scale.str()));
  const auto axis = static_cast<size_t>(c.attr_axis(1, static_cast<int64_t>(x.rank())));
  l.outer = x.elements(0, axis);
  l.axis = x[axis];
  l.inner = x.elements(axis + 1, x.rank());
  if (block == 0) {
    if (scale.rank() != 1 || scale[0] != l.axis) {
      c.fail(cat("expected one scale, or one for each of the ", counted(l.axis, "index", "indices"), " of axis ", axis,
                 "; got ", scale.str()));
    }
    l.axis_stride = 1;
    return l;
  }
  Shape expected = x;
  expected[axis] = l.axis / block + (l.axis % block != 0);
  if (scale != expected) {
    c.fail(cat("blocks of ", block, " need scales of shape ", expected.str(), ", not ", scale.str()));
  }
  l.block = block;
  l.outer_stride = expected[axis] * l.inner;
  l.axis_stride = l.inner;
  l.inner_stride = 1;
  return l;
}

DType attr_dtype(const NodeContext& c, int64_t code) {
  const auto dtype = onnx::dtype_of(static_cast<int32_t>(code));
  if (!dtype || code != static_cast<int32_t>(code)) {
    c.unsupported(cat("element type ", code, " of TensorProto.DataType"));
  }
  return *dtype;
}

Ref scales_as_float(LowerContext& c, size_t i) {
  const DType dtype = c.input(i).dtype;
  const int64_t count = c.input(i).shape.elements();
  if (is_small_float(dtype)) return widened_small(c, c.in(i), dtype, count);
  return converted(c, c.in(i), dtype, DType::kF32, count);
}

}  // namespace inferkit
