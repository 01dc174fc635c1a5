// A heap whose links lie in its elements: nothing it does can fail.
#pragma once
#include <utility>

namespace inferkit {

/// A member `heap` of an element.
template <class T>
struct HeapLinks {
  T* child = nullptr;     // the first of its children
  T* sibling = nullptr;   // the next child of its parent
  T* previous = nullptr;  // the child before it, or the parent of a first one; null at the root
};

/// Push in constant time, remove in O(log n) amortised, of the top or from anywhere; never allocates. `Before` is
/// asked about elements that are in the heap, and must give the same answers until they leave; not about one that is
/// just being removed. Not thread-safe.
template <class T, class Before>
class PairingHeap {
 public:
  T* top() const { return root_; }

  void push(T& element) noexcept { root_ = root_ ? meld(root_, &element) : &element; }

  void remove(T& element) noexcept {
    HeapLinks<T>& links = element.heap;
    T* const children = meld_all(std::exchange(links.child, nullptr));
    if (&element == root_) {
      root_ = children;
      return;
    }
    (links.previous->heap.child == &element ? links.previous->heap.child : links.previous->heap.sibling) =
        links.sibling;
    if (links.sibling) links.sibling->heap.previous = links.previous;
    links.sibling = links.previous = nullptr;
    if (children) root_ = meld(root_, children);
  }

 private:
  /// Of two roots, the one that goes first, with the other below it.
  static T* meld(T* a, T* b) noexcept {
    if (Before{}(*b, *a)) std::swap(a, b);
    b->heap.previous = a;
    b->heap.sibling = a->heap.child;
    if (a->heap.child) a->heap.child->heap.previous = b;
    a->heap.child = b;
    return a;
  }

  /// One root from a list of siblings: by pairs, then all pairs from the last to the first.
  static T* meld_all(T* first) noexcept {
    T* pairs = nullptr;  // linked by sibling, the last one first
    while (first) {
      T* a = first;
      T* b = a->heap.sibling;
      first = b ? b->heap.sibling : nullptr;
      a->heap.sibling = a->heap.previous = nullptr;
      if (b) {
        b->heap.sibling = b->heap.previous = nullptr;
        a = meld(a, b);
      }
      a->heap.sibling = pairs;
      pairs = a;
    }
    T* root = nullptr;
    while (pairs) {
      T* next = std::exchange(pairs->heap.sibling, nullptr);
      root = root ? meld(root, pairs) : pairs;
      pairs = next;
    }
    return root;
  }

  T* root_ = nullptr;
};

}  // namespace inferkit
