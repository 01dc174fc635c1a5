#include "engine/ops/ml/common/tree_ensemble.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/counted.h"
#include "base/error.h"

namespace inferkit {
namespace {

using kernels::kTreeEqual;
using kernels::kTreeFeatureMask;
using kernels::kTreeLeaf;
using kernels::kTreeNanTrue;
using kernels::TreeCompare;
using kernels::TreeNode;

template <class T>
class Builder {
 public:
  Builder(const TreeSource<T>& source, const std::function<void(const std::string&)>& fail)
      : source_(source), fail_(fail) {}

  TreeEnsemble<T> build() {
    const auto count = static_cast<int64_t>(source_.nodes.size());
    if (count > std::numeric_limits<int32_t>::max() / 2) fail_(cat(counted(count, "node"), " are too many"));
    if (source_.roots.size() > source_.nodes.size()) fail_("has more trees than nodes");
    if (const int64_t n = source_.targets; n < 1 || n > (1 << 24)) fail_(cat(source_.targets, " targets or classes"));
    out_.targets = static_cast<int32_t>(source_.targets);
    place_.assign(source_.nodes.size(), kUnseen);
    for (int64_t root : source_.roots) {
      visit(root);
      out_.roots.push_back(place_[static_cast<size_t>(root)]);
    }
    link();
    set_compare();
    place_weights();
    return std::move(out_);
  }

 private:
  static constexpr int32_t kUnseen = -1;

  /// Depth first without recursion: nodes get their places in the order of the visit, false kids right behind their
  /// parents. A node that is met again is shared (exporters do that) unless it is on the way down, which is a cycle.
  void visit(int64_t root) {
    check_index(root);
    struct Frame {
      int64_t node;
      int next;
    };
    std::vector<Frame> way;
    if (place(root)) way.push_back({root, 0});
    while (!way.empty()) {
      Frame& top = way.back();
      const auto& node = source_.nodes[static_cast<size_t>(top.node)];
      if (node.mode == TreeMode::kLeaf || top.next == 2) {
        open_[static_cast<size_t>(top.node)] = false;
        way.pop_back();
        continue;
      }
      const int64_t kid = top.next++ == 0 ? node.false_kid : node.true_kid;
      check_index(kid);
      if (place(kid)) {
        way.push_back({kid, 0});
      } else if (open_[static_cast<size_t>(kid)]) {
        fail_("a tree has a cycle: one of its nodes is its own ancestor");
      }
    }
  }

  void check_index(int64_t i) {
    if (i < 0 || i >= static_cast<int64_t>(source_.nodes.size()))
      fail_(cat("a tree names node ", i, ", which is not there"));
  }

  /// Gives node `i` its place; false where it has one.
  bool place(int64_t i) {
    if (open_.empty()) open_.assign(source_.nodes.size(), false);
    const auto at = static_cast<size_t>(i);
    if (place_[at] != kUnseen) return false;
    place_[at] = static_cast<int32_t>(order_.size());
    order_.push_back(i);
    open_[at] = true;
    return true;
  }

  void link() {
    out_.nodes.resize(order_.size());
    for (size_t at = 0; at < order_.size(); ++at) {
      const auto& from = source_.nodes[static_cast<size_t>(order_[at])];
      TreeNode<T>& to = out_.nodes[at];
      if (from.mode == TreeMode::kLeaf) {
        to = {0, kTreeLeaf, {static_cast<int32_t>(at), static_cast<int32_t>(at)}};
        continue;
      }
      if (from.feature < 0 || from.feature > static_cast<int64_t>(kTreeFeatureMask)) {
        fail_(cat("feature ", from.feature, " is out of range"));
      }
      out_.max_feature = std::max(out_.max_feature, from.feature);
      to = {from.value,
            static_cast<uint32_t>(from.feature),
            {place_[static_cast<size_t>(from.false_kid)], place_[static_cast<size_t>(from.true_kid)]}};
      normalise(from.mode, from.nan_true, to);
    }
  }

  /// The largest number below `v`, NaN where there is none; runs take subnormals for zero.
  static T before(T v) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity(), kSmallest = std::numeric_limits<T>::min();
    if (v == -kInfinity) return std::numeric_limits<T>::quiet_NaN();
    if (std::fabs(v) < kSmallest) return -kSmallest;
    return v == kSmallest ? T{0} : std::nextafter(v, -kInfinity);
  }

  /// Every comparison as <= or ==, so that a step has no switch: x < t is x <= the number before t; >, >= and != swap
  /// the kids, and tell NaN (for which each of them but != is false) where it went before.
  static void normalise(TreeMode mode, bool nan_true, TreeNode<T>& node) {
    if (std::isnan(node.value) && mode != TreeMode::kNeq) mode = TreeMode::kLeq;  // holds for no x, in each of them
    const bool strict = mode == TreeMode::kLt || mode == TreeMode::kGte;
    const bool swapped = mode == TreeMode::kGt || mode == TreeMode::kGte || mode == TreeMode::kNeq;
    if (strict) node.value = before(node.value);
    if (mode == TreeMode::kEq || mode == TreeMode::kNeq) node.feature |= kTreeEqual;
    if (swapped) std::swap(node.kid[0], node.kid[1]);
    const bool to_original_true = nan_true || mode == TreeMode::kNeq;
    if (to_original_true != swapped) node.feature |= kTreeNanTrue;
  }

