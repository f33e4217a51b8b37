// SPDX-License-Identifier: Apache-2.0
// What the headers of glibc 2.32 and GCC 11 take from their libraries, for systems whose libraries
// are older: a wheel needs no more of them than MindSpore does (glibc 2.17, GCC 9). Hidden, so that
// no other library in the process meets these.

#include <new>

#define MS_DEFORM_HIDDEN __attribute__((visibility("hidden")))

// Whether reference counts may do without atomic instructions: never, MindSpore has threads.
extern "C" MS_DEFORM_HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;

namespace std {

// The end of std::allocator when a size overflows. Its true class, bad_array_new_length, is a
// bad_alloc.
[[noreturn]] MS_DEFORM_HIDDEN void __throw_bad_array_new_length();
void __throw_bad_array_new_length() { throw bad_alloc(); }

}  // namespace std
