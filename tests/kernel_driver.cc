// SPDX-License-Identifier: Apache-2.0
// Calls a library's AOT entry points as MindSpore does, without MindSpore, so that kernels can run
// under sanitizers, on emulated machines, and with shapes that MindSpore itself would not pass on.
//
//   kernel_driver infer INPUT OFFSET MASK WEIGHT BIAS STRIDE PADDING DILATION [CALLER]
//     prints the inferred output shape or the error; shapes as 2,4,7,9, unknown rank as -2, MASK
//     and BIAS - if there is none
//   kernel_driver sweep SEED COUNT
//     runs random geometries, hostile offsets among them, in every dtype; every output must be
//     written, and nothing else touched (buffers have exactly the size of their tensors)
//   kernel_driver solve PROBLEMS ANSWERS [deterministic]
//     reads calls from one file and writes their results to another, as bytes: output, grad_input,
//     grad_offset, grad_mask (a single 0 without mask), grad_weight, grad_bias. A call is a line
//     DTYPE STRIDE PADDING DILATION INPUT OFFSET MASK WEIGHT BIAS GRAD_OUTPUT, shapes as for infer,
//     MASK and BIAS - if there is none; then come the bytes of its tensors, in this order
//   kernel_driver isa
//     prints the instruction set that the kernels use
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/aot_extra.h"
#include "common/dtype.h"
#include "common/geometry.h"

using ms_deform::AotExtra;
using ms_deform::DType;
using ms_deform::Shape;

extern "C" {
// Of the CPU's library only.
__attribute__((weak)) const char* ms_deform_cpu_isa();
Shape MsDeformForwardInferShape(int* ranks, int64_t** shapes, AotExtra* extra);
std::vector<Shape> MsDeformGradInputInferShape(int* ranks, int64_t** shapes, AotExtra* extra);
Shape MsDeformGradWeightInferShape(int* ranks, int64_t** shapes, AotExtra* extra);
Shape MsDeformGradBiasInferShape(int* ranks, int64_t** shapes, AotExtra* extra);
int MsDeformForward(int, void**, int*, int64_t**, const char**, void*, void*);
int MsDeformGradInput(int, void**, int*, int64_t**, const char**, void*, void*);
int MsDeformGradWeight(int, void**, int*, int64_t**, const char**, void*, void*);
int MsDeformGradBias(int, void**, int*, int64_t**, const char**, void*, void*);
}

namespace {

class Extra : public AotExtra {
 public:
  Shape stride, padding, dilation;
  bool use_mask = true;
  bool use_bias = true;
  bool deterministic = false;
  std::string caller = "deform_conv2d";

  bool HasAttr(std::string) override { return true; }
  bool GetAttrBool(std::string name) override {
    return name == "use_mask" ? use_mask : name == "use_bias" ? use_bias : deterministic;
  }
  int64_t GetAttrInt(std::string) override { return 0; }
  float GetAttrFloat(std::string) override { return 0; }
  std::string GetAttrStr(std::string name) override { return name == "caller" ? caller : ""; }
  std::vector<int64_t> GetAttrIntVec(std::string name) override {
    return name == "stride" ? stride : name == "padding" ? padding : dilation;
  }
};

Shape ParseShape(const char* text) {
  Shape shape;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    shape.push_back(std::stoll(part));
  }
  return shape;
}

// Ranks and shapes of several tensors as MindSpore passes them.
struct ShapeArguments {
  explicit ShapeArguments(const std::vector<Shape>& from) : shapes(from) {
    for (Shape& shape : shapes) {
      ranks.push_back(static_cast<int>(shape.size()));
      pointers.push_back(shape.data());
    }
  }
  std::vector<Shape> shapes;
  std::vector<int> ranks;
  std::vector<int64_t*> pointers;
};

int Infer(char** arguments, const char* caller) {
  std::vector<Shape> inputs;
  for (int i = 0; i < 5; ++i) {
    const bool absent = std::strcmp(arguments[i], "-") == 0;
    inputs.push_back(absent ? Shape{1} : ParseShape(arguments[i]));
  }
  Extra extra;
  extra.use_mask = std::strcmp(arguments[2], "-") != 0;
  extra.use_bias = std::strcmp(arguments[4], "-") != 0;
  extra.stride = ParseShape(arguments[5]);
  extra.padding = ParseShape(arguments[6]);
  extra.dilation = ParseShape(arguments[7]);
  extra.caller = caller;
  ShapeArguments shapes(inputs);
  try {
    const Shape output =
        MsDeformForwardInferShape(shapes.ranks.data(), shapes.pointers.data(), &extra);
    for (size_t i = 0; i < output.size(); ++i) {
      std::cout << (i == 0 ? "" : ",") << output[i];
    }
    std::cout << std::endl;
  } catch (const std::exception& error) {
    std::cout << error.what() << std::endl;
  }
  return 0;
}

