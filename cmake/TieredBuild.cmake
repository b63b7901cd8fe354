# What every target of the project shares: language, warnings, sanitizers, and the
# two helpers that keep a plugin's and a test's CMakeLists.txt a line long.
include(GNUInstallDirs)
find_package(PkgConfig REQUIRED)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(TIERED_PLUGIN_DIR ${CMAKE_BINARY_DIR}/lib/tiered)

find_program(TIERED_CCACHE ccache)
if(TIERED_CCACHE)
    set(CMAKE_C_COMPILER_LAUNCHER ${TIERED_CCACHE})
endif()

add_compile_definitions(_GNU_SOURCE)
# -ffp-contract=off: the same sums on every machine, fused multiply-add or not.
add_compile_options(-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -fvisibility=hidden -fno-strict-aliasing
    -ffp-contract=off -fno-math-errno -fno-trapping-math)

# An assert is for our bugs: they stay in all builds but the release.
add_compile_options($<$<CONFIG:RelWithDebInfo>:-UNDEBUG>)

set(TIERED_SANITIZE "" CACHE STRING "a -fsanitize= list for every target")
option(TIERED_FUZZ "build tests/fuzz for libFuzzer (clang only)" OFF)
if(TIERED_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
        message(FATAL_ERROR "TIERED_FUZZ needs clang: set CC=clang in a fresh build folder")
    endif()
    set(TIERED_SANITIZE fuzzer-no-link,address,undefined)
endif()
if(TIERED_SANITIZE)
    add_compile_options(-fsanitize=${TIERED_SANITIZE} -fno-omit-frame-pointer
        -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${TIERED_SANITIZE})
    add_compile_definitions(TIERED_SANITIZED)
endif()

# tiered_plugin(NAME SOURCES... [LIBS ...]): one small .so that sees the SDK headers alone.
function(tiered_plugin name)
    cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
    add_library(plugin-${name} MODULE ${ARG_UNPARSED_ARGUMENTS})
    set_target_properties(plugin-${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name}
        LIBRARY_OUTPUT_DIRECTORY ${TIERED_PLUGIN_DIR})
    target_include_directories(plugin-${name} PRIVATE ${CMAKE_SOURCE_DIR}/plugins/include)
    target_compile_options(plugin-${name} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O3>)
    target_link_libraries(plugin-${name} PRIVATE ${ARG_LIBS} m)
    set_property(GLOBAL APPEND PROPERTY TIERED_PLUGIN_TARGETS plugin-${name})
    if(NOT TIERED_SANITIZE)
        target_link_options(plugin-${name} PRIVATE -Wl,--no-undefined)
    endif()
    install(TARGETS plugin-${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/tiered)
endfunction()
