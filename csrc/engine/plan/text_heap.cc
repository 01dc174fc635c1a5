#include "engine/plan/text_heap.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace inferkit {

std::string_view TextHeap::copy(std::string_view text) {
  char* to = allocate(text.size());
  if (!text.empty()) std::memcpy(to, text.data(), text.size());
  return {to, text.size()};
}

void TextHeap::grow(size_t bytes) {
  const size_t block = std::max(bytes, std::min(next_, left_));
  charge(block);
  blocks_[count_] = pool_.acquire(block, "strings");
  at_ = blocks_[count_++].as<char>();
  end_ = at_ + block;
  next_ = 2 * block;
}

void TextHeap::charge(size_t bytes) {
  if (bytes > left_ || count_ == kMostBlocks) {
    throw Error(
        ErrorCode::kValidation, Reason::kTooLarge,
        "the strings of the run take more bytes than it may: raise max_run_bytes of Model.load if that is meant");
  }
  left_ -= bytes;
}

void TextHeap::keep(std::shared_ptr<const void> owner, size_t bytes) {
  constexpr std::ptrdiff_t kLookedAt = 16;  // a loop goes through the same few plans
  const auto recent = std::min<std::ptrdiff_t>(kLookedAt, std::ssize(owners_));
  if (std::find(owners_.end() - recent, owners_.end(), owner) != owners_.end()) return;
  charge(bytes);
  owners_.push_back(std::move(owner));
}

}  // namespace inferkit
