// NonMaxSuppression: the best boxes of each class that do not overlap better ones. How many there are, only data tell.
#include <algorithm>
#include <numeric>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/sort.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct Corners {
  float y1, x1, y2, x2;
  float area() const { return (y2 - y1) * (x2 - x1); }
};

/// A box in the file's format: two opposite corners in any order, or centre and size.
Corners corners_of(const float* box, bool center_format) {
  if (center_format) {
    const float x = box[0], y = box[1], w = box[2] / 2, h = box[3] / 2;
    return {y - h, x - w, y + h, x + w};
  }
  return {std::min(box[0], box[2]), std::min(box[1], box[3]), std::max(box[0], box[2]), std::max(box[1], box[3])};
}

bool overlap(const Corners& a, const Corners& b, float threshold) {
  const float height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  const float width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (!(height > 0) || !(width > 0) || !(a.area() > 0) || !(b.area() > 0)) return false;
  const float common = height * width;
  return common / (a.area() + b.area() - common) > threshold;
}

template <class T>
T scalar_or(const NodeContext& c, size_t i, T fallback) {
  if (!c.has_input(i) || c.input(i).shape.elements() == 0) return fallback;
  if (c.input(i).dtype != kDTypeOf<T> || c.input(i).shape.elements() != 1) {
    c.fail(cat("input ", i, " must be one ", dtype_name(kDTypeOf<T>)));
  }
  return *c.known_value(i).as<T>();
}

/// What was picked, in memory that the run counts: three numbers each.
class Picks {
 public:
  explicit Picks(DynamicContext& run) : run_(run) { grow(64); }
  void add(int64_t batch, int64_t box_class, int64_t box) {
    if (count_ == tensor_.shape[0]) grow(2 * count_);
    int64_t* to = data_ + 3 * count_++;
    to[0] = batch;
    to[1] = box_class;
    to[2] = box;
  }
  Tensor tensor() const { return {DType::kI64, {count_, 3}, tensor_.data, tensor_.owner}; }

 private:
  void grow(int64_t room) {
    void* data = nullptr;
    Tensor larger = run_.allocate(DType::kI64, {room, 3}, &data);
    if (count_ != 0) copy_in_blocks(data, data_, static_cast<size_t>(count_) * 3 * sizeof(int64_t));
    tensor_ = std::move(larger);
    data_ = static_cast<int64_t*>(data);
  }

  DynamicContext& run_;
  Tensor tensor_;
  int64_t* data_ = nullptr;
  int64_t count_ = 0;
};

// Boxes that do not overlap take time that grows with the square of their number.
constexpr int64_t kSortNanos = 20, kCompareNanos = 2;

std::vector<Tensor> run_nms(const NodeContext& c, DynamicContext& run) {
  const TensorFacts &boxes = c.input(0), &scores = c.input(1);
  if (boxes.dtype != DType::kF32 || scores.dtype != DType::kF32) c.wrong("boxes and scores must be float32");
  if (boxes.shape.rank() != 3 || scores.shape.rank() != 3 || boxes.shape[2] != 4 || boxes.shape[0] != scores.shape[0] ||
      boxes.shape[1] != scores.shape[2]) {
    c.fail(cat("boxes of shape ", boxes.shape.str(), " and scores of shape ", scores.shape.str(),
               ", where (batch, n, 4) and (batch, classes, n) are expected"));
  }
  const int64_t batches = boxes.shape[0], classes = scores.shape[1], n = boxes.shape[1];
  const auto most = scalar_or<int64_t>(c, 2, 0);
  const auto iou = scalar_or<float>(c, 3, 0.0f);
  if (!(iou >= 0 && iou <= 1)) c.fail(cat("an IoU threshold of ", iou, " is not within 0 and 1"));
  const bool has_least = c.has_input(4) && c.input(4).shape.elements() != 0;
  const auto least = scalar_or<float>(c, 4, 0.0f);
  const bool center_format = c.attr_int("center_point_box", 0) != 0;

  Picks picks(run);
  // Nothing to pick from, whatever the other dimensions are.
  const bool empty = boxes.shape.elements() == 0 || scores.shape.elements() == 0;
  WorkMeter meter;
  std::vector<int64_t> order, room;
  std::vector<Corners> all(empty ? 0 : static_cast<size_t>(n)), kept;
  for (int64_t b = 0; b < batches && !empty; ++b) {
    for (int64_t i = 0; i < n; ++i) {
      all[static_cast<size_t>(i)] = corners_of(boxes.constant->as<float>() + (b * n + i) * 4, center_format);
    }
    for (int64_t k = 0; k < classes && most > 0; ++k) {
      meter.spend(n);
      const float* score = scores.constant->as<float>() + (b * classes + k) * n;
      order.clear();
      for (int64_t i = 0; i < n; ++i) {
        if (has_least ? score[i] > least : score[i] == score[i]) order.push_back(i);  // never a NaN
      }
      room.resize(order.size());
      const bool sorted =
          sort_in_blocks(meter, std::span(order), std::span(room), kSortNanos / 4,
                         [&](int64_t x, int64_t y) { return score[x] > score[y] || (score[x] == score[y] && x < y); });
      if (!sorted) throw Stopped();
      kept.clear();
      int64_t count = 0;
      run.spend(static_cast<int64_t>(order.size()) * kSortNanos);
      for (const int64_t i : order) {
        if (count == most) break;
        const Corners& box = all[static_cast<size_t>(i)];
        const int64_t compare = static_cast<int64_t>(kept.size()) * kCompareNanos;
        run.spend(compare);
        meter.spend(compare + 1);
        if (std::any_of(kept.begin(), kept.end(), [&](const Corners& better) { return overlap(box, better, iou); })) {
          continue;
        }
        if (box.area() > 0) kept.push_back(box);  // others overlap nothing
        ++count;
        picks.add(b, k, i);
      }
    }
  }
  return {picks.tensor()};
}

}  // namespace

void register_non_max_suppression(OpRegistry& r) {
  r.add_dynamic({.name = "NonMaxSuppression",
                 .since = 10,
                 .min_inputs = 2,
                 .max_inputs = 5,
                 .max_outputs = 1,
                 .rows_mix = [](const Node&, const Graph&) { return true; }},  // one list for all, with their numbers
                nullptr, run_nms);
}

}  // namespace inferkit
