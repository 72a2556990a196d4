"""Rewritings of ExecuTorch's edge graphs before and while they are lowered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack._passes import (
    ChannelsLastTaggedReshapePass,
    ConvertToLinearPass,
    DecomposeConcatenate,
    DimOrderOpsRevertPass,
    FuseActivationPass,
    XNNPACKPassManager,
    XNNPACKRemoveCloneOpsTransform,
)
from executorch.exir.dialects._ops import ops
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

_ATEN = ops.edge.aten
_RESHAPING = {
    _ATEN.view_copy.default,
    _ATEN.unsqueeze_copy.default,
    _ATEN.squeeze_copy.dim,
    _ATEN.squeeze_copy.dims,
    _ATEN.select_copy.int,
}
# What XNNPACK's preparation has for these graphs; the rest of its passes look for images and batch norms.
_PREPARATION = [
    XNNPACKRemoveCloneOpsTransform,
    DimOrderOpsRevertPass,
    ConvertToLinearPass,
    FuseActivationPass,
    DecomposeConcatenate,
    ChannelsLastTaggedReshapePass,
]


@contextmanager
def short_preparation() -> Iterator[None]:
    """Run only the passes these graphs need: each costs seconds, whether it finds anything or not."""
    whole = xnnpack_preprocess.XNNPACKPassManager
    try:
        xnnpack_preprocess.XNNPACKPassManager = lambda program, passes: XNNPACKPassManager(program, _PREPARATION)
        yield
    finally:
        xnnpack_preprocess.XNNPACKPassManager = whole


class Views(PassBase):
    """Every operation that only changes a shape becomes a view, its dynamic size written as -1.

    XNNPACK takes over those, not symbolic sizes, nor axes put in or taken out anywhere but at the end.
    """

    def call(self, graph_module: GraphModule) -> PassResult:
        """Rewrite in place."""
        changed = False
        for node in list(graph_module.graph.nodes):
            shape = _new_shape(node)
            if shape is not None and shape.count(-1) <= 1:
                node.target, node.args, node.kwargs = _ATEN.view_copy.default, (node.args[0], shape), {}
                changed = True
        graph_module.graph.eliminate_dead_code()
        graph_module.recompile()
        return PassResult(graph_module, changed)


def _new_shape(node: Node) -> list[int] | None:
    """The shape a node gives its unchanged elements; None where it does more."""
    if node.target not in _RESHAPING:
        return None
    if node.target == _ATEN.select_copy.int:
        source, axis = node.args[:2]
        assert isinstance(source, Node) and isinstance(axis, int)
        if source.meta["val"].shape[axis] != 1:
            return None
    return [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
