#include "bindings/signature.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/cat.h"

namespace py = pybind11;

namespace inferkit {
namespace {

constexpr std::string_view kEnd = "\n--\n\n";  // behind a signature that Python itself takes apart

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// Calls visit(at) for each character outside of brackets and quotes, until it returns true. Where that was; npos.
template <class Visit>
size_t find_outside(std::string_view text, const Visit& visit) {
  int depth = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote) {
      if (c == '\\') ++i;
      if (c == quote) quote = 0;
    } else if (depth == 0 && visit(c)) {
      return i;
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == '(' || c == '[' || c == '{') {
      ++depth;
    } else if (c == ')' || c == ']' || c == '}') {
      --depth;
    }
  }
  return std::string_view::npos;
}

/// A default as inspect.signature() can read it: what is no number, word or text of Python's own is an ellipsis.
std::string_view plain_default(std::string_view value) {
  const auto in_number = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) || c == '.' || c == '-'; };
  const bool text = value.size() > 1 && value.front() == '\'' && value.back() == '\'';
  const bool word = value == "None" || value == "True" || value == "False";
  return text || word || (!value.empty() && std::ranges::all_of(value, in_number)) ? value : "...";
}

/// "size: int = 0": "size=0".
std::string plain_parameter(std::string_view text) {
  const size_t name_end = find_outside(text, [](char c) { return c == ':' || c == '='; });
  std::string out(trimmed(text.substr(0, name_end)));
  const size_t equals = find_outside(text, [](char c) { return c == '='; });
  if (equals != std::string_view::npos) out += cat("=", plain_default(trimmed(text.substr(equals + 1))));
  return out;
}

}  // namespace

std::optional<Signature> read_signature(std::string_view text, bool self) {
  if (text.empty() || text.front() != '(') return std::nullopt;
  const std::string_view inside = text.substr(1);
  const size_t end = find_outside(inside, [](char c) { return c == ')'; });
  if (end == std::string_view::npos) return std::nullopt;
  std::string parameters;
  for (std::string_view rest = inside.substr(0, end); !trimmed(rest).empty();) {
    const size_t comma = find_outside(rest, [](char c) { return c == ','; });
    const std::string one = plain_parameter(rest.substr(0, comma));
    if (self || one != "self") parameters += cat(parameters.empty() ? "" : ", ", one);
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  // What it returns, too.
  const size_t line = std::min(text.find('\n', end), text.size());
  return Signature{cat("(", parameters, ")"), line};
}

std::optional<std::string> plain_doc(std::string_view name, std::string_view doc) {
  if (!doc.starts_with(name) || doc.find(kEnd) != std::string_view::npos) return std::nullopt;
  const auto signature = read_signature(doc.substr(name.size()));
  if (!signature) return std::nullopt;
  std::string_view body = doc.substr(name.size() + signature->length);
  std::string out = cat(name, signature->parameters, kEnd);
  if (!trimmed(body).starts_with("Overloaded function.")) return out + std::string(trimmed(body));
  // Of each of them a number and a signature, which say nothing more, and perhaps a docstring.
  std::string said;
  for (bool first = true; !body.empty(); first = false) {
    const size_t end = body.find("\n\n");
    const std::string_view part = trimmed(body.substr(0, end));
    body = end == std::string_view::npos ? std::string_view() : body.substr(end + 2);
    const size_t dot = part.find(". ");
    const bool numbered = dot != std::string_view::npos && part.substr(dot + 2).starts_with(cat(name, "("));
    if (!first && !part.empty() && !numbered && part != "Overloaded function.")
      said += cat(said.empty() ? "" : "\n\n", part);
  }
  return out + said;
}

std::optional<std::string> plain_refusal(std::string_view message) {
  constexpr std::string_view kFunction = "(): incompatible function arguments. ";
  constexpr std::string_view kConstructor = "(): incompatible constructor arguments. ";
  const bool constructs = message.find(kConstructor) != std::string_view::npos;
  const size_t end = message.find(constructs ? kConstructor : kFunction);
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view name = message.substr(0, end);
  std::string ways;
  for (size_t line = message.find('\n'); line != std::string_view::npos; line = message.find('\n', line + 1)) {
    std::string_view way = message.substr(line + 1);
    const size_t number = way.find_first_not_of(' ');
    if (number == 0 || number == std::string_view::npos || !std::isdigit(static_cast<unsigned char>(way[number])))
      break;
    way = way.substr(std::min(way.size(), way.find(". ", number) + 2));
    if (constructs) {  // "inferkit._core.Buffer(size: int)"
      const std::string_view whole = way.substr(0, way.find('('));
      name = whole.substr(whole.rfind('.') + 1);
      way = way.substr(whole.size());
    }
    const auto signature = read_signature(way, /*self=*/false);
    if (!signature) return std::nullopt;
    ways += cat(ways.empty() ? "" : " or ", name, signature->parameters);
  }
  if (ways.empty()) return std::nullopt;
  return cat(name, "() does not take these arguments: it is called as ", ways);
}

namespace {

void make_plain(PyMethodDef& def, bool owned) {
  if (!def.ml_doc) return;
  const auto plain = plain_doc(def.ml_name, def.ml_doc);
  if (!plain) return;
  char* copy = strdup(plain->c_str());
  if (!copy) throw std::bad_alloc();
  if (owned) std::free(const_cast<char*>(def.ml_doc));  // as pybind11 will
  def.ml_doc = copy;
}

/// A function, method or property.
void make_plain(py::handle attribute) {
  py::object held = py::reinterpret_borrow<py::object>(attribute);
  if (Py_IS_TYPE(held.ptr(), &PyStaticMethod_Type)) held = held.attr("__func__");
  PyObject* object = held.ptr();
  if (PyInstanceMethod_Check(object)) object = PyInstanceMethod_GET_FUNCTION(object);
  if (PyCFunction_Check(object)) {
    PyObject* self = PyCFunction_GET_SELF(object);
    const bool owned = self && py::detail::function_record_ptr_from_PyObject(self) != nullptr;
    make_plain(*reinterpret_cast<PyCFunctionObject*>(object)->m_ml, owned);
  } else if (Py_IS_TYPE(object, &PyMethodDescr_Type)) {
    make_plain(*reinterpret_cast<PyMethodDescrObject*>(object)->d_method, false);
  } else if (PyObject_TypeCheck(object, &PyProperty_Type)) {
    const py::object doc = held.attr("__doc__");
    if (!py::isinstance<py::str>(doc)) return;
    const auto text = doc.cast<std::string>();
    const auto signature = read_signature(text);
    if (signature && text.substr(0, signature->length).find(") -> ") != std::string::npos)
      held.attr("__doc__") = std::string(trimmed(std::string_view(text).substr(signature->length)));
  }
}

}  // namespace

void make_docs_plain(py::module_& module) {
  for (const auto& [name, value] : py::reinterpret_borrow<py::dict>(module.attr("__dict__"))) {
    make_plain(value);
    if (!py::isinstance<py::type>(value)) continue;
    for (const auto& item : value.attr("__dict__").attr("values")()) make_plain(item);
  }
}

}  // namespace inferkit
