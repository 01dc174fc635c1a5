#include "graph/foreign_file.h"

#include <algorithm>
#include <cctype>
#include <cstdint>

namespace inferkit {
namespace {

using std::string_view_literals::operator""sv;

/// The bytes that are looked at to see what a text is.
constexpr size_t kLooked = 1024;

/// `magic` stands at byte `at`.
struct Format {
  std::string_view magic;
  size_t at;
  std::string_view what;
};

constexpr Format kFormats[] = {
    {"\x1f\x8b"sv, 0, "a file compressed by gzip: decompress it first"},
    {"BZh"sv, 0, "a file compressed by bzip2: decompress it first"},
    {"\xfd"
     "7zXZ"sv,
     0, "a file compressed by xz: decompress it first"},
    {"\x28\xb5\x2f\xfd"sv, 0, "a file compressed by zstd: decompress it first"},
    {"PK\x03\x04"sv, 0,
     "a ZIP archive, which is what torch.save and keras write, too: export the model to ONNX, as by torch.onnx.export"},
    {"\x80\x02"sv, 0, "a Python pickle: export the model to ONNX"},
    {"\x80\x03"sv, 0, "a Python pickle: export the model to ONNX"},
    {"\x80\x04"sv, 0, "a Python pickle: export the model to ONNX"},
    {"\x80\x05"sv, 0, "a Python pickle: export the model to ONNX"},
    {"\x89HDF\r\n\x1a\n"sv, 0, "an HDF5 file, as keras writes: export the model to ONNX"},
    {"\x93NUMPY"sv, 0, "an array of numpy: load the model that it belongs to"},
    {"ustar"sv, 257, "a tar archive: unpack it first"},
    {"GGUF"sv, 0, "a GGUF file: export the model to ONNX"},
    {"ORTM"sv, 4, "a model in ONNX Runtime's own format: load the .onnx file that it was made from"},
    {"TFL3"sv, 4, "a TensorFlow Lite model: convert it to ONNX, as by tf2onnx"},
};

bool begins(std::string_view text, std::string_view with) {
  return text.size() >= with.size() && std::equal(with.begin(), with.end(), text.begin(), [](char a, char b) {
           return a == std::tolower(static_cast<unsigned char>(b));
         });
}

/// What a text begins with, without white space, comments and the mark of UTF-8 before it.
std::string_view beginning(std::string_view text) {
  constexpr std::string_view kOpen = "<!--", kClose = "-->";
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of("\xef\xbb\xbf \t\r\n"), text.size()));
    if (!text.starts_with(kOpen)) return text;
    const size_t end = text.find(kClose);
    if (end == text.npos) return {};
    text.remove_prefix(end + kClose.size());
  }
}

/// Printable, and white space between.
bool is_plain_text(std::string_view text) {
  return std::ranges::all_of(text,
                             [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t'; });
}

/// A length in eight bytes, and then JSON.
bool is_safetensors(std::string_view bytes) {
  if (bytes.size() < 10 || bytes[8] != '{') return false;
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  return length >= 2 && length <= bytes.size() - 8;
}

}  // namespace

std::string_view stand_in(std::span<const std::byte> bytes) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kLooked));
  if (all.starts_with("version https://git-lfs")) {
    return "a Git LFS pointer: fetch the file that it stands for with `git lfs pull`";
  }
  const std::string_view text = beginning(all);
  if (begins(text, "<!doctype html") || begins(text, "<html") || begins(text, "<head")) {
    return "an HTML page, as a download that failed or needs a login leaves it: download the file itself";
  }
  return {};
}

std::string_view foreign_format(std::span<const std::byte> bytes) {
  if (const std::string_view what = stand_in(bytes); !what.empty()) return what;
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const Format& format : kFormats) {
    if (all.size() > format.at && all.substr(format.at).starts_with(format.magic)) return format.what;
  }
  if (is_safetensors(all)) {
    return "a safetensors file, which holds weights and no graph: inferkit.Weights.open reads it";
  }
  const std::string_view text = beginning(all.substr(0, kLooked));
  if (text.starts_with("{") || text.starts_with("[")) return "JSON: load the model that it belongs to";
  if (begins(text, "<?xml")) {
    return "XML: of an OpenVINO model, load the .onnx file that it was made from; where a download failed and left "
           "this, download the model itself";
  }
  if (!text.empty() && is_plain_text(all.substr(0, kLooked))) {
    return "plain text, as a download that failed leaves it: download the model itself";
  }
  return {};
}

}  // namespace inferkit
