// SPDX-License-Identifier: Apache-2.0
// Keeps the text of the last operator that failed, which Python asks for: MindSpore's CPU target
// raises the exception itself, its GPU target writes it to the log and raises another one, without
// the text. It is the one state of the process that operators share beside their scratch.
#ifndef MS_DEFORM_COMMON_LAST_ERROR_H_
#define MS_DEFORM_COMMON_LAST_ERROR_H_

#include <string>

namespace ms_deform {

void KeepError(const std::string& text);

// Empty if none has failed; good until the same thread asks again.
const char* LastError();

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_LAST_ERROR_H_
