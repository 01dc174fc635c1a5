// What a model derives from its constants once, for all of its plans: the one door to packed weights.
#pragma once
#include <map>
#include <memory>
#include <mutex>

#include "engine/compile/lower.h"
#include "engine/run/making.h"

namespace inferkit {

/// By key. Two plans that want the same weights must not pack them twice: who comes second waits for that one thing,
/// and for no other.
class PackedWeights final : public ModelCache {
 public:
  std::shared_ptr<const void> get(const PackedKey& key, const MakeFn& make, size_t bytes) override;
  size_t bytes() const;

  /// Around fork() alone.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  /// In the child, between them: who was making things is not here.
  void forget_making();

 private:
  struct Thing {
    std::shared_ptr<const void> value;
    std::shared_ptr<Making> making;  // null once the value is there
  };
  /// What the caller makes has come to this; null where it could not be made.
  void end(const PackedKey& key, Making& making, std::shared_ptr<const void> value, size_t bytes);

  mutable std::mutex mutex_;  // guards what follows; never held while something is made
  size_t bytes_ = 0;
  std::map<PackedKey, Thing> things_;
};

}  // namespace inferkit
