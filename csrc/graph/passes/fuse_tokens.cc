#include "graph/passes/fuse_tokens.h"

#include <algorithm>

#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// What is known of the texts before any run.
enum class Layout : uint8_t { kUnknown, kVector, kColumn /* one a row */ };

Layout layout_of(const Rewriter& r, ValueId x) {
  // Exporters write one such node, or two: who writes half a million of them has all his Tokenizers stay as they are.
  constexpr int kMost = 16;
  const Node* made_by = r.producer(x);
  for (int i = 0; made_by && (is_op(*made_by, "StringNormalizer") || is_op(*made_by, "Identity")); ++i) {
    if (i == kMost) return Layout::kUnknown;
    x = made_by->inputs[0];
    made_by = r.producer(x);
  }
  if (!made_by) {
    const Graph& graph = r.graph();
    const auto& shape = graph.values[static_cast<size_t>(x)].shape;
    if (std::ranges::find(graph.inputs, x) == graph.inputs.end() || !shape) return Layout::kUnknown;
    if (shape->rank() == 1) return Layout::kVector;
    return shape->rank() == 2 && (*shape)[1] == 1 ? Layout::kColumn : Layout::kUnknown;
  }
  if (!is_op(*made_by, "Reshape") || made_by->inputs.size() != 2) return Layout::kUnknown;
  const auto shape = r.int_constant(made_by->inputs[1]);
  if (!shape) return Layout::kUnknown;
  if (shape->size() == 1) return Layout::kVector;
  return shape->size() == 2 && (*shape)[1] == 1 ? Layout::kColumn : Layout::kUnknown;
}

bool padding_counts(const Node& tokenizer, const Node& vectorizer) {
  const auto it = vectorizer.attributes.find("pool_strings");
  const auto* pool = it == vectorizer.attributes.end() ? nullptr : std::get_if<std::vector<std::string>>(&it->second);
  return !pool || std::ranges::find(*pool, string_attr(tokenizer, "pad_value", "")) != pool->end();
}

}  // namespace

bool fuse_tokens(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    const Node& tokenizer = r.node(n);
    if (!r.alive(n) || !is_op(tokenizer, "Tokenizer", "com.microsoft") || tokenizer.inputs.size() != 1) continue;
    if (int_attr(tokenizer, "mark", 0) != 0) continue;  // whether empty texts get marks hangs on the others
    const int reader = r.only_reader(tokenizer.outputs[0]);
    if (reader < 0) continue;
    const bool flat = is_op(r.node(reader), "Flatten") && int_attr(r.node(reader), "axis", 1) == 1;
    const int last = flat ? r.only_reader(r.node(reader).outputs[0]) : reader;
    if (last < 0 || !is_op(r.node(last), "TfIdfVectorizer") || padding_counts(tokenizer, r.node(last))) continue;
    const Layout layout = layout_of(r, tokenizer.inputs[0]);
    // Between the texts of a row padding stands in the way of n-grams.
    const bool behind = layout != Layout::kUnknown || int_attr(r.node(last), "max_gram_length", 1) == 1;
    if (flat ? !behind : layout != Layout::kVector) continue;
    Node counts;
    counts.op_type = "TokenCounts";
    counts.domain = kInternalDomain;
    counts.name = r.node(last).name;
    counts.version = 1;
    counts.inputs = tokenizer.inputs;
    counts.outputs = r.node(last).outputs;
    counts.attributes = r.node(last).attributes;
    counts.attributes.insert(tokenizer.attributes.begin(), tokenizer.attributes.end());
    r.replace(last, std::move(counts));
    if (flat) r.remove(reader);
    r.remove(n);
  }
  return r.finish();
}

}  // namespace inferkit
