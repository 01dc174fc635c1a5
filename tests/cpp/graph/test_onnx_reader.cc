// Reading what the onnx package wrote (tests/data/make_graph_models.py): every value below is known from there.
#include <algorithm>
#include <cmath>
#include <set>

#include "graph/onnx_reader.h"
#include "onnx_bytes.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

const Value& value(const Graph& g, ValueId id) { return g.values.at(static_cast<size_t>(id)); }

const Node& node_named(const Graph& g, const std::string& name) {
  for (const Node& n : g.nodes)
    if (n.name == name) return n;
  throw std::runtime_error("no node " + name);
}

const Tensor& constant_named(const Graph& g, const std::string& name) {
  for (const auto& [id, tensor] : g.constants)
    if (value(g, id).name == name) return tensor;
  throw std::runtime_error("no constant " + name);
}

template <class T>
void check_values(const Graph& g, const std::string& name, std::initializer_list<T> expected) {
  const Tensor& t = constant_named(g, name);
  CHECK(t.dtype == kDTypeOf<T>);
  CHECK_EQ(t.shape.elements(), static_cast<int64_t>(expected.size()));
  CHECK(std::equal(expected.begin(), expected.end(), t.as<T>()));
}

const Graph& subgraph(const Node& n, const std::string& name) {
  return *std::get<std::shared_ptr<Graph>>(n.attributes.at(name));
}

}  // namespace

TEST(reader_mlp) {
  const ModelFile model = read_onnx(data_path("mlp.onnx"));
  const Graph& g = model.graph;
  CHECK_EQ(g.name, "mlp");
  CHECK_EQ(model.ir_version, 8);
  CHECK_EQ(model.producer, "make_graph_models 1");
  CHECK_EQ(model.opsets.at(""), 17);
  CHECK_EQ(model.metadata.at("author"), "tests");
  CHECK_EQ(model.metadata.at("täg"), "välue");
  CHECK_EQ(model.file_bytes, file_bytes(data_path("mlp.onnx")).size());

  CHECK_EQ(g.inputs.size(), 1u);
  CHECK_EQ(value(g, g.inputs[0]).name, "x");
  CHECK(value(g, g.inputs[0]).dtype == DType::kF32);
  CHECK_EQ(value(g, g.inputs[0]).shape->str(), "(None, 4)");
  CHECK_EQ(value(g, g.outputs.at(0)).name, "y");
  CHECK_EQ(g.nodes.size(), 4u);
  const Node& fc1 = g.nodes[0];
  CHECK_EQ(fc1.label(), "node 'fc1' (Gemm)");
  CHECK_EQ(fc1.version, 17);
  CHECK_EQ(std::get<int64_t>(fc1.attributes.at("transB")), 1);
  CHECK_EQ(value(g, fc1.inputs.at(1)).name, "w1");
  CHECK_EQ(value(g, fc1.outputs.at(0)).shape->str(), "(None, 5)");
  CHECK_EQ(g.constants.size(), 4u);
  CHECK_EQ(constant_named(g, "w1").shape.str(), "(5, 4)");
  check_values<float>(g, "b1", {-1, -0.75f, -0.5f, -0.25f, 0});
}

TEST(reader_copies_small_tensors_of_files) {
  Tensor w;
  {
    const ModelFile model = read_onnx(data_path("external.onnx"));
    w = constant_named(model.graph, "w");
    CHECK(model.files.empty());  // too small to be worth watching over a file
    check_values<float>(model.graph, "u", {-1, -0.75f, -0.5f});
    CHECK_EQ(reinterpret_cast<uintptr_t>(constant_named(model.graph, "u").as<float>()) % 4, 0u);
    CHECK_EQ(model.file_bytes,
             file_bytes(data_path("external.onnx")).size() + file_bytes(data_path("external.bin")).size());
  }
  CHECK_EQ(w.as<float>()[15], 15 * 0.25f - 1);
}

TEST(reader_bytes_are_views_with_an_owner_and_copies_without) {
  // Raw data at every alignment, by a name that grows.
  for (size_t pad = 1; pad <= 8; ++pad) {
    const std::string raw("\0\0\x80\x3f\0\0\0\x40", 8);
    const std::string name(pad, 'w');
    const Message g = graph_of({node("Add", {"x", name}, {"y"})}).message(5, tensor(name, {2}, raw));
    const std::string bytes = model(g).bytes;
    auto owner = std::make_shared<std::string>(bytes);
    const auto span = std::as_bytes(std::span(*owner));
    const auto inside = [&](const Tensor& t) {
      const auto* p = static_cast<const std::byte*>(t.data);
      return p >= span.data() && p < span.data() + span.size();
    };
    const ModelFile with = read_onnx(span, {}, owner);
    const ModelFile without = read_onnx(span);
    const size_t at = bytes.find(raw);
    CHECK_EQ(inside(constant_named(with.graph, name)), reinterpret_cast<uintptr_t>(span.data() + at) % 4 == 0);
    CHECK(!inside(constant_named(without.graph, name)));
    check_values<float>(with.graph, name, {1, 2});
    check_values<float>(without.graph, name, {1, 2});
  }
}

