// Decision trees as one flat array of nodes: a row walks several trees at once, so that the latency of one step hides
// behind the others. Which leaf a row reaches depends on the row alone.
#pragma once
#include <stdint.h>

namespace inferkit::kernels {

/// A node compares x[feature] with value and goes on to kid[0] (false) or kid[1] (true). Every comparison is written as
/// <= or == (see TreeCompare). A leaf's kids are itself; its value is the weight, or holds an int32 (leaf_index).
template <class T>
struct TreeNode {
  T value;
  uint32_t feature;  // and the flags below
  int32_t kid[2];
};
inline constexpr uint32_t kTreeLeaf = 1u << 31;     // its feature is 0
inline constexpr uint32_t kTreeNanTrue = 1u << 30;  // NaN goes to kid[1]
inline constexpr uint32_t kTreeEqual = 1u << 29;    // == instead of <=
inline constexpr uint32_t kTreeFeatureMask = (1u << 29) - 1;

/// Which flags occur in a table: the fewer, the shorter the step.
enum class TreeCompare : uint8_t { kLessEqual, kLessEqualNan, kMixed };

template <class T>
struct TreeTable {
  const TreeNode<T>* nodes = nullptr;
  const int32_t* roots = nullptr;
  int32_t trees = 0;
  TreeCompare compare = TreeCompare::kMixed;
};

inline constexpr int kTreesAtOnce = 8;

/// leaves[i] = the node where `row` ends in tree `first + i`, for i < count <= kTreesAtOnce. The row must have every
/// feature that the table names, and at least one. X is float, double, int32_t or int64_t; integers are compared as T.
template <class T, class X>
void find_leaves(const TreeTable<T>& table, int32_t first, int count, const X* row, int32_t* leaves);

#define INFERKIT_TREE_TYPES(apply) apply(float, float) apply(float, int32_t) apply(float, int64_t) apply(double, double)
#define INFERKIT_DECLARE(T, X) \
  extern template void find_leaves<T, X>(const TreeTable<T>&, int32_t, int, const X*, int32_t*);
INFERKIT_TREE_TYPES(INFERKIT_DECLARE)
#undef INFERKIT_DECLARE

}  // namespace inferkit::kernels
