// What a sequence of a run holds. A sequence never changes: with one tensor more it is another, which shares most of
// its memory with the one before, so that a loop may append without copying all that it has so far.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// Tensors in blocks. An insertion copies one block and the list of blocks, each some hundreds of entries for a
/// sequence of tens of thousands.
class TensorItems {
 public:
  TensorItems() = default;
  explicit TensorItems(std::vector<Tensor> items);

  size_t size() const { return blocks_.empty() ? 0 : blocks_.back().end; }
  bool empty() const { return size() == 0; }
  /// i < size().
  const Tensor& operator[](size_t i) const;

  /// With `value` in front of what stood at `at`; at <= size().
  TensorItems with(size_t at, Tensor value) const;
  /// Without what stood at `at`; at < size().
  TensorItems without(size_t at) const;

 private:
  using Items = std::vector<Tensor>;
  struct Block {
    std::shared_ptr<const Items> items;  // never empty
    size_t end = 0;                      // how many tensors there are up to its end
  };
  size_t block_of(size_t i) const;
  size_t begin_of(size_t block) const { return block == 0 ? 0 : blocks_[block - 1].end; }
  /// The blocks, but block `at` made of `items` instead, or `count` blocks from there.
  TensorItems replaced(size_t at, size_t count, std::vector<Items> items) const;

  std::vector<Block> blocks_;
};

/// A sequence, or an optional with nothing in it.
struct TensorList {
  bool none = false;
  bool any_type = false;  // it is empty, and its first tensor may be of any type
  TensorItems items;      // each owns its memory
};

}  // namespace inferkit
