// What a device does for this process, counted here: no driver is asked.
#pragma once
#include <cstdint>
#include <mutex>

#include "platform/clock.h"

namespace inferkit {

/// All but `running` only grow.
struct CudaActivity {
  uint64_t launches = 0;        // of graphs
  uint64_t failures = 0;        // of runs, on the device
  uint64_t in_bytes = 0;        // that graphs copied to the device
  uint64_t out_bytes = 0;       // and from it
  uint64_t uploaded_bytes = 0;  // of weights
  Nanos busy = 0;               // while a graph was under way, one or several
  int running = 0;              // graphs that are under way
};

/// Counts all of it but what is uploaded. Thread-safe.
class ActivityMeter {
 public:
  explicit ActivityMeter(const Clock& clock) : clock_(clock) {}

  /// Of a graph that copies so much: it is under way while this lives, whether it goes well or not.
  class Launch {
   public:
    Launch(ActivityMeter& meter, uint64_t in_bytes, uint64_t out_bytes);
    ~Launch();
    Launch(const Launch&) = delete;
    Launch& operator=(const Launch&) = delete;

   private:
    ActivityMeter& meter_;
  };

  void note_failure();
  CudaActivity now() const;

 private:
  const Clock& clock_;
  mutable std::mutex mutex_;  // for what follows; the clock is read under it, so that times come in order
  CudaActivity so_far_;
  Nanos since_ = 0;  // when the device began to be busy, where something is running
};

}  // namespace inferkit