  void set_compare() {
    uint32_t flags = 0;
    for (const TreeNode<T>& node : out_.nodes) flags |= node.feature;
    out_.compare = (flags & kTreeEqual) != 0     ? TreeCompare::kMixed
                   : (flags & kTreeNanTrue) != 0 ? TreeCompare::kLessEqualNan
                                                 : TreeCompare::kLessEqual;
  }

  void place_weights() {
    // Leaves in the order of their places; a counting sort of the weights by leaf keeps the file's order within each.
    std::vector<int32_t> leaf_of(out_.nodes.size(), -1);
    int32_t leaves = 0;
    for (size_t at = 0; at < out_.nodes.size(); ++at) {
      if ((out_.nodes[at].feature & kTreeLeaf) != 0) leaf_of[at] = leaves++;
    }
    const auto leaf = [&](const typename TreeSource<T>::Weight& weight) {
      const int32_t at = place_[static_cast<size_t>(weight.node)];
      return at == kUnseen ? -1 : leaf_of[static_cast<size_t>(at)];
    };
    out_.first.assign(static_cast<size_t>(leaves) + 1, 0);
    for (const auto& weight : source_.weights) {
      check_index(weight.node);
      if (weight.target < 0 || weight.target >= source_.targets) {
        fail_(cat("a weight names target or class ", weight.target, " of ", source_.targets));
      }
      if (leaf(weight) >= 0) ++out_.first[static_cast<size_t>(leaf(weight)) + 1];
    }
    for (size_t i = 1; i < out_.first.size(); ++i) out_.first[i] += out_.first[i - 1];
    out_.sparse.resize(static_cast<size_t>(out_.first.back()));
    std::vector<int64_t> next(out_.first.begin(), out_.first.end() - 1);
    for (const auto& weight : source_.weights) {
      if (leaf(weight) < 0) continue;
      const int64_t slot = next[static_cast<size_t>(leaf(weight))]++;
      out_.sparse[static_cast<size_t>(slot)] = {static_cast<int32_t>(weight.target), weight.value};
    }
    choose_layout(leaves);
    for (size_t at = 0; at < out_.nodes.size(); ++at) {
      if (leaf_of[at] < 0) continue;
      if (out_.leaves == TreeEnsemble<T>::Leaves::kUnique) {
        out_.nodes[at].value = out_.sparse[static_cast<size_t>(leaf_of[at])].value;
      } else {
        std::memcpy(&out_.nodes[at].value, &leaf_of[at], sizeof(int32_t));
      }
    }
    if (out_.leaves == TreeEnsemble<T>::Leaves::kDense) {
      for (const auto& weight : out_.sparse) out_.dense.push_back(weight.value);
    }
    if (out_.leaves != TreeEnsemble<T>::Leaves::kSparse) {
      out_.sparse = {};
      out_.first = {};
    }
  }

  void choose_layout(int32_t leaves) {
    const auto targets = static_cast<size_t>(out_.targets);
    bool dense = out_.sparse.size() == static_cast<size_t>(leaves) * targets;
    for (size_t i = 0; dense && i < out_.sparse.size(); ++i) {
      dense = out_.first[i / targets] == static_cast<int64_t>(i - i % targets) &&
              out_.sparse[i].target == static_cast<int32_t>(i % targets);
    }
    if (dense) out_.leaves = targets == 1 ? TreeEnsemble<T>::Leaves::kUnique : TreeEnsemble<T>::Leaves::kDense;
  }

  const TreeSource<T>& source_;
  const std::function<void(const std::string&)>& fail_;
  TreeEnsemble<T> out_;
  std::vector<int32_t> place_;  // of each source node
  std::vector<int64_t> order_;  // the source node of each place
  std::vector<bool> open_;      // on the way down
};

template <class T>
int32_t read_index(const TreeNode<T>& leaf) {
  int32_t index = 0;
  std::memcpy(&index, &leaf.value, sizeof(index));
  return index;
}

}  // namespace

template <class T>
TreeEnsemble<T> build_trees(const TreeSource<T>& source, const std::function<void(const std::string&)>& fail) {
  return Builder<T>(source, fail).build();
}
template TreeEnsemble<float> build_trees(const TreeSource<float>&, const std::function<void(const std::string&)>&);
template TreeEnsemble<double> build_trees(const TreeSource<double>&, const std::function<void(const std::string&)>&);

int32_t leaf_index(const TreeNode<float>& leaf) { return read_index(leaf); }
int32_t leaf_index(const TreeNode<double>& leaf) { return read_index(leaf); }

}  // namespace inferkit
