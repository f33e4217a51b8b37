// SPDX-License-Identifier: Apache-2.0
// Runs the AICPU kernels as a device does: by RunCpuKernel, of the kernels' library or of the test
// double that they are linked with.
//
//   aicpu_driver solve PROBLEMS ANSWERS
//     reads calls from one file and writes their results to another; both as kernel_driver.cc has
//     them, but that the bias has no gradient here: zeros stand for it
//   aicpu_driver refuse
//     makes calls that must be refused, and prints a line for each: its name and the status
//
// MS_DEFORM_TEST_CALL says in which way: plain (the default); dynamic, with shapes that only the
// call knows; session, a kernel of its own for each call; cached, one kernel of dynamic shapes for
// all calls of an operator; block, by RunCpuKernelWithBlock.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "aicpu_sdk/call_block.h"
#include "cpu_types.h"

namespace {

using Shape = std::vector<int64_t>;

aicpu::DataType TypeOf(const std::string& dtype) {
  return dtype == "float32" ? aicpu::DT_FLOAT : aicpu::DT_FLOAT16;
}

size_t Elements(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) {
    count *= static_cast<size_t>(size);
  }
  return count;
}

size_t BytesOf(aicpu::DataType type) { return static_cast<size_t>(GetSizeByDataType(type)); }

// A tensor and its memory, which has exactly the size of its elements, so that sanitizers see its
// end, and is filled with NaNs. Without elements it has no address.
class Memory {
 public:
  Memory(aicpu::DataType type, const Shape& shape)
      : type_(type),
        shape_(shape),
        bytes_(Elements(shape) * BytesOf(type)),
        data_(bytes_ > 0 ? new char[bytes_] : nullptr) {
    if (bytes_ > 0) {
      std::memset(data_.get(), 0xff, bytes_);
    }
  }

  aicpu::DataType type() const { return type_; }
  const Shape& shape() const { return shape_; }
  char* data() { return data_.get(); }
  size_t bytes() const { return bytes_; }
  void DropAddress() { data_.reset(); }

 private:
  aicpu::DataType type_;
  Shape shape_;
  size_t bytes_;
  std::unique_ptr<char[]> data_;
};

using Memories = std::vector<std::shared_ptr<Memory>>;

// Bytes one after the other.
class Bytes {
 public:
  template <typename Item>
  void Put(const Item& item) {
    const char* from = reinterpret_cast<const char*>(&item);
    bytes_.insert(bytes_.end(), from, from + sizeof(item));
  }
  void Put(const std::string& text) { bytes_.insert(bytes_.end(), text.begin(), text.end()); }
  void Put(const Bytes& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
  }
  uint32_t size() const { return static_cast<uint32_t>(bytes_.size()); }
  char* data() { return bytes_.data(); }

 private:
  std::vector<char> bytes_;
};

std::string WayOfCalling() {
  const char* way = std::getenv("MS_DEFORM_TEST_CALL");
  return way == nullptr ? "plain" : way;
}

std::string Describe(const std::string& type, const Memories& inputs, const Memories& outputs,
                     bool dynamic) {
  std::ostringstream node;
  node << type << "\n";
  for (const Memories* memories : {&inputs, &outputs}) {
    for (const auto& memory : *memories) {
      node << (memories == &inputs ? "input " : "output ") << memory->type() << " ";
      for (const int64_t size : memory->shape()) {
        node << (dynamic ? -1 : size) << ",";
      }
      node << "\n";
    }
  }
  return node.str();
}

void PutPiece(call_block::PieceKind kind, const Bytes& content, Bytes* extension) {
  extension->Put(call_block::Piece{kind, content.size()});
  extension->Put(content);
}

void PutShapes(call_block::PieceKind kind, const Memories& memories, Bytes* extension) {
  Bytes shapes;
  for (const auto& memory : memories) {
    shapes.Put(static_cast<int32_t>(memory->type()));
    for (size_t i = 0; i < call_block::kMostDimensions; ++i) {
      shapes.Put(i < memory->shape().size() ? memory->shape()[i] : call_block::kNoDimension);
    }
  }
  PutPiece(kind, shapes, extension);
}

