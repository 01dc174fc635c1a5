// Strings and patterns: RegexFullMatch, com.microsoft.Tokenizer.
#include <algorithm>
#include <array>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/text_table.h"
#include "engine/ops/common/tokenizer.h"
#include "engine/ops/ml/ml_common.h"
#include "engine/plan/text_heap.h"
#include "graph/text_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

// --- RegexFullMatch

constexpr double kMatchNanos = 20;  // a character

void full_match_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* y = reinterpret_cast<bool*>(io[0]);
  const auto* x = reinterpret_cast<const std::string_view*>(io[1]);
  const auto& regex = *reinterpret_cast<const Regex*>(io[2]);
  Regex::Workspace work;  // hears whoever stops the run, within a text too
  for (int64_t i = 0; i < count; ++i) y[i] = regex.full_match(x[i], work);
}

std::string pattern_of(const NodeContext& c) {
  if (!c.has_attr("pattern")) c.wrong("has no pattern");
  return text_attr(c, "pattern", "");
}

void infer_full_match(InferContext& c) {
  if (!c.knows(0)) read_regex(c, pattern_of(c));  // once, when the model is loaded
  require_type(c, 0, types(DType::kString));
  c.set_output(0, DType::kBool, c.input(0).shape);
}

void lower_full_match(LowerContext& c) {
  const auto regex = ml::per_node<Regex>(c, 0, [&] { return read_regex(c, pattern_of(c)); });
  const int64_t count = c.input(0).shape.elements();
  c.step(full_match_step, count, {c.out(0), c.in(0), c.constant(regex.get(), regex)},
         20 * kMatchNanos * static_cast<double>(count));
}

// --- Tokenizer

void infer_tokenize(InferContext& c) {
  if (!c.knows(0)) Tokenizer{c};
  require_type(c, 0, types(DType::kString));
  const Shape& x = c.input(0).shape;
  if (x.rank() != 1 && x.rank() != 2) c.fail(cat("takes [C] or [N, C], not ", x.str()));
  throw NeedsValue(0, cat(c.node().label(), ": only a run can tell how many tokens there are"));
}

std::vector<Tensor> tokenize_values(const NodeContext& c, DynamicContext& run) {
  const Tokenizer tokenizer(c);
  const Tensor& x = c.known_value(0);
  const auto texts = strings_of(x.view());
  std::vector<std::string_view> tokens;
  std::vector<size_t> ends;  // of each text's tokens
  Tokenizer::Workspace work;
  size_t most = 0;
  for (const std::string_view text : texts) {
    const size_t begin = tokens.size();
    tokenizer.read(text, work, tokens);
    most = std::max(most, tokens.size() - begin);
    ends.push_back(tokens.size());
    if (tokens.size() > run.max_bytes() / sizeof(std::string_view)) {
      throw Error(ErrorCode::kValidation, Reason::kTooLarge, cat("more than ", tokens.size(), " tokens"));
    }
  }
  if (tokenizer.marks() && most > 0) most += 2;
  Shape shape = x.shape;
  shape.push_back(static_cast<int64_t>(most));
  run.spend(2 * static_cast<int64_t>(texts.size() * most));
  void* data = nullptr;
  Tensor out = run.allocate(DType::kString, shape, &data);
  const std::string_view padding = TextHeap::current().copy(tokenizer.padding());
  auto* to = static_cast<std::string_view*>(data);
  size_t from = 0;
  WorkMeter meter;
  for (const size_t end : ends) {
    if (most == 0) break;
    meter.spend(static_cast<int64_t>(most));
    std::string_view* const row_end = to + most;
    if (tokenizer.marks()) *to++ = kBeginMark;
    to = std::copy(tokens.begin() + static_cast<std::ptrdiff_t>(from),
                   tokens.begin() + static_cast<std::ptrdiff_t>(end), to);
    if (tokenizer.marks()) *to++ = kEndMark;
    to = std::fill_n(to, row_end - to, padding);
    from = end;
  }
  return {std::move(out)};
}

}  // namespace

void register_text_match(OpRegistry& r) {
  r.add({.name = "RegexFullMatch",
         .since = 20,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_full_match},
        lower_full_match);
  r.add_dynamic({.domain = kMicrosoft,
                 .name = "Tokenizer",
                 .min_inputs = 1,
                 .max_inputs = 1,
                 .max_outputs = 1,
                 .infer = infer_tokenize,
                 .rows_mix = [](const Node&, const Graph&) { return true; }},
                nullptr, tokenize_values);
}

}  // namespace inferkit
