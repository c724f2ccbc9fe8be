r"""The deterministic part of a multiscale ladder: features upwards from the data, and downwards through the latents.

With layer 1 next to the data, s_l the frames of layer l - 1 that become one of layer l, and d_0 the data (Andersson
et al., 2021, equations 8 to 12),

.. math:: d_l &= \mathrm{WaveNet}_{\downarrow s_l}(d_{l-1}), \\
    h_l &= \mathrm{WaveNet}_{1 \times 1}([g_l; \mathrm{delay}(d_l)]), \\
    g_{l-1} &= \mathrm{WaveNet}_{1 \times 1, \uparrow s_l}(h_l \mid z_l).

The delay is of one step of layer l, so that h_l at step t has seen the data before that step only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul

from torch import Tensor, nn

from models.core.sites import Sites
from models.core.tensors import concatenate, shift
from models.nn.wavenet import State, WaveNet, to_multiple

__all__ = ["Ladder"]


class Ladder(nn.Module):
    """Bottom-up and top-down networks of all layers, which model and guide share.

    Args:
        in_dim: size D of the networks' input.
        widths: channels of each layer, layer 1 first.
        strides: s_l of each layer.
        z_dims: size of each layer's latent; 0 for a layer without.
        dilations: of the blocks of each bottom-up network but the last layer's.
        top_dilations: of the last layer's.
        down_blocks: blocks of each top-down network.
        every_block: every block of g sees z; else the first alone.
        learned: changes of rate are learned in the residual path, see `models.nn.wavenet.WaveNetBlock`.
    """

    def __init__(
        self,
        in_dim: int,
        widths: Sequence[int],
        strides: Sequence[int],
        z_dims: Sequence[int],
        dilations: Sequence[int],
        top_dilations: Sequence[int],
        *,
        down_blocks: int,
        every_block: bool,
        learned: bool,
    ) -> None:
        super().__init__()
        layers = range(len(widths))
        top = len(widths) - 1
        self.strides = list(strides)
        self.scales = list(accumulate(strides, mul))
        self.every_block = every_block
        self.up = nn.ModuleList(
            WaveNet(
                widths[i - 1] if i else in_dim,
                widths[i],
                top_dilations if i == top else dilations,
                kernel=2,
                down=strides[i],
                learned=learned,
            )
            for i in layers
        )
        pointwise = [1] * down_blocks
        self.h = nn.ModuleList(
            WaveNet(widths[i] if i == top else 2 * widths[i], widths[i], pointwise, learned=learned) for i in layers
        )
        self.g = nn.ModuleList(
            WaveNet(
                widths[i] + (0 if every_block else z_dims[i]),
                widths[max(i - 1, 0)],
                pointwise,
                condition=z_dims[i] if every_block else 0,
                up=strides[i],
                learned=learned,
            )
            for i in layers
        )
        self.widths = list(widths)
        self.out_dim = widths[0]

    def features(self, u: Tensor, sites: Sites) -> list[Tensor]:
        """d_1 to d_L of the networks' input u (T, N, D); what is no frame is zero for the layer above."""
        d, scale = [u], 1
        for net, stride, after in zip(self.up, self.strides, self.scales, strict=True):
            below = to_multiple(sites.coarser(scale).zeroed(d[-1]), stride)
            d.append(net(below)[0])
            scale = after
        return d[1:]

    def bottom_up(self, i: int, below: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Some frames of d at layer index `i`, from those below and the state that earlier ones left."""
        found: tuple[Tensor, State] = self.up[i](below, None, state)
        return found

    def context(self, i: int, g: Tensor | None, before: Tensor) -> Tensor:
        """h at layer index `i`, from g (None at the top) and the delayed d."""
        h: Tensor = self.h[i](before if g is None else concatenate(g, before))[0]
        return h

    def top_down(self, i: int, h: Tensor, z: Tensor | None) -> Tensor:
        """g of the layer below index `i`, from h and its latent."""
        joined = h if z is None else concatenate(h, z)
        if z is None or not self.every_block:
            g: Tensor = self.g[i](joined)[0]
        else:
            g = self.g[i](joined[..., : h.shape[-1]], z)[0]  # of what is joined, so that h has z's particles
        return g

    def sample_top_down(
        self, d: Sequence[Tensor], sites: Sites, draw: Callable[[int, Tensor], Tensor | None]
    ) -> Tensor:
        """g_0 (..., T, N, C), every layer's latent drawn by `draw(i, h)` on the way down."""
        g: Tensor | None = None
        for i in reversed(range(len(d))):
            h = self.context(i, g, shift(d[i]))
            finer = sites.coarser(self.scales[i - 1] if i else 1).frames
            g = self.top_down(i, h, draw(i, h))[..., :finer, :, :]
        assert g is not None
        return g
