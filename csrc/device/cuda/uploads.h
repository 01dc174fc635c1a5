// Constants on a CUDA device.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "device/cuda/cuda_pool.h"
#include "memory/keyed_hash.h"

namespace inferkit {

/// Each constant once for all models of the process whose bytes are the same, wherever these lie in the host's memory.
/// Thread-safe.
class Uploads {
 public:
  /// A constant at its place in the host's memory. Whoever holds it keeps that place, too, as an execution's program
  /// does: so while it lives, nothing else can lie there.
  struct Constant {
    std::shared_ptr<const CudaBlock> block;
    std::byte* data() const { return block->data(); }
  };

  /// Both must outlive it.
  Uploads(CudaBackend& backend, CudaPool& pool) : backend_(backend), pool_(pool), hash_(KeyedHash::random_key()) {}
  std::shared_ptr<const Constant> get(const void* data, size_t bytes);
  /// Of all constants that are there.
  size_t bytes() const;
  /// That have been uploaded ever.
  uint64_t uploaded_bytes() const;

 private:
  static constexpr size_t kLeastLook = 64;

  /// Forgets constants that nobody holds any more, whenever there are twice as many as last time: a model with many is
  /// not looked through for each of them.
  void drop_expired_locked();

  CudaBackend& backend_;
  CudaPool& pool_;
  const KeyedHash hash_;         // with a key that nobody knows: contents that differ have digests that do
  mutable std::mutex mutex_;     // held while a constant is read and uploaded, so that nobody does that a second time
  size_t look_at_ = kLeastLook;  // constants
  uint64_t uploaded_ = 0;        // bytes
  std::map<std::pair<const void*, size_t>, std::weak_ptr<const Constant>> by_place_;
  std::map<std::pair<Digest, size_t>, std::weak_ptr<const CudaBlock>> by_content_;
};

}  // namespace inferkit
