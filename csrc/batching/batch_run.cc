#include "batching/batch_run.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "batching/cause.h"

namespace inferkit {

Status check_rows(std::span<const PortSpec> specs, std::span<const OutputChecks> checks,
                  std::span<const TensorView> outputs, int64_t first, int64_t count, const Follows* follows,
                  int64_t length) {
  for (size_t i = 0; i < checks.size(); ++i) {
    if (!checks[i].any()) continue;
    TensorView part = outputs[i];
    const size_t row_bytes = static_cast<size_t>(part.shape.elements(1, part.shape.rank())) * dtype_size(part.dtype);
    if (follows) part.shape = cut_shape(part.shape, (*follows)[i], length);
    part.shape[0] = count;
    part.data = static_cast<const std::byte*>(part.data) + static_cast<size_t>(first) * row_bytes;
    Shape spec = specs[i].any_shape ? part.shape : specs[i].shape;
    if (!spec.empty()) spec[0] = Shape::kFree;  // the rows are those of the request
    if (Status status = check_output(specs[i].name, specs[i].dtype, spec, part, checks[i]); !status.ok()) return status;
  }
  return {};
}

BatchRun::BatchRun(Runner& runner, BufferPool& pool, const BatcherOptions& options, const Clock& clock,
                   Recorder& recorder, Predictor& predictor, RowProof& proof, PadProof& pad_proof, PadCost& pad_cost,
                   Alike* alike)
    : runner_(runner),
      pool_(pool),
      options_(options),
      clock_(clock),
      recorder_(recorder),
      predictor_(predictor),
      proof_(proof),
      pad_proof_(pad_proof),
      pad_cost_(pad_cost),
      alike_(alike),
      sink_(runner.outputs(), pool),
      inputs_(runner.inputs().size()) {}

void BatchRun::gather(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows, bool keep) {
  const auto specs = runner_.inputs();
  const int64_t all = layout.run_rows(rows);
  if (requests.size() == 1 && rows == all && requests[0]->length == layout.length) {
    for (size_t i = 0; i < specs.size(); ++i) inputs_[i] = requests[0]->input(i, specs[i].dtype);
    return;
  }
  gathered_ = pool_.acquire(layout.offset(specs.size(), all), "batch input");
  for (size_t i = 0; i < specs.size(); ++i) {
    std::byte* const begin = gathered_.data() + layout.offset(i, all);
    std::byte* at = begin;
    inputs_[i] = {specs[i].dtype, layout.shape(i, all), begin};
    if (layout.is_shared(i)) {
      std::ranges::copy(layout.value(i), begin);
      continue;
    }
    for (const RequestRef& request : requests) {
      const size_t bytes = layout.row_bytes[i] * static_cast<size_t>(request->rows);
      const auto* from = static_cast<const std::byte*>(request->input(i, specs[i].dtype).data);
      if (request->length != layout.length && layout.padding->pads(i)) {
        fill_up(layout.padding->input(i), specs[i].dtype, layout.rows[i], request->rows, request->length, from, at);
      } else {
        std::memcpy(at, from, bytes);
      }
      at += bytes;
    }
    // What fills it up is a row that the model is known to take.
    for (int64_t row = rows; row < all; ++row, at += layout.row_bytes[i]) std::memcpy(at, begin, layout.row_bytes[i]);
  }
  if (layout.text || keep) return;  // of text, the views that were gathered show what lies there
  // Read again only where they are to run again after a failure, and never for those that have ended.
  for (const RequestRef& request : requests) {
    if (request->by_content) continue;  // until it is delivered: others are compared with it
    if (!options_.isolate_failures || request->done()) request->inputs.release();
  }
}

BatchRun::Outcome BatchRun::execute(std::span<const RequestRef> requests, const RowLayout& layout,
                                    int64_t rows) noexcept {
  Outcome out;
  out.started = clock_.now();
  for (const RequestRef& request : requests) request->times.started.store(out.started, std::memory_order_relaxed);
  Nanos once = 0;  // what is no part of a run's duration
  const bool padded = std::ranges::any_of(requests, [&](const auto& r) { return r->length != layout.length; });
  try {
    if (padded) {
      run_padded(requests, layout, rows, out, once);
    } else {
      run_rows(requests, layout, rows, out, once);
    }
  } catch (...) {
    out.status = current_exception_status();
  }
  if (!out.outputs) out.outputs = sink_.take();
  gathered_.release();
  out.finished = clock_.now();
  if (!out.status.ok()) return out;
  PadRun run{.first = !layout.cost.has_run(rows), .took = out.finished - out.started - once};
  if (!out.as_it_came) predictor_.learn(layout, rows, run.took, out.finished, out.model);
  run.first |= once > 0;  // what is compared beside it is not counted, but warms or spoils the caches
  if (layout.padding) count_elements(requests, layout, out, run);
  return out;
}

/// A run of requests as they came, which a model whose number of rows is fixed has filled up.
void BatchRun::run_rows(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows, Outcome& out,
                        Nanos& once) {
  const HeldModel model = runner_.hold();
  out.model = model.generation;
  out.keeps = keeps_answers(*model, options_);
  const int64_t all = layout.run_rows(rows);
  const bool shared = layout.fixed_rows && requests[0]->rows != all;  // its rows stand beside others, or copies
  const auto refuse = [&] { return proof_.refusal(requests[0]->rows, all); };
  if (shared && proof_.rows_mix(model.generation)) throw Error(refuse());
  gather(requests, layout, rows);
  run_once(model, all, out);
  if (!shared || !out.status.ok()) return;
  bool apart = true;
  if (proof_.known(model.generation)) {
    apart = !proof_.rows_mix(model.generation);
  } else {
    const Nanos begin = clock_.now();
    apart = proof_.find_out(model, pool_, layout, inputs_, sink_.views());
    once += clock_.now() - begin;
  }
  if (!apart) out.status = refuse();
}

/// A run of requests of which some are shorter than the batch is padded to.
void BatchRun::run_padded(std::span<const RequestRef> requests, const RowLayout& layout, int64_t rows, Outcome& out,
                          Nanos& once) {
  const HeldModel model = runner_.hold();
  out.model = model.generation;
  out.keeps = keeps_answers(*model, options_);
  PadProof::Look known = pad_proof_.look(model.generation, layout.length, batch_id_);
  bool apart = known.apart;
  Status failure;
  if (!apart) {
    gather(requests, layout, rows, true);
    run_once(model, rows, out);
    if (out.status.code == ErrorCode::kDevice) return;  // it says nothing about padding
    if (known.wants) {
      failure = out.status;
      const Nanos begin = clock_.now();
      apart = !failure.ok() || !prove(requests, layout, model, known);
      once += clock_.now() - begin;
    }
    // Nobody who waits gets an answer that was not cut back.
    const auto waits = [&](const RequestRef& r) { return r->length != layout.length && is_wanted(*r); };
    apart |= !known.follows && std::ranges::any_of(requests, waits);
  }
  if (apart && requests.size() > 1) {
    out.apart = true;
    out.status = {ErrorCode::kInference, Reason::kNone, "the requests of this batch cannot be padded", nullptr};
    return;
  }
  if (apart) {
    for (size_t i = 0; i < inputs_.size(); ++i) inputs_[i] = requests[0]->input(i, runner_.inputs()[i].dtype);
    out.as_it_came = true;
    run_once(model, rows, out);
    // Padded it failed, and as it came it did not: that length may be too long for the model.
    if (!failure.ok() && out.status.ok()) {
      pad_proof_.cannot_run(model.generation, layout.length, batch_id_, failure.message);
    }
  }
  if (out.status.ok() && !apart) cut_answers(requests, layout, std::move(known.follows), out);
}

void BatchRun::run_once(const HeldModel& model, int64_t rows, Outcome& out) {
  sink_.prepare(rows);
  out.status = model->run(inputs_, sink_);
  if (out.status.ok()) out.status = sink_.complete();
}

/// Compares the answer that one of them has just got with its own. False where they are to run one by one. Afterwards
/// it is known what to cut, unless nobody waits for that.
bool BatchRun::prove(std::span<const RequestRef> requests, const RowLayout& layout, const HeldModel& model,
                     PadProof::Look& known) {
  const Request* shortest = nullptr;
  int64_t row = 0, first_row = 0;
  for (const RequestRef& request : requests) {
    const int64_t least = shortest ? shortest->length : layout.length;
    if (request->length < least && is_wanted(*request)) {
      shortest = request.get();
      first_row = row;
    }
    row += request->rows;
  }
  if (!shortest) return true;  // nobody waits for what is not proven
  std::vector<TensorView> own(inputs_.size());
  for (size_t i = 0; i < own.size(); ++i) own[i] = shortest->input(i, runner_.inputs()[i].dtype);
  PooledSink sink(runner_.outputs(), pool_);
  sink.prepare(shortest->rows);
  if (!model->run(own, sink).ok() || !sink.complete().ok()) return false;
  const PadSample sample{runner_.outputs(), sink.views(), sink_.views(), shortest->length, layout.length, first_row};
  std::string why;
  const std::optional<Follows> follows = follows_of(sample, why);
  if (follows && is_same(sample, why)) {
    known.follows = pad_proof_.learn(model.generation, *follows);
    if (!known.follows) return false;  // another model took its place: nothing more is learnt of this one
    if (*known.follows == *follows) {
      pad_proof_.passed(model.generation, layout.length);
      return true;
    }
    why = cat("the outputs' shapes grow with the length of a request in one way up to ", layout.length,
              ", and in another way elsewhere");
  }
  pad_proof_.refuse(model.generation, std::move(why));
  return false;
}

/// Leaves of each answer what belongs to its request.
void BatchRun::cut_answers(std::span<const RequestRef> requests, const RowLayout& layout,
                           std::shared_ptr<const Follows> follows, Outcome& out) {
  if (!follows) return;  // all that are shorter have ended
  out.outputs = sink_.take();
  for (size_t o = 0; o < follows->size(); ++o) {
    BatchOutput& output = out.outputs->outputs[o];
    output.follows = (*follows)[o];
    if (!output.follows) continue;
    for (size_t axis = 0; axis < output.shape.rank(); ++axis) {
      if (!(output.follows >> axis & 1) || output.shape[axis] == layout.length) continue;
      throw Error(ErrorCode::kOutput, Reason::kShape,
                  cat("output '", runner_.outputs()[o].name, "' has shape ", output.shape.str(), "; axis ", axis,
                      " was as long as the padded inputs before, which have ", layout.length));
    }
    std::byte* rows = output.buffer.data();
    for (const RequestRef& request : requests) {
      Shape shape = output.shape;
      shape[0] = request->rows;
      if (request->length != layout.length) {
        cut_back(rows, shape, output.follows, request->length, dtype_size(output.dtype));
      }
      rows += output.row_bytes() * static_cast<size_t>(request->rows);
    }
  }
  out.follows = std::move(follows);
}

/// What was padding, and what that cost.
void BatchRun::count_elements(std::span<const RequestRef> requests, const RowLayout& layout, Outcome& out, PadRun run) {
  for (const RequestRef& request : requests) {
    run.own += layout.padded_elements(request->rows, request->length);
    run.all += layout.padded_elements(request->rows, out.as_it_came ? request->length : layout.length);
  }
  if (run.all) out.padding = static_cast<int8_t>(100 * (run.all - run.own) / run.all);
  recorder_.elements(run.all, run.all - run.own);
  const int64_t longest = layout.padding->longest();
  if (out.as_it_came || (longest && layout.length > longest)) return;
  run.ran = layout.length;
  run.padded = layout.padding->length_for(layout.length);
  run.requests = static_cast<int64_t>(requests.size());
  const Forecast row = layout.cost.forecast(1);
  run.row_took = row.seen ? row.typical : 0;
  run.row_elements = layout.padded_elements(1, layout.length);
  if (out.model == runner_.generation()) pad_cost_.learn(run);
}

namespace {
/// A copy; without memory for the message, one with the same code and cause and a message that needs none.
Status copy_of(const Status& status) noexcept {
  try {
    return status;
  } catch (...) {
    return {status.code, status.reason, "out of memory", status.cause};
  }
}
}  // namespace

Status BatchRun::judge(const Request& request, const Outcome& outcome, int64_t first_row) noexcept {
  if (!outcome.status.ok() || options_.outputs.empty()) return copy_of(outcome.status);
  try {
    return check_rows(runner_.outputs(), options_.outputs, sink_.views(), first_row, request.rows,
                      outcome.follows.get(), request.length);
  } catch (...) {
    return current_exception_status();
  }
}

bool BatchRun::is_wanted(const Request& request) const noexcept {
  return !request.done() ||
         (request.by_content && alike_ && alike_->coalescer && alike_->coalescer->waited_for(request));
}

bool BatchRun::is_over(Request& request) noexcept {
  if (is_wanted(request)) return false;
  if (request.by_content && alike_ && alike_->coalescer) {  // nobody is compared with what is let go of here
    RequestList nobody;
    alike_->coalescer->finish(request, nobody);
  }
  request.inputs.release();
  return true;
}

void BatchRun::deliver(Request& request, const Outcome& outcome, Status status, int64_t first_row, int64_t batch_rows,
                       uint64_t batch_id, End end) noexcept {
  if (request.by_content && alike_) {
    RequestList followers;
    if (alike_->coalescer) alike_->coalescer->finish(request, followers);
    // First, so that who has an answer and asks again finds it.
    if (alike_->cache && outcome.keeps && status.ok() && outcome.outputs) {
      alike_->cache->keep(request, *outcome.outputs, first_row, outcome.model);
    }
    while (const RequestRef follower = followers.pop()) {
      give(*follower, outcome, copy_of(status), first_row, batch_rows, batch_id, end);
    }
  }
  request.inputs.release();
  give(request, outcome, std::move(status), first_row, batch_rows, batch_id, end);
}

void BatchRun::give(Request& request, const Outcome& outcome, Status status, int64_t first_row, int64_t batch_rows,
                    uint64_t batch_id, End end) noexcept {
  // Before the claim: others may wait for what follows that, and hold the GIL.
  if (!request.done()) part_cause(status);
  if (!request.claim()) return;  // cancelled or expired meanwhile
  const auto load = [](const std::atomic<Nanos>& at) { return at.load(std::memory_order_relaxed); };
  const Nanos enqueued = load(request.times.enqueued);
  // Of who followed another, the run began before it came, perhaps.
  const Nanos started = std::max(enqueued, outcome.started), finished = std::max(enqueued, outcome.finished);
  if (!load(request.times.dequeued)) request.times.dequeued.store(started, std::memory_order_relaxed);
  if (!load(request.times.started)) request.times.started.store(started, std::memory_order_relaxed);
  request.batch_id = batch_id;
  request.batch_rows = batch_rows;
  request.times.finished.store(finished, std::memory_order_relaxed);
  recorder_.latency(enqueued, started, finished);
  if (finished > request.deadline) {
    request.why_not = WhyNot::kRanLate;
    return end(request, Phase::kExpired);
  }
  request.status = std::move(status);
  if (!request.status.ok()) return end(request, Phase::kError);
  request.outputs = outcome.outputs;
  request.first_row = first_row;
  end(request, Phase::kResult);
}

/// What is left of a failed batch, until each request has its end: when the last run was over.
Nanos BatchRun::run_again(Batch& batch, bool apart, uint64_t batch_id, End end) noexcept {
  Again again{*batch.layout, batch_id, end, 0, 0};
  try {
    // A list of our own: whoever closes the batcher goes through the batch's at any time.
    again_.reserve(batch.requests.size());
  } catch (const std::bad_alloc&) {
    for (const RequestRef& request : batch.requests) run_alone(request, again);
    return again.finished;
  }
  for (const RequestRef& request : batch.requests) {
    if (!is_over(*request)) again_.push_back(request);
  }
  again.groups = apart ? 0 : again_.size() / 2;
  if (!again_.empty()) halve(again_, again);
  again_.clear();
  return again.finished;
}

/// Runs a request by itself, unless it has ended, and gives it its end. Whether it went well.
bool BatchRun::run_alone(const RequestRef& ref, Again& again) noexcept {
  Request& request = *ref;
  if (is_over(request)) return true;
  const Outcome one = execute({&ref, 1}, again.layout, request.rows);
  again.finished = one.finished;
  Status status = judge(request, one, 0);
  const bool well = status.ok();
  deliver(request, one, std::move(status), 0, request.rows, again.batch_id, again.end);
  return well;
}

/// Runs requests together, but for those that have ended, and ends those with which that goes well. The others are
/// moved to the front: how many. Of a single one, and where too many groups have been tried, nobody is left.
BatchRun::Tried BatchRun::try_together(std::span<RequestRef> requests, Again& again) noexcept {
  size_t count = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!is_over(*requests[i])) std::swap(requests[count++], requests[i]);
  }
  const std::span<RequestRef> open = requests.first(count);
  if (count < 2 || again.groups == 0) {
    bool well = true;
    for (const RequestRef& request : open) well &= run_alone(request, again);
    return {well, 0};
  }
  --again.groups;
  int64_t rows = 0;
  for (const RequestRef& request : open) rows += request->rows;
  const Outcome all = execute(open, again.layout, rows);
  again.finished = all.finished;
  size_t failed = 0;
  bool well = true;
  int64_t row = 0;
  for (RequestRef& request : open) {
    const int64_t first = row;
    row += request->rows;
    Status status = judge(*request, all, first);
    well &= status.ok();
    if (status.ok()) {
      deliver(*request, all, std::move(status), first, rows, again.batch_id, again.end);
    } else {
      std::swap(open[failed++], request);
    }
  }
  return {well, failed};
}

