// A contiguous, row-major tensor that somebody else owns.
#pragma once
#include <cstddef>

#include "base/dtype.h"
#include "base/shape.h"

namespace inferkit {

struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const void* data = nullptr;

  size_t bytes() const { return static_cast<size_t>(shape.elements()) * dtype_size(dtype); }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

struct MutableTensorView {
  DType dtype = DType::kF32;
  Shape shape;
  void* data = nullptr;

  size_t bytes() const { return static_cast<size_t>(shape.elements()) * dtype_size(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  operator TensorView() const { return {dtype, shape, data}; }
};

}  // namespace inferkit
