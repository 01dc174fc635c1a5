#include "batching/pad_trial.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "base/scan.h"
#include "base/text.h"
#include "batching/layout.h"
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

/// Values of a request. A maximum without a mask gives the padding away only where all else is below it, and the least
/// of what is above a threshold only where all else is above that: each sign by itself, near zero and further out.
enum class Kind : uint8_t { kNegative, kPositive, kBoth, kLargeNegative, kLargePositive, kHugeNegative, kHugePositive };

bool is_usual(Kind kind) { return kind <= Kind::kBoth; }

/// Of the kind, by a number between -1 and 1. What is large is so in every place, between 8 and 16; what is huge, as a
/// pixel may be, between 128 and 255.
double real_of(Kind kind, double both) {
  const double size = std::abs(both);
  switch (kind) {
    case Kind::kNegative:
      return -size;
    case Kind::kPositive:
      return size;
    case Kind::kBoth:
      return both;
    case Kind::kLargeNegative:
      return -8 - 8 * size;
    case Kind::kLargePositive:
      return 8 + 8 * size;
    case Kind::kHugeNegative:
      return -128 - 127 * size;
    case Kind::kHugePositive:
      return 128 + 127 * size;
  }
  return both;
}

bool overflows(std::span<const TensorView> outputs) {
  return !std::ranges::all_of(outputs, [](const TensorView& out) { return !is_float(out.dtype) || all_finite(out); });
}

/// A word for the kind: of the usual ones 0 or 1.
int word_of(Kind kind, uint64_t draw) {
  if (is_usual(kind)) return static_cast<int>(draw >> 63);
  const bool huge = kind == Kind::kHugeNegative || kind == Kind::kHugePositive;
  return 2 + static_cast<int>((draw >> 32) % (huge ? 126 : 6));
}

/// Values that most models can run on: floats between -1 and 1; of all else zeros and ones, which are words, kinds of
/// words and masks. The first place has something else than the padding, so that no mask leaves out everything. Of a
/// kind that is not usual, models may fail at them.
void make_up(DType dtype, Kind kind, size_t count, const PaddedInput* padded, Draws& draws, std::byte* to) {
  const bool ones_pad = padded && std::ranges::any_of(padded->element, [](std::byte b) { return b != std::byte{0}; });
  for (size_t i = 0; i < count; ++i) {
    const uint64_t draw = draws.next();
    const double real = real_of(kind, double(draw >> 11) * 0x1p-52 - 1);
    const int word = i == 0 ? (ones_pad ? 0 : 1) : word_of(kind, draw);
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
        put(to, i, static_cast<int16_t>(word));
        break;
      case DType::kI32:
      case DType::kU32:
        put(to, i, static_cast<int32_t>(word));
        break;
      case DType::kI64:
      case DType::kU64:
        put(to, i, static_cast<int64_t>(word));
        break;
      case DType::kString:
        put(to, i, std::string_view());
        break;
      default:
        put(to, i, static_cast<uint8_t>(word));
    }
  }
}

/// A request of one row.
struct MadeUp {
  int64_t length;
  Kind kind;
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
        varied_(varied()),
        draws_{static_cast<uint64_t>(padded)} {
    for (size_t i = 0; i < rows_.size(); ++i) {
      Shape& row = rows_[i];
      const PortSpec& port = runner_.inputs()[i];
      if (is_shared(port) && !port.shape.empty()) row.insert(0, port.shape[0]);
      for (int64_t& dim : std::span(&row[0], row.rank())) dim = dim == Shape::kFree ? 2 : dim;
    }
  }

  /// "" where nothing speaks against it.
  std::string run(TrialLimits limits) {
    const int64_t room = std::min(limits.rows, rows_within(limits));
    if (room < 1) return {};  // nor has any batch of theirs room
    const bool brief = limits.brief && padded_ > kCheap;
    if (brief && largest_row() > kMostBrief) return {};
    const int64_t most = brief ? std::min<int64_t>(room, 2) : room;
    std::string why = compare_all(usual(brief), most);
    return why.empty() ? compare_all(unusual(brief), most) : why;
  }

 private:
  /// Elements of the largest input.
  int64_t largest_row() const {
    int64_t largest = 1;
    for (size_t i = 0; i < rows_.size(); ++i) {
      if (!is_shared(runner_.inputs()[i])) largest = std::max(largest, row_shape(i, padded_).elements());
    }
    return largest;
  }

  std::string compare_all(const std::vector<MadeUp>& requests, int64_t most) {
    for (size_t first = 0; first < requests.size();) {
      const size_t count = std::min(requests.size() - first, static_cast<size_t>(most));
      if (std::string why = compare(std::span(requests).subspan(first, count)); !why.empty()) return why;
      first += count;
    }
    return {};
  }

