#include "engine/model/guess_sizes.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <utility>

namespace inferkit {

std::vector<Sizes> equal_sizes(const std::vector<bool>& is_batch) {
  struct Guess {
    int64_t batch, other;
  };
  constexpr Guess kGuesses[] = {{2, 2},   {3, 32},  {2, 64}, {1, 1},  {3, 128},
                                {2, 224}, {1, 640}, {1, 3},  {2, 16}, {5, 7}};
  std::vector<Sizes> out;
  for (const Guess& guess : kGuesses) {
    Sizes& sizes = out.emplace_back();
    for (const bool batch : is_batch) sizes.push_back(batch ? guess.batch : guess.other);
  }
  return out;
}

Sizes sizes_of_weights(const Graph& graph) {
  constexpr size_t kMost = 24;
  std::vector<std::pair<ValueId, const Tensor*>> constants;
  for (const auto& [id, tensor] : graph.constants) constants.emplace_back(id, &tensor);
  std::ranges::sort(constants);  // as the file has them
  Sizes out;
  for (const auto& [id, tensor] : constants) {
    if (tensor->shape.rank() > 4 || tensor->dtype == DType::kI64) continue;  // those are shapes and indices
    for (const int64_t size : tensor->shape) {
      if (out.size() < kMost && size > 1 && std::ranges::find(out, size) == out.end()) out.push_back(size);
    }
  }
  return out;
}

std::vector<Sizes> known_sizes(const std::vector<bool>& is_batch, const Sizes& known) {
  constexpr size_t kMost = 64;
  std::vector<Sizes> out;
  Sizes batches{2};
  batches.insert(batches.end(), known.begin(), known.end());
  for (const int64_t batch : batches) {
    for (const int64_t other : known) {
      if (out.size() == kMost) return out;
      Sizes& sizes = out.emplace_back();
      for (const bool first : is_batch) sizes.push_back(first ? batch : other);
    }
  }
  return out;
}

std::vector<Sizes> different_sizes(const std::vector<bool>& is_batch) {
  constexpr int64_t kSizes[] = {1, 640, 3, 4'096, 64, 16'001, 100'003, 16};
  constexpr size_t kMost = 64;
  const auto others = static_cast<size_t>(std::ranges::count(is_batch, false));
  size_t choices = std::size(kSizes);
  while (choices > 2 && std::pow(choices, others) > kMost) --choices;
  const auto count = static_cast<size_t>(std::min<double>(std::pow(choices, others), kMost));
  std::vector<Sizes> out;
  for (size_t n = 0; n < count; ++n) {
    Sizes& sizes = out.emplace_back();
    size_t rest = n;
    for (const bool batch : is_batch) {
      sizes.push_back(batch ? 1 : kSizes[rest % choices]);
      if (!batch) rest /= choices;
    }
  }
  return out;
}

}  // namespace inferkit
