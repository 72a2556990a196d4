// Files read whole, and written whole or not at all.
#pragma once

#include <fstream>
#include <string>

namespace lite {

/// A file's bytes. Throws Refusal where it cannot be read.
std::string read_file(const std::string& path);

/// A file written beside its name and renamed when it is whole. Without `commit` nothing is left of it.
class StagedFile {
public:
    /// Throws Refusal where there is no writing to it.
    explicit StagedFile(const std::string& path);
    ~StagedFile();
    StagedFile(const StagedFile&) = delete;
    StagedFile& operator=(const StagedFile&) = delete;

    /// Write and rename. Throws Refusal where the disk is full.
    void commit(const std::string& content);

private:
    std::string path_;
    std::string partial_;
    std::ofstream file_;
};

}  // namespace lite
