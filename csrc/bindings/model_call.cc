#include "bindings/model_call.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/counted.h"
#include "base/text.h"
#include "bindings/array_in.h"
#include "bindings/array_out.h"
#include "bindings/device_arrays.h"
#include "bindings/guarded.h"
#include "bindings/list_arrays.h"
#include "bindings/names.h"
#include "bindings/request_io.h"
#include "bindings/signal_watch.h"
#include "bindings/text_arrays.h"

namespace py = pybind11;

namespace inferkit {
namespace {

/// Below this the GIL is kept: handing it over and getting it back costs more than the run.
constexpr int64_t kKeepGilNanos = 10'000;

struct Inputs {
  explicit Inputs(size_t count) : arrays(count), shapes(count), pointers(count) {}
  PortVector<py::object> arrays;  // what owns the memory
  PortVector<Shape> shapes;       // with the batch axis
  PortVector<const void*> pointers;
  std::vector<Buffer> copies;                     // and strings, converted
  std::vector<std::optional<StridedView>> there;  // of arrays on a device; empty where none is
  bool is_there(size_t i) const { return !there.empty() && there[i].has_value(); }
  bool with_lists = false;  // among which no single row is told: each array has its batch axis
  BatchAxis axis = BatchAxis::kPresent;
  const PortSpec* axis_of = nullptr;  // the first input that can have one; those for all rows cannot
};

/// All inputs that can have a batch axis have it, or none of them does.
void check_axis(Inputs& in, const PortSpec& spec, const Shape& shape, BatchAxis axis) {
  if (in.with_lists && axis == BatchAxis::kAbsent) {
    throw Error(ErrorCode::kValidation, Reason::kShape,
                cat("input '", spec.name, "' of shape ", shape.str(),
                    " has no batch axis; a model with sequences or optionals needs it on every array: pass x[None]"));
  }
  if (in.axis_of && axis != in.axis) {
    const bool absent = axis == BatchAxis::kAbsent;
    const bool row_allowed = may_be_one_row(spec.shape) && may_be_one_row(in.axis_of->shape);
    throw Error(ErrorCode::kValidation, Reason::kShape,
                cat("input '", spec.name, "' of shape ", shape.str(),
                    absent ? " has no batch axis, but input '" : " has a batch axis, but input '", in.axis_of->name,
                    absent ? "' does" : "' does not", ": pass all inputs with a batch axis",
                    row_allowed ? ", or all without it for a single row" : ""));
  }
  in.axis = axis;
  if (!in.axis_of) in.axis_of = &spec;
}

/// Runs no Python.
void read_input(Inputs& in, size_t i, const PortSpec& spec, const PortChecks& checks) {
  const StridedView view = in.is_there(i) ? *in.there[i]
                           : spec.dtype == DType::kString
                               ? port_view(in.arrays[i], spec, *BufferPool::process_default(), in.copies.emplace_back())
                               : view_of(in.arrays[i], spec.name, spec.dtype);
  const Shape& expected = spec.any_shape ? view.shape : spec.shape;
  const BatchAxis axis = batch_axis_of(spec.name, expected, view.shape);
  if (!spec.shape.empty() && !spec.shared) check_axis(in, spec, view.shape, axis);
  check_input(spec.name, spec.dtype, expected, view.dtype, view.shape, checks, axis);
  in.shapes[i] = view.shape;
  if (axis == BatchAxis::kAbsent) in.shapes[i].insert(0, 1);
  if (in.is_there(i)) {
    in.pointers[i] = view.data;
    return;
  }
  if (usable_in_place(view)) {
    scan_input(spec.name, view, checks);
    in.pointers[i] = view.data;
    return;
  }
  const size_t bytes = static_cast<size_t>(view.shape.elements()) * dtype_size(view.dtype);
  in.copies.push_back(BufferPool::process_default()->acquire(bytes, "input copy"));
  copy_input(spec.name, view, in.copies.back().data(), checks);
  in.pointers[i] = in.copies.back().data();
}

Shape result_shape(const Shape& shape, BatchAxis axis, const PortSpec& spec) {
  if (axis == BatchAxis::kPresent) return shape;
  if (shape.rank() == 0 || shape[0] != 1) {
    throw Error(ErrorCode::kOutput, Reason::kShape,
                cat("output '", spec.name, "' has shape ", shape.str(),
                    ", which does not start with a batch of 1: pass the inputs with their batch axis"));
  }
  Shape out = shape;
  out.erase(0);
  return out;
}

/// The memory of a caller's array for an output; throws where it cannot take the result. Runs no Python.
void* checked_out(PyObject* object, const PortSpec& spec, DType dtype, const Shape& shape) {
  if (!py::detail::npy_api::get().PyArray_Check_(object)) {
    throw Error(ErrorCode::kValidation, Reason::kDtype,
                cat("out['", spec.name, "'] must be a numpy array, got ", Py_TYPE(object)->tp_name));
  }
  const StridedView view = view_of(object, spec.name, dtype, ArrayRole::kTarget);
  const bool writable = is_writable(object);
  if (view.dtype != dtype || !(view.shape == shape) || !lies_as_tensor(view) || !writable) {
    throw Error(ErrorCode::kValidation, view.dtype != dtype ? Reason::kDtype : Reason::kShape,
                cat("out['", spec.name, "'] must be a writable, contiguous ", dtype_name(dtype), " array of shape ",
                    shape.str(), "; got ", dtype_name(view.dtype), " ", view.shape.str(), writable ? "" : ", read-only",
                    lies_as_tensor(view)   ? ""
                    : view.is_contiguous() ? ", not aligned"
                                           : ", not contiguous"));
  }
  return const_cast<void*>(view.data);
}

bool overlaps(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return x < y + b_bytes && y < x + a_bytes;
}

/// Results of a runner that tells their shapes only while it runs. Takes the GIL, so its caller must not hold it.
class NumpySink final : public OutputSink {
 public:
  NumpySink(Results& results, std::span<const PortSpec> specs, BatchAxis axis)
      : ports(specs.size()), results_(results), specs_(specs), axis_(axis) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    ports[index] = {dtype, result_shape(shape, axis_, specs_[index])};
    if (dtype == DType::kString) {
      texts_.push_back({index, acquire(TensorView{dtype, shape, nullptr}.bytes()), {}});
      return texts_.back().views.data();
    }
    const py::gil_scoped_acquire gil;
    void* data = nullptr;
    results_[index] = new_array(dtype, ports[index].shape, &data);
    return data;
  }
  char* allocate_text(size_t index, size_t bytes) override {
    for (Text& text : texts_) {
      if (text.output != index) continue;
      text.bytes = acquire(bytes);
      return text.bytes.as<char>();
    }
    return OutputSink::allocate_text(index, bytes);
  }
  void give_list(size_t index, DType dtype, std::span<const TensorView> items, bool none) override {
    const py::gil_scoped_acquire gil;
    results_[index] = list_out(dtype, items, none);
  }
  /// After the run, with the GIL.
  void finish() {
    for (const Text& text : texts_) {
      const Shape& shape = ports[text.output].shape;
      results_[text.output] =
          text_array({text.views.as<std::string_view>(), static_cast<size_t>(shape.elements())}, shape);
    }
  }

