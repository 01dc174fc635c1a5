// A cap on the memory of one run, so that a small file, or a small input, cannot ask for all that the machine has.
#pragma once
#include <cstddef>
#include <string>

#include "base/error.h"
#include "graph/ir.h"

namespace inferkit {

/// A plan would pass the cap. Where every size is the file's, the file is to blame; else the sizes that came with a
/// run.
class PlanTooLarge : public Error {
 public:
  explicit PlanTooLarge(const std::string& message) : Error(ErrorCode::kModel, message) {}
};

/// The cap where the user names none: 4 GiB, or half of what the process may use where that is less. The same on most
/// machines, so that what runs on one runs on another.
size_t default_max_run_bytes();

/// The bytes of a value of any shape; the largest number where they cannot be counted.
size_t value_bytes(DType dtype, const Shape& shape);

/// Adds up what one plan takes while it is compiled.
class RunBytes {
 public:
  explicit RunBytes(size_t max_bytes) : max_bytes_(max_bytes) {}

  /// The node computes a value. Throws PlanTooLarge where this alone passes the cap.
  void add_value(const Node& node, DType dtype, const Shape& shape);
  /// All that a run takes at once: the arena, and the outputs. Throws PlanTooLarge, naming the node of the largest
  /// value.
  void check_total(size_t arena_bytes, size_t output_bytes) const;

 private:
  [[noreturn]] void refuse(const std::string& what) const;

  const size_t max_bytes_;
  size_t largest_bytes_ = 0;
  std::string largest_;  // who makes it, and its shape
};

}  // namespace inferkit