// The cached kernel of an operator; another for other dtypes, which are the kernel's and not the
// call's.
uint64_t CachedKernel(const std::string& type, const Memories& inputs, const Memories& outputs) {
  std::string name = type;
  for (const Memories* memories : {&inputs, &outputs}) {
    for (const auto& memory : *memories) {
      name += " " + std::to_string(memory->type());
    }
    name += ";";
  }
  return std::hash<std::string>()(name);
}

Bytes Extend(const std::string& way, const std::string& type, const Memories& inputs,
             const Memories& outputs) {
  Bytes extension;
  if (way == "dynamic" || way == "cached") {
    Bytes shape_type;
    shape_type.Put(int32_t{0});
    PutPiece(call_block::kUnknownShapes, shape_type, &extension);
    PutShapes(call_block::kInputShapes, inputs, &extension);
    PutShapes(call_block::kOutputShapes, outputs, &extension);
  }
  if (way == "session" || way == "cached") {
    static uint64_t kernels = 0;
    Bytes session;
    session.Put(call_block::Session{
        7, way == "cached" ? CachedKernel(type, inputs, outputs) : ++kernels, way == "cached"});
    PutPiece(call_block::kSession, session, &extension);
  }
  return extension;
}

int32_t Run(const std::string& type, const Memories& inputs, const Memories& outputs) {
  const std::string way = WayOfCalling();
  const std::string node = Describe(type, inputs, outputs, way == "dynamic" || way == "cached");
  Bytes extension = Extend(way, type, inputs, outputs);
  Bytes rest;
  for (const Memories* memories : {&inputs, &outputs}) {
    for (const auto& memory : *memories) {
      rest.Put(static_cast<uint64_t>(reinterpret_cast<uintptr_t>(memory->data())));
    }
  }
  rest.Put(static_cast<uint32_t>(node.size()));
  rest.Put(node);
  Bytes call;
  call.Put(call_block::Head{static_cast<uint32_t>(sizeof(call_block::Head)) + rest.size(),
                            static_cast<uint32_t>(inputs.size() + outputs.size()), extension.size(),
                            static_cast<uint64_t>(reinterpret_cast<uintptr_t>(extension.data()))});
  call.Put(rest);
  call_block::Block block = {1, 0};
  return static_cast<int32_t>(way == "block" ? RunCpuKernelWithBlock(call.data(), &block)
                                             : RunCpuKernel(call.data()));
}

std::shared_ptr<Memory> MakeGeometryTensor(const std::vector<int64_t>& numbers) {
  auto memory =
      std::make_shared<Memory>(aicpu::DT_INT64, Shape{static_cast<int64_t>(numbers.size())});
  std::memcpy(memory->data(), numbers.data(), memory->bytes());
  return memory;
}

Shape ParseShape(const std::string& text) {
  Shape shape;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    shape.push_back(std::stoll(part));
  }
  return shape;
}

// A call of all three operators.
struct Problem {
  std::shared_ptr<Memory> input, offset, mask, weight, bias, grad_output, geometry;
  aicpu::DataType type;
};

bool ReadProblem(std::istream& from, Problem* problem) {
  std::string line;
  if (!std::getline(from, line)) {
    return false;
  }
  std::istringstream fields(line);
  std::string dtype, constants[3], shapes[6];
  fields >> dtype;
  for (std::string& constant : constants) {
    fields >> constant;
  }
  for (std::string& shape : shapes) {
    fields >> shape;
  }
  problem->type = TypeOf(dtype);
  std::shared_ptr<Memory>* const tensors[] = {&problem->input, &problem->offset,
                                              &problem->mask,  &problem->weight,
                                              &problem->bias,  &problem->grad_output};
  for (int i = 0; i < 6; ++i) {
    const bool absent = shapes[i] == "-";
    *tensors[i] =
        std::make_shared<Memory>(problem->type, absent ? Shape{1} : ParseShape(shapes[i]));
    if (!absent &&
        !from.read((*tensors[i])->data(), static_cast<std::streamsize>((*tensors[i])->bytes()))) {
      throw std::runtime_error("the problems end within a tensor");
    }
  }
  std::vector<int64_t> numbers;
  for (const std::string& constant : constants) {
    const Shape parsed = ParseShape(constant);
    numbers.insert(numbers.end(), parsed.begin(), parsed.end());
  }
  // Stride, padding and dilation are in the tensor's order already.
  numbers.push_back(shapes[2] == "-" ? 0 : 1);
  numbers.push_back(shapes[4] == "-" ? 0 : 1);
  problem->geometry = MakeGeometryTensor(numbers);
  return true;
}

