// Forests: TreeEnsembleClassifier, TreeEnsembleRegressor, TreeEnsemble. Scores of a row are summed in the order of the
// trees, in chunks of trees (kernels/summation.h), so its bits never depend on the batch. Where ONNX Runtime and the
// specification agree, or only one of them speaks, this follows; where they contradict each other, it refuses (see
// check_binary).
#include <algorithm>
#include <array>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/ml/common/tree_ensemble.h"
#include "engine/ops/ml/common/tree_reader.h"
#include "engine/ops/ml/ml_common.h"
#include "kernels/summation.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

using namespace ml;
using kernels::TreeNode;

enum class Aggregate : uint8_t { kAverage, kSum, kMin, kMax };  // numbered as in opset 5
enum class Kind : uint8_t {
  kRegressor,
  kMulticlass,
  kBinary0,  // two classes whose weights are all for class 0, by which exporters mean the score of class 1
  kBinary1,  // ... all for class 1
};

template <class T>
struct Forest {
  TreeEnsemble<T> trees;
  std::vector<T> base;          // empty, or one per target
  std::vector<int64_t> labels;  // of classifiers
  Kind kind = Kind::kRegressor;
  bool all_positive = true;  // no weight is below zero
};

struct TreeParams {
  int64_t rows, columns;
  Aggregate aggregate;
  PostTransform transform;
};

constexpr int64_t kBlockRows = 32;  // rows that share a walk through the trees while these are in cache
constexpr double kNanosPerTree = 15;
constexpr double kParallelNanos = 100'000;

/// Adds the leaf's weights to a row's scores; `has` tells which targets got one (dense sums leave it alone).
template <class T>
void add_leaf(const TreeEnsemble<T>& trees, Aggregate aggregate, const TreeNode<T>& leaf, T* scores, uint8_t* has) {
  using Leaves = typename TreeEnsemble<T>::Leaves;
  const auto put = [&](int32_t target, T weight) {
    T& score = scores[target];
    if (aggregate == Aggregate::kMin) {
      score = has[target] != 0 && score < weight ? score : weight;
    } else if (aggregate == Aggregate::kMax) {
      score = has[target] != 0 && score > weight ? score : weight;
    } else {
      score += weight;
    }
    has[target] = 1;
  };
  const bool sum = aggregate == Aggregate::kSum || aggregate == Aggregate::kAverage;
  if (trees.leaves == Leaves::kUnique) return put(0, leaf.value);
  const auto index = static_cast<size_t>(leaf_index(leaf));
  if (trees.leaves == Leaves::kDense) {
    const T* weights = trees.dense.data() + index * static_cast<size_t>(trees.targets);
    if (sum) {
      for (int32_t t = 0; t < trees.targets; ++t) scores[t] += weights[t];
      return;
    }
    for (int32_t t = 0; t < trees.targets; ++t) put(t, weights[t]);
    return;
  }
  for (int64_t i = trees.first[index]; i < trees.first[index + 1]; ++i) {
    const auto& weight = trees.sparse[static_cast<size_t>(i)];
    put(weight.target, weight.value);
  }
}

