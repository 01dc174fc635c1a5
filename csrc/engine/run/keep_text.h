// Outputs of strings outlive the run whose memory their views point into.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "engine/run/program.h"
#include "engine/runner.h"

namespace inferkit {

/// From now on the views of output `index` show copies, which the sink keeps. Neighbours that show the same bytes share
/// a copy. Throws Error(kValidation, kTooLarge) beyond `max_bytes`.
void keep_text(OutputSink& sink, size_t index, std::span<std::string_view> views, size_t max_bytes);

/// Hands out another sink's memory, and remembers where the strings are.
class TextSink final : public RunSink {
 public:
  /// Outputs are held to what `graph` declares of sequences and optionals.
  TextSink(OutputSink& sink, const Graph& graph) : sink_(sink), graph_(graph) {}
  void* allocate(size_t index, DType dtype, const Shape& shape) override;
  void give(size_t index, const Tensor& list) override;
  /// After the run, while its memory is still there.
  void keep(size_t max_bytes);

 private:
  struct Output {
    size_t index;
    std::span<std::string_view> views;
  };
  OutputSink& sink_;
  const Graph& graph_;
  std::vector<Output> outputs_;
};

}  // namespace inferkit
