# Flags that every translation unit shares. ISA flags live in Isa.cmake alone.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")

find_package(Threads REQUIRED)

add_library(inferkit_flags INTERFACE)
target_include_directories(inferkit_flags INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
target_link_libraries(inferkit_flags INTERFACE Threads::Threads)
# Contraction is off so that the bits of a result never depend on what the compiler chose to fuse;
# kernels ask for FMA by name.
target_compile_options(inferkit_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-psabi
                                                -ffp-contract=off -fno-math-errno)
# What a build is known by: csrc/platform/build_id.h.
target_link_options(inferkit_flags INTERFACE -Wl,--build-id=sha1)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(inferkit_flags INTERFACE -Wthread-safety)
endif()
if(INFERKIT_WERROR)
  target_compile_options(inferkit_flags INTERFACE -Werror)
endif()
if(INFERKIT_SANITIZE)
  # More optimisation and debug information take the compiler twice as long, and find no more.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
  target_compile_options(inferkit_flags INTERFACE -fsanitize=${INFERKIT_SANITIZE} -fno-omit-frame-pointer
                                                  -fno-sanitize-recover=all)
  target_link_options(inferkit_flags INTERFACE -fsanitize=${INFERKIT_SANITIZE})
  # GCC takes the branches that the sanitizers add for paths on which nothing was initialised.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(inferkit_flags INTERFACE -Wno-maybe-uninitialized)
  else()
    # In Clang this check alone takes the compiler four times as long as all the others; GCC makes it.
    target_compile_options(inferkit_flags INTERFACE -fno-sanitize=pointer-overflow)
  endif()
endif()

# Parses the headers that most files of a target open with once, or takes what was parsed for another target
# (REUSE_FROM <target>) of the same flags; the level of optimisation may be lower here than there, not higher: GCC 12
# crashes then. A compiler cache would not see through it.
function(inferkit_precompile target)
  if(CMAKE_CXX_COMPILER_LAUNCHER)
    return()
  endif()
  if("${ARGV1}" STREQUAL "REUSE_FROM")
    target_precompile_headers(${target} REUSE_FROM ${ARGV2})
  else()
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()
