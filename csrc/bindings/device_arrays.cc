#include "bindings/device_arrays.h"

#include <pybind11/numpy.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>

#include "base/cat.h"
#include "base/counted.h"
#include "base/error.h"
#include "base/tensor_view.h"
#include "bindings/array_in.h"
#include "bindings/array_out.h"
#include "bindings/attributes.h"
#include "bindings/errors.h"
#include "bindings/signal_watch.h"
#include "kernels/cuda/kernels.h"

namespace py = pybind11;

namespace inferkit {
namespace {

// DLPack, as its header lays it out.
struct DlDevice {
  int32_t type, id;
};
struct DlType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  int32_t rank;
  DlType dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};
struct DlVersioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(DlVersioned*);
  uint64_t flags;
  DlTensor tensor;
};
constexpr int32_t kDlCuda = 2, kDlManagedMemory = 13;
constexpr uint8_t kDlInt = 0, kDlUint = 1, kDlFloat = 2, kDlBfloat = 4, kDlBool = 6;
constexpr const char *kDlName = "dltensor", *kDlVersionedName = "dltensor_versioned";

struct DlRow {
  DType dtype;
  uint8_t code, bits;
  const char* typestr;  // of the CUDA Array Interface; null where it has none
};
constexpr DlRow kDlRows[] = {
    {DType::kF32, kDlFloat, 32, "<f4"},     {DType::kF64, kDlFloat, 64, "<f8"}, {DType::kF16, kDlFloat, 16, "<f2"},
    {DType::kI8, kDlInt, 8, "|i1"},         {DType::kI16, kDlInt, 16, "<i2"},   {DType::kI32, kDlInt, 32, "<i4"},
    {DType::kI64, kDlInt, 64, "<i8"},       {DType::kU8, kDlUint, 8, "|u1"},    {DType::kU16, kDlUint, 16, "<u2"},
    {DType::kU32, kDlUint, 32, "<u4"},      {DType::kU64, kDlUint, 64, "<u8"},  {DType::kBool, kDlBool, 8, "|b1"},
    {DType::kBF16, kDlBfloat, 16, nullptr},
};

[[noreturn]] void refuse_on_device(std::string_view name, const std::string& what, Reason reason = Reason::kDtype) {
  throw Error(ErrorCode::kValidation, reason, cat(array_label(name, ArrayRole::kInput), ": ", what));
}

void set_shape(StridedView& view, std::string_view name, const std::vector<int64_t>& shape) {
  if (shape.size() > Shape::kMaxRank) {
    refuse_on_device(
        name, cat("it has ", counted(shape.size(), "dimension"), "; at most ", Shape::kMaxRank, " are supported"),
        Reason::kShape);
  }
  uint64_t bytes = dtype_size(view.dtype);
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) refuse_on_device(name, "it has a dimension of negative size", Reason::kShape);
    empty |= size == 0;
  }
  for (const int64_t size : shape) {
    if (!empty && static_cast<uint64_t>(size) > std::numeric_limits<int64_t>::max() / bytes) {
      refuse_on_device(name, "it says that it is larger than any memory", Reason::kShape);
    }
    if (!empty) bytes *= static_cast<uint64_t>(size);
    view.shape.push_back(size);
  }
}

/// Strides of a row-major array, in units of `unit`; those of dimensions of one element, and of empty arrays, say
/// nothing.
bool is_row_major(const Shape& shape, const std::vector<int64_t>& strides, int64_t unit) {
  if (shape.elements() == 0) return true;
  int64_t want = unit;
  for (size_t i = shape.rank(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != want) return false;
    want *= shape[i];
  }
  return true;
}

/// The memory is the device's, and where elements of the type may lie.
void check_memory(const StridedView& view, std::string_view name, CudaDevice& device) {
  if (view.shape.elements() == 0) return;
  if (!view.data) refuse_on_device(name, "its address is null, though it has elements");
  if (reinterpret_cast<uintptr_t>(view.data) % dtype_size(view.dtype) != 0) {
    refuse_on_device(name, "its elements do not lie at multiples of their size; copy it to memory of its own");
  }
  const int of = device.device_of(view.data);
  if (of == device.number()) return;
  const std::string here = cat("the model is on \"cuda:", device.number(), "\"");
  if (of == CudaBackend::kNobody) refuse_on_device(name, "its address is of no memory that the CUDA driver knows");
  if (of == CudaBackend::kHost) refuse_on_device(name, cat("its memory is the host's, and ", here));
  refuse_on_device(name, cat("it lies on \"cuda:", of, "\", and ", here,
                             "; copy it there, or load the model for \"cuda:", of, "\""));
}

