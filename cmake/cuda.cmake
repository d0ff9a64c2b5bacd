# The kernels of src/gpu/*.cu, where there is an nvcc: installed, or of PyPI's wheels (LORAFOLD_NVCC).
#
# nvcc is called as it is, without CMake's language CUDA, whose search for a toolkit knows no wheels.
# Without exceptions and guarded statics the objects need no C++ library, so that C links them, and
# the runtime is its archive, which looks the driver up when it is used: one program for machines
# with a GPU and without.  Sets LORAFOLD_CUDA_FOUND; the target lorafold_cuda has all that is linked.

set(LORAFOLD_CUDA AUTO CACHE STRING "kernels for NVIDIA GPUs: AUTO (where nvcc is found), ON or OFF")
set(LORAFOLD_CUDA_GENERATIONS 75 80 86 89 90 100 120 CACHE STRING
    "compute capabilities that there is machine code for, as far as nvcc knows them, ascending")
set(LORAFOLD_CUDA_FOUND OFF)
set(cuda_objects) # and the archive that they need, for whoever links them by name
set(cuda_runtime)

# Sanitizers know nothing of these objects, and each build of theirs would compile them again.
if(NOT LORAFOLD_CUDA OR (LORAFOLD_CUDA STREQUAL "AUTO" AND
                         (CMAKE_CROSSCOMPILING OR LORAFOLD_SANITIZE OR LORAFOLD_FUZZ OR SKBUILD)))
    return()
endif()

find_program(LORAFOLD_NVCC nvcc PATHS ENV CUDA_PATH ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES bin)
if(LORAFOLD_NVCC)
    # It may be a link or a script, so it is asked where its toolkit is.
    execute_process(COMMAND ${LORAFOLD_NVCC} --dryrun -x cu -c /dev/null -o /dev/null
                    OUTPUT_VARIABLE dry ERROR_VARIABLE dry)
    string(REGEX MATCH "#\\$ TOP=([^\n]+)" dry "${dry}")
    set(cuda_root ${CMAKE_MATCH_1})
    find_library(LORAFOLD_CUDART cudart_static HINTS ${cuda_root} PATH_SUFFIXES lib64 lib targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib)
    find_path(LORAFOLD_CUDA_INCLUDE cuda_runtime_api.h HINTS ${cuda_root} PATH_SUFFIXES include)
endif()
if(NOT LORAFOLD_NVCC OR NOT LORAFOLD_CUDART OR NOT LORAFOLD_CUDA_INCLUDE)
    if(LORAFOLD_CUDA STREQUAL "AUTO")
        message(STATUS "without CUDA: no nvcc with its runtime")
        return()
    endif()
    message(FATAL_ERROR "LORAFOLD_CUDA is ON, and there is no nvcc, no libcudart_static.a or no "
                        "cuda_runtime_api.h: set LORAFOLD_NVCC, or leave it to tools/build --cuda")
endif()

# Machine code for every generation that this nvcc knows, and what later ones can translate.
execute_process(COMMAND ${LORAFOLD_NVCC} --list-gpu-code OUTPUT_VARIABLE known RESULT_VARIABLE failed)
if(failed)
    message(FATAL_ERROR "${LORAFOLD_NVCC} does not run")
endif()
set(generations)
set(newest)
foreach(generation ${LORAFOLD_CUDA_GENERATIONS})
    if(known MATCHES "sm_${generation}\n" OR known MATCHES "sm_${generation}$")
        list(APPEND generations -gencode arch=compute_${generation},code=sm_${generation})
        set(newest ${generation})
    endif()
endforeach()
if(NOT newest)
    message(FATAL_ERROR "${LORAFOLD_NVCC} knows none of LORAFOLD_CUDA_GENERATIONS: ${LORAFOLD_CUDA_GENERATIONS}")
endif()
list(APPEND generations -gencode arch=compute_${newest},code=compute_${newest})

# docs/NUMERICS.md: nothing is fused, nothing flushed, division and root are rounded.
set(cuda_flags -std=c++20 -O3 -fmad=false -ftz=false -prec-div=true -prec-sqrt=true
    -ccbin ${CMAKE_C_COMPILER}
    -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-ffp-contract=off)
if(LORAFOLD_WERROR)
    list(APPEND cuda_flags -Werror all-warnings)
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/gpu/*.cu)
foreach(source ${cuda_sources})
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(OUTPUT ${object}
                       COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/cuda
                       COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${LORAFOLD_NVCC} ${cuda_flags} ${generations}
                               -D_GNU_SOURCE -DLORAFOLD_CUDA -I${PROJECT_SOURCE_DIR}/src
                               -MD -MF ${object}.d -c -o ${object} ${source}
                       DEPENDS ${source} DEPFILE ${object}.d
                       COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND cuda_objects ${object})
endforeach()
set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
add_library(lorafold_cuda STATIC ${cuda_objects})
set_target_properties(lorafold_cuda PROPERTIES LINKER_LANGUAGE C)
target_compile_definitions(lorafold_cuda INTERFACE LORAFOLD_CUDA)
target_include_directories(lorafold_cuda SYSTEM INTERFACE ${LORAFOLD_CUDA_INCLUDE})
target_link_libraries(lorafold_cuda INTERFACE ${LORAFOLD_CUDART} ${CMAKE_DL_LIBS} rt Threads::Threads)
target_link_options(lorafold_cuda INTERFACE -Wl,--exclude-libs,libcudart_static.a)
set(LORAFOLD_CUDA_FOUND ON)
set(cuda_runtime ${LORAFOLD_CUDART})
message(STATUS "with CUDA: ${LORAFOLD_NVCC}")
