// Arguments as Python gives them, and what is wrong with them in our own words: TypeError or ValueError.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "platform/clock.h"

namespace inferkit {

/// An argument of a bound function taken as it comes, to be converted below; `T` is what the signature says of it.
template <class T>
struct Given : pybind11::object {
  using pybind11::object::object;
  static bool check_(pybind11::handle) { return true; }
};

/// An int, or what has __index__ (numpy's integers); no bool. `name` is the argument's.
int64_t integer(pybind11::handle value, const char* name, int64_t least,
                int64_t most = std::numeric_limits<int64_t>::max());
/// The same, or None for `otherwise`.
int64_t integer_or(int64_t otherwise, pybind11::handle value, const char* name, int64_t least,
                   int64_t most = std::numeric_limits<int64_t>::max());
/// The same for all that 64 bits hold without a sign.
uint64_t natural(pybind11::handle value, const char* name, uint64_t least);
/// A number that is no NaN: a float, an int, or what has __float__; no bool. `what` says what it should be.
double number(pybind11::handle value, const char* name, const char* what = "a number");
/// True or False, numpy's included.
bool flag(pybind11::handle value, const char* name);
/// A str that UTF-8 can encode.
std::string text(pybind11::handle value, const char* name);
/// The same as a view into it.
std::string_view text_view(pybind11::handle value, const char* name);

/// A duration in seconds that is not negative.
Nanos seconds(pybind11::handle value, const char* name);
/// The same, or None for kNever.
Nanos seconds_or_never(pybind11::handle value, const char* name);
/// Seconds from `now` as a deadline; negative ones have passed. None, or no object, is kNever.
Nanos deadline_from(pybind11::handle value, Nanos now, const char* name);

}  // namespace inferkit

namespace pybind11::detail {
template <class T>
struct handle_type_name<inferkit::Given<T>> {
  static constexpr auto name = make_caster<T>::name;
};
}  // namespace pybind11::detail
