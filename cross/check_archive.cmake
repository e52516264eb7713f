# cmake -DNM=nm -DARCHIVE=libzstd.a -DALLOWED=libzstd.symbols -P check_archive.cmake
#
# Archives of the distribution were built against glibc.  They are sound inside a musl program only while
# they need nothing that differs: fails, and names the symbols, when one needs more than the list allows.
function(symbols_of out kind)
    execute_process(COMMAND ${NM} ${kind} --format=posix ${ARCHIVE}
        OUTPUT_VARIABLE text ERROR_VARIABLE noise RESULT_VARIABLE rc)
    if(NOT rc EQUAL 0)
        message(FATAL_ERROR "${NM} cannot read ${ARCHIVE}: ${noise}")
    endif()
    string(REGEX MATCHALL "(^|\n)[A-Za-z0-9_.$]+ [A-Za-z]" found "${text}")
    list(TRANSFORM found REPLACE "^\n?([^ ]+) .*$" "\\1")
    list(REMOVE_DUPLICATES found)
    set(${out} "${found}" PARENT_SCOPE)
endfunction()

symbols_of(needed --undefined-only)
symbols_of(own --defined-only)
if(NOT own)
    message(FATAL_ERROR "${ARCHIVE} defines nothing: is it an archive?")
endif()
file(STRINGS ${ALLOWED} allowed REGEX "^[A-Za-z_]")
list(REMOVE_ITEM needed ${own} ${allowed})
if(needed)
    list(JOIN needed " " names)
    message(FATAL_ERROR
        "${ARCHIVE} needs more from the C library than is known to be the same in musl: ${names}\n"
        "See cross/README.md; -DAGENT_LIBC=glibc builds the agent without that risk.")
endif()
