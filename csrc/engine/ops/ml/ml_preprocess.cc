// Feature preparation: Scaler, Normalizer, Imputer, Binarizer, ArrayFeatureExtractor, FeatureVectorizer, and ZipMap,
// which passes the probabilities on as the tensor that they are.
#include <algorithm>
#include <limits>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/ml/ml_common.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using namespace ml;

struct RowParams {
  int64_t rows, columns;
};

RowParams row_params(const NodeContext& c) {
  const Rows x = rows_of(c);
  return {x.rows, x.columns};
}

/// `values` repeated to one per column; fails where there is neither one nor one per column.
std::vector<float> per_column(const NodeContext& c, std::string_view name, std::vector<float> values, int64_t columns) {
  if (values.size() == 1) values.resize(static_cast<size_t>(columns), values[0]);
  if (static_cast<int64_t>(values.size()) != columns) {
    c.fail(cat(name, " has ", counted(values.size(), "element"), " for ", counted(columns, "feature")));
  }
  return values;
}

Ref table(LowerContext& c, std::vector<float> values) {
  const auto owner = std::make_shared<const std::vector<float>>(std::move(values));
  return c.constant(owner->data(), owner);
}

// --- Scaler: (x - offset) * scale

/// Integers and floats are scaled in float, doubles in double.
template <class T>
void scaler_step(const void* params, std::byte* const* io, const ExecContext&) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const auto& p = *static_cast<const RowParams*>(params);
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  const auto* offset = reinterpret_cast<const float*>(io[2]);
  const auto* scale = reinterpret_cast<const float*>(io[3]);
  WorkMeter meter;
  for_blocks(meter, 0, p.rows, p.columns, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r, x += p.columns, y += p.columns) {
      for (int64_t i = 0; i < p.columns; ++i) {
        y[i] = static_cast<float>((static_cast<A>(x[i]) - static_cast<A>(offset[i])) * static_cast<A>(scale[i]));
      }
    }
  });
}

void infer_to_float(InferContext& c) {
  require_type(c, 0, kMlTypes);
  rows_of(c);
  c.set_output(0, DType::kF32, c.input(0).shape);
}

void infer_scaler(InferContext& c) {
  const size_t offsets = c.attr_floats("offset").size(), scales = c.attr_floats("scale").size();
  if (offsets != scales && offsets != 1 && scales != 1) c.fail("offset and scale differ in length");
  infer_to_float(c);
}

void lower_scaler(LowerContext& c) {
  const RowParams p = row_params(c);
  const StepFn fn = dispatch<kMlTypes>(c.input(0).dtype, []<class T>() -> StepFn { return scaler_step<T>; });
  const Ref offset = table(c, per_column(c, "offset", c.attr_floats("offset"), p.columns));
  const Ref scale = table(c, per_column(c, "scale", c.attr_floats("scale"), p.columns));
  if (c.input(0).dtype == DType::kF32) c.in_place(0, 0);
  c.step(fn, p, {c.out(0), c.in(0), offset, scale}, 0.5 * multiplied(p.rows, p.columns));
}

// --- Normalizer

enum class Norm : uint8_t { kMax, kL1, kL2 };

struct NormParams {
  RowParams size;
  Norm norm;
};

/// A row whose norm is 0 passes unchanged. MAX is the largest value, not the largest magnitude, as in ONNX Runtime.
template <class T>
void normalizer_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NormParams*>(params);
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  const int64_t columns = p.size.columns;
  WorkMeter meter;
  for_blocks(meter, 0, p.size.rows, 2 * columns, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r, x += columns, y += columns) {
      double sum = p.norm == Norm::kMax ? std::numeric_limits<float>::lowest() : 0.0;
      for (int64_t i = 0; i < columns; ++i) {
        const double v = static_cast<float>(x[i]);
        sum = p.norm == Norm::kMax ? std::max(sum, v) : sum + (p.norm == Norm::kL1 ? std::fabs(v) : v * v);
      }
      const auto norm = static_cast<float>(p.norm == Norm::kL2 ? std::sqrt(sum) : sum);
      for (int64_t i = 0; i < columns; ++i) {
        const auto v = static_cast<float>(x[i]);
        y[i] = norm != 0 ? v / norm : v;
      }
    }
  });
}

