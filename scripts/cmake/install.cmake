# What `cmake --install` puts where. Included by the top CMakeLists.txt, after all targets are made.
# Each file is installed once it exists in the tree.

function(ipcfs_install_file path destination)
  cmake_parse_arguments(ARG "" "RENAME" "" ${ARGN})
  set(rename)
  if(ARG_RENAME)
    set(rename RENAME ${ARG_RENAME})
  endif()
  if(EXISTS ${CMAKE_SOURCE_DIR}/${path})
    install(FILES ${CMAKE_SOURCE_DIR}/${path} DESTINATION ${destination} ${rename})
  endif()
endfunction()

foreach(program ipcfsd ipcfs)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()

# A privately built libfuse goes along, found relative to the daemon: the build tree may then go.
if(IPCFS_FUSE_PREFIX AND TARGET ipcfsd)
  install(DIRECTORY ${IPCFS_FUSE_PREFIX}/lib/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/ipcfs
    FILES_MATCHING PATTERN "libfuse3.so.*" PATTERN "pkgconfig" EXCLUDE PATTERN "udev" EXCLUDE)
  set_target_properties(ipcfsd PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}/ipcfs")
endif()

install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/ipcfs DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
file(GLOB ipcfs_manuals CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/man/*.[1-8])
foreach(page IN LISTS ipcfs_manuals)
  string(REGEX REPLACE ".*\\." "" section ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
ipcfs_install_file(client/completion/ipcfs.bash ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME ipcfs)
ipcfs_install_file(conf/ipcfs.service lib/systemd/system)
ipcfs_install_file(conf/ipcfs.toml ${CMAKE_INSTALL_SYSCONFDIR}/ipcfs)
ipcfs_install_file(conf/ipcfs-modprobe.conf ${CMAKE_INSTALL_DOCDIR})
ipcfs_install_file(LICENSE ${CMAKE_INSTALL_DOCDIR})
ipcfs_install_file(README.md ${CMAKE_INSTALL_DOCDIR})
