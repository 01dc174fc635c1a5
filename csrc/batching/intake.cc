#include "batching/intake.h"

#include <stdexcept>

#include "base/text.h"

namespace inferkit {
namespace {

// Runs on the members' initialisers, before the layouts drop each input's first dimension.
std::span<const PortSpec> checked_ports(std::span<const PortSpec> inputs, std::span<const PortSpec> outputs) {
  if (inputs.empty()) throw std::invalid_argument("a model without inputs cannot be batched");
  for (const PortSpec& input : inputs) {
    if (input.shape.empty()) {
      throw std::invalid_argument(cat("input ", quote(input.name),
                                      " has no batch axis (its shape is ()); a Batcher needs the first ",
                                      "dimension of every input to be the batch: call the model directly"));
    }
    if (input.dtype == DType::kString)
      throw std::invalid_argument(cat("input ", quote(input.name), " holds strings, which cannot be batched"));
  }
  for (const PortSpec& output : outputs) {
    if (output.dtype == DType::kString) {
      throw std::invalid_argument(cat("output ", quote(output.name), " holds strings, which cannot be batched"));
    }
  }
  return inputs;
}

[[noreturn]] void fail(Reason reason, const std::string& message) {
  throw Error(ErrorCode::kValidation, reason, message);
}

}  // namespace

Intake::Intake(std::span<const PortSpec> inputs, std::span<const PortSpec> outputs, const BatcherOptions& options)
    : inputs_(checked_ports(inputs, outputs)),
      checks_(options.inputs),
      max_rows_(options.max_batch_size),
      layouts_(inputs) {
  checks_.non_empty = true;  // a request of no rows has no answer
  for (const PortSpec& input : inputs_) {
    const int64_t first = input.shape[0];
    if (first == Shape::kFree) continue;
    if (first < 1 || (fixed_rows_ && fixed_rows_ != first)) {
      throw std::invalid_argument(cat("input ", quote(input.name), " has a first dimension of ", first,
                                      " where a Batcher needs the batch: call the model directly"));
    }
    fixed_rows_ = first;
  }
  if (fixed_rows_) max_rows_ = fixed_rows_;
}

Checked Intake::check(std::span<const StridedView> given) {
  if (given.size() != inputs_.size()) {
    fail(Reason::kName, cat("the model takes ", inputs_.size(), " inputs, got ", given.size()));
  }
  Checked out;
  for (size_t i = 0; i < given.size(); ++i) {
    const PortSpec& spec = inputs_[i];
    const Shape& shape = given[i].shape;
    const BatchAxis axis = batch_axis_of(spec.name, spec.shape, shape);
    Shape expected = spec.shape;
    expected[0] = Shape::kFree;  // the number of rows is judged below, with a better message
    check_input(spec.name, spec.dtype, expected, given[i].dtype, shape, checks_, axis);
    const bool single = axis == BatchAxis::kAbsent;
    const int64_t rows = single ? 1 : shape[0];
    if (i == 0) {
      out.rows = rows;
      out.single_row = single;
    } else if (single != out.single_row) {
      const auto& [without, with] = single ? std::pair(i, size_t{0}) : std::pair(size_t{0}, i);
      fail(Reason::kShape, cat("input '", inputs_[with].name, "' has a batch axis and input '", inputs_[without].name,
                               "' does not: pass all inputs with a batch axis, or all without it for a single row"));
    } else if (rows != out.rows) {
      fail(Reason::kShape, cat("all inputs of a request need the same number of rows; input '", inputs_[0].name,
                               "' has ", out.rows, " and input '", spec.name, "' has ", rows));
    }
  }
  if (fixed_rows_ && out.rows != fixed_rows_) {
    fail(out.rows > fixed_rows_ ? Reason::kTooLarge : Reason::kShape,
         cat("the model's first dimension is fixed at ", fixed_rows_,
             ", so every request needs exactly that many rows; got ", out.rows));
  }
  if (out.rows > max_rows_) {
    fail(Reason::kTooLarge, cat("the request has ", out.rows, " rows, more than max_batch_size=", max_rows_,
                                ": split it, raise max_batch_size, or call the model directly"));
  }
  if (layouts_.fixed()) {
    out.layout = layouts_.fixed();
  } else {
    std::vector<Shape> rows;
    for (const StridedView& view : given) {
      rows.push_back(view.shape);
      if (!out.single_row) rows.back().erase(0);
      if (!rows.back().checked_elements())
        fail(Reason::kTooLarge, cat("a shape of ", view.shape.str(), " has too many elements"));
    }
    out.layout = layouts_.intern(rows);
  }
  return out;
}

Buffer Intake::copy(std::span<const StridedView> given, const Checked& checked, BufferPool& pool) const {
  Buffer buffer = pool.acquire(checked.layout->offset(given.size(), checked.rows), "request");
  for (size_t i = 0; i < given.size(); ++i) {
    copy_input(inputs_[i].name, given[i], buffer.data() + checked.layout->offset(i, checked.rows), checks_);
  }
  return buffer;
}

void Intake::scan(std::span<const StridedView> given) const {
  for (size_t i = 0; i < given.size(); ++i) scan_input(inputs_[i].name, given[i], checks_);
}

}  // namespace inferkit
