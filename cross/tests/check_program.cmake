# cmake -DREADELF=readelf -DPROGRAM=file -DMAX_BYTES=n -P check_program.cmake
#
# What a file must be before it is copied to a host: one static, stripped x86-64 program at a fixed
# address, that asks for no loader and no relocation, of a modest size, and that starts.
cmake_minimum_required(VERSION 3.25)

function(read_elf out)
    execute_process(COMMAND ${READELF} -W ${ARGN} ${PROGRAM}
        OUTPUT_VARIABLE text ERROR_VARIABLE noise RESULT_VARIABLE rc)
    if(NOT rc EQUAL 0)
        message(FATAL_ERROR "${READELF} cannot read ${PROGRAM}: ${noise}")
    endif()
    set(${out} "${text}" PARENT_SCOPE)
endfunction()

function(must text pattern what)
    if(NOT text MATCHES "${pattern}")
        message(FATAL_ERROR "${PROGRAM} ${what}:\n${text}")
    endif()
endfunction()

function(must_not text pattern what)
    if(text MATCHES "${pattern}")
        message(FATAL_ERROR "${PROGRAM} ${what}:\n${text}")
    endif()
endfunction()

read_elf(header --file-header)
must("${header}" "Class: +ELF64" "is not 64-bit")
must("${header}" "Machine: +Advanced Micro Devices X86-64" "is not for x86-64")
must("${header}" "Type: +EXEC " "does not stand at a fixed address")
read_elf(segments --program-headers)
must("${segments}" "LOAD" "has no program headers")
must_not("${segments}" "INTERP" "asks for a loader")
must_not("${segments}" "DYNAMIC" "has a dynamic section")
must_not("${segments}" "GNU_STACK[^\n]*RWE" "has an executable stack")
read_elf(sections --section-headers)
must("${sections}" "\\.text" "has no section headers")
must_not("${sections}" "\\.dynamic|\\.dynsym" "has a dynamic section")
must_not("${sections}" "\\.symtab|\\.debug_" "is not stripped")

file(SIZE ${PROGRAM} bytes)
if(bytes GREATER MAX_BYTES)
    message(FATAL_ERROR "${PROGRAM} has ${bytes} bytes, more than ${MAX_BYTES}")
endif()
execute_process(COMMAND ${PROGRAM} --version OUTPUT_VARIABLE text RESULT_VARIABLE rc)
if(NOT rc EQUAL 0 OR NOT text MATCHES "^vmferry-agent [0-9]+\\.[0-9]+\\.[0-9]+ ")
    message(FATAL_ERROR "${PROGRAM} --version ends with ${rc} and says: ${text}")
endif()
message("${PROGRAM}: ${bytes} bytes, ${text}")
