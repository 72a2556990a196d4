#include "manifest.h"

#include <filesystem>
#include <system_error>

#include "fields.h"
#include "refusal.h"
#include "sha256.h"

namespace lite {
namespace {

constexpr int64_t kSchemaVersion = 2;

std::string inside(Fields& fields, const std::string& key) {
    const std::filesystem::path path = fields.text(key);
    bool leaves = path.empty() || path.is_absolute();
    for (const auto& part : path) leaves = leaves || part == "..";
    if (leaves) fields.refuse(key, "is " + path.string() + ", which is outside the bundle: do not use this bundle");
    return path.string();
}

std::vector<FileEntry> read_files(Fields& fields) {
    std::vector<FileEntry> files;
    for (Fields& file : fields.objects("files")) {
        files.push_back({inside(file, "path"), file.text("sha256"), file.integer("bytes")});
    }
    return files;
}

StateTensor read_state(Fields fields) {
    if (const std::string dtype = fields.text("dtype"); dtype != "float32") {
        fields.refuse("dtype", "is " + dtype + "; this runner carries float32 only");
    }
    StateTensor spec{fields.text("name"),
                     fields.maybe("layer", &Fields::integer),
                     fields.sizes("shape"),
                     fields.maybe("output", &Fields::text),
                     fields.maybe("initial", &Fields::number),
                     fields.maybe("batch_axis", &Fields::integer),
                     fields.maybe("slots", &Fields::integer),
                     fields.truth("held")};
    const auto rank = static_cast<int64_t>(spec.shape.size());
    if (spec.batch_axis && (*spec.batch_axis < 0 || *spec.batch_axis >= rank)) {
        fields.refuse("batch_axis", "is no axis of its shape");
    }
    if (spec.slots && (rank < 2 || spec.shape[rank - 2] != *spec.slots)) {
        fields.refuse("slots", "is not the last axis but one of its shape");
    }
    return spec;
}

FormatEntry read_format(Fields fields) {
    FormatEntry entry;
    entry.format = fields.text("format");
    entry.precision = fields.text("precision");
    entry.cache = fields.text("cache");
    entry.files = read_files(fields);
    Fields encode = fields.object("encode"), step = fields.object("step");
    entry.encode_file = inside(encode, "file");
    entry.step_file = inside(step, "file");
    for (Fields& spec : fields.objects("state")) entry.state.push_back(read_state(spec));
    return entry;
}

Decoding read_decoding(Fields fields) {
    const auto at_least = [&fields](int64_t least, const std::string& key) {
        const int64_t value = fields.integer(key);
        if (value < least || value > INT32_MAX) fields.refuse(key, "is out of range: " + std::to_string(value));
        return value;
    };
    return {at_least(1, "beam"), fields.number("length_penalty"), fields.number("max_length_ratio"),
            fields.integer("max_length_extra"), at_least(0, "no_repeat_ngram")};
}

TextRules read_text(Fields fields) {
    TextRules rules{inside(fields, "tokenizer"), {}};
    Fields replacements = fields.object("replacements");
    for (const std::string& old : replacements.keys()) {
        if (old.empty()) fields.refuse("replacements", "replace nothing by something: export the bundle again");
        rules.replacements.emplace_back(old, replacements.text(old));
    }
    return rules;
}

std::string name(const FormatEntry& entry) { return entry.format + " " + entry.precision + " " + entry.cache; }

}  // namespace

const FormatEntry& Manifest::format(const Request& request) const {
    std::string there;
    for (const FormatEntry& entry : formats) {
        if (entry.format == request.format && entry.precision == request.precision && entry.cache == request.cache) {
            return entry;
        }
        there += (there.empty() ? "" : ", ") + name(entry);
    }
    throw Refusal(folder + " has no " + request.format + " " + request.precision + " " + request.cache +
                  "; it has: " + (there.empty() ? "nothing" : there));
}

const FileEntry& Manifest::listed(const std::string& path) const {
    for (const FileEntry& file : files) {
        if (file.path == path) return file;
    }
    throw Refusal("the manifest uses " + path + " but does not list it among its files: export the bundle again");
}

void Manifest::check_limits(const std::vector<int64_t>& source, int64_t target) const {
    if (static_cast<int64_t>(source.size()) > max_source) {
        throw Refusal("a source has " + std::to_string(source.size()) + " tokens, the bundle takes " +
                      std::to_string(max_source) + ": use shorter sentences");
    }
    if (target > max_target) {
        throw Refusal(std::to_string(target) + " target tokens are asked for, eos included, the bundle takes " +
                      std::to_string(max_target) + ": ask for fewer");
    }
}

Manifest read_manifest(const std::string& folder) {
    if (!std::filesystem::is_directory(folder)) throw Refusal("no bundle at " + folder + ": no such folder");
    const std::string path = folder + "/manifest.json";
    const Document document = Document::read(path);
    Fields fields = document.fields();
    if (const int64_t schema = fields.integer("schema_version"); schema != kSchemaVersion) {
        fields.refuse("schema_version", "is " + std::to_string(schema) + ", this runner reads " +
                                            std::to_string(kSchemaVersion) + ": build it or export the bundle again");
    }
    Fields tokens = fields.object("tokens"), limits = fields.object("limits"), golden = fields.object("golden");
    Manifest manifest{folder,
                      fields.integer("vocabulary"),
                      {tokens.integer("pad"), tokens.integer("eos"), tokens.integer("unk"), tokens.integer("start")},
                      limits.integer("max_source"),
                      limits.integer("max_target"),
                      read_decoding(fields.object("decoding")),
                      read_text(fields.object("text")),
                      read_files(fields),
                      inside(golden, "steps"),
                      {}};
    for (Fields& entry : fields.objects("formats")) {
        // Core ML has sizes and types of its own, and is not for here.
        if (entry.text("format") != "coreml") manifest.formats.push_back(read_format(entry));
    }
    return manifest;
}

void check_files(const Manifest& manifest, const std::vector<FileEntry>& files) {
    for (const FileEntry& file : files) {
        const std::string path = manifest.folder + "/" + file.path;
        std::error_code error;
        const auto bytes = std::filesystem::file_size(path, error);
        if (error) throw Refusal("the bundle's " + file.path + " is missing: copy it again");
        if (bytes != static_cast<uintmax_t>(file.bytes)) {
            throw Refusal("the bundle's " + file.path + " has " + std::to_string(bytes) + " bytes instead of " +
                          std::to_string(file.bytes) + ": copy it again");
        }
        if (sha256_of(path) != file.sha256) {
            throw Refusal("the bundle's " + file.path + " is damaged (its sha256 differs): copy it again");
        }
    }
}

}  // namespace lite
