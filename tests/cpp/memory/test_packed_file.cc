// Files of packed weights: what is written is what is found, and what is anything else is refused.
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <thread>

#include "check_error.h"
#include "memory/packed_file.h"
#include "temp_dir.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

const PackedTag kTag{"build", "avx2", "float32"};

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Long ago, so that nobody waits for the clock of the file system.
void set_old(const std::string& path) {
  const timespec times[2] = {{1000, 0}, {1000, 0}};
  CHECK_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A model file of two weights, and a packed file with something made of each, and of a third that is in memory.
struct Fixture {
  TempDir dir;
  std::string weights = std::string(5000, 'a') + std::string(3000, 'b');
  std::string loose = std::string(700, 'c');
  std::string first = std::string(9000, 'A'), second = std::string(10, 'B'), third = std::string(4096, 'C');
  std::string model_path, path;
  MappedFiles model;

  Fixture() {
    model_path = dir.write("model", weights);
    set_old(model_path);
    path = dir / "packed";
    model = open_model(model_path);
    write(model);
  }
  static MappedFiles open_model(const std::string& at) {
    MappedFiles out;
    out.add(MappedFile::open(at));
    return out;
  }
  static std::span<const std::byte> part(const MappedFiles& m, size_t begin, size_t bytes) {
    return m.all()[0]->bytes().subspan(begin, bytes);
  }
  void write(const MappedFiles& m) const {
    const PackedPiece pieces[] = {{{{}, "first", 0, ""}, {part(m, 0, 5000)}, bytes_of(first)},
                                  {{{}, "second", 0, "vnni"}, {part(m, 5000, 3000), bytes_of(loose)}, bytes_of(second)},
                                  {{{}, "third", 1, ""}, {bytes_of(loose)}, bytes_of(third)}};
    write_packed_file(path, 0600, kTag, m, {}, pieces, 1);
    set_old(path);
  }
  std::shared_ptr<const PackedFile> open(const MappedFiles& m, const PackedTag& tag = kTag) const {
    return PackedFile::open(MappedFile::open(path), "the file", tag, m, 2);
  }
  static std::string found(const PackedFile& file, const MappedFiles& m, PackedName name,
                           std::initializer_list<std::span<const std::byte>> from, size_t bytes) {
    for (const auto& data : from) name.from.push_back(packed_source(data, m, file.hash(), false, 1));
    const std::byte* at = file.find(name, bytes);
    return at ? std::string(reinterpret_cast<const char*>(at), bytes) : "none";
  }
  /// Puts `content` where the file is.
  void replace(std::string_view content) const {
    ::unlink(path.c_str());
    dir.write("packed", content);
    set_old(path);
  }
};

void check_found(const Fixture& f, const PackedFile& file, const MappedFiles& m) {
  CHECK_EQ(f.found(file, m, {{}, "first", 0, ""}, {f.part(m, 0, 5000)}, 9000), f.first);
  CHECK_EQ(f.found(file, m, {{}, "second", 0, "vnni"}, {f.part(m, 5000, 3000), bytes_of(f.loose)}, 10), f.second);
  const std::string elsewhere = f.loose;  // in memory, it is known by what it says
  CHECK_EQ(f.found(file, m, {{}, "third", 1, ""}, {bytes_of(elsewhere)}, 4096), f.third);
}

}  // namespace

TEST(what_was_written_is_found_and_nothing_else) {
  const Fixture f;
  const auto file = f.open(f.model);
  check_found(f, *file, f.model);
  CHECK_EQ(file->sections(), size_t{3});
  CHECK_EQ(reinterpret_cast<uintptr_t>(file->file()->bytes().data()) % kPackedPage, uintptr_t{0});
  const auto none = [&](PackedName name, std::span<const std::byte> from, size_t bytes) {
    CHECK_EQ(f.found(*file, f.model, std::move(name), {from}, bytes), "none");
  };
  none({{}, "first", 0, ""}, f.part(f.model, 0, 5000), 8999);
  none({{}, "first", 0, ""}, f.part(f.model, 0, 4999), 9000);
  none({{}, "first", 0, ""}, f.part(f.model, 1, 5000), 9000);
  none({{}, "first", 1, ""}, f.part(f.model, 0, 5000), 9000);
  none({{}, "first", 0, "avx2"}, f.part(f.model, 0, 5000), 9000);
  none({{}, "other", 0, ""}, f.part(f.model, 0, 5000), 9000);
  none({{}, "third", 1, ""}, bytes_of(f.weights).first(700), 4096);
}

