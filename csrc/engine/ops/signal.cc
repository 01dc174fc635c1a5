// HannWindow, HammingWindow, BlackmanWindow and MelWeightMatrix: tables that follow from a few numbers, which must be
// known when a plan is compiled.
#include <cmath>
#include <numbers>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/saturate.h"
#include "graph/onnx_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 22;
constexpr int64_t kTermNanos = 40;  // two cosines

DType table_type(const NodeContext& c) {
  const auto code = static_cast<int32_t>(c.attr_int("output_datatype", 1));
  const auto dtype = onnx::dtype_of(code);
  if (!dtype || !contains(kNumberTypes, *dtype)) c.unsupported("a table of " + onnx::dtype_text(code));
  return *dtype;
}

/// The output is `count` numbers f(i), as the type that output_datatype names.
template <class F>
void set_table(InferContext& c, const Shape& shape, F&& f) {
  const DType dtype = table_type(c);
  const auto count = shape.checked_elements();
  if (!count || *count > kMaxElements) {
    c.fail(cat("a table of shape ", shape.str(), " is too large; expected at most ", kMaxElements, " numbers"));
  }
  void* data = nullptr;
  Tensor table = make_tensor(dtype, shape, &data);
  WorkMeter meter;
  dispatch<kNumberTypes>(dtype, [&]<class T>() {
    for (int64_t i = 0; i < *count; ++i) {
      meter.spend(kTermNanos);
      static_cast<T*>(data)[i] = store<T>(static_cast<Compute<T>>(f(i)));
    }
    return 0;
  });
  c.set_output(0, dtype, shape);
  c.set_constant(0, std::move(table));
}

int64_t one_int(const NodeContext& c, size_t i) {
  const std::vector<int64_t> values = c.const_ints(i);
  if (values.size() != 1) c.fail(cat("input ", i, " must hold one number"));
  return values[0];
}

double one_float(const NodeContext& c, size_t i) {
  const Tensor& t = c.known_value(i);
  if (t.shape.elements() != 1) c.fail(cat("input ", i, " must hold one number"));
  double value = 0;
  const bool is_number = dispatch<kFloatTypes>(t.dtype, [&]<class T>() {
    value = static_cast<double>(load(t.as<T>()[0]));
    return true;
  });
  if (!is_number) c.fail(cat("input ", i, " must be a floating number"));
  return value;
}

/// offset - cosine cos(a) + cosine2 cos(2 a), where a runs once around.
void infer_window(InferContext& c, double offset, double cosine, double cosine2) {
  table_type(c);
  const int64_t n = one_int(c, 0);
  if (n < 0) c.fail(cat("a window of ", n));
  const int64_t period = c.attr_int("periodic", 1) != 0 ? n : n - 1;
  if (period == 0 && n == 1) c.fail("a symmetric window of one element");
  set_table(c, {n}, [&](int64_t i) {
    const double a = 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(period);
    return offset - cosine * std::cos(a) + cosine2 * std::cos(2 * a);
  });
}

void infer_hann(InferContext& c) { infer_window(c, 0.5, 0.5, 0); }
void infer_hamming(InferContext& c) { infer_window(c, 25.0 / 46.0, 21.0 / 46.0, 0); }
void infer_blackman(InferContext& c) { infer_window(c, 0.42, 0.5, 0.08); }

/// Inputs: mel bins, length of the DFT, sample rate, lower and upper edge in Hz.
void infer_mel(InferContext& c) {
  const int64_t bins = one_int(c, 0), length = one_int(c, 1), rate = one_int(c, 2);
  const double lower = one_float(c, 3), upper = one_float(c, 4);
  if (bins > kMaxElements || length > 2 * kMaxElements) {
    c.fail(cat(bins, " mel bins of a DFT of ", length, " are too many; expected a table of at most ", kMaxElements,
               " numbers"));
  }
  if (bins < 1 || length < 1 || rate < 1 || !(lower >= 0 && upper >= lower)) {
    c.fail(cat(bins, " mel bins from ", lower, " to ", upper, " Hz, a DFT of ", length, " at ", rate, " Hz"));
  }
  const int64_t rows = length / 2 + 1;
  const auto mel = [](double hertz) { return 2595 * std::log1p(hertz / 700) / std::numbers::ln10; };
  const double low = mel(lower), step = (mel(upper) - low) / static_cast<double>(bins + 2);
  std::vector<int64_t> edges;
  for (int64_t i = 0; i < bins + 2; ++i) {
    const double m = static_cast<double>(i) * step + low;
    const double hertz = 700 * std::expm1(m / 2595 * std::numbers::ln10);
    edges.push_back(
        saturated<int64_t>(std::floor(static_cast<double>(length + 1) * hertz / static_cast<double>(rate))));
  }
  if (edges.back() > rows) c.fail(cat("an upper edge of ", upper, " Hz above half the sample rate"));
  set_table(c, {rows, bins}, [&](int64_t at) {
    const int64_t row = at / bins;
    const auto bin = static_cast<size_t>(at % bins);
    const int64_t left = edges[bin], center = edges[bin + 1], right = edges[bin + 2];
    if (row >= center && row < right) return static_cast<double>(right - row) / static_cast<double>(right - center);
    if (row == center) return 1.0;
    if (row >= left && row < center) return static_cast<double>(row - left) / static_cast<double>(center - left);
    return 0.0;
  });
}

}  // namespace

void register_signal(OpRegistry& r) {
  const auto add = [&](std::string_view name, int inputs, InferFn infer) {
    r.add({.name = name, .since = 17, .min_inputs = inputs, .max_inputs = inputs, .max_outputs = 1, .infer = infer},
          nullptr);
  };
  add("HannWindow", 1, infer_hann);
  add("HammingWindow", 1, infer_hamming);
  add("BlackmanWindow", 1, infer_blackman);
  add("MelWeightMatrix", 5, infer_mel);
}

}  // namespace inferkit
