// One request answered: a bundle opened and checked, a model loaded, a task run.
#pragma once

#include "answer.h"
#include "request.h"

namespace lite {

/// Throws Refusal for a bundle or model that cannot do what is asked for.
Answer answer(const Request& request);

}  // namespace lite
