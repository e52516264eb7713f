# Toolchain file: x86-64 Linux with glibc, the second way (-DAGENT_LIBC=glibc).  Three times the size and
# ten times the address space of musl's, and it needs openat: see README.md.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_CROSSCOMPILING FALSE)
find_program(CMAKE_C_COMPILER NAMES x86_64-linux-gnu-gcc gcc REQUIRED)
