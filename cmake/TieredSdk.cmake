# The plugin SDK as a package: find_package(tiered) and pkg-config tiered-sdk. Both find
# their prefix from where they lie, so an installed tree may be moved.
include(CMakePackageConfigHelpers)
set(sdk_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tiered)
set(sdk_pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(sdk_plugin_dir ${CMAKE_INSTALL_LIBDIR}/tiered)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/sdk/tieredConfig.cmake.in
    ${CMAKE_BINARY_DIR}/sdk/tieredConfig.cmake
    INSTALL_DESTINATION ${sdk_cmake_dir}
    PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_BINDIR sdk_plugin_dir)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/sdk/tieredConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)

cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX
    BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX}/${sdk_pc_dir} OUTPUT_VARIABLE sdk_pc_to_prefix)
configure_file(${CMAKE_CURRENT_LIST_DIR}/sdk/tiered-sdk.pc.in
    ${CMAKE_BINARY_DIR}/sdk/tiered-sdk.pc @ONLY)

install(FILES ${CMAKE_BINARY_DIR}/sdk/tieredConfig.cmake
    ${CMAKE_BINARY_DIR}/sdk/tieredConfigVersion.cmake DESTINATION ${sdk_cmake_dir})
install(FILES ${CMAKE_BINARY_DIR}/sdk/tiered-sdk.pc DESTINATION ${sdk_pc_dir})
