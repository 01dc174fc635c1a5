// Files that are broken, by accident or on purpose: each must end in an Error that names the fault, quickly, with no
// read outside the file and no allocation that the file's size does not justify. Run it under the sanitizers.
#include <filesystem>
#include <random>

#include "cpu_time.h"
#include "onnx_bytes.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

const char* const kFixtures[] = {"mlp.onnx",      "typed.onnx",  "attributes.onnx", "control.onnx",
                                 "function.onnx", "legacy.onnx", "external.onnx"};

/// Reads it and expects a model or an Error, nothing else.
void must_end_well(const std::string& bytes) {
  try {
    const ModelFile model = read(bytes, std::string(INFERKIT_TEST_DATA) + "/graph");
    // Touch every constant: a view outside the file is for the sanitizer to see.
    unsigned sum = 0;
    for (const auto& [id, t] : model.graph.constants)
      if (t.dtype != DType::kString)
        for (size_t i = 0; i < t.bytes(); ++i) sum += static_cast<const uint8_t*>(t.data)[i];
    CHECK(sum < 1u << 31);
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kModel || e.code() == ErrorCode::kUnsupportedOp);
    CHECK(std::string(e.what()).size() < 2000);
  }
}

Message relu_graph() { return graph_of({node("Relu", {"x"}, {"y"})}); }

}  // namespace

TEST(hostile_truncated_at_every_byte) {
  for (const char* name : kFixtures) {
    const std::string bytes = file_bytes(data_path(name));
    CHECK(bytes.size() > 100);
    int failed = 0;
    for (size_t n = 0; n < bytes.size(); ++n) {
      must_end_well(bytes.substr(0, n));
      failed += !read_error(bytes.substr(0, n), data_path("")).empty();
    }
    // The graph ends close to the end of the file: nearly every prefix is broken.
    CHECK(failed > static_cast<int>(bytes.size()) * 9 / 10);
  }
}

TEST(hostile_random_mutations) {
  std::mt19937_64 rng(20240607);
  for (const char* name : kFixtures) {
    const std::string original = file_bytes(data_path(name));
    for (int round = 0; round < 3000; ++round) {
      std::string bytes = original;
      const int edits = 1 + static_cast<int>(rng() % 4);
      for (int e = 0; e < edits; ++e) {
        const size_t at = rng() % bytes.size();
        switch (rng() % 5) {
          case 0:
            bytes[at] ^= static_cast<char>(1 << rng() % 8);
            break;
          case 1:
            bytes[at] = static_cast<char>(rng());
            break;
          case 2:
            bytes[at] = '\xff';
            break;  // longer lengths
          case 3:
            bytes.insert(at, varint(rng() >> (rng() % 64)));
            break;
          default:
            bytes.erase(at, 1 + rng() % 3);
            break;
        }
        if (bytes.empty()) break;
      }
      must_end_well(bytes);
    }
  }
}

TEST(hostile_every_byte_of_every_value) {
  const std::string original = file_bytes(data_path("function.onnx"));
  for (size_t at = 0; at < original.size(); ++at) {
    for (const int v : {0, 1, 2, 0x7f, 0x80, 0xff}) {
      std::string bytes = original;
      bytes[at] = static_cast<char>(v);
      must_end_well(bytes);
    }
  }
}

TEST(hostile_not_a_model) {
  CHECK_READ_FAILS("", "model: ", "empty");
  CHECK_READ_FAILS("hello, this is a text file", "model: ", "plain text");
  CHECK_READ_FAILS(Message().number(1, 8).bytes, "model: ", "no graph");
  CHECK_READ_FAILS(Message().message(7, relu_graph()).bytes, "model: ", "IR version");
  CHECK_READ_FAILS(Message().number(1, 0).message(7, relu_graph()).bytes, "model: ", "IR version");
}

