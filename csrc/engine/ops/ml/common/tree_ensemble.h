// A forest as it is evaluated: one array of nodes, one of leaf weights. Built once per model from what a file says; the
// builder trusts nothing and finishes in time linear in the file.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/trees/trees.h"

namespace inferkit {

enum class TreeMode : uint8_t { kLeq, kLt, kGte, kGt, kEq, kNeq, kLeaf };

/// A node as files know it; kids are indices into the same list. Ids are resolved already.
template <class T>
struct TreeSource {
  struct Node {
    TreeMode mode = TreeMode::kLeaf;
    bool nan_true = false;
    int64_t feature = 0;
    T value = 0;
    int64_t true_kid = -1, false_kid = -1;
  };
  struct Weight {
    int64_t node = 0;
    int64_t target = 0;
    T value = 0;
  };
  std::vector<Node> nodes;
  std::vector<int64_t> roots;   // in the order of summation
  std::vector<Weight> weights;  // those of nodes that are no leaf are ignored
  int64_t targets = 1;
};

template <class T>
struct TreeEnsemble {
  struct Weight {
    int32_t target;
    T value;
  };
  enum class Leaves : uint8_t {
    kUnique,  // each leaf has one weight, for target 0: it is the node's value
    kDense,   // each leaf has one weight for every target, in order: weights[leaf * targets + t]
    kSparse,  // weights[first[leaf] .. first[leaf + 1])
  };
  std::vector<kernels::TreeNode<T>> nodes;
  std::vector<int32_t> roots;
  std::vector<T> dense;
  std::vector<Weight> sparse;
  std::vector<int64_t> first;
  Leaves leaves = Leaves::kSparse;
  kernels::TreeCompare compare = kernels::TreeCompare::kMixed;
  int32_t targets = 1;
  int64_t max_feature = -1;

  kernels::TreeTable<T> table() const {
    return {nodes.data(), roots.data(), static_cast<int32_t>(roots.size()), compare};
  }
};

/// `fail` is called with what is wrong (a cycle, an index that is out of range) and must throw.
template <class T>
TreeEnsemble<T> build_trees(const TreeSource<T>& source, const std::function<void(const std::string&)>& fail);

/// The leaf's index, for Leaves::kDense and kSparse.
int32_t leaf_index(const kernels::TreeNode<float>& leaf);
int32_t leaf_index(const kernels::TreeNode<double>& leaf);

extern template TreeEnsemble<float> build_trees(const TreeSource<float>&,
                                                const std::function<void(const std::string&)>&);
extern template TreeEnsemble<double> build_trees(const TreeSource<double>&,
                                                 const std::function<void(const std::string&)>&);

}  // namespace inferkit
