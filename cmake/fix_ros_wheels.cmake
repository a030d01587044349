# SPDX-License-Identifier: Apache-2.0
# ROS wheels export CMake targets whose include paths point at the machine that built them (/opt/python/...). This file,
# injected with -DCMAKE_PROJECT_INCLUDE, replaces those paths by the ones of the running python once a project is read.
# A ROS distribution needs none of it and is built without the flag. Needs CMake 3.19 (deferred calls) or newer.
include_guard(GLOBAL)

function(_usreg_include_paths python_var numpy_var)
  execute_process(
    COMMAND python3 -c "import sysconfig, numpy; print(sysconfig.get_path('include') + ';' + numpy.get_include())"
    OUTPUT_VARIABLE paths OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  list(GET paths 0 python_include)
  list(GET paths 1 numpy_include)
  set(${python_var} "${python_include}" PARENT_SCOPE)
  set(${numpy_var} "${numpy_include}" PARENT_SCOPE)
endfunction()

function(_usreg_fix_wheel_targets)
  _usreg_include_paths(python_include numpy_include)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(include ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(include MATCHES "/opt/python/")
      string(REGEX REPLACE "/opt/python/[^;>]*/numpy/_core/include" "${numpy_include}" include "${include}")
      string(REGEX REPLACE "/opt/python/[^;>]*/include/python[0-9.t]+" "${python_include}" include "${include}")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${include}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL _usreg_fix_wheel_targets)
