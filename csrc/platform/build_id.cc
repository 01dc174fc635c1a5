#include "platform/build_id.h"

#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstring>

#include "base/immortal.h"

namespace inferkit {
namespace {

struct Search {
  uintptr_t inside;
  std::string found;
};

std::string hexadecimal(const unsigned char* bytes, size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    out += kDigits[bytes[i] >> 4];
    out += kDigits[bytes[i] & 15];
  }
  return out;
}

/// The build id among notes of which the loader has checked nothing.
std::string id_among(const unsigned char* at, size_t bytes) {
  while (bytes >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof(note));
    const size_t name = (size_t{note.n_namesz} + 3) / 4 * 4, value = (size_t{note.n_descsz} + 3) / 4 * 4;
    if (name + value > bytes - sizeof(note)) return {};
    const unsigned char* text = at + sizeof(note);
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(text, "GNU", 4) == 0) {
      return hexadecimal(text + name, note.n_descsz);
    }
    at += sizeof(note) + name + value;
    bytes -= sizeof(note) + name + value;
  }
  return {};
}

int look(dl_phdr_info* info, size_t, void* data) {
  auto& search = *static_cast<Search*>(data);
  bool ours = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & part = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
    ours |= part.p_type == PT_LOAD && search.inside >= begin && search.inside - begin < part.p_memsz;
  }
  for (int i = 0; ours && i < info->dlpi_phnum && search.found.empty(); ++i) {
    const ElfW(Phdr) & part = info->dlpi_phdr[i];
    if (part.p_type != PT_NOTE) continue;
    search.found = id_among(reinterpret_cast<const unsigned char*>(info->dlpi_addr + part.p_vaddr), part.p_memsz);
  }
  return ours;
}

}  // namespace

const std::string& build_id() {
  static const std::string& id = immortal([] {
    Search search{reinterpret_cast<uintptr_t>(&look), {}};
    ::dl_iterate_phdr(look, &search);
    return search.found;
  }());
  return id;
}

}  // namespace inferkit
