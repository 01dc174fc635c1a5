// Counting the n-grams of text without its tokens in between.
#pragma once
#include "graph/ir.h"

namespace inferkit {

/// com.microsoft.Tokenizer, Flatten(axis 1) or nothing, TfIdfVectorizer -> inferkit.TokenCounts with the attributes of
/// both. The tokens' matrix, whose width hangs on all texts of a run, is gone, and so a batcher may run requests
/// together. Only where padding counts for nothing: it is not in the vectorizer's pool and stands behind a row's
/// tokens.
bool fuse_tokens(Graph& graph);

}  // namespace inferkit
