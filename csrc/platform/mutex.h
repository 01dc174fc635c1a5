// std::mutex with the attributes that clang's -Wthread-safety reads. A lock that is held for nanoseconds, never while a
// model runs and never while waiting for Python's GIL.
#pragma once
#include <mutex>

#if defined(__clang__)
#define INFERKIT_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define INFERKIT_THREAD_ATTRIBUTE(x)
#endif
#define GUARDED_BY(mutex) INFERKIT_THREAD_ATTRIBUTE(guarded_by(mutex))
#define REQUIRES(...) INFERKIT_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) INFERKIT_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

namespace inferkit {

class INFERKIT_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() INFERKIT_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  bool try_lock() INFERKIT_THREAD_ATTRIBUTE(try_acquire_capability(true)) { return mutex_.try_lock(); }
  void unlock() INFERKIT_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class INFERKIT_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) INFERKIT_THREAD_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() INFERKIT_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace inferkit
