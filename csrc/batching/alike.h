// What a batcher knows of requests that are equal: those under way, and the answers that it keeps.
#pragma once
#include <optional>

#include "batching/coalescer.h"
#include "batching/content.h"
#include "batching/options.h"
#include "batching/result_cache.h"
#include "telemetry/counter.h"

namespace inferkit {

struct Alike {
  Alike(std::span<const PortSpec> ports, const BatcherOptions& options, BufferPool& pool) {
    if (options.coalesce) coalescer.emplace(ports, options.max_queue_size, options.ageing);
    if (options.result_cache) cache.emplace(ports, pool, options.result_cache);
  }

  const ContentHash hash;
  std::optional<Coalescer> coalescer;
  std::optional<ResultCache> cache;
  Counter coalesced;  // requests that followed another
};

/// Whether the answers of that model are kept: what a callable answers may hang on more than its inputs.
inline bool keeps_answers(const Runner& model, const BatcherOptions& options) {
  return options.result_cache && (!model.needs_gil() || options.cache_callables);
}

}  // namespace inferkit
