// What comes in: checks, refusals at the door, and how a request gets its place in the queue. The rest of Batcher is in
// batcher.cc.
#include <cmath>
#include <stdexcept>

#include "base/counted.h"
#include "base/text.h"
#include "batching/batcher.h"

namespace inferkit {
namespace {

/// Rounded to so many, for a message.
double three_digits(double value) {
  if (!(value > 0) || !std::isfinite(value)) return value;
  const double scale = std::pow(10.0, 2 - std::floor(std::log10(value)));
  return std::round(value * scale) / scale;
}

}  // namespace

void Batcher::refuse_if_closed(TagSet* tags) {
  if (foreign()) {
    throw Error(ErrorCode::kClosed,
                "this batcher belongs to the parent process: make one in each process after fork()");
  }
  if (state_.load() == State::kOpen) return;
  recorder_.rejected(WhyNot::kClosed, tags);
  throw Error(ErrorCode::kClosed, "the batcher is draining or closed and takes no more requests");
}

void Batcher::refuse_invalid(TagSet* tags) {
  refuse_if_closed(tags);
  recorder_.invalid(tags);
}

Checked Batcher::check(std::span<const StridedView> inputs, TagSet* tags) {
  refuse_if_closed(tags);
  try {
    Checked checked = intake_.check(inputs, runner_->generation());
    if (intake_.is_short(checked) && proof_.rows_mix(runner_->generation()))
      throw Error(proof_.refusal(checked.rows, max_rows()));
    return checked;
  } catch (const Error&) {
    recorder_.invalid(tags);
    throw;
  }
}

void Batcher::scan(std::span<const StridedView> inputs, TagSet* tags) {
  try {
    intake_.scan(inputs);
  } catch (const Error&) {
    recorder_.invalid(tags);
    throw;
  }
}

Buffer Batcher::copy(std::span<const StridedView> inputs, const Checked& checked, TagSet* tags) {
  try {
    return intake_.copy(inputs, checked, *pool_);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kValidation) recorder_.invalid(tags);
    if (error.code() == ErrorCode::kPoolExhausted) recorder_.rejected(WhyNot::kMemory, tags);
    throw;
  }
}

/// A refusal has no Request, but a record.
void Batcher::trace_refusal(Phase end, WhyNot why, uint64_t id, const SubmitOptions& options, int64_t rows, Nanos now) {
  TraceEntry refused;
  refused.id = id;
  refused.priority = static_cast<int8_t>(options.priority);
  if (options.tags) refused.tags = options.tags->id;
  refused.rows = static_cast<uint32_t>(rows);
  refused.enqueued = refused.finished = now;
  recorder_.trace_call(refused, end, Recorder::traced(why), options.name);
}

ClientRef Batcher::client(std::string_view name, TagSet* tags) {
  if (foreign()) return nullptr;  // the table's lock may be held by a thread of the parent
  try {
    return clients_.find(name);
  } catch (const Error&) {
    recorder_.rejected(WhyNot::kClients, tags);
    throw;
  }
}

void Batcher::enter_client(const Checked& checked, const SubmitOptions& options, Nanos now) {
  Client& client = *options.client;
  const Nanos wait = client.arrives(now);
  if (wait == 0) return;
  recorder_.rejected(WhyNot::kClientRate, options.tags);
  trace_refusal(Phase::kRejected, WhyNot::kClientRate, options.id ? options.id : new_id(), options, checked.rows, now);
  throw Refusal(ErrorCode::kQueueFull,
                cat("client ", quote(client.name), " has used up its rate of ", client.options.rate,
                    client.options.rate == 1 ? " request" : " requests", " a second (burst=", client.options.burst,
                    "): try again in ", three_digits(double(wait) * 1e-9), " s"),
                wait);
}

