// From a dtype known at compile time of the plan to a C++ type: operators instantiate a template per type, once, and
// the lowering picks one. Half types are storage; Compute<T> is what arithmetic is done in.
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "base/dtype.h"
#include "engine/compile/lower.h"

namespace inferkit {

/// A set of dtypes, one bit each.
using TypeSet = uint32_t;
constexpr TypeSet type_bit(DType t) { return TypeSet{1} << static_cast<unsigned>(t); }
template <class... D>
constexpr TypeSet types(D... t) {
  return (type_bit(t) | ... | 0u);
}
inline constexpr TypeSet kFloatTypes = types(DType::kF32, DType::kF64, DType::kF16, DType::kBF16);
inline constexpr TypeSet kSignedTypes = types(DType::kI8, DType::kI16, DType::kI32, DType::kI64);
inline constexpr TypeSet kUnsignedTypes = types(DType::kU8, DType::kU16, DType::kU32, DType::kU64);
inline constexpr TypeSet kIntegerTypes = kSignedTypes | kUnsignedTypes;
inline constexpr TypeSet kNumberTypes = kFloatTypes | kIntegerTypes;
inline constexpr TypeSet kBoolType = types(DType::kBool);
inline constexpr TypeSet kAllTypes = kNumberTypes | kBoolType;  // all but strings and what base/small_types.h has
constexpr bool contains(TypeSet set, DType t) { return (set & type_bit(t)) != 0; }

/// For steps that do the same to signed and unsigned integers: the unsigned type as wide as a signed one, any other
/// type itself.
constexpr DType signless(DType t) {
  switch (t) {
    case DType::kI8:
      return DType::kU8;
    case DType::kI16:
      return DType::kU16;
    case DType::kI32:
      return DType::kU32;
    case DType::kI64:
      return DType::kU64;
    default:
      return t;
  }
}

/// f.template operator()<T>() for the T of `dtype`; R{} (a null pointer, false) where `dtype` is not in Set. Only the
/// types of Set are instantiated:
///   StepFn fn = dispatch<kFloatTypes>(x.dtype, []<class T>() -> StepFn { return run<T>; });
template <TypeSet Set, class F>
auto dispatch(DType dtype, F&& f) {
  // Some type of Set gives the result type; int32_t if that is possible, any other otherwise.
  constexpr auto pick = [] {
    if constexpr (contains(Set, DType::kF32))
      return std::type_identity<float>{};
    else if constexpr (contains(Set, DType::kI32))
      return std::type_identity<int32_t>{};
    else if constexpr (contains(Set, DType::kU32))
      return std::type_identity<uint32_t>{};
    else if constexpr (contains(Set, DType::kU8))
      return std::type_identity<uint8_t>{};
    else
      return std::type_identity<bool>{};
  };
  using R = decltype(f.template operator()<typename decltype(pick())::type>());
#define INFERKIT_CASE(type)                                                            \
  case kDTypeOf<type>:                                                                 \
    if constexpr (contains(Set, kDTypeOf<type>)) return f.template operator()<type>(); \
    break
  switch (dtype) {
    INFERKIT_CASE(float);
    INFERKIT_CASE(double);
    INFERKIT_CASE(Half);
    INFERKIT_CASE(BFloat16);
    INFERKIT_CASE(int8_t);
    INFERKIT_CASE(int16_t);
    INFERKIT_CASE(int32_t);
    INFERKIT_CASE(int64_t);
    INFERKIT_CASE(uint8_t);
    INFERKIT_CASE(uint16_t);
    INFERKIT_CASE(uint32_t);
    INFERKIT_CASE(uint64_t);
    INFERKIT_CASE(bool);
    default:
      break;
  }
#undef INFERKIT_CASE
  return R();
}

/// For steps that only move elements: f.template operator()<W>() with the unsigned integer as wide as `dtype`; R{} for
/// strings.
template <class F>
auto dispatch_width(DType dtype, F&& f) {
  using R = decltype(f.template operator()<uint32_t>());
  switch (dtype_size(dtype)) {
    case 1:
      return f.template operator()<uint8_t>();
    case 2:
      return f.template operator()<uint16_t>();
    case 4:
      return f.template operator()<uint32_t>();
    case 8:
      return f.template operator()<uint64_t>();
    default:
      return R();
  }
}

template <class T>
inline constexpr bool kIsHalfType = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

/// What arithmetic on T is done in: float for the half types, T otherwise.
template <class T>
using Compute = std::conditional_t<kIsHalfType<T>, float, T>;

template <class T>
Compute<T> load(T v) {
  if constexpr (kIsHalfType<T>)
    return to_float(v);
  else
    return v;
}

/// The inverse of load: rounds to nearest even where T is a half type.
template <class T>
T store(Compute<T> v) {
  if constexpr (std::is_same_v<T, Half>)
    return to_half(v);
  else if constexpr (std::is_same_v<T, BFloat16>)
    return to_bfloat16(v);
  else
    return v;
}

/// The bits of the number 1, those of zero being 0 in every type; none where `dtype` is not in kAllTypes.
inline std::optional<uint64_t> bits_of_one(DType dtype) {
  return dispatch<kAllTypes>(dtype, []<class T>() -> std::optional<uint64_t> {
    const T one = store<T>(static_cast<Compute<T>>(1));
    uint64_t bits = 0;
    std::memcpy(&bits, &one, sizeof one);
    return bits;
  });
}

/// Refuses the node if input `i` has a type that is not in `set`.
inline void require_type(const NodeContext& c, size_t i, TypeSet set) {
  if (!c.knows(i)) return;
  if (!contains(set, c.input(i).dtype)) c.unsupported(cat("input ", i, " of type ", dtype_name(c.input(i).dtype)));
}

/// Fails if the types of inputs i and j differ.
inline void require_same_type(const NodeContext& c, size_t i, size_t j) {
  if (!c.knows(i) || !c.knows(j)) return;
  if (c.input(i).dtype != c.input(j).dtype) {
    c.wrong(cat("inputs ", i, " and ", j, " must have one type, not ", dtype_name(c.input(i).dtype), " and ",
                dtype_name(c.input(j).dtype)));
  }
}

}  // namespace inferkit
