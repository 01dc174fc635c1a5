#include "engine/ops/ml/common/tree_reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/counted.h"
#include "base/immortal.h"
#include "engine/ops/ml/ml_common.h"

namespace inferkit::ml {
namespace {

/// A tensor attribute of float32 or float64 as T.
template <class T>
std::vector<T> tensor_values(const NodeContext& c, std::string_view name) {
  const Tensor* tensor = c.attr_tensor(name);
  if (!tensor) return {};
  const auto count = static_cast<size_t>(tensor->shape.elements());
  std::vector<T> out(count);
  if (tensor->dtype == DType::kF32) {
    std::copy_n(tensor->as<float>(), count, out.begin());
  } else if (tensor->dtype == DType::kF64) {
    std::transform(tensor->as<double>(), tensor->as<double>() + count, out.begin(),
                   [](double v) { return static_cast<T>(v); });
  } else {
    c.unsupported(cat(name, " of type ", dtype_name(tensor->dtype)));
  }
  return out;
}

TreeMode mode_of(const NodeContext& c, std::string_view name) {
  static constexpr std::array<std::string_view, 7> kNames = {"BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE", "BRANCH_GT",
                                                             "BRANCH_EQ",  "BRANCH_NEQ", "LEAF"};
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  if (at == kNames.end()) c.fail(cat("node mode '", name, "' is not known"));
  return static_cast<TreeMode>(at - kNames.begin());
}

/// Finds nodes by (tree id, node id), in bounded time whatever the ids are.
class NodeIndex {
 public:
  NodeIndex(const NodeContext& c, const std::vector<int64_t>& trees, const std::vector<int64_t>& ids) : c_(c) {
    keys_.reserve(trees.size());
    for (size_t i = 0; i < trees.size(); ++i) keys_.push_back({trees[i], ids[i], static_cast<int64_t>(i)});
    if (!std::is_sorted(keys_.begin(), keys_.end())) std::sort(keys_.begin(), keys_.end());
    for (size_t i = 1; i < keys_.size(); ++i) {
      if (keys_[i].tree == keys_[i - 1].tree && keys_[i].id == keys_[i - 1].id) {
        c.fail(cat("node ", keys_[i].id, " of tree ", keys_[i].tree, " is there twice"));
      }
    }
  }

  int64_t find(int64_t tree, int64_t id) const {
    const auto at = std::lower_bound(keys_.begin(), keys_.end(), Key{tree, id, -1});
    if (at == keys_.end() || at->tree != tree || at->id != id) {
      c_.fail(cat("names node ", id, " of tree ", tree, ", which is not there"));
    }
    return at->index;
  }

 private:
  struct Key {
    int64_t tree, id, index;
    bool operator<(const Key& o) const { return std::tie(tree, id, index) < std::tie(o.tree, o.id, o.index); }
  };
  const NodeContext& c_;
  std::vector<Key> keys_;
};

}  // namespace

const std::vector<int64_t>& ints(const NodeContext& c, std::string_view name) {
  static const auto& kNone = immortal(std::vector<int64_t>());
  const auto* found = attribute<std::vector<int64_t>>(c, name);
  return found ? *found : kNone;
}

void check_length(const NodeContext& c, std::string_view name, size_t length, size_t expected) {
  if (length != expected) c.fail(cat(name, " has ", counted(length, "element"), ", not ", expected));
}

template <class T>
std::vector<T> tree_values(const NodeContext& c, const std::string& name) {
  const auto* floats = attribute<FloatList>(c, name);
  std::vector<T> out = tensor_values<T>(c, name + "_as_tensor");
  if (floats && floats->size() != 0 && !out.empty()) c.fail(cat("has both ", name, " and ", name, "_as_tensor"));
  if (floats && out.empty()) out.assign(floats->values().begin(), floats->values().end());
  return out;
}

template <class T>
TreeSource<T> read_trees(const NodeContext& c, const std::string& prefix, int64_t targets) {
  TreeSource<T> source;
  source.targets = targets;
  const auto &trees = ints(c, "nodes_treeids"), &ids = ints(c, "nodes_nodeids");
  const auto &true_ids = ints(c, "nodes_truenodeids"), &false_ids = ints(c, "nodes_falsenodeids");
  const auto &features = ints(c, "nodes_featureids"), &tracks = ints(c, "nodes_missing_value_tracks_true");
  const auto* modes = attribute<std::vector<std::string>>(c, "nodes_modes");
  const std::vector<T> thresholds = tree_values<T>(c, "nodes_values");
  const size_t count = trees.size();
  check_length(c, "nodes_nodeids", ids.size(), count);
  check_length(c, "nodes_truenodeids", true_ids.size(), count);
  check_length(c, "nodes_falsenodeids", false_ids.size(), count);
  check_length(c, "nodes_featureids", features.size(), count);
  check_length(c, "nodes_modes", modes ? modes->size() : 0, count);
  check_length(c, "nodes_values", thresholds.size(), count);
  if (!tracks.empty()) check_length(c, "nodes_missing_value_tracks_true", tracks.size(), count);

  const NodeIndex index(c, trees, ids);
  source.nodes.resize(count);
  std::vector<int64_t> seen;
  for (size_t i = 0; i < count; ++i) {
    auto& node = source.nodes[i];
    node.mode = mode_of(c, (*modes)[i]);
    if (i == 0 || trees[i] != trees[i - 1]) {
      source.roots.push_back(static_cast<int64_t>(i));  // the first node of a tree is its root
      seen.push_back(trees[i]);
    }
    if (node.mode == TreeMode::kLeaf) continue;
    node.nan_true = !tracks.empty() && tracks[i] != 0;
    node.feature = features[i];
    node.value = thresholds[i];
    node.true_kid = index.find(trees[i], true_ids[i]);
    node.false_kid = index.find(trees[i], false_ids[i]);
  }
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) c.fail("the nodes of a tree do not lie together");

