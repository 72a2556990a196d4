// The size of ExecuTorch's thread pool, whose header is in no release.
#pragma once

#include <cstdint>

namespace executorch::extension::threadpool {

// As in extension/threadpool/threadpool.h; only ever used through the pointer the library gives.
class ThreadPool {
public:
    bool _unsafe_reset_threadpool(uint32_t num_threads);
};

ThreadPool* get_threadpool();

}  // namespace executorch::extension::threadpool

namespace lite {

/// Give the pool that many threads; true where it has them now.
inline bool set_executorch_threads(int threads) {
    auto* pool = executorch::extension::threadpool::get_threadpool();
    return pool != nullptr && pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
}

}  // namespace lite
