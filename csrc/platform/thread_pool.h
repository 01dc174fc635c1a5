// The one pool of threads that kernels fork onto. Workers of batchers are the outer parallelism, this pool the inner:
// who finds it busy runs on its own thread.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace inferkit {

template <class Signature>
class FunctionRef;

/// A call to a callable that somebody else keeps alive; two words, never allocates.
template <class R, class... Args>
class FunctionRef<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> && std::is_invocable_r_v<R, F&, Args...>)
  FunctionRef(F&& f)  // NOLINT: implicit, as std::function is
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  /// The pool of the process, sized from usable_cpus(). Threads start at the first parallel_for that wants them. After
  /// fork() the child has a fresh pool.
  static ThreadPool& process();

  /// `threads` counts the caller: a pool of 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// The most threads that one parallel_for uses, the caller included; in a Rehearsal, as many as that says.
  int size() const;
  /// The same now: no more than the process has CPUs, whose set may have been narrowed since. A system call.
  int usable_size() const;

  /// Calls body(i) once for every i in [0, count), on the caller and up to max_threads - 1 others; returns when all are
  /// done, and what they wrote is visible. Each thread begins with its own share of neighbouring indices, the same in
  /// every call, so that what it wrote in one step is still in its cache in the next; who is done helps the others.
  /// Which thread runs which i is not fixed, so body must give the same bits on any. Runs inline where the pool serves
  /// another caller and inside a body. `body` must not throw. Where the caller's work may be stopped, the others are
  /// under a control of their own, which follows the caller's (RunControl::current()).
  void parallel_for(int64_t count, int max_threads, FunctionRef<void(int64_t)> body);
  /// The same with body(i, slot): of the calls that run at once no two have the same slot, and all slots are below
  /// max_threads. For bodies that need scratch.
  void parallel_for(int64_t count, int max_threads, FunctionRef<void(int64_t, int64_t)> body);

  /// For its lifetime idle threads watch longer before they sleep: around steps that follow one another, only some of
  /// which are for several threads.
  class Stretch {
   public:
    /// Null: does nothing.
    explicit Stretch(ThreadPool* pool);
    ~Stretch();
    Stretch(const Stretch&) = delete;
    Stretch& operator=(const Stretch&) = delete;

   private:
    std::atomic<uint32_t>* stretches_ = nullptr;
  };

 private:
  struct State;
  State& state();

  const int size_;
  std::atomic<State*> state_;  // replaced in the child of a fork, where the threads of the old one are gone
};

}  // namespace inferkit
