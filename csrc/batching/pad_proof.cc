#include "batching/pad_proof.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/text.h"

namespace inferkit {

// What is known

/// Null where that model is gone.
PadProof::Known* PadProof::of(uint64_t generation) {
  if (generation < generation_) return nullptr;
  if (generation > generation_) known_ = {};
  generation_ = generation;
  return &known_;
}

PadProof::Look PadProof::look(uint64_t generation, int64_t length, uint64_t batch) const {
  const MutexLock lock(mutex_);
  if (generation < generation_) return {};
  if (generation > generation_) return {.apart = false};
  const auto at = known_.lengths.find(length);
  if (at == known_.lengths.end()) return {.apart = !known_.refusal.empty(), .follows = known_.follows};
  const Length& of = at->second;
  return {.apart = !known_.refusal.empty() || !of.never.empty() || (batch && of.failed == batch),
          .wants = !known_.follows || of.passed < kSamples,
          .follows = known_.follows};
}

std::string PadProof::refusal(uint64_t generation) const {
  const MutexLock lock(mutex_);
  if (generation != generation_) return {};
  if (!known_.refusal.empty()) return known_.refusal;
  std::string lengths, why;
  for (const auto& [length, of] : known_.lengths) {
    if (of.never.empty()) continue;
    lengths += cat(lengths.empty() ? "" : ", ", length);
    if (why.empty()) why = of.never;
  }
  return lengths.empty() ? lengths : cat("no request is padded to the length ", lengths, ": ", why);
}

std::shared_ptr<const Follows> PadProof::learn(uint64_t generation, Follows follows) {
  auto kept = std::make_shared<const Follows>(std::move(follows));
  const MutexLock lock(mutex_);
  Known* known = of(generation);
  if (!known) return nullptr;
  if (!known->follows) known->follows = std::move(kept);
  return known->follows;
}

void PadProof::passed(uint64_t generation, int64_t length) {
  const MutexLock lock(mutex_);
  Known* known = of(generation);
  if (!known) return;
  Length& of = known->lengths[length];
  of.passed = std::min(of.passed + 1, kSamples);
  of.failed = 0;
}

void PadProof::cannot_run(uint64_t generation, int64_t length, uint64_t batch, const std::string& why) {
  std::string told = cat("the model failed at it twice, and ran those requests as they came: ", why);
  const MutexLock lock(mutex_);
  Known* known = of(generation);
  if (!known) return;
  Length& of = known->lengths[length];
  if (of.failed && of.failed != batch) of.never = std::move(told);
  of.failed = batch;
}

void PadProof::refuse(uint64_t generation, std::string why) {
  const MutexLock lock(mutex_);
  if (Known* known = of(generation)) known->refusal = std::move(why);
}

// Comparing

std::optional<Follows> follows_of(const PadSample& sample, std::string& why) {
  Follows out(sample.ports.size());
  for (size_t o = 0; o < out.size(); ++o) {
    const Shape &alone = sample.alone[o].shape, &together = sample.together[o].shape;
    bool fits = alone.rank() == together.rank();
    for (size_t axis = 1; fits && axis < alone.rank(); ++axis) {
      if (alone[axis] == together[axis]) continue;
      fits = alone[axis] == sample.length && together[axis] == sample.padded;
      out[o] = static_cast<Axes>(out[o] | 1u << axis);
    }
    if (!fits) {
      why = cat("output '", sample.ports[o].name, "' has the shape ", alone.str(), " for a request of length ",
                sample.length, " and ", together.str(), " for one padded to ", sample.padded,
                ": none of its axes has that length, so nobody knows how to cut it back");
      return std::nullopt;
    }
  }
  return out;
}

namespace {

bool is_same(DType dtype, const std::byte* a, const std::byte* b, size_t size) {
  if (dtype != DType::kString) return std::memcmp(a, b, size) == 0;
  return *reinterpret_cast<const std::string_view*>(a) == *reinterpret_cast<const std::string_view*>(b);
}

std::string text_of(DType dtype, const std::byte* at) {
  const auto read = [&]<class T>(T value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::kF32:
      return cat(read(float{}));
    case DType::kF64:
      return cat(read(double{}));
    case DType::kF16:
      return cat(to_float(read(Half{})));
    case DType::kBF16:
      return cat(to_float(read(BFloat16{})));
    case DType::kI64:
      return cat(read(int64_t{}));
    case DType::kI32:
      return cat(read(int32_t{}));
    default:
      return "another value";
  }
}

}  // namespace

bool is_same(const PadSample& sample, std::string& why) {
  for (size_t o = 0; o < sample.ports.size(); ++o) {
    const TensorView &alone = sample.alone[o], &together = sample.together[o];
    const size_t size = dtype_size(alone.dtype);
    if (alone.dtype != together.dtype || alone.shape[0] > together.shape[0] - sample.first_row) {
      why = cat("output '", sample.ports[o].name, "' has another type or number of rows");
      return false;
    }
    const auto strides = together.shape.strides();
    const auto* mine = static_cast<const std::byte*>(alone.data);
    const auto* theirs = static_cast<const std::byte*>(together.data);
    // Row by row of the last axis, the places of the others counted as an odometer does.
    const Shape& shape = alone.shape;
    const int64_t line = shape.rank() > 1 ? shape.back() : 1;
    const int64_t lines = line ? shape.elements() / line : 0;
    std::array<int64_t, Shape::kMaxRank> place{};
    for (int64_t l = 0; l < lines; ++l, mine += static_cast<size_t>(line) * size) {
      int64_t at = (place[0] + sample.first_row) * strides[0];
      for (size_t axis = 1; axis + 1 < shape.rank(); ++axis) at += place[axis] * strides[axis];
      const std::byte* other = theirs + static_cast<size_t>(at) * size;
      for (int64_t e = 0; e < line; ++e) {
        const std::byte *a = mine + static_cast<size_t>(e) * size, *b = other + static_cast<size_t>(e) * size;
        if (is_same(alone.dtype, a, b, size)) continue;
        why = cat("output '", sample.ports[o].name, "' of a request of length ", sample.length,
                  " is not the same once the request is padded to ", sample.padded, ": ", text_of(alone.dtype, a),
                  " alone, ", text_of(alone.dtype, b), " padded");
        return false;
      }
      for (size_t axis = shape.rank() > 1 ? shape.rank() - 1 : 1; axis-- > 0;) {
        if (++place[axis] < shape[axis]) break;
        place[axis] = 0;
      }
    }
  }
  return true;
}

}  // namespace inferkit
