// TfIdfVectorizer: how often each n-gram of a pool occurs in a row, with or without gaps.
#include <map>
#include <optional>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/tokenizer.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/ml/ml_common.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

enum class Weighting : uint8_t { kTf, kIdf, kTfIdf };

/// The pool as a trie. Shared by all runs, read only.
struct Ngrams {
  struct Entry {
    int32_t child;
    int32_t id;  // of the n-gram that ends here; -1 for none
  };
  std::map<std::pair<int32_t, int64_t>, Entry> edges;  // (node, value)
  int32_t nodes = 1;
  std::vector<int64_t> columns;                    // of each n-gram
  std::vector<std::pair<int64_t, float>> weights;  // of the columns that n-grams have
  std::optional<TextTable> words;                  // strings are told apart by their places here
};

struct VectorizeParams {
  int64_t rows, length, columns;
  int64_t least, most, skips;  // lengths of n-grams, and gaps within them
  Weighting weighting;
};

constexpr int64_t kSearchNanos = 50;  // an edge of the trie

/// One row: y of the n-grams in x.
template <class I>
void vectorize_row(const VectorizeParams& p, const Ngrams& ngrams, const I* x, int64_t length, float* y,
                   WorkMeter& meter) {
  std::fill(y, y + p.columns, 0.0f);
  int64_t least = p.least;
  for (int64_t distance = 1; distance <= p.skips + 1 && least <= p.most && distance * (least - 1) < length;
       ++distance) {
    for (int64_t start = 0; start + distance * (least - 1) < length; ++start) {
      if (!meter.go_on(kSearchNanos)) return;
      int32_t node = 0;
      int64_t item = start;
      for (int64_t size = 1; size <= p.most && item < length; ++size, item += distance) {
        const auto it = ngrams.edges.find({node, static_cast<int64_t>(x[item])});
        if (it == ngrams.edges.end()) break;
        if (size >= least && it->second.id >= 0) y[ngrams.columns[static_cast<size_t>(it->second.id)]] += 1;
        node = it->second.child;
      }
    }
    if (least == 1) ++least;  // gaps make no other n-grams of one element
  }
  if (p.weighting == Weighting::kTf) return;
  for (const auto& [column, weight] : ngrams.weights) {
    y[column] = p.weighting == Weighting::kIdf ? (y[column] > 0 ? weight : 0) : y[column] * weight;
  }
}

/// io: y, x, the n-grams.
template <class I>
void vectorize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const VectorizeParams*>(params);
  const auto& ngrams = *reinterpret_cast<const Ngrams*>(io[2]);
  WorkMeter meter;
  for (int64_t row = 0; row < p.rows && meter.go_on(p.columns); ++row) {
    vectorize_row(p, ngrams, reinterpret_cast<const I*>(io[1]) + row * p.length, p.length,
                  reinterpret_cast<float*>(io[0]) + row * p.columns, meter);
  }
}

/// io: places, words, the n-grams.
void place_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  auto* places = reinterpret_cast<int64_t*>(io[0]);
  const auto* x = reinterpret_cast<const std::string_view*>(io[1]);
  const TextTable& words = *reinterpret_cast<const Ngrams*>(io[2])->words;
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kTextLookupNanos); ++i) places[i] = words.find(x[i]);
}

