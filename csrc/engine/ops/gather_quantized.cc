// GatherBlockQuantized of ONNX Runtime, the embedding table of quantised decoders: rows are gathered as they are
// stored, with their scales and zero points, and then widened.
#include <cstring>

#include "base/text.h"
#include "engine/compile/expand.h"
#include "engine/ops/dispatch.h"

namespace inferkit {
namespace {

enum Input : size_t { kData, kIndices, kScales, kZeroPoints };

/// Bytes that hold several values of `bits` each, from the low bits up, as one value a byte; `last` of them in a row.
Tensor unpacked(const Tensor& packed, int64_t bits, int64_t last) {
  const int64_t each = 8 / bits, bytes = packed.shape.back();
  Shape shape = packed.shape;
  shape[shape.rank() - 1] = last;
  void* data = nullptr;
  Tensor out = make_tensor(DType::kU8, shape, &data);
  auto* to = static_cast<uint8_t*>(data);
  const int64_t rows = bytes == 0 ? 0 : packed.shape.elements() / bytes;
  for (const int64_t r : stoppable_indices(rows)) {
    const uint8_t* from = packed.as<uint8_t>() + r * bytes;
    for (int64_t i = 0; i < last; ++i) {
      *to++ = static_cast<uint8_t>(from[i / each] >> (i % each * bits) & ((1 << bits) - 1));
    }
  }
  return out;
}

ValueId number(Expansion& e, int64_t value) { return e.constant_of(make_tensor<int64_t>({}, {&value, 1})); }

/// The blocks that the indices lie in, of `size` elements, which may be counted from the end.
ValueId blocks_of(Expansion& e, int64_t size, int64_t block) {
  const ValueId at = e.add("Cast", 13, {e.in(kIndices)}, {{"to", int64_t{7}}});  // int64
  const ValueId from_end = e.add("Less", 13, {at, number(e, 0)});
  const ValueId counted = e.add("Where", 9, {from_end, e.add("Add", 14, {at, number(e, size)}), at});
  return e.add("Div", 14, {counted, number(e, block)});
}

void expand_gather(Expansion& e) {
  const Tensor *data = e.constant(e.in(kData)), *scales = e.constant(e.in(kScales));
  const Tensor* zeros = e.constant(e.in(kZeroPoints));
  if (!data || !scales || (e.has(kZeroPoints) && !zeros)) e.refuse("a table that is only known during a run");
  const bool bytes = data->dtype == DType::kU8;
  if (!bytes && data->dtype != DType::kI4 && data->dtype != DType::kU4) {
    e.refuse(cat("a table of type ", dtype_name(data->dtype)));
  }
  if (zeros && zeros->dtype != data->dtype) e.refuse(cat("zero points of type ", dtype_name(zeros->dtype)));
  const int64_t bits = e.attr("bits", int64_t{4}), block = e.attr("block_size", int64_t{128});
  if (bits != 4 && !(bytes && (bits == 2 || bits == 8))) e.refuse(cat(bits, " bits"));
  if (block < 16 || block > int64_t{1} << 30 || (block & (block - 1)) != 0) e.refuse(cat("block_size ", block));
  const auto rank = static_cast<int64_t>(data->shape.rank());
  const auto axis_of = [&](const char* name, int64_t fallback) {
    const int64_t axis = e.attr(name, fallback);
    if (axis < -rank || axis >= rank) e.refuse(cat(name, " ", axis, " of a table of shape ", data->shape.str()));
    return axis < 0 ? axis + rank : axis;
  };
  if (rank < 1) e.refuse("a table that is a scalar");
  const int64_t gathered = axis_of("gather_axis", 0), quantized = axis_of("quantize_axis", 1);
  if (bytes && quantized != rank - 1) e.refuse(cat("quantize_axis ", quantized, ", which is not the last"));
  const auto q = static_cast<size_t>(quantized);
  Shape shape = data->shape, expected = shape;  // of the values, and of the scales
  if (bytes) shape[q] *= 8 / bits;
  expected[q] = (shape[q] + block - 1) / block;
  if (scales->shape != expected) {
    e.refuse(cat("scales of shape ", scales->shape.str(), ", where ", expected.str(), " is expected"));
  }
  Shape zero_shape = expected;
  if (bytes) zero_shape[q] = (expected[q] * bits + 7) / 8;
  if (zeros && zeros->shape != zero_shape) {
    e.refuse(cat("zero points of shape ", zeros->shape.str(), ", where ", zero_shape.str(), " is expected"));
  }
  ValueId table = e.in(kData), zero = e.in(kZeroPoints);
  if (bytes && bits < 8) {
    table = e.constant_of(unpacked(*data, bits, shape[q]));
    if (zeros) zero = e.constant_of(unpacked(*zeros, bits, expected[q]));
  }
  if (bytes && !zeros) {
    void* memory = nullptr;
    Tensor middle = make_tensor(DType::kU8, expected, &memory);
    std::memset(memory, 1 << (bits - 1), static_cast<size_t>(expected.elements()));
    zero = e.constant_of(std::move(middle));
  }
  // Along the axis that is cut into blocks, an element has the scale of its block.
  const bool within = gathered == quantized;
  const ValueId of_scales = within ? blocks_of(e, shape[q], block) : e.in(kIndices);
  const auto gather = [&](ValueId from, ValueId at) { return e.add("Gather", 13, {from, at}, {{"axis", gathered}}); };
  std::vector<ValueId> inputs{gather(table, e.in(kIndices)), gather(e.in(kScales), of_scales)};
  if (zero != kNoValue) inputs.push_back(gather(zero, of_scales));
  // Behind the gathered axis, counted from the end: how many axes the indices have is not known here.
  const int64_t axis = quantized < gathered ? quantized : quantized - rank;
  const int64_t each = within ? 1 : block;
  e.give(0, e.add("DequantizeLinear", 21, std::move(inputs), {{"axis", axis}, {"block_size", each}}));
}

}  // namespace

void register_gather_quantized(OpRegistry& r) {
  add_expanded(
      r, {.domain = kMicrosoft, .name = "GatherBlockQuantized", .min_inputs = 3, .max_inputs = 4, .max_outputs = 1},
      expand_gather);
}

}  // namespace inferkit
