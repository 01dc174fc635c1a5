#include "batching/pad_trial.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "batching/pad_proof.h"
#include "batching/row_sink.h"
#include "platform/run_control.h"

namespace inferkit {
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

/// The floats of a request. A maximum without a mask gives the padding away only where all else is below it.
enum class Sign : uint8_t { kNegative, kPositive, kBoth };

/// Values that most models can run on: floats between -1 and 1; of all else zeros and ones, which are words, kinds of
/// words and masks. The first place has something else than the padding, so that no mask leaves out everything.
void make_up(DType dtype, Sign sign, size_t count, const PaddedInput* padded, Draws& draws, std::byte* to) {
  const bool ones_pad = padded && std::ranges::any_of(padded->element, [](std::byte b) { return b != std::byte{0}; });
  for (size_t i = 0; i < count; ++i) {
    const uint64_t draw = draws.next();
    const double both = double(draw >> 11) * 0x1p-52 - 1;
    const double real = sign == Sign::kBoth ? both : sign == Sign::kPositive ? std::abs(both) : -std::abs(both);
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

/// A request of one row.
struct MadeUp {
  int64_t length;
  Sign sign;
};

/// Of one length that is padded to: requests that are shorter, each of a length of its own, filled up.
class Trial {
 public:
  Trial(Runner& runner, BufferPool& pool, const Padding& padding, std::span<const Shape> rows, int64_t padded,
        AsksToStop asks_to_stop)
      : runner_(runner),
        pool_(pool),
        padding_(padding),
        padded_(padded),
        asks_to_stop_(asks_to_stop),
        rows_(rows.begin(), rows.end()),
        draws_{static_cast<uint64_t>(padded)} {
    for (Shape& row : rows_) {
      for (int64_t& dim : std::span(&row[0], row.rank())) dim = dim == Shape::kFree ? 2 : dim;
    }
  }

  /// "" where nothing speaks against it.
  std::string run(TrialLimits limits) {
    const int64_t most = std::min(limits.rows, rows_within(limits));
    if (most < 1) return {};  // nor has any batch of theirs room
    const std::vector<MadeUp> requests = made_up();
    for (size_t first = 0; first < requests.size();) {
      const size_t count = std::min(requests.size() - first, static_cast<size_t>(most));
      if (std::string why = compare(std::span(requests).subspan(first, count)); !why.empty()) return why;
      first += count;
    }
    return {};
  }

 private:
  /// How many padded rows a batch has room for.
  int64_t rows_within(TrialLimits limits) const {
    constexpr int64_t kMostRowBytes = int64_t{1} << 56;  // of a row: that of no machine
    int64_t largest = 1;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const auto elements = row_shape(i, padded_).checked_elements();
      if (!elements || *elements > kMostRowBytes / static_cast<int64_t>(dtype_size(runner_.inputs()[i].dtype))) {
        throw std::invalid_argument(cat("input ", quote(runner_.inputs()[i].name), " would have a shape of ",
                                        row_shape(i, padded_).str(), " once it is padded to ", padded_,
                                        ", which is more than any memory holds: give smaller lengths as pad_to"));
      }
      if (!runner_.inputs()[i].shape.empty()) largest = std::max(largest, *elements);
    }
    return limits.elements ? limits.elements / largest : kMostRows;
  }

  /// The shortest, what just needs that length, all but one place, and some between; of both signs. Last, one that has
  /// nothing to fill up, as company.
  std::vector<MadeUp> made_up() const {
    int64_t before = 0;
    for (const int64_t length : padding_.lengths(padded_ - 1)) {
      if (length < padded_) before = length;
    }
    std::vector<MadeUp> out;
    constexpr std::array kSigns{Sign::kNegative, Sign::kPositive, Sign::kBoth};
    const auto add = [&](int64_t length) { out.push_back({length, kSigns[out.size() % kSigns.size()]}); };
    for (const int64_t length : {int64_t{1}, padded_ - 1, (padded_ + 1) / 2, before + 1, padded_ / 4}) {
      const auto same = [&](const MadeUp& request) { return request.length == length; };
      if (length >= 1 && length < padded_ && std::ranges::none_of(out, same)) add(length);
    }
    if (out.empty()) return out;
    while (out.size() < kSigns.size()) add(padded_ - 1);
    out.push_back({padded_, Sign::kBoth});
    return out;
  }

  /// Runs them in one batch, and each by itself.
  std::string compare(std::span<const MadeUp> requests) {
    const auto count = static_cast<int64_t>(requests.size());
    std::vector<Buffer> together(rows_.size());
    for (size_t i = 0; i < rows_.size(); ++i) {
      const bool shared = runner_.inputs()[i].shape.empty();
      const size_t bytes = row_bytes(i, padded_);
      together[i] = pool_.acquire(std::max<size_t>(1, bytes * (shared ? 1 : requests.size())), "batch input");
      for (size_t row = 0; row < (shared ? 1 : requests.size()); ++row) {
        put(i, requests[row], together[i].data() + bytes * row);
      }
    }
    PooledSink all(runner_.outputs(), pool_), one(runner_.outputs(), pool_);
    const bool at_once = run(all, together, count, 0, padded_);
    for (size_t row = 0; row < requests.size(); ++row) {
      const auto place = static_cast<int64_t>(row);
      const int64_t length = requests[row].length;
      if (length == padded_) continue;
      if (!run(one, together, 1, place, length)) continue;               // no request of that length is answered
      if (!at_once && !run(all, together, 1, place, padded_)) continue;  // one of the others may be to blame
      const PadSample sample{runner_.outputs(), one.views(), all.views(), length, padded_, at_once ? place : 0};
      std::string why;
      if (!follows_of(sample, why) || !is_same(sample, why)) return why;
    }
    return {};
  }

  void put(size_t input, const MadeUp& request, std::byte* to) {
    const DType dtype = runner_.inputs()[input].dtype;
    const size_t bytes = row_bytes(input, request.length);
    const Buffer own = pool_.acquire(std::max<size_t>(1, bytes), "batch input");
    const PaddedInput* padded = padding_.pads(input) ? &padding_.input(input) : nullptr;
    make_up(dtype, request.sign, bytes / dtype_size(dtype), padded, draws_, own.data());
    if (padded) {
      fill_up(*padded, dtype, row_shape(input, padded_), 1, request.length, own.data(), to);
    } else {
      std::memcpy(to, own.data(), bytes);
    }
  }

  Shape row_shape(size_t input, int64_t length) const {
    Shape row = rows_[input];
    if (padding_.pads(input)) row[padding_.input(input).axis - 1] = length;
    return row;
  }
  size_t row_bytes(size_t input, int64_t length) const {
    return static_cast<size_t>(row_shape(input, length).elements()) * dtype_size(runner_.inputs()[input].dtype);
  }

  /// Runs `count` rows from `first` on, cut back to `length`. Whether that went well.
  bool run(PooledSink& sink, std::span<const Buffer> rows, int64_t count, int64_t first, int64_t length) {
    std::vector<TensorView> views;
    std::vector<Buffer> own;
    for (size_t i = 0; i < rows.size(); ++i) {
      const PortSpec& port = runner_.inputs()[i];
      Shape shape = row_shape(i, padded_);
      if (port.shape.empty()) {
        views.push_back({port.dtype, shape, rows[i].data()});
        continue;
      }
      shape.insert(0, count);
      const size_t bytes = row_bytes(i, padded_) * static_cast<size_t>(count);
      Buffer& copy = own.emplace_back(pool_.acquire(std::max<size_t>(1, bytes), "batch input"));
      std::memcpy(copy.data(), rows[i].data() + row_bytes(i, padded_) * static_cast<size_t>(first), bytes);
      if (padding_.pads(i) && length != padded_) {
        const auto axis = static_cast<Axes>(1u << padding_.input(i).axis);
        cut_back(copy.data(), shape, axis, length, dtype_size(port.dtype));
        shape = cut_shape(shape, axis, length);
      }
      views.push_back({port.dtype, shape, copy.data()});
    }
    RunControl::check();
    sink.prepare(count);
    Status status = runner_.run(views, sink);
    RunControl::check();
    if (status.ok()) return sink.complete().ok();
    if (asks_to_stop_(status)) throw Error(std::move(status));
    return false;
  }

  static constexpr int64_t kMostRows = 64;  // far more than are made up

  Runner& runner_;
  BufferPool& pool_;
  const Padding& padding_;
  const int64_t padded_;
  const AsksToStop asks_to_stop_;
  std::vector<Shape> rows_;
  Draws draws_;
};

}  // namespace

std::string try_padding(Runner& runner, BufferPool& pool, const Padding& padding, std::span<const Shape> rows,
                        std::span<const int64_t> lengths, TrialLimits limits, AsksToStop asks_to_stop) {
  for (const int64_t length : lengths) {
    Trial trial(runner, pool, padding, rows, length, asks_to_stop);
    if (std::string why = trial.run(limits); !why.empty()) return why;
  }
  return {};
}

}  // namespace inferkit
