#include "safetensors.h"

#include <cstring>

#include "fields.h"
#include "files.h"
#include "refusal.h"

namespace lite {
namespace {

constexpr size_t kLength = 8;
const std::map<std::string, size_t> kSizes = {{"F32", 4}, {"I64", 8}, {"BOOL", 1}};

/// Bytes of a tensor of that shape, or more than `most` where it has more.
size_t bytes_of(const Shape& shape, size_t width, size_t most) {
    size_t bytes = width;
    for (const int64_t size : shape) {
        // Checked axis by axis, as a product of sizes can wrap around to a small one.
        if (size < 0 || bytes > most) return most + 1;
        bytes *= static_cast<size_t>(size);
    }
    return bytes;
}

}  // namespace

Safetensors::Safetensors(const std::string& path) : path_(path), bytes_(read_file(path)) {
    uint64_t length = 0;
    for (size_t i = kLength; i-- > 0 && bytes_.size() > kLength;) {
        length = length << 8 | static_cast<unsigned char>(bytes_[i]);
    }
    if (length == 0 || length > bytes_.size() - kLength) throw Refusal(path + " is cut short: copy the bundle again");
    const Document header(bytes_.substr(kLength, length), path);
    const size_t data = kLength + length;
    Fields tensors = header.fields();
    for (const std::string& name : tensors.keys()) {
        if (name == "__metadata__") continue;
        Fields fields = tensors.object(name);
        const std::string dtype = fields.text("dtype");
        const std::vector<int64_t> shape = fields.sizes("shape"), offsets = fields.integers("data_offsets");
        // What is of no use here may have any type.
        const auto size = kSizes.find(dtype);
        if (size == kSizes.end()) continue;
        const bool whole = offsets.size() == 2 && offsets[0] >= 0 && offsets[0] <= offsets[1] &&
                           data + static_cast<size_t>(offsets[1]) <= bytes_.size();
        if (!whole || static_cast<size_t>(offsets[1] - offsets[0]) != bytes_of(shape, size->second, bytes_.size())) {
            fields.refuse("data_offsets", "do not fit its shape or the file: copy the bundle again");
        }
        entries_[name] = {dtype, shape, data + static_cast<size_t>(offsets[0])};
    }
}

const Safetensors::Entry& Safetensors::entry(const std::string& name, const std::string& dtype) const {
    const auto found = entries_.find(name);
    if (found == entries_.end() || (!dtype.empty() && found->second.dtype != dtype)) {
        throw Refusal(path_ + " has no " + name + (dtype.empty() ? "" : " of type " + dtype) +
                      ": export the bundle again");
    }
    return found->second;
}

template <typename Value>
std::vector<Value> Safetensors::values(const Entry& entry) const {
    std::vector<Value> result(elements(entry.shape));
    // Copied byte by byte: the file aligns nothing.
    if (!result.empty()) std::memcpy(result.data(), bytes_.data() + entry.start, result.size() * sizeof(Value));
    return result;
}

Tensor Safetensors::floats(const std::string& name) const {
    const Entry& found = entry(name, "F32");
    return {name, found.shape, values<float>(found)};
}

std::vector<int64_t> Safetensors::integers(const std::string& name) const {
    return values<int64_t>(entry(name, "I64"));
}

std::vector<uint8_t> Safetensors::truths(const std::string& name) const {
    return values<uint8_t>(entry(name, "BOOL"));
}

Shape Safetensors::shape(const std::string& name) const { return entry(name, "").shape; }

}  // namespace lite