Norm norm_of(const NodeContext& c) {
  const std::string name = c.attr_string("norm", "MAX");
  if (name == "MAX") return Norm::kMax;
  if (name == "L1") return Norm::kL1;
  if (name == "L2") return Norm::kL2;
  c.fail(cat("norm '", name, "' is none of MAX, L1, L2"));
}

void infer_normalizer(InferContext& c) {
  norm_of(c);
  infer_to_float(c);
}

void lower_normalizer(LowerContext& c) {
  const NormParams p{row_params(c), norm_of(c)};
  const StepFn fn = dispatch<kMlTypes>(c.input(0).dtype, []<class T>() -> StepFn { return normalizer_step<T>; });
  if (c.input(0).dtype == DType::kF32) c.in_place(0, 0);
  c.step(fn, p, {c.out(0), c.in(0)}, 1.5 * multiplied(p.size.rows, p.size.columns));
}

// --- Imputer

template <class T>
struct ImputerParams {
  RowParams size;
  T replaced;
};

template <class T>
void imputer_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ImputerParams<T>*>(params);
  auto* y = reinterpret_cast<T*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  const auto* imputed = reinterpret_cast<const T*>(io[2]);
  const bool nan = p.replaced != p.replaced;
  WorkMeter meter;
  for_blocks(meter, 0, p.size.rows, p.size.columns, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r, x += p.size.columns, y += p.size.columns) {
      for (int64_t i = 0; i < p.size.columns; ++i) {
        y[i] = x[i] == p.replaced || (nan && x[i] != x[i]) ? imputed[i] : x[i];
      }
    }
  });
}

void infer_imputer(InferContext& c) {
  if (!c.has_attr("imputed_value_floats") && !c.has_attr("imputed_value_int64s")) c.fail("has no imputed values");
  require_type(c, 0, kMlTypes);
  rows_of(c);
  const char* name = is_float(c.input(0).dtype) ? "imputed_value_floats" : "imputed_value_int64s";
  if (!c.has_attr(name)) c.wrong(cat("has no ", name, " for an input of type ", dtype_name(c.input(0).dtype)));
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

template <class T>
void lower_imputer_as(LowerContext& c) {
  const RowParams size = row_params(c);
  std::vector<T> imputed;
  T replaced;
  if constexpr (std::is_floating_point_v<T>) {
    for (float v : c.attr_floats("imputed_value_floats")) imputed.push_back(static_cast<T>(v));
    replaced = static_cast<T>(c.attr_float("replaced_value_float", 0));
  } else {
    const auto narrow = [&](int64_t v) {
      if (v < std::numeric_limits<T>::min() || v > std::numeric_limits<T>::max()) c.fail(cat(v, " is no int32"));
      return static_cast<T>(v);
    };
    for (int64_t v : c.attr_ints("imputed_value_int64s")) imputed.push_back(narrow(v));
    replaced = narrow(c.attr_int("replaced_value_int64", 0));
  }
  if (imputed.size() == 1) imputed.resize(static_cast<size_t>(size.columns), imputed[0]);
  if (static_cast<int64_t>(imputed.size()) != size.columns) {
    c.fail(cat("has ", imputed.size(), " imputed values for ", counted(size.columns, "feature")));
  }
  const auto owner = std::make_shared<const std::vector<T>>(std::move(imputed));
  c.in_place(0, 0);
  c.step(imputer_step<T>, ImputerParams<T>{size, replaced}, {c.out(0), c.in(0), c.constant(owner->data(), owner)},
         multiplied(size.rows, size.columns));
}

void lower_imputer(LowerContext& c) {
  dispatch<kMlTypes>(c.input(0).dtype, [&]<class T>() { return lower_imputer_as<T>(c), 0; });
}

// --- Binarizer: x > threshold

struct BinarizerParams {
  int64_t count;
  float threshold;
};

template <class T>
void binarizer_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const BinarizerParams*>(params);
  auto* y = reinterpret_cast<T*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  using A = std::common_type_t<T, float>;
  in_blocks(p.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = static_cast<T>(static_cast<A>(x[i]) > static_cast<A>(p.threshold));
  });
}

