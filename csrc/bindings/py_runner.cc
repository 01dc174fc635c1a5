#include "bindings/py_runner.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>

#include "base/counted.h"
#include "base/validation.h"
#include "bindings/array_in.h"
#include "bindings/array_out.h"
#include "bindings/attributes.h"
#include "bindings/call_out.h"
#include "bindings/cause.h"
#include "bindings/errors.h"
#include "bindings/gil.h"
#include "bindings/names.h"
#include "bindings/request_io.h"
#include "bindings/text_arrays.h"
#include "engine/run/keep_text.h"
#include "graph/text_tensor.h"
#include "platform/fork.h"
#include "platform/futex.h"

namespace py = pybind11;

namespace inferkit {
namespace {

/// The calls of all callables of the process, and the thread that sleeps until there is one. The GIL guards it all.
struct CallWatch {
  static inline uint64_t made = 0, seen = 0;  // calls that began: all, and those that were there at the last look
  static inline int64_t running = 0;
  static inline uint32_t process = 0;             // fork_generation() of where they run
  static inline std::atomic<uint32_t> parked{0};  // 1 while that thread sleeps: a futex

  static void began() {
    if (const uint32_t here = fork_generation(); process != here) {  // those of the parent never return here
      process = here;
      running = 0;
    }
    ++running;
    if (parked.load(std::memory_order_relaxed) == 0) return;
    parked.store(0, std::memory_order_relaxed);  // the sleeper reads nothing else without the GIL
    futex_wake_all(parked);
  }
  static void ended(uint32_t where) {
    if (where == process) --running;
  }
  static bool idle() { return (running == 0 || process != fork_generation()) && made == seen; }
};

class PyRunner final : public Runner {
 public:
  PyRunner(py::object fn, std::vector<PortSpec> inputs, std::vector<PortSpec> outputs)
      : fn_(new py::object(std::move(fn))), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {}

  std::span<const PortSpec> inputs() const override { return inputs_; }
  std::span<const PortSpec> outputs() const override { return outputs_; }
  bool needs_gil() const override { return true; }
  int64_t estimate_nanos(std::span<const Shape>) const override { return 1'000'000; }

  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override {
    if (!Py_IsInitialized()) return {ErrorCode::kClosed, Reason::kNone, "the interpreter is shutting down", nullptr};
    try {
      const py::gil_scoped_acquire gil;
      const CallOut out;
      try {
        call(inputs, sink);
        return {};
      } catch (py::error_already_set& error) {
        out.raised(error);
        return raised(error, inputs);
      }
    } catch (...) {  // also where there is no memory to tell what was raised
      return current_exception_status();
    }
  }

  py::object& callable() const { return *fn_; }
  /// The oldest call that has not returned. Needs the GIL.
  std::optional<LongestCall> longest_call() const {
    const auto lives = [](const LongestCall& call) { return call.process == fork_generation(); };
    const auto it = std::ranges::find_if(calls_, lives);  // in a child of fork(), those of the parent never return
    return it == calls_.end() ? std::nullopt : std::optional(*it);
  }

 private:
  static Status raised(const py::error_already_set& error, std::span<const TensorView> inputs) {
    constexpr int64_t kMost = 1024;  // millions of rows may be one request's
    int64_t requests = 0;            // at most
    for (const TensorView& input : inputs) {
      if (!input.shape.empty()) requests = std::max(requests, std::min(kMost, input.shape[0]));
    }
    Status status{ErrorCode::kInference, Reason::kNone, {}, nullptr};
    try {
      status.message = cat("the callable raised ", describe(error));
      status.cause = make_cause(error, static_cast<size_t>(requests));
    } catch (py::error_already_set& stop) {  // while it was described: nobody is to miss that
      status.message = "the callable was stopped";
      status.cause = make_cause(stop, static_cast<size_t>(requests));
    }
    return status;
  }

