// SPDX-License-Identifier: Apache-2.0
// CUDA's compiler at run time: MindSpore asks for its version.

extern "C" int nvrtcVersion(int* major, int* minor) {
  *major = 11;
  *minor = 6;
  return 0;
}
