# cmake -C tests/presets/asan.cmake -S . -B build-asan
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g" CACHE STRING "") # without NDEBUG: assertions stay
set(SANITIZE address,undefined CACHE STRING "")
set(WARNINGS_ARE_ERRORS ON CACHE BOOL "")