/// Scores of `rows` rows, summed tree by tree; `part` has as much room as `scores`, for those of a chunk of trees.
template <class T, class X>
void score_rows(const TreeEnsemble<T>& trees, const TreeParams& p, const X* x, int64_t rows, T* scores, T* part,
                uint8_t* has) {
  static constexpr X kNoFeatures[1] = {};
  const auto table = trees.table();
  const auto targets = static_cast<int64_t>(trees.targets);
  std::fill_n(scores, rows * targets, T{0});
  std::fill_n(has, rows * targets, uint8_t{0});
  const bool is_sum = p.aggregate == Aggregate::kSum || p.aggregate == Aggregate::kAverage;
  const bool unique_sum = is_sum && trees.leaves == TreeEnsemble<T>::Leaves::kUnique;
  const int64_t chunk = is_sum ? kernels::sum_chunk(table.trees) : std::max(table.trees, 1);
  static_assert(kernels::sum_chunk(32) >= kernels::kTreesAtOnce);  // no walk sees two chunks end
  T* to = scores;                                                  // the first chunk's sums; then part
  int64_t end = chunk;
  const auto add = [&](const int32_t* leaves, int count, int64_t r, T* sums) {
    if (unique_sum) {
      T sum = sums[r];
      for (int i = 0; i < count; ++i) sum += table.nodes[leaves[i]].value;
      sums[r] = sum;
      return;
    }
    for (int i = 0; i < count; ++i) {
      add_leaf(trees, p.aggregate, table.nodes[leaves[i]], sums + r * targets, has + r * targets);
    }
  };
  int32_t leaves[kernels::kTreesAtOnce];
  for (int32_t tree = 0; tree < table.trees; tree += kernels::kTreesAtOnce) {
    const int count = std::min(kernels::kTreesAtOnce, table.trees - tree);
    const auto walk = [&](int64_t r) {
      kernels::find_leaves(table, tree, count, p.columns == 0 ? kNoFeatures : x + r * p.columns, leaves);
    };
    if (tree + count <= end) {
      for (int64_t r = 0; r < rows; ++r) {
        walk(r);
        add(leaves, count, r, to);
      }
      continue;
    }
    const int before = static_cast<int>(end - tree);  // of this chunk; the rest is of the next
    for (int64_t r = 0; r < rows; ++r) {
      walk(r);
      add(leaves, before, r, to);
      for (int64_t i = r * targets; i < (r + 1) * targets; ++i) {
        if (to == part) scores[i] += part[i];
        part[i] = 0;
      }
      add(leaves + before, count - before, r, part);
    }
    to = part;
    end += chunk;
  }
  for (int64_t i = 0; to == part && i < rows * targets; ++i) scores[i] += part[i];
}

inline void transform_scores(PostTransform transform, float* row, int64_t n) { transform_row(transform, row, n); }