TEST(hostile_wire_format) {
  const Message ok = model(relu_graph());
  const auto with = [&](const std::string& raw) { return Message(ok).raw(raw).bytes; };
  CHECK_EQ(read_error(ok.bytes), "");
  CHECK_READ_FAILS(with(std::string("\x0b", 1)), "model: ", "type that ONNX does not use");  // a group
  CHECK_READ_FAILS(with(std::string("\x0e", 1)), "model: ", "type that ONNX does not use");  // type 6
  CHECK_READ_FAILS(with(std::string("\x00\x01", 2)), "model: ", "impossible field tag");     // field 0
  CHECK_READ_FAILS(with(cat("\x08", std::string(10, '\xff'))), "model: ", "more than 64 bits");
  CHECK_READ_FAILS(with(cat("\x08", std::string(9, '\xff'), "\x02")), "model: ", "more than 64 bits");
  CHECK_READ_FAILS(with("\x08\xff"), "model: ", "cut off");
  CHECK_READ_FAILS(with(cat("\xfa\x3f", varint(UINT64_MAX))), "model: ", "runs past the end");
  CHECK_READ_FAILS(with(std::string("\x3a\x00", 2)), "model: ", "more than one graph");
  CHECK_READ_FAILS(with(Message().text(1, "eight").bytes), "model: ", "wrong wire type");
  CHECK_READ_FAILS(with(std::string("\x0d\0\0", 3)), "model: ", "cut off");
}

TEST(hostile_names) {
  const auto fails = [](const Message& g, const char* part) { CHECK_READ_FAILS(model(g).bytes, "model: ", part); };
  fails(graph_of({node("Relu", {"x"}, {"y"}, "a"), node("Abs", {"x"}, {"y"}, "b")}),
        "'y' is defined twice, the second time by node 'b' (Abs)");
  fails(graph_of({node("Relu", {"x"}, {"x"}, "a")}, "x"), "'x' is defined twice");
  fails(graph_of({node("Relu", {"missing"}, {"y"}, "a")}), "node 'a' (Relu) reads 'missing', which nothing defines");
  fails(graph_of({node("Relu", {"x"}, {"z"})}), "output 'y' is computed by no node");
  fails(relu_graph().message(11, value_info("x")), "'x' is defined twice, the second time as a graph input");
  fails(relu_graph().message(5, tensor("w", {1}, "abcd")).message(5, tensor("w", {1}, "abcd")), "'w' is defined twice");
  fails(relu_graph().message(5, tensor("x", {1}, "abcd")).message(5, tensor("x", {1}, "abcd")), "'x' is defined twice");
  fails(relu_graph().message(5, tensor("y", {1}, "abcd")), "'y' is defined twice");
  fails(relu_graph().message(5, tensor("", {1}, "abcd")), "no name");
  fails(Message().message(1, node("Relu", {"x"}, {"y"})).message(11, value_info("x")), "no outputs");
  fails(graph_of({node("", {"x"}, {"y"}, "nameless")}), "node 'nameless' () has no op_type");
  fails(graph_of({node("Relu", {"x"}, {"y"}, "\xc3\x28")}), "not valid UTF-8: '\\xc3('");
  fails(graph_of({node("Relu", {"x"}, {"y"}).text(7, "nobody")}), "for which the model imports no opset");
  fails(graph_of({node("Linear", {"x"}, {"y"}).text(7, "inferkit")}), "internal");
  const Message twice = Message().text(1, "alpha").number(20, 2).number(3, 1);
  fails(graph_of({node("Elu", {"x"}, {"y"}).message(5, twice).message(5, twice)}), "has the attribute 'alpha' twice");
  fails(graph_of({node("Elu", {"x"}, {"y"}).message(5, Message().text(1, "alpha"))}), "no type and no value");
  fails(graph_of({node("Elu", {"x"}, {"y"}).message(5, Message().text(1, "alpha").number(20, 4))}), "but has none");
  fails(graph_of({node("Elu", {"x"}, {"y"}).message(5, Message().text(1, "alpha").number(20, 99))}),
        "attribute type 99");
  fails(graph_of({node("Elu", {"x"}, {"y"}).message(5, Message().text(1, "alpha").text(21, "a").number(20, 1))}),
        "but is in none");
}

TEST(hostile_cycles) {
  const auto fails = [](const Message& g, const char* part) { CHECK_READ_FAILS(model(g).bytes, "model: ", part); };
  fails(graph_of({node("Add", {"x", "y"}, {"y"}, "self")}), "cycle through node 'self' (Add)");
  fails(graph_of({node("Relu", {"x"}, {"y"}, "out"), node("Abs", {"b"}, {"a"}, "p"), node("Neg", {"a"}, {"b"}, "q"),
                  node("Exp", {"b"}, {"c"}, "after")}),
        "cycle through node '");
  // Through a subgraph's capture.
  const Message branch = Message().message(1, node("Relu", {"y"}, {"r"})).message(12, value_info("r"));
  fails(graph_of({node("If", {"x"}, {"y"}, "if").message(5, attribute("then_branch", branch))}),
        "cycle through node 'if' (If)");
}

