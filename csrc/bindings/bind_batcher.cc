// The Batcher class.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <tuple>

#include "batching/pad_trial.h"
#include "bindings/arguments.h"
#include "bindings/attributes.h"
#include "bindings/batcher_calls.h"
#include "bindings/batcher_figures.h"
#include "bindings/bound.h"
#include "bindings/context_deadline.h"
#include "bindings/py_batcher.h"
#include "bindings/py_model.h"
#include "bindings/request_io.h"
#include "bindings/signal_watch.h"
#include "bindings/ticket.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

/// A model's callable may refer to the batcher that runs it: the garbage collector must see the arrow from here to the
/// core, and from there to the model.
void visit_core(PyHeapTypeObject* heap_type) {
  with_new(heap_type);
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (const auto* batcher = bound_or_null<PyBatcher>(self)) Py_VISIT(batcher->core.ptr());
    return 0;
  };
  type->tp_clear = [](PyObject*) { return 0; };  // the model lets go of its callable
}

constexpr Nanos kClosingSlice = 50'000'000;  // where a signal does not end the sleep by itself

/// What a clock that shows `shown` may be moved by: no sum of what it shows and of a duration is too large for Nanos.
Nanos time_of_clock(py::handle value, const char* name, Nanos shown) {
  constexpr double kMostShown = 8e9;
  const double got = number(value, name, "a number of seconds"), most = kMostShown - double(shown) / 1e9;
  if (!(got >= 0 && got <= most)) {
    throw std::invalid_argument(cat(name, " must be a number of seconds between 0 and ", most, ", got ", got));
  }
  return std::llround(got * 1e9);
}

Nanos until_from(py::handle timeout) {
  const Nanos left = seconds_or_never(timeout, "timeout");
  return left == kNever ? kNever : SteadyClock::instance().now() + left;
}

using Timeout = Given<std::optional<double>>;

/// What does not sleep of closing: admits nothing more, and queues what the event loops have staged, or ends it.
void begin_close(const PyBatcher& self, bool drain_first) {
  EventLoop::forget_closed();
  Batcher& batcher = self.core->batcher();
  if (drain_first) {
    batcher.begin_drain();
  } else {
    batcher.stop_admitting();
  }
  self.core->flush();
  if (!drain_first) batcher.refuse_all();
}

/// Whether `done(until)`, which sleeps until it is or `until` comes, came true before `until`. Hears signals.
template <class Done>
bool sleep_until(const PyBatcher& self, Nanos until, Done&& done) {
  bool is_done = false;
  sleep_with_signals(
      *self.core,
      [&](Nanos slice) {
        is_done = done(std::min(until, slice));
        return is_done || until <= slice ? Waited::kDone : Waited::kTimedOut;
      },
      kClosingSlice);
  return is_done;
}

/// Before `what` sleeps on the thread of an event loop: for requests, as to stop the workers takes no time.
void may_block(const PyBatcher& self, Nanos until, bool drain_first, const char* what, const char* instead) {
  const Batcher& batcher = self.core->batcher();
  if (!self.core->on_loop() || until <= SteadyClock::instance().now() || batcher.inside()) return;
  if (unanswered(self) == 0 || (!drain_first && !batcher.busy())) return;
  constexpr int kCaller = 2;  // of the method in Python
  self.core->may_block(what, cat("its requests have ended: ", instead), kCaller);
}

bool drain(const PyBatcher& self, const Timeout& timeout) {
  const Nanos until = until_from(timeout);
  Batcher& batcher = self.core->batcher();
  may_block(self, until, true, "batcher.drain()",
            "await batcher.aclose(), or asyncio.to_thread(batcher.drain), instead");
  begin_close(self, true);
  if (batcher.inside()) return false;
  return sleep_until(self, until, [&](Nanos slice) { return batcher.drain(slice); });
}

/// None within a run of its own, which it cannot wait for: of a model's callable, or of a signal handler that came
/// while the caller ran its request.
std::optional<bool> close(const PyBatcher& self, const Given<bool>& drain, const Timeout& timeout) {
  const bool drain_first = flag(drain, "drain");
  const Nanos until = until_from(timeout);
  Batcher& batcher = self.core->batcher();
  may_block(self, until, drain_first, "batcher.close()", "await batcher.aclose() instead");
  begin_close(self, drain_first);
  if (batcher.inside()) return std::nullopt;
  if (finalizing()) return batcher.close(drain_first, 0);  // no more waiting: see refuse_endless_wait
  if (sleep_until(self, until, [&](Nanos slice) { return batcher.close(drain_first, slice); })) return true;
  batcher.refuse_all();
  batcher.end_running();
  return false;
}