int64_t Count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t dimension : shape) {
    count *= dimension;
  }
  return count;
}

DType DTypeNamed(const std::string& name) {
  for (const ms_deform::NamedDType& known : ms_deform::kDTypes) {
    if (name == known.name) {
      return known.dtype;
    }
  }
  throw std::runtime_error("no such dtype: " + name);
}

class Tensor {
 public:
  Tensor(const Shape& shape, const std::string& dtype)
      : shape_(shape),
        dtype_(DTypeNamed(dtype)),
        bytes_(static_cast<size_t>(Count(shape) * ms_deform::ElementBytes(dtype_))),
        // malloc and not a vector: the sanitizer then knows the exact end.
        data_(std::malloc(bytes_ > 0 ? bytes_ : 1), &std::free) {}

  const Shape& shape() const { return shape_; }
  void* data() const { return data_.get(); }

  void Read(std::istream& from) {
    if (!from.read(static_cast<char*>(data()), static_cast<std::streamsize>(bytes_))) {
      throw std::runtime_error("the problems end within a tensor");
    }
  }

  void Write(std::ostream& to) const {
    to.write(static_cast<const char*>(data()), static_cast<std::streamsize>(bytes_));
  }

  void Set(int64_t index, double value) {
    ms_deform::VisitType(dtype_, [&](auto example) {
      using Storage = decltype(example);
      ms_deform::Store(static_cast<ms_deform::Compute<Storage>>(value),
                       static_cast<Storage*>(data()) + index);
    });
  }

  double Get(int64_t index) const {
    double value = 0;
    ms_deform::VisitType(dtype_, [&](auto example) {
      value = ms_deform::Load(static_cast<const decltype(example)*>(data())[index]);
    });
    return value;
  }

  void Fill(double value) {
    for (int64_t i = 0; i < Count(shape_); ++i) {
      Set(i, value);
    }
  }

  bool HasNaN() const {
    for (int64_t i = 0; i < Count(shape_); ++i) {
      if (std::isnan(Get(i))) {
        return true;
      }
    }
    return false;
  }

 private:
  Shape shape_;
  DType dtype_;
  size_t bytes_;
  std::unique_ptr<void, decltype(&std::free)> data_;
};

using AotFunction = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);

void Call(AotFunction function, const std::vector<const Tensor*>& tensors, const std::string& dtype,
          Extra* extra) {
  std::vector<Shape> shapes;
  std::vector<void*> data;
  for (const Tensor* tensor : tensors) {
    shapes.push_back(tensor->shape());
    data.push_back(tensor->data());
  }
  ShapeArguments arguments(shapes);
  std::vector<const char*> dtypes(tensors.size(), dtype.c_str());
  const int status = function(static_cast<int>(tensors.size()), data.data(), arguments.ranks.data(),
                              arguments.pointers.data(), dtypes.data(), nullptr, extra);
  if (status != 0) {
    throw std::runtime_error("an entry point returned " + std::to_string(status));
  }
}

struct Problem {
  std::string dtype;
  Extra extra;
  Tensor input, offset, mask, weight, bias;  // mask and bias of one element if there is none
  Tensor grad_output;
};

struct Answer {
  Tensor output, grad_input, grad_offset, grad_mask, grad_weight, grad_bias;
};

