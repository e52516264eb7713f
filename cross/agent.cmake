# vmferry_agent_program(TARGET): what turns the agent's program into the native one for tests, or, in
# the build that cross/CMakeLists.txt starts, into the stripped static one that is copied to hosts.
function(vmferry_agent_program target)
    if(AGENT_STATIC)
        set_target_properties(${target} PROPERTIES
            OUTPUT_NAME vmferry-agent-x86_64 RUNTIME_OUTPUT_DIRECTORY ${AGENT_OUTPUT_DIR})
        vmferry_static_program(${target})
    else()
        set_target_properties(${target} PROPERTIES OUTPUT_NAME vmferry-agent-native)
    endif()
endfunction()

# Link as the static agent is linked.
function(vmferry_static_program target)
    target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cross/fortify_shim.c)
    # Never -static-pie: with musl-gcc that silently gives a dynamic program.
    target_link_options(${target} PRIVATE -static -no-pie -s -Wl,--gc-sections)
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${ZSTD_A};${SODIUM_A}")
endfunction()