Memories Gradients(const Problem& p) {
  return {p.input, p.offset, p.mask, p.weight, p.grad_output, p.geometry};
}

std::shared_ptr<Memory> Like(const std::shared_ptr<Memory>& memory, aicpu::DataType type) {
  return std::make_shared<Memory>(type, memory->shape());
}

void Require(int32_t status) {
  if (status != 0) {
    throw std::runtime_error("status " + std::to_string(status));
  }
}

void SolveOne(const Problem& p, std::ostream& to) {
  const Memories output = {Like(p.grad_output, p.type)};
  const Memories grad_input = {Like(p.input, p.type), Like(p.offset, p.type), Like(p.mask, p.type)};
  const Memories grad_weight = {Like(p.weight, p.type)};
  const Memories forward = {p.input, p.offset, p.mask, p.weight, p.bias, p.geometry};
  Require(Run("MsDeformAicpuForward", forward, output));
  Require(Run("MsDeformAicpuGradInput", Gradients(p), grad_input));
  Require(Run("MsDeformAicpuGradWeight", Gradients(p), grad_weight));
  for (const Memories& memories : {output, grad_input, grad_weight}) {
    for (const auto& memory : memories) {
      to.write(memory->data(), static_cast<std::streamsize>(memory->bytes()));
    }
  }
  const std::vector<char> zeros(static_cast<size_t>(p.weight->shape()[0]) * BytesOf(p.type));
  to.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
}

int Solve(const char* problems, const char* answers) {
  std::ifstream from(problems, std::ios::binary);
  std::ofstream to(answers, std::ios::binary);
  for (Problem problem; ReadProblem(from, &problem);) {
    SolveOne(problem, to);
  }
  return 0;
}

