// Strings as text: StringConcat, StringSplit, StringNormalizer.
#include <cstring>
#include <optional>
#include <unordered_set>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/characters.h"
#include "engine/ops/common/letter_case.h"
#include "engine/ops/common/text_table.h"
#include "engine/ops/elementwise.h"
#include "engine/plan/text_heap.h"
#include "graph/text_tensor.h"
#include "graph/topological_sort.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

// --- StringConcat: one string and then the other

struct ConcatParams {
  LoopNest<3> nest;
};

constexpr int64_t kConcatNanos = 20;

void concat_step(const void* params, std::byte* const* io, const ExecContext&) {
  const LoopNest<3>& nest = static_cast<const ConcatParams*>(params)->nest;
  const auto* a = reinterpret_cast<const std::string_view*>(io[0]);
  const auto* b = reinterpret_cast<const std::string_view*>(io[1]);
  auto* y = reinterpret_cast<std::string_view*>(io[2]);
  TextHeap& heap = TextHeap::current();
  WorkMeter meter;
  for_each_run(nest, [&](const auto& at, int64_t) {
    for (int64_t i = 0; i < nest.inner(); ++i) {
      const std::string_view left = a[at[0] + i * nest.inner_stride(0)], right = b[at[1] + i * nest.inner_stride(1)];
      std::string_view& out = y[at[2] + i * nest.inner_stride(2)];
      meter.spend(kConcatNanos + static_cast<int64_t>((left.size() + right.size()) / 16));
      if (right.empty()) {
        out = left;
      } else if (left.empty()) {
        out = right;
      } else {
        char* to = heap.allocate(left.size() + right.size());
        std::memcpy(to, left.data(), left.size());
        std::memcpy(to + left.size(), right.data(), right.size());
        out = {to, left.size() + right.size()};
      }
    }
  });
}

void infer_concat(InferContext& c) {
  for (size_t i = 0; i < 2; ++i) require_type(c, i, types(DType::kString));
  c.set_output(0, DType::kString, broadcast_inputs(c));
}

void lower_concat(LowerContext& c) {
  const Shape& y = c.output(0).shape;
  c.step(concat_step, ConcatParams{binary_nest(c.input(0).shape, c.input(1).shape, y)}, {c.in(0), c.in(1), c.out(0)},
         multiplied(y.elements(), kConcatNanos));
}

// --- StringSplit: the pieces between delimiters, or between runs of blanks; and how many there are

/// What Python's str.split takes for a blank.
bool is_blank(uint32_t code) {
  return code == ' ' || (code >= 0x9 && code <= 0xd) || (code >= 0x1c && code <= 0x1f) || code == 0x85 ||
         code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

struct Splitter {
  std::string delimiter;  // empty: blanks
  int64_t most;           // cuts; negative: any number

  /// visit(piece) for each, as Python's str.split gives them.
  template <class Visit>
  void split(std::string_view text, const Visit& visit) const {
    return delimiter.empty() ? split_blanks(text, visit) : split_delimiter(text, visit);
  }

 private:
  template <class Visit>
  void split_delimiter(std::string_view text, const Visit& visit) const {
    for (int64_t cuts = 0; most < 0 || cuts < most; ++cuts) {
      const size_t at = text.find(delimiter);
      if (at == std::string_view::npos) break;
      visit(text.substr(0, at));
      text.remove_prefix(at + delimiter.size());
    }
    visit(text);
  }
  template <class Visit>
  void split_blanks(std::string_view text, const Visit& visit) const {
    size_t at = 0;
    const auto skip = [&](bool blanks) {
      while (at < text.size()) {
        size_t next = at;
        if (is_blank(take_character(text, next)) != blanks) break;
        at = next;
      }
    };
    for (int64_t cuts = 0;; ++cuts) {
      skip(true);
      if (at == text.size()) return;
      if (most >= 0 && cuts == most) return visit(text.substr(at));  // with the blanks at its end
      const size_t begin = at;
      skip(false);
      visit(text.substr(begin, at - begin));
    }
  }
};

Splitter splitter_of(const NodeContext& c) {
  return {text_attr(c, "delimiter", ""), c.has_attr("maxsplit") ? c.attr_int("maxsplit", -1) : -1};
}

void infer_split(InferContext& c) {
  splitter_of(c);
  require_type(c, 0, types(DType::kString));
  if (c.input(0).shape.rank() == Shape::kMaxRank) c.unsupported(cat("an input of ", Shape::kMaxRank, " dimensions"));
  throw NeedsValue(0, cat(c.node().label(), ": only a run can tell how many pieces there are"));
}

std::vector<Tensor> split_values(const NodeContext& c, DynamicContext& run) {
  const Splitter splitter = splitter_of(c);
  const Tensor& x = c.known_value(0);
  void* data = nullptr;
  Tensor counts = run.allocate(DType::kI64, x.shape, &data);
  auto* count = static_cast<int64_t*>(data);
  int64_t most = 0;
  WorkMeter meter;
  const auto each_nanos = [](std::string_view text) { return 20 + 2 * static_cast<int64_t>(text.size()); };
  for (const std::string_view text : strings_of(x.view())) {
    meter.spend(each_nanos(text));
    *count = 0;
    splitter.split(text, [&](std::string_view) { ++*count; });
    most = std::max(most, *count++);
  }
  Shape shape = x.shape;
  shape.push_back(most);
  run.spend(2 * x.shape.elements() * most);
  Tensor pieces = run.allocate(DType::kString, shape, &data);
  auto* to = static_cast<std::string_view*>(data);
  for (const std::string_view text : strings_of(x.view())) {
    meter.spend(each_nanos(text) + most);
    const std::string_view* const end = to + most;
    splitter.split(text, [&](std::string_view piece) { *to++ = piece; });
    while (to != end) *to++ = {};
  }
  return {std::move(pieces), std::move(counts)};
}

// --- StringNormalizer: stop words left out, the case changed

struct Normalizer {
  std::optional<LetterCase> change;
  bool case_sensitive = false;
  std::vector<std::string> stop_words;
};

std::string in_case(LetterCase to_case, std::string_view text) {
  std::string out(text.size() * kMostCaseGrowth, '\0');
  out.resize(change_case(to_case, text, out.data()));
  return out;
}

/// The locale says how to change the case where that depends on it; Unicode's default mapping is the same everywhere.
Normalizer normalizer_of(const NodeContext& c) {
  Normalizer out;
  const std::string action = c.attr_string("case_change_action", "NONE");
  if (action == "LOWER")
    out.change = LetterCase::kLower;
  else if (action == "UPPER")
    out.change = LetterCase::kUpper;
  else if (action != "NONE")
    c.wrong(cat("case_change_action '", action, "' is none of LOWER, UPPER, NONE"));
  out.case_sensitive = c.attr_int("is_case_sensitive", 0) != 0;
  out.stop_words = text_list(c, "stopwords");
  return out;
}

std::string_view changed(LetterCase to_case, std::string_view text, TextHeap& heap) {
  const size_t room = text.size() * kMostCaseGrowth;
  char* to = heap.allocate(room);
  const size_t size = change_case(to_case, text, to);
  heap.give_back(room - size);
  return {to, size};
}

struct NormalizeParams {
  int64_t count;
  LetterCase to_case;
};

int64_t normalize_nanos(std::string_view text) { return 20 + 3 * static_cast<int64_t>(text.size()); }

void normalize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const NormalizeParams*>(params);
  const auto* x = reinterpret_cast<const std::string_view*>(io[0]);
  auto* y = reinterpret_cast<std::string_view*>(io[1]);
  TextHeap& heap = TextHeap::current();
  WorkMeter meter;
  for (int64_t i = 0; i < p.count && meter.go_on(normalize_nanos(x[i])); ++i) y[i] = changed(p.to_case, x[i], heap);
}

