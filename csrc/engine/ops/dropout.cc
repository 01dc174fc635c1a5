// Dropout: nothing but its input in inference; in training mode each element is dropped or scaled by a draw of its own.
#include <vector>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/draws.h"
#include "engine/ops/dispatch.h"
#include "engine/plan/draw_stream.h"
#include "graph/passes/pattern.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// In training mode whatever its inputs say; from opset 12 on an input says it.
bool always_drops(const NodeContext& c) { return c.version() < 7 && c.attr_int("is_test", 0) == 0; }
/// Whether it may be in training mode as far as is known.
bool may_drop(const NodeContext& c) {
  if (c.version() < 12) return always_drops(c);
  return c.has_input(2) && (!c.input(2).constant || *c.input(2).constant->as<bool>());
}
bool rows_mix(const Node& node, const Graph& graph) {
  if (node.version < 7) return int_attr(node, "is_test", 0) == 0;
  if (node.version < 12 || node.inputs.size() < 3 || node.inputs[2] == kNoValue) return false;
  const Tensor* training = graph.constant(node.inputs[2]);
  return !training || training->dtype != DType::kBool || training->shape.elements() != 1 || *training->as<bool>();
}

bool is_ratio(double ratio) { return ratio >= 0 && ratio < 1; }

double number_of(const Tensor& ratio) {
  return dispatch<kFloatTypes>(ratio.dtype, [&]<class T>() { return static_cast<double>(load(*ratio.as<T>())); });
}

void infer_dropout(InferContext& c) {
  draw_key(c, /*integer=*/true);
  if (c.version() < 12 && always_drops(c)) {
    if (const float ratio = c.attr_float("ratio", 0.5f); !is_ratio(ratio)) c.wrong(cat("a ratio of ", ratio));
  }
  const TensorFacts& x = c.input(0);
  if (c.has_input(2)) {
    require_type(c, 2, types(DType::kBool));
    if (c.input(2).shape.elements() != 1) c.fail(cat("training_mode of shape ", c.input(2).shape.str()));
  }
  if (may_drop(c)) {
    require_type(c, 0, kFloatTypes);
    if (c.has_input(1)) {
      require_type(c, 1, kFloatTypes);
      if (c.input(1).shape.elements() != 1) c.fail(cat("a ratio of shape ", c.input(1).shape.str()));
      if (const Tensor* ratio = c.input(1).constant; ratio && !is_ratio(number_of(*ratio))) {
        c.wrong(cat("a ratio of ", number_of(*ratio)));
      }
    }
  }
  c.set_output(0, x.dtype, x.shape);
  if (c.has_output(1)) c.set_output(1, c.version() < 10 ? x.dtype : DType::kBool, x.shape);
}

using ReadRatio = double (*)(const std::byte* ratio);

struct DropParams {
  uint64_t key;
  int64_t count;
  double ratio;  // where no input gives it
  bool float_mask;
  ReadRatio read_ratio;  // of the input's type
};

template <class T>
void fill_mask(std::byte* mask, int64_t count, bool as_float) {
  if (as_float) {
    fill_in_blocks(reinterpret_cast<T*>(mask), count, store<T>(static_cast<Compute<T>>(1)));
  } else {
    fill_in_blocks(mask, count, std::byte{1});
  }
}

template <class R>
double read_ratio(const std::byte* ratio) {
  return static_cast<double>(load(*reinterpret_cast<const R*>(ratio)));
}

/// io: y, mask (or null), x, ratio (or null), training mode (or null: it is).
template <class T>
void drop_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const DropParams*>(params);
  T* y = reinterpret_cast<T*>(io[0]);
  const T* x = reinterpret_cast<const T*>(io[2]);
  const double ratio = io[3] ? p.read_ratio(io[3]) : p.ratio;
  if (io[4] && !*reinterpret_cast<const bool*>(io[4])) {
    copy_in_blocks(y, x, static_cast<size_t>(p.count) * sizeof(T));
    if (io[1]) fill_mask<T>(io[1], p.count, p.float_mask);
    return;
  }
  if (!is_ratio(ratio)) throw Error(ErrorCode::kInference, cat("a ratio of ", ratio, ", which is not in [0, 1)"));
  const auto scale = static_cast<Compute<T>>(1 / (1 - ratio));
  const Draws draws(p.key, DrawStream::current());
  WorkMeter meter;
  for_blocks(meter, 0, p.count, 8, [&](int64_t first, int64_t last) {
    draws.words(first, last, [&](int64_t i, uint32_t word) {
      const bool kept = between(word) >= ratio;
      y[i] = kept ? store<T>(load(x[i]) * scale) : T{};
      if (io[1] && p.float_mask) reinterpret_cast<T*>(io[1])[i] = store<T>(static_cast<Compute<T>>(kept ? 1 : 0));
      if (io[1] && !p.float_mask) io[1][i] = std::byte{kept};
    });
  });
}

struct MaskParams {
  int64_t count;
  bool as_float;
};
template <class T>
void mask_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const MaskParams*>(params);
  fill_mask<T>(io[0], p.count, p.as_float);
}

void lower_dropout(LowerContext& c) {
  const int64_t n = c.input(0).shape.elements();
  const bool float_mask = c.version() < 10;
  if (!may_drop(c)) {
    c.alias(0, 0);
    const Ref mask = c.out(1);
    if (!mask.valid()) return;
    const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return mask_step<T>; });
    if (float_mask && !fn) c.unsupported(cat("a mask of type ", dtype_name(c.input(0).dtype)));
    c.step(fn ? fn : mask_step<float>, MaskParams{n, float_mask}, {mask}, static_cast<double>(n) / 8);
    return;
  }
  const DType ratio = c.version() >= 12 && c.has_input(1) ? c.input(1).dtype : DType::kF32;
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return drop_step<T>; });
  const DropParams p{draw_key(c, /*integer=*/true), n, c.version() < 12 ? c.attr_float("ratio", 0.5f) : 0.5, float_mask,
                     dispatch<kFloatTypes>(ratio, []<class R>() -> ReadRatio { return read_ratio<R>; })};
  c.step(fn, p,
         {c.out(0), c.out(1), c.in(0), c.version() >= 12 && c.has_input(1) ? c.steady(1) : Ref{},
          c.version() >= 12 ? c.in(2) : Ref{}},
         static_cast<double>(n) * 8);
}

}  // namespace

void register_dropout(OpRegistry& r) {
  r.add({.name = "Dropout",
         .min_inputs = 1,
         .max_inputs = 3,
         .max_outputs = 2,
         .infer = infer_dropout,
         .rows_mix = rows_mix},
        lower_dropout);
}

}  // namespace inferkit
