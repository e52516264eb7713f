# cmake -C tests/presets/tsan.cmake -S . -B build-tsan
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g" CACHE STRING "") # without NDEBUG: assertions stay
set(SANITIZE thread CACHE STRING "")
set(WARNINGS_ARE_ERRORS ON CACHE BOOL "")
