# cmake -C tests/presets/coverage.cmake -S . -B build-coverage; build, ctest, then
# gcovr -r . build-coverage (Debian: gcovr)
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g --coverage" CACHE STRING "")
set(WARNINGS_ARE_ERRORS ON CACHE BOOL "")