TEST(hostile_opsets) {
  const auto imports = [](uint64_t version) {
    return Message().number(1, 8).message(7, relu_graph()).message(8, Message().number(2, version)).bytes;
  };
  CHECK_READ_FAILS(imports(0), "model: ", "opset version 0");
  CHECK_READ_FAILS(imports(static_cast<uint64_t>(-1)), "model: ", "opset version -1");
  CHECK_READ_FAILS(imports(uint64_t{1} << 40), "model: ", "impossible");
  CHECK_READ_FAILS(Message().raw(imports(17)).message(8, Message().number(2, 16)).bytes,
                   "model: ", "opset 17 and with 16");
}

TEST(hostile_inputs) {
  const auto with = [](const Message& info) {
    return model(Message().message(1, node("Relu", {"x"}, {"y"})).message(11, info).message(12, value_info("y"))).bytes;
  };
  CHECK_READ_FAILS(with(value_info("x", {-2})), "model: ", "negative size -2");
  CHECK_READ_FAILS(with(value_info("x", {2}, 0)), "model: ", "'x' has no element type");
  CHECK_READ_FAILS(with(Message().text(1, "x")), "model: ", "'x' has no element type");
  CHECK_READ_FAILS(with(value_info("x", {2}, 15)), "unsupported: ", "COMPLEX128");
  CHECK_READ_FAILS(with(value_info("x", {2}, 14)), "unsupported: ", "COMPLEX64");
  CHECK_READ_FAILS(with(value_info("x", {2}, 1000)), "unsupported: ", "data type 1000");
  CHECK_READ_FAILS(with(value_info("x", {1, 1, 1, 1, 1, 1, 1, 1, 1})), "unsupported: ", "more than 8 dimensions");
  for (const uint32_t kind : {5u, 8u})
    CHECK_READ_FAILS(with(Message().text(1, "x").message(2, Message().text(kind, ""))),
                     "unsupported: ", "'x' is not a dense tensor");
  const uint32_t sequence = 4, optional = 9;
  const auto of = [](uint32_t kind, const Message& type) {
    return Message().message(kind, Message().message(1, type));
  };
  const Message map = Message().text(5, "");
  const Message floats = Message().message(1, Message().number(1, 1));
  for (const uint32_t kind : {sequence, optional}) {
    CHECK_READ_FAILS(with(Message().text(1, "x").message(2, Message().text(kind, ""))),
                     "model: ", "'x' has no element type");
    CHECK_READ_FAILS(with(Message().text(1, "x").message(2, of(kind, of(kind, floats)))),
                     "unsupported: ", "'x' is not a dense tensor");
    CHECK_READ_FAILS(with(Message().text(1, "x").message(2, of(kind, map))),
                     "unsupported: ", "'x' is not a dense tensor");
  }
  CHECK_READ_FAILS(with(Message().text(1, "x").message(2, of(sequence, of(optional, floats)))),
                   "unsupported: ", "'x' is not a dense tensor");
}