/// One of these, at least, is to blame, as they have failed together; or so it seems, as all the others did not. Where
/// the first half goes well, it must be in the second, which is halved without a run.
void BatchRun::halve(std::span<RequestRef> suspects, Again& again) noexcept {
  while (suspects.size() > 1) {
    const std::span<RequestRef> left = suspects.first(suspects.size() / 2);
    const std::span<RequestRef> right = suspects.subspan(left.size());
    const Tried first = try_together(left, again);
    if (first.failed) halve(left.first(first.failed), again);
    if (first.well) {
      suspects = right;
    } else {
      suspects = right.first(try_together(right, again).failed);
    }
  }
  for (const RequestRef& request : suspects) run_alone(request, again);
}

void BatchRun::run(Batch& batch, uint64_t batch_id, End end) noexcept {
  recorder_.batch(batch.reason, batch.rows);
  batch_id_ = batch_id;
  TraceEntry record;
  record.id = record.batch_id = batch_id;
  record.rows = static_cast<uint32_t>(batch.requests.size());
  record.batch_rows = static_cast<uint32_t>(batch.rows);
  record.enqueued = batch.requests[0]->times.enqueued.load(std::memory_order_relaxed);
  record.dequeued = batch.requests[0]->times.dequeued.load(std::memory_order_relaxed);
  Outcome all = execute(batch.requests, *batch.layout, batch.rows);
  record.started = all.started;
  record.finished = all.finished;
  // A compiled model makes the same of a row in any batch: an output of it that breaks a check does so alone, too.
  // Of a device that has failed no request is guilty, and none would go better alone.
  const bool isolate =
      all.apart || (batch.requests.size() > 1 && options_.isolate_failures && all.status.code != ErrorCode::kDevice &&
                    (!all.status.ok() || runner_.needs_gil()));
  int64_t row = 0;
  for (const RequestRef& ref : batch.requests) {
    Request& request = *ref;
    if (!is_over(request)) {  // cancelled or expired meanwhile, else
      if (Status status = judge(request, all, row); status.ok() || !isolate) {
        deliver(request, all, std::move(status), row, batch.rows, batch_id, end);
      }
    }
    row += request.rows;
  }
  if (isolate) record.finished = std::max(record.finished, run_again(batch, all.apart, batch_id, end));
  record.priority = all.padding;
  record.outcome = uint8_t(all.status.ok() || all.apart ? Phase::kResult : Phase::kError);
  recorder_.trace_batch(record, batch.reason);
}

}  // namespace inferkit
