// SPDX-License-Identifier: Apache-2.0
// What marks a small function that host and device share. `static`: translation units compiled for
// different instruction sets must not share one copy.
#ifndef MS_DEFORM_COMMON_FUNCTION_H_
#define MS_DEFORM_COMMON_FUNCTION_H_

#ifdef __CUDACC__
#define MS_DEFORM_FUNCTION static inline __host__ __device__
#else
#define MS_DEFORM_FUNCTION static inline
#endif

#endif  // MS_DEFORM_COMMON_FUNCTION_H_