bool poll_close(const PyBatcher& self, const Given<bool>& drain) {
  const bool drain_first = flag(drain, "drain");
  const py::gil_scoped_release release;
  return self.core->batcher().close(drain_first, SteadyClock::instance().now());
}

std::shared_ptr<ManualClock> clock_from(py::handle clock) {
  if (clock.is_none()) return nullptr;
  // Not isinstance(), which asks an object that is none for its __class__.
  if (!PyObject_TypeCheck(clock.ptr(), reinterpret_cast<PyTypeObject*>(py::type::of<ManualClock>().ptr()))) {
    throw py::type_error(cat("clock must be a ManualClock, got ", Py_TYPE(clock.ptr())->tp_name));
  }
  bound<ManualClock>(clock.ptr());
  return py::cast<std::shared_ptr<ManualClock>>(clock);
}

/// Name, weight, rate and burst of a Client of Python's, which has checked them.
using NamedClient = std::tuple<std::string, double, double, double>;

ClientOptions client_from(const NamedClient& given) {
  return {.weight = std::get<1>(given), .rate = std::get<2>(given), .burst = std::get<3>(given)};
}

/// For each input the axis, 0 for none, and the bytes of one element, which Python has checked.
using PadInputs = std::vector<std::pair<size_t, py::bytes>>;

PadOptions pad_from(const PadInputs& inputs, std::vector<int64_t> lengths, int64_t longest) {
  PadOptions out;
  for (const auto& [axis, bytes] : inputs) {
    PaddedInput& input = out.inputs.emplace_back();
    const std::string_view element(bytes);
    input.axis = axis;
    std::memcpy(input.element.data(), element.data(), std::min(element.size(), input.element.size()));
  }
  out.lengths = std::move(lengths);
  out.longest = longest;
  return out;
}

/// Why requests to `model` cannot be padded; "" where nothing speaks against it.
std::string pad_refusal(const PyBatcher& self, const py::object& model, const std::vector<std::vector<int64_t>>& rows,
                        const std::vector<int64_t>& lengths, const Given<bool>& brief) {
  Batcher& batcher = self.core->batcher();
  const std::shared_ptr<Runner> runner = py_model(model).runner;
  if (!batcher.padding()) return {};
  std::vector<Shape> shapes;
  for (const auto& row : rows) shapes.emplace_back(std::span(row));
  if (shapes.size() != runner->inputs().size()) throw std::invalid_argument("a shape is missing");
  const TrialLimits limits{batcher.max_rows(), batcher.options().max_batch_elements, flag(brief, "brief")};
  const auto stops = [](const Status& status) {
    const py::gil_scoped_acquire gil;
    return asks_to_stop(status);
  };
  return without_gil(
      [&] { return try_padding(*runner, batcher.pool(), *batcher.padding(), shapes, lengths, limits, stops); });
}

std::vector<int64_t> pad_lengths(const PyBatcher& self, int64_t most) {
  const Padding* padding = self.core->batcher().padding();
  if (most > Padding::kLongest) {
    throw std::invalid_argument(
        cat("requests are padded to at most ", Padding::kLongest, " places, so none of ", most, " can be warmed up"));
  }
  return padding ? padding->lengths(most) : std::vector<int64_t>();
}

/// What Python has to say of a batcher that goes. An exception in a __del__ is printed and forgotten, so a Ctrl-C that
/// comes meanwhile is told once more: the interpreter hears of it where it goes on, in the code that let go of the
/// batcher, if no Python runs till then. So the set of open batchers must not be told of its end by a weak reference.
void dropped(py::handle self) {
  bool interrupted = false;
  const auto call = [&](const char* method) {
    try {
      self.attr(method)();
    } catch (const py::error_already_set& error) {
      if (!error.matches(PyExc_KeyboardInterrupt)) throw;
      interrupted = true;
    }
  };
  if (!find_attribute(self, "_dropped")) return;  // a subclass of the core's alone
  call("_dropped");
  if (!interrupted) return;
  call("_forget");
  PyErr_SetInterrupt();
}