void infer_normalize(InferContext& c) {
  const Normalizer normalizer = normalizer_of(c);
  require_type(c, 0, types(DType::kString));
  const Shape& x = c.input(0).shape;
  if (normalizer.stop_words.empty()) return c.set_output(0, DType::kString, x);
  if (x.rank() != 1 && !(x.rank() == 2 && x[0] == 1)) {
    c.fail(cat("leaves words out of [C] or [1, C], not of ", x.str()));
  }
  throw NeedsValue(0, cat(c.node().label(), ": only a run can tell how many words are left"));
}

void lower_normalize(LowerContext& c) {
  const Normalizer normalizer = normalizer_of(c);
  if (!normalizer.change) return c.alias(0, 0);
  const int64_t count = c.input(0).shape.elements();
  c.step(normalize_step, NormalizeParams{count, *normalizer.change}, {c.in(0), c.out(0)},
         200 * static_cast<double>(count));
}

/// Where stop words are left out: an element that is one, whatever its case unless that counts.
std::vector<Tensor> normalize_values(const NodeContext& c, DynamicContext& run) {
  const Normalizer normalizer = normalizer_of(c);
  const LetterCase compared = normalizer.change.value_or(LetterCase::kLower);
  std::unordered_set<std::string> stop;
  for (const std::string& word : normalizer.stop_words) {
    stop.insert(normalizer.case_sensitive ? word : in_case(compared, word));
  }
  const Tensor& x = c.known_value(0);
  const auto words = strings_of(x.view());
  void* data = nullptr;
  const Tensor kept_memory = run.allocate(DType::kString, {static_cast<int64_t>(words.size()) + 1}, &data);
  auto* kept = static_cast<std::string_view*>(data);
  int64_t count = 0;
  TextHeap& heap = TextHeap::current();
  WorkMeter meter;
  for (const std::string_view word : words) {
    meter.spend(normalize_nanos(word) + kTextLookupNanos);
    const bool leave =
        normalizer.case_sensitive ? stop.contains(std::string(word)) : stop.contains(in_case(compared, word));
    if (!leave) kept[count++] = normalizer.change ? changed(*normalizer.change, word, heap) : word;
  }
  if (count == 0) kept[count++] = {};
  Shape shape{count};
  if (x.shape.rank() == 2) shape.insert(0, 1);
  Tensor out = run.allocate(DType::kString, shape, &data);
  std::memcpy(data, kept, static_cast<size_t>(count) * sizeof(std::string_view));
  return {std::move(out)};
}

/// There is room for the most pieces that any text of the run has.
bool pieces_are_read(const Node& node, const Graph& graph) {
  return node.outputs[0] != kNoValue && !is_read_only_by(graph, node.outputs[0], [](const Node&) { return false; });
}

bool drops_words(const Node& node, const Graph&) { return node.attributes.contains("stopwords"); }

}  // namespace

void register_text(OpRegistry& r) {
  r.add(
      {.name = "StringConcat", .since = 20, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer_concat},
      lower_concat);
  r.add_dynamic({.name = "StringSplit",
                 .since = 20,
                 .min_inputs = 1,
                 .max_inputs = 1,
                 .max_outputs = 2,
                 .infer = infer_split,
                 .rows_mix = pieces_are_read},
                nullptr, split_values);
  r.add_dynamic({.name = "StringNormalizer",
                 .since = 10,
                 .min_inputs = 1,
                 .max_inputs = 1,
                 .max_outputs = 1,
                 .infer = infer_normalize,
                 .rows_mix = drops_words},
                lower_normalize, normalize_values);
}

}  // namespace inferkit
