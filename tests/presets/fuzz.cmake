# cmake -C tests/presets/fuzz.cmake -S . -B build-fuzz && cmake --build build-fuzz --target fuzzers
# For AFL++ add -DCMAKE_C_COMPILER=afl-clang-fast.
set(CMAKE_C_COMPILER clang CACHE STRING "")
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g" CACHE STRING "") # without NDEBUG: assertions stay
set(SANITIZE address,undefined CACHE STRING "")
set(WITH_FUZZERS ON CACHE BOOL "")
set(WITH_STATIC_AGENT OFF CACHE BOOL "")