TEST(a_file_for_something_else_is_refused) {
  const Fixture f;
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model, {"other", "avx2", "float32"}), "another build of inferkit");
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model, {"build", "avx512", "float32"}), "the instruction sets 'avx2'");
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model, {"build", "avx2", "bf16"}), "the precision 'float32'");
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model, {"", "avx2", "float32"}), "no build id");
  CHECK_MESSAGE(ErrorCode::kModel, f.open({}), "in 1 file");
  CHECK_MESSAGE(ErrorCode::kModel, write_packed_file(f.dir / "x", 0600, {"", "a", "b"}, {}, {}, {}, 1), "no build id");
}

TEST(the_same_weights_in_another_file_fit) {
  const Fixture f;
  const std::string copy = f.dir.write("copy", f.weights);
  set_old(copy);  // the times are no proof: it is read
  const MappedFiles other = Fixture::open_model(copy);
  check_found(f, *f.open(other), other);
}

TEST(other_weights_of_the_same_size_and_time_do_not) {
  for (const size_t at : {size_t{0}, size_t{4999}, size_t{5000}, size_t{7999}}) {
    Fixture f;
    f.weights[at] ^= 1;
    {  // in place, and the time is put back
      std::ofstream(f.model_path, std::ios::binary)
          .write(f.weights.data(), static_cast<std::streamsize>(f.weights.size()));
      set_old(f.model_path);
    }
    CHECK_MESSAGE(ErrorCode::kModel, f.open(Fixture::open_model(f.model_path)), "other weights");
  }
  const Fixture f;
  const std::string shorter = f.dir.write("shorter", f.weights.substr(1));
  set_old(shorter);
  CHECK_MESSAGE(ErrorCode::kModel, f.open(Fixture::open_model(shorter)), "another model");
}

TEST(a_file_cut_at_any_length_is_refused) {
  const Fixture f;
  const std::string whole = content_of(f.path);
  for (size_t n = 0; n < whole.size(); n += n < 3000 ? 1 : 61) {
    f.replace(std::string_view(whole).substr(0, n));
    CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model), "the file");
  }
  f.replace(whole + '\0');
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model), "its length was changed");
  f.replace(whole);
  check_found(f, *f.open(f.model), f.model);
}

TEST(any_bit_of_the_header_or_of_a_section_that_is_flipped_is_noticed) {
  const Fixture f;
  const std::string whole = content_of(f.path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data() + 24, sizeof(header_bytes));
  const uint64_t body = PackedHeader::body_at(header_bytes);
  CHECK(header_bytes > 300 && body < whole.size());
  const auto noticed = [&](size_t at, int bit) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
    f.replace(damaged);
    CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model), "the file");
  };
  for (size_t at = 0; at < header_bytes; ++at) noticed(at, static_cast<int>(at % 8));
  for (size_t at = 0; at < 9000; at += 37) noticed(body + at, static_cast<int>(at % 8));
  noticed(body + 8999, 7);
  noticed(body + 12288, 0);      // the second
  noticed(whole.size() - 1, 0);  // the last byte of the third
}

namespace {

/// A file of that header, which contradicts itself, and of `body` zeros.
void write_header(const Fixture& f, const PackedHeader& header, size_t body) {
  std::vector<std::byte> bytes = packed_header_bytes(header);
  bytes.resize(PackedHeader::body_at(bytes.size()) + body);
  f.replace({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

/// The header with a number changed, and a digest that says so.
std::string with_number(std::string whole, size_t at, uint64_t value) {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data() + 24, sizeof(header_bytes));
  std::memcpy(whole.data() + at, &value, sizeof(value));
  KeyedHash::Key key;
  std::memcpy(key.data(), whole.data() + 40, sizeof(key));
  std::memset(whole.data() + 72, 0, sizeof(Digest));
  const Digest digest = KeyedHash(key).of(bytes_of(whole).first(header_bytes));
  std::memcpy(whole.data() + 72, &digest, sizeof(digest));
  return whole;
}

}  // namespace

TEST(a_header_that_is_written_to_mislead_is_refused) {
  const Fixture f;
  const uint64_t far = ~uint64_t{0} - 4095;
  const auto header = [&](std::vector<PackedSection> sections) {
    PackedHeader out{KeyedHash::random_key(), kTag, {}, std::move(sections)};
    out.files.push_back(model_file_state(f.model.all()[0]->state()));
    return out;
  };
  const auto section = [](uint64_t offset, uint64_t bytes, std::vector<PackedSource> from = {}) {
    return PackedSection{{std::move(from), "first", 0, ""}, offset, bytes, {}};
  };
  const auto refused = [&](const PackedHeader& h, size_t body) {
    write_header(f, h, body);
    CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model), "damaged");
  };
  refused(header({section(0, 8192), section(4096, 4096)}), 8192);  // overlapping
  refused(header({section(4096, 10), section(0, 4106)}), 4106);    // in the wrong order
  refused(header({section(0, 8192), section(8192, 10)}), 8192);    // behind the end, and the length is wrong
  refused(header({section(far, 4096)}), 0);                        // the sum wraps
  refused(header({section(64, 10)}), 74);                          // not at a page
  refused(header({section(0, 10, {{7, 0, 10, {}}})}), 10);         // of a file that there is not
  write_header(f, header({section(0, 10, {{0, far, 8192, {}}})}), 10);
  f.replace(with_number(content_of(f.path), 80, 5));  // whatever number it is: its text then ends elsewhere
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model), "the file");
}