/// Outputs in double are only those of TreeEnsemble.
void transform_scores(PostTransform transform, double* row, int64_t n) {
  if (transform == PostTransform::kLogistic) {
    for (int64_t i = 0; i < n; ++i) row[i] = 1 / (1 + std::exp(-row[i]));
  } else if (transform == PostTransform::kSoftmax) {
    const double max = *std::max_element(row, row + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += row[i] = std::exp(row[i] - max);
    for (int64_t i = 0; i < n; ++i) row[i] /= sum;
  } else if (transform == PostTransform::kProbit) {
    for (int64_t i = 0; i < n; ++i) row[i] = static_cast<double>(probit(static_cast<float>(row[i])));
  }
}

/// Base values and the average; then scores are what the node's output or label is made of.
template <class T>
void finish_scores(const Forest<T>& forest, Aggregate aggregate, T* scores) {
  const auto trees = static_cast<T>(std::max<size_t>(forest.trees.roots.size(), 1));
  for (int32_t t = 0; t < forest.trees.targets; ++t) {
    if (aggregate == Aggregate::kAverage) scores[t] /= trees;
    if (!forest.base.empty()) scores[t] += forest.base[static_cast<size_t>(t)];
  }
}

template <class T, class Out>
void finish_regressor(const Forest<T>& forest, const TreeParams& p, T* scores, Out* out) {
  const int64_t targets = forest.trees.targets;
  finish_scores(forest, p.aggregate, scores);
  for (int64_t t = 0; t < targets; ++t) out[t] = static_cast<Out>(scores[t]);
  transform_scores(p.transform, out, targets);
}

template <class T>
void finish_multiclass(const Forest<T>& forest, const TreeParams& p, T* scores, const uint8_t* has, int64_t* label,
                       float* out) {
  const int64_t targets = forest.trees.targets;
  finish_scores(forest, p.aggregate, scores);
  if (label) {
    // A class that no tree voted for can only win by its base value.
    const bool all = !forest.base.empty() || forest.trees.leaves != TreeEnsemble<T>::Leaves::kSparse;
    int64_t best = -1;
    for (int64_t t = 0; t < targets; ++t) {
      if ((all || has[t] != 0) && (best < 0 || scores[t] > scores[best])) best = t;
    }
    *label = forest.labels[static_cast<size_t>(std::max<int64_t>(best, 0))];
  }
  if (!out) return;
  for (int64_t t = 0; t < targets; ++t) out[t] = static_cast<float>(scores[t]);
  transform_row(p.transform, out, targets);
}

template <class T>
void finish_binary(const Forest<T>& forest, const TreeParams& p, T* scores, int64_t* label, float* out) {
  finish_scores(forest, p.aggregate, scores);
  // Weights that are all positive are taken for probabilities.
  if (label) *label = forest.labels[scores[0] > (forest.all_positive ? T{0.5} : T{0})];
  if (!out) return;
  const auto score = static_cast<float>(scores[0]);
  if (forest.kind == Kind::kBinary0) {
    write_two_classes(p.transform, forest.all_positive ? SecondClass::kComplement : SecondClass::kNegated, score, out);
    return;
  }
  out[0] = 0;
  out[1] = score;
  transform_row(p.transform, out, 2);
}

/// io: output or null (scores of a classifier), x, forest, scratch scores, scratch flags, labels or null, room as large
/// as the scores for those of a chunk.
template <class T, class X, class Out>
void tree_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const TreeParams*>(params);
  auto* out = reinterpret_cast<Out*>(io[0]);
  const auto* x = reinterpret_cast<const X*>(io[1]);
  const auto& forest = *reinterpret_cast<const Forest<T>*>(io[2]);
  auto* scores = reinterpret_cast<T*>(io[3]);
  auto* has = reinterpret_cast<uint8_t*>(io[4]);
  auto* labels = reinterpret_cast<int64_t*>(io[5]);
  auto* part = reinterpret_cast<T*>(io[6]);
  const int64_t targets = forest.trees.targets;

  const auto block = [&](int64_t b) {
    const int64_t begin = b * kBlockRows, rows = std::min(kBlockRows, p.rows - begin);
    score_rows(forest.trees, p, x + begin * p.columns, rows, scores + begin * targets, part + begin * targets,
               has + begin * targets);
    for (int64_t r = begin; r < begin + rows; ++r) {
      T* row = scores + r * targets;
      int64_t* label = labels ? labels + r : nullptr;
      if (forest.kind == Kind::kRegressor) {
        if (out) finish_regressor(forest, p, row, out + r * targets);
      } else if constexpr (std::is_same_v<Out, float>) {
        if (forest.kind == Kind::kMulticlass) {
          finish_multiclass(forest, p, row, has + r * targets, label, out ? out + r * targets : nullptr);
        } else {
          finish_binary(forest, p, row, label, out ? out + r * 2 : nullptr);
        }
      }
    }
  };
  const int64_t blocks = (p.rows + kBlockRows - 1) / kBlockRows;
  const double nanos = kNanosPerTree * static_cast<double>(p.rows) * static_cast<double>(forest.trees.roots.size());
  if (context.pool && blocks > 1 && nanos > kParallelNanos) {
    context.pool->parallel_for(blocks, context.max_threads, block);
  } else {
    WorkMeter meter;
    const int64_t each = static_cast<int64_t>(nanos) / std::max<int64_t>(1, blocks) + 1;
    for (int64_t b = 0; b < blocks && meter.go_on(each); ++b) block(b);
  }
}

template <class T>
TreeEnsemble<T> build(const NodeContext& c, const TreeSource<T>& source) {
  return build_trees<T>(source, [&](const std::string& message) { c.fail(message); });
}

// --- shape rules and lowering

constexpr int64_t kMaxTargets = 1 << 24;

int64_t targets_of(const NodeContext& c) {
  const int64_t targets = c.attr_int("n_targets", 0);
  if (targets < 1 || targets > kMaxTargets) c.fail(cat("n_targets is ", targets));
  return targets;
}

Aggregate aggregate_of(const NodeContext& c) {
  static constexpr std::array<std::string_view, 4> kNames = {"AVERAGE", "SUM", "MIN", "MAX"};
  const std::string name = c.attr_string("aggregate_function", "SUM");
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) c.fail(cat("aggregate_function '", name, "' is none of AVERAGE, SUM, MIN, MAX"));
  return static_cast<Aggregate>(at - kNames.begin());
}