  std::vector<Port> ports;  // of the arrays

 private:
  struct Text {
    size_t output;
    Buffer views, bytes;
  };
  static Buffer acquire(size_t bytes) {
    return BufferPool::process_default()->acquire(std::max<size_t>(bytes, 1), "output strings");
  }

  std::vector<Text> texts_;
  Results& results_;
  std::span<const PortSpec> specs_;
  const BatchAxis axis_;
};

std::vector<TensorView> views_of(Inputs& in, std::span<const PortSpec> specs) {
  std::vector<TensorView> views;
  for (size_t i = 0; i < specs.size(); ++i) views.push_back({specs[i].dtype, in.shapes[i], in.pointers[i]});
  return views;
}

Results call_runner(const PyModel& model, Inputs& in) {
  const auto specs = model.runner->inputs();
  const auto views = views_of(in, specs);
  Results results(model.runner->outputs().size());
  NumpySink sink(results, model.runner->outputs(), in.axis);
  const Status status = model.runner->run(views, sink);
  if (!status.ok()) throw Error(status);
  sink.finish();
  return results;
}

/// The caller's arrays for the outputs: each has memory of its own.
class Targets {
 public:
  explicit Targets(std::span<const PortSpec> specs) : specs_(specs) {}
  void add(size_t output, const void* data, size_t bytes) {
    for (const auto& [taken, taken_bytes, other] : taken_) {
      if (!overlaps(data, bytes, taken, taken_bytes)) continue;
      throw std::invalid_argument(cat("out[", quote(specs_[output].name), "] and out[", quote(specs_[other].name),
                                      "] share memory; give each its own"));
    }
    taken_.push_back({data, bytes, output});
  }

