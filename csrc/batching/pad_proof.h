// Whether the answer to a padded request is that to the request itself: found out, as nobody can promise it.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "batching/padding.h"
#include "engine/runner.h"
#include "platform/mutex.h"

namespace inferkit {

/// Of each output, the axes that are as long as what was padded.
using Follows = std::vector<Axes>;

/// What is known of the runner's model, by its generation. For each length that is padded to, the first requests also
/// run by themselves, and their answers are compared to the bit: a length is proven once some were the same. With one
/// that is not, no request to that model is padded any more; where requests of two batches run as they came and not
/// once they are padded to a length, none is padded to that. Of a model that another took the place of, nothing is
/// known, and nothing is learnt: who still deals with it is told to pad nothing. Thread-safe.
class PadProof {
 public:
  static constexpr int kSamples = 3;

  /// What a batch goes by, from one moment: others may learn something between two looks.
  struct Look {
    bool apart = true;                         // requests are not to be padded to that length
    bool wants = true;                         // another one is to be looked at, as too few have been
    std::shared_ptr<const Follows> follows{};  // null until a first one has been
  };
  /// For a batch of that number; 0: for a request that is in none yet.
  Look look(uint64_t generation, int64_t length, uint64_t batch = 0) const;
  bool is_apart(uint64_t generation, int64_t length) const { return look(generation, length).apart; }
  /// Why requests to that model are not padded, or not to some lengths; "" where they are.
  std::string refusal(uint64_t generation) const;

  /// What is known now: of who comes second, the first one's. Null where another model took its place.
  std::shared_ptr<const Follows> learn(uint64_t generation, Follows follows);
  void passed(uint64_t generation, int64_t length);
  /// A request of that batch did not run at that length, which its own is not to blame for. One batch may have met with
  /// bad luck: from the second on it is the length; till then no more of the same batch are padded.
  void cannot_run(uint64_t generation, int64_t length, uint64_t batch, const std::string& why);
  void refuse(uint64_t generation, std::string why);

 private:
  struct Length {
    int passed = 0;
    uint64_t failed = 0;  // the last batch that did not run, since one did; 0: none
    std::string never{};  // why nothing is padded to it any more
  };
  struct Known {
    std::shared_ptr<const Follows> follows;
    std::map<int64_t, Length> lengths;
    std::string refusal;  // of all lengths
  };
  Known* of(uint64_t generation) REQUIRES(mutex_);

  mutable Mutex mutex_;  // held for a look at what follows, by requests at the door and by batches that are padded
  uint64_t generation_ GUARDED_BY(mutex_) = 0;  // the latest that anything was learnt of
  Known known_ GUARDED_BY(mutex_);
};

/// Answers of one request of `length`: by itself, and in a run padded to `padded`, where it begins with `first_row`.
struct PadSample {
  std::span<const PortSpec> ports;
  std::span<const TensorView> alone, together;
  int64_t length, padded, first_row;
};
/// Which axes are cut back, by the shapes of both; where they do not fit, `why` says so.
std::optional<Follows> follows_of(const PadSample& sample, std::string& why);
/// Whether the request's part of the run's answer is its own to the bit; else `why` says where they differ.
bool is_same(const PadSample& sample, std::string& why);

}  // namespace inferkit
