// SPDX-License-Identifier: Apache-2.0
// The test double's register of kernels, its threads, and the functions that a device calls. They
// behave as CANN's do, as far as a kernel can tell: hicann/opbase v9.0.0, aicpu_common/context, in
// common/{cpu_kernel_utils,cpu_kernel_cache,device_cpu_kernel}.cc; for the threads hicann/runtime
// at 681ef761, src/aicpu_sched/aicpu_sharder/aicpu_sharder.cc.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "call_block.h"
#include "cpu_kernel.h"
#include "node.h"

namespace aicpu {

// In the SDK's libraries, but not in the headers of every SDK: not in those of the double either.
class CpuKernelUtils {
 public:
  static uint32_t ParallelFor(const CpuKernelContext& context, int64_t total, int64_t per_unit_size,
                              const std::function<void(int64_t, int64_t)>& work);
};

namespace {

std::map<std::string, KernelCreator>& Kernels() {
  static std::map<std::string, KernelCreator> kernels;
  return kernels;
}

int64_t Cores() {
  const char* threads = std::getenv("MS_DEFORM_TEST_THREADS");
  return threads == nullptr ? 2 : std::atoi(threads);
}

int64_t CeilDivide(int64_t number, int64_t by) { return number / by + (number % by != 0); }

}  // namespace

bool RegistCpuKernel(const std::string& type, const KernelCreator& creator) {
  return Kernels().emplace(type, creator).second;
}

uint32_t CpuKernelUtils::ParallelFor(const CpuKernelContext&, int64_t total, int64_t per_unit_size,
                                     const std::function<void(int64_t, int64_t)>& work) {
  if (total <= 0) {
    return 0;
  }
  const int64_t cores = Cores();
  const int64_t wanted = std::max(int64_t{1}, std::min(total, per_unit_size));
  const int64_t part = CeilDivide(total, std::min(2 * cores, CeilDivide(total, wanted)));
  if (cores <= 1 || part >= total) {
    work(0, total);
    return 0;
  }
  std::mutex mutex;
  int64_t next = 0;
  const auto run = [&] {
    for (;;) {
      int64_t begin = 0;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        begin = next;
        next += part;
      }
      if (begin >= total) {
        return;
      }
      try {
        work(begin, std::min(begin + part, total));
      } catch (const std::exception&) {
      }
    }
  };
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < cores; ++i) {
    threads.emplace_back(run);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return 0;
}

namespace {

using call_block::Block;
using call_block::Head;
using call_block::Piece;
using call_block::Session;

constexpr uint32_t kFailed = static_cast<uint32_t>(-1);

// What a call's extension says.
struct Extension {
  bool unknown_shapes = false;
  bool has_session = false;
  Session session = {0, 0, false};
  std::vector<char*> input_shapes;
  std::vector<char*> output_shapes;
};

template <typename Item>
Item Read(const char* from) {
  Item item;
  std::memcpy(&item, from, sizeof(item));
  return item;
}

Extension ReadExtension(const Head& head) {
  Extension extension;
  char* at = reinterpret_cast<char*>(static_cast<uintptr_t>(head.extension));
  const char* const end = at + head.extension_bytes;
  while (at != end) {
    const Piece piece = Read<Piece>(at);
    at += sizeof(piece);
    char* const after = at + piece.bytes;
    if (piece.kind == call_block::kUnknownShapes) {
      extension.unknown_shapes = true;
    } else if (piece.kind == call_block::kSession) {
      extension.has_session = true;
      extension.session = Read<Session>(at);
    } else if (extension.unknown_shapes) {
      auto& shapes =
          piece.kind == call_block::kInputShapes ? extension.input_shapes : extension.output_shapes;
      for (; at != after; at += call_block::kBytesOfShape) {
        shapes.push_back(at);
      }
    }
    at = after;
  }
  return extension;
}

void SetShape(Tensor* tensor, const char* from) {
  std::vector<int64_t> sizes;
  from += call_block::kSizesOfShape;
  while (sizes.size() < call_block::kMostDimensions &&
         Read<int64_t>(from) != call_block::kNoDimension) {
    sizes.push_back(Read<int64_t>(from));
    from += sizeof(int64_t);
  }
  tensor->GetTensorShape()->SetDimSizes(sizes);
}

bool SetDataSize(Tensor* tensor) {
  int64_t bytes = GetSizeByDataType(tensor->GetDataType());
  for (const int64_t size : tensor->GetTensorShape()->GetDimSizes()) {
    if (size < 0) {
      return false;
    }
    bytes *= size;
  }
  tensor->SetDataSize(static_cast<uint64_t>(bytes));
  return true;
}

bool SetTensors(CpuKernelContext* context, const Extension& extension, const char* addresses,
                uint32_t count) {
  const uint32_t inputs = context->GetInputsSize();
  const uint32_t outputs = context->GetOutputsSize();
  if (count != inputs + outputs ||
      (extension.unknown_shapes &&
       (extension.input_shapes.size() != inputs || extension.output_shapes.size() != outputs))) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    const bool is_input = i < inputs;
    Tensor* const tensor = is_input ? context->Input(i) : context->Output(i - inputs);
    const auto address = Read<uint64_t>(addresses + i * sizeof(uint64_t));
    tensor->SetData(reinterpret_cast<void*>(static_cast<uintptr_t>(address)));
    if (extension.unknown_shapes) {
      SetShape(tensor, is_input ? extension.input_shapes[i] : extension.output_shapes[i - inputs]);
    }
    // Of an input without an address the size stays what it was.
    if (!(is_input && address == 0) && !SetDataSize(tensor)) {
      return false;
    }
  }
  return true;
}