 private:
  struct Target {
    const void* data;
    size_t bytes, output;
  };
  std::span<const PortSpec> specs_;
  std::vector<Target> taken_;
};

/// For models whose outputs' shapes only the run tells, and for strings.
Results call_staged(Model& model, Inputs& in, std::span<PyObject* const> out) {
  const auto specs = model.inputs();
  for (size_t o = 0; o < out.size(); ++o) {
    if (out[o] && model.outputs()[o].dtype == DType::kString) {
      throw Error(ErrorCode::kValidation, Reason::kDtype,
                  cat("out['", model.outputs()[o].name,
                      "']: an output of strings is made of objects of its own: leave it out"));
    }
  }
  const auto views = views_of(in, specs);
  Results results(model.outputs().size());
  NumpySink sink(results, model.outputs(), in.axis);
  if (Status status = without_gil([&] { return model.run(views, sink); }); !status.ok()) throw Error(std::move(status));
  sink.finish();
  Targets targets(model.outputs());
  std::vector<void*> pointers(out.size());
  const auto array = [&](size_t o) { return py::reinterpret_borrow<py::array>(results[o]); };
  for (size_t o = 0; o < out.size(); ++o) {  // all of them before any is written
    if (!out[o]) continue;
    pointers[o] = checked_out(out[o], model.outputs()[o], sink.ports[o].dtype, sink.ports[o].shape);
    targets.add(o, pointers[o], static_cast<size_t>(array(o).nbytes()));
  }
  for (size_t o = 0; o < out.size(); ++o) {
    if (!out[o]) continue;
    std::memcpy(pointers[o], array(o).data(), static_cast<size_t>(array(o).nbytes()));
    results[o] = py::reinterpret_borrow<py::object>(out[o]);
  }
  return results;
}

Results call_native(Model& model, Inputs& in, std::span<PyObject* const> out) {
  const auto specs = model.outputs();
  std::optional<PlanCache::Lease> found = model.try_acquire(in.shapes.span());
  if (!found) {
    // To compile takes long, and may wait for another thread that does.
    found.emplace(without_gil([&] { return model.acquire(in.shapes.span()); }));
  }
  const PlanCache::Lease& lease = *found;
  const Plan& plan = lease.plan();
  if (plan.next || model.has_text()) {
    found.reset();
    return call_staged(model, in, out);
  }
  Results results(specs.size());
  PortVector<void*> pointers(specs.size());
  struct CopyBack {
    size_t output;
    void* target;
    Buffer buffer;
  };
  std::vector<CopyBack> copy_back;
  Targets targets(specs);
  for (size_t o = 0; o < specs.size(); ++o) {
    const Port& port = plan.outputs[o];
    const Shape shape = result_shape(port.shape, in.axis, specs[o]);
    if (o >= out.size() || !out[o]) {
      results[o] = new_array(port.dtype, shape, &pointers[o]);
      continue;
    }
    pointers[o] = checked_out(out[o], specs[o], port.dtype, shape);
    results[o] = py::reinterpret_borrow<py::object>(out[o]);
    const size_t bytes = static_cast<size_t>(port.shape.elements()) * dtype_size(port.dtype);
    targets.add(o, pointers[o], bytes);
    for (size_t i = 0; i < plan.inputs.size(); ++i) {
      const size_t in_bytes = static_cast<size_t>(in.shapes[i].elements()) * dtype_size(plan.inputs[i].dtype);
      if (!overlaps(pointers[o], bytes, in.pointers[i], in_bytes)) continue;
      copy_back.push_back({o, pointers[o], BufferPool::process_default()->acquire(bytes, "output copy")});
      pointers[o] = copy_back.back().buffer.data();
      break;
    }
  }
  {
    std::optional<SignalWatch> watch;
    std::optional<py::gil_scoped_release> release;
    if (plan.estimated_nanos > kKeepGilNanos) {
      watch.emplace();
      release.emplace();
    }
    lease.session().run({in.pointers.data(), in.pointers.size()}, {pointers.data(), pointers.size()},
                        model.exec_context(plan));
  }
  for (const CopyBack& c : copy_back) std::memcpy(c.target, c.buffer.data(), c.buffer.size());
  return results;
}

void check_count(std::span<const PortSpec> specs, size_t arguments) {
  if (arguments == specs.size()) return;
  throw Error(ErrorCode::kValidation, Reason::kName,
              cat("the model takes ", counted(specs.size(), "input"), " (", names_of(specs), "); got ", arguments));
}

/// The inputs of a model that takes sequences, or optionals, with their batch axis; `in` holds the arrays among them.
std::vector<Tensor> read_lists(const PyModel& model, std::span<PyObject* const> arguments, Inputs& in) {
  const auto specs = model.runner->inputs();
  check_count(specs, arguments.size());
  in.with_lists = true;
  std::vector<Tensor> tensors(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].is_list()) {
      tensors[i] = list_in(arguments[i], specs[i], model.checks[i]);
    } else {
      in.arrays[i] = to_port_array(arguments[i], specs[i]);
    }
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].is_list()) continue;
    read_input(in, i, specs[i], model.checks[i]);
    tensors[i] = {specs[i].dtype, in.shapes[i], in.pointers[i], nullptr};
  }
  return tensors;
}

