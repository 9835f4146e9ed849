# SPDX-License-Identifier: MIT
# What `cmake --install` puts in place: libraries, headers, the program, pkg-config and CMake package files.
include(CMakePackageConfigHelpers)
install(TARGETS libkvant libkvant_engine EXPORT kvant-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS kvant RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/kvant DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT kvant-targets NAMESPACE kvant:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvant)
configure_package_config_file(cmake/kvant-config.cmake.in kvant-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvant)
write_basic_package_version_file(kvant-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kvant-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/kvant-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kvant)
# The prefix is where the file lies, so a tree that was installed elsewhere or moved still works.
file(RELATIVE_PATH pc_to_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
foreach(name kvant kvant_engine)
  configure_file(cmake/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
