// What ends the program with exit code 2.
#pragma once

#include <stdexcept>
#include <string>

namespace lite {

/// A request, bundle or model that cannot be used; the message names what is wrong and the way out.
class Refusal : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

}  // namespace lite