  const auto &weight_trees = ints(c, prefix + "_treeids"), &weight_nodes = ints(c, prefix + "_nodeids");
  const auto& weight_targets = ints(c, prefix + "_ids");
  const std::vector<T> weights = tree_values<T>(c, prefix + "_weights");
  check_length(c, prefix + "_nodeids", weight_nodes.size(), weight_trees.size());
  check_length(c, prefix + "_ids", weight_targets.size(), weight_trees.size());
  check_length(c, prefix + "_weights", weights.size(), weight_trees.size());
  source.weights.resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    source.weights[i] = {index.find(weight_trees[i], weight_nodes[i]), weight_targets[i], weights[i]};
  }
  return source;
}

template <class T>
TreeSource<T> read_trees5(const NodeContext& c) {
  TreeSource<T> source;
  source.targets = c.attr_int("n_targets", 0);
  source.roots = ints(c, "tree_roots");
  const Tensor* modes = c.attr_tensor("nodes_modes");
  if (!modes || modes->dtype != DType::kU8) c.fail("nodes_modes must be a tensor of uint8");
  const std::vector<T> splits = tensor_values<T>(c, "nodes_splits"), weights = tensor_values<T>(c, "leaf_weights");
  const std::vector<T> members = tensor_values<T>(c, "membership_values");
  const auto &true_ids = ints(c, "nodes_truenodeids"), &false_ids = ints(c, "nodes_falsenodeids");
  const auto &true_leafs = ints(c, "nodes_trueleafs"), &false_leafs = ints(c, "nodes_falseleafs");
  const auto &features = ints(c, "nodes_featureids"), &tracks = ints(c, "nodes_missing_value_tracks_true");
  const auto& leaf_targets = ints(c, "leaf_targetids");
  const size_t count = splits.size();
  check_length(c, "nodes_modes", static_cast<size_t>(modes->shape.elements()), count);
  check_length(c, "nodes_truenodeids", true_ids.size(), count);
  check_length(c, "nodes_falsenodeids", false_ids.size(), count);
  check_length(c, "nodes_trueleafs", true_leafs.size(), count);
  check_length(c, "nodes_falseleafs", false_leafs.size(), count);
  check_length(c, "nodes_featureids", features.size(), count);
  check_length(c, "leaf_targetids", leaf_targets.size(), weights.size());
  if (!tracks.empty()) check_length(c, "nodes_missing_value_tracks_true", tracks.size(), count);
  for (int64_t root : source.roots) {
    if (root < 0 || root >= static_cast<int64_t>(count)) c.fail(cat("tree root ", root, " is out of range"));
  }

  // Leaf j becomes node count + j; the links of a set membership (x is one of v0, v1...) follow behind.
  source.nodes.resize(count + weights.size());
  const auto kid = [&](int64_t id, int64_t leaf) {
    const auto limit = static_cast<int64_t>(leaf != 0 ? weights.size() : count);
    if (id < 0 || id >= limit) c.fail(cat("names ", leaf != 0 ? "leaf " : "node ", id, " of ", limit));
    return leaf != 0 ? static_cast<int64_t>(count) + id : id;
  };
  constexpr uint8_t kMember = 6;
  size_t next_member = 0;
  for (size_t i = 0; i < count; ++i) {
    typename TreeSource<T>::Node node;
    const uint8_t mode = modes->as<uint8_t>()[i];
    if (mode > kMember) c.fail(cat("node mode ", static_cast<int>(mode), " is not known"));
    node.mode = mode == kMember ? TreeMode::kEq : static_cast<TreeMode>(mode);
    node.nan_true = !tracks.empty() && tracks[i] != 0;
    node.feature = features[i];
    node.value = splits[i];
    node.true_kid = kid(true_ids[i], true_leafs[i]);
    node.false_kid = kid(false_ids[i], false_leafs[i]);
    if (mode != kMember) {
      source.nodes[i] = node;
      continue;
    }
    const int64_t otherwise = node.false_kid;
    size_t at = i;
    node.value = std::numeric_limits<T>::quiet_NaN();  // equal to nothing, should the set be empty
    for (; next_member < members.size() && !std::isnan(members[next_member]); ++next_member) {
      if (!std::isnan(node.value)) {
        node.false_kid = static_cast<int64_t>(source.nodes.size());
        source.nodes[at] = node;
        at = source.nodes.size();
        source.nodes.emplace_back();
      }
      node.value = members[next_member];
    }
    ++next_member;  // the NaN between sets
    node.false_kid = otherwise;
    source.nodes[at] = node;
  }
  for (size_t j = 0; j < weights.size(); ++j) {
    source.weights.push_back({static_cast<int64_t>(count + j), leaf_targets[j], weights[j]});
  }
  return source;
}

#define INFERKIT_INSTANTIATE(T)                                                          \
  template std::vector<T> tree_values<T>(const NodeContext&, const std::string&);        \
  template TreeSource<T> read_trees<T>(const NodeContext&, const std::string&, int64_t); \
  template TreeSource<T> read_trees5<T>(const NodeContext&);
INFERKIT_INSTANTIATE(float)
INFERKIT_INSTANTIATE(double)
#undef INFERKIT_INSTANTIATE

}  // namespace inferkit::ml
