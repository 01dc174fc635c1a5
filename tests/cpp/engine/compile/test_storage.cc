#include "engine/compile/storage.h"
#include "test.h"

using namespace inferkit;

TEST(storage_places_what_lives_together_apart) {
  Storage s;
  const int32_t a = s.add({.bytes = 100}), b = s.add({.bytes = 100}), c = s.add({.bytes = 100});
  s.touch(a, 0);
  s.touch(a, 1);
  s.touch(b, 1);
  s.touch(b, 2);
  s.touch(c, 2);
  const size_t total = s.place();
  CHECK_EQ(total, size_t{256});  // two blocks of 100 bytes, rounded up to 64
  CHECK(s.operand(a).offset != s.operand(b).offset);
  CHECK(s.operand(b).offset != s.operand(c).offset);
}

TEST(storage_aliases_extend_the_life_of_what_they_stand_on) {
  Storage s;
  const int32_t a = s.add({.bytes = 64}), view = s.add({.bytes = 64}), b = s.add({.bytes = 64});
  s.alias(view, a);
  s.touch(a, 0);
  s.touch(b, 1);
  s.touch(view, 2);
  s.place();
  CHECK_EQ(s.operand(view).offset, s.operand(a).offset);
  CHECK(s.operand(b).offset != s.operand(a).offset);
}

TEST(storage_runs_in_place_only_where_the_input_dies) {
  Storage dies, lives;
  for (Storage* s : {&dies, &lives}) {
    const int32_t in = s->add({.bytes = 64}), out = s->add({.bytes = 64});
    s->touch(in, 0);
    s->touch(in, 1);
    s->touch(out, 1);
    s->touch(out, 2);
    if (s == &lives) s->touch(in, 2);
    s->suggest_in_place(out, in);
    s->place();
    CHECK_EQ(s->operand(in).offset == s->operand(out).offset, s == &dies);
  }
}

TEST(storage_never_runs_in_place_on_a_models_input) {
  Storage s;
  const int32_t in = s.add({.kind = Operand::Kind::kInput, .bytes = 64}), out = s.add({.bytes = 64});
  s.touch(in, 0);
  s.touch(out, 0);
  s.suggest_in_place(out, in);
  CHECK_EQ(s.place(), size_t{64});
  CHECK(s.operand(out).kind == Operand::Kind::kArena);
}

TEST(storage_never_writes_over_what_the_step_reads_through_an_alias) {
  Storage s;
  const int32_t in = s.add({.bytes = 64}), view = s.add({.bytes = 64}), out = s.add({.bytes = 64});
  s.alias(view, in);
  s.touch(in, 0);
  s.touch(out, 1);
  s.touch(in, 1);
  s.touch(view, 1);
  s.suggest_in_place(out, in);
  s.place();
  CHECK(s.operand(out).offset != s.operand(in).offset);
}

TEST(storage_gives_parts_of_the_plans_own_memory_where_they_lie) {
  Storage s;
  const int32_t whole = s.add({.bytes = 256}), part = s.add({.bytes = 64}), inner = s.add({.bytes = 64}),
                same = s.add({.bytes = 64}), other = s.add({.bytes = 64});
  CHECK(s.view(part, whole, 128));
  CHECK(s.view(inner, part, 64));
  s.alias(same, inner);
  s.touch(whole, 0);
  s.touch(other, 1);
  s.touch(same, 2);
  s.place();
  CHECK_EQ(s.operand(part).offset, s.operand(whole).offset + 128);
  CHECK_EQ(s.operand(same).offset, s.operand(whole).offset + 192);
  const size_t at = s.operand(other).offset, begin = s.operand(whole).offset;
  CHECK(at + 64 <= begin || at >= begin + 256);  // the whole lives as long as its parts
}

TEST(storage_copies_parts_of_what_is_not_the_plans_own_and_parts_that_begin_anywhere) {
  Storage s;
  const int32_t in = s.add({.kind = Operand::Kind::kInput, .bytes = 256}), whole = s.add({.bytes = 256}),
                part = s.add({.bytes = 64});
  CHECK(!s.view(part, in, 64));
  CHECK(!s.view(part, whole, 4));
  CHECK_EQ(s.root(part), part);
  CHECK(!s[whole].has_views);
}

TEST(storage_never_runs_in_place_on_a_part) {
  Storage s;
  const int32_t whole = s.add({.bytes = 128}), part = s.add({.bytes = 64}), out = s.add({.bytes = 128});
  CHECK(s.view(part, whole, 64));
  s.touch(whole, 0);
  s.touch(part, 1);
  s.touch(out, 1);
  s.suggest_in_place(out, part);  // of the size of the whole
  s.place();
  CHECK(s.operand(out).offset != s.operand(whole).offset);
}