  void call(std::span<const TensorView> inputs, OutputSink& sink) {
    PortVector<py::object> arrays(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].dtype == DType::kString) {
        arrays[i] = text_array(strings_of(inputs[i]), inputs[i].shape);
        continue;
      }
      void* data = nullptr;
      arrays[i] = new_array(inputs[i].dtype, inputs[i].shape, &data);
      std::memcpy(data, inputs[i].data, inputs[i].bytes());
    }
    const py::object answer = ask(tuple_of(arrays.span()));
    if (PyDict_Check(answer.ptr())) return take_named(answer, sink);
    if (PyTuple_Check(answer.ptr()) || PyList_Check(answer.ptr())) return take_in_order(answer, sink);
    if (is_a(answer, "Mapping")) return take_named(answer, sink);
    if (is_sequence_of_arrays(answer)) return take_in_order(answer, sink);
    if (outputs_.size() != 1) {
      throw Error(
          ErrorCode::kOutput, Reason::kShape,
          cat("the callable returned one object of type ", Py_TYPE(answer.ptr())->tp_name, ", but ", outputs_.size(),
              " outputs are declared: return a sequence of arrays, or a mapping of names to arrays"));
    }
    take(0, answer, sink);
  }

  /// Of an abstract class of Python's. None is asked for what numpy knows: this takes longer than a small model.
  static bool is_a(const py::object& answer, const char* kind) {
    if (py::detail::npy_api::get().PyArray_Check_(answer.ptr())) return false;
    return py::isinstance(answer, py::module_::import("collections.abc").attr(kind));
  }

  /// Some arrays call themselves sequences: memoryview, array.array.
  static bool is_sequence_of_arrays(const py::object& answer) {
    PyObject* object = answer.ptr();
    if (PyUnicode_Check(object) || PyObject_CheckBuffer(object)) return false;
    return is_a(answer, "Sequence") && !find_attribute(answer, "__dlpack__");
  }

  void take_named(const py::object& answer, OutputSink& sink) {
    for (size_t i = 0; i < outputs_.size(); ++i) take(i, item(answer, i), sink);
  }

  /// What a mapping has for an output.
  py::object item(const py::object& mapping, size_t i) const {
    const py::str name = name_of(outputs_[i]);
    if (PyDict_CheckExact(mapping.ptr())) {
      if (py::object found = find_named(mapping, outputs_[i])) return found;
    } else {
      // Where there is none, a dict may make one up (defaultdict): it is asked first.
      const bool absent = PyDict_Check(mapping.ptr()) && !py::reinterpret_borrow<py::dict>(mapping).contains(name);
      PyObject* found = absent ? nullptr : PyObject_GetItem(mapping.ptr(), name.ptr());
      if (found) return py::reinterpret_steal<py::object>(found);
      if (!absent && !PyErr_ExceptionMatches(PyExc_KeyError)) throw py::error_already_set();
      PyErr_Clear();
    }
    fail(i, "is missing from the callable's mapping");
  }

  void take_in_order(const py::object& answer, OutputSink& sink) {
    const auto sequence = py::reinterpret_borrow<py::sequence>(answer);
    if (const size_t size = sequence.size(); size != outputs_.size()) {
      throw Error(ErrorCode::kOutput, Reason::kShape,
                  cat("the callable returned ", counted(size, "output"), ", but ", outputs_.size(),
                      outputs_.size() == 1 ? " is declared" : " are declared"));
    }
    for (size_t i = 0; i < outputs_.size(); ++i) take(i, sequence[i], sink);
  }

  /// A callable may call its own model: the depth counts as Python's own calls do.
  py::object ask(const py::tuple& arguments) {
    if (!*fn_) throw Error(ErrorCode::kClosed, "the model's callable was garbage collected");
    const py::object fn = *fn_;
    const InCall running(calls_);
    if (Py_EnterRecursiveCall(" while calling a model's function")) throw py::error_already_set();
    const auto answer = py::reinterpret_steal<py::object>(PyObject_CallObject(fn.ptr(), arguments.ptr()));
    Py_LeaveRecursiveCall();
    if (!answer) throw py::error_already_set();
    return answer;
  }

