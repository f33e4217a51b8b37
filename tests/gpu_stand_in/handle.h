// SPDX-License-Identifier: Apache-2.0
// A library's handle, which MindSpore makes of each whether it calls the library or not.
#ifndef MS_DEFORM_TESTS_GPU_STAND_IN_HANDLE_H_
#define MS_DEFORM_TESTS_GPU_STAND_IN_HANDLE_H_

#define MS_HANDLE(Create, Destroy, SetStream) \
  extern "C" int Create(void** handle) {      \
    static char one;                          \
    *handle = &one;                           \
    return 0;                                 \
  }                                           \
  extern "C" int Destroy(void*) { return 0; } \
  extern "C" int SetStream(void*, void*) { return 0; }

#endif  // MS_DEFORM_TESTS_GPU_STAND_IN_HANDLE_H_
