# Toolchain file: x86-64 Linux with musl through the distribution's musl-gcc.  How to get it: README.md.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
# One machine runs both, so this is no cross build for CMake's own checks.
set(CMAKE_CROSSCOMPILING FALSE)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MUSL_GCC)
find_program(MUSL_GCC NAMES musl-gcc x86_64-linux-musl-gcc REQUIRED)
set(CMAKE_C_COMPILER ${MUSL_GCC})
