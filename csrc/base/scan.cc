#include "base/scan.h"

#include <cstring>
#include <string_view>

namespace inferkit {
namespace {

// An element is NaN or infinite where all bits of its exponent are one. Adding the lowest exponent bit to the masked
// exponent then carries into the sign bit, so that one OR over all elements answers for them all: and, add, or
// vectorise on every instruction set, where floating-point comparisons under strict rules do not.
template <class Bits, Bits kExponentBits>
struct FiniteScan {
  using Element = Bits;
  static constexpr Bits kExponent = kExponentBits;
  static constexpr Bits kOne = Bits(kExponent & (~kExponent + 1));
  static constexpr Bits kSign = Bits(Bits{1} << (8 * sizeof(Bits) - 1));
  static Bits mark(Bits bits) { return Bits(Bits(bits & kExponent) + kOne); }
};
using ScanF16 = FiniteScan<uint16_t, 0x7c00>;
using ScanBF16 = FiniteScan<uint16_t, 0x7f80>;
using ScanF32 = FiniteScan<uint32_t, 0x7f800000u>;
using ScanF64 = FiniteScan<uint64_t, 0x7ff0000000000000ull>;
// Of the small floats: NaN where all of these bits are one, or where the byte is this one.
using ScanF8E4M3FN = FiniteScan<uint8_t, 0x7f>;
using ScanF8E5M2 = FiniteScan<uint8_t, 0x7c>;
template <uint8_t kNaN>
struct ByteScan {
  using Element = uint8_t;
  static constexpr uint8_t kSign = 0x80;
  static uint8_t mark(uint8_t bits) { return bits == kNaN ? kSign : 0; }
};

/// Finds infinities alone: the exponent is all ones, and nothing is below it.
template <class Finite>
struct InfinityScan {
  using Element = typename Finite::Element;
  static constexpr Element kSign = Finite::kSign;
  static Element mark(Element bits) {
    return Element(bits & Element(~kSign)) == Finite::kExponent ? kSign : Element{0};
  }
};
/// Finds all but the infinity of one sign.
template <class Finite, bool kMinus>
struct MaskScan {
  using Element = typename Finite::Element;
  static constexpr Element kSign = Finite::kSign;
  static Element mark(Element bits) {
    return bits == Element((kMinus ? kSign : Element{0}) | Finite::kExponent) ? Element{0} : Finite::mark(bits);
  }
};
/// Finds NaN alone.
template <class Finite>
struct NanScan {
  using Element = typename Finite::Element;
  static constexpr Element kSign = Finite::kSign;
  static Element mark(Element bits) { return Element(bits & Element(~kSign)) > Finite::kExponent ? kSign : Element{0}; }
};

// Elements are moved by memcpy of their size: the source may be unaligned.
template <class T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// Copies (where kCopy) and scans `count` elements that are `step` bytes apart.
template <class Scan, bool kCopy>
bool scan_run(const char* source, int64_t step, int64_t count, char* target) {
  using Bits = typename Scan::Element;
  Bits seen = 0;
  if (step == int64_t{sizeof(Bits)}) {
    // Four vectors at once: of one, counting takes as long as looking.
    _Pragma("GCC unroll 4") for (int64_t i = 0; i < count; ++i) {
      const Bits bits = load<Bits>(source + i * int64_t{sizeof(Bits)});
      if constexpr (kCopy) std::memcpy(target + i * int64_t{sizeof(Bits)}, &bits, sizeof bits);
      seen |= Scan::mark(bits);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const Bits bits = load<Bits>(source + i * step);
      if constexpr (kCopy) std::memcpy(target + i * int64_t{sizeof(Bits)}, &bits, sizeof bits);
      seen |= Scan::mark(bits);
    }
  }
  return !(seen & Scan::kSign);
}

template <class Bits>
bool copy_run(const char* source, int64_t step, int64_t count, char* target) {
  if (step == int64_t{sizeof(Bits)}) {
    std::memcpy(target, source, static_cast<size_t>(count) * sizeof(Bits));
    return true;
  }
  for (int64_t i = 0; i < count; ++i) std::memcpy(target + i * int64_t{sizeof(Bits)}, source + i * step, sizeof(Bits));
  return true;
}

/// Bools that are neither 0 nor 1, as in a mask of 0 and 255 seen as bool, become 1: code that reads a bool may rely on
/// that, and the compiler does.
bool copy_bool_run(const char* source, int64_t step, int64_t count, char* target) {
  const auto one = [](char byte) { return static_cast<char>(byte != 0); };
  if (step == 1) {
    for (int64_t i = 0; i < count; ++i) target[i] = one(source[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) target[i] = one(source[i * step]);
  }
  return true;
}

using Run = bool (*)(const char* source, int64_t step, int64_t count, char* target);

template <class Finite, bool kCopy>
Run scan_for(NonFinite allowed) {
  if (allowed == NonFinite::kNan) return scan_run<InfinityScan<Finite>, kCopy>;
  if (allowed == NonFinite::kMinusInfinity) return scan_run<MaskScan<Finite, true>, kCopy>;
  if (allowed == NonFinite::kPlusInfinity) return scan_run<MaskScan<Finite, false>, kCopy>;
  if (allowed == NonFinite::kInfinity) return scan_run<NanScan<Finite>, kCopy>;
  return scan_run<Finite, kCopy>;
}

/// Of a type that has NaN, but no infinity.
template <class Nan, bool kCopy>
Run scan_for_nan(NonFinite allowed) {
  return allowed == NonFinite::kNan ? nullptr : Run{scan_run<Nan, kCopy>};
}

/// Null where nothing need be looked at.
template <bool kCopy>
Run scanning_run(DType dtype, NonFinite allowed) {
  if (allowed == NonFinite::kAll) return nullptr;
  switch (dtype) {
    case DType::kF16:
      return scan_for<ScanF16, kCopy>(allowed);
    case DType::kBF16:
      return scan_for<ScanBF16, kCopy>(allowed);
    case DType::kF32:
      return scan_for<ScanF32, kCopy>(allowed);
    case DType::kF64:
      return scan_for<ScanF64, kCopy>(allowed);
    case DType::kF8E4M3FN:
      return scan_for_nan<ScanF8E4M3FN, kCopy>(allowed);
    case DType::kF8E5M2:
      return scan_for<ScanF8E5M2, kCopy>(allowed);
    case DType::kF8E4M3FNUZ:
    case DType::kF8E5M2FNUZ:
      return scan_for_nan<ByteScan<0x80>, kCopy>(allowed);
    case DType::kF8E8M0:
      return scan_for_nan<ByteScan<0xff>, kCopy>(allowed);
    default:
      return nullptr;
  }
}

Run copying_run(DType dtype) {
  if (dtype == DType::kBool) return copy_bool_run;
  switch (dtype_size(dtype)) {
    case 1:
      return copy_run<uint8_t>;
    case 2:
      return copy_run<uint16_t>;
    case 4:
      return copy_run<uint32_t>;
    case 16:
      return copy_run<std::string_view>;
    default:
      return copy_run<uint64_t>;
  }
}

/// The fewest dimensions that describe the same walk: ones dropped, neighbours that form one run merged.
struct Walk {
  size_t rank = 0;
  std::array<int64_t, Shape::kMaxRank> dims{}, strides{};
};

Walk collapse(const StridedView& v) {
  Walk w;
  for (size_t i = 0; i < v.shape.rank(); ++i) {
    const int64_t dim = v.shape[i], stride = v.byte_strides[i];
    if (dim == 1) continue;
    if (w.rank > 0 && w.strides[w.rank - 1] == stride * dim) {
      w.dims[w.rank - 1] *= dim;
      w.strides[w.rank - 1] = stride;
    } else {
      w.dims[w.rank] = dim;
      w.strides[w.rank++] = stride;
    }
  }
  if (w.rank == 0) {  // a single element
    w.rank = 1;
    w.dims[0] = 1;
    w.strides[0] = static_cast<int64_t>(dtype_size(v.dtype));
  }
  return w;
}

bool walk_runs(const StridedView& view, char* target, Run run) {
  const int64_t count = view.shape.elements();
  if (count == 0) return true;
  const Walk w = collapse(view);
  const size_t inner = w.rank - 1;
  const int64_t run_bytes = w.dims[inner] * static_cast<int64_t>(dtype_size(view.dtype));
  const char* source = static_cast<const char*>(view.data);
  std::array<int64_t, Shape::kMaxRank> index{};
  bool finite = true;
  for (;;) {
    finite &= run(source, w.strides[inner], w.dims[inner], target);
    if (target) target += run_bytes;
    size_t d = inner;
    for (;;) {
      if (d-- == 0) return finite;
      source += w.strides[d];
      if (++index[d] < w.dims[d]) break;
      source -= w.strides[d] * w.dims[d];
      index[d] = 0;
    }
  }
}

}  // namespace

StridedView StridedView::contiguous(const TensorView& tensor) {
  StridedView view{tensor.dtype, tensor.shape, tensor.shape.strides(), tensor.data};
  for (size_t i = 0; i < view.shape.rank(); ++i) {
    view.byte_strides[i] *= static_cast<int64_t>(dtype_size(tensor.dtype));
  }
  return view;
}

bool StridedView::is_contiguous() const {
  if (shape.elements() == 0) return true;
  int64_t step = static_cast<int64_t>(dtype_size(dtype));
  for (size_t i = shape.rank(); i-- > 0;) {
    if (shape[i] != 1 && byte_strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

bool copy_strided(const StridedView& source, void* target, NonFinite allowed) {
  const Run scan = scanning_run<true>(source.dtype, allowed);
  return walk_runs(source, static_cast<char*>(target), scan ? scan : copying_run(source.dtype));
}

bool all_finite(const StridedView& source, NonFinite allowed) {
  const Run scan = scanning_run<false>(source.dtype, allowed);
  return !scan || walk_runs(source, nullptr, scan);
}

bool all_finite(const TensorView& source) {
  const Run scan = scanning_run<false>(source.dtype, NonFinite::kNone);
  return !scan || scan(static_cast<const char*>(source.data), static_cast<int64_t>(dtype_size(source.dtype)),
                       source.shape.elements(), nullptr);
}

std::optional<Shape> first_non_finite(const StridedView& source, NonFinite allowed) {
  const Run scan = scanning_run<false>(source.dtype, allowed);
  const int64_t count = source.shape.elements();
  const auto steps = source.shape.strides();
  for (int64_t i = 0; scan && i < count; ++i) {
    Shape index;
    const char* at = static_cast<const char*>(source.data);
    for (size_t d = 0; d < source.shape.rank(); ++d) {
      const int64_t position = i / steps[d] % source.shape[d];
      index.push_back(position);
      at += position * source.byte_strides[d];
    }
    if (!scan(at, 0, 1, nullptr)) return index;
  }
  return std::nullopt;
}

}  // namespace inferkit