void infer_binarizer(InferContext& c) {
  require_type(c, 0, kMlTypes);
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

void lower_binarizer(LowerContext& c) {
  const BinarizerParams p{c.input(0).shape.elements(), c.attr_float("threshold", 0)};
  const StepFn fn = dispatch<kMlTypes>(c.input(0).dtype, []<class T>() -> StepFn { return binarizer_step<T>; });
  c.in_place(0, 0);
  c.step(fn, p, {c.out(0), c.in(0)}, 0.5 * static_cast<double>(p.count));
}

// --- ArrayFeatureExtractor: columns of the last axis by index

struct ExtractParams {
  int64_t rows, columns, count;
};

template <class W>
void extract_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ExtractParams*>(params);
  auto* z = reinterpret_cast<W*>(io[0]);
  const auto* x = reinterpret_cast<const W*>(io[1]);
  const auto* indices = reinterpret_cast<const int64_t*>(io[2]);
  for (int64_t i = 0; i < p.count; ++i) {
    if (indices[i] < 0 || indices[i] >= p.columns) {
      throw Error(ErrorCode::kInference, cat("ArrayFeatureExtractor: index ", indices[i], " is out of range for ",
                                             counted(p.columns, "column")));
    }
  }
  WorkMeter meter;
  for_blocks(meter, 0, p.rows, p.count, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r, x += p.columns) {
      for (int64_t i = 0; i < p.count; ++i) *z++ = x[indices[i]];
    }
  });
}

void infer_extract(InferContext& c) {
  const TensorFacts &x = c.input(0), &y = c.input(1);
  if (y.dtype != DType::kI64) c.wrong("the indices must be int64");
  if (x.shape.rank() == 0) c.fail("the data must have at least one dimension");
  const int64_t count = y.shape.elements();
  Shape out = x.shape;
  if (out.rank() == 1) out.insert(0, 1);  // as ONNX Runtime does
  out[out.rank() - 1] = count;
  c.set_output(0, x.dtype, out);
}

void lower_extract(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const ExtractParams p{x.elements(0, x.rank() - 1), x.back(), c.input(1).shape.elements()};
  const StepFn fn = dispatch_any_width(c.input(0).dtype, []<class W>() -> StepFn { return extract_step<W>; });
  c.step(fn, p, {c.out(0), c.in(0), c.in(1)}, multiplied(p.rows, p.count));
}

// --- FeatureVectorizer: inputs side by side, each cut or filled with zeros to its width

struct VectorizeParams {
  int64_t rows, in_columns, width, offset, out_columns;
};

template <class T>
void vectorize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const VectorizeParams*>(params);
  auto* y = reinterpret_cast<float*>(io[0]) + p.offset;
  const auto* x = reinterpret_cast<const T*>(io[1]);
  const int64_t copied = std::min(p.in_columns, p.width);
  WorkMeter meter;
  for_blocks(meter, 0, p.rows, p.width, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r, x += p.in_columns, y += p.out_columns) {
      for (int64_t i = 0; i < copied; ++i) y[i] = static_cast<float>(x[i]);
      std::fill(y + copied, y + p.width, 0.0f);
    }
  });
}

