// JSON files read strictly: the types asked for, and errors that name the field.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace lite {

/// One object of a document, which must outlive it; `where` is its place, for messages. Methods throw Refusal.
class Fields {
public:
    Fields(const nlohmann::ordered_json& object, std::string where);

    std::string text(const std::string& key);
    bool truth(const std::string& key);
    int64_t integer(const std::string& key);
    double number(const std::string& key);
    std::vector<int64_t> integers(const std::string& key);
    std::vector<std::vector<int64_t>> integer_lists(const std::string& key);
    std::vector<std::string> texts(const std::string& key);
    Fields object(const std::string& key);
    std::vector<Fields> objects(const std::string& key);

    /// Sizes of axes: whole numbers from 0; -1 for those that have a name instead.
    std::vector<int64_t> sizes(const std::string& key);

    /// Whether it is there and not null.
    bool has(const std::string& key);

    /// All keys there are, in their order.
    std::vector<std::string> keys() const;

    /// Refuse keys that were not asked for.
    void no_others() const;

    /// Refuse the field for a reason.
    [[noreturn]] void refuse(const std::string& key, const std::string& reason) const;

    /// What a method reads, where the field is there and not null.
    template <typename Value>
    std::optional<Value> maybe(const std::string& key, Value (Fields::*read)(const std::string&)) {
        return has(key) ? std::optional<Value>((this->*read)(key)) : std::nullopt;
    }

private:
    const nlohmann::ordered_json& required(const std::string& key);
    const nlohmann::ordered_json& list(const std::string& key);
    std::vector<int64_t> whole_numbers(const nlohmann::ordered_json& list, const std::string& key) const;

    const nlohmann::ordered_json* object_;
    std::string where_;
    std::set<std::string> known_;
};

/// A parsed JSON text.
class Document {
public:
    /// Read a file. Throws Refusal where it cannot be read or is no JSON.
    static Document read(const std::string& path);

    /// Parse a text; `where` is its place, for messages. Throws Refusal where it is no JSON.
    Document(const std::string& text, const std::string& where);
    ~Document();
    Document(Document&&) noexcept;

    /// The object it is. Throws Refusal where it is something else.
    Fields fields() const;

private:
    std::string where_;
    std::unique_ptr<nlohmann::ordered_json> content_;
};

}  // namespace lite