void wait_for_stream(uintptr_t stream, std::string_view name, CudaLane& lane) {
  try {
    lane.wait_for(stream);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kValidation) throw;
    refuse_on_device(name, error.what(), Reason::kNone);
  }
}

constexpr const char* kContiguous =
    "it is not row-major and gapless, as an array on a device must be; .contiguous() in torch, or "
    "cupy.ascontiguousarray(), makes one that is";

/// A module that is imported already, or null.
py::object module_in_use(const char* name) {
  PyObject* const modules = PyImport_GetModuleDict();
  return py::reinterpret_borrow<py::object>(modules ? PyDict_GetItemString(modules, name) : nullptr);
}

/// The module of that name, where `object` is of its `type`; else null.
py::object library_of(py::handle object, const char* name, const char* type) {
  const py::object in_use = module_in_use(name);
  const py::object of = in_use ? find_attribute(in_use, type) : py::object();
  return of && PyType_Check(of.ptr()) && py::isinstance(object, of) ? in_use : py::object();
}

/// The stream that torch puts its work into now, as what generates code for torch asks for it: by its public ways,
/// objects for streams and events, a call takes ten microseconds more. None where this torch does not tell.
std::optional<uintptr_t> stream_of_torch(const py::object& torch, int device) {
  const py::object inside = find_attribute(torch, "_C");
  const py::object current = inside ? find_attribute(inside, "_cuda_getCurrentRawStream") : py::object();
  if (!current) return std::nullopt;
  const auto stream = current(device).cast<uintptr_t>();
  return stream == 0 ? kLegacyStream : stream;
}