TEST(hostile_tensors) {
  const auto with = [](const Message& t) { return model(relu_graph().message(5, t)).bytes; };
  CHECK_READ_FAILS(with(tensor("w", {2}, "abc")), "model: ", "initializer 'w' has 3 bytes of data; its shape (2,)");
  CHECK_READ_FAILS(with(tensor("w", {-2}, "abcdefgh")), "model: ", "negative dimension -2");
  CHECK_READ_FAILS(with(tensor("w", {int64_t{1} << 62}, "")), "model: ", "impossible shape");
  CHECK_READ_FAILS(with(tensor("w", {int64_t{1} << 32, int64_t{1} << 32}, "")), "model: ", "impossible shape");
  CHECK_READ_FAILS(with(tensor("w", {int64_t{1} << 32, int64_t{1} << 32, 0}, "")), "model: ", "impossible shape");
  CHECK_READ_FAILS(with(tensor("w", {INT64_MAX}, "", 2)), "model: ", "impossible shape");
  CHECK_READ_FAILS(with(tensor("w", {1, 1, 1, 1, 1, 1, 1, 1, 1}, "abcd")), "unsupported: ", "more than 8 dimensions");
  CHECK_READ_FAILS(with(tensor("w", {1}, "abcd", 0)), "model: ", "no data type");
  CHECK_READ_FAILS(with(tensor("w", {1}, "a", 15)), "unsupported: ", "COMPLEX128");
  CHECK_READ_FAILS(with(tensor("w", {3}, "a", 22)), "model: ", "has 1 byte of data; its shape (3,) of int4 needs 2");
  CHECK_READ_FAILS(with(tensor("w", {1}, "a", 8)), "model: ", "strings as raw data");
  const Message typed = Message().number(1, 2).text(8, "w");
  CHECK_READ_FAILS(with(Message(typed).number(2, 1).text(4, "abcd")), "model: ", "holds 1 element;");
  CHECK_READ_FAILS(with(Message(typed).number(2, 1).text(4, "abcde")), "model: ", "cut off");
  CHECK_READ_FAILS(with(Message(typed).number(2, 1).text(10, "abcdefgh")), "model: ", "data of another type");
  CHECK_READ_FAILS(with(Message(typed).number(2, 1).text(4, "abcd").text(9, "abcdefgh")),
                   "model: ", "both raw and typed");
  CHECK_READ_FAILS(with(Message(typed).number(2, 1)), "model: ", "holds 0 elements");
  CHECK_READ_FAILS(with(Message(typed).number(2, 2).number(5, 1).number(5, 256)), "model: ", "element 256");
  CHECK_READ_FAILS(with(Message(typed).number(2, 10).number(5, 1).number(5, 65536)), "model: ", "element 65536");
  CHECK_READ_FAILS(with(Message(typed).number(2, 12).number(11, 1).number(11, uint64_t{1} << 32)), "model: ", "uint32");
  CHECK_READ_FAILS(with(Message(typed).number(2, 8).text(6, "one")), "model: ", "holds 1 string;");
  CHECK_READ_FAILS(with(tensor("w", {2}, "abcdefgh").message(3, Message())), "unsupported: ", "segments");
}

TEST(hostile_claims_allocate_nothing) {
  // Each claims terabytes; the process would not survive trying.
  for (const int32_t type : {1, 8, 9, 10, 11})
    CHECK(cpu_seconds([&] {
            const Message t =
                Message().number(1, uint64_t{1} << 40).number(2, static_cast<uint64_t>(type)).text(8, "w");
            CHECK_READ_FAILS(model(relu_graph().message(5, t)).bytes, "model: ", "'w'");
          }) < 0.5);
}

TEST(hostile_deep_nesting) {
  // Writing the nest from the inside out, thousands of graphs deep; each level's length field grows by a few bytes.
  Message g = Message().message(1, node("Relu", {"x"}, {"r"})).message(12, value_info("r"));
  for (int depth = 0; depth < 4000; ++depth)
    g = Message()
            .message(1, node("If", {"x"}, {"r"}).message(5, attribute("then_branch", g)))
            .message(12, value_info("r"));
  const Message whole = graph_of({node("If", {"x"}, {"y"}, "top").message(5, attribute("then_branch", g))});
  CHECK_READ_FAILS(model(whole).bytes, "model: ", "nest deeper than");
}

TEST(hostile_functions) {
  const auto function = [](const char* name, std::initializer_list<Message> nodes) {
    Message f = Message().text(1, name).text(10, "local").text(4, "a").text(5, "b");
    for (const Message& n : nodes) f.message(7, n);
    return f;
  };
  const auto call = [](const std::string& name, const char* in, const char* out) {
    return node(name, {in}, {out}).text(7, "local");
  };
  const auto with = [&](std::initializer_list<Message> functions) {
    Message m = model(graph_of({call("F0", "x", "y")}));
    m.message(8, Message().text(1, "local").number(2, 1));
    for (const Message& f : functions) m.message(25, f);
    return m.bytes;
  };
  CHECK_EQ(read_error(with({function("F0", {node("Relu", {"a"}, {"b"})})})), "");
  CHECK_READ_FAILS(with({function("F0", {call("F0", "a", "b")})}), "model: ", "calls itself");
  CHECK_READ_FAILS(with({function("F0", {call("F1", "a", "b")}), function("F1", {call("F0", "a", "b")})}),
                   "model: ", "calls itself");
  CHECK_READ_FAILS(with({function("F0", {node("Relu", {"a"}, {"c"})})}), "model: ", "output 'b' of the function 'F0'");
  CHECK_READ_FAILS(with({function("F0", {node("Relu", {"x"}, {"b"})})}), "model: ", "reads 'x'");
  CHECK_READ_FAILS(with({function("F0", {node("Relu", {"a"}, {"b"}), node("Abs", {"a"}, {"b"})})}),
                   "model: ", "'b' of the function 'F0' is defined twice");
  CHECK_READ_FAILS(with({function("F0", {}), function("F0", {})}), "model: ", "'F0' is defined twice");

  // Nineteen functions, each of which calls the next eight times: 8^19 nodes.
  Message m = model(graph_of({call("F0", "x", "y")})).message(8, Message().text(1, "local").number(2, 1));
  for (int i = 0; i < 19; ++i) {
    Message f = Message().text(1, cat("F", i)).text(10, "local").text(4, "a").text(5, "b8");
    for (int k = 0; k < 8; ++k) {
      const std::string in = k == 0 ? "a" : cat("b", k), out = cat("b", k + 1);
      f.message(7, i == 18 ? node("Relu", {in}, {out}) : call(cat("F", i + 1), in.c_str(), out.c_str()));
    }
    m.message(25, f);
  }
  CHECK(cpu_seconds([&] { CHECK_READ_FAILS(m.bytes, "model: ", "too many nodes from functions"); }) < 5);
}

