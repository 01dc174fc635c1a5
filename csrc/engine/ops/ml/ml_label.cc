// LabelEncoder: a label for each key. A table is a sorted array of 64-bit keys; of strings, a hash table.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/ml/common/lookup.h"
#include "engine/ops/ml/ml_common.h"
#include "graph/text_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using namespace ml;

constexpr TypeSet kLabelTypes = kMlTypes | types(DType::kI16);

/// Keys or values: "<what>_int64s", "_floats", "_strings" or "_tensor". Opset 1 has strings and their places alone.
Tensor label_list(const NodeContext& c, const std::string& what) {
  if (c.version() < 2) {
    const bool strings = (c.input(0).dtype == DType::kString) == (what == "keys");
    const std::vector<std::string> classes = text_list(c, "classes_strings");
    const Shape shape{static_cast<int64_t>(classes.size())};
    if (strings) return text_tensor(shape, classes);
    std::vector<int64_t> places(classes.size());
    std::iota(places.begin(), places.end(), int64_t{0});
    return make_tensor<int64_t>(shape, places);
  }
  if (c.has_attr(what + "_strings")) {
    const std::vector<std::string> strings = text_list(c, what + "_strings");
    return text_tensor({static_cast<int64_t>(strings.size())}, strings);
  }
  if (const auto* ints = attribute<std::vector<int64_t>>(c, what + "_int64s")) {
    return make_tensor<int64_t>({static_cast<int64_t>(ints->size())}, *ints);
  }
  if (const auto* floats = attribute<FloatList>(c, what + "_floats")) return floats->tensor;
  const Tensor* tensor = c.attr_tensor(what + "_tensor");
  if (!tensor) c.fail(cat("has no ", what, "_int64s, ", what, "_floats, ", what, "_strings or ", what, "_tensor"));
  if (!contains(kLabelTypes | types(DType::kString), tensor->dtype))
    c.unsupported(cat(what, " of type ", dtype_name(tensor->dtype)));
  return *tensor;
}

struct LabelTable {
  Lookup lookup;     // value: the bits of the value, in its low bytes
  int64_t fallback;  // likewise
};

template <class V>
int64_t bits_of(V v) {
  int64_t bits = 0;
  std::memcpy(&bits, &v, sizeof(v));
  return bits;
}

template <class V>
int64_t default_bits(const NodeContext& c) {
  if (const Tensor* tensor = c.attr_tensor("default_tensor")) {
    if (tensor->dtype != kDTypeOf<V> || tensor->shape.elements() != 1) {
      c.fail(cat("default_tensor must hold one ", dtype_name(kDTypeOf<V>)));
    }
    return bits_of(*tensor->as<V>());
  }
  if constexpr (std::is_floating_point_v<V>) return bits_of(static_cast<V>(c.attr_float("default_float", -0.0f)));
  return bits_of(static_cast<V>(c.attr_int("default_int64", -1)));
}

LabelTable label_table(const NodeContext& c) {
  const Tensor keys = label_list(c, "keys"), values = label_list(c, "values");
  const int64_t count = keys.shape.elements();
  if (values.shape.elements() != count)
    c.fail(cat("has ", counted(count, "key"), " and ", counted(values.shape.elements(), "value")));
  LabelTable out{{}, 0};
  out.lookup.entries.resize(static_cast<size_t>(count));
  dispatch<kLabelTypes>(keys.dtype, [&]<class K>() {
    for (int64_t i = 0; i < count; ++i) out.lookup.entries[static_cast<size_t>(i)].key = key_of(keys.as<K>()[i]);
    return 0;
  });
  dispatch<kLabelTypes>(values.dtype, [&]<class V>() {
    for (int64_t i = 0; i < count; ++i) out.lookup.entries[static_cast<size_t>(i)].value = bits_of(values.as<V>()[i]);
    out.fallback = default_bits<V>(c);
    return 0;
  });
  out.lookup.finish(/*last_wins=*/c.version() >= 4);  // before, the specification does not say: ONNX Runtime's first
  return out;
}

template <class K, class V>
void label_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* y = reinterpret_cast<V*>(io[0]);
  const auto* x = reinterpret_cast<const K*>(io[1]);
  const auto& table = *reinterpret_cast<const LabelTable*>(io[2]);
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kLookupNanos); ++i) {
    const int64_t* found = table.lookup.find(key_of(x[i]));
    std::memcpy(&y[i], found ? found : &table.fallback, sizeof(V));
  }
}

/// The same where keys or values are strings: places in `values`, behind which the default stands.
struct TextLabels {
  std::optional<TextTable> words;
  Lookup numbers;
  Tensor values;
};

std::string default_text(const NodeContext& c) {
  const Tensor* tensor = c.attr_tensor("default_tensor");
  if (!tensor) return text_attr(c, "default_string", "_Unused");
  if (tensor->dtype != DType::kString || tensor->shape.elements() != 1) c.fail("default_tensor must hold one string");
  return std::string(*tensor->as<std::string_view>());
}

