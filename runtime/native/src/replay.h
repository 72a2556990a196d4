// Golden steps replayed: what PyTorch recorded at export (lite_runtime/recording.py) against what this runtime gives.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"
#include "session.h"

namespace lite {

/// Of one tensor after one step (-1: the encoder): the largest absolute difference; infinite for NaN or another shape.
struct Difference {
    int64_t step;
    std::string tensor;
    double largest;
};

/// Every logit and state tensor of every golden step, in the order a step computes them: layer by layer, logits last.
std::vector<Difference> replay(Session& session, const Manifest& manifest, const std::vector<StateTensor>& specs);

}  // namespace lite
