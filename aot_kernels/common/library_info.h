// SPDX-License-Identifier: Apache-2.0
// A line of text in every library that says what it was built from and for. The Python side reads
// it from the file before it loads the library. Use it in one source file a library.
#ifndef MS_DEFORM_COMMON_LIBRARY_INFO_H_
#define MS_DEFORM_COMMON_LIBRARY_INFO_H_

#include <string>  // defines _GLIBCXX_USE_CXX11_ABI

// What MindSpore or Python finds by its name.
#define MS_DEFORM_EXPORT extern "C" __attribute__((visibility("default")))

#define MS_DEFORM_TEXT_OF(value) #value
#define MS_DEFORM_TEXT(value) MS_DEFORM_TEXT_OF(value)

#define MS_DEFORM_LIBRARY_INFO(target) \
  extern "C" __attribute__((visibility("default"), used)) const char ms_deform_library_info[] = \
      "@ms_deform version=" MS_DEFORM_TEXT(MS_DEFORM_VERSION) " abi=" MS_DEFORM_TEXT(           \
          _GLIBCXX_USE_CXX11_ABI) " target=" target                                             \
                                  " isas=" MS_DEFORM_TEXT(MS_DEFORM_ISAS) " sources"            \
                                                                          "=" MS_DEFORM_TEXT(   \
                                                                              MS_DEFORM_SOURCES) "@"

#endif  // MS_DEFORM_COMMON_LIBRARY_INFO_H_