/// One step for any of the three. `outputs` are the columns of the output.
template <class T, class X, class Out>
void add_tree_step(LowerContext& c, const std::shared_ptr<const Forest<T>>& forest, Aggregate aggregate,
                   PostTransform transform, Ref out, Ref labels) {
  const Rows x = rows_of(c);
  if (forest->trees.max_feature >= x.columns) {
    c.fail(cat("compares feature ", forest->trees.max_feature, " of an input with ", x.columns));
  }
  const auto cells = static_cast<size_t>(x.rows) * static_cast<size_t>(forest->trees.targets);
  const double trees = static_cast<double>(forest->trees.roots.size());
  c.step(tree_step<T, X, Out>, TreeParams{x.rows, x.columns, aggregate, transform},
         {out, c.in(0), c.constant(forest.get(), forest), c.scratch(cells * sizeof(T)), c.scratch(cells), labels,
          c.scratch(cells * sizeof(T))},
         kNanosPerTree * static_cast<double>(x.rows) * trees);
}

/// Calls f<T, X>() for the input's type: doubles are compared as double, all others as float.
template <class F>
void for_input(const NodeContext& c, F&& f) {
  switch (c.input(0).dtype) {
    case DType::kF64:
      return f.template operator()<double, double>();
    case DType::kI32:
      return f.template operator()<float, int32_t>();
    case DType::kI64:
      return f.template operator()<float, int64_t>();
    default:
      return f.template operator()<float, float>();
  }
}

void infer_regressor(InferContext& c) {
  require_type(c, 0, kMlTypes);
  const int64_t targets = targets_of(c);
  aggregate_of(c);
  if (targets == 1) check_single_score(c, post_transform_of(c), /*two_classes=*/false);
  post_transform_of(c);
  c.set_output(0, DType::kF32, {rows_of(c).rows, targets});
}

void lower_regressor(LowerContext& c) {
  for_input(c, [&]<class T, class X>() {
    const auto forest = per_node<Forest<T>>(c, ints(c, "nodes_treeids").size() * sizeof(TreeNode<T>), [&] {
      Forest<T> f;
      f.trees = build(c, read_trees<T>(c, "target", targets_of(c)));
      f.base = tree_values<T>(c, "base_values");
      if (!f.base.empty()) check_length(c, "base_values", f.base.size(), static_cast<size_t>(f.trees.targets));
      return f;
    });
    add_tree_step<T, X, float>(c, forest, aggregate_of(c), post_transform_of(c), c.out(0), {});
  });
}

/// What ONNX Runtime makes of the base values of one-sided binary classifiers contradicts the specification.
template <class T>
void check_binary(const NodeContext& c, const Forest<T>& forest) {
  if (forest.kind == Kind::kBinary0) check_single_score(c, post_transform_of(c), /*two_classes=*/true);
  if (forest.base.empty() || (forest.base.size() == 1 && forest.kind == Kind::kBinary0)) return;
  c.unsupported(cat("a binary classifier with ", forest.base.size(), " base values whose weights are all for class ",
                    forest.kind == Kind::kBinary0 ? 0 : 1));
}

template <class T>
Forest<T> make_classifier(const NodeContext& c) {
  Forest<T> f;
  f.labels = labels_of(c, "classlabels_int64s", "classlabels_strings").values;
  const auto classes = static_cast<int64_t>(f.labels.size());
  TreeSource<T> source = read_trees<T>(c, "class", classes);
  f.base = tree_values<T>(c, "base_values");
  std::vector<bool> named(f.labels.size(), false);
  for (const auto& weight : source.weights) {
    if (weight.target < 0 || weight.target >= classes) c.fail(cat("a weight names class ", weight.target));
    named[static_cast<size_t>(weight.target)] = true;
    f.all_positive &= !(weight.value < 0);
  }
  f.kind = Kind::kMulticlass;
  if (classes == 2 && named[0] != named[1]) {
    f.kind = named[0] ? Kind::kBinary0 : Kind::kBinary1;
    check_binary(c, f);
    source.targets = 1;
    for (auto& weight : source.weights) weight.target = 0;
  } else if (!f.base.empty()) {
    check_length(c, "base_values", f.base.size(), f.labels.size());
  }
  f.trees = build(c, source);
  return f;
}