// A valid call of 2 images of 4 x 5 pixels, a 3 x 3 kernel, 2 channels in and 3 out.
Problem ValidProblem() {
  const aicpu::DataType type = aicpu::DT_FLOAT;
  Problem p;
  p.type = type;
  p.input = std::make_shared<Memory>(type, Shape{2, 2, 4, 5});
  p.offset = std::make_shared<Memory>(type, Shape{2, 18, 4, 5});
  p.mask = std::make_shared<Memory>(type, Shape{2, 9, 4, 5});
  p.weight = std::make_shared<Memory>(type, Shape{3, 2, 3, 3});
  p.bias = std::make_shared<Memory>(type, Shape{3});
  p.grad_output = std::make_shared<Memory>(type, Shape{2, 3, 4, 5});
  p.geometry = MakeGeometryTensor({1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  return p;
}

struct BadCall {
  const char* name;
  std::function<void(Memories* inputs, Memories* outputs)> spoil;
};

int Refuse() {
  const auto replace = [](int index, aicpu::DataType type, const Shape& shape) {
    return [=](Memories* inputs, Memories*) {
      (*inputs)[static_cast<size_t>(index)] = std::make_shared<Memory>(type, shape);
    };
  };
  const auto nowhere = [](std::shared_ptr<Memory>* memory) {
    *memory = Like(*memory, (*memory)->type());
    (*memory)->DropAddress();
  };
  const auto geometry = [](size_t index, int64_t number) {
    return [=](Memories* inputs, Memories*) {
      std::vector<int64_t> numbers(10, 1);
      numbers[index] = number;
      inputs->back() = MakeGeometryTensor(numbers);
    };
  };
  const std::vector<BadCall> calls = {
      {"none", [](Memories*, Memories*) {}},
      {"input nowhere", [=](Memories* inputs, Memories*) { nowhere(&(*inputs)[0]); }},
      {"weight nowhere", [=](Memories* inputs, Memories*) { nowhere(&(*inputs)[3]); }},
      {"geometry nowhere", [=](Memories* inputs, Memories*) { nowhere(&inputs->back()); }},
      {"output nowhere", [=](Memories*, Memories* outputs) { nowhere(&(*outputs)[0]); }},
      {"no inputs", [](Memories* inputs, Memories*) { inputs->clear(); }},
      {"no geometry", [](Memories* inputs, Memories*) { inputs->pop_back(); }},
      {"no outputs", [](Memories*, Memories* outputs) { outputs->clear(); }},
      {"float64 input", replace(0, aicpu::DT_DOUBLE, {2, 2, 4, 5})},
      {"float16 offset", replace(1, aicpu::DT_FLOAT16, {2, 18, 4, 5})},
      {"input of rank 3", replace(0, aicpu::DT_FLOAT, {2, 4, 5})},
      {"offset of another size", replace(1, aicpu::DT_FLOAT, {2, 18, 4, 4})},
      {"offset of odd channels", replace(1, aicpu::DT_FLOAT, {2, 17, 4, 5})},
      {"mask of another batch", replace(2, aicpu::DT_FLOAT, {1, 9, 4, 5})},
      {"weight of another depth", replace(3, aicpu::DT_FLOAT, {3, 4, 3, 3})},
      {"weight without taps", replace(3, aicpu::DT_FLOAT, {3, 2, 0, 3})},
      {"bias or grad_output of rank 2", replace(4, aicpu::DT_FLOAT, {3, 1})},
      {"output too small",
       [](Memories*, Memories* outputs) {
         (*outputs)[0] = std::make_shared<Memory>(aicpu::DT_FLOAT, Shape{1});
       }},
      {"float16 output",
       [](Memories*, Memories* outputs) {
         (*outputs)[0] = std::make_shared<Memory>(aicpu::DT_FLOAT16, Shape{2, 18, 4, 5});
       }},
      {"geometry of 9",
       [](Memories* inputs, Memories*) {
         inputs->back() = MakeGeometryTensor({1, 1, 1, 1, 1, 1, 1, 1, 1});
       }},
      {"geometry in float32", replace(5, aicpu::DT_FLOAT, {10})},
      {"stride 0", geometry(0, 0)},
      {"stride beyond 32 bits", geometry(1, int64_t{1} << 40)},
      {"padding -1", geometry(3, -1)},
      {"dilation 0", geometry(7, 0)},
      {"use_mask 2", geometry(8, 2)},
      {"empty output", geometry(6, 9)},
  };
  const Problem p = ValidProblem();
  for (const BadCall& call : calls) {
    const std::vector<std::pair<std::string, std::pair<Memories, Memories>>> operators = {
        {"MsDeformAicpuForward",
         {{p.input, p.offset, p.mask, p.weight, p.bias, p.geometry},
          {Like(p.grad_output, p.type)}}},
        {"MsDeformAicpuGradInput",
         {Gradients(p), {Like(p.input, p.type), Like(p.offset, p.type), Like(p.mask, p.type)}}},
        {"MsDeformAicpuGradWeight", {Gradients(p), {Like(p.weight, p.type)}}},
    };
    std::cout << call.name << ":";
    for (auto operation : operators) {
      call.spoil(&operation.second.first, &operation.second.second);
      std::cout << " " << Run(operation.first, operation.second.first, operation.second.second);
    }
    std::cout << std::endl;
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string command = count > 1 ? arguments[1] : "";
  try {
    if (command == "solve" && count == 4) {
      return Solve(arguments[2], arguments[3]);
    }
    if (command == "refuse") {
      return Refuse();
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  std::cerr << "solve PROBLEMS ANSWERS, or refuse" << std::endl;
  return 2;
}