/// What a model takes is learnt from inputs that are made up: at once where it is the present one, else when it takes
/// that one's place. Where a request of such inputs would be refused, there is nothing to learn.
void teach(const PyBatcher& self, const py::dict& feeds, const py::object& model) {
  Batcher& batcher = self.core->batcher();
  const std::shared_ptr<Runner> runner = py_model(model).runner;
  if (runner->needs_gil()) return;
  PyObject* const arguments[] = {feeds.ptr()};
  try {
    RequestInputs inputs(arguments, runner->inputs());
    inputs.look(batcher.pool(), runner->inputs());
    if (!inputs.in_place()) return;
    if (runner != py_model(self.core->model()).runner) return self.core->rehearse(runner, inputs.views());
    const py::gil_scoped_release release;
    batcher.teach(inputs.views());
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kValidation) throw;
  }
}

}  // namespace

void bind_batcher(py::module_& m) {
  bind_batcher_core();
  bind_event_loop();
  bind_ticket(m);
  add_context_deadline(m);

  using Flag = Given<bool>;
  using Number = Given<double>;
  using Count = Given<int64_t>;

  py::class_<OutputChecks>(m, "OutputChecks", py::custom_type_setup(with_new))
      .def(py::init([](const Flag& finite, const Flag& not_all_zero, const Flag& shape, const Flag& normalized,
                       const Number& tolerance) {
             const double off = number(tolerance, "tolerance");
             if (off < 0) throw std::invalid_argument(cat("tolerance must not be negative, got ", off));
             return OutputChecks{flag(finite, "finite"), flag(not_all_zero, "not_all_zero"), flag(shape, "shape"),
                                 flag(normalized, "normalized"), off};
           }),
           py::kw_only(), "finite"_a, "not_all_zero"_a, "shape"_a, "normalized"_a, "tolerance"_a);

  py::class_<ManualClock, std::shared_ptr<ManualClock>>(
      m, "ManualClock", py::custom_type_setup(with_new),
      "A clock for tests: it stands still until it is told to move; then call ``_poke``.")
      .def(
          py::init([](const Number& start) { return std::make_shared<ManualClock>(time_of_clock(start, "start", 0)); }),
          "start"_a = 1.0)
      .def(
          "advance", [](ManualClock& self, const Number& by) { self.advance(time_of_clock(by, "by", self.now())); },
          "by"_a, "Move on, in seconds.")
      .def(
          "now", [](const ManualClock& self) { return double(self.now()) / 1e9; },
          "The time that it shows, in seconds.")
      .def(
          "_nanos_after",
          [](const ManualClock& self, const Number& duration) { return self.now() + seconds(duration, "duration"); },
          "duration"_a, "The time that it will show then, in nanoseconds.");

  py::class_<PyBatcher> batcher(m, "Batcher", py::custom_type_setup(visit_core));
  batcher
      .def(py::init([](const py::object& model, const Count& max_batch_size,
                       const Given<std::optional<int64_t>>& max_batch_elements, const Number& max_delay,
                       const Flag& auto_size, const Flag& auto_delay, const Number& target_p99, const Timeout& ageing,
                       const Number& weight, const Given<std::optional<int64_t>>& max_queue_size, const Count& workers,
                       const Given<std::optional<int64_t>>& max_concurrent, const Flag& wait_when_full,
                       const Timeout& full_timeout, const Given<std::optional<int64_t>>& max_waiting,
                       const Flag& caller_runs, const Flag& isolate_failures, const Number& inline_limit,
                       const Count& trace_size, const Count& max_tag_sets,
                       std::vector<std::optional<InputChecks>> inputs, std::vector<OutputChecks> outputs,
                       const std::vector<NamedClient>& clients, const NamedClient& default_client, const PadInputs& pad,
                       std::vector<int64_t> pad_to, int64_t pad_longest, const Flag& coalesce,
                       const Given<std::optional<int64_t>>& result_cache, const Flag& cache_callables,
                       const Given<std::optional<ManualClock>>& clock) {
             const PyModel& of = py_model(model);
             constexpr int64_t kMost = std::numeric_limits<int>::max();
             BatcherOptions options;
             options.max_batch_size = integer(max_batch_size, "max_batch_size", 1);
             options.max_batch_elements = integer_or(0, max_batch_elements, "max_batch_elements", 1);
             options.max_delay = seconds(max_delay, "max_delay");
             options.pace = {.sizes = flag(auto_size, "auto_size"), .company = flag(auto_delay, "auto_delay")};
             options.pace.target = seconds(target_p99, "target_p99");
             if (!options.pace.company) options.pace.longest = options.max_delay;
             options.ageing = seconds_or_never(ageing, "ageing");
             options.weight = number(weight, "weight");
             options.max_queue_size = static_cast<size_t>(integer_or(0, max_queue_size, "max_queue_size", 1));
             options.workers = static_cast<int>(integer(workers, "workers", 1, 1024));
             options.max_concurrent = static_cast<int>(integer_or(0, max_concurrent, "max_concurrent", 1, kMost));
             options.wait_when_full = flag(wait_when_full, "wait_when_full");
             options.full_timeout = seconds_or_never(full_timeout, "full_timeout");
             options.max_waiting = static_cast<size_t>(integer_or(0, max_waiting, "max_waiting", 1));
             options.caller_runs = flag(caller_runs, "caller_runs");
             options.isolate_failures = flag(isolate_failures, "isolate_failures");
             options.inline_limit = seconds(inline_limit, "inline_limit");
             options.trace_size = static_cast<size_t>(integer(trace_size, "trace_size", 0, int64_t{1} << 24));
             options.max_tag_sets =
                 static_cast<size_t>(integer(max_tag_sets, "max_tag_sets", 1, int64_t{TagTable::kMost}));
             options.inputs = of.asked;
             for (size_t i = 0; i < inputs.size() && i < of.asked.size(); ++i) {
               if (inputs[i]) options.inputs[i] = *inputs[i];
             }
             options.outputs = std::move(outputs);
             for (const NamedClient& one : clients) options.clients.emplace_back(std::get<0>(one), client_from(one));
             options.default_client = client_from(default_client);
             options.pad = pad_from(pad, std::move(pad_to), pad_longest);
             options.coalesce = flag(coalesce, "coalesce");
             options.result_cache = static_cast<size_t>(integer_or(0, result_cache, "result_cache", 1));
             options.cache_callables = flag(cache_callables, "cache_callables");
             if (options.result_cache && !keeps_answers(*of.runner, options)) {
               throw std::invalid_argument(
                   "result_cache keeps the answers of a wrapped callable only where cache_callables=True says that "
                   "equal "
                   "inputs have equal answers");
             }
             return PyBatcher{BatcherCore::make(model, std::move(options), clock_from(clock))};
           }),
           "model"_a, py::kw_only(), "max_batch_size"_a, "max_batch_elements"_a, "max_delay"_a, "auto_size"_a,
           "auto_delay"_a, "target_p99"_a, "ageing"_a, "weight"_a, "max_queue_size"_a, "workers"_a, "max_concurrent"_a,
           "wait_when_full"_a, "full_timeout"_a, "max_waiting"_a, "caller_runs"_a, "isolate_failures"_a,
           "inline_limit"_a, "trace_size"_a, "max_tag_sets"_a, "inputs"_a, "outputs"_a, "clients"_a, "default_client"_a,
           "pad"_a, "pad_to"_a, "pad_longest"_a, "coalesce"_a, "result_cache"_a, "cache_callables"_a,
           "clock"_a = py::none())
      .def("_stats", &stats_of, "limits"_a = std::vector<double>())
      .def(
          "_series", &series_of,
          "What ended in each of the last 300 whole seconds and the one that runs, oldest first: a list for each kind; "
          "``queue_depth`` is that of each second's end, ``running`` how much of the last one has passed.")
      .def("_trace", &trace_of, "after"_a, kTraceDoc)
      .def(
          "_set_tracing",
          [](const PyBatcher& self, const Given<bool>& on) { self.core->batcher().ring().set_enabled(flag(on, "on")); },
          "on"_a)
      .def_property_readonly("_tracing", [](const PyBatcher& self) { return self.core->batcher().ring().enabled(); })
      .def_property_readonly("_trace_dropped",
                             [](const PyBatcher& self) { return self.core->batcher().ring().dropped(); })
      .def(
          "_poke", [](const PyBatcher& self) { self.core->batcher().poke(); }, py::call_guard<py::gil_scoped_release>())
      .def(
          "_swap", [](const PyBatcher& self, const py::object& model) { self.core->swap(model); }, "model"_a)
      .def("_teach", &teach, "feeds"_a, "model"_a, "Runs made-up inputs a few times, to learn what that takes.")
      .def("_pad_refusal", &pad_refusal, "model"_a, "rows"_a, "lengths"_a, "brief"_a = false,
           "Why requests to the model cannot be padded, as those that are made up show; empty where they can.")
      .def("_pad_lengths", &pad_lengths, "most"_a,
           "To what requests up to that length are padded; with 0, those up to the longest, where there is one.")
      .def_property_readonly("_state",
                             [](const PyBatcher& self) { return std::string(self.core->batcher().state_name()); })
      .def_property_readonly(
          "_longest_run",
          [](const PyBatcher& self) {
            const Batcher& of = self.core->batcher();
            return of.steady() ? 1e-9 * double(of.longest_run()) : 0.0;
          },
          "For how many seconds the oldest of the batches that run has run; 0 where the clock is a test's.")
      .def(
          "_sweep", [](const PyBatcher& self) { self.core->batcher().sweep(); },
          "Ends those of the requests that wait whose time has passed, as no worker is free to do it.")
      .def("_drain", &drain, "timeout"_a)
      .def("_close", &close, "drain"_a, "timeout"_a)
      .def("_poll_close", &poll_close, "drain"_a)
      .def(
          "_begin_close",
          [](const PyBatcher& self, const Given<bool>& drain, const Timeout& timeout) {
            const bool drain_first = flag(drain, "drain");
            until_from(timeout);  // whether it is one
            begin_close(self, drain_first);
          },
          "drain"_a, "timeout"_a = py::none())
      .def("_unanswered", &unanswered)
      .def("__del__", &dropped)
      .def(
          "_set_on_loop",
          [](const PyBatcher& self, const Given<bool>& warn, const Given<bool>& refuse) {
            using OnLoop = BatcherCore::OnLoop;
            self.core->set_on_loop(flag(refuse, "refuse") ? OnLoop::kRefuse
                                   : flag(warn, "warn")   ? OnLoop::kWarn
                                                          : OnLoop::kAllow);
          },
          "warn"_a, "refuse"_a)
      .def(
          "_may_block",
          [](const PyBatcher& self, const std::string& what, const std::string& until, int level) {
            self.core->may_block(what, until, level);
          },
          "what"_a, "until"_a, "level"_a, "Warns or raises where an event loop runs on this thread, as it was chosen.")
      .def_property_readonly("_closed", [](const PyBatcher& self) { return self.core->batcher().closed(); })
      .def_property_readonly("_max_rows", [](const PyBatcher& self) { return self.core->batcher().max_rows(); });

  require_init<OutputChecks>();
  require_init<ManualClock>();
  require_init<PyBatcher>();

  add_batcher_calls(batcher);
  m.def(
      "set_max_concurrent",
      [](const Given<std::optional<int64_t>>& cores) {
        Cores::process().set_limit(static_cast<int>(integer_or(0, cores, "cores", 1, std::numeric_limits<int>::max())));
      },
      "cores"_a, "Sets how many cores the runs of all batchers may use at once; None for any number.");
  m.def("max_concurrent", [] {
    const int cores = Cores::process().limit();
    return cores ? std::optional(cores) : std::nullopt;
  });
  m.def("begin_exit", &begin_exit,
        "The interpreter exits: what closing batchers ends is from now on the exit's doing.");
  m.def(
      "refuse_closed", [](const std::string& why) -> py::typing::NoReturn { throw Error(ErrorCode::kClosed, why); },
      "why"_a, "Raises a ClosedError; on a daemon thread under which the exit has closed the batcher, SystemExit.");
  m.def("register_running_loop", [] { EventLoop::running(); }, "Has the event loop that runs here learn of ends.");
  m.def("install_batcher_call", &install_batcher_call,
        "Gives a subclass of Batcher, which does not override __call__, the direct call slot.");
}

}  // namespace inferkit
