set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 3 CONFIG REQUIRED)
file(GLOB bindings CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/csrc/bindings/*.cc)
pybind11_add_module(_core MODULE NO_EXTRAS ${bindings})
target_link_libraries(_core PRIVATE inferkit_batching inferkit_engine)
# Calls that may let go of the GIL go through functions of ours: see csrc/bindings/python_calls.cc.
set(python_calls ${CMAKE_CURRENT_SOURCE_DIR}/csrc/bindings/python_calls.inc)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${python_calls})
file(STRINGS ${python_calls} python_calls REGEX "^INFERKIT_PYTHON_CALL")
list(TRANSFORM python_calls REPLACE "^INFERKIT_PYTHON_CALL\\([^,]+, ([A-Za-z_]+),.*" "-Wl,--wrap=\\1")
target_link_options(_core PRIVATE ${python_calls})
set(first ${CMAKE_CURRENT_SOURCE_DIR}/csrc/bindings/python_calls.h)
if(CMAKE_CXX_COMPILER_LAUNCHER OR CMAKE_DISABLE_PRECOMPILE_HEADERS)
  target_compile_options(_core PRIVATE "SHELL:-include ${first}")
endif() # else as the first of those: after another -include, GCC would not read precompiled headers
inferkit_precompile(_core ${first} <pybind11/numpy.h> <pybind11/pybind11.h> <pybind11/stl.h>)
# Templates of the C++ library are weak symbols, some of them unique in the process, whatever the visibility of our own
# code; and a toolchain that links the library statically adds all of it.
set(exports ${CMAKE_CURRENT_SOURCE_DIR}/cmake/exports.map)
target_link_options(_core PRIVATE -Wl,--version-script=${exports} -Wl,--exclude-libs,ALL)
set_property(TARGET _core APPEND PROPERTY LINK_DEPENDS ${exports})
# Threads that Python ends are unwound through our frames by the process's own libgcc_s: our handlers must be of the same
# one, also where the toolchain would link a copy of it (see csrc/bindings/python_calls.cc).
if(INFERKIT_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # A thread's end is caught by a reference to an object that there is none of; GCC's own check takes that for a fault.
  set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/csrc/bindings/python_calls.cc
                              PROPERTIES COMPILE_OPTIONS -fno-sanitize=null)
endif()
include(CheckLinkerFlag)
check_linker_flag(CXX -lgcc_s INFERKIT_HAS_GCC_S)
if(INFERKIT_HAS_GCC_S)
  target_link_libraries(_core PRIVATE gcc_s)
endif()
if(INFERKIT_STATIC_RUNTIME)
  target_link_options(_core PRIVATE -static-libstdc++ -static-libgcc)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT INFERKIT_SANITIZE)
  target_link_options(_core PRIVATE -Wl,--gc-sections -Wl,-s)
endif()
install(TARGETS _core DESTINATION inferkit)