TEST(reader_typed_fields_of_every_dtype) {
  const Graph g = read_onnx(data_path("typed.onnx")).graph;
  check_values<float>(g, "f32", {1.5f, -2.25f, 3e38f});
  check_values<double>(g, "f64", {1.5, -2.25, 1e300});
  check_values<int8_t>(g, "i8", {1, -2, 127});
  check_values<int16_t>(g, "i16", {1, -2, 32767});
  check_values<int32_t>(g, "i32", {1, -2, 2147483647});
  check_values<int64_t>(g, "i64", {1, -2, INT64_MIN});
  check_values<uint8_t>(g, "u8", {1, 2, 255});
  check_values<uint16_t>(g, "u16", {1, 2, 65535});
  check_values<uint32_t>(g, "u32", {1, 2, 4294967295u});
  check_values<uint64_t>(g, "u64", {1, 2, UINT64_MAX});
  check_values<bool>(g, "bool", {true, false, true});
  check_values<float>(g, "scalar", {7});
  CHECK_EQ(constant_named(g, "scalar").shape.rank(), 0u);
  CHECK_EQ(constant_named(g, "nothing").shape.str(), "(0, 3)");
  const auto* half = constant_named(g, "f16").as<Half>();
  CHECK_EQ(half[0].bits, 0x3e00);
  CHECK_EQ(half[1].bits, 0xc080);
  CHECK_EQ(half[2].bits, 0x7bff);
  const auto* bf16 = constant_named(g, "bf16").as<BFloat16>();
  CHECK_EQ(bf16[0].bits, 0x3fc0);
  CHECK_EQ(bf16[1].bits, 0xc010);
  CHECK_EQ(bf16[2].bits, 0x4300);
  const auto* strings = constant_named(g, "string").as<std::string_view>();
  CHECK_EQ(strings[0], "one");
  CHECK_EQ(strings[1], "");
  CHECK_EQ(strings[2], "drei ß");
}

TEST(reader_attributes_of_every_kind) {
  const ModelFile model = read_onnx(data_path("attributes.onnx"));
  const Graph& g = model.graph;
  const Node& n = g.nodes.at(0);
  CHECK_EQ(n.label(), "node 'all' (test.domain.Everything)");
  CHECK_EQ(n.version, 3);
  CHECK_EQ(n.inputs.size(), 3u);
  CHECK_EQ(n.inputs[1], kNoValue);
  CHECK_EQ(n.inputs[0], n.inputs[2]);
  CHECK_EQ(n.outputs.at(1), kNoValue);
  CHECK_EQ(std::get<int64_t>(n.attributes.at("an_int")), INT64_MIN);
  CHECK_EQ(std::get<float>(n.attributes.at("a_float")), 0.5f);
  CHECK_EQ(std::get<std::string>(n.attributes.at("a_string")), "text");
  CHECK_EQ(std::get<Tensor>(n.attributes.at("a_tensor")).as<float>()[3], -0.25f);
  CHECK((std::get<std::vector<int64_t>>(n.attributes.at("ints")) == std::vector<int64_t>{1, -1, int64_t{1} << 40}));
  CHECK(
      (std::ranges::equal(std::get<FloatList>(n.attributes.at("floats")).values(), std::vector<float>{0.5f, -0.25f})));
  CHECK((std::get<std::vector<std::string>>(n.attributes.at("strings")) == std::vector<std::string>{"a", "", "ü"}));
  CHECK(std::get<std::vector<int64_t>>(n.attributes.at("no_ints")).empty());
  CHECK_EQ(std::get<int64_t>(n.attributes.at("zero")), 0);
  CHECK(!value(g, g.inputs[0]).shape);  // no shape in the file: unknown rank
}