/// For models with sequences or optionals among their inputs or outputs.
Results call_lists(const PyModel& model, std::span<PyObject* const> arguments, std::span<PyObject* const> out) {
  if (std::ranges::any_of(out, [](PyObject* target) { return target != nullptr; })) {
    throw std::invalid_argument("out= does not go with sequences: leave it out");
  }
  Inputs in(model.runner->inputs().size());
  const std::vector<Tensor> tensors = read_lists(model, arguments, in);
  Results results(model.runner->outputs().size());
  NumpySink sink(results, model.runner->outputs(), BatchAxis::kPresent);
  Status status = without_gil([&] { return model.native->run_lists(tensors, sink); });
  if (!status.ok()) throw Error(std::move(status));
  sink.finish();
  return results;
}

/// Whether all behind the first so many have a default.
bool may_be_left_out(std::span<const PortSpec> specs, size_t given) {
  const auto has_default = [](const PortSpec& spec) { return spec.fallback != nullptr; };
  return given < specs.size() && std::ranges::all_of(specs.subspan(given), has_default);
}

Inputs read_inputs(const PyModel& model, std::span<PyObject* const> arguments) {
  const auto specs = model.runner->inputs();
  const size_t given = arguments.size();
  if (given != specs.size() && !may_be_left_out(specs, given)) check_count(specs, given);
  Inputs in(specs.size());
  // First what may run Python, which may change an array that has been looked at.
  for (size_t i = 0; i < given; ++i) in.arrays[i] = to_port_array(arguments[i], specs[i]);
  for (size_t i = given; i < specs.size(); ++i) in.arrays[i] = fallback_array(*specs[i].fallback);
  for (size_t i = 0; i < specs.size(); ++i) read_input(in, i, specs[i], model.checks[i]);
  return in;
}

