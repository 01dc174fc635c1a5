#include "engine/ops/common/cast_elements.h"

#include "engine/ops/dispatch.h"
#include "engine/ops/saturate.h"
#include "kernels/cpu/half/half.h"

namespace inferkit {
namespace {

template <class To, class From>
To cast_one(From v) {
  if constexpr (std::is_same_v<To, bool>) {
    return load(v) != 0;
  } else if constexpr (kIsHalfType<To>) {
    if constexpr (kIsHalfType<From> || std::is_same_v<From, float>)
      return store<To>(load(v));
    else if constexpr (std::is_same_v<From, double>)
      return store<To>(to_odd_float(v));
    else
      return store<To>(to_odd_float(to_odd_double(v)));
  } else if constexpr (std::is_floating_point_v<To> || std::is_integral_v<From>) {
    return static_cast<To>(load(v));
  } else {
    return saturated<To>(load(v));
  }
}

template <class From, class To>
void cast_all(const std::byte* from, std::byte* to, int64_t n) {
  const From* x = reinterpret_cast<const From*>(from);
  To* y = reinterpret_cast<To*>(to);
  if constexpr (kIsHalfType<From> && std::is_same_v<To, float>) {
    kernels::widen(x, y, n);
  } else if constexpr (kIsHalfType<To> && std::is_same_v<From, float>) {
    kernels::narrow(x, y, n);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = cast_one<To>(x[i]);
  }
}

// What wraps does not look at the sign of the new type, nor what becomes narrower at that of the old one: by width
// these are a third as many functions.
template <class T>
using Unsigned = std::conditional_t<
    sizeof(T) == 1, uint8_t,
    std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;
template <class T>
inline constexpr bool kWraps = std::is_integral_v<T> && !std::is_same_v<T, bool>;

template <class From, class To>
constexpr CastFn cast_fn() {
  if constexpr (kWraps<From> && kWraps<To> && sizeof(To) <= sizeof(From)) {
    return cast_all<Unsigned<From>, Unsigned<To>>;
  } else if constexpr (std::is_integral_v<From> && kWraps<To>) {
    return cast_all<From, Unsigned<To>>;
  } else if constexpr (kWraps<From> && std::is_same_v<To, bool>) {
    return cast_all<Unsigned<From>, bool>;
  } else {
    return cast_all<From, To>;
  }
}

}  // namespace

CastFn cast_elements(DType from, DType to) {
  return dispatch<kAllTypes>(from, [&]<class From>() -> CastFn {
    return dispatch<kAllTypes>(to, []<class To>() -> CastFn { return cast_fn<From, To>(); });
  });
}

}  // namespace inferkit
