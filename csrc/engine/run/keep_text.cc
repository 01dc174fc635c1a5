#include "engine/run/keep_text.h"

#include <cstring>

#include "engine/run/declared_output.h"
#include "graph/tensor_list.h"

namespace inferkit {
namespace {

bool same(std::string_view a, std::string_view b) { return a.data() == b.data() && a.size() == b.size(); }

}  // namespace

void keep_text(OutputSink& sink, size_t index, std::span<std::string_view> views, size_t max_bytes) {
  size_t bytes = 0;
  for (size_t i = 0; i < views.size(); ++i) {
    if (i > 0 && same(views[i], views[i - 1])) continue;
    if (views[i].size() > max_bytes - bytes) {
      throw Error(ErrorCode::kValidation, Reason::kTooLarge,
                  cat("the strings of output ", index, " take more than ", max_bytes >> 20,
                      " MiB: raise max_run_bytes of Model.load if that is meant"));
    }
    bytes += views[i].size();
  }
  char* to = sink.allocate_text(index, bytes);
  std::string_view from, kept;  // the last one
  for (std::string_view& view : views) {
    if (!same(view, from)) {
      from = view;
      kept = {to, view.size()};
      if (!view.empty()) std::memcpy(to, view.data(), view.size());
      to += view.size();
    }
    view = kept;
  }
}

void* TextSink::allocate(size_t index, DType dtype, const Shape& shape) {
  require_declared_tensor(graph_, index, dtype);
  void* data = sink_.allocate(index, dtype, shape);
  if (dtype == DType::kString) {
    outputs_.push_back({index, {static_cast<std::string_view*>(data), static_cast<size_t>(shape.elements())}});
  }
  return data;
}

void TextSink::give(size_t index, const Tensor& list) {
  require_declared_list(graph_, index, list);
  std::vector<TensorView> views;
  const TensorItems& items = list.list->items;
  for (size_t i = 0; i < items.size(); ++i) views.push_back(items[i].view());
  sink_.give_list(index, list.dtype, views, list.list->none);
}

void TextSink::keep(size_t max_bytes) {
  for (const Output& output : outputs_) keep_text(sink_, output.index, output.views, max_bytes);
}

}  // namespace inferkit
