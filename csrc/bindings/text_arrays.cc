#include "bindings/text_arrays.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "bindings/array_out.h"
#include "bindings/attributes.h"
#include "bindings/errors.h"
#include "bindings/number_arrays.h"

namespace py = pybind11;

namespace inferkit {
namespace {

using Api = py::detail::npy_api;

// Of numpy's numbers for its types.
constexpr int kObjectType = 17, kBytesType = 18, kTextType = 19, kVariableTextType = 2056;

int type_number(PyObject* array) {
  return py::detail::array_descriptor_proxy(py::detail::array_proxy(array)->descr)->type_num;
}

/// Code points of `Unit` each, encoded to `to`, which has `room`; how many bytes there were, and where there is no
/// room, or half of a surrogate pair, where that is.
struct Encoded {
  size_t bytes = 0;
  bool fits = true;
  char32_t lone = 0;
};

template <class Unit, bool kWrite>
Encoded encode(const char* from, size_t count, char* to, size_t room) {
  Encoded out;
  for (size_t i = 0; i < count; ++i) {
    Unit unit;
    std::memcpy(&unit, from + i * sizeof(Unit), sizeof(Unit));
    const auto code = static_cast<char32_t>(unit);
    if ((code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) {
      out.lone = code;
      return out;
    }
    const size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if constexpr (kWrite) {
      if (n > room - out.bytes) {
        out.fits = false;
        return out;
      }
      char* at = to + out.bytes;
      constexpr unsigned char kLead[] = {0, 0, 0xc0, 0xe0, 0xf0};
      if (n == 1) {
        at[0] = static_cast<char>(code);
      } else {
        for (size_t k = n; k-- > 1;) at[k] = static_cast<char>(0x80 | ((code >> (6 * (n - 1 - k))) & 0x3f));
        at[0] = static_cast<char>(kLead[n] | (code >> (6 * (n - 1))));
      }
    }
    out.bytes += n;
  }
  return out;
}

/// One string where it stands: `count` code points of `unit` bytes.
struct Text {
  const char* data = nullptr;
  size_t count = 0;
  int unit = 0;
  bool ascii = false;
};

template <bool kWrite>
Encoded encode(const Text& text, char* to, size_t room) {
  if (text.ascii) {
    if (kWrite && text.count > room) return {0, false, 0};
    if (kWrite && text.count > 0) std::memcpy(to, text.data, text.count);
    return {text.count, true, 0};
  }
  switch (text.unit) {
    case 1:
      return encode<uint8_t, kWrite>(text.data, text.count, to, room);
    case 2:
      return encode<uint16_t, kWrite>(text.data, text.count, to, room);
    default:
      return encode<uint32_t, kWrite>(text.data, text.count, to, room);
  }
}

/// The elements of an array of strings, in order.
class Elements {
 public:
  Elements(const py::detail::PyArray_Proxy& array, const std::string& label, const Shape& shape)
      : array_(array), label_(label), shape_(shape) {
    const auto* descr = py::detail::array_descriptor_proxy(array.descr);
    fixed_ = descr->type_num == kTextType;
    item_bytes_ = static_cast<size_t>(py::reinterpret_borrow<py::dtype>(array.descr).itemsize());
  }

  /// visit(text, i) for each.
  template <class Visit>
  void for_each(const Visit& visit) const {
    const int64_t count = shape_.elements();
    std::array<int64_t, Shape::kMaxRank> index{};
    const char* at = static_cast<const char*>(static_cast<const void*>(array_.data));
    for (int64_t i = 0; i < count; ++i) {
      visit(fixed_ ? fixed(at) : object(at, i), i);
      for (size_t d = shape_.rank(); d-- > 0;) {
        at += array_.strides[d];
        if (++index[d] < shape_[d]) break;
        at -= array_.strides[d] * shape_[d];
        index[d] = 0;
      }
    }
  }

  [[noreturn]] void refuse(int64_t i, const std::string& what) const {
    const auto strides = shape_.strides();
    std::string index;
    for (size_t d = 0; d < shape_.rank(); ++d) index += cat(d ? ", " : "", i / strides[d] % shape_[d]);
    throw Error(ErrorCode::kValidation, Reason::kDtype,
                cat(label_, ": the element ", shape_.empty() ? "" : cat("at [", index, "] "), what));
  }

 private:
  /// numpy fills up with NULs; those within a string are its own.
  Text fixed(const char* at) const {
    size_t n = item_bytes_ / sizeof(uint32_t);
    for (uint32_t unit = 0; n > 0; --n) {
      std::memcpy(&unit, at + (n - 1) * sizeof(unit), sizeof(unit));
      if (unit != 0) break;
    }
    return {at, n, sizeof(uint32_t), false};
  }
  Text object(const char* at, int64_t i) const {
    PyObject* object = nullptr;
    std::memcpy(&object, at, sizeof(object));
    if (!object || object == Py_None) refuse(i, "is None, not a str: fill in what is missing, or leave those rows out");
    if (PyFloat_Check(object) && PyFloat_AS_DOUBLE(object) != PyFloat_AS_DOUBLE(object)) {
      refuse(i, "is a float, nan, not a str: fill in what is missing, or leave those rows out");
    }
    if (PyBytes_Check(object)) refuse(i, "is bytes, not a str: .decode() makes one");
    if (!PyUnicode_Check(object)) {
      refuse(i, cat("is of type ", Py_TYPE(object)->tp_name, ", not a str: numpy.asarray(x).astype(str) converts it"));
    }
#if PY_VERSION_HEX < 0x030c0000
    if (PyUnicode_READY(object) != 0) throw py::error_already_set();
#endif
    return {static_cast<const char*>(PyUnicode_DATA(object)), static_cast<size_t>(PyUnicode_GET_LENGTH(object)),
            static_cast<int>(PyUnicode_KIND(object)), PyUnicode_IS_ASCII(object) != 0};
  }

  const py::detail::PyArray_Proxy& array_;
  const std::string label_;
  const Shape& shape_;
  bool fixed_ = false;
  size_t item_bytes_ = 0;
};

[[noreturn]] void refuse_array(std::string_view name, ArrayRole role, PyObject* array) {
  PyObject* descr = py::detail::array_proxy(array)->descr;
  const bool bytes = type_number(array) == kBytesType;
  throw Error(
      ErrorCode::kValidation, Reason::kDtype,
      cat(array_label(name, role), " has dtype ", str_of(descr),
          "; expected strings (numpy.str_, or object with str): ",
          bytes ? "numpy.char.decode(x) makes strings of bytes" : "numpy.asarray(x).astype(str) converts them"));
}

StridedView text_view(py::handle array, std::string_view name, ArrayRole role, BufferPool& pool, Buffer& memory) {
  const auto& proxy = *py::detail::array_proxy(array.ptr());
  const auto* descr = py::detail::array_descriptor_proxy(proxy.descr);
  const bool fixed = descr->type_num == kTextType;
  if ((!fixed && descr->type_num != kObjectType) || descr->byteorder == '>') refuse_array(name, role, array.ptr());
  const Shape shape = shape_of_array(array, name, role);
  const Elements elements(proxy, array_label(name, role), shape);
  const auto check = [&](const Encoded& encoded, int64_t i) {
    if (encoded.lone == 0) return;
    constexpr char kHex[] = "0123456789ABCDEF";
    std::string code;
    for (int shift = 28; shift >= 0; shift -= 4) {
      if (encoded.lone >> shift || shift < 16) code.push_back(kHex[(encoded.lone >> shift) & 0xf]);
    }
    const bool half = encoded.lone <= 0xffff;
    elements.refuse(i, cat("holds U+", code, half ? ", half of a surrogate pair" : ", which is beyond Unicode",
                           ": decode what it came from with the right encoding, or with errors='replace'"));
  };
  size_t bytes = 0;
  elements.for_each([&](const Text& text, int64_t i) {
    const Encoded encoded = encode<false>(text, nullptr, 0);
    check(encoded, i);
    bytes += encoded.bytes;
  });
  const size_t view_bytes = static_cast<size_t>(shape.elements()) * sizeof(std::string_view);
  memory = pool.acquire(std::max<size_t>(view_bytes + bytes, 1), "input strings");
  auto* views = memory.as<std::string_view>();
  char* to = memory.as<char>() + view_bytes;
  size_t room = bytes;
  elements.for_each([&](const Text& text, int64_t i) {
    const Encoded encoded = encode<true>(text, to, room);  // of memory that others may have written since
    check(encoded, i);
    if (!encoded.fits) elements.refuse(i, "changed while it was read");
    views[i] = {to, encoded.bytes};
    to += encoded.bytes;
    room -= encoded.bytes;
  });
  return StridedView::contiguous({DType::kString, shape, views});
}

/// What numpy makes strings of. Others (sets, generators, numbers) have no order or are no strings.
bool is_text_like(py::handle object) {
  return PyUnicode_Check(object.ptr()) || PyList_Check(object.ptr()) || PyTuple_Check(object.ptr()) ||
         find_attribute(object, "__array__");
}

py::object object_array(py::handle object) {
  const py::module_ numpy = py::module_::import("numpy");
  return numpy.attr("asarray")(object, py::arg("dtype") = numpy_dtype(DType::kString));
}

py::object to_text_array(py::handle object, std::string_view name, ArrayRole role) {
  const Api& api = Api::get();
  const bool is_array = api.PyArray_Check_(object.ptr());
  if (is_array && type_number(object.ptr()) != kVariableTextType) return py::reinterpret_borrow<py::object>(object);
  if (!is_array && !is_text_like(object)) {
    throw Error(
        ErrorCode::kValidation, Reason::kDtype,
        cat(array_label(name, role), ": expected an array or a list of str; got ", Py_TYPE(object.ptr())->tp_name));
  }
  try {
    return object_array(object);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
    throw Error(
        ErrorCode::kValidation, Reason::kDtype,
        cat(array_label(name, role), ": could not read the ", Py_TYPE(object.ptr())->tp_name, ": ", describe(error)));
  }
}

}  // namespace

py::object to_port_array(py::handle object, const PortSpec& spec, ArrayRole role) {
  if (spec.dtype == DType::kString) return to_text_array(object, spec.name, role);
  if (role == ArrayRole::kInput && is_number_or_list(object)) return array_of_numbers(object, spec.name, spec.dtype);
  return to_array(object, spec.name, role);
}

StridedView port_view(py::handle array, const PortSpec& spec, BufferPool& pool, Buffer& memory, ArrayRole role) {
  if (spec.dtype != DType::kString) return view_of(array, spec.name, spec.dtype, role);
  return text_view(array, spec.name, role, pool, memory);
}

py::object text_array(std::span<const std::string_view> views, const Shape& shape) {
  void* data = nullptr;
  py::object array = new_array(DType::kString, shape, &data);  // of null pointers, as numpy makes objects
  auto* to = static_cast<PyObject**>(data);
  for (size_t i = 0; i < views.size(); ++i) {
    const bool again = i > 0 && views[i].data() == views[i - 1].data() && views[i].size() == views[i - 1].size();
    to[i] = again ? Py_NewRef(to[i - 1])
                  : PyUnicode_DecodeUTF8(views[i].data(), static_cast<Py_ssize_t>(views[i].size()), nullptr);
    if (!to[i]) throw py::error_already_set();
  }
  return array;
}

}  // namespace inferkit
