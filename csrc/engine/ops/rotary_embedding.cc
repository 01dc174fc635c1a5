// RotaryEmbedding of ONNX and of ONNX Runtime: pairs of a head's elements are turned by the angle of their position.
#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/attention.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/indices.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr TypeSet kTypes = types(DType::kF32, DType::kF16, DType::kBF16);

/// Where the operator's inputs stand: ONNX Runtime's puts the positions before the tables.
struct Inputs {
  size_t cos, sin, positions;
};
Inputs inputs_of(const NodeContext& c) { return c.node().domain == kMicrosoft ? Inputs{2, 3, 1} : Inputs{1, 2, 3}; }

enum class Positions : uint8_t { kNone, kPerToken, kStart };

struct RotaryParams {
  int64_t batch, heads, rows, size, half;  // the first 2 * half elements of a head turn
  HeadStrides x;
  int64_t table_rows;
  Positions positions;
  bool interleaved;
};

RotaryParams read_params(const NodeContext& c) {
  const auto [cos, sin, positions] = inputs_of(c);
  const bool microsoft = c.node().domain == kMicrosoft;
  const Shape &x = c.input(0).shape, &table = c.input(cos).shape;
  if (x.rank() != 3 && x.rank() != 4) c.fail(cat("expected 3 or 4 dimensions, got ", x.str()));
  if (table != c.input(sin).shape || table.rank() == 0) {
    c.fail(cat("the tables have shapes ", table.str(), " and ", c.input(sin).shape.str()));
  }
  RotaryParams p{};
  p.batch = x[0];
  int64_t turned = c.attr_int("rotary_embedding_dim", 0);
  if (x.rank() == 4) {
    p.heads = x[1];
    p.rows = x[2];
    p.size = x[3];
  } else {
    p.heads = c.attr_int("num_heads", 0);
    // ONNX Runtime takes the size of a head from the tables where it is not told the number of heads.
    if (microsoft && p.heads == 0 && turned == 0 && table.back() > 0) p.heads = x[2] / (2 * table.back());
    if (p.heads < 1 || x[2] % p.heads != 0) c.fail(cat("num_heads ", p.heads, " does not divide ", x.str()));
    p.rows = x[1];
    p.size = x[2] / p.heads;
  }
  if (turned == 0) turned = p.size;
  if (turned < 0 || turned > p.size || turned % 2 != 0) {
    c.fail(cat("rotary_embedding_dim ", turned, " for heads of ", p.size));
  }
  p.half = turned / 2;
  if (table.back() != p.half) c.fail(cat("tables of shape ", table.str(), " for ", p.half, " angles"));
  p.x = x.rank() == 4 ? heads_first(p.heads, p.rows, p.size) : rows_first(p.heads, p.rows, p.size);
  p.interleaved = c.attr_int("interleaved", 0) != 0;
  if (!c.has_input(positions)) {
    if (table != Shape{p.batch, p.rows, p.half}) c.fail(cat("tables of shape ", table.str(), " without positions"));
    return p;
  }
  const Shape& ids = c.input(positions).shape;
  if (table.rank() != 2) c.fail(cat("tables of shape ", table.str(), " with positions"));
  p.table_rows = table[0];
  if (microsoft && ids == Shape{1}) {
    p.positions = Positions::kStart;
  } else if (ids == Shape{p.batch, p.rows}) {
    p.positions = Positions::kPerToken;
  } else {
    c.fail(cat("positions of shape ", ids.str(), " for ", counted(p.batch, "sequence"), " of ", p.rows));
  }
  return p;
}