void Batcher::refuse_full(const Request& request, const SubmitOptions& options) {
  const bool greedy = request.member && !options_.wait_when_full && scheduler_.depth() < options_.max_queue_size;
  const WhyNot why = greedy                    ? WhyNot::kClientShare
                     : options_.wait_when_full ? WhyNot::kWaitersFull
                                               : WhyNot::kQueueFull;
  recorder_.rejected(why, options.tags);
  trace_refusal(Phase::kRejected, why, request.id, options, request.rows,
                request.times.enqueued.load(std::memory_order_relaxed));
  if (greedy) {
    const Client& client = *request.member->client;
    throw Refusal(
        ErrorCode::kQueueFull,
        cat(client.name.empty() ? std::string("the requests without a client") : cat("client ", quote(client.name)),
            " may have no more places in the queue than are free, and has ", client.held(),
            " (max_queue_size=", options_.max_queue_size, "): try again later, or raise max_queue_size of the Batcher"),
        scheduler_.room_after(clock_.now(), request));
  }
  const std::string full = cat("the queue is full (max_queue_size=", options_.max_queue_size, ")");
  throw Refusal(ErrorCode::kQueueFull,
                options_.wait_when_full
                    ? cat(full, " and ", counted(options_.max_waiting, "request"),
                          options_.max_waiting == 1 ? " waits" : " wait", " for room already (max_waiting): wait ",
                          "for answers before you submit more, or raise max_waiting of the Batcher")
                    : cat(full, ": try again later, or raise max_queue_size of the Batcher"),
                scheduler_.room_after(clock_.now(), request));
}

/// Refused at once, it is told so while there is time to do something else, and nobody computes what comes too late.
void Batcher::refuse_if_late(const Checked& checked, const SubmitOptions& options, Nanos now, const Flow* flow) {
  const bool passed = options.deadline <= now;
  Outlook outlook;
  if (!passed) {
    outlook = scheduler_.outlook(*checked.layout, checked.rows, options.priority, options.deadline, now, flow);
    if (outlook.keeps(options.deadline)) return;
  }
  const bool itself = outlook.end > options.deadline - outlook.spare;
  const WhyNot why_not = passed ? WhyNot::kPassed : itself ? WhyNot::kLate : WhyNot::kOthersLate;
  recorder_.not_answered(why_not);
  recorder_.ended(Phase::kExpired, now, ErrorCode::kOk, options.tags);
  trace_refusal(Phase::kExpired, why_not, options.id ? options.id : new_id(), options, checked.rows, now);
  if (passed) throw Error(ErrorCode::kDeadline, "the request's deadline had passed when it was submitted");
  const Nanos has = options.deadline - now;
  // Nobody is served sooner for having waited where the run alone takes longer.
  const bool too_short = predictor_.forecast(*checked.layout, checked.rows).likely > has;
  const auto milliseconds = [](Nanos n) { return cat(three_digits(double(n) * 1e-6), " ms"); };
  const std::string why =
      itself ? cat("it has ", milliseconds(has), " left, and the requests before it and its own run take about ",
                   milliseconds(outlook.end - now),
                   outlook.cores > 0 ? ", waits for cores that other models use included" : "",
                   outlook.end > options.deadline
                       ? ""
                       : cat(", and ", milliseconds(outlook.spare), " of its time are kept in reserve"))
             : cat("it would go before requests that have been admitted, and they would be late by about ",
                   milliseconds(-outlook.others));
  const Nanos missing = std::max(outlook.end + outlook.spare - options.deadline, -outlook.others);
  throw Refusal(ErrorCode::kDeadline, cat("the request cannot be answered by its deadline: ", why),
                too_short ? kNever : missing);
}

RequestRef Batcher::admit(std::span<const StridedView> inputs, const Checked& checked, const SubmitOptions& options) {
  give_cores_back();
  try {
    return admit_one(inputs, checked, options);
  } catch (...) {
    if (options.client) options.client->refused();
    throw;
  }
}