DeviceInput from_dlpack(py::handle object, std::string_view name, CudaDevice& device, CudaLane& lane) {
  const py::object tensor = without_negative_bit(object);
  const py::object method = tensor.attr("__dlpack__"), torch = library_of(object, "torch", "Tensor");
  // -1: its library need not have a stream wait, as is done below.
  const std::optional<uintptr_t> to_wait_for = torch ? stream_of_torch(torch, device.number()) : std::nullopt;
  const py::int_ stream = to_wait_for ? py::int_(-1) : py::int_(lane.handle());
  DeviceInput out;
  try {
    out.keep = method(py::arg("stream") = stream, py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // one that knows nothing of versions
    out.keep = method(py::arg("stream") = stream);
  }
  PyObject* const capsule = out.keep.ptr();
  if (!PyCapsule_CheckExact(capsule)) refuse_on_device(name, "its __dlpack__() returns no capsule");
  const char* const given = PyCapsule_GetName(capsule);
  const std::string_view kind = given ? given : "";
  const DlTensor* from = nullptr;
  if (kind == kDlName) {
    from = &static_cast<DlManaged*>(PyCapsule_GetPointer(capsule, kDlName))->tensor;
  } else if (kind == kDlVersionedName) {
    const auto* managed = static_cast<DlVersioned*>(PyCapsule_GetPointer(capsule, kDlVersionedName));
    if (managed->major != 1) {
      refuse_on_device(name, cat("its DLPack version is ", managed->major, ".", managed->minor, "; 1 is understood"));
    }
    from = &managed->tensor;
  } else if (kind.starts_with("used_dltensor")) {
    refuse_on_device(name, "its __dlpack__() returns a capsule that somebody has already consumed");
  } else {
    refuse_on_device(name, cat("its __dlpack__() returns a capsule of another kind, '", kind, "'"));
  }
  // The capsule stays unconsumed: whoever drops it last gives the memory back.
  const DlTensor& t = *from;
  const DlRow* row = nullptr;
  for (const DlRow& one : kDlRows) {
    if (one.code == t.dtype.code && one.bits == t.dtype.bits && t.dtype.lanes == 1) row = &one;
  }
  if (!row) {
    refuse_on_device(name, cat("elements of DLPack's type ", static_cast<int>(t.dtype.code), " with ",
                               static_cast<int>(t.dtype.bits), " bits have no counterpart in a model"));
  }
  if (t.device.type != kDlCuda && t.device.type != kDlManagedMemory) {
    refuse_on_device(name, cat("its capsule is of DLPack's device ", t.device.type, ", which is none of CUDA"));
  }
  if (t.rank < 0 || (t.rank > 0 && !t.shape)) refuse_on_device(name, "its capsule has no shape", Reason::kShape);
  out.view.dtype = row->dtype;
  set_shape(out.view, name, {t.shape, t.shape + t.rank});
  if (t.strides && !is_row_major(out.view.shape, {t.strides, t.strides + t.rank}, 1)) {
    refuse_on_device(name, kContiguous, Reason::kShape);
  }
  if (t.data) out.view.data = static_cast<const std::byte*>(t.data) + t.byte_offset;
  check_memory(out.view, name, device);
  if (to_wait_for) wait_for_stream(*to_wait_for, name, lane);
  if (lane.is_captured()) {
    refuse_on_device(name, "its stream is being captured into a graph: call the model before or after the capture",
                     Reason::kNone);
  }
  return out;
}

std::vector<int64_t> whole_numbers(py::handle of, std::string_view name, const char* what) {
  if (!py::isinstance<py::tuple>(of)) refuse_on_device(name, cat(what, " of its CUDA array interface is no tuple"));
  std::vector<int64_t> out;
  for (const py::handle item : py::reinterpret_borrow<py::tuple>(of)) out.push_back(item.cast<int64_t>());
  return out;
}

DeviceInput from_interface(py::handle object, std::string_view name, CudaDevice& device, CudaLane& lane) {
  DeviceInput out;
  const py::object given = object.attr("__cuda_array_interface__");
  if (!py::isinstance<py::dict>(given)) refuse_on_device(name, "its __cuda_array_interface__ is no dict");
  const auto interface = py::reinterpret_borrow<py::dict>(given);
  const auto entry = [&](const char* key) {
    return interface.contains(key) ? py::object(interface[key]) : py::object(py::none());
  };
  const py::object typestr = entry("typestr"), data = entry("data"), strides = entry("strides"),
                   stream = entry("stream"), version = entry("version");
  const DlRow* row = nullptr;
  if (py::isinstance<py::str>(typestr)) {
    const auto type = typestr.cast<std::string>();
    for (const DlRow& one : kDlRows) {
      if (!one.typestr) continue;
      const bool any_order = type.size() == 3 && std::strchr("<|=", type[0]) != nullptr;
      if (any_order && type.substr(1) == one.typestr + 1) row = &one;
    }
    if (!row) refuse_on_device(name, cat("elements of type '", type, "' have no counterpart in a model"));
  }
  if (!row) refuse_on_device(name, "its CUDA array interface has no typestr");
  if (!entry("mask").is_none()) refuse_on_device(name, "a masked array has no counterpart in a model");
  out.view.dtype = row->dtype;
  set_shape(out.view, name, whole_numbers(entry("shape"), name, "the shape"));
  if (!py::isinstance<py::tuple>(data) || py::len(data) != 2) {
    refuse_on_device(name, "the data of its CUDA array interface are no pair of an address and a flag");
  }
  out.view.data = reinterpret_cast<const void*>(py::reinterpret_borrow<py::tuple>(data)[0].cast<uintptr_t>());
  if (!strides.is_none()) {
    const std::vector<int64_t> steps = whole_numbers(strides, name, "the strides");
    if (steps.size() != out.view.shape.rank()) {
      refuse_on_device(name, "its CUDA array interface has not as many strides as dimensions", Reason::kShape);
    }
    if (!is_row_major(out.view.shape, steps, static_cast<int64_t>(dtype_size(row->dtype)))) {
      refuse_on_device(name, kContiguous, Reason::kShape);
    }
  }
  check_memory(out.view, name, device);
  // Versions before 3 know no streams: theirs is taken for the default one.
  constexpr int64_t kWithStreams = 3;
  const bool knows = !version.is_none() && version.cast<int64_t>() >= kWithStreams;
  const uintptr_t handle = !knows ? kLegacyStream : stream.is_none() ? 0 : stream.cast<uintptr_t>();
  if (knows && !stream.is_none() && handle == 0) {
    refuse_on_device(name, "the stream of its CUDA array interface is 0, which could be two of them; 1 is the default",
                     Reason::kNone);
  }
  if (handle != 0) wait_for_stream(handle, name, lane);
  out.keep = py::reinterpret_borrow<py::object>(object);
  return out;
}

/// What a capsule keeps.
struct Exported {
  std::shared_ptr<CudaArray> memory;
  std::array<int64_t, Shape::kMaxRank> shape{}, strides{};
  DlManaged plain{};
  DlVersioned versioned{};
};

template <class Managed>
void delete_exported(Managed* managed) {
  const std::unique_ptr<Exported> gone(static_cast<Exported*>(managed->context));
}

template <class Managed>
py::object capsule_of(std::unique_ptr<Exported> exported, Managed& managed, const char* name) {
  managed.context = exported.get();
  managed.deleter = delete_exported<Managed>;
  PyObject* const capsule = PyCapsule_New(&managed, name, [](PyObject* self) {
    // Who has consumed it has given it another name.
    for (const char* const ours : {kDlName, kDlVersionedName}) {
      if (!PyCapsule_IsValid(self, ours)) continue;
      auto* const mine = static_cast<Managed*>(PyCapsule_GetPointer(self, ours));
      mine->deleter(mine);
    }
  });
  if (!capsule) throw py::error_already_set();
  std::ignore = exported.release();
  return py::reinterpret_steal<py::object>(capsule);
}

[[noreturn]] void buffer_error(const std::string& what) {
  PyErr_SetString(PyExc_BufferError, what.c_str());
  throw py::error_already_set();
}

}  // namespace

