// SPDX-License-Identifier: Apache-2.0
// Runs the AICPU kernels as a device does, on the test double of the SDK.
//
//   aicpu_driver solve PROBLEMS ANSWERS
//     reads calls from one file and writes their results to another; both as kernel_driver.cc has
//     them, but that the bias has no gradient here: zeros stand for it
//   aicpu_driver refuse
//     makes calls that must be refused, and prints a line for each: its name and the status
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "aicpu/call.h"
#include "aicpu_sdk/sdk.h"

using ms_deform::Shape;
using ms_deform::aicpu_backend::Count;

namespace {

aicpu::DataType TypeOf(const std::string& dtype) {
  return dtype == "float32" ? aicpu::DT_FLOAT : aicpu::DT_FLOAT16;
}

size_t BytesOf(aicpu::DataType type) {
  switch (type) {
    case aicpu::DT_FLOAT16:
      return 2;
    case aicpu::DT_INT64:
    case aicpu::DT_DOUBLE:
      return 8;
    default:
      return 4;
  }
}

// A tensor and its memory, which has exactly the size of its elements, so that sanitizers see its
// end, and is filled with NaNs.
class Memory {
 public:
  Memory(aicpu::DataType type, const Shape& shape)
      : shape_(shape),
        bytes_(static_cast<size_t>(Count(shape)) * BytesOf(type)),
        data_(new char[bytes_ > 0 ? bytes_ : 1]),
        tensor_(type, std::make_shared<aicpu::TensorShape>(shape), data_.get(), bytes_) {
    std::memset(data_.get(), 0xff, bytes_);
  }

  const Shape& shape() const { return shape_; }
  aicpu::Tensor* tensor() { return &tensor_; }
  char* data() { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  Shape shape_;
  size_t bytes_;
  std::unique_ptr<char[]> data_;
  aicpu::Tensor tensor_;
};

using Memories = std::vector<std::shared_ptr<Memory>>;

std::vector<aicpu::Tensor*> TensorsOf(const Memories& memories) {
  std::vector<aicpu::Tensor*> tensors;
  for (const auto& memory : memories) {
    tensors.push_back(memory == nullptr ? nullptr : memory->tensor());
  }
  return tensors;
}

uint32_t Run(const std::string& type, const Memories& inputs, const Memories& outputs) {
  aicpu::CpuKernelContext context(type, TensorsOf(inputs), TensorsOf(outputs));
  return aicpu::CreateKernel(type)->Compute(context);
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

void Require(uint32_t status) {
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
  const auto geometry = [](size_t index, int64_t number) {
    return [=](Memories* inputs, Memories*) {
      std::vector<int64_t> numbers(10, 1);
      numbers[index] = number;
      inputs->back() = MakeGeometryTensor(numbers);
    };
  };
  const std::vector<BadCall> calls = {
      {"none", [](Memories*, Memories*) {}},
      {"null input", [](Memories* inputs, Memories*) { (*inputs)[0] = nullptr; }},
      {"null weight", [](Memories* inputs, Memories*) { (*inputs)[3] = nullptr; }},
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
