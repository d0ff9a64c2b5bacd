# What `cmake --install` puts where.  Nothing that is installed names the prefix, so it may be chosen
# then, with --prefix.

# A program that links the archive must not meet our own names, which are hidden but global in it.
set(whole ${CMAKE_CURRENT_BINARY_DIR}/lorafold_whole.o)
add_custom_command(OUTPUT ${whole}
                   COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o ${whole}
                           $<TARGET_OBJECTS:lorafold_objects> ${cuda_objects} ${cuda_runtime}
                   COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=lorafold_* ${whole}
                   DEPENDS lorafold_objects $<TARGET_OBJECTS:lorafold_objects> ${cuda_objects}
                   COMMAND_EXPAND_LISTS VERBATIM)
add_library(lorafold_static STATIC ${whole})
set_target_properties(lorafold_static PROPERTIES OUTPUT_NAME lorafold LINKER_LANGUAGE C)

install(TARGETS lorafold EXPORT lorafold LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS lorafold_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS lorafold_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# pkg-config
file(RELATIVE_PATH up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" up "${up}")
set(pc_prefix "\${pcfiledir}/${up}")
get_property(pc_modules GLOBAL PROPERTY lorafold_modules)
list(JOIN pc_modules " " pc_modules)
configure_file(${CMAKE_CURRENT_LIST_DIR}/lorafold.pc.in lorafold.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lorafold.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# find_package(lorafold) and lorafold::lorafold
include(CMakePackageConfigHelpers)
write_basic_package_version_file(lorafoldConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lorafoldConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/lorafold)
install(EXPORT lorafold NAMESPACE lorafold:: FILE lorafoldConfig.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/lorafold)

# The helper runs with any Python that has huggingface_hub.
set(hub_place ${CMAKE_INSTALL_DATADIR}/lorafold)
file(RELATIVE_PATH hub_package /${CMAKE_INSTALL_BINDIR} /${hub_place})
configure_file(${CMAKE_CURRENT_LIST_DIR}/lorafold-hub.in lorafold-hub @ONLY)
install(PROGRAMS ${CMAKE_CURRENT_BINARY_DIR}/lorafold-hub DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/python/lorafold_hub DESTINATION ${hub_place}
        FILES_MATCHING PATTERN *.py)
