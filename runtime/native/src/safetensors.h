// Reading a safetensors file: an 8-byte length, a JSON header of that length, then the tensors' bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tensor.h"

namespace lite {

/// All tensors of a file, by name. Numbers are converted to the type asked for.
class Safetensors {
public:
    /// Throws Refusal for a file that is missing, cut short, or inconsistent.
    explicit Safetensors(const std::string& path);

    /// Whether there is a tensor of that name.
    bool has(const std::string& name) const { return entries_.count(name) > 0; }

    /// Throw Refusal where there is none, or it is of another type.
    Tensor floats(const std::string& name) const;
    std::vector<int64_t> integers(const std::string& name) const;
    std::vector<uint8_t> truths(const std::string& name) const;
    Shape shape(const std::string& name) const;

private:
    struct Entry {
        std::string dtype;
        Shape shape;
        size_t start;
    };

    const Entry& entry(const std::string& name, const std::string& dtype) const;
    template <typename Value>
    std::vector<Value> values(const Entry& entry) const;

    std::string path_;
    std::string bytes_;
    std::map<std::string, Entry> entries_;
};

}  // namespace lite