// The shapes of outputs go back to the caller.
void TellShapes(const CpuKernelContext& context, const Extension& extension) {
  for (size_t i = 0; i < extension.output_shapes.size(); ++i) {
    const auto sizes = context.Output(static_cast<uint32_t>(i))->GetTensorShape()->GetDimSizes();
    std::memcpy(extension.output_shapes[i] + call_block::kSizesOfShape, sizes.data(),
                sizes.size() * sizeof(int64_t));
  }
}

std::shared_ptr<CpuKernelContext> FindContext(const Extension& extension, const std::string& node,
                                              const Block& block) {
  static std::map<std::pair<uint64_t, uint64_t>, std::shared_ptr<CpuKernelContext>> cache;
  if (!extension.has_session) {
    return ascend_private::protobuf::ParseNode(node);
  }
  const uint64_t stream = 0;
  const uint64_t kernel = extension.session.kernel;
  const uint64_t owner =
      extension.session.by_session ? uint64_t{extension.session.session} : stream;
  auto& context = cache[{owner, kernel}];
  if (context == nullptr || block.count != 1) {
    context = ascend_private::protobuf::ParseNode(node);
  }
  return context;
}

// Of a kernel's status only whether it is 0 is seen outside.
uint32_t Run(void* call, const Block& block) {
  const char* at = static_cast<const char*>(call);
  const Head head = Read<Head>(at);
  at += sizeof(head);
  const char* const addresses = at;
  at += head.addresses * sizeof(uint64_t);
  const auto node_bytes = Read<uint32_t>(at);
  at += sizeof(node_bytes);
  const Extension extension = ReadExtension(head);
  const auto context = FindContext(extension, std::string(at, node_bytes), block);
  const auto kernel = Kernels().find(context->GetOpType());
  if (!SetTensors(context.get(), extension, addresses, head.addresses) ||
      kernel == Kernels().end() || kernel->second()->Compute(*context) != 0) {
    return kFailed;
  }
  TellShapes(*context, extension);
  return 0;
}

}  // namespace
}  // namespace aicpu

extern "C" {
__attribute__((visibility("default"))) uint32_t RunCpuKernel(void* call) {
  return call == nullptr ? 1 : aicpu::Run(call, {1, 0});
}

__attribute__((visibility("default"))) uint32_t RunCpuKernelWithBlock(void* call,
                                                                      call_block::Block* block) {
  return call == nullptr || block == nullptr ? 1 : aicpu::Run(call, *block);
}
}
