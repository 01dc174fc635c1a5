// The flat forest: every comparison after it was rewritten, against the comparison as it stands; layouts of the leaves;
// what a hostile file may hold.
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "engine/ops/ml/common/tree_ensemble.h"
#include "platform/float_environment.h"
#include "subnormals.h"
#include "test.h"

using namespace inferkit;

namespace {

using Source = TreeSource<float>;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TreeEnsemble<float> build(const Source& source) {
  return build_trees<float>(source, [](const std::string& message) { throw std::runtime_error(message); });
}

bool fails(const Source& source, const std::string& part) {
  try {
    build(source);
  } catch (const std::runtime_error& error) {
    return std::string(error.what()).find(part) != std::string::npos;
  }
  return false;
}

/// One comparison and two leaves: weight 1 where it holds, 2 where not.
Source stump(TreeMode mode, float threshold, bool nan_true) {
  Source source;
  source.nodes = {{mode, nan_true, 0, threshold, 1, 2}, {}, {}};
  source.roots = {0};
  source.weights = {{1, 0, 1.0f}, {2, 0, 2.0f}};
  return source;
}

/// What runs take for zero.
float flushed(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? 0.0f : v; }

bool holds(TreeMode mode, float x, float t, bool nan_true) {
  if (std::isnan(x) && nan_true) return true;
  x = flushed(x);
  t = flushed(t);
  switch (mode) {
    case TreeMode::kLeq:
      return x <= t;
    case TreeMode::kLt:
      return x < t;
    case TreeMode::kGte:
      return x >= t;
    case TreeMode::kGt:
      return x > t;
    case TreeMode::kEq:
      return x == t;
    default:
      return x != t;
  }
}

float evaluate(const TreeEnsemble<float>& trees, const float* row) {
  int32_t leaf = 0;
  kernels::find_leaves(trees.table(), 0, 1, row, &leaf);
  return trees.nodes[static_cast<size_t>(leaf)].value;
}

}  // namespace

TEST(every_comparison_survives_its_rewriting) {
  if (!inferkit::testing::can_flush_subnormals()) return;
  constexpr float kTiny = std::numeric_limits<float>::denorm_min(), kMax = std::numeric_limits<float>::max();
  constexpr float kSmallest = std::numeric_limits<float>::min();
  const float values[] = {-kInf, -kMax,     -1.5f,         -1, -kSmallest, -kTiny, -0.0f, 0,
                          kTiny, kSmallest, kSmallest * 2, 1,  1.5f,       kMax,   kInf,  kNan};
  const FloatEnvironment ours;
  for (int m = 0; m < 6; ++m) {
    const auto mode = static_cast<TreeMode>(m);
    for (const bool nan_true : {false, true}) {
      for (float t : values) {
        const auto trees = build(stump(mode, t, nan_true));
        for (float x : values) CHECK(evaluate(trees, &x) == (holds(mode, x, t, nan_true) ? 1.0f : 2.0f));
      }
    }
  }
}

TEST(eight_trees_at_once_end_where_one_ends) {
  std::mt19937 random(1);
  Source source;
  for (int tree = 0; tree < 29; ++tree) {
    const auto base = static_cast<int64_t>(source.nodes.size());
    source.roots.push_back(base);
    const int depth = tree % 7;  // complete trees of different heights, heap order
    const int64_t inner = (int64_t{1} << depth) - 1, all = 2 * inner + 1;
    for (int64_t i = 0; i < all; ++i) {
      Source::Node node;
      if (i < inner) {
        node = {
            TreeMode::kLeq,   false,           static_cast<int64_t>(random() % 5), static_cast<float>(random() % 100),
            base + 2 * i + 1, base + 2 * i + 2};
      } else {
        source.weights.push_back({base + i, 0, static_cast<float>(random() % 1000)});
      }
      source.nodes.push_back(node);
    }
  }
  const auto trees = build(source);
  CHECK(trees.compare == kernels::TreeCompare::kLessEqual);
  CHECK(trees.leaves == TreeEnsemble<float>::Leaves::kUnique);
  CHECK_EQ(trees.max_feature, 4);
  for (int trial = 0; trial < 50; ++trial) {
    float row[5];
    for (float& v : row) v = static_cast<float>(random() % 100);
    int32_t leaves[29];
    for (int first = 0; first < 29; first += kernels::kTreesAtOnce) {
      kernels::find_leaves(trees.table(), first, std::min(kernels::kTreesAtOnce, 29 - first), row, leaves + first);
    }
    for (size_t tree = 0; tree < 29; ++tree) {
      int64_t at = source.roots[tree];
      while (source.nodes[static_cast<size_t>(at)].mode != TreeMode::kLeaf) {
        const auto& node = source.nodes[static_cast<size_t>(at)];
        at = row[node.feature] <= node.value ? node.true_kid : node.false_kid;
      }
      float want = -1;
      for (const auto& weight : source.weights) want = weight.node == at ? weight.value : want;
      CHECK(trees.nodes[static_cast<size_t>(leaves[tree])].value == want);
    }
  }
}

