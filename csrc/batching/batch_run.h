// Runs one assembled batch and gives every request in it its own end.
#pragma once
#include <functional>
#include <vector>

#include "batching/alike.h"
#include "batching/options.h"
#include "batching/pad_cost.h"
#include "batching/pad_proof.h"
#include "batching/predictor.h"
#include "batching/recorder.h"
#include "batching/row_proof.h"
#include "batching/row_sink.h"
#include "batching/scheduler.h"

namespace inferkit {

/// One thread's tools for running batches: its buffers grow to what the batches need and stay. Owned by a worker, or
/// by an event loop that runs small batches itself.
class BatchRun {
 public:
  /// Called for each request that the run has claimed, with its end, after its result fields are written: publishes it.
  /// Must not throw.
  using End = FunctionRef<void(Request&, Phase)>;

  BatchRun(Runner& runner, BufferPool& pool, const BatcherOptions& options, const Clock& clock, Recorder& recorder,
           Predictor& predictor, RowProof& proof, PadProof& pad_proof, PadCost& pad_cost, Alike* alike = nullptr);

  /// Gathers, runs, checks and scatters. Where a batch of several fails, by an error or an answer of a wrong shape or
  /// type, its requests run again (unless isolate_failures is off), in halves down to those that are to blame, so that
  /// a bad one fails alone: one of n is found with log2(n) to 2 log2(n) runs. More than n / 2 runs of several are not
  /// made, then the rest runs one by one. The same goes for requests of a callable whose own outputs break a check, as
  /// one bad row may have spoilt the answer of all.
  /// Each request of it has ended afterwards, whatever went wrong, and gave its inputs back; those that ended while it
  /// ran are left alone.
  void run(Batch& batch, uint64_t batch_id, End end) noexcept;

 private:
  struct Outcome {
    Status status;
    IntrusivePtr<BatchOutputs> outputs;
    Nanos started = 0, finished = 0;
    bool apart = false;       // nothing was wrong with the requests: they are to run one by one, not padded
    bool as_it_came = false;  // a request that was not padded, though its layout is
    int8_t padding = 0;       // percent of the elements of the inputs that are padded
    bool keeps = false;       // the answers may be kept
    uint64_t model = 0;       // the number of the one that ran
    std::shared_ptr<const Follows> follows;  // the axes that have been cut back; null where none have
  };

  /// On the way through a batch that failed.
  struct Again {
    const RowLayout& layout;
    const uint64_t batch_id;
    const End end;
    size_t groups;   // so many runs of several may still be made
    Nanos finished;  // when the last run was over
  };
  struct Tried {
    bool well = true;   // nothing failed
    size_t failed = 0;  // those that are left
  };

  Nanos run_again(Batch& batch, bool apart, uint64_t batch_id, End end) noexcept;
  bool run_alone(const RequestRef& request, Again& again) noexcept;
  Tried try_together(std::span<RequestRef> requests, Again& again) noexcept;
  void halve(std::span<RequestRef> suspects, Again& again) noexcept;
  Outcome execute(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows) noexcept;
  /// With `keep`, the requests keep their inputs.
  void gather(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows, bool keep = false);
  /// Whether somebody waits for its answer: its caller, or those of requests that are equal to it. What was false stays
  /// so.
  bool is_wanted(const Request& request) const noexcept;
  /// Where it is not wanted, gives its inputs back. Whether that is so.
  bool is_over(Request& request) noexcept;
  void run_once(const HeldModel& model, int64_t rows, Outcome& out);
  void run_rows(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows, Outcome& out, Nanos& once);
  void run_padded(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows, Outcome& out,
                  Nanos& once);
  void cut_answers(std::span<const RequestRef> requests, const RowLayout& layout,
                   std::shared_ptr<const Follows> follows, Outcome& out);
  bool prove(std::span<const RequestRef> requests, const RowLayout& layout, const HeldModel& model,
             PadProof::Look& known);
  void count_elements(std::span<const RequestRef> requests, const RowLayout& layout, Outcome& out, PadRun run);
  /// How the request fared in a run: its rows begin at `first_row`. Asks sink_ for what the last run gave.
  Status judge(const Request& request, const Outcome& outcome, int64_t first_row) noexcept;
  /// To the request, and to all that wait for its answer.
  void deliver(Request& request, const Outcome& outcome, Status status, int64_t first_row, int64_t batch_rows,
               uint64_t batch_id, End end) noexcept;
  void give(Request& request, const Outcome& outcome, Status status, int64_t first_row, int64_t batch_rows,
            uint64_t batch_id, End end) noexcept;

  Runner& runner_;
  BufferPool& pool_;
  const BatcherOptions& options_;
  const Clock& clock_;
  Recorder& recorder_;
  Predictor& predictor_;
  RowProof& proof_;
  PadProof& pad_proof_;
  PadCost& pad_cost_;
  Alike* const alike_;  // null where equal requests are each on their own
  PooledSink sink_;
  Buffer gathered_;
  std::vector<TensorView> inputs_;
  std::vector<RequestRef> again_;  // of a failed batch
  uint64_t batch_id_ = 0;          // of the present one
};

/// The checks of one request's outputs, given those of its batch: rows [first, first + count), which have been cut back
/// to `length` along the axes that follow it.
Status check_rows(std::span<const PortSpec> specs, std::span<const OutputChecks> checks,
                  std::span<const TensorView> outputs, int64_t first, int64_t count, const Follows* follows = nullptr,
                  int64_t length = 0);

}  // namespace inferkit