RequestRef Batcher::admit_one(std::span<const StridedView> inputs, const Checked& checked,
                              const SubmitOptions& options) {
  if (options.priority < -kMaxPriority || options.priority > kMaxPriority) {
    throw std::invalid_argument(
        cat("priority must be between -", kMaxPriority, " and ", kMaxPriority, ", not ", options.priority));
  }
  const Nanos now = clock_.now();
  const ClientRef client = options.client ? options.client : clients_.anonymous();
  const StrandRef strand = client ? client->strand(*checked.layout, options.priority) : StrandRef();
  RequestRef request;
  Buffer copied;
  if (alike_ && options.deadline > now) {
    request = new_request(checked, options, client, strand, now);
    if (find_alike(request, inputs, checked, copied)) return request;
  }
  if (options.deadline != kNever) refuse_if_late(checked, options, now, strand ? &strand->flow : nullptr);
  if (!request) request = new_request(checked, options, client, strand, now);
  if (client && !options_.wait_when_full && !scheduler_.spares(client->held())) {
    sweep();
    if (!scheduler_.spares(client->held())) refuse_full(*request, options);
  }
  request->place = scheduler_.try_reserve();
  if (!request->place) {
    sweep();
    request->place = scheduler_.try_reserve();
    if (!request->place && !(options_.wait_when_full && scheduler_.may_park())) refuse_full(*request, options);
  }
  request->inputs = copied ? std::move(copied) : copy(inputs, checked, options.tags);
  if (request->place) {
    if (request->by_content && alike_->coalescer) {
      Place place = std::move(request->place);  // who follows may be handed the lead at once, with a place of its own
      if (alike_->coalescer->join_or_lead(request)) {
        request->parked = true;
        alike_->coalesced.add();
        return request;
      }
      request->place = std::move(place);
    }
    if (client) request->member->hold();
    request->advance(Phase::kWaiting, Phase::kQueued);
  } else {
    if (options_.full_timeout < kNever - now) request->admit_by = now + options_.full_timeout;
    request->parked = true;
    if (!scheduler_.park(request)) refuse_full(*request, options);
    if (state_.load() == State::kClosed) reject_waiting();
  }
  return request;
}

/// One that counts as open.
RequestRef Batcher::new_request(const Checked& checked, const SubmitOptions& options, const ClientRef& client,
                                const StrandRef& strand, Nanos now) {
  RequestRef request(new Request(checked.layout, checked.rows, checked.single_row, options, checked.length));
  if (client) request->member = std::make_unique<Membership>(*request, client, strand);
  if (!request->id) request->id = new_id();
  request->times.enqueued.store(now, std::memory_order_relaxed);
  recorder_.arrives(now);
  request->open = OpenCount::Hold(open_);
  refuse_if_closed(options.tags);  // again: whoever closes sees what is open, or this sees the close
  return request;
}

/// Whether it has an answer that was kept, or waits for that of another one. Else `copied` has its inputs. By then its
/// values have been checked, as all others' are.
bool Batcher::find_alike(const RequestRef& request, std::span<const StridedView> inputs, const Checked& checked,
                         Buffer& copied) {
  const HeldModel model = runner_->hold();
  const bool kept = keeps_answers(*model, options_);
  if (!kept && !alike_->coalescer) return false;
  copied = copy(inputs, checked, request->tags);
  const Content content{runner_->inputs(), *checked.layout, checked.rows, checked.length, copied};
  request->by_content = std::make_unique<ByContent>(alike_->hash.of(content), model.generation);
  if (IntrusivePtr<BatchOutputs> answer =
          kept ? alike_->cache->find(request->by_content->hash, content, model.generation) : nullptr) {
    request->parked = true;
    answer_at_once(*request, std::move(answer));
    return true;
  }
  if (!alike_->coalescer || !alike_->coalescer->join(request, copied)) return false;
  request->parked = true;
  alike_->coalesced.add();
  return true;
}

RequestRef Batcher::refused(const Error& why, const SubmitOptions& options) const {
  RequestRef request(new Request(nullptr, 0, false, options));
  const Nanos now = clock_.now();
  request->times.enqueued.store(now, std::memory_order_relaxed);
  request->times.finished.store(now, std::memory_order_relaxed);
  const auto* refusal = dynamic_cast<const Refusal*>(&why);
  request->refuse(why.status(), refusal ? refusal->retry_after() : kNever);
  return request;
}

}  // namespace inferkit
