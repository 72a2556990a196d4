#include "fields.h"

#include <nlohmann/json.hpp>

#include "files.h"
#include "refusal.h"

namespace lite {

// In the order of the file: a text's replacements have one.
using json = nlohmann::ordered_json;

Fields::Fields(const json& object, std::string where) : object_(&object), where_(std::move(where)) {
    if (!object.is_object()) throw Refusal(where_ + " is no JSON object");
}

std::string Fields::text(const std::string& key) {
    const json& value = required(key);
    if (!value.is_string()) refuse(key, "is no string");
    return value.get<std::string>();
}

bool Fields::truth(const std::string& key) {
    const json& value = required(key);
    if (!value.is_boolean()) refuse(key, "is neither true nor false");
    return value.get<bool>();
}

int64_t Fields::integer(const std::string& key) {
    const json& value = required(key);
    if (!value.is_number_integer()) refuse(key, "is no whole number");
    return value.get<int64_t>();
}

double Fields::number(const std::string& key) {
    const json& value = required(key);
    if (!value.is_number()) refuse(key, "is no number");
    return value.get<double>();
}

std::vector<int64_t> Fields::integers(const std::string& key) { return whole_numbers(list(key), key); }

std::vector<std::vector<int64_t>> Fields::integer_lists(const std::string& key) {
    std::vector<std::vector<int64_t>> result;
    for (const json& part : list(key)) result.push_back(whole_numbers(part, key));
    return result;
}

std::vector<std::string> Fields::texts(const std::string& key) {
    std::vector<std::string> result;
    for (const json& value : list(key)) {
        if (!value.is_string()) refuse(key, "holds what is no string");
        result.push_back(value.get<std::string>());
    }
    return result;
}

Fields Fields::object(const std::string& key) { return {required(key), where_ + ": " + key}; }

std::vector<Fields> Fields::objects(const std::string& key) {
    std::vector<Fields> result;
    for (const json& part : list(key)) {
        result.emplace_back(part, where_ + ": " + key + "." + std::to_string(result.size()));
    }
    return result;
}

std::vector<int64_t> Fields::sizes(const std::string& key) {
    std::vector<int64_t> result;
    for (const json& size : list(key)) {
        const bool known = size.is_number_integer() && size >= 0 && size <= INT32_MAX;
        if (!known && !size.is_string()) refuse(key, "holds what is neither a size nor a name");
        result.push_back(known ? size.get<int64_t>() : -1);
    }
    return result;
}

bool Fields::has(const std::string& key) {
    known_.insert(key);
    const auto found = object_->find(key);
    return found != object_->end() && !found->is_null();
}

std::vector<std::string> Fields::keys() const {
    std::vector<std::string> result;
    for (const auto& [key, value] : object_->items()) result.push_back(key);
    return result;
}

void Fields::no_others() const {
    for (const std::string& key : keys()) {
        if (known_.count(key) == 0) refuse(key, "is not known");
    }
}

void Fields::refuse(const std::string& key, const std::string& reason) const {
    throw Refusal(where_ + ": " + key + " " + reason);
}

const json& Fields::required(const std::string& key) {
    known_.insert(key);
    const auto found = object_->find(key);
    if (found == object_->end()) refuse(key, "is missing");
    return *found;
}

const json& Fields::list(const std::string& key) {
    const json& value = required(key);
    if (!value.is_array()) refuse(key, "is no list");
    return value;
}

std::vector<int64_t> Fields::whole_numbers(const json& list, const std::string& key) const {
    std::vector<int64_t> result;
    if (!list.is_array()) refuse(key, "is no list of lists");
    for (const json& value : list) {
        if (!value.is_number_integer()) refuse(key, "holds what is no whole number");
        result.push_back(value.get<int64_t>());
    }
    return result;
}

Document Document::read(const std::string& path) { return {read_file(path), path}; }

Document::Document(const std::string& text, const std::string& where) : where_(where) {
    try {
        content_ = std::make_unique<json>(json::parse(text));
    } catch (const json::exception& error) {
        throw Refusal(where + " is no whole JSON file: " + error.what());
    }
}

Document::~Document() = default;
Document::Document(Document&&) noexcept = default;

Fields Document::fields() const { return {*content_, where_}; }

}  // namespace lite
