// What the runner needs of a bundle's manifest.json; lite_runtime/manifest.py says what each field means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "request.h"
#include "tensor.h"

namespace lite {

struct FileEntry {
    std::string path;
    std::string sha256;
    int64_t bytes;
};

struct StateTensor {
    std::string name;
    std::optional<int64_t> layer;
    /// The batch and the source's length, which are named in the manifest, are -1.
    Shape shape;
    std::optional<std::string> output;
    std::optional<double> initial;
    std::optional<int64_t> batch_axis;
    std::optional<int64_t> slots;
    bool held;
};

struct FormatEntry {
    std::string format;
    std::string precision;
    std::string cache;
    std::vector<FileEntry> files;
    std::string encode_file;
    std::string step_file;
    std::vector<StateTensor> state;
};

struct TokenIds {
    int64_t pad;
    int64_t eos;
    int64_t unk;
    int64_t start;
};

/// Defaults of a search over text.
struct Decoding {
    int64_t beam;
    double length_penalty;
    double max_length_ratio;
    int64_t max_length_extra;
    int64_t no_repeat_ngram;
};

struct TextRules {
    std::string tokenizer;
    /// Old and new, applied in order before the tokenizer sees a sentence.
    std::vector<std::pair<std::string, std::string>> replacements;
};

struct Manifest {
    std::string folder;
    int64_t vocabulary;
    TokenIds tokens;
    int64_t max_source;
    int64_t max_target;
    Decoding decoding;
    TextRules text;
    std::vector<FileEntry> files;
    std::string golden_steps;
    std::vector<FormatEntry> formats;

    /// The form a request names. Throws Refusal, with what there is, where there is none such.
    const FormatEntry& format(const Request& request) const;

    /// What is listed of one of the bundle's own files. Throws Refusal where it is not listed.
    const FileEntry& listed(const std::string& path) const;

    /// Refuse more tokens, eos included, than the bundle takes: beyond, a graph may read memory that is not its own.
    void check_limits(const std::vector<int64_t>& source, int64_t target) const;
};

/// Read a bundle's manifest. Throws Refusal: none there, damaged, another schema, or a path that leaves the bundle.
Manifest read_manifest(const std::string& folder);

/// Refuse files that are missing or differ from their size or sha256: runtimes may crash on them.
void check_files(const Manifest& manifest, const std::vector<FileEntry>& files);

}  // namespace lite
