#include "engine/model/packed_weights.h"

namespace inferkit {

std::shared_ptr<const void> PackedWeights::get(const PackedKey& key, const MakeFn& make, size_t bytes) {
  const auto own = std::make_shared<Making>();
  for (;;) {
    std::shared_ptr<Making> others;
    {
      const std::scoped_lock lock(mutex_);
      const auto [it, mine] = things_.try_emplace(key);
      if (mine) {
        it->second.making = own;
        break;
      }
      if (!it->second.making) return it->second.value;
      others = it->second.making;
    }
    if (others->by_this_thread()) return make();
    others->wait();  // where it failed for them, we try
  }
  std::shared_ptr<const void> value;
  try {
    value = make();
    RunControl::check();  // what was stopped is half done
  } catch (...) {
    end(key, *own, nullptr, 0);
    throw;
  }
  end(key, *own, value, bytes);
  return value;
}

void PackedWeights::end(const PackedKey& key, Making& making, std::shared_ptr<const void> value, size_t bytes) {
  {
    const std::scoped_lock lock(mutex_);
    const auto it = things_.find(key);
    if (value) {
      it->second = {std::move(value), nullptr};
      bytes_ += bytes;
    } else {
      things_.erase(it);
    }
  }
  making.end();
}

size_t PackedWeights::bytes() const {
  const std::scoped_lock lock(mutex_);
  return bytes_;
}

void PackedWeights::forget_making() {
  std::erase_if(things_, [](const auto& entry) { return entry.second.making != nullptr; });
}

}  // namespace inferkit