Tensor with_default(const NodeContext& c, const Tensor& values) {
  const auto count = static_cast<size_t>(values.shape.elements());
  const Shape shape{static_cast<int64_t>(count) + 1};
  if (values.dtype == DType::kString) {
    const std::string last = default_text(c);
    const auto given = strings_of(values.view());
    std::vector<std::string_view> all(given.begin(), given.end());
    all.push_back(last);
    return text_tensor(shape, all);
  }
  void* data = nullptr;
  Tensor out = make_tensor(values.dtype, shape, &data);
  dispatch<kLabelTypes>(values.dtype, [&]<class V>() {
    const int64_t last = default_bits<V>(c);
    std::copy_n(values.as<V>(), count, static_cast<V*>(data));
    std::memcpy(static_cast<V*>(data) + count, &last, sizeof(V));
    return 0;
  });
  return out;
}

TextLabels text_labels(const NodeContext& c) {
  const Tensor keys = label_list(c, "keys"), values = label_list(c, "values");
  const int64_t count = keys.shape.elements();
  if (values.shape.elements() != count)
    c.fail(cat("has ", counted(count, "key"), " and ", counted(values.shape.elements(), "value")));
  TextLabels out{std::nullopt, {}, with_default(c, values)};
  const bool last_wins = c.version() >= 4;
  if (keys.dtype == DType::kString) {
    const auto words = strings_of(keys.view());
    out.words.emplace(std::vector<std::string>(words.begin(), words.end()), last_wins);
    return out;
  }
  dispatch<kLabelTypes>(keys.dtype, [&]<class K>() {
    for (int64_t i = 0; i < count; ++i) out.numbers.entries.push_back({key_of(keys.as<K>()[i]), i});
    return 0;
  });
  out.numbers.finish(last_wins);
  return out;
}

/// Moves values of as many bytes as W has. io: out, in, the labels.
template <class K, class W>
void text_label_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* y = reinterpret_cast<W*>(io[0]);
  const auto* x = reinterpret_cast<const K*>(io[1]);
  const auto& labels = *reinterpret_cast<const TextLabels*>(io[2]);
  const W* values = labels.values.as<W>();
  const int64_t last = labels.values.shape[0] - 1;
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kTextLookupNanos); ++i) {
    if constexpr (std::is_same_v<K, std::string_view>) {
      const int64_t place = labels.words->find(x[i]);
      y[i] = values[place < 0 ? last : place];
    } else {
      const int64_t* place = labels.numbers.find(key_of(x[i]));
      y[i] = values[place ? *place : last];
    }
  }
}

void lower_text_label(LowerContext& c) {
  const auto labels = per_node<TextLabels>(c, 0, [&] { return text_labels(c); });
  const int64_t count = c.input(0).shape.elements();
  const DType key = c.input(0).dtype;
  const StepFn fn =
      key == DType::kString
          ? dispatch_any_width(c.output(0).dtype,
                               []<class W>() -> StepFn { return text_label_step<std::string_view, W>; })
          : dispatch<kLabelTypes>(key, []<class K>() -> StepFn { return text_label_step<K, StringBits>; });
  c.step(fn, count, {c.out(0), c.in(0), c.constant(labels.get(), labels)}, multiplied(count, kTextLookupNanos));
}

/// Of what type the list of keys or values is.
DType label_dtype(const NodeContext& c, const std::string& what) {
  if (c.version() >= 2 && c.has_attr(what + "_strings")) return DType::kString;  // without a copy of them
  return label_list(c, what).dtype;
}

void infer_label(InferContext& c) {
  if (c.version() < 2) require_type(c, 0, types(DType::kI64, DType::kString));
  if (!c.knows(0) && c.version() >= 2) {  // all of them once, when the model is loaded
    label_list(c, "keys");
    label_list(c, "values");
  }
  const DType key = label_dtype(c, "keys"), value = label_dtype(c, "values");
  if (c.input(0).dtype != key) {
    c.wrong(cat("has keys of type ", dtype_name(key), " and an input of type ", dtype_name(c.input(0).dtype)));
  }
  c.set_output(0, value, c.input(0).shape);
}

void lower_label(LowerContext& c) {
  if (c.input(0).dtype == DType::kString || c.output(0).dtype == DType::kString) return lower_text_label(c);
  const auto table = per_node<LabelTable>(c, 0, [&] { return label_table(c); });
  const int64_t count = c.input(0).shape.elements();
  const DType value = c.output(0).dtype;
  const StepFn fn = dispatch<kLabelTypes>(c.input(0).dtype, [&]<class K>() -> StepFn {
    return dispatch<kLabelTypes>(value, []<class V>() -> StepFn { return label_step<K, V>; });
  });
  c.step(fn, count, {c.out(0), c.in(0), c.constant(table.get(), table)}, 10 * static_cast<double>(count));
}

}  // namespace

void register_ml_label(OpRegistry& r) {
  r.add({.domain = kOnnxMl,
         .name = "LabelEncoder",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_label},
        lower_label);
}

}  // namespace inferkit
