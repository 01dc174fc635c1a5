// Lookups of categories: OneHotEncoder, CategoryMapper.
#include <cstring>

#include "base/text.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/ml/common/lookup.h"
#include "engine/ops/ml/ml_common.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using namespace ml;

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

/// io: out, strings in, the table of categories.
void one_hot_text_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const OneHotParams*>(params);
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const std::string_view*>(io[1]);
  const auto& table = *reinterpret_cast<const TextTable*>(io[2]);
  fill_in_blocks(y, p.count * p.categories, 0.0f);
  WorkMeter meter;
  for (int64_t i = 0; i < p.count && meter.go_on(kTextLookupNanos); ++i) {
    if (const int64_t category = table.find(x[i]); category >= 0) {
      y[i * p.categories + category] = 1;
    } else if (!p.zeros) {
      throw Error(ErrorCode::kInference, cat("OneHotEncoder: ", quote(x[i]), " is not one of the categories"));
    }
  }
}

bool of_strings(const NodeContext& c) {
  const auto* cats = attribute<std::vector<std::string>>(c, "cats_strings");
  return cats && !cats->empty();
}

void infer_one_hot(InferContext& c) {
  const bool strings = of_strings(c);
  const size_t categories = strings ? text_list(c, "cats_strings").size() : c.attr_ints("cats_int64s").size();
  if (categories == 0) c.fail("has no cats_int64s and no cats_strings");
  if (strings && !c.attr_ints("cats_int64s").empty()) c.fail("has both cats_int64s and cats_strings");
  require_type(c, 0, strings ? types(DType::kString) : kMlTypes);
  Shape out = c.input(0).shape;
  out.push_back(static_cast<int64_t>(categories));
  c.set_output(0, DType::kF32, out);
}

void lower_one_hot(LowerContext& c) {
  const OneHotParams p{c.input(0).shape.elements(), c.output(0).shape.back(), c.attr_int("zeros", 1) != 0};
  const double nanos = static_cast<double>(p.count) * (10 + 0.2 * static_cast<double>(p.categories));
  if (of_strings(c)) {
    const auto table =
        per_node<TextTable>(c, 0, [&] { return TextTable(text_list(c, "cats_strings"), /*last_wins=*/true); });
    c.step(one_hot_text_step, p, {c.out(0), c.in(0), c.constant(table.get(), table)}, nanos);
    return;
  }
  const auto lookup = per_node<Lookup>(c, c.attr_ints("cats_int64s").size() * sizeof(Entry), [&] {
    Lookup out;
    for (int64_t v : c.attr_ints("cats_int64s")) {
      out.entries.push_back({key_of(v), static_cast<int64_t>(out.entries.size())});
    }
    out.finish(/*last_wins=*/true);
    return out;
  });
  const StepFn fn = dispatch<kMlTypes>(c.input(0).dtype, []<class T>() -> StepFn { return one_hot_step<T>; });
  c.step(fn, p, {c.out(0), c.in(0), c.constant(lookup.get(), lookup)}, nanos);
}

// --- CategoryMapper: a string as its number, or back

struct Mapper {
  TextTable words;
  Lookup numbers;
  std::vector<int64_t> values;
  std::vector<std::string> texts;  // with the default behind them
};

Mapper make_mapper(const NodeContext& c) {
  std::vector<int64_t> ints = c.attr_ints("cats_int64s");
  std::vector<std::string> texts = text_list(c, "cats_strings");
  if (ints.size() != texts.size()) {
    c.fail(cat("has ", ints.size(), " cats_int64s and ", texts.size(), " cats_strings"));
  }
  Mapper out{TextTable(texts, /*last_wins=*/true), {}, std::move(ints), std::move(texts)};
  for (size_t i = 0; i < out.values.size(); ++i) {
    out.numbers.entries.push_back({key_of(out.values[i]), static_cast<int64_t>(i)});
  }
  out.numbers.finish(/*last_wins=*/true);
  out.values.push_back(c.attr_int("default_int64", -1));
  out.texts.push_back(text_attr(c, "default_string", "_Unused"));
  return out;
}

/// io: out, strings in, the mapper.
void to_number_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* y = reinterpret_cast<int64_t*>(io[0]);
  const auto* x = reinterpret_cast<const std::string_view*>(io[1]);
  const auto& mapper = *reinterpret_cast<const Mapper*>(io[2]);
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kTextLookupNanos); ++i) {
    const int64_t place = mapper.words.find(x[i]);
    y[i] = place < 0 ? mapper.values.back() : mapper.values[static_cast<size_t>(place)];
  }
}

/// io: strings out, numbers in, the mapper.
void to_text_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* y = reinterpret_cast<std::string_view*>(io[0]);
  const auto* x = reinterpret_cast<const int64_t*>(io[1]);
  const auto& mapper = *reinterpret_cast<const Mapper*>(io[2]);
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kLookupNanos); ++i) {
    const int64_t* place = mapper.numbers.find(key_of(x[i]));
    y[i] = place ? mapper.texts[static_cast<size_t>(*place)] : mapper.texts.back();
  }
}

void infer_mapper(InferContext& c) {
  require_type(c, 0, types(DType::kI64, DType::kString));
  c.set_output(0, c.input(0).dtype == DType::kString ? DType::kI64 : DType::kString, c.input(0).shape);
}

void lower_mapper(LowerContext& c) {
  const auto mapper = per_node<Mapper>(c, 0, [&] { return make_mapper(c); });
  const int64_t count = c.input(0).shape.elements();
  c.step(c.input(0).dtype == DType::kString ? to_number_step : to_text_step, count,
         {c.out(0), c.in(0), c.constant(mapper.get(), mapper)}, multiplied(count, kTextLookupNanos));
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
         .name = "CategoryMapper",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_mapper},
        lower_mapper);
}

}  // namespace inferkit
