// One request from admission to its end.
#pragma once
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/tensor_view.h"
#include "batching/client.h"
#include "batching/completion.h"
#include "batching/intrusive_ptr.h"
#include "batching/layout.h"
#include "batching/line.h"
#include "batching/open_count.h"
#include "batching/place.h"
#include "batching/why_not.h"
#include "memory/buffer.h"
#include "platform/clock.h"

namespace inferkit {

struct ByContent;
class TagSet;

/// Those before kResult come in this order; the others are ends. A request reaches exactly one end, and exactly one
/// caller leads it there: whoever claims it. What the claimer writes is seen by all who see the end.
enum class Phase : uint32_t {
  kWaiting,  // for room in a full queue
  kQueued,   // admitted
  kRunning,  // in a batch
  kEnding,   // claimed: its end is decided and being written down, for some nanoseconds
  kResult,
  kError,
  kCancelled,
  kExpired,
  kRejected,  // the queue stayed full
  kClosed,    // the batcher was closed before it ran
};
inline constexpr int kEndCount = 6;
inline bool is_end(Phase phase) { return phase >= Phase::kResult; }

/// Nanoseconds of the batcher's clock; 0 where it has not happened.
struct RequestTimes {
  std::atomic<Nanos> enqueued{0}, dequeued{0}, started{0}, finished{0}, delivered{0};
};

/// One output of a batch, shared by the requests whose rows it holds.
struct BatchOutput {
  DType dtype = DType::kF32;
  Shape shape;       // with the batch axis
  Axes follows = 0;  // of it, those as long as the batch was padded to: a shorter request's rows lie cut back
  Buffer buffer;
  Buffer text;  // what views of strings in `buffer` show

  size_t row_bytes() const;
};
struct BatchOutputs : RefCounted<BatchOutputs> {
  std::vector<BatchOutput> outputs;
};

/// How a submission may be told apart and held to its time.
struct SubmitOptions {
  Nanos deadline = kNever;  // on the batcher's clock
  int priority = 0;         // higher goes first
  uint64_t id = 0;          // 0: the batcher numbers it
  std::string name{};       // the caller's own id; "" for none
  ClientRef client{};       // null for none
  TagSet* tags = nullptr;   // null for none; the batcher's
};

/// Shared by the caller's ticket, the queue, the batch and the completion list. Its result fields belong to whoever
/// claimed it, and after the end to the ticket. Its inputs belong to its batch while it is kRunning and for as long as
/// that batch reads them, however it ends meanwhile; before, to whoever claimed it.
class Request : public RefCounted<Request> {
 public:
  Request(LayoutRef layout_, int64_t rows_, bool single_row_, const SubmitOptions& options, int64_t length_ = 0);
  ~Request();

  // Fixed at submission.
  const LayoutRef layout;
  const int64_t rows;
  const int64_t length;   // along the axis that is padded, before it is; 0 where none is
  const bool single_row;  // came without the batch axis, and so goes its answer
  const int priority;
  const Nanos deadline;
  const std::string name;
  TagSet* const tags;  // null for none; lives as long as its batcher, which the request may outlive
  uint64_t id;
  uint64_t order = 0;  // in which it was queued; like the next, guarded by the scheduler's lock
  Nanos turn = 0;      // see turn_of()
  // Nobody is to queue it: it found the queue full, and the scheduler does when there is room; or it is equal to
  // another one, whose answer it waits for, or has.
  bool parked = false;
  Nanos admit_by = kNever;  // until when it waits for that
  Buffer inputs;  // all of them, at layout->offset(i, rows, length), then the bytes of strings; given back when nobody
                  // will read them any more
  Place place;    // in the queue's bound; once others see the request, guarded by the scheduler's lock
  OpenCount::Hold open;                   // until its end
  std::unique_ptr<Membership> member;     // null where no request has a client; guarded as its place
  std::unique_ptr<ByContent> by_content;  // null where equal requests are each on their own

  RequestTimes times;
  std::atomic<uint64_t> trace{0};  // its record in the trace; 0 where there is none (yet)

  // The result fields.
  Status status;                       // of kError, and of a request that was refused, whatever its end
  Nanos retry_after = kNever;          // of a refused one: see Refusal
  std::optional<WhyNot> why_not;       // where it gets no answer, and there is more to say than its end does
  IntrusivePtr<BatchOutputs> outputs;  // of kResult
  int64_t first_row = 0;               // in outputs
  uint64_t batch_id = 0;               // of kResult and kError
  int64_t batch_rows = 0;

  void* owner = nullptr;  // the caller's ticket while it lives; guarded by whatever guards tickets (Python's GIL)

  Phase phase() const { return Phase(state_.load(std::memory_order_acquire) & kPhaseMask); }
  bool done() const { return is_end(phase()); }
  /// From `from` to `to`, neither an end. False where it is not in `from` (any more).
  bool advance(Phase from, Phase to) noexcept;
  /// Decides who ends the request: for that one caller, the phase that it was in; for all others nothing. The claimer
  /// writes the result fields and publishes the end.
  std::optional<Phase> claim() noexcept;
  /// After claim(): shows the end to all and wakes the threads that sleep on it.
  void publish(Phase end) noexcept;
  /// Both, for an end without a result.
  bool finish(Phase end) noexcept;
  /// For a request that nobody else has seen and that was not admitted: its end, which is `why`.
  void refuse(Status why, Nanos retry) noexcept;
  /// The list to push to, once, after the end; null where nobody attached one.
  IntrusivePtr<CompletionList> take_list() noexcept;

  /// Lets `list` learn of the end. False where the request has ended; also where another list is attached.
  bool attach(CompletionList& list) noexcept;
  bool attached_to(const CompletionList& list) const noexcept;

  /// Sleeps until the phase is not `seen`, `until` (SteadyClock) or a signal; may return early.
  void sleep(Phase seen, Nanos until, bool* interrupted) const;

  /// When something happens to it if nothing else does: its deadline, or the end of its wait for room. kNever once its
  /// end is decided.
  Nanos next_timeout() const {
    const Phase now = phase();
    return now >= Phase::kEnding ? kNever : now == Phase::kWaiting ? std::min(deadline, admit_by) : deadline;
  }

  /// As it came: not padded.
  TensorView input(size_t index, DType dtype) const;
  /// Its rows of an output of its batch, cut back.
  TensorView part_of(const BatchOutput& output) const { return part_of(output, first_row); }
  TensorView part_of(const BatchOutput& output, int64_t first) const;

  /// What the end means as an error; ok() for kResult.
  Status end_status() const;

 private:
  friend class Line;
  friend class RequestList;
  friend class CompletionList;
  static constexpr uint32_t kPhaseMask = 0xff, kSleepers = 0x100;

  // The phase, and a bit that says that threads sleep on the word. Every change acquires and releases: the result
  // fields are written before the end is published and read after it is seen.
  mutable std::atomic<uint32_t> state_{uint32_t(Phase::kWaiting)};
  std::atomic<CompletionList*> list_{nullptr};  // owns a reference; kTaken once the request has ended

  // The links of a Line, guarded by its owner's lock, or of a RequestList.
  Line* line_ = nullptr;  // where it stands; null where it does not
  Request* next_ = nullptr;
  Request* previous_ = nullptr;
  Request* parent_ = nullptr;  // this and what follows: in the line's index, where it has one
  Request* left_ = nullptr;
  Request* right_ = nullptr;
  LineSums sums_;  // of itself and what is below
  uint32_t draw_ = 0;

  Request* ended_next_ = nullptr;  // in its completion list, guarded by the list's lock
};

}  // namespace inferkit
