// What a model derives from its constants once, for all of its plans: the one door to packed weights.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/compile/lower.h"
#include "engine/run/making.h"
#include "memory/packed_file.h"

namespace inferkit {

/// By key. Two plans that want the same weights must not pack them twice: who comes second waits for that one thing,
/// and for no other. What a file of packed weights has is not packed.
class PackedWeights final : public ModelCache {
 public:
  /// Below that a file is not asked, and gets nothing: packing is faster.
  static constexpr size_t kLeastShared = size_t{16} << 10;

  PackedWeights() = default;
  /// `shared`, which may be null, was opened for a model of these files.
  PackedWeights(std::shared_ptr<const PackedFile> shared, MappedFiles model, int threads)
      : shared_(std::move(shared)), model_(std::move(model)), threads_(threads) {}

  std::shared_ptr<const void> get(const PackedKey& key, const MakeFn& make, size_t bytes) override;
  std::shared_ptr<const void> get_bytes(const PackedKey& key, std::span<const Tensor* const> from, const MakeFn& make,
                                        size_t bytes) override;
  size_t bytes() const;
  /// Of those, what lies in the file's pages.
  size_t shared_bytes() const;
  const std::shared_ptr<const PackedFile>& shared() const { return shared_; }

  /// Writes all packed weights that are worth it: see write_packed_file.
  void save(const std::string& path, mode_t mode, const PackedTag& tag) const;

  /// Around fork() alone.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  /// In the child, between them: who was making things is not here.
  void forget_making();

 private:
  struct Thing {
    std::shared_ptr<const void> value;
    std::shared_ptr<Making> making;  // null once the value is there
    size_t bytes = 0;
    std::vector<Tensor> from;  // what a file knows it by; empty where it goes to none
  };
  /// What the caller makes has come to this; null where it could not be made.
  void end(const PackedKey& key, Making& making, Thing made);
  std::shared_ptr<const void> get(const PackedKey& key, const MakeFn& make, size_t bytes, std::vector<Tensor> from);
  std::span<const std::byte> source_of(const Tensor& t) const;
  std::shared_ptr<const void> find_shared(const PackedKey& key, std::span<const Tensor> from, size_t bytes) const;

  const std::shared_ptr<const PackedFile> shared_;
  const MappedFiles model_{};
  const int threads_ = 1;
  mutable std::mutex mutex_;  // guards what follows; never held while something is made
  size_t bytes_ = 0, shared_bytes_ = 0;
  std::map<PackedKey, Thing> things_;
};

}  // namespace inferkit
