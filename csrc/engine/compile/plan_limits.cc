#include "engine/compile/plan_limits.h"

#include <algorithm>
#include <limits>

#include "base/counted.h"
#include "platform/system_memory.h"

namespace inferkit {
namespace {

/// In a unit that keeps at least two digits.
std::string amount(size_t bytes) {
  constexpr size_t kTen = 10;
  if (bytes < kTen << 10) return counted(bytes, "byte");
  return bytes < kTen << 20 ? cat(bytes >> 10, " KiB") : cat(bytes >> 20, " MiB");
}

}  // namespace

size_t default_max_run_bytes() { return std::min(size_t{4} << 30, usable_memory() / 2); }

size_t value_bytes(DType dtype, const Shape& shape) {
  const auto count = shape.checked_elements();  // at most 2^62
  const size_t size = dtype_size(dtype), most = std::numeric_limits<size_t>::max();
  if (!count || (size > 0 && static_cast<size_t>(*count) > most / size)) return most;
  return static_cast<size_t>(*count) * size;
}

void RunBytes::add_value(const Node& node, DType dtype, const Shape& shape) {
  const size_t bytes = value_bytes(dtype, shape);
  if (bytes <= largest_bytes_) return;
  largest_bytes_ = bytes;
  largest_ = cat(node.label(), " gives ", dtype_name(dtype), " of shape ", shape.str());
  if (bytes > max_bytes_) refuse(cat(largest_, ", ", amount(bytes)));
}

void RunBytes::check_total(size_t arena_bytes, size_t output_bytes) const {
  if (arena_bytes <= max_bytes_ && output_bytes <= max_bytes_ - arena_bytes) return;
  const std::string parts = cat("a run takes ", amount(arena_bytes), " besides its outputs of ", amount(output_bytes));
  refuse(largest_.empty() ? parts : cat(parts, "; the largest value: ", largest_));
}

void RunBytes::refuse(const std::string& what) const {
  throw PlanTooLarge(cat(what, "; one run may take at most ", amount(max_bytes_),
                         ": to allow more, raise max_run_bytes of Model.load"));
}

}  // namespace inferkit