  [[noreturn]] void fail(size_t i, const std::string& what) const {
    throw Error(ErrorCode::kOutput, Reason::kShape, cat("output '", outputs_[i].name, "' ", what));
  }

  void take(size_t i, const py::object& object, OutputSink& sink) {
    const PortSpec& spec = outputs_[i];
    py::object array;
    StridedView view;
    Buffer text;
    try {
      array = to_port_array(object, spec, ArrayRole::kOutput);
      view = port_view(array, spec, *BufferPool::process_default(), text, ArrayRole::kOutput);
    } catch (const Error& error) {
      throw Error(ErrorCode::kOutput, Reason::kShape, cat("the callable's ", error.what()));
    }
    if (view.dtype != spec.dtype) {
      fail(i,
           cat("of the callable has dtype ", dtype_name(view.dtype), ", but ", dtype_name(spec.dtype), " is declared"));
    }
    const Shape& shape = view.shape;
    bool fits = shape.rank() == spec.shape.rank();
    for (size_t d = 0; fits && d < shape.rank(); ++d) fits = spec.shape[d] == Shape::kFree || spec.shape[d] == shape[d];
    if (!fits) fail(i, cat("of the callable has shape ", shape.str(), ", but ", spec.shape.str(), " is declared"));
    void* to = sink.allocate(i, spec.dtype, shape);
    copy_strided(view, to, NonFinite::kAll);
    if (spec.dtype != DType::kString) return;
    keep_text(sink, i, {static_cast<std::string_view*>(to), static_cast<size_t>(shape.elements())},
              std::numeric_limits<size_t>::max());
  }

  using Calls = std::vector<LongestCall>;
  /// One call, in the list for as long as it lives. Needs the GIL.
  class InCall {
   public:
    explicit InCall(Calls& calls) : calls_(calls) {
      calls_.push_back({PyThread_get_thread_ident(), ++CallWatch::made, process_});
      number_ = calls_.back().number;
      CallWatch::began();
    }
    ~InCall() {
      std::erase_if(calls_, [&](const LongestCall& call) { return call.number == number_; });
      CallWatch::ended(process_);
    }
    InCall(const InCall&) = delete;
    InCall& operator=(const InCall&) = delete;

   private:
    Calls& calls_;
    const uint32_t process_ = fork_generation();
    uint64_t number_ = 0;
  };

  Calls calls_;  // in the order in which they began; guarded by the GIL
  const std::unique_ptr<py::object, GilDeleter<py::object>> fn_;
  const std::vector<PortSpec> inputs_, outputs_;
};

}  // namespace

PyObject* callable_of(const Runner& runner) {
  const auto* python = dynamic_cast<const PyRunner*>(&runner);
  return python ? python->callable().ptr() : nullptr;
}

std::optional<LongestCall> longest_call(const Runner& runner) {
  const auto* python = dynamic_cast<const PyRunner*>(&runner);
  return python ? python->longest_call() : std::nullopt;
}

void wait_for_call() {
  while (CallWatch::idle()) {
    CallWatch::parked.store(1, std::memory_order_relaxed);
    const py::gil_scoped_release release;
    futex_wait(CallWatch::parked, 1);
  }
  CallWatch::seen = CallWatch::made;
}

void drop_callable(Runner& runner) {
  if (auto* python = dynamic_cast<PyRunner*>(&runner)) {
    const py::object dropped = std::move(python->callable());  // destroyed when the runner no longer holds it
  }
}

std::shared_ptr<Runner> make_py_runner(py::object fn, std::vector<PortSpec> inputs, std::vector<PortSpec> outputs) {
  return std::make_shared<PyRunner>(std::move(fn), std::move(inputs), std::move(outputs));
}

}  // namespace inferkit
