// A pointer that counts references inside its object.
#pragma once
#include <atomic>
#include <cstdint>
#include <utility>

namespace inferkit {

/// Base of objects that an IntrusivePtr shares. Starts at no reference; the last IntrusivePtr deletes it.
template <class Derived>
class RefCounted {
 public:
  void retain() const { count_.fetch_add(1, std::memory_order_relaxed); }
  void release() const {
    // Release: what this owner did comes before the deletion; acquire: the deleter sees it.
    if (count_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete static_cast<const Derived*>(this);
  }
  /// For who knows that nobody can add one meanwhile. Acquire: what those did who have let go is seen.
  uint32_t references() const { return count_.load(std::memory_order_acquire); }

 protected:
  RefCounted() = default;
  ~RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;

 private:
  mutable std::atomic<uint32_t> count_{0};
};

template <class T>
class IntrusivePtr {
 public:
  IntrusivePtr() = default;
  IntrusivePtr(std::nullptr_t) {}  // NOLINT: implicit, as of any pointer
  explicit IntrusivePtr(T* object) : object_(object) {
    if (object_) object_->retain();
  }
  IntrusivePtr(const IntrusivePtr& other) : IntrusivePtr(other.object_) {}
  IntrusivePtr(IntrusivePtr&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  IntrusivePtr& operator=(IntrusivePtr other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~IntrusivePtr() {
    if (object_) object_->release();
  }

  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const IntrusivePtr& other) const = default;

  /// Takes over, or hands out, a reference that is already counted.
  static IntrusivePtr adopt(T* counted) {
    IntrusivePtr ref;
    ref.object_ = counted;
    return ref;
  }
  T* detach() { return std::exchange(object_, nullptr); }

 private:
  T* object_ = nullptr;
};

}  // namespace inferkit