void infer_classifier(InferContext& c) {
  require_type(c, 0, kMlTypes);
  post_transform_of(c);
  const Labels labels = labels_of(c, "classlabels_int64s", "classlabels_strings");
  const auto classes = static_cast<int64_t>(labels.values.size());
  if (classes < 2) c.unsupported(cat("a classifier with ", counted(classes, "class label")));
  const int64_t rows = rows_of(c).rows;
  c.set_output(0, labels.dtype, {rows});
  if (c.has_output(1)) c.set_output(1, DType::kF32, {rows, classes});
}

void lower_classifier(LowerContext& c) {
  const Labels labels = labels_of(c, "classlabels_int64s", "classlabels_strings");
  const int64_t rows = rows_of(c).rows;
  const Ref room = label_room(c, labels, rows);
  for_input(c, [&]<class T, class X>() {
    const auto forest = per_node<Forest<T>>(c, ints(c, "nodes_treeids").size() * sizeof(TreeNode<T>),
                                            [&] { return make_classifier<T>(c); });
    add_tree_step<T, X, float>(c, forest, Aggregate::kSum, post_transform_of(c),
                               c.output_count() > 1 ? c.out(1) : Ref{}, room);
  });
  name_labels(c, labels, room, rows);
}

struct Options5 {
  Aggregate aggregate;
  PostTransform transform;
};
/// As the specification numbers them; ONNX Runtime takes 1 for LOGISTIC and 2 for SOFTMAX.
Options5 options5_of(const NodeContext& c) {
  const int64_t aggregate = c.attr_int("aggregate_function", 1), transform = c.attr_int("post_transform", 0);
  if (aggregate < 0 || aggregate > 3) c.fail(cat("aggregate_function ", aggregate, " is not known"));
  if (transform < 0 || transform > 4) c.fail(cat("post_transform ", transform, " is not known"));
  return {static_cast<Aggregate>(aggregate), static_cast<PostTransform>(transform)};
}

void infer_ensemble(InferContext& c) {
  require_type(c, 0, types(DType::kF32, DType::kF64));
  const int64_t targets = targets_of(c);
  const PostTransform transform = options5_of(c).transform;
  if (targets == 1 && transform != PostTransform::kNone && transform != PostTransform::kProbit) {
    c.unsupported("a post_transform on one target, which ONNX Runtime ignores; apply it outside");
  }
  if (transform == PostTransform::kSoftmaxZero && c.knows(0) && c.input(0).dtype == DType::kF64) {
    c.unsupported("SOFTMAX_ZERO in float64");
  }
  c.set_output(0, c.input(0).dtype, {rows_of(c).rows, targets});
}

void lower_ensemble(LowerContext& c) {
  for_input(c, [&]<class T, class X>() {
    const auto forest = per_node<Forest<T>>(c, ints(c, "nodes_featureids").size() * 2 * sizeof(TreeNode<T>), [&] {
      Forest<T> f;
      f.trees = build(c, read_trees5<T>(c));
      return f;
    });
    const Options5 options = options5_of(c);
    add_tree_step<T, X, T>(c, forest, options.aggregate, options.transform, c.out(0), {});
  });
}

}  // namespace

void register_ml_tree(OpRegistry& r) {
  r.add({.domain = kOnnxMl,
         .name = "TreeEnsembleRegressor",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_regressor},
        lower_regressor);
  r.add({.domain = kOnnxMl,
         .name = "TreeEnsembleClassifier",
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 2,
         .infer = infer_classifier},
        lower_classifier);
  r.add({.domain = kOnnxMl,
         .name = "TreeEnsemble",
         .since = 5,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_ensemble},
        lower_ensemble);
}

}  // namespace inferkit
