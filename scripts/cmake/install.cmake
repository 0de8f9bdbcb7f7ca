# Installs what belongs to no folder; programs, manuals, completion and the development files
# (client/package) are installed by their own folders. Included by the top CMakeLists.txt,
# after all targets are defined.

# Install a privately built libfuse, which the daemon finds by a relative path, so that the build tree may be deleted.
if(IPCFS_FUSE_PREFIX AND TARGET ipcfsd)
  install(DIRECTORY ${IPCFS_FUSE_PREFIX}/lib/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/ipcfs
    FILES_MATCHING PATTERN "libfuse3.so.*" PATTERN "pkgconfig" EXCLUDE PATTERN "udev" EXCLUDE)
  set_target_properties(ipcfsd PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}/ipcfs")
endif()

install(FILES ${CMAKE_SOURCE_DIR}/conf/ipcfs.service DESTINATION lib/systemd/system)
install(FILES ${CMAKE_SOURCE_DIR}/conf/ipcfs.toml DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/ipcfs)
install(FILES ${CMAKE_SOURCE_DIR}/conf/ipcfs-modprobe.conf DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${CMAKE_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