/// io: y, x, cos, sin, positions.
template <class T>
void rotary_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const RotaryParams*>(params);
  const int64_t pair = p.interleaved ? 1 : p.half, stride = p.interleaved ? 2 : 1;
  WorkMeter meter;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t i = 0; i < p.rows && meter.go_on(2 * p.heads * p.half); ++i) {
      int64_t line = b * p.rows + i;
      if (p.positions == Positions::kPerToken) line = index_at<int64_t>(io[4], line, p.table_rows);
      if (p.positions == Positions::kStart) {
        const int64_t start = reinterpret_cast<const int64_t*>(io[4])[0];
        if (start < 0 || start >= p.table_rows - i) throw_index(start, p.table_rows);
        line = start + i;
      }
      const T* cos = reinterpret_cast<const T*>(io[2]) + line * p.half;
      const T* sin = reinterpret_cast<const T*>(io[3]) + line * p.half;
      for (int64_t h = 0; h < p.heads; ++h) {
        const int64_t at = b * p.x.batch + h * p.x.head + i * p.x.row;
        const T* x = reinterpret_cast<const T*>(io[1]) + at;
        T* y = reinterpret_cast<T*>(io[0]) + at;
        for (int64_t j = 0; j < p.half; ++j) {
          const float real = load(x[j * stride]), imaginary = load(x[j * stride + pair]);
          const float c = load(cos[j]), s = load(sin[j]);
          y[j * stride] = store<T>(c * real - s * imaginary);
          y[j * stride + pair] = store<T>(s * real + c * imaginary);
        }
        if (x != y) std::copy(x + 2 * p.half, x + p.size, y + 2 * p.half);
      }
    }
  }
}

void infer_rotary(InferContext& c) {
  const auto [cos, sin, positions] = inputs_of(c);
  require_type(c, 0, kTypes);
  require_same_type(c, 0, cos);
  require_same_type(c, 0, sin);
  if (c.attr_int("is_packed_batching", 0) != 0) c.unsupported("is_packed_batching");
  if (c.attr_float("scale", 1) != 1) c.unsupported("a scale other than 1");
  const int64_t turned = c.attr_int("rotary_embedding_dim", 0);
  if (turned < 0 || turned % 2 != 0) c.fail(cat("rotary_embedding_dim ", turned));
  if (c.has_input(positions) && c.input(positions).dtype != DType::kI64) c.wrong("positions must be int64");
  read_params(c);
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

void lower_rotary(LowerContext& c) {
  const auto [cos, sin, positions] = inputs_of(c);
  const StepFn fn = dispatch<kTypes>(c.input(0).dtype, []<class T>() -> StepFn { return rotary_step<T>; });
  c.in_place(0, 0);
  c.step(fn, read_params(c),
         {c.out(0), c.in(0), c.in(cos), c.in(sin), c.has_input(positions) ? c.in(positions) : Ref{}},
         static_cast<double>(c.input(0).shape.elements()));
}

/// Elements of a head turn in pairs; with one position for all, each token's follows from its place. What tables hold
/// is picked by position.
Axes mixed_by_rotation(const NodeContext& c, size_t i) {
  const Positions positions = read_params(c).positions;
  const auto [cos, sin, given] = inputs_of(c);
  if (i == given) return 0;
  if (i != 0 && positions != Positions::kNone) return kAllAxes;
  const auto rank = static_cast<int64_t>(c.input(i).shape.rank());
  const Axes pairs = one_axis(rank - 1);
  return i == 0 && positions == Positions::kStart ? static_cast<Axes>(pairs | one_axis(rank == 4 ? 2 : 1)) : pairs;
}

}  // namespace

void register_rotary_embedding(OpRegistry& r) {
  const OpSchema row{.name = "RotaryEmbedding",
                     .since = 23,
                     .min_inputs = 3,
                     .max_inputs = 4,
                     .max_outputs = 1,
                     .infer = infer_rotary,
                     .mixed_axes = mixed_by_rotation};
  r.add(row, lower_rotary);
  OpSchema microsoft = row;
  microsoft.domain = kMicrosoft;
  microsoft.since = 1;
  microsoft.min_inputs = 4;
  r.add(microsoft, lower_rotary);
}

}  // namespace inferkit
