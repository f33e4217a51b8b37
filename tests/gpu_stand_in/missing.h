// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_GPU_STAND_IN_MISSING_H_
#define MS_DEFORM_TESTS_GPU_STAND_IN_MISSING_H_

// Where every function ends that the stand-in does not have: throws with its name, which MindSpore
// passes on to Python.
[[noreturn, gnu::visibility("hidden")]] int Missing(const char* symbol);

#endif  // MS_DEFORM_TESTS_GPU_STAND_IN_MISSING_H_
