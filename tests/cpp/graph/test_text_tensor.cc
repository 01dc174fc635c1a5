#include <vector>

#include "graph/text_tensor.h"
#include "test.h"

using namespace inferkit;

TEST(text_tensor_owns_what_it_shows) {
  Tensor t;
  {
    std::vector<std::string> given = {"one", "", std::string("in\0side", 7), "drei ß", std::string(1000, 'x')};
    t = text_tensor({5}, given);
    for (std::string& s : given) s.assign(s.size(), '?');
  }
  const auto views = strings_of(t.view());
  CHECK_EQ(views.size(), 5u);
  CHECK_EQ(views[0], "one");
  CHECK_EQ(views[1], "");
  CHECK(views[2] == std::string_view("in\0side", 7));
  CHECK_EQ(views[3], "drei ß");
  CHECK_EQ(views[4].size(), 1000u);
  CHECK_EQ(t.bytes(), 5 * sizeof(std::string_view));
}

TEST(text_tensor_of_neighbours_that_share) {
  const std::string text(1 << 20, 'x');
  const std::vector<std::string_view> views(1000, text);
  CHECK_EQ(text_bytes(views), text.size());
  const Tensor t = text_tensor({1000}, views);
  const auto kept = strings_of(t.view());
  CHECK(kept[0] == text);
  CHECK(kept[999].data() == kept[0].data());
}

TEST(copies_of_values_of_any_type) {
  const Tensor text = text_tensor({2}, std::vector<std::string>{"a", "b"});
  const Tensor copy = copied(text.view());
  CHECK(strings_of(copy.view())[1].data() != strings_of(text.view())[1].data());
  CHECK_EQ(strings_of(copy.view())[1], "b");
  const std::vector<float> numbers = {1, 2, 3};
  const Tensor floats = copied(TensorView{DType::kF32, {3}, numbers.data()});
  CHECK(floats.data != numbers.data());
  CHECK_EQ(floats.as<float>()[2], 3.0f);
}

TEST(fresh_strings_are_empty) {
  void* data = nullptr;
  const Tensor t = make_tensor(DType::kString, {3}, &data);
  for (const std::string_view s : strings_of(t.view())) CHECK(s.empty());
}
