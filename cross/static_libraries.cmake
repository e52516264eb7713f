# The static agent's libraries: the distribution's archives, under the names that pkg-config gives in a
# normal build.  cross/CMakeLists.txt has found them and looked at what they need.
#
# Headers come through a folder of links.  /usr/include itself must never be on the path: glibc's
# headers in it would take the place of musl's.
foreach(variable ZSTD_A SODIUM_A ZSTD_H_DIR SODIUM_H_DIR XXHASH_H_DIR AGENT_OUTPUT_DIR)
    if(NOT ${variable})
        message(FATAL_ERROR "AGENT_STATIC is for the build that cross/ starts: ${variable} is not set")
    endif()
endforeach()

set(LINKS ${CMAKE_BINARY_DIR}/headers)
file(MAKE_DIRECTORY ${LINKS})
function(link_header from)
    get_filename_component(name ${from} NAME)
    file(REAL_PATH ${from} real)
    file(CREATE_LINK ${real} ${LINKS}/${name} SYMBOLIC)
endfunction()
link_header(${ZSTD_H_DIR}/zstd.h)
link_header(${ZSTD_H_DIR}/zstd_errors.h)
link_header(${XXHASH_H_DIR}/xxhash.h)
link_header(${SODIUM_H_DIR}/sodium.h)
link_header(${SODIUM_H_DIR}/sodium)
target_include_directories(project_flags SYSTEM INTERFACE ${LINKS})
target_compile_options(project_flags INTERFACE -fno-pie -ffunction-sections -fdata-sections)

add_library(PkgConfig::ZSTD STATIC IMPORTED)
set_target_properties(PkgConfig::ZSTD PROPERTIES IMPORTED_LOCATION ${ZSTD_A})
add_library(PkgConfig::SODIUM STATIC IMPORTED)
set_target_properties(PkgConfig::SODIUM PROPERTIES IMPORTED_LOCATION ${SODIUM_A})
add_library(PkgConfig::XXHASH INTERFACE IMPORTED) # used as a header only