/// All but the sizes of the input.
VectorizeParams read_attributes(const NodeContext& c) {
  VectorizeParams p{};
  p.least = c.attr_int("min_gram_length", 1);
  p.most = c.attr_int("max_gram_length", 1);
  p.skips = c.attr_int("max_skip_count", 0);
  if (p.least < 1 || p.most < p.least || p.skips < 0 || p.skips > (int64_t{1} << 31) || p.most > (1 << 20)) {
    c.fail(cat("n-grams of ", p.least, " to ", p.most, " with ", p.skips, " skips"));
  }
  const std::string mode = c.attr_string("mode", "");
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF") c.fail(cat("mode '", mode, "'"));
  p.weighting = mode == "TF" ? Weighting::kTf : mode == "IDF" ? Weighting::kIdf : Weighting::kTfIdf;
  const std::vector<int64_t> columns = c.attr_ints("ngram_indexes");
  if (columns.empty()) c.fail("ngram_indexes is empty");
  for (int64_t column : columns) {
    if (column < 0 || column > (int64_t{1} << 31)) c.fail(cat("ngram_indexes holds ", column));
    p.columns = std::max(p.columns, column + 1);
  }
  const size_t weights = c.attr_floats("weights").size();
  if (weights != 0 && weights < columns.size())
    c.fail(cat(counted(weights, "weight"), " for ", columns.size(), " n-grams"));
  return p;
}

VectorizeParams read_params(const NodeContext& c) {
  VectorizeParams p = read_attributes(c);
  const Shape& x = c.input(0).shape;
  if (x.rank() > 2) c.fail(cat("expected [length] or [batch, length], got ", x.str()));
  p.rows = x.rank() == 2 ? x[0] : 1;
  p.length = x.rank() == 0 ? 1 : x.back();
  return p;
}

Ngrams read_ngrams(const NodeContext& c, const VectorizeParams& p) {
  std::vector<int64_t> pool = c.attr_ints("pool_int64s");
  const std::vector<int64_t> counts = c.attr_ints("ngram_counts");
  Ngrams out;
  out.columns = c.attr_ints("ngram_indexes");
  const std::vector<float> weights = c.attr_floats("weights");  // of each n-gram
  std::map<int64_t, float> of_column;
  for (size_t i = 0; i < out.columns.size(); ++i) of_column[out.columns[i]] = weights.empty() ? 1.0f : weights[i];
  out.weights.assign(of_column.begin(), of_column.end());
  if (c.has_attr("pool_strings")) {
    const std::vector<std::string> words = text_list(c, "pool_strings");
    out.words.emplace(words, /*last_wins=*/false);
    for (const std::string& word : words) pool.push_back(out.words->find(word));
  }
  const auto total = static_cast<int64_t>(pool.size());
  int64_t id = 0;
  for (size_t n = 0; n < counts.size(); ++n) {
    const int64_t begin = counts[n], end = n + 1 < counts.size() ? counts[n + 1] : total;
    const auto size = static_cast<int64_t>(n) + 1;
    if (begin < 0 || end < begin || end > total || (end - begin) % size != 0)
      c.fail("ngram_counts does not fit the pool");
    const bool wanted = size >= p.least && size <= p.most;
    for (int64_t at = begin; at < end; at += size, ++id) {
      if (id >= static_cast<int64_t>(out.columns.size())) c.fail("ngram_indexes is shorter than the pool");
      int32_t node = 0;
      for (int64_t i = 0; wanted && i < size; ++i) {
        const auto [it, fresh] = out.edges.try_emplace({node, pool[static_cast<size_t>(at + i)]}, Ngrams::Entry{0, -1});
        if (fresh) it->second.child = out.nodes++;
        if (i + 1 == size) it->second.id = static_cast<int32_t>(id);
        node = it->second.child;
      }
    }
  }
  return out;
}

void infer_vectorize(InferContext& c) {
  const VectorizeParams p = read_params(c);
  const bool strings = c.has_attr("pool_strings");
  if (strings && c.has_attr("pool_int64s")) c.fail("has both pool_int64s and pool_strings");
  require_type(c, 0, strings ? types(DType::kString) : types(DType::kI32, DType::kI64));
  Shape out{p.columns};
  if (c.input(0).shape.rank() == 2) out.insert(0, p.rows);
  c.set_output(0, DType::kF32, out);
}

