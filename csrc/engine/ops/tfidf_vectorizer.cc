// TfIdfVectorizer over numbers: how often each n-gram of a pool occurs in a row, with or without gaps.
#include <map>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
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
  std::vector<int64_t> columns;  // of each n-gram
  std::vector<float> weights;    // of each column; empty for 1
};

struct VectorizeParams {
  int64_t rows, length, columns;
  int64_t least, most, skips;  // lengths of n-grams, and gaps within them
  Weighting weighting;
};

constexpr int64_t kSearchNanos = 50;  // an edge of the trie

/// io: y, x, the n-grams.
template <class I>
void vectorize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const VectorizeParams*>(params);
  const auto& ngrams = *reinterpret_cast<const Ngrams*>(io[2]);
  WorkMeter meter;
  for (int64_t row = 0; row < p.rows && meter.go_on(p.columns); ++row) {
    float* y = reinterpret_cast<float*>(io[0]) + row * p.columns;
    const I* x = reinterpret_cast<const I*>(io[1]) + row * p.length;
    std::fill(y, y + p.columns, 0.0f);
    int64_t least = p.least;
    for (int64_t distance = 1; distance <= p.skips + 1 && least <= p.most && distance * (least - 1) < p.length;
         ++distance) {
      for (int64_t start = 0; start + distance * (least - 1) < p.length; ++start) {
        if (!meter.go_on(kSearchNanos)) return;
        int32_t node = 0;
        int64_t item = start;
        for (int64_t size = 1; size <= p.most && item < p.length; ++size, item += distance) {
          const auto it = ngrams.edges.find({node, static_cast<int64_t>(x[item])});
          if (it == ngrams.edges.end()) break;
          if (size >= least && it->second.id >= 0) y[ngrams.columns[static_cast<size_t>(it->second.id)]] += 1;
          node = it->second.child;
        }
      }
      if (least == 1) ++least;  // gaps make no other n-grams of one element
    }
    if (p.weighting == Weighting::kTf) continue;
    for (int64_t i = 0; i < p.columns; ++i) {
      const float weight = ngrams.weights.empty() ? 1 : ngrams.weights[static_cast<size_t>(i)];
      y[i] = p.weighting == Weighting::kIdf ? (y[i] > 0 ? weight : 0) : y[i] * weight;
    }
  }
}

VectorizeParams read_params(const NodeContext& c) {
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
  const auto weights = static_cast<int64_t>(c.attr_floats("weights").size());
  if (weights != 0 && weights < p.columns) c.fail(cat(weights, " weights for ", p.columns, " columns"));
  if (c.has_attr("pool_strings")) c.unsupported("n-grams of strings");
  const Shape& x = c.input(0).shape;
  if (x.rank() > 2) c.fail(cat("expected [length] or [batch, length], got ", x.str()));
  p.rows = x.rank() == 2 ? x[0] : 1;
  p.length = x.rank() == 0 ? 1 : x.back();
  return p;
}

std::shared_ptr<const Ngrams> read_ngrams(const NodeContext& c, const VectorizeParams& p) {
  const std::vector<int64_t> pool = c.attr_ints("pool_int64s"), counts = c.attr_ints("ngram_counts");
  auto out = std::make_shared<Ngrams>();
  out->columns = c.attr_ints("ngram_indexes");
  out->weights = c.attr_floats("weights");
  const auto total = static_cast<int64_t>(pool.size());
  int64_t id = 0;
  for (size_t n = 0; n < counts.size(); ++n) {
    const int64_t begin = counts[n], end = n + 1 < counts.size() ? counts[n + 1] : total;
    const auto size = static_cast<int64_t>(n) + 1;
    if (begin < 0 || end < begin || end > total || (end - begin) % size != 0)
      c.fail("ngram_counts does not fit the pool");
    const bool wanted = size >= p.least && size <= p.most;
    for (int64_t at = begin; at < end; at += size, ++id) {
      if (id >= static_cast<int64_t>(out->columns.size())) c.fail("ngram_indexes is shorter than the pool");
      int32_t node = 0;
      for (int64_t i = 0; wanted && i < size; ++i) {
        const auto [it, fresh] =
            out->edges.try_emplace({node, pool[static_cast<size_t>(at + i)]}, Ngrams::Entry{0, -1});
        if (fresh) it->second.child = out->nodes++;
        if (i + 1 == size) it->second.id = static_cast<int32_t>(id);
        node = it->second.child;
      }
    }
  }
  return out;
}

void infer_vectorize(InferContext& c) {
  const VectorizeParams p = read_params(c);
  if (c.input(0).dtype == DType::kString) c.unsupported("strings");
  require_type(c, 0, types(DType::kI32, DType::kI64));
  Shape out{p.columns};
  if (c.input(0).shape.rank() == 2) out.insert(0, p.rows);
  c.set_output(0, DType::kF32, out);
}

void lower_vectorize(LowerContext& c) {
  const VectorizeParams p = read_params(c);
  const auto ngrams = read_ngrams(c, p);
  c.step(c.input(0).dtype == DType::kI32 ? vectorize_step<int32_t> : vectorize_step<int64_t>, p,
         {c.out(0), c.in(0), c.constant(ngrams.get(), ngrams)},
         static_cast<double>(p.rows * (p.columns + p.length * p.most * (p.skips + 1) * 50)));
}

}  // namespace

void register_tfidf_vectorizer(OpRegistry& r) {
  r.add({.name = "TfIdfVectorizer",
         .since = 9,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_vectorize},
        lower_vectorize);
}

}  // namespace inferkit