std::vector<int64_t> widths_of(const NodeContext& c) {
  std::vector<int64_t> widths = c.attr_ints("inputdimensions");
  if (widths.size() != c.input_count()) {
    c.fail(cat("has ", widths.size(), " inputdimensions for ", counted(c.input_count(), "input")));
  }
  constexpr int64_t kMaxWidth = int64_t{1} << 31;
  for (int64_t width : widths) {
    if (width < 0 || width > kMaxWidth) c.fail(cat("inputdimensions holds ", width));
  }
  return widths;
}

void infer_vectorizer(InferContext& c) {
  int64_t total = 0;
  for (int64_t width : widths_of(c)) total += width;
  const int64_t rows = rows_of(c).rows;
  for (size_t i = 0; i < c.input_count(); ++i) {
    require_type(c, i, kMlTypes);
    if (rows_of(c, i).rows != rows) c.fail("its inputs differ in the number of rows");
  }
  c.set_output(0, DType::kF32, {rows, total});
}

void lower_vectorizer(LowerContext& c) {
  const std::vector<int64_t> widths = widths_of(c);
  int64_t offset = 0;
  for (size_t i = 0; i < widths.size(); offset += widths[i], ++i) {
    const Rows x = rows_of(c, i);
    const StepFn fn = dispatch<kMlTypes>(c.input(i).dtype, []<class T>() -> StepFn { return vectorize_step<T>; });
    c.step(fn, VectorizeParams{x.rows, x.columns, widths[i], offset, c.output(0).shape.back()}, {c.out(0), c.in(i)},
           multiplied(x.rows, widths[i]));
  }
}

// --- ZipMap: a map per row is of no use to who wants arrays; the columns are in the order of the class labels

void infer_zip_map(InferContext& c) {
  const TensorFacts& x = c.input(0);
  const size_t labels =
      std::max(c.attr_ints("classlabels_int64s").size(), c.attr_strings("classlabels_strings").size());
  if (x.shape.rank() == 0 || x.shape.back() != static_cast<int64_t>(labels)) {
    c.fail(cat("has ", counted(labels, "class label"), " for an input of shape ", x.shape.str()));
  }
  c.set_output(0, x.dtype, x.shape);
}

void lower_zip_map(LowerContext& c) { c.alias(0, 0); }

/// Of what takes the elements of a row together: they are in the last dimension.
Axes last_axis_of_first(const NodeContext& c, size_t i) {
  return i == 0 ? one_axis(std::max<int64_t>(static_cast<int64_t>(c.input(0).shape.rank()) - 1, 0)) : Axes{0};
}
Axes last_axis(const NodeContext& c, size_t i) {
  return one_axis(std::max<int64_t>(static_cast<int64_t>(c.input(i).shape.rank()) - 1, 0));
}

void add(OpRegistry& r, std::string_view name, InferFn infer, LowerFn lower, int inputs = 1,
         decltype(OpSchema::mixed_axes) mixed = nullptr) {
  r.add({.domain = kOnnxMl,
         .name = name,
         .min_inputs = inputs,
         .max_inputs = inputs,
         .max_outputs = 1,
         .infer = infer,
         .mixed_axes = mixed},
        lower);
}

}  // namespace

void register_ml_preprocess(OpRegistry& r) {
  add(r, "Scaler", infer_scaler, lower_scaler);
  add(r, "Normalizer", infer_normalizer, lower_normalizer, 1, last_axis_of_first);
  add(r, "Imputer", infer_imputer, lower_imputer);
  add(r, "Binarizer", infer_binarizer, lower_binarizer);
  add(r, "ArrayFeatureExtractor", infer_extract, lower_extract, 2, last_axis_of_first);
  add(r, "ZipMap", infer_zip_map, lower_zip_map);
  r.add({.domain = kOnnxMl,
         .name = "FeatureVectorizer",
         .min_inputs = 1,
         .max_outputs = 1,
         .infer = infer_vectorizer,
         .mixed_axes = last_axis},
        lower_vectorizer);
}

}  // namespace inferkit
