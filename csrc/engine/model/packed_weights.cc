#include "engine/model/packed_weights.h"

#include <algorithm>

namespace inferkit {
namespace {

/// But for what it was made of: numbers of constants mean nothing to another load.
PackedName name_of(const PackedKey& key) { return {{}, key.kind, static_cast<uint64_t>(key.precision), key.tier}; }

}  // namespace

std::shared_ptr<const void> PackedWeights::get(const PackedKey& key, const MakeFn& make, size_t bytes) {
  return get(key, make, bytes, {});
}

std::shared_ptr<const void> PackedWeights::get_bytes(const PackedKey& key, std::span<const Tensor* const> from,
                                                     const MakeFn& make, size_t bytes) {
  const bool plain = std::ranges::none_of(from, [](const Tensor* t) { return t->dtype == DType::kString; });
  if (bytes < kLeastShared || !plain) return get(key, make, bytes, {});
  std::vector<Tensor> sources;
  for (const Tensor* t : from) sources.push_back(*t);
  const auto find_or_make = [&] {
    auto found = find_shared(key, sources, bytes);
    return found ? found : make();
  };
  return get(key, find_or_make, bytes, sources);
}

/// What lies in one of the model's files, at an odd address, too, is known by its place and not copied.
std::span<const std::byte> PackedWeights::source_of(const Tensor& t) const {
  const std::byte* place = t.data.place();
  return {model_.find(place) ? place : static_cast<const std::byte*>(t.data), t.bytes()};
}

std::shared_ptr<const void> PackedWeights::find_shared(const PackedKey& key, std::span<const Tensor> from,
                                                       size_t bytes) const {
  if (!shared_) return nullptr;
  PackedName name = name_of(key);
  for (const Tensor& t : from) {
    name.from.push_back(packed_source(source_of(t), model_, shared_->hash(), /*with_digest=*/false, threads_));
  }
  const std::byte* found = shared_->find(name, bytes);
  return found ? std::shared_ptr<const void>(shared_->file(), found) : nullptr;
}

std::shared_ptr<const void> PackedWeights::get(const PackedKey& key, const MakeFn& make, size_t bytes,
                                               std::vector<Tensor> from) {
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
    end(key, *own, {});
    throw;
  }
  end(key, *own, {value, nullptr, bytes, std::move(from)});
  return value;
}

void PackedWeights::end(const PackedKey& key, Making& making, Thing made) {
  {
    const std::scoped_lock lock(mutex_);
    const auto it = things_.find(key);
    if (made.value) {
      const auto region = shared_ ? shared_->file()->bytes() : std::span<const std::byte>();
      const auto* at = static_cast<const std::byte*>(made.value.get());
      const bool in_file = !std::less<>()(at, region.data()) && std::less<>()(at, region.data() + region.size());
      bytes_ += made.bytes;
      if (in_file) shared_bytes_ += made.bytes;
      it->second = std::move(made);
    } else {
      things_.erase(it);
    }
  }
  making.end();
}

void PackedWeights::save(const std::string& path, mode_t mode, const PackedTag& tag) const {
  std::vector<PackedPiece> pieces;
  std::vector<Thing> held;  // what the pieces are views of
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [key, thing] : things_) {
      if (thing.making || thing.from.empty()) continue;
      held.push_back(thing);
      pieces.push_back({name_of(key), {}, {static_cast<const std::byte*>(thing.value.get()), thing.bytes}});
    }
  }
  for (size_t i = 0; i < held.size(); ++i) {
    for (const Tensor& t : held[i].from) pieces[i].from.push_back(source_of(t));
  }
  MappedFiles others;
  if (shared_) others.add(shared_->file());
  write_packed_file(path, mode, tag, model_, others, pieces, threads_);
}

size_t PackedWeights::bytes() const {
  const std::scoped_lock lock(mutex_);
  return bytes_;
}

size_t PackedWeights::shared_bytes() const {
  const std::scoped_lock lock(mutex_);
  return shared_bytes_;
}

void PackedWeights::forget_making() {
  std::erase_if(things_, [](const auto& entry) { return entry.second.making != nullptr; });
}

}  // namespace inferkit
