// How the dispatch.cc of a family picks the table of a tier from the rows of its kernels.inc.
#pragma once
#include <stdexcept>

#include "base/error.h"
#include "platform/isa.h"
#include "platform/tile_permission.h"

namespace inferkit::kernels {

template <class Table>
struct TierRow {
  Isa isa;
  const Table* table;
  IsaFeatures needs = {};
};

/// Whether this process may use them: asks Linux for the tiles of AMX.
inline bool may_use(IsaFeatures features) {
  const IsaFeatures tiles = IsaFeatures(IsaFeature::kAmxInt8) | IsaFeature::kAmxBf16;
  return features.without(tiles) == features || may_use_tiles();
}

/// The first table that runs on `isa` and needs no other features: what a feature of a lower tier brings, a higher one
/// has, too. std::invalid_argument where this machine or build lacks the tier.
template <class Table, size_t n>
const Table& table_of(const TierRow<Table> (&rows)[n], Isa isa, IsaFeatures features = {}) {
  for (const Isa available : available_isas()) {
    if (available != isa) continue;
    for (const auto& row : rows) {
      if (row.isa <= isa && features.covers(row.needs) && may_use(row.needs)) return *row.table;
    }
  }
  throw std::invalid_argument(cat("this machine or build has no ", isa_name(isa), " kernels"));
}

}  // namespace inferkit::kernels
