#include "batching/request.h"

#include "batching/coalescer.h"
#include "platform/futex.h"

namespace inferkit {
namespace {
CompletionList* const kTaken = reinterpret_cast<CompletionList*>(uintptr_t{1});
}

size_t BatchOutput::row_bytes() const {
  return static_cast<size_t>(shape.elements(1, shape.rank())) * dtype_size(dtype);
}

Request::Request(LayoutRef layout_, int64_t rows_, bool single_row_, const SubmitOptions& options, int64_t length_)
    : layout(std::move(layout_)),
      rows(rows_),
      length(length_),
      single_row(single_row_),
      priority(options.priority),
      deadline(options.deadline),
      name(options.name),
      tags(options.tags),
      id(options.id) {}

Request::~Request() { take_list(); }

bool Request::advance(Phase from, Phase to) noexcept {
  uint32_t seen = state_.load(std::memory_order_acquire);
  while (Phase(seen & kPhaseMask) == from) {
    // The sleepers' bit stays: the next end, or whoever admits it, wakes them.
    if (!state_.compare_exchange_weak(seen, (seen & kSleepers) | uint32_t(to), std::memory_order_acq_rel)) continue;
    if (from == Phase::kWaiting && (seen & kSleepers)) futex_wake_all(state_);
    return true;
  }
  return false;
}

std::optional<Phase> Request::claim() noexcept {
  uint32_t seen = state_.load(std::memory_order_acquire);
  while (Phase(seen & kPhaseMask) < Phase::kEnding) {
    // The sleepers' bit stays, and they sleep on: publish() wakes them.
    const uint32_t ending = (seen & kSleepers) | uint32_t(Phase::kEnding);
    if (state_.compare_exchange_weak(seen, ending, std::memory_order_acq_rel)) return Phase(seen & kPhaseMask);
  }
  return std::nullopt;
}

void Request::publish(Phase end) noexcept {
  if (state_.exchange(uint32_t(end), std::memory_order_acq_rel) & kSleepers) futex_wake_all(state_);
}

bool Request::finish(Phase end) noexcept {
  if (!claim()) return false;
  publish(end);
  return true;
}

void Request::refuse(Status why, Nanos retry) noexcept {
  const auto end = [](ErrorCode code) {
    switch (code) {
      case ErrorCode::kQueueFull:
      case ErrorCode::kPoolExhausted:
        return Phase::kRejected;
      case ErrorCode::kDeadline:
        return Phase::kExpired;
      case ErrorCode::kClosed:
        return Phase::kClosed;
      default:
        return Phase::kError;
    }
  }(why.code);
  status = std::move(why);
  retry_after = retry;
  finish(end);
  take_list();  // whoever comes to attach one sees that it is over
}

IntrusivePtr<CompletionList> Request::take_list() noexcept {
  CompletionList* list = list_.exchange(kTaken, std::memory_order_acq_rel);
  return list == kTaken ? IntrusivePtr<CompletionList>() : IntrusivePtr<CompletionList>::adopt(list);
}

bool Request::attach(CompletionList& list) noexcept {
  IntrusivePtr<CompletionList> counted(&list);
  CompletionList* expected = nullptr;
  if (!list_.compare_exchange_strong(expected, &list, std::memory_order_acq_rel)) return false;
  counted.detach();
  return true;
}

bool Request::attached_to(const CompletionList& list) const noexcept {
  return list_.load(std::memory_order_acquire) == &list;
}

void Request::sleep(Phase seen, Nanos until, bool* interrupted) const {
  uint32_t word = state_.load(std::memory_order_acquire);
  if (Phase(word & kPhaseMask) != seen) return;
  if (!(word & kSleepers)) {
    if (!state_.compare_exchange_strong(word, word | kSleepers, std::memory_order_acq_rel)) return;
    word |= kSleepers;
  }
  if (futex_wait(state_, word, until) == FutexResult::kInterrupted) *interrupted = true;
}

TensorView Request::input(size_t index, DType dtype) const {
  return {dtype, layout->shape(index, rows, length), inputs.data() + layout->offset(index, rows, length)};
}

TensorView Request::part_of(const BatchOutput& output, int64_t first) const {
  Shape shape = cut_shape(output.shape, output.follows, length);
  shape[0] = rows;
  return {output.dtype, shape, output.buffer.data() + static_cast<size_t>(first) * output.row_bytes()};
}

Status Request::end_status() const {
  const Phase end = phase();
  if (is_end(end) && !status.ok()) return status;  // written by whoever led it there, before its end was published
  switch (end) {
    case Phase::kRejected:
      return {ErrorCode::kQueueFull, Reason::kNone, "the queue stayed full for as long as the request could wait",
              nullptr};
    case Phase::kClosed:
      return {ErrorCode::kClosed, Reason::kNone, "the batcher was closed before the request had an answer", nullptr};
    case Phase::kCancelled:
      return {ErrorCode::kCancelled, Reason::kNone, "the request was cancelled", nullptr};
    case Phase::kExpired:
      return {ErrorCode::kDeadline, Reason::kNone,
              "the request's deadline passed, or would have passed, before it had an answer", nullptr};
    default:
      return {};
  }
}

}  // namespace inferkit