/// An input on a device becomes one in the host's memory, with its values checked.
void bring(Inputs& in, size_t i, const PortSpec& spec, const PortChecks& checks, CudaDevice& device, CudaLane& lane) {
  const StridedView& there = *in.there[i];
  const size_t bytes = static_cast<size_t>(there.shape.elements()) * dtype_size(there.dtype);
  const Buffer raw = BufferPool::process_default()->acquire(bytes, "input copy");
  without_gil([&] {
    device.download(raw.data(), there.data, bytes, lane);
    return true;
  });
  in.copies.push_back(BufferPool::process_default()->acquire(bytes, "input copy"));
  copy_input(spec.name, StridedView::contiguous({there.dtype, there.shape, raw.data()}), in.copies.back().data(),
             checks);
  in.pointers[i] = in.copies.back().data();
  in.there[i].reset();
}

/// Results that the host has, on the device.
void take_there(Results& results, CudaDevice& device, py::handle like) {
  for (py::object& result : results.span()) {
    if (!py::detail::npy_api::get().PyArray_Check_(result.ptr())) continue;
    const StridedView view = view_of(result, "result", DType::kF32, ArrayRole::kOutput);
    DeviceArray array{&device, nullptr, view.dtype, view.shape};
    array.memory = device.new_array(array.bytes());
    device.upload(array.memory->data(), view.data, array.bytes());
    result = device_array_out(like, std::move(array));
  }
}

/// With arrays on the device of the model among the arguments, those that `on_device` says: results are there, too.
Results call_on_device(const PyModel& model, CudaDevice& device, std::span<PyObject* const> arguments,
                       const std::vector<bool>& on_device, std::span<PyObject* const> out) {
  const auto specs = model.runner->inputs();
  check_count(specs, arguments.size());
  if (std::ranges::any_of(out, [](PyObject* target) { return target != nullptr; })) {
    throw std::invalid_argument("out= does not go with arrays on a device: leave it out");
  }
  const LaneLease lane(device);
  Inputs in(specs.size());
  in.there.resize(specs.size());
  py::handle like;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (on_device[i]) {
      DeviceInput found = device_array_in(arguments[i], specs[i].name, device, *lane);
      in.arrays[i] = std::move(found.keep);
      in.there[i] = found.view;
      if (!like) like = arguments[i];
    } else {
      in.arrays[i] = to_port_array(arguments[i], specs[i]);
    }
  }
  for (size_t i = 0; i < specs.size(); ++i) read_input(in, i, specs[i], model.checks[i]);
  Model& native = *model.native;
  std::optional<PlanCache::Lease> found = native.try_acquire(in.shapes.span());
  if (!found) found.emplace(without_gil([&] { return native.acquire(in.shapes.span()); }));
  const Plan& plan = found->plan();
  const bool staged = plan.next || native.has_text();
  for (size_t i = 0; i < specs.size(); ++i) {
    if (!in.is_there(i)) continue;
    // Bytes of bools may be others than 0 and 1, and floats of other widths are looked at by the host.
    const DType dtype = specs[i].dtype;
    const bool scanned = is_float(dtype) && model.checks[i].allowed != NonFinite::kAll;
    if (staged || dtype == DType::kBool || (scanned && dtype != DType::kF32)) {
      bring(in, i, specs[i], model.checks[i], device, *lane);
    }
  }
  if (staged) {
    found.reset();
    Results results = call_staged(native, in, {});
    take_there(results, device, like);
    return results;
  }
  std::vector<PlacedInput> placed(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const NonFinite allowed = model.checks[i].allowed;
    const bool scanned = in.is_there(i) && specs[i].dtype == DType::kF32 && allowed != NonFinite::kAll;
    placed[i] = {in.pointers[i], in.is_there(i), scanned ? scan_on_device : nullptr, allowed};
  }
  const auto outputs = native.outputs();
  std::vector<DeviceArray> arrays;
  std::vector<void*> pointers;
  for (size_t o = 0; o < outputs.size(); ++o) {
    const Port& port = plan.outputs[o];
    arrays.push_back({&device, nullptr, port.dtype, result_shape(port.shape, in.axis, outputs[o])});
    arrays.back().memory = device.new_array(arrays.back().bytes());
    pointers.push_back(arrays.back().memory->data());
  }
  const bool good =
      without_gil([&] { return found->session().run_placed(placed, pointers, *lane, native.exec_context(plan)); });
  for (size_t i = 0; !good && i < specs.size(); ++i) {
    if (!placed[i].refused) continue;
    bring(in, i, specs[i], model.checks[i], device, *lane);  // which throws, and says where
    throw Error(ErrorCode::kValidation, Reason::kNonFinite,
                cat("input '", specs[i].name, "' had NaN or infinity in it, and has changed since"));
  }
  Results results(outputs.size());
  for (size_t o = 0; o < outputs.size(); ++o) results[o] = device_array_out(like, std::move(arrays[o]));
  return results;
}