Answer Solve(Problem* problem) {
  Problem& p = *problem;
  // A kernel that leaves an element out leaves a NaN.
  const auto unwritten = [&p](const Shape& shape) {
    Tensor tensor(shape, p.dtype);
    tensor.Fill(std::nan(""));
    return tensor;
  };
  ShapeArguments shapes(
      {p.input.shape(), p.offset.shape(), p.mask.shape(), p.weight.shape(), p.bias.shape()});
  int* ranks = shapes.ranks.data();
  int64_t** pointers = shapes.pointers.data();
  const Shape output = MsDeformForwardInferShape(ranks, pointers, &p.extra);
  if (output != p.grad_output.shape()) {
    throw std::runtime_error("the output shape is inferred wrongly");
  }
  // The gradients' entry points take grad_output in the place of bias.
  ShapeArguments gradient_shapes(
      {p.input.shape(), p.offset.shape(), p.mask.shape(), p.weight.shape(), output});
  ranks = gradient_shapes.ranks.data();
  pointers = gradient_shapes.pointers.data();
  const std::vector<Shape> inputs = MsDeformGradInputInferShape(ranks, pointers, &p.extra);
  Answer answer = {unwritten(output),
                   unwritten(inputs[0]),
                   unwritten(inputs[1]),
                   unwritten(inputs[2]),
                   unwritten(MsDeformGradWeightInferShape(ranks, pointers, &p.extra)),
                   unwritten(MsDeformGradBiasInferShape(ranks, pointers, &p.extra))};

  const auto call = [&p](AotFunction function, const Tensor& last,
                         const std::vector<const Tensor*>& results) {
    std::vector<const Tensor*> tensors = {&p.input, &p.offset, &p.mask, &p.weight, &last};
    tensors.insert(tensors.end(), results.begin(), results.end());
    Call(function, tensors, p.dtype, &p.extra);
  };
  call(MsDeformForward, p.bias, {&answer.output});
  call(MsDeformGradInput, p.grad_output,
       {&answer.grad_input, &answer.grad_offset, &answer.grad_mask});
  call(MsDeformGradWeight, p.grad_output, {&answer.grad_weight});
  call(MsDeformGradBias, p.grad_output, {&answer.grad_bias});
  return answer;
}

// False at the end of the file.
bool SolveNext(std::istream& problems, bool deterministic, std::ostream& answers) {
  std::string line;
  if (!std::getline(problems, line)) {
    return false;
  }
  std::istringstream stream(line);
  const std::vector<std::string> words{std::istream_iterator<std::string>(stream), {}};
  if (words.size() != 10) {
    throw std::runtime_error("not the description of a call: " + line);
  }
  const std::string& dtype = words[0];
  Extra extra;
  extra.stride = ParseShape(words[1].c_str());
  extra.padding = ParseShape(words[2].c_str());
  extra.dilation = ParseShape(words[3].c_str());
  extra.use_mask = words[6] != "-";
  extra.use_bias = words[8] != "-";
  extra.deterministic = deterministic;
  const auto read = [&](const std::string& shape) {
    if (shape == "-") {
      Tensor none({1}, dtype);
      none.Fill(0);
      return none;
    }
    Tensor tensor(ParseShape(shape.c_str()), dtype);
    tensor.Read(problems);
    return tensor;
  };
  // A list in braces is worked out in its order.
  Problem problem = {dtype,          extra,          read(words[4]), read(words[5]),
                     read(words[6]), read(words[7]), read(words[8]), read(words[9])};
  const Answer a = Solve(&problem);
  for (const Tensor* tensor :
       {&a.output, &a.grad_input, &a.grad_offset, &a.grad_mask, &a.grad_weight, &a.grad_bias}) {
    tensor->Write(answers);
  }
  return true;
}

int SolveFile(const char* problems_path, const char* answers_path, bool deterministic) {
  std::ifstream problems(problems_path, std::ios::binary);
  std::ofstream answers(answers_path, std::ios::binary);
  while (SolveNext(problems, deterministic, answers)) {
  }
  answers.close();
  if (!problems.eof() || !answers) {
    throw std::runtime_error("cannot read the problems or cannot write the answers");
  }
  return 0;
}

class Sweep {
 public:
  explicit Sweep(unsigned seed) : random_(seed) {}