// What a file may hold follows from its size.
TEST(no_file_is_too_large_to_be_read) {
  // A list of more strings, and a graph of more nodes, than any constant would have let through.
  constexpr int kStrings = 2'100'000, kNodes = 620'000;
  std::string modes;
  for (int i = 0; i < kStrings; ++i) modes += std::string_view("\x4a\x04LEAF", 6);
  const Message forest = node("Forest", {"x"}, {"y"}).message(5, Message().text(1, "modes").number(20, 8).raw(modes));
  const ModelFile read_forest = read(model(graph_of({forest})).bytes);
  const auto& attribute = read_forest.graph.nodes[0].attributes.at("modes");
  CHECK_EQ(std::get<std::vector<std::string>>(attribute).size(), static_cast<size_t>(kStrings));

  Message chain;
  for (int i = 0; i < kNodes; ++i) {
    const std::string in = i == 0 ? "x" : cat("v", i), out = i + 1 == kNodes ? "y" : cat("v", i + 1);
    chain.message(1, node("Relu", {in}, {out}));
  }
  chain.message(11, value_info("x")).message(12, value_info("y"));
  CHECK_EQ(read(model(chain).bytes).graph.nodes.size(), static_cast<size_t>(kNodes));
}

TEST(hostile_lists_of_nothing) {
  // Two bytes an element: nodes, initializers, attributes of a node.
  const auto many = [](uint32_t field, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += varint(field << 3 | 2) + '\0';
    return Message().raw(out);
  };
  constexpr int kMany = 4'000'000;
  const auto in_node = [&](uint32_t field) {
    return graph_of({Message(many(field, kMany)).text(4, "Relu").text(2, "y")});
  };
  const Message graphs[] = {many(1, kMany), many(5, kMany), in_node(5)};
  for (const Message& graph : graphs) {
    CHECK(cpu_seconds([&] { CHECK(read_error(model(graph).bytes).starts_with("model: ")); }) < 10);
  }
}

