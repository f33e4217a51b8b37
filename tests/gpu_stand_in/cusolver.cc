// SPDX-License-Identifier: Apache-2.0
#include "handle.h"

MS_HANDLE(cusolverDnCreate, cusolverDnDestroy, cusolverDnSetStream)
