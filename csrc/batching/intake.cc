#include "batching/intake.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "base/counted.h"
#include "base/text.h"

namespace inferkit {
namespace {

constexpr int64_t kMostBytes = int64_t{1} << 56;  // of an input of a request

// Runs on the members' initialisers, before the layouts drop each input's first dimension.
std::span<const PortSpec> checked_ports(std::span<const PortSpec> inputs) {
  if (inputs.empty()) throw std::invalid_argument("a model without inputs cannot be batched");
  for (const PortSpec& input : inputs) {
    if (input.is_list()) {
      throw std::invalid_argument(cat("input ", quote(input.name),
                                      " is a sequence or an optional, whose rows a Batcher cannot tell: call the model "
                                      "directly"));
    }
    if (!input.any_shape) continue;
    throw std::invalid_argument(cat("input ", quote(input.name),
                                    " has no shape in the model file, so a Batcher cannot tell which of its dimensions "
                                    "is the batch: declare one there, with free dimensions, or call the model "
                                    "directly"));
  }
  if (std::ranges::all_of(inputs, is_shared)) {
    throw std::invalid_argument(cat("input ", quote(inputs[0].name),
                                    " has no batch axis (its shape is ()), and no other input has one; a Batcher needs "
                                    "the first dimension of an input to be the batch: call the model directly"));
  }
  return inputs;
}

/// The strings of an input, which lie as a tensor's.
std::span<const std::string_view> strings_of(const StridedView& given) {
  return {static_cast<const std::string_view*>(given.data), static_cast<size_t>(given.shape.elements())};
}

/// What tells the strings of an input that all rows share from others: the length of each, and its bytes.
std::vector<std::byte> key_of(const StridedView& given) {
  std::vector<std::byte> key;
  for (const std::string_view text : strings_of(given)) {
    const size_t length = text.size();
    const auto append = [&](const void* from, size_t count) {
      const auto* bytes = static_cast<const std::byte*>(from);
      key.insert(key.end(), bytes, bytes + count);
    };
    append(&length, sizeof length);
    append(text.data(), length);
  }
  return key;
}

[[noreturn]] void fail(Reason reason, const std::string& message) {
  throw Error(ErrorCode::kValidation, reason, message);
}

/// Why an input that may be meant for all rows counts as rows; empty for others.
std::string hint_for_large(const PortSpec& input) {
  const auto elements = input.shape.checked_elements();  // none where a dimension is free
  if (!elements || input.dtype == DType::kString) return {};
  const size_t bytes = static_cast<size_t>(*elements) * dtype_size(input.dtype);
  if (bytes <= kMostSharedBytes) return {};
  return cat(". Input '", input.name, "' has ", bytes, " bytes, and a value for all rows may have ", kMostSharedBytes,
             ": if it is meant as one, call the model directly");
}

/// Of two inputs that do not agree about the rows.
std::string hint_for_large(const PortSpec& one, const PortSpec& other) {
  const bool first = one.shape[0] != Shape::kFree, second = other.shape[0] != Shape::kFree;
  if (first == second) return {};
  return hint_for_large(first ? one : other);
}

}  // namespace

Intake::Intake(std::span<const PortSpec> inputs, std::span<const InputSense> senses, const BatcherOptions& options,
               const PadProof& proof, PadCost& cost)
    : inputs_(checked_ports(inputs)),
      asked_(options.inputs.empty() ? std::vector<InputChecks>(inputs.size()) : options.inputs),
      padding_(options.pad.inputs.empty() ? nullptr : std::make_shared<Padding>(options.pad, inputs)),
      pad_proof_(proof),
      pad_cost_(cost),
      layouts_(inputs, padding_, options.max_batch_elements),
      max_elements_(options.max_batch_elements),
      fixed_rows_(fixed_rows_of(inputs)),
      max_rows_(fixed_rows_ ? fixed_rows_ : options.max_batch_size) {
  if (asked_.size() != inputs.size()) {
    throw std::invalid_argument(
        cat("input checks for ", counted(asked_.size(), "input"), "; the model has ", inputs.size()));
  }
  while (is_shared(inputs_[first_batched_])) ++first_batched_;
  follow(checks_for(senses));
}

const Intake::Checks& Intake::checks_for(std::span<const InputSense> senses) {
  Checks checks;
  for (size_t i = 0; i < asked_.size(); ++i) {
    checks.push_back(resolve(asked_[i], i < senses.size() ? senses[i] : InputSense{}));
    // A request of no rows has no answer.
    if (!is_shared(inputs_[i])) checks.back().empty_axes = static_cast<Axes>(checks.back().empty_axes & ~1u);
  }
  const MutexLock lock(mutex_);
  const auto at = std::ranges::find(known_, checks);
  return at == known_.end() ? known_.emplace_back(std::move(checks)) : *at;
}

/// Along the axis that is padded, which is the same in all inputs that are. Their shapes have been checked.
int64_t Intake::length_of(std::span<const StridedView> given, bool single_row) const {
  const auto length = [&](size_t i) { return given[i].shape[padding_->input(i).axis - (single_row ? 1 : 0)]; };
  const size_t first = padding_->first();
  for (size_t i = first + 1; i < given.size(); ++i) {
    if (!padding_->pads(i) || length(i) == length(first)) continue;
    fail(Reason::kShape, cat("inputs that are padded together need the same length; input '", inputs_[first].name,
                             "' has ", length(first), " along axis ", padding_->input(first).axis, " and input '",
                             inputs_[i].name, "' has ", length(i), " along axis ", padding_->input(i).axis));
  }
  return length(first);
}

Checked Intake::check(std::span<const StridedView> given, uint64_t generation) {
  if (given.size() != inputs_.size()) {
    fail(Reason::kName, cat("the model takes ", counted(inputs_.size(), "input"), ", got ", given.size()));
  }
  const Checks& checks = this->checks();
  Checked out;
  for (size_t i = 0; i < given.size(); ++i) {
    const PortSpec& spec = inputs_[i];
    const Shape& shape = given[i].shape;
    if (is_shared(spec)) {
      // One row for all of them may come without its first dimension, as a row of other inputs may.
      const bool is_row = shape.rank() + 1 == spec.shape.rank() && spec.shape[0] == 1;
      const BatchAxis axis = is_row ? BatchAxis::kAbsent : BatchAxis::kPresent;
      check_input(spec.name, spec.dtype, spec.shape, given[i].dtype, shape, checks[i], axis);
      const auto elements = static_cast<size_t>(shape.checked_elements().value_or(0));
      if (elements == 0 || elements > kMostSharedBytes / dtype_size(spec.dtype)) {
        fail(elements == 0 ? Reason::kEmpty : Reason::kTooLarge,
             cat("input '", spec.name, "' of shape ", shape.str(), " is one value for all rows of a batch, by which a ",
                 "Batcher tells requests apart: it must have 1 to ", kMostSharedBytes / dtype_size(spec.dtype),
                 " elements; call the model directly"));
      }
      continue;
    }
    Shape expected = spec.shape;
    expected[0] = Shape::kFree;  // the number of rows is judged below, with a better message
    const BatchAxis axis = batch_axis_of(spec.name, expected, shape);
    if (axis == BatchAxis::kPresent && shape[0] == 0 && given[i].dtype == spec.dtype) {
      fail(Reason::kEmpty,
           cat("input '", spec.name, "' has no rows: its shape is ", shape.str(), "; a request needs at least one"));
    }
    check_input(spec.name, spec.dtype, expected, given[i].dtype, shape, checks[i], axis);
    const bool single = axis == BatchAxis::kAbsent;
    const int64_t rows = single ? 1 : shape[0];
    if (i == first_batched_) {
      out.rows = rows;
      out.single_row = single;
    } else if (single != out.single_row) {
      const auto& [without, with] = single ? std::pair(i, first_batched_) : std::pair(first_batched_, i);
      fail(Reason::kShape, cat("input '", inputs_[with].name, "' has a batch axis and input '", inputs_[without].name,
                               "' does not: pass all inputs with a batch axis, or all without it for a single row",
                               hint_for_large(inputs_[with], inputs_[without])));
    } else if (rows != out.rows) {
      fail(Reason::kShape,
           cat("all inputs of a request need the same number of rows; input '", inputs_[first_batched_].name, "' has ",
               out.rows, " and input '", spec.name, "' has ", rows, hint_for_large(inputs_[first_batched_], spec)));
    }
  }
  if (fixed_rows_ && out.rows > fixed_rows_) {
    fail(Reason::kTooLarge, cat("the model's first dimension is fixed at ", fixed_rows_,
                                ", so no request can have more rows; got ", out.rows, ": split it"));
  }
  if (out.rows > max_rows_) {
    fail(Reason::kTooLarge, cat("the request has ", counted(out.rows, "row"), ", more than max_batch_size=", max_rows_,
                                ": split it, raise max_batch_size, or call the model directly"));
  }
  if (layouts_.fixed()) {
    out.layout = layouts_.fixed();
  } else {
    std::vector<Shape> rows;
    std::vector<std::vector<std::byte>> shared;
    int64_t padded = 0;
    if (padding_) {
      out.length = length_of(given, out.single_row);
      padded = padding_->length_for(out.length);
      if (padded != out.length && (pad_proof_.is_apart(generation, padded) || pad_cost_.is_off(padded))) {
        padded = out.length;
      }
    }
    for (size_t i = 0; i < given.size(); ++i) {
      const StridedView& view = given[i];
      rows.push_back(view.shape);
      if (is_shared(inputs_[i])) {
        shared.resize(given.size());
        if (view.shape.rank() < inputs_[i].shape.rank()) rows.back().insert(0, 1);
        if (view.dtype == DType::kString) {
          shared[i] = key_of(view);
        } else {
          shared[i].resize(static_cast<size_t>(view.shape.elements()) * dtype_size(inputs_[i].dtype));
          copy_input(inputs_[i].name, view, shared[i].data(), checks[i]);
        }
        if (shared[i].size() > kMostSharedBytes) {
          fail(Reason::kTooLarge,
               cat("input '", inputs_[i].name, "' is one value for all rows of a batch, by which a Batcher tells ",
                   "requests apart: its strings must have ", kMostSharedBytes, " bytes at most; call the model ",
                   "directly"));
        }
      } else if (!out.single_row) {
        rows.back().erase(0);
      }
      if (padding_ && padding_->pads(i)) rows.back()[padding_->input(i).axis - 1] = padded;
      const auto elements = rows.back().checked_elements();
      if (!elements) fail(Reason::kTooLarge, cat("a shape of ", view.shape.str(), " has too many elements"));
      const int64_t most = kMostBytes / static_cast<int64_t>(dtype_size(view.dtype)) / out.rows;
      if (padded != out.length && *elements > most) {
        fail(Reason::kTooLarge, cat("input '", inputs_[i].name, "' would have ", out.rows, " x ", rows.back().str(),
                                    " elements once it is padded, more than any memory holds: give smaller lengths as "
                                    "pad_to"));
      }
    }
    out.layout = layouts_.intern(rows, std::move(shared));
  }
  if (out.layout->run_rows(out.rows) > out.layout->most_rows) {
    const int64_t rows = out.layout->run_rows(out.rows);
    fail(Reason::kTooLarge,
         cat("the request takes a run of ", counted(rows, "row"), " of ", counted(out.layout->largest_row(), "element"),
             out.is_padded() ? " with its padding" : "", ", more than max_batch_elements=", max_elements_,
             rows > 1 ? ": split it, raise max_batch_elements, or call the model directly"
                      : ": raise max_batch_elements, or call the model directly"));
  }
  return out;
}

namespace {

size_t text_bytes(std::span<const StridedView> given) {
  size_t bytes = 0;
  for (const StridedView& view : given) {
    if (view.dtype != DType::kString) continue;
    for (const std::string_view text : strings_of(view)) bytes += text.size();
  }
  return bytes;
}

/// Copies the bytes to `text` and their views to `to`. Where the bytes end.
char* copy_text(const StridedView& given, std::string_view* to, char* text) {
  for (const std::string_view from : strings_of(given)) {
    if (!from.empty()) std::memcpy(text, from.data(), from.size());
    *to++ = {text, from.size()};
    text += from.size();
  }
  return text;
}

}  // namespace

void Intake::copy_numbers(const StridedView& given, const Checked& checked, size_t index, std::byte* to) const {
  if (checked.layout->is_shared(index)) {  // the value that the layout was found by: the caller's may have changed
    std::ranges::copy(checked.layout->value(index), to);
  } else {
    copy_input(inputs_[index].name, given, to, checks()[index]);
  }
}

Buffer Intake::copy(std::span<const StridedView> given, const Checked& checked, BufferPool& pool) const {
  const auto offset = [&](size_t i) { return checked.layout->offset(i, checked.rows, checked.length); };
  const size_t end = offset(given.size());
  if (checked.layout->text) {
    Buffer buffer = pool.acquire(end + text_bytes(given), "request");
    char* text = buffer.as<char>() + end;
    for (size_t i = 0; i < given.size(); ++i) {
      std::byte* to = buffer.data() + offset(i);
      if (given[i].dtype == DType::kString && !checked.layout->is_shared(i)) {
        text = copy_text(given[i], reinterpret_cast<std::string_view*>(to), text);
      } else {
        copy_numbers(given[i], checked, i, to);
      }
    }
    return buffer;
  }
  Buffer buffer = pool.acquire(end, "request");
  for (size_t i = 0; i < given.size(); ++i) {
    copy_numbers(given[i], checked, i, buffer.data() + offset(i));
  }
  return buffer;
}

void Intake::scan(std::span<const StridedView> given) const {
  const Checks& checks = this->checks();
  for (size_t i = 0; i < given.size(); ++i) scan_input(inputs_[i].name, given[i], checks[i]);
}

}  // namespace inferkit
