#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "base/counted.h"
#include "base/error.h"
#include "base/text.h"
#include "bindings/arguments.h"
#include "bindings/array_out.h"
#include "bindings/bound.h"
#include "bindings/path.h"
#include "bindings/signal_watch.h"
#include "bindings/static_method.h"
#include "graph/model_weights.h"
#include "memory/weight_store.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

// What Mapping's methods return, named for the type stubs.
struct KeysView : py::object {
  using py::object::object;
};
struct ValuesView : py::object {
  using py::object::object;
};
struct ItemsView : py::object {
  using py::object::object;
};

}  // namespace
}  // namespace inferkit

namespace pybind11::detail {
template <>
struct handle_type_name<inferkit::KeysView> {
  static constexpr auto name = const_name("collections.abc.KeysView[str]");
};
template <>
struct handle_type_name<inferkit::ValuesView> {
  static constexpr auto name = const_name("collections.abc.ValuesView[numpy.ndarray]");
};
template <>
struct handle_type_name<inferkit::ItemsView> {
  static constexpr auto name = const_name("collections.abc.ItemsView[str, numpy.ndarray]");
};
}  // namespace pybind11::detail

namespace inferkit {
namespace {

using WeightsPtr = std::shared_ptr<const Weights>;

constexpr const char* kDoc =
    R"(Named tensors in a mapped file: a read-only mapping from names to arrays.

``weights["name"]`` is a read-only numpy view of the file's pages. Threads, models and processes that open the same file
share its memory. A view keeps the file mapped after the ``Weights`` object is gone. In an ONNX file, the tensors that a
model would copy (small ones, integers, and those at addresses that do not fit their elements) are copies here too.

A file does not promise alignment: a view may have ``flags.aligned`` false, and is a correct array all the same. Types
that numpy does not have (bfloat16, floats of 8 and 4 bits, integers of 4 and 2 bits) come as the types of the package
``ml_dtypes`` if it is installed, otherwise as their bits in ``uint16`` or ``uint8``; :meth:`dtype` tells which type the
file has. If several elements share a byte in the file, the view is a view of an unpacked copy. If a bool of the
file is a byte other than 0 and 1, as in a mask of 0 and 255, the view is a view of a copy in which it is 1.

The file must stay as it is while it is open. To replace it, rename a new file over it. If the file has changed,
``weights[name]`` raises a ModelError. Arrays that you took before show what is written into the file, and if you read a
part that was cut off, the process ends (SIGBUS). If others may do that, open the file with ``mmap=False``.

Examples
--------
>>> import inferkit, numpy as np, os, tempfile
>>> from safetensors.numpy import save_file
>>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
>>> save_file({"fc.weight": np.eye(2, dtype=np.float32)}, path)
>>> weights = inferkit.Weights.open(path)
>>> list(weights), weights.nbytes
(['fc.weight'], 16)
>>> weights["fc.weight"].tolist()
[[1.0, 0.0], [0.0, 1.0]]
>>> weights["fc.weight"].flags.writeable
False
)";

constexpr const char* kOpenDoc = R"(Map a safetensors file, or the initializers of an ONNX model and its external data.

The whole header is checked before anything else is read, and the pages are read ahead.

Parameters
----------
path : str or path-like
    A file whose name ends in ``.onnx`` is read as a model, any other as safetensors.
mmap : bool
    False reads the file into memory instead. Use it for files that others rewrite in place.

Raises
------
ModelError
    If the file is truncated, too long, malformed, or of a dtype that inferkit does not read; or if it changes while
    it is read.
OSError
    If the file cannot be opened (``FileNotFoundError`` where there is none).
)";

WeightsPtr open(const PathLike& path, const Given<bool>& mmap) {
  const std::string file = file_path(path, "path");
  const Placement placement = flag(mmap, "mmap") ? Placement::kMapped : Placement::kCopied;
  const bool onnx = file.ends_with(".onnx");
  return without_gil(
      [&] { return onnx ? open_onnx_weights(file, placement) : Weights::open_safetensors(file, placement); });
}

