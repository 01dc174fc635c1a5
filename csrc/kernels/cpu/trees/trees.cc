#include "kernels/cpu/trees/trees.h"

namespace inferkit::kernels {
namespace {

template <TreeCompare kCompare, class T, class X>
inline int32_t step(const TreeNode<T>& node, const X* row) {
  const uint32_t feature =
      kCompare == TreeCompare::kLessEqual ? node.feature & ~kTreeLeaf : node.feature & kTreeFeatureMask;
  const T x = static_cast<T>(row[feature]);
  bool go = x <= node.value;
  if constexpr (kCompare == TreeCompare::kMixed) go = (node.feature & kTreeEqual) != 0 ? x == node.value : go;
  if constexpr (kCompare != TreeCompare::kLessEqual) go |= (x != x) & ((node.feature & kTreeNanTrue) != 0);
  return node.kid[go];
}

/// All cursors step until all are at leaves; a leaf steps to itself.
template <TreeCompare kCompare, int kCount, class T, class X>
void walk(const TreeTable<T>& table, int32_t first, const X* row, int32_t* leaves) {
  const TreeNode<T>* nodes = table.nodes;
  int32_t at[kCount];
  for (int i = 0; i < kCount; ++i) at[i] = table.roots[first + i];
  uint32_t all;
  do {
    all = kTreeLeaf;
    for (int i = 0; i < kCount; ++i) {
      const TreeNode<T>& node = nodes[at[i]];
      all &= node.feature;
      at[i] = step<kCompare>(node, row);
    }
  } while (all == 0);
  for (int i = 0; i < kCount; ++i) leaves[i] = at[i];
}

template <TreeCompare kCompare, class T, class X>
void walk_some(const TreeTable<T>& table, int32_t first, int count, const X* row, int32_t* leaves) {
  if (count == kTreesAtOnce) return walk<kCompare, kTreesAtOnce>(table, first, row, leaves);
  for (int i = 0; i < count; ++i) walk<kCompare, 1>(table, first + i, row, leaves + i);
}

}  // namespace

template <class T, class X>
void find_leaves(const TreeTable<T>& table, int32_t first, int count, const X* row, int32_t* leaves) {
  switch (table.compare) {
    case TreeCompare::kLessEqual:
      return walk_some<TreeCompare::kLessEqual>(table, first, count, row, leaves);
    case TreeCompare::kLessEqualNan:
      return walk_some<TreeCompare::kLessEqualNan>(table, first, count, row, leaves);
    case TreeCompare::kMixed:
      return walk_some<TreeCompare::kMixed>(table, first, count, row, leaves);
  }
}

#define INFERKIT_INSTANTIATE(T, X) \
  template void find_leaves<T, X>(const TreeTable<T>&, int32_t, int, const X*, int32_t*);
INFERKIT_TREE_TYPES(INFERKIT_INSTANTIATE)
#undef INFERKIT_INSTANTIATE

}  // namespace inferkit::kernels
