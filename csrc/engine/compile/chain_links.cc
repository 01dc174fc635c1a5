#include "engine/compile/chain_links.h"

#include <algorithm>

namespace inferkit {
namespace {

ChainLink::Op link_op(const NodeContext& c, std::string_view name) {
  using Op = ChainLink::Op;
  constexpr std::pair<std::string_view, Op> kOps[] = {
      {"Add", Op::kAdd},   {"Sub", Op::kSub},   {"Mul", Op::kMul},   {"Div", Op::kDiv},
      {"Relu", Op::kRelu}, {"Clip", Op::kClip}, {"Tanh", Op::kTanh}, {"Sigmoid", Op::kSigmoid}};
  const auto found = std::ranges::find(kOps, name, &std::pair<std::string_view, Op>::first);
  if (found == std::end(kOps)) c.fail(cat("a chain has no ", name));
  return found->second;
}

}  // namespace

std::vector<ChainLink> chain_links(const NodeContext& c) {
  const auto ops = c.attr_strings("ops");
  const auto reads = c.attr_ints("reads");
  const auto numbers = c.attr_floats("numbers");
  if (ops.empty() || ops.size() > kMostChainLinks || reads.size() != 2 * ops.size() || numbers.size() != reads.size())
    c.fail("its operators and what they read do not fit each other");
  // The last operator that reads each value, which are x and then what each of them gives.
  std::vector<size_t> last_read(ops.size() + 1);
  for (size_t i = 0; i < reads.size(); ++i) {
    if (reads[i] >= 0) last_read[static_cast<size_t>(reads[i])] = i / 2;
  }
  std::vector<ChainLink> links(ops.size());
  std::vector<int> where(ops.size() + 1, ChainLink::kX);
  bool used[kChainRegisters] = {};
  for (size_t i = 0; i < ops.size(); ++i) {
    ChainLink& link = links[i];
    const auto place = [&](int64_t read) { return read < 0 ? ChainLink::kNumber : where[static_cast<size_t>(read)]; };
    link.a = place(reads[2 * i]);
    link.b = place(reads[2 * i + 1]);
    std::copy_n(numbers.begin() + static_cast<std::ptrdiff_t>(2 * i), 2, link.numbers);
    link.op = link_op(c, ops[i]);
    for (size_t v = 1; v <= i; ++v) {  // who was read for the last time leaves its register, to this result at once
      if (where[v] < 0 || last_read[v] > i) continue;
      used[where[v]] = false;
      where[v] = ChainLink::kNumber;  // nobody's any more
    }
    if (i + 1 == ops.size()) break;
    const auto free = std::find(std::begin(used), std::end(used), false);
    if (free == std::end(used)) c.fail("it holds too many values at once");
    *free = true;
    link.to = where[i + 1] = static_cast<int>(free - std::begin(used));
  }
  return links;
}

}  // namespace inferkit