TEST(leaves_are_dense_only_where_all_targets_are_there_in_order) {
  Source source = stump(TreeMode::kLeq, 0, false);
  source.targets = 2;
  source.weights = {{1, 0, 1.0f}, {2, 0, 3.0f}, {1, 1, 2.0f}, {2, 1, 4.0f}};
  auto trees = build(source);
  CHECK(trees.leaves == TreeEnsemble<float>::Leaves::kDense);
  const float x = -1;
  int32_t leaf = 0;
  kernels::find_leaves(trees.table(), 0, 1, &x, &leaf);
  const auto index = static_cast<size_t>(leaf_index(trees.nodes[static_cast<size_t>(leaf)]));
  CHECK(trees.dense[2 * index] == 1 && trees.dense[2 * index + 1] == 2);

  source.weights[3].target = 0;
  trees = build(source);
  CHECK(trees.leaves == TreeEnsemble<float>::Leaves::kSparse);
  CHECK_EQ(trees.sparse.size(), 4u);
  CHECK_EQ(trees.first.back(), 4);

  source.weights.push_back({0, 1, 9.0f});  // no leaf: ignored
  CHECK_EQ(build(source).sparse.size(), 4u);
}

TEST(what_a_hostile_file_may_hold) {
  const Source good = stump(TreeMode::kLeq, 0, false);
  auto with = [&](auto change) {
    Source source = good;
    change(source);
    return source;
  };
  CHECK(fails(with([](Source& s) { s.nodes[0].true_kid = 0; }), "cycle"));
  CHECK(fails(with([](Source& s) { s.nodes[1] = {TreeMode::kEq, false, 0, 0, 0, 2}; }), "cycle"));
  CHECK(fails(with([](Source& s) { s.nodes[0].true_kid = 3; }), "not there"));
  CHECK(fails(with([](Source& s) { s.nodes[0].false_kid = -1; }), "not there"));
  CHECK(fails(with([](Source& s) { s.roots = {5}; }), "not there"));
  CHECK(fails(with([](Source& s) { s.roots = {0, 0, 0, 0}; }), "more trees"));
  CHECK(fails(with([](Source& s) { s.nodes[0].feature = -1; }), "feature"));
  CHECK(fails(with([](Source& s) { s.nodes[0].feature = int64_t{1} << 33; }), "feature"));
  CHECK(fails(with([](Source& s) { s.targets = 0; }), "targets"));
  CHECK(fails(with([](Source& s) { s.weights[0].target = 1; }), "target or class 1"));
  CHECK(fails(with([](Source& s) { s.weights[0].node = 77; }), "not there"));
  CHECK(!fails(with([](Source& s) { s.nodes[0].false_kid = 1; }), ""));  // a shared leaf is no cycle
}

TEST(a_tree_as_deep_as_it_has_nodes_is_built_without_recursion) {
  constexpr int64_t kDepth = 300'000;
  Source source;
  for (int64_t i = 0; i < kDepth; ++i) source.nodes.push_back({TreeMode::kLeq, false, 0, -1.0f, kDepth, i + 1});
  source.nodes.push_back({});
  source.roots = {0};
  source.weights = {{kDepth, 0, 5.0f}};
  const auto trees = build(source);
  const float x = 0;
  CHECK(evaluate(trees, &x) == 5);
}
