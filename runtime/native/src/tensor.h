// Float tensors as search and replay see them, whatever the runtime holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lite {

using Shape = std::vector<int64_t>;

/// Number of elements: the product of the sizes, 1 without any.
inline size_t elements(const Shape& shape) {
    size_t product = 1;
    for (const int64_t size : shape) product *= static_cast<size_t>(size);
    return product;
}

/// A named tensor that owns its values, row-major.
struct Tensor {
    std::string name;
    Shape shape;
    std::vector<float> values;
};

/// Somebody else's rows x columns floats, row-major.
struct Matrix {
    const float* data;
    size_t rows;
    size_t columns;
};

}  // namespace lite
