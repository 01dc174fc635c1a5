// Which draws a node makes that runs several times in one run: the body of a loop draws anew in each iteration.
#pragma once
#include <cstdint>

namespace inferkit {

/// A number that tells the runs of a loop's body from each other, the same for every run of the model. One thread's.
class DrawStream {
 public:
  /// 0 outside of loops.
  static uint64_t current() { return current_; }
  /// That of iteration `index` of a loop which itself runs under the current one.
  static uint64_t inside(uint64_t index) {
    uint64_t z = current_ + (index + 1) * 0x9e37'79b9'7f4a'7c15;
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
    return z ^ (z >> 31);
  }
  /// Makes one the current one of this thread, for its lifetime.
  class Scope {
   public:
    explicit Scope(uint64_t stream) : before_(current_) { current_ = stream; }
    ~Scope() { current_ = before_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    const uint64_t before_;
  };

 private:
  static inline constinit thread_local uint64_t current_ = 0;
};

}  // namespace inferkit
