// Rewrites of the graph that change how fast it runs and never what it means. One pass per file; each returns whether
// it changed the graph and leaves the nodes in topological order. None needs shapes, so they run once per model.
#pragma once
#include "graph/ir.h"

namespace inferkit {

/// Removes nodes whose outputs nobody reads, and constants likewise; subgraphs too.
bool eliminate_dead_nodes(Graph& graph);
/// Identity, Dropout at inference whose mask is not read, and Cast to the type that the value already has.
bool eliminate_identity(Graph& graph);
/// Constant nodes (value, value_int, value_floats, ...) become constants of the graph, and constants that subgraphs
/// capture become theirs too.
bool lift_constants(Graph& graph);

/// x * 0.5 * (1 + erf(x / sqrt 2)) in any order of the factors -> inferkit.Gelu(x).
bool fuse_gelu(Graph& graph);
/// x * Sigmoid(x) -> inferkit.Silu(x).
bool fuse_silu(Graph& graph);
/// The nodes of a decomposed layer normalization over the last axis -> inferkit.LayerNorm(x, scale?, bias?), attributes
/// axis = -1 and epsilon, a float32 as x is. A scale and a bias are constants; a bias comes with a scale.
bool fuse_layer_norm(Graph& graph);

/// Transposes that move channels to the end and back (models of frameworks that keep them last) go behind the operators
/// that do not mind, until they meet and undo each other. Changes nothing where that leaves no fewer of them.
bool sink_transposes(Graph& graph);
/// Conv or ConvTranspose without a bias, then Add of a constant for each channel -> the bias. Float32 constants only.
bool fold_bias(Graph& graph);
/// Conv, ConvTranspose or Gemm, then BatchNormalization with constants: folded into the weights in double, rounded
/// once.
bool fold_batch_norm(Graph& graph);
/// MatMul by a constant matrix, or Gemm with one, and a constant bias over the columns -> inferkit.Linear(x, w, bias?),
/// attribute transB (0: w is [K,N], 1: [N,K]). Float32 constants only.
bool fuse_linear(Graph& graph);
/// An elementwise activation whose input is the single use of a Linear or Conv moves into it: inferkit.Linear,
/// inferkit.Conv with attributes activation (Relu, LeakyRelu, Clip, Sigmoid, Tanh, Gelu, GeluTanh, Silu, HardSwish,
/// HardSigmoid, Elu), activation_alpha, activation_beta (ONNX's alpha and beta; Clip's bounds).
bool fuse_activation(Graph& graph);

/// What a Loop or Scan carries round but never changes (its body gives back what it was given) is captured instead: it
/// is no longer copied at every iteration, and where it is constant the body's products can be packed. Before constants
/// are folded; not part of run_passes.
bool hoist_invariants(Graph& graph);
/// MatMul and Gemm of dequantized bytes -> inferkit.DequantizedMatMul; Conv of them -> ConvInteger and one
/// DequantizeLinear of the sums. Takes DequantizeLinear nodes of constants, so it comes before constants are folded;
/// not part of run_passes.
bool fuse_quantized(Graph& graph);
/// MatMul(x, Transpose(w)) -> inferkit.Linear(x, w), transB = 1, and Gemm likewise, where w is a float32 constant
/// matrix. Before constants are folded, so that no transposed copy of w is made; not part of run_passes.
bool read_transposed(Graph& graph);

/// Add, Sub, Mul and Div with a float32 number or with each other, Clip, Relu, Sigmoid and Tanh that follow each other
/// from one value to one value -> inferkit.Chain, attributes ops, reads (two for each: 0 is the input, i what operator
/// i gives, counted from 1, -1 a number) and numbers. After all others; not part of run_passes.
bool fuse_chains(Graph& graph);
/// Operators of a chain.
inline constexpr size_t kMostChainLinks = 16;

/// All others in a fixed order, until nothing changes (or a fixed number of rounds).
void run_passes(Graph& graph);

}  // namespace inferkit
