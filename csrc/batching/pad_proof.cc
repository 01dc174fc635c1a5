#include "batching/pad_proof.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/text.h"
#include "batching/row_sink.h"
#include "platform/aligned_alloc.h"

namespace inferkit {

// What is known

/// Null where that model is gone.
PadProof::Known* PadProof::of(uint64_t generation) {
  if (generation < generation_) return nullptr;
  if (generation > generation_) known_ = {};
  generation_ = generation;
  return &known_;
}

PadProof::Look PadProof::look(uint64_t generation, int64_t length) const {
  const MutexLock lock(mutex_);
  if (generation < generation_) return {};
  if (generation > generation_) return {.apart = false};
  const auto at = known_.passed.find(length);
  const int passed = at == known_.passed.end() ? 0 : at->second;
  return {.apart = !known_.refusal.empty() || passed == kNever,
          .wants = !known_.follows || (passed >= 0 && passed < kSamples),
          .follows = known_.follows};
}

std::string PadProof::refusal(uint64_t generation) const {
  const MutexLock lock(mutex_);
  return generation == generation_ ? known_.refusal : std::string();
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
  int& count = known->passed[length];
  if (count >= 0 && count < kSamples) ++count;
}

void PadProof::cannot_run(uint64_t generation, int64_t length) {
  const MutexLock lock(mutex_);
  if (Known* known = of(generation)) known->passed[length] = kNever;
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

// Trying it out

namespace {

/// Small numbers that are the same on every machine.
struct Draws {
  uint64_t state;
  uint64_t next() {  // SplitMix64
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
};

template <class T>
void put(std::byte* to, size_t index, T value) {
  std::memcpy(to + index * sizeof value, &value, sizeof value);
}

/// Values that most models can run on: floats between -1 and 1; of all else zeros and ones, which are words, kinds of
/// words and masks. The first place has something else than the padding, so that no mask leaves out everything.
void make_up(DType dtype, size_t count, const PaddedInput* padded, Draws& draws, std::byte* to) {
  const bool ones_pad = padded && std::ranges::any_of(padded->element, [](std::byte b) { return b != std::byte{0}; });
  for (size_t i = 0; i < count; ++i) {
    const uint64_t draw = draws.next();
    const double real = double(draw >> 11) * 0x1p-52 - 1;
    const int bit = i == 0 ? (ones_pad ? 0 : 1) : static_cast<int>(draw >> 63);
    switch (dtype) {
      case DType::kF32:
        put(to, i, static_cast<float>(real));
        break;
      case DType::kF64:
        put(to, i, real);
        break;
      case DType::kF16:
        put(to, i, to_half(static_cast<float>(real)));
        break;
      case DType::kBF16:
        put(to, i, to_bfloat16(static_cast<float>(real)));
        break;
      case DType::kI16:
      case DType::kU16:
        put(to, i, static_cast<int16_t>(bit));
        break;
      case DType::kI32:
      case DType::kU32:
        put(to, i, static_cast<int32_t>(bit));
        break;
      case DType::kI64:
      case DType::kU64:
        put(to, i, static_cast<int64_t>(bit));
        break;
      case DType::kString:
        put(to, i, std::string_view());
        break;
      default:
        put(to, i, static_cast<uint8_t>(bit));
    }
  }
}

/// Three rows of which each begins with a request of its own length, filled up.
class Trial {
 public:
  Trial(Runner& runner, BufferPool& pool, const Padding& padding, std::span<const Shape> rows)
      : runner_(runner), pool_(pool), padding_(padding), rows_(rows.begin(), rows.end()) {
    for (Shape& row : rows_) {
      for (int64_t& dim : std::span(&row[0], row.rank())) dim = dim == Shape::kFree ? 2 : dim;
    }
  }

  /// "" where nothing speaks against it.
  std::string at(int64_t padded) {
    // The shortest, what just needs that length, the middle, and all but one place.
    std::vector<int64_t> lengths;
    int64_t before = 0;
    for (const int64_t length : padding_.lengths(padded - 1)) {
      if (length < padded) before = length;
    }
    for (const int64_t length : {int64_t{1}, before + 1, (padded + 1) / 2, padded - 1}) {
      if (length >= 1 && length < padded && std::ranges::find(lengths, length) == lengths.end())
        lengths.push_back(length);
    }
    if (lengths.empty()) return {};
    const auto count = static_cast<int64_t>(lengths.size()) + 1;  // one has nothing to fill up
    const size_t inputs = rows_.size();
    std::vector<Buffer> together(inputs);
    for (size_t i = 0; i < inputs; ++i) {
      const DType dtype = runner_.inputs()[i].dtype;
      const size_t bytes = row_bytes(i, padded);
      const bool shared = runner_.inputs()[i].shape.empty();
      together[i] = pool_.acquire(std::max<size_t>(1, bytes * static_cast<size_t>(shared ? 1 : count)), "batch input");
      for (int64_t row = 0; row < (shared ? 1 : count); ++row) {
        const int64_t length = row + 1 < count ? lengths[static_cast<size_t>(row)] : padded;
        std::byte* const to = together[i].data() + bytes * static_cast<size_t>(row);
        const Buffer own = pool_.acquire(std::max<size_t>(1, row_bytes(i, length)), "batch input");
        const bool pads = padding_.pads(i);
        make_up(dtype, row_bytes(i, length) / dtype_size(dtype), pads ? &padding_.input(i) : nullptr, draws_,
                own.data());
        if (pads) {
          fill_up(padding_.input(i), dtype, row_shape(i, padded), 1, length, own.data(), to);
        } else {
          std::memcpy(to, own.data(), bytes);
        }
      }
    }
    PooledSink all(runner_.outputs(), pool_), one(runner_.outputs(), pool_);
    std::string why;
    for (size_t row = 0; row < lengths.size(); ++row) {
      if (!run(one, together, 1, static_cast<int64_t>(row), lengths[row], padded)) return {};
      if (row == 0 && !run(all, together, count, 0, padded, padded)) return {};
      const PadSample sample{runner_.outputs(), one.views(), all.views(),
                             lengths[row],      padded,      static_cast<int64_t>(row)};
      if (!follows_of(sample, why) || !is_same(sample, why)) return why;
    }
    return {};
  }

 private:
  Shape row_shape(size_t input, int64_t length) const {
    Shape row = rows_[input];
    if (padding_.pads(input)) row[padding_.input(input).axis - 1] = length;
    return row;
  }
  size_t row_bytes(size_t input, int64_t length) const {
    return static_cast<size_t>(row_shape(input, length).elements()) * dtype_size(runner_.inputs()[input].dtype);
  }

  /// Runs `count` rows from `first` on, cut back to `length`. Whether that went well.
  bool run(PooledSink& sink, std::span<const Buffer> rows, int64_t count, int64_t first, int64_t length,
           int64_t padded) {
    std::vector<TensorView> views;
    std::vector<Buffer> own;
    for (size_t i = 0; i < rows.size(); ++i) {
      const PortSpec& port = runner_.inputs()[i];
      Shape shape = row_shape(i, padded);
      if (port.shape.empty()) {
        views.push_back({port.dtype, shape, rows[i].data()});
        continue;
      }
      shape.insert(0, count);
      const size_t bytes = row_bytes(i, padded) * static_cast<size_t>(count);
      Buffer& copy = own.emplace_back(pool_.acquire(std::max<size_t>(1, bytes), "batch input"));
      std::memcpy(copy.data(), rows[i].data() + row_bytes(i, padded) * static_cast<size_t>(first), bytes);
      if (padding_.pads(i) && length != padded) {
        const auto axis = static_cast<Axes>(1u << padding_.input(i).axis);
        cut_back(copy.data(), shape, axis, length, dtype_size(port.dtype));
        shape = cut_shape(shape, axis, length);
      }
      views.push_back({port.dtype, shape, copy.data()});
    }
    sink.prepare(count);
    const bool well = runner_.run(views, sink).ok() && sink.complete().ok();
    if (well) kept_.push_back(sink.take());  // what its views show
    return well;
  }

  Runner& runner_;
  BufferPool& pool_;
  const Padding& padding_;
  std::vector<Shape> rows_;
  Draws draws_{1};
  std::vector<IntrusivePtr<BatchOutputs>> kept_;
};

}  // namespace

std::string try_padding(Runner& runner, BufferPool& pool, const Padding& padding, std::span<const Shape> rows,
                        std::span<const int64_t> lengths) {
  for (const int64_t length : lengths) {
    if (std::string why = Trial(runner, pool, padding, rows).at(length); !why.empty()) return why;
  }
  return {};
}

}  // namespace inferkit