TEST(hostile_external_data) {
  namespace fs = std::filesystem;
  const fs::path top = fs::temp_directory_path() / cat("inferkit_hostile_", std::random_device{}());
  const fs::path folder = top / "model";
  fs::create_directories(folder / "sub");
  const auto write = [](const fs::path& p) { std::ofstream(p, std::ios::binary) << "0123456789abcdef"; };
  write(folder / "good.bin");
  write(folder / "sub" / "good.bin");
  write(top / "secret.bin");
  write(folder / "linked.bin");
  fs::create_hard_link(folder / "linked.bin", top / "other.bin");
  fs::create_symlink(top / "secret.bin", folder / "symlink.bin");
  fs::create_directory_symlink(top, folder / "out");

  const auto external = [](const std::string& location, const std::string& offset = "",
                           const std::string& length = "") {
    Message t = Message().number(1, 2).number(2, 1).text(8, "w").number(14, 1);
    const auto entry = [&](const char* key, const std::string& value) {
      if (!value.empty()) t.message(13, Message().text(1, key).text(2, value));
    };
    entry("location", location);
    entry("offset", offset);
    entry("length", length);
    return model(relu_graph().message(5, t)).bytes;
  };
  const auto error = [&](const std::string& bytes) { return read_error(bytes, folder.string()); };
  const auto fails = [&](const std::string& bytes, const std::string& part) {
    const std::string e = error(bytes);
    if (e.rfind("model: ", 0) != 0 || e.find(part) == std::string::npos) fail(__FILE__, __LINE__, part + ": " + e);
  };
  CHECK_EQ(error(external("good.bin")), "");
  CHECK_EQ(error(external("good.bin", "8", "8")), "");
  CHECK_EQ(error(external("sub/good.bin", "3")), "");
  CHECK_EQ(error(external("linked.bin")), "");
  fails(external("good.bin", "9"), "reads 8 bytes at 9");
  fails(external("good.bin", "18446744073709551615"), "reads 8 bytes at");
  fails(external("good.bin", "99999999999999999999999"), "not a number");
  fails(external("good.bin", "-8"), "not a number");
  fails(external("good.bin", "0x8"), "not a number");
  fails(external("good.bin", "0", "7"), "has 7 bytes of external data");
  fails(external("../secret.bin"), "'w'");
  fails(external("sub/../../secret.bin"), "'w'");
  fails(external((top / "secret.bin").string()), "'w'");
  fails(external("symlink.bin"), "'w'");
  fails(external("out/secret.bin"), "'w'");
  fails(external("missing.bin"), "'w'");
  fails(external("sub"), "'w'");
  fails(external("."), "'w'");
  fails(external(""), "without a location");
  fails(external(std::string("good.bin\0.txt", 13)), "'w'");
  CHECK_READ_FAILS(external("good.bin"), "model: ", "given as bytes without a folder");

  // Many tensors over one unaligned range share a copy; over overlapping ranges they may not multiply it.
  Message g = relu_graph();
  for (int i = 0; i < 50; ++i) {
    Message t = Message().number(1, 2).number(2, 1).text(8, cat("w", i)).number(14, 1);
    t.message(13, Message().text(1, "location").text(2, "good.bin"));
    g.message(5, t.message(13, Message().text(1, "offset").text(2, "1")));
  }
  CHECK_EQ(error(model(g).bytes), "");
  for (int i = 0; i < 6; ++i) {
    Message t = Message().number(1, 2).number(2, 1).text(8, cat("v", i)).number(14, 1);
    t.message(13, Message().text(1, "location").text(2, "good.bin"));
    g.message(5, t.message(13, Message().text(1, "offset").text(2, std::to_string(1 + i + (i > 2)))));
  }
  fails(model(g).bytes, "refusing to copy");
  fs::remove_all(top);
}

TEST(hostile_large_garbage_ends_quickly) {
  std::mt19937_64 rng(1);
  std::string noise(16 << 20, '\0');
  for (size_t i = 0; i < noise.size(); i += 8) {
    const uint64_t v = rng();
    std::memcpy(noise.data() + i, &v, 8);
  }
  CHECK(cpu_seconds([&] { must_end_well(noise); }) < 2);
  // Well-formed on the outside: millions of empty nodes, values, attributes, strings, unknown fields.
  const auto repeated = [](const std::string& unit) {
    std::string out;
    while (out.size() < size_t{16} << 20) out += unit;
    return out;
  };
  const auto graph_with = [&](const std::string& fields) { return model(Message().raw(fields)).bytes; };
  for (const std::string& unit :
       {std::string("\x0a\x00", 2), std::string("\x2a\x00", 2), std::string("\x5a\x00", 2), std::string("\x08\x00", 2),
        std::string("\xfa\x3f\x00", 3), Message().message(1, node("A", {""}, {})).bytes}) {
    CHECK(cpu_seconds([&] { must_end_well(graph_with(repeated(unit))); }) < 20);
  }
  const auto node_with = [&](const std::string& fields) {
    return model(graph_of({node("Relu", {"x"}, {"y"}).raw(fields)})).bytes;
  };
  for (const uint32_t field : {1u, 2u, 5u}) {
    const std::string bytes = node_with(repeated(Message().text(field, "").bytes));
    CHECK(cpu_seconds([&] { must_end_well(bytes); }) < 20);
  }
  const std::string strings = repeated(Message().text(9, "").bytes);
  CHECK(cpu_seconds(
            [&] { must_end_well(node_with(Message().message(5, Message().text(1, "s").raw(strings)).bytes)); }) < 20);
}
