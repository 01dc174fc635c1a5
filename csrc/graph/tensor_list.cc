#include "graph/tensor_list.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace inferkit {
namespace {

constexpr size_t kBlock = 256;

}  // namespace

TensorItems::TensorItems(std::vector<Tensor> items) {
  for (size_t begin = 0; begin < items.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, items.size());
    const auto at = [&](size_t i) { return std::make_move_iterator(items.begin() + static_cast<std::ptrdiff_t>(i)); };
    blocks_.push_back({std::make_shared<const Items>(at(begin), at(end)), end});
  }
}

size_t TensorItems::block_of(size_t i) const {
  const auto it = std::ranges::upper_bound(blocks_, i, {}, &Block::end);
  return static_cast<size_t>(it - blocks_.begin());
}

const Tensor& TensorItems::operator[](size_t i) const {
  const size_t block = block_of(i);
  return (*blocks_[block].items)[i - begin_of(block)];
}

TensorItems TensorItems::replaced(size_t at, size_t count, std::vector<Items> items) const {
  TensorItems out;
  out.blocks_.reserve(blocks_.size() + items.size());
  out.blocks_.assign(blocks_.begin(), blocks_.begin() + static_cast<std::ptrdiff_t>(at));
  for (Items& block : items) {
    const size_t end = out.size() + block.size();
    out.blocks_.push_back({std::make_shared<const Items>(std::move(block)), end});
  }
  for (size_t i = at + count; i < blocks_.size(); ++i) {
    const size_t end = out.size() + blocks_[i].items->size();
    out.blocks_.push_back({blocks_[i].items, end});
  }
  return out;
}

TensorItems TensorItems::with(size_t at, Tensor value) const {
  std::vector<Items> made(1);
  if (at == size() && (blocks_.empty() || blocks_.back().items->size() == kBlock)) {
    made[0].push_back(std::move(value));
    return replaced(blocks_.size(), 0, std::move(made));
  }
  const size_t block = at == size() ? blocks_.size() - 1 : block_of(at);
  const Items& from = *blocks_[block].items;
  Items& to = made[0];
  to.reserve(from.size() + 1);
  const auto middle = from.begin() + static_cast<std::ptrdiff_t>(at - begin_of(block));
  to.assign(from.begin(), middle);
  to.push_back(std::move(value));
  to.insert(to.end(), middle, from.end());
  if (to.size() > kBlock) {
    const auto half = to.begin() + static_cast<std::ptrdiff_t>(to.size() / 2);
    Items second(std::make_move_iterator(half), std::make_move_iterator(to.end()));
    to.erase(half, to.end());
    made.push_back(std::move(second));
  }
  return replaced(block, 1, std::move(made));
}

TensorItems TensorItems::without(size_t at) const {
  const size_t block = block_of(at);
  Items left = *blocks_[block].items;
  left.erase(left.begin() + static_cast<std::ptrdiff_t>(at - begin_of(block)));
  // Neighbours with little in them become one, or what is erased here and there would leave a block for each tensor.
  const auto fits = [&](size_t other) { return left.size() + blocks_[other].items->size() <= kBlock / 2; };
  size_t first = block, count = 1;
  if (block + 1 < blocks_.size() && fits(block + 1)) {
    const Items& next = *blocks_[block + 1].items;
    left.insert(left.end(), next.begin(), next.end());
    count = 2;
  } else if (block > 0 && fits(block - 1)) {
    const Items& last = *blocks_[block - 1].items;
    left.insert(left.begin(), last.begin(), last.end());
    first = block - 1;
    count = 2;
  }
  std::vector<Items> made;
  if (!left.empty()) made.push_back(std::move(left));
  return replaced(first, count, std::move(made));
}

}  // namespace inferkit
