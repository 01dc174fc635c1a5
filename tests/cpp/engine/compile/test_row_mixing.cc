// Every operator says which axes it combines, or is one of those that combine none: of what says nothing, a batcher
// puts the rows of several requests into one run.
#include <set>
#include <string>

#include "engine/compile/expand.h"
#include "engine/compile/op_registry.h"
#include "test.h"

using namespace inferkit;

namespace {

/// Elementwise, or along an axis that the output no longer has as long: both are seen in the shapes. What only moves
/// elements is followed by Search (row_mixing.cc).
const std::set<std::string> kCombineNothing = {
    "Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BitCast",
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip",
    "ConstantOfShape", "Cos", "Cosh", "DequantizeLinear", "Det", "Div", "Elu", "Equal", "Erf", "Exp", "Expand",
    "Flatten", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "MatMulInteger", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg",
    "Not", "OneHot", "Or", "PRelu", "Pow", "QLinearMatMul", "QuantizeLinear", "RandomNormal", "RandomUniform", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "RegexFullMatch", "Relu", "Reshape", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Squeeze", "StringConcat", "Sub", "Sum", "Swish",
    "Tan", "Tanh", "TfIdfVectorizer", "ThresholdedRelu", "Transpose", "Unsqueeze", "Where", "Xor",
    // One row of a line of numbers: the output has one, then.
    "ai.onnx.ml.Binarizer", "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.Imputer", "ai.onnx.ml.LabelEncoder",
    "ai.onnx.ml.LinearClassifier", "ai.onnx.ml.LinearRegressor", "ai.onnx.ml.OneHotEncoder", "ai.onnx.ml.SVMClassifier",
    "ai.onnx.ml.SVMRegressor", "ai.onnx.ml.Scaler", "ai.onnx.ml.TreeEnsemble", "ai.onnx.ml.TreeEnsembleClassifier",
    "ai.onnx.ml.TreeEnsembleRegressor", "ai.onnx.ml.ZipMap", "com.microsoft.CDist",
    // Of our own, made of others before rows are looked at, or after.
    "inferkit.Attention", "inferkit.Chain", "inferkit.DequantizedMatMul", "inferkit.Gelu", "inferkit.Linear",
    "inferkit.MatMulInteger", "inferkit.Mlp", "inferkit.Silu", "inferkit.TokenCounts"};

}  // namespace

TEST(operators_say_which_axes_they_combine) {
  std::set<std::string> silent;
  for (const OpDef* def : OpRegistry::instance().all()) {
    const OpSchema& s = def->schema;
    Node node;
    node.op_type = s.name;
    node.domain = s.domain;
    node.version = s.since;
    if (s.mixed_axes || s.rows_mix || def->lowerings.empty() || is_expanded(node)) continue;  // it stands for others
    std::string name(s.domain);
    name += s.domain.empty() ? "" : ".";
    silent.insert(name.append(s.name));
  }
  for (const std::string& name : silent) {
    if (!kCombineNothing.contains(name))
      printf("%s has no mixed_axes: add them, or add it to the list here\n", name.c_str());
    CHECK(kCombineNothing.contains(name));
  }
  for (const std::string& name : kCombineNothing) {
    if (!silent.contains(name)) printf("%s is on the list, and says which axes it combines\n", name.c_str());
    CHECK(silent.contains(name));
  }
}