TEST(reader_subgraphs_capture_through_every_graph_between) {
  const Graph g = read_onnx(data_path("control.onnx")).graph;
  CHECK(g.captures.empty());
  CHECK_EQ(g.nodes.size(), 3u);
  CHECK_EQ(g.nodes[0].name, "abs");  // sorted: the If reads it only through its branch
  const Graph& then_branch = subgraph(node_named(g, "outer_if"), "then_branch");
  const Graph& innermost = subgraph(node_named(then_branch, "inner_if"), "then_branch");
  const auto names = [](const Graph& outer, const Graph& inner) {
    std::set<std::string> out;
    for (const Capture& c : inner.captures) {
      CHECK_EQ(value(outer, c.outer).name, value(inner, c.inner).name);
      out.insert(value(inner, c.inner).name);
    }
    return out;
  };
  CHECK((names(then_branch, innermost) == std::set<std::string>{"x", "w"}));
  CHECK((names(g, then_branch) == std::set<std::string>{"c", "x", "w"}));
  CHECK_EQ(innermost.captures.size(), 2u);
  CHECK_EQ(then_branch.captures.size(), 3u);  // once each, though both inner branches read x
  for (const Capture& c : innermost.captures)
    if (value(innermost, c.inner).name == "x") CHECK_EQ(value(innermost, c.inner).shape->str(), "(2,)");

  const Graph& body = subgraph(node_named(g, "loop"), "body");
  CHECK_EQ(body.inputs.size(), 3u);
  CHECK_EQ(body.outputs.size(), 2u);
  CHECK_EQ(body.captures.size(), 1u);
  CHECK_EQ(body.captures[0].outer, g.inputs[1]);
}

TEST(reader_functions_are_inlined) {
  const Graph g = read_onnx(data_path("function.onnx")).graph;
  std::vector<std::string> ops;
  for (const Node& n : g.nodes) ops.push_back(n.op_type);
  CHECK_EQ(g.nodes.size(), 5u);
  const Node& first = node_named(g, "call/first/leaky");
  const Node& second = node_named(g, "call/second/leaky");
  CHECK_EQ(first.version, 16);                                      // the function's opset, not the model's 17
  CHECK_EQ(std::get<float>(first.attributes.at("alpha")), 0.125f);  // the default
  CHECK_EQ(std::get<float>(second.attributes.at("alpha")), 0.5f);   // steep -> slope -> alpha
  const Node& first_mul = node_named(g, "call/first/mul");
  const Node& second_mul = node_named(g, "call/second/mul");
  CHECK_EQ(first.inputs[0], g.inputs[0]);
  CHECK_EQ(first_mul.inputs[0], first.outputs[0]);
  CHECK_EQ(second.inputs[0], first_mul.outputs[0]);
  CHECK_EQ(second_mul.outputs[0], g.outputs[0]);
  CHECK(g.constants.contains(second_mul.inputs[1]));
  const Node& same = node_named(g, "call/output");
  CHECK_EQ(same.op_type, "Identity");
  CHECK_EQ(same.inputs[0], g.inputs[0]);
  CHECK_EQ(same.outputs[0], g.outputs[1]);
}

TEST(reader_old_files_list_constants_as_inputs_and_any_order) {
  const ModelFile model = read_onnx(data_path("legacy.onnx"));
  const Graph& g = model.graph;
  CHECK_EQ(g.inputs.size(), 1u);
  CHECK_EQ(value(g, g.inputs[0]).name, "x");
  CHECK_EQ(g.constants.size(), 2u);
  CHECK_EQ(g.nodes[0].name, "first");
  CHECK_EQ(g.nodes[1].name, "middle");
  CHECK_EQ(g.nodes[2].name, "last");
}

TEST(reader_domain_ai_onnx_is_the_default) {
  Message relu = node("Relu", {"x"}, {"y"}).text(7, "ai.onnx");
  const Graph g = read(model(graph_of({relu})).bytes).graph;
  CHECK_EQ(g.nodes[0].domain, "");
  CHECK_EQ(g.nodes[0].version, 17);
}

TEST(reader_unknown_fields_are_skipped) {
  Message m = model(graph_of({node("Relu", {"x"}, {"y"})}));
  m.number(500, 1).text(501, "later").raw(varint(502 << 3 | 5) + "abcd").raw(varint(503 << 3 | 1) + "abcdefgh");
  CHECK_EQ(read(m.bytes).graph.nodes.size(), 1u);
}

TEST(reader_bools_become_zero_or_one) {
  const Message g =
      graph_of({node("Relu", {"x"}, {"y"})}).message(5, tensor("b", {4}, std::string("\0\1\2\xff", 4), 9));
  check_values<bool>(read(model(g).bytes).graph, "b", {false, true, true, true});
}

TEST(reader_missing_file_is_a_system_error) { CHECK_THROWS(read_onnx(data_path("none.onnx")), std::system_error); }
