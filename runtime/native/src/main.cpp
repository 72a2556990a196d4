// lite_runner REQUEST RESULT: one run over one exported form of a bundle; see lite_runtime/runner_protocol.py.
#include <exception>
#include <iostream>

#include "files.h"
#include "runner.h"

namespace {

constexpr int kRefused = 2;

void run(const std::string& request_path, const std::string& result_path) {
    const lite::Request request = lite::read_request(request_path);
    // Opened first: what cannot be written is not worth the work.
    lite::StagedFile file(result_path);
    file.commit(lite::json_of(lite::answer(request)));
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: lite_runner REQUEST.json RESULT.json\n";
        return kRefused;
    }
    try {
        run(arguments[1], arguments[2]);
    } catch (const std::exception& error) {
        std::cerr << "lite_runner: " << error.what() << "\n";
        return kRefused;
    }
    return 0;
}