bool lies_on_device(PyObject* object) {
  if (py::detail::npy_api::get().PyArray_Check_(object) || PyType_Check(object) || PyList_Check(object) ||
      PyFloat_Check(object) || PyLong_Check(object)) {
    return false;
  }
  if (const py::object where = find_attribute(object, "__dlpack_device__")) {
    try {
      const py::object device = where();
      if (!py::isinstance<py::tuple>(device) || py::len(device) != 2) return false;
      const py::int_ kind(py::reinterpret_borrow<py::tuple>(device)[0]);
      const auto type = kind.cast<int64_t>();
      return type == kDlCuda || type == kDlManagedMemory;
    } catch (py::error_already_set& error) {  // who reads it as the host's says what is wrong, and names the input
      if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
      return false;
    } catch (const py::cast_error&) {
      return false;
    }
  }
  return static_cast<bool>(find_attribute(object, "__cuda_array_interface__"));
}

DeviceInput device_array_in(py::handle object, std::string_view name, CudaDevice& device, CudaLane& lane) {
  try {
    return find_attribute(object, "__dlpack_device__") ? from_dlpack(object, name, device, lane)
                                                       : from_interface(object, name, device, lane);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
    refuse_on_device(name, cat("could not read the ", Py_TYPE(object.ptr())->tp_name, ": ", describe(error)));
  } catch (const py::cast_error&) {
    refuse_on_device(name, cat("could not read the ", Py_TYPE(object.ptr())->tp_name,
                               ": its CUDA array interface holds what is no whole number of 64 bits"));
  }
}

void scan_on_device(LaunchQueue& queue, const void* values, size_t bytes, NonFinite allowed, uint32_t* found) {
  namespace cuda = kernels::cuda;
  constexpr int64_t kThreads = 256, kMostBlocks = 1024;
  const auto n = static_cast<int64_t>(bytes / sizeof(float));
  if (n == 0) return;
  const bool all = allowed == NonFinite::kAll, both = all || allowed == NonFinite::kInfinity;
  const cuda::ScanParams params{static_cast<const float*>(values),
                                found,
                                n,
                                all || allowed == NonFinite::kNan,
                                both || allowed == NonFinite::kPlusInfinity,
                                both || allowed == NonFinite::kMinusInfinity};
  const KernelLaunch launch{
      static_cast<size_t>(cuda::Kernel::scan_f32),
      "scan_f32",
      {static_cast<unsigned>(std::min((n + 4 * kThreads - 1) / (4 * kThreads), kMostBlocks)), 1, 1},
      kThreads,
      0};
  queue.launch(launch, std::as_bytes(std::span(&params, 1)));
}

LaneLease::~LaneLease() {
  try {
    // To wait in a capture would break it; the lane stays a part of that.
    if (lane_->is_captured()) return;
    lane_->wait();
    device_.give_lane(std::move(lane_));
  } catch (const Error&) {  // it is of no use to anybody
  }
}