/// A read-only array onto `view`, which `owner`, the Weights, keeps alive. numpy itself notes where it is not aligned.
py::array array_view(const TensorView& view, const py::object& owner) {
  py::cast<const Weights&>(owner).require_unchanged();
  py::array out(py::reinterpret_borrow<py::dtype>(numpy_dtype(view.dtype)),
                std::vector<py::ssize_t>(view.shape.begin(), view.shape.end()), view.data, owner);
  py::detail::array_proxy(out.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return out;
}

using Name = Given<std::string>;

/// Null where there is none; a name that UTF-8 cannot encode is in no file.
const TensorView* find(const Weights& weights, const Name& name) {
  if (!PyUnicode_Check(name.ptr())) {
    throw py::type_error(cat("a tensor's name must be a str, got ", Py_TYPE(name.ptr())->tp_name));
  }
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(name.ptr(), &size);
  if (data) return weights.find(std::string(data, static_cast<size_t>(size)));
  if (!PyErr_ExceptionMatches(PyExc_UnicodeError)) throw py::error_already_set();
  PyErr_Clear();
  return nullptr;
}

[[noreturn]] void unknown_name(const Weights& weights, const Name& name) {
  const py::object close = py::module_::import("difflib").attr("get_close_matches")(name, weights.names());
  std::string message = cat("no tensor ", std::string(py::repr(name)));
  if (py::len(close) != 0) {
    message += cat("; close names are ", py::str(", ").attr("join")(close).cast<std::string>());
  } else {
    constexpr size_t kShown = 5;
    const std::vector<std::string> names = weights.names();
    message += cat("; it has ", counted(names.size(), "tensor"));
    for (size_t i = 0; i < std::min(names.size(), kShown); ++i) message += cat(i ? ", " : ": ", quote(names[i]));
    if (names.size() > kShown) message += ", ...";
  }
  throw py::key_error(message);
}

const TensorView& at(const Weights& weights, const Name& name) {
  const TensorView* view = find(weights, name);
  if (!view) unknown_name(weights, name);
  return *view;
}

template <class View>
View abc_view(const char* kind, const py::object& self) {
  return py::reinterpret_steal<View>(py::module_::import("collections.abc").attr(kind)(self).release());
}

}  // namespace

void bind_weights(py::module_& m) {
  py::class_<Weights, std::shared_ptr<Weights>> weights(m, "Weights", py::custom_type_setup(made_elsewhere), kDoc);
  StaticMethod<struct OpenTag>::define(weights, "open",
                                       py::cpp_function(&open, py::name("open"), py::scope(weights), "path"_a,
                                                        py::kw_only(), "mmap"_a = true, kOpenDoc));
  weights
      .def(
          "__getitem__",
          [](const py::object& self, const Name& name) {
            return array_view(at(py::cast<const Weights&>(self), name), self);
          },
          "name"_a, "Get the tensor of that name. Raises KeyError if there is none.")
      .def("__len__", &Weights::size)
      .def("__iter__",
           [](const Weights& self) { return py::typing::Iterator<py::str>(py::iter(py::cast(self.names()))); })
      .def(
          "__contains__",
          [](const Weights& self, const py::object& name) {
            return py::isinstance<py::str>(name) && find(self, py::reinterpret_borrow<Name>(name));
          },
          "name"_a)
      .def(
          "get",
          [](const py::object& self, const Name& name, const py::object& otherwise) -> py::object {
            const TensorView* view = find(py::cast<const Weights&>(self), name);
            return view ? array_view(*view, self) : otherwise;
          },
          "name"_a, "default"_a = py::none(), "Get the tensor of that name, or ``default`` if there is none.")
      .def(
          "keys", [](const py::object& self) { return abc_view<KeysView>("KeysView", self); },
          "Get the names, in the order of the file.")
      .def(
          "values", [](const py::object& self) { return abc_view<ValuesView>("ValuesView", self); },
          "Get the tensors, in the order of the file.")
      .def(
          "items", [](const py::object& self) { return abc_view<ItemsView>("ItemsView", self); },
          "Get pairs of name and tensor, in the order of the file.")
      .def(
          "dtype", [](const Weights& self, const Name& name) { return std::string(dtype_name(at(self, name).dtype)); },
          "name"_a, "Get the element type that the file gives for a tensor, for example ``\"bfloat16\"``.")
      .def_property_readonly("metadata", &Weights::metadata, "The metadata of the file, as a dict of strings.")
      .def_property_readonly("nbytes", &Weights::bytes, "The size of all tensors together, in bytes.")
      .def_property_readonly("file_bytes", &Weights::file_bytes, "The size of the file, in bytes.")
      .def_property_readonly(
          "path", [](const Weights& self) { return file_name(self.path()); },
          "The path of the file; empty if the tensors came from no file.")
      .def("__repr__", [](const Weights& self) {
        return cat("<inferkit.Weights: ", counted(self.size(), "tensor"), ", ", counted(self.bytes(), "byte"),
                   self.path().empty() ? "" : cat(", from ", py::repr(file_name(self.path())).cast<std::string>()),
                   ">");
      });
  require_init<Weights>();
  py::module_::import("collections.abc").attr("Mapping").attr("register")(weights);
}

}  // namespace inferkit