/// Which arguments lie in the memory of a device, where the model is on one and some do; else empty.
std::vector<bool> arguments_on_device(const PyModel& model, std::span<PyObject* const> arguments) {
  std::vector<bool> out;
  if (!model.native || model.native->device().kind() != DeviceKind::kCuda) return out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!lies_on_device(arguments[i])) continue;
    out.resize(arguments.size());
    out[i] = true;
  }
  return out;
}

}  // namespace

Results call_model(const PyModel& model, std::span<PyObject* const> arguments, std::span<PyObject* const> out) {
  if (model.native && model.native->has_lists()) return call_lists(model, arguments, out);
  if (std::vector<bool> on_device = arguments_on_device(model, arguments); !on_device.empty()) {
    const auto specs = model.runner->inputs();
    std::vector<py::object> keep;
    std::vector<PyObject*> all(arguments.begin(), arguments.end());
    while (may_be_left_out(specs, all.size())) {
      all.push_back(keep.emplace_back(fallback_array(*specs[all.size()].fallback)).ptr());
    }
    on_device.resize(all.size());
    return call_on_device(model, static_cast<CudaDevice&>(model.native->device()), all, on_device, out);
  }
  Inputs in = read_inputs(model, arguments);
  return model.native ? call_native(*model.native, in, out) : call_runner(model, in);
}

py::object fallback_array(const TensorView& value) {
  void* data = nullptr;
  py::object array = new_array(value.dtype, value.shape, &data);
  if (value.bytes() > 0) std::memcpy(data, value.data, value.bytes());
  return array;
}

PyObject* call_model_slot(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&]() -> PyObject* {
    if (kwargs && PyDict_GET_SIZE(kwargs) != 0) {
      throw py::type_error("a model takes its inputs by position; model.run({...}) takes them by name");
    }
    const PyModel& model = py_model(self);
    const std::span<PyObject* const> items(reinterpret_cast<PyTupleObject*>(args)->ob_item,
                                           static_cast<size_t>(PyTuple_GET_SIZE(args)));
    Results results = call_model(model, items, {});
    return pack_results(results.span(), model.runner->outputs(), false).release().ptr();
  });
}

namespace {

/// The inputs as tensors with their batch axis, of any native model; `in` holds the arrays.
std::vector<Tensor> read_tensors(const PyModel& model, std::span<PyObject* const> arguments, Inputs& in) {
  if (model.native->has_lists()) return read_lists(model, arguments, in);
  in = read_inputs(model, arguments);
  std::vector<Tensor> tensors;
  for (const TensorView& view : views_of(in, model.runner->inputs())) {
    tensors.push_back({view.dtype, view.shape, view.data, nullptr});
  }
  return tensors;
}

}  // namespace

Explained profile_call(const PyModel& model, std::span<PyObject* const> arguments, int64_t runs) {
  Inputs in(model.runner->inputs().size());
  const std::vector<Tensor> tensors = read_tensors(model, arguments, in);
  return without_gil([&] { return model.native->profile(tensors, runs); });
}

Results run_in_call(const PyModel& model, std::span<PyObject* const> arguments, Precision precision) {
  Inputs in(model.runner->inputs().size());
  const std::vector<Tensor> tensors = read_tensors(model, arguments, in);
  Results results(model.runner->outputs().size());
  NumpySink sink(results, model.runner->outputs(), in.axis);
  without_gil([&] {
    model.native->run_in(precision, tensors, sink);
    return true;
  });
  sink.finish();
  return results;
}

}  // namespace inferkit
