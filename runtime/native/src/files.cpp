#include "files.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "refusal.h"

namespace lite {

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Refusal("cannot read " + path + ": " + std::strerror(errno));
    std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (file.bad()) throw Refusal("cannot read " + path + ": " + std::strerror(errno));
    return content;
}

StagedFile::StagedFile(const std::string& path)
    : path_(path), partial_(path + ".partial"), file_(partial_, std::ios::binary | std::ios::trunc) {
    if (!file_) throw Refusal("cannot write " + path + ": " + std::strerror(errno));
}

StagedFile::~StagedFile() {
    if (!partial_.empty()) std::remove(partial_.c_str());
}

void StagedFile::commit(const std::string& content) {
    file_ << content;
    file_.close();
    if (!file_ || std::rename(partial_.c_str(), path_.c_str()) != 0) {
        throw Refusal("cannot write " + path_ + ": " + std::strerror(errno));
    }
    partial_.clear();
}

}  // namespace lite
