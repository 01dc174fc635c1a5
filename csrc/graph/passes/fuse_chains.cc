#include <algorithm>
#include <array>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

constexpr int kFarthest = 64;  // nodes that lie between the first and the last
constexpr std::array kArithmetic = {"Add", "Sub", "Mul", "Div"};
constexpr std::array kCurves = {"Relu", "Sigmoid", "Tanh"};

/// One node of a chain: what it reads is one of the chain's values, or a number.
struct Link {
  int node = -1;
  std::array<ValueId, 2> reads = {kNoValue, kNoValue};  // kNoValue: a number, or nothing
  std::array<float, 2> numbers = {};                    // of Clip: its bounds
  int64_t rank = 0;                                     // of the numbers, at most
};

/// A constant of one element that adds no dimensions to what it is combined with, but where that has none itself.
std::optional<float> number(const Rewriter& r, ValueId id) {
  const Tensor* const t = r.f32_constant(id);
  return t && t->shape.rank() <= 1 ? r.f32_scalar(id) : std::nullopt;
}
int64_t rank_of(const Rewriter& r, ValueId id) { return static_cast<int64_t>(r.f32_constant(id)->shape.rank()); }

/// Node n as a link, where it can be one.
std::optional<Link> link_of(const Rewriter& r, int n) {
  const Node& node = r.node(n);
  if (!node.domain.empty() || node.outputs.size() != 1 || node.outputs[0] == kNoValue) return std::nullopt;
  const auto is_among = [&](const auto& names) { return std::ranges::find(names, node.op_type) != names.end(); };
  Link link{.node = n};
  if (is_among(kCurves)) {
    if (node.inputs.size() != 1) return std::nullopt;
    link.reads[0] = node.inputs[0];
  } else if (node.op_type == "Clip") {
    if (node.version < 11 || node.inputs.size() != 3) return std::nullopt;
    const auto low = number(r, node.inputs[1]), high = number(r, node.inputs[2]);
    if (!low || !high || !(*low <= *high)) return std::nullopt;
    link.reads[0] = node.inputs[0];
    link.numbers = {*low, *high};
  } else if (is_among(kArithmetic) && node.version >= 7 && node.inputs.size() == 2) {
    for (size_t i = 0; i < 2; ++i) {
      if (const auto value = number(r, node.inputs[i])) {
        link.numbers[i] = *value;
        link.rank = std::max(link.rank, rank_of(r, node.inputs[i]));
      } else {
        link.reads[i] = node.inputs[i];
      }
    }
  }
  if (link.reads[0] == kNoValue && link.reads[1] == kNoValue) return std::nullopt;
  return link;
}

/// The chain that begins with node n, as long as only its last value is read from outside.
std::vector<Link> chain_from(const Rewriter& r, int n) {
  const auto first = link_of(r, n);
  if (!first) return {};
  const ValueId x = first->reads[0] == kNoValue ? first->reads[1] : first->reads[0];
  std::vector<ValueId> values = {x};
  std::vector<Link> links;
  std::vector<int> unread = {0};  // of each value, the reads that no link of the chain makes
  const auto index_of = [&](ValueId id) { return std::ranges::find(values, id) - values.begin(); };
  size_t whole = 0;
  for (int m = n; m < std::min(r.size(), n + kFarthest) && links.size() < kMostChainLinks; ++m) {
    if (!r.alive(m)) continue;
    const auto link = link_of(r, m);
    if (!link) continue;
    bool inside = true, follows = m == n;
    for (const ValueId id : link->reads) {
      if (id == kNoValue) continue;
      const auto at = index_of(id);
      inside = inside && at < std::ssize(values);
      follows = follows || at > 0;
    }
    if (!inside || !follows) continue;
    for (const ValueId id : link->reads) {
      if (id != kNoValue) --unread[static_cast<size_t>(index_of(id))];
    }
    links.push_back(*link);
    values.push_back(r.node(m).outputs[0]);
    unread.push_back(r.reads(values.back()));
    if (std::all_of(unread.begin() + 1, unread.end() - 1, [](int reads) { return reads == 0; })) whole = links.size();
  }
  links.resize(whole);
  return links;
}

}  // namespace

bool fuse_chains(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (!r.alive(n)) continue;
    const std::vector<Link> links = chain_from(r, n);
    if (links.size() < 2) continue;
    const ValueId x = links[0].reads[0] == kNoValue ? links[0].reads[1] : links[0].reads[0];
    if (!r.is_f32(x) && !r.is_f32(r.node(links.back().node).outputs[0])) continue;
    std::vector<ValueId> values = {x};
    std::vector<std::string> ops;
    std::vector<int64_t> reads;
    std::vector<float> numbers;
    int64_t rank = 0;
    for (const Link& link : links) {
      ops.push_back(r.node(link.node).op_type);
      rank = std::max(rank, link.rank);
      for (size_t i = 0; i < 2; ++i) {
        const ValueId id = link.reads[i];
        reads.push_back(id == kNoValue ? -1 : std::ranges::find(values, id) - values.begin());
        numbers.push_back(link.numbers[i]);
      }
      values.push_back(r.node(link.node).outputs[0]);
    }
    const int last = links.back().node;
    Node chain;
    chain.op_type = "Chain";
    chain.domain = kInternalDomain;
    chain.name = r.node(last).name;
    chain.version = 1;
    chain.inputs = {x};
    chain.outputs = r.node(last).outputs;
    chain.attributes = {{"ops", ops}, {"reads", reads}, {"numbers", FloatList(numbers)}, {"rank", rank}};
    r.replace(last, std::move(chain));
    for (size_t i = links.size() - 1; i-- > 0;) r.remove(links[i].node);
  }
  bool changed = r.finish();
  for_each_subgraph(graph, [&](Graph& sub) { changed = fuse_chains(sub) || changed; });
  return changed;
}

}  // namespace inferkit