py::dict DeviceArray::cuda_array_interface() const {
  const char* typestr = nullptr;
  for (const DlRow& row : kDlRows) {
    if (row.dtype == dtype) typestr = row.typestr;
  }
  if (!typestr) {
    throw py::attribute_error(
        cat("the CUDA array interface has no type for ", dtype_name(dtype), "; take __dlpack__()"));
  }
  memory->give(0);
  py::tuple sizes(shape.rank());
  for (size_t i = 0; i < shape.rank(); ++i) sizes[i] = shape[i];
  py::dict out;
  out["shape"] = sizes;
  out["typestr"] = typestr;
  out["data"] = py::make_tuple(bytes() == 0 ? uintptr_t{0} : reinterpret_cast<uintptr_t>(memory->data()), false);
  out["strides"] = py::none();
  out["stream"] = py::none();  // it is complete: there is nothing to wait for
  out["version"] = 3;
  return out;
}

py::object DeviceArray::dlpack(const py::object& stream, const py::object& max_version, const py::object& dl_device,
                               const py::object& copy) const {
  // Arrays are complete when a call returns, so no stream has to wait; but it is known who works on them.
  int64_t number = static_cast<int64_t>(kLegacyStream);
  if (!stream.is_none()) {
    if (!py::isinstance<py::int_>(stream)) throw py::type_error("stream must be an integer or None");
    number = stream.cast<int64_t>();
  }
  if (number == 0 || number < -1) {
    throw py::value_error("stream must be None, -1, 1, 2 or the address of a stream: 0 could be two of them");
  }
  if (!copy.is_none() && copy.cast<bool>()) buffer_error("__dlpack__ makes no copies: copy what it returns");
  if (!dl_device.is_none()) {
    const auto [type, id] = dl_device.cast<std::pair<int64_t, int64_t>>();
    if (type != kDlCuda || id != device->number()) {
      buffer_error(cat("__dlpack__ takes nothing to another device than (", kDlCuda, ", ", device->number(), ")"));
    }
  }
  const DlRow* row = nullptr;
  for (const DlRow& one : kDlRows) {
    if (one.dtype == dtype) row = &one;
  }
  if (!row) buffer_error(cat("DLPack has no type for ", dtype_name(dtype)));
  const bool versioned = !max_version.is_none() && max_version.cast<std::pair<int64_t, int64_t>>().first >= 1;
  auto out = std::make_unique<Exported>();
  out->memory = memory;
  int64_t step = 1;
  for (size_t i = shape.rank(); i-- > 0;) {
    out->shape[i] = shape[i];
    out->strides[i] = step;
    step *= shape[i];
  }
  const DlTensor tensor{bytes() == 0 ? nullptr : memory->data(),
                        {kDlCuda, device->number()},
                        static_cast<int32_t>(shape.rank()),
                        {row->code, row->bits, 1},
                        out->shape.data(),
                        out->strides.data(),
                        0};
  out->plain.tensor = out->versioned.tensor = tensor;
  out->versioned.major = 1;
  memory->give(static_cast<uintptr_t>(number));
  Exported& kept = *out;
  return versioned ? capsule_of(std::move(out), kept.versioned, kDlVersionedName)
                   : capsule_of(std::move(out), kept.plain, kDlName);
}

py::object DeviceArray::numpy() const {
  void* to = nullptr;
  py::object out = new_array(dtype, shape, &to);
  without_gil([&] {
    const LaneLease lane(*device);
    device->download(to, memory->data(), bytes(), *lane);
    return true;
  });
  return out;
}

py::object device_array_out(py::handle given, DeviceArray array) {
  if (const py::object torch = library_of(given, "torch", "Tensor")) {
    // It takes a capsule as it takes an object, whose device and stream it would ask for first.
    const auto stream = stream_of_torch(torch, array.device->number());
    const py::object from = torch.attr("from_dlpack");
    if (!stream) return from(py::cast(std::move(array)));
    return from(array.dlpack(py::int_(*stream), py::none(), py::none(), py::none()));
  }
  const py::object cupy = library_of(given, "cupy", "ndarray");
  py::object ours = py::cast(std::move(array));
  return cupy ? py::object(cupy.attr("from_dlpack")(ours)) : ours;
}

}  // namespace inferkit