  void RunOne() {
    const char* dtype = ms_deform::kDTypes[Between(0, std::size(ms_deform::kDTypes) - 1)].name;
    const int64_t groups = Between(1, 3), offset_groups = Between(1, 3);
    // Now and then more channels than a block or a slab of the kernels holds.
    const int64_t channels = groups * offset_groups * Between(1, Between(0, 7) == 0 ? 50 : 4);
    const int64_t out_channels = groups * Between(0, Between(0, 7) == 0 ? 40 : 5);
    const int64_t kernel_height = Between(1, 5), kernel_width = Between(1, 5);
    Extra extra;
    extra.stride = {Between(1, 3), Between(1, 3)};
    extra.padding = {Between(0, 4), Between(0, 4), Between(0, 4), Between(0, 4)};
    extra.dilation = {Between(1, 2), Between(1, 2)};
    extra.use_mask = Between(0, 1) == 1;
    extra.use_bias = Between(0, 1) == 1;
    const int64_t height = extra.dilation[0] * (kernel_height - 1) + Between(1, 12);
    const int64_t width = extra.dilation[1] * (kernel_width - 1) + Between(1, 12);
    const int64_t batch = Between(0, 3), taps = kernel_height * kernel_width;
    const int64_t out_height = (height + extra.padding[0] + extra.padding[1] -
                                extra.dilation[0] * (kernel_height - 1) - 1) /
                                   extra.stride[0] +
                               1;
    const int64_t out_width =
        (width + extra.padding[2] + extra.padding[3] - extra.dilation[1] * (kernel_width - 1) - 1) /
            extra.stride[1] +
        1;

    Tensor input({batch, channels, height, width}, dtype);
    Tensor offset({batch, 2 * offset_groups * taps, out_height, out_width}, dtype);
    Tensor mask(
        extra.use_mask ? Shape{batch, offset_groups * taps, out_height, out_width} : Shape{1},
        dtype);
    Tensor weight({out_channels, channels / groups, kernel_height, kernel_width}, dtype);
    Tensor bias(extra.use_bias ? Shape{out_channels} : Shape{1}, dtype);
    Tensor grad_output({batch, out_channels, out_height, out_width}, dtype);
    for (Tensor* tensor : {&input, &mask, &weight, &bias, &grad_output}) {
      FillRandom(tensor, 1.0);
    }
    FillRandom(&offset, Between(0, 1) == 0 ? 2.0 : 20.0);
    const bool has_nan_offset = MakeHostile(&offset);
    Problem problem = {dtype,
                       extra,
                       std::move(input),
                       std::move(offset),
                       std::move(mask),
                       std::move(weight),
                       std::move(bias),
                       std::move(grad_output)};
    Check(Solve(&problem), has_nan_offset);
  }

 private:
  int64_t Between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  void FillRandom(Tensor* tensor, double scale) {
    std::normal_distribution<double> normal(0.0, scale);
    for (int64_t i = 0; i < Count(tensor->shape()); ++i) {
      tensor->Set(i, normal(random_));
    }
  }

  bool MakeHostile(Tensor* offset) {
    const double infinity = std::numeric_limits<double>::infinity();
    const double values[] = {infinity, -infinity, 1e30, -1e30, -1.0, 0.0, std::nan("")};
    const bool with_nan = Between(0, 3) == 0;
    bool has_nan = false;
    for (int64_t i = 0; i < Count(offset->shape()); ++i) {
      if (Between(0, 9) == 0) {
        const double value = values[Between(0, with_nan ? 6 : 5)];
        has_nan = has_nan || std::isnan(value);
        offset->Set(i, value);
      }
    }
    return has_nan;
  }

  static void Check(const Answer& answer, bool has_nan_offset) {
    if (answer.grad_input.HasNaN() || answer.grad_bias.HasNaN()) {
      throw std::runtime_error("grad_input or grad_bias holds a NaN");
    }
    if (!has_nan_offset && (answer.output.HasNaN() || answer.grad_offset.HasNaN() ||
                            answer.grad_mask.HasNaN() || answer.grad_weight.HasNaN())) {
      throw std::runtime_error("a result holds a NaN without a NaN offset");
    }
  }

  std::mt19937 random_;
};

}  // namespace

int main(int count, char** arguments) {
  try {
    if ((count == 10 || count == 11) && std::strcmp(arguments[1], "infer") == 0) {
      return Infer(arguments + 2, count == 11 ? arguments[10] : "deform_conv2d");
    }
    if (count == 4 && std::strcmp(arguments[1], "sweep") == 0) {
      Sweep sweep(static_cast<unsigned>(std::atoi(arguments[2])));
      for (int i = 0; i < std::atoi(arguments[3]); ++i) {
        sweep.RunOne();
      }
      return 0;
    }
    const bool deterministic = count == 5 && std::strcmp(arguments[4], "deterministic") == 0;
    if ((count == 4 || deterministic) && std::strcmp(arguments[1], "solve") == 0) {
      return SolveFile(arguments[2], arguments[3], deterministic);
    }
    if (count == 2 && ms_deform_cpu_isa != nullptr && std::strcmp(arguments[1], "isa") == 0) {
      std::cout << ms_deform_cpu_isa() << std::endl;
      return 0;
    }
    std::cerr << "usage: see the head of kernel_driver.cc" << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
  }
  return 1;
}
