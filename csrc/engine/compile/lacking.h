// What a model would need of a device that it is not compiled for.
#pragma once
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/compile/op_registry.h"

namespace inferkit {

/// `what` without the label of the node that it begins with.
std::string without_label(std::string_view what, const Node& node);

/// Asks of each node that is compiled whether a device could run it: of all plans, those of a run's later stages and
/// of loops' bodies too. Thread-safe.
class Lacking {
 public:
  struct Lack {
    std::string op;    // with its domain, where that is not ONNX's
    std::string name;  // of the node
    std::string why;
  };

  explicit Lacking(DeviceKind device) : device_(device) {}
  DeviceKind device() const { return device_; }

  void ask(const OpDef& def, const NodeContext& node);
  /// Those that it cannot run, in the order in which they were met.
  std::vector<Lack> lacks() const;
  /// How many nodes were asked about, each once.
  size_t nodes() const;

 private:
  const DeviceKind device_;
  mutable std::mutex mutex_;                       // for what follows
  std::unordered_map<std::string, size_t> asked_;  // label and first output -> its place in lacks_ + 1, or 0
  std::vector<Lack> lacks_;
};

}  // namespace inferkit