  /// How many padded rows a batch has room for.
  int64_t rows_within(TrialLimits limits) const {
    constexpr int64_t kMostRowBytes = int64_t{1} << 56;  // of a row: that of no machine
    for (size_t i = 0; i < rows_.size(); ++i) {
      const auto elements = row_shape(i, padded_).checked_elements();
      if (!elements || *elements > kMostRowBytes / static_cast<int64_t>(dtype_size(runner_.inputs()[i].dtype))) {
        throw std::invalid_argument(cat("input ", quote(runner_.inputs()[i].name), " would have a shape of ",
                                        row_shape(i, padded_).str(), " once it is padded to ", padded_,
                                        ", which is more than any memory holds: give smaller lengths as pad_to"));
      }
    }
    return limits.elements ? limits.elements / largest_row() : kMostRows;
  }

  /// The shortest, what just needs that length, all but one place, and some between; of both signs. Last, one that has
  /// nothing to fill up, as company. In brief, the shortest and the longest alone.
  std::vector<MadeUp> usual(bool brief) const {
    if (brief) return {{1, Kind::kNegative}, {padded_ - 1, Kind::kPositive}};
    int64_t before = 0;
    for (const int64_t length : padding_.lengths(padded_ - 1)) {
      if (length < padded_) before = length;
    }
    std::vector<MadeUp> out;
    constexpr std::array kKinds{Kind::kNegative, Kind::kPositive, Kind::kBoth};
    const auto add = [&](int64_t length) { out.push_back({length, kKinds[out.size() % kKinds.size()]}); };
    for (const int64_t length : {int64_t{1}, padded_ - 1, (padded_ + 1) / 2, before + 1, padded_ / 4}) {
      const auto same = [&](const MadeUp& request) { return request.length == length; };
      if (length >= 1 && length < padded_ && std::ranges::none_of(out, same)) add(length);
    }
    if (out.empty()) return out;
    while (out.size() < kKinds.size()) add(padded_ - 1);
    out.push_back({padded_, Kind::kBoth});
    return out;
  }

  /// Larger values, at lengths of the usual ones, for which there are plans.
  std::vector<MadeUp> unusual(bool brief) const {
    if (std::ranges::count(varied_, true) == 0 || padded_ < 2) return {};
    const int64_t other = brief ? 1 : (padded_ + 1) / 2 < padded_ ? (padded_ + 1) / 2 : padded_ - 1;
    return {{padded_ - 1, Kind::kLargeNegative},
            {padded_ - 1, Kind::kLargePositive},
            {other, Kind::kHugeNegative},
            {other, Kind::kHugePositive}};
  }

  /// Which inputs may hold larger values: floats that are padded; of integers one that is the only one to be padded, as
  /// beside others it may be a mask, and models with a mask of other numbers than 0 and 1 are none that it was made
  /// for.
  std::vector<bool> varied() const {
    std::vector<bool> out(rows_.size());
    size_t padded = 0;
    for (size_t i = 0; i < out.size(); ++i) padded += padding_.pads(i);
    for (size_t i = 0; i < out.size(); ++i) {
      const DType dtype = runner_.inputs()[i].dtype;
      out[i] = padding_.pads(i) && (is_float(dtype) || (padded == 1 && is_integer(dtype)));
    }
    return out;
  }

  /// Runs them in one batch, and each by itself.
  std::string compare(std::span<const MadeUp> requests) {
    const auto count = static_cast<int64_t>(requests.size());
    std::vector<Buffer> together(rows_.size());
    for (size_t i = 0; i < rows_.size(); ++i) {
      const bool shared = is_shared(runner_.inputs()[i]);
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
      if (!run(one, together, 1, place, length)) continue;                    // no request of that length is answered
      if (!at_once && !run(all, together, 1, place, padded_)) continue;       // one of the others may be to blame
      if (!is_usual(requests[row].kind) && overflows(one.views())) continue;  // on values that it was not made for
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
    const Kind kind = varied_[input] || is_usual(request.kind) ? request.kind : Kind::kBoth;
    make_up(dtype, kind, bytes / dtype_size(dtype), padded, draws_, own.data());
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
      if (is_shared(port)) {
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

  static constexpr int64_t kMostRows = 64;                 // far more than are made up
  static constexpr int64_t kCheap = 64;                    // the longest that even a brief trial tries at all
  static constexpr int64_t kMostBrief = int64_t{1} << 24;  // elements of a row, in a trial that nobody asked for

  Runner& runner_;
  BufferPool& pool_;
  const Padding& padding_;
  const int64_t padded_;
  const AsksToStop asks_to_stop_;
  std::vector<Shape> rows_;
  const std::vector<bool> varied_;
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
