#include "device/cuda/uploads.h"

#include <algorithm>
#include <span>

namespace inferkit {

std::shared_ptr<const Uploads::Constant> Uploads::get(const void* data, size_t bytes) {
  const std::scoped_lock lock(mutex_);
  auto& here = by_place_[{data, bytes}];
  if (auto constant = here.lock()) return constant;
  const Digest digest = hash_.of_large({static_cast<const std::byte*>(data), bytes}, /*threads=*/1);
  auto& held = by_content_[{digest, bytes}];
  std::shared_ptr<const CudaBlock> block = held.lock();
  if (!block) {
    block = std::make_shared<const CudaBlock>(pool_.acquire_once(bytes, "weights"));
    if (bytes > 0) backend_.upload(block->data(), data, bytes);
    uploaded_ += bytes;
    held = block;
  }
  auto constant = std::make_shared<const Constant>(Constant{std::move(block)});
  here = constant;
  drop_expired_locked();
  return constant;
}

void Uploads::drop_expired_locked() {
  if (by_place_.size() < look_at_) return;
  const auto drop = [](auto& all) { std::erase_if(all, [](const auto& one) { return one.second.expired(); }); };
  drop(by_place_);
  drop(by_content_);
  look_at_ = std::max(kLeastLook, 2 * by_place_.size());
}

uint64_t Uploads::uploaded_bytes() const {
  const std::scoped_lock lock(mutex_);
  return uploaded_;
}

size_t Uploads::bytes() const {
  const std::scoped_lock lock(mutex_);
  size_t sum = 0;
  for (const auto& [key, block] : by_content_) sum += block.expired() ? 0 : key.second;
  return sum;
}

}  // namespace inferkit
