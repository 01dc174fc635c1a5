// Lookups of categories and labels: OneHotEncoder, LabelEncoder. A table is a sorted array of 64-bit keys.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/ml/ml_common.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using namespace ml;

/// A key as 64 bits; NaN is one key, and so are 0 and -0.
template <class T>
uint64_t key_of(T v) {
  if constexpr (std::is_floating_point_v<T>) {
    const double wide = v == 0 ? 0.0 : v != v ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(v);
    return std::bit_cast<uint64_t>(wide);
  } else {
    return static_cast<uint64_t>(static_cast<int64_t>(v));
  }
}

struct Entry {
  uint64_t key;
  int64_t value;  // an index, or the bits of the value
};

/// A sorted table; of equal keys the first or the last one given stays.
struct Lookup {
  std::vector<Entry> entries;

  void finish(bool last_wins) {
    if (last_wins) std::reverse(entries.begin(), entries.end());
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.key < b.key; });
    const auto same = [](const Entry& a, const Entry& b) { return a.key == b.key; };
    entries.erase(std::unique(entries.begin(), entries.end(), same), entries.end());
  }
  const int64_t* find(uint64_t key) const {
    const auto at =
        std::lower_bound(entries.begin(), entries.end(), key, [](const Entry& e, uint64_t k) { return e.key < k; });
    return at == entries.end() || at->key != key ? nullptr : &at->value;
  }
};

constexpr int64_t kLookupNanos = 10;

// --- OneHotEncoder

struct OneHotParams {
  int64_t count, categories;
  bool zeros;
};

/// Floats are truncated to integers, as the specification says; what has no integer is no category.
template <class T>
const int64_t* find_category(const Lookup& lookup, T v) {
  if constexpr (std::is_floating_point_v<T>) {
    constexpr T kLimit = static_cast<T>(9.2e18);
    if (!(v > -kLimit && v < kLimit)) return nullptr;
  }
  return lookup.find(key_of(static_cast<int64_t>(v)));
}

template <class T>
void one_hot_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const OneHotParams*>(params);
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  const auto& lookup = *reinterpret_cast<const Lookup*>(io[2]);
  fill_in_blocks(y, p.count * p.categories, 0.0f);
  WorkMeter meter;
  for (int64_t i = 0; i < p.count && meter.go_on(kLookupNanos); ++i) {
    if (const int64_t* category = find_category(lookup, x[i])) {
      y[i * p.categories + *category] = 1;
    } else if (!p.zeros) {
      throw Error(ErrorCode::kInference, cat("OneHotEncoder: ", x[i], " is not one of the categories"));
    }
  }
}

void infer_one_hot(InferContext& c) {
  const auto strings = [&] { c.unsupported("categories that are strings; encode them as integers before the model"); };
  if (!c.attr_strings("cats_strings").empty()) strings();
  const auto categories = static_cast<int64_t>(c.attr_ints("cats_int64s").size());
  if (categories == 0) c.fail("has no cats_int64s");
  if (c.input(0).dtype == DType::kString) strings();
  require_type(c, 0, kMlTypes);
  Shape out = c.input(0).shape;
  out.push_back(categories);
  c.set_output(0, DType::kF32, out);
}

void lower_one_hot(LowerContext& c) {
  const auto lookup = per_node<Lookup>(c, c.attr_ints("cats_int64s").size() * sizeof(Entry), [&] {
    Lookup out;
    for (int64_t v : c.attr_ints("cats_int64s")) {
      out.entries.push_back({key_of(v), static_cast<int64_t>(out.entries.size())});
    }
    out.finish(/*last_wins=*/true);
    return out;
  });
  const OneHotParams p{c.input(0).shape.elements(), c.output(0).shape.back(), c.attr_int("zeros", 1) != 0};
  const StepFn fn = dispatch<kMlTypes>(c.input(0).dtype, []<class T>() -> StepFn { return one_hot_step<T>; });
  c.step(fn, p, {c.out(0), c.in(0), c.constant(lookup.get(), lookup)},
         static_cast<double>(p.count) * (10 + 0.2 * static_cast<double>(p.categories)));
}

// --- LabelEncoder

constexpr TypeSet kLabelTypes = kMlTypes | types(DType::kI16);

/// Keys or values: "<what>_int64s", "_floats" or "_tensor"; a tensor that views the attribute.
Tensor label_list(const NodeContext& c, const std::string& what) {
  if (c.has_attr(what + "_strings")) {
    c.unsupported(cat(what, " that are strings; encode labels as integers, or map them outside the model"));
  }
  if (const auto* ints = attribute<std::vector<int64_t>>(c, what + "_int64s")) {
    return make_tensor<int64_t>({static_cast<int64_t>(ints->size())}, *ints);
  }
  if (const auto* floats = attribute<std::vector<float>>(c, what + "_floats")) {
    return make_tensor<float>({static_cast<int64_t>(floats->size())}, *floats);
  }
  const Tensor* tensor = c.attr_tensor(what + "_tensor");
  if (!tensor) c.fail(cat("has no ", what, "_int64s, ", what, "_floats or ", what, "_tensor"));
  if (!contains(kLabelTypes, tensor->dtype)) c.unsupported(cat(what, " of type ", dtype_name(tensor->dtype)));
  return *tensor;
}

struct LabelTable {
  Lookup lookup;     // value: the bits of the value, in its low bytes
  int64_t fallback;  // likewise
  bool nan_is_key;   // opset 2 compares NaN with ==, and so never finds it
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
  if (values.shape.elements() != count) c.fail(cat("has ", count, " keys and ", values.shape.elements(), " values"));
  LabelTable out{{}, 0, c.version() >= 4};
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
    const bool skip = x[i] != x[i] && !table.nan_is_key;
    const int64_t* found = skip ? nullptr : table.lookup.find(key_of(x[i]));
    std::memcpy(&y[i], found ? found : &table.fallback, sizeof(V));
  }
}

void infer_label(InferContext& c) {
  if (c.version() < 2) c.unsupported("strings, which LabelEncoder of opset 1 maps; encode labels outside the model");
  const DType key = label_list(c, "keys").dtype, value = label_list(c, "values").dtype;
  if (c.input(0).dtype != key) {
    c.wrong(cat("has keys of type ", dtype_name(key), " and an input of type ", dtype_name(c.input(0).dtype)));
  }
  c.set_output(0, value, c.input(0).shape);
}

void lower_label(LowerContext& c) {
  const auto table = per_node<LabelTable>(c, 0, [&] { return label_table(c); });
  const int64_t count = c.input(0).shape.elements();
  const DType value = c.output(0).dtype;
  const StepFn fn = dispatch<kLabelTypes>(c.input(0).dtype, [&]<class K>() -> StepFn {
    return dispatch<kLabelTypes>(value, []<class V>() -> StepFn { return label_step<K, V>; });
  });
  c.step(fn, count, {c.out(0), c.in(0), c.constant(table.get(), table)}, 10 * static_cast<double>(count));
}

}  // namespace

void register_ml_lookup(OpRegistry& r) {
  r.add({.domain = kOnnxMl,
         .name = "OneHotEncoder",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_one_hot},
        lower_one_hot);
  r.add({.domain = kOnnxMl,
         .name = "LabelEncoder",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_label},
        lower_label);
}

}  // namespace inferkit
