#include "runner.h"

#include "backends.h"
#include "manifest.h"
#include "process.h"
#include "refusal.h"
#ifdef LITE_SENTENCEPIECE
#include "translator.h"
#endif

namespace lite {
namespace {

/// Runs a task, whichever it is.
class Runner {
public:
    Runner(const Manifest& manifest, const FormatEntry& entry, int threads)
        : manifest_(manifest), entry_(entry), threads_(threads) {}

    Result operator()(const Decode& task) {
        for (const Sentence& sentence : task.sentences) manifest_.check_limits(sentence.source, sentence.max_length + 1);
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

    Result operator()([[maybe_unused]] const Translate& task) {
#ifdef LITE_SENTENCEPIECE
        const Translator translator(manifest_, task);
        const auto session = load();
        Translated translated;
        for (const std::string& text : task.texts) translated.texts.push_back(translator.translate(*session, text));
        return translated;
#else
        throw Refusal("this runner was built without SentencePiece and knows token ids only: lite-export build-runner "
                      "where libsentencepiece-dev is installed, or with --sentencepiece FOLDER");
#endif
    }

    Result operator()(const Replay&) {
        check_files(manifest_, manifest_.files);
        const auto session = load();
        return Replayed{replay(*session, manifest_, entry_.state)};
    }

    Result operator()(const Measure& task) {
        for (const auto& source : task.sources) manifest_.check_limits(source, task.tokens);
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