TEST(numbers_of_the_header_may_be_anything) {
  const Fixture f;
  const std::string whole = content_of(f.path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data() + 24, sizeof(header_bytes));
  int refused = 0, taken = 0;
  for (size_t at = 16; at + 8 <= header_bytes; ++at) {
    if (at > 64 && at < 88) continue;  // the digest itself
    for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, uint64_t{1} << 62, ~uint64_t{0}}) {
      // Some lengths have no digest that could be reckoned.
      if (at < 32 && at + 8 > 24) continue;
      f.replace(with_number(whole, at, value));
      try {
        const auto file = f.open(f.model);
        for (const size_t bytes : {size_t{10}, size_t{4096}, size_t{9000}}) {
          const std::byte* data = file->find({{}, "first", 0, ""}, bytes);
          CHECK(!data || data + bytes <= file->file()->bytes().data() + file->file()->bytes().size());
        }
        ++taken;
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kModel);
        ++refused;
      }
    }
  }
  CHECK(refused > 500);
  CHECK(taken > 0);  // some numbers stand for nothing that must hold, such as a digest of a source
}

TEST(a_model_file_that_was_touched_gives_no_packed_file) {
  const Fixture f;
  const std::string before = content_of(f.path);
  CHECK_EQ(::chmod(f.model_path.c_str(), 0600), 0);
  CHECK_EQ(::chmod(f.model_path.c_str(), 0644), 0);
  if (f.model.all()[0]->lasting_state()) CHECK_MESSAGE(ErrorCode::kModel, f.write(f.model), "has been touched");
  CHECK(content_of(f.path) == before);
}

TEST(pieces_of_a_file_that_changed_are_not_written) {
  const Fixture f;
  const std::string before = content_of(f.path);
  const std::string source = f.dir.write("source", f.first);
  MappedFiles others;
  others.add(MappedFile::open(source));
  const PackedPiece piece{{{}, "first", 0, ""}, {f.part(f.model, 0, 5000)}, others.all()[0]->bytes()};
  CHECK_EQ(::truncate(source.c_str(), 10), 0);
  CHECK_THROWS(write_packed_file(f.path, 0600, kTag, f.model, others, {&piece, 1}, 1), Error);
  CHECK_EQ(::unlink(source.c_str()), 0);
  CHECK(content_of(f.path) == before);
}

TEST(what_cannot_be_written_leaves_what_was_there) {
  const Fixture f;
  const auto names = [&] {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(f.dir.path())) count += entry.exists();
    return count;
  };
  const size_t before = names();
  CHECK_THROWS(write_packed_file(f.dir / "missing/packed", 0600, kTag, f.model, {}, {}, 1), std::system_error);
  std::filesystem::create_directory(f.dir / "folder");
  std::filesystem::create_directory(f.dir / "folder/full");
  CHECK_THROWS(write_packed_file(f.dir / "folder", 0600, kTag, f.model, {}, {}, 1), std::system_error);
  CHECK_EQ(names(), before + 1);  // no draft is left
  CHECK_THROWS(write_packed_file("/dev/full/x", 0600, kTag, f.model, {}, {}, 1), std::system_error);
}

TEST(many_writers_at_once_leave_one_whole_file) {
  const Fixture f;
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&] {
      for (int k = 0; k < 5; ++k) f.write(f.model);
    });
  }
  for (int k = 0; k < 20; ++k) check_found(f, *f.open(f.model), f.model);
  for (auto& writer : writers) writer.join();
  check_found(f, *f.open(f.model), f.model);
}

TEST(a_packed_file_without_weights_can_be_read) {
  const Fixture f;
  write_packed_file(f.path, 0600, kTag, f.model, {}, {}, 1);
  CHECK_EQ(f.open(f.model)->sections(), size_t{0});
  // Sections would begin behind the end of a file that is its header alone.
  std::string whole = content_of(f.path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data() + 24, sizeof(header_bytes));
  whole.resize(header_bytes);
  f.replace(with_number(whole, 32, header_bytes));
  CHECK_MESSAGE(ErrorCode::kModel, f.open(f.model), "damaged");
}

TEST(weights_that_are_written_to_after_the_check_are_told) {
  const Fixture f;
  const auto file = f.open(f.model);
  std::fstream(f.path, std::ios::binary | std::ios::in | std::ios::out).write("x", 1);
  CHECK_THROWS(file->file()->require_unchanged(), Error);
}