void lower_vectorize(LowerContext& c) {
  const VectorizeParams p = read_params(c);
  const auto ngrams = ml::per_node<Ngrams>(c, c.attr_ints("ngram_indexes").size() * 2 * sizeof(Ngrams::Entry),
                                           [&] { return read_ngrams(c, p); });
  const Ref tables = c.constant(ngrams.get(), ngrams);
  Ref x = c.in(0);
  if (ngrams->words) {
    const int64_t count = p.rows * p.length;
    const Ref places = c.scratch(static_cast<size_t>(count) * sizeof(int64_t));
    c.step(place_step, count, {places, x, tables}, multiplied(count, kTextLookupNanos));
    x = places;
  }
  c.step(c.input(0).dtype == DType::kI32 ? vectorize_step<int32_t> : vectorize_step<int64_t>, p, {c.out(0), x, tables},
         multiplied(p.rows, p.columns) + 50 * multiplied(p.rows, p.length, p.most, p.skips + 1));
}

// --- TokenCounts: the n-grams of the tokens of each text, without the tokens' padded matrix. See fuse_tokens.

struct TokenCounter {
  Tokenizer tokenizer;
  Ngrams ngrams;
};

/// io: y, texts, the counter. Of the texts of a row each is padded to the longest.
void count_tokens_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const VectorizeParams*>(params);
  const auto* text = reinterpret_cast<const std::string_view*>(io[1]);
  const auto& counter = *reinterpret_cast<const TokenCounter*>(io[2]);
  constexpr int64_t kNothing = -1;
  Tokenizer::Workspace work;
  std::vector<std::string_view> tokens;
  std::vector<size_t> ends;
  std::vector<int64_t> places;
  WorkMeter meter;
  for (int64_t row = 0; row < p.rows && meter.go_on(p.columns); ++row) {
    tokens.clear();
    ends.clear();
    size_t longest = 0;
    for (int64_t i = 0; i < p.length; ++i) {
      const size_t begin = tokens.size();
      counter.tokenizer.read(*text++, work, tokens);
      ends.push_back(tokens.size());
      longest = std::max(longest, tokens.size() - begin);
    }
    if (!meter.go_on(kTextLookupNanos * static_cast<int64_t>(tokens.size()))) return;
    places.clear();
    size_t at = 0;
    for (const size_t end : ends) {
      const size_t full = places.size() + longest;
      for (; at < end; ++at) places.push_back(counter.ngrams.words->find(tokens[at]));
      places.resize(full, kNothing);
    }
    vectorize_row(p, counter.ngrams, places.data(), static_cast<int64_t>(places.size()),
                  reinterpret_cast<float*>(io[0]) + row * p.columns, meter);
  }
}

void infer_count_tokens(InferContext& c) {
  const VectorizeParams p = read_attributes(c);
  if (!c.knows(0)) Tokenizer{c};
  require_type(c, 0, types(DType::kString));
  const Shape& x = c.input(0).shape;
  if (x.rank() != 1 && x.rank() != 2) c.fail(cat("takes [C] or [N, C], not ", x.str()));
  c.set_output(0, DType::kF32, {x[0], p.columns});
}

void lower_count_tokens(LowerContext& c) {
  VectorizeParams p = read_attributes(c);
  const Shape& x = c.input(0).shape;
  p.rows = x[0];
  p.length = x.elements(1, x.rank());
  const auto counter = ml::per_node<TokenCounter>(c, c.attr_ints("ngram_indexes").size() * 2 * sizeof(Ngrams::Entry),
                                                  [&] { return TokenCounter{Tokenizer(c), read_ngrams(c, p)}; });
  constexpr double kTextNanos = 2000;  // of some words
  c.step(count_tokens_step, p, {c.out(0), c.in(0), c.constant(counter.get(), counter)},
         static_cast<double>(p.rows) * (static_cast<double>(p.columns) + kTextNanos * static_cast<double>(p.length)));
}

}  // namespace

void register_tfidf_vectorizer(OpRegistry& r) {
  r.add({.domain = kInternal,
         .name = "TokenCounts",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_count_tokens},
        lower_count_tokens);
  r.add({.name = "TfIdfVectorizer",
         .since = 9,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_vectorize},
        lower_vectorize);
}

}  // namespace inferkit
