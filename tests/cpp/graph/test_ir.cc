#include <vector>

#include "graph/ir.h"
#include "test.h"

using namespace inferkit;

namespace {

/// Constants in the graph and in a subgraph of its node: `a`, `b`, a view of `a`'s memory, and `c` within.
Graph graph_with_constants() {
  const float numbers[] = {1, 2, 3, 4};
  Graph body;
  body.constants.emplace(body.add_value("c"), make_tensor<float>({4}, numbers));
  body.nodes.emplace_back();
  Graph graph;
  const ValueId a = graph.add_value("a"), b = graph.add_value("b"), view = graph.add_value("view");
  graph.add_value("x");
  const Tensor first = make_tensor<float>({4}, numbers);
  graph.constants.emplace(view, Tensor{DType::kF32, {2, 2}, first.data, first.owner});
  graph.constants.emplace(b, make_tensor<float>({4}, numbers));
  graph.constants.emplace(a, first);
  graph.nodes.resize(2);
  graph.nodes[0].attributes.emplace("body", std::make_shared<Graph>(std::move(body)));
  return graph;
}

const Graph& body_of(const Graph& graph) {
  return *std::get<std::shared_ptr<Graph>>(graph.nodes[0].attributes.at("body"));
}

std::vector<uint64_t> ids(const Graph& graph) {
  return {graph.constant(0)->id, graph.constant(1)->id, graph.constant(2)->id, body_of(graph).constant(0)->id};
}

}  // namespace

TEST(constants_and_nodes_are_told_apart_in_subgraphs_too) {
  Graph graph = graph_with_constants();
  CHECK(ids(graph) == (std::vector<uint64_t>{0, 0, 0, 0}));
  number_graph(graph);
  CHECK(ids(graph) == (std::vector<uint64_t>{1, 2, 1, 3}));  // a view is the same memory: one id
  CHECK_EQ(graph.nodes[0].id, uint64_t{1});
  CHECK_EQ(body_of(graph).nodes[0].id, uint64_t{2});
  CHECK_EQ(graph.nodes[1].id, uint64_t{3});
}

TEST(a_label_names_what_the_file_has) {
  Node node;
  node.op_type = "MatMulInteger";
  CHECK_EQ(node.label(), "a node (MatMulInteger)");
  node.name = "q/MatMulInteger";
  CHECK_EQ(node.label(), "node 'q/MatMulInteger' (MatMulInteger)");
  node.stands_for = {{"com.microsoft.QGemm", "q"}};
  CHECK_EQ(node.label(), "node 'q' (com.microsoft.QGemm, which is computed with MatMulInteger)");
  CHECK_EQ(node.step_label(), "node 'q/MatMulInteger' (MatMulInteger)");
  node.stands_for = {{"Conv", ""}, {"Relu", "r"}};
  CHECK_EQ(node.label(), "a node (Conv, in one step with 'r' (Relu))");
  node.stands_for = {{"Conv", "c"}, {"Add", ""}, {"Relu", "r"}};
  CHECK_EQ(node.label(), "node 'c' (Conv, in one step with a node (Add) and 1 more)");
  node.stands_for = {{"MatMulInteger", "m"}};
  CHECK_EQ(node.label(), "node 'm' (MatMulInteger)");
}

TEST(another_load_gives_the_same_numbers) {
  Graph one = graph_with_constants(), two = graph_with_constants();
  number_graph(one);
  number_graph(two);
  CHECK(ids(one) == ids(two));
}
