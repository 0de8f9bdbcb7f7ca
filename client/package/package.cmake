# What a program outside this tree builds with: headers, libraries, pkg-config and CMake package files,
# and the examples. Included by client/CMakeLists.txt. By itself: cmake --install BUILD --component dev
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ipcfs)
install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/ipcfs ${CMAKE_SOURCE_DIR}/include/ipcfs
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
install(TARGETS ipcfs-header ipcfs-c ipcfs-c-static EXPORT ipcfs-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
install(EXPORT ipcfs-targets NAMESPACE ipcfs:: DESTINATION ${package_dir} COMPONENT dev)
configure_package_config_file(package/ipcfs-config.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/ipcfs-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/ipcfs-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ipcfs-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/ipcfs-config-version.cmake
  DESTINATION ${package_dir} COMPONENT dev)

# Found relative to the .pc file, so that an installed tree can be moved.
file(RELATIVE_PATH IPCFS_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" IPCFS_PC_PREFIX "${IPCFS_PC_PREFIX}")
foreach(name ipcfs ipcfs-c)
  configure_file(package/${name}.pc.in ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
endforeach()

install(DIRECTORY examples/ DESTINATION ${CMAKE_INSTALL_DATADIR}/ipcfs/examples
  USE_SOURCE_PERMISSIONS COMPONENT dev)
