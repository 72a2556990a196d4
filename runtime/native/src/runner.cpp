#include "runner.h"

#include "backends.h"
#include "manifest.h"
#include "process.h"
#include "refusal.h"

namespace lite {
namespace {

/// Runs a task, whichever it is.
class Runner {
public:
    Runner(const Manifest& manifest, const FormatEntry& entry, int threads)
        : manifest_(manifest), entry_(entry), threads_(threads) {}

    std::variant<Decoded, Replayed, Measured> operator()(const Decode& task) {
        for (const Sentence& sentence : task.sentences) check(sentence.source, sentence.max_length + 1);
        const auto session = load();
        Decoded decoded;
        for (const Sentence& sentence : task.sentences) {
            SearchOptions options;
            options.beam = static_cast<size_t>(task.beam);
            options.length_penalty = task.length_penalty;
            options.max_length = static_cast<size_t>(sentence.max_length);
            options.no_repeat_ngram = static_cast<size_t>(task.no_repeat_ngram);
            decoded.hypotheses.push_back(translate(*session, manifest_.tokens, options, sentence.source));
        }
        return decoded;
    }

    std::variant<Decoded, Replayed, Measured> operator()(const Replay&) {
        check_files(manifest_, manifest_.files);
        const auto session = load();
        return Replayed{replay(*session, manifest_, entry_.state)};
    }

    std::variant<Decoded, Replayed, Measured> operator()(const Measure& task) {
        for (const auto& source : task.sources) check(source, task.tokens);
        const auto session = load();
        return Measured{load_, measure(*session, manifest_.tokens, task)};
    }

private:
    std::unique_ptr<Session> load() {
        check_files(manifest_, entry_.files);
        const Stopwatch stopwatch;
        auto session = open_session(manifest_.folder, entry_, threads_);
        load_ = stopwatch.milliseconds();
        return session;
    }

    /// Beyond its limits a graph may read memory that is not its own.
    void check(const std::vector<int64_t>& source, int64_t target) const {
        if (static_cast<int64_t>(source.size()) > manifest_.max_source) {
            throw Refusal("a source has " + std::to_string(source.size()) + " tokens, the bundle takes " +
                          std::to_string(manifest_.max_source) + ": use shorter sentences");
        }
        if (target > manifest_.max_target) {
            throw Refusal(std::to_string(target) + " target tokens are asked for, eos included, the bundle takes " +
                          std::to_string(manifest_.max_target) + ": ask for fewer");
        }
    }

    const Manifest& manifest_;
    const FormatEntry& entry_;
    int threads_;
    double load_ = 0;
};

}  // namespace

Answer answer(const Request& request) {
    const Manifest manifest = read_manifest(request.bundle);
    const FormatEntry& entry = manifest.format(request);
    auto result = std::visit(Runner(manifest, entry, request.threads), request.task);
    return {runtime_of(entry), abi(), peak_rss(), std::move(result)};
}

}  // namespace lite
