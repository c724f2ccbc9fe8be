r"""The deterministic part of a multiscale ladder: bottom-up features of the data, and the top-down path.

With layer 1 next to the data, s_l the stride of layer l (frames of layer l - 1 per frame of layer l), and d_0 the data
(Andersson et al., 2021, equations 8 to 12),

.. math:: d_l &= \mathrm{WaveNet}_{\downarrow s_l}(d_{l-1}), \\
    h_l &= \mathrm{WaveNet}_{1 \times 1}([g_l; \mathrm{delay}(d_l)]), \\
    g_{l-1} &= \mathrm{WaveNet}_{1 \times 1, \uparrow s_l}(h_l \mid z_l).

The delay is one step of layer l, so that h_l at step t depends only on data before that step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul
from typing import cast

from torch import Tensor, nn

from models.core.sites import Sites
from models.core.tensors import concatenate, shift
from models.core.time_axis import TimeAxis
from models.nn.wavenet import OverTime, WaveNet, to_multiple

__all__ = ["Ladder"]


class Ladder(nn.Module):
    """Bottom-up and top-down networks of all layers, shared by model and guide.

    Args:
        in_dim: size D of the networks' input.
        widths: channels of each layer, layer 1 first.
        strides: s_l of each layer.
        z_dims: size of each layer's latent; 0 for a layer without one.
        dilations: dilations of the blocks of the bottom-up networks, except in the last layer.
        top_dilations: dilations in the last layer's bottom-up network.
        down_blocks: blocks of each top-down network.
        every_block: whether every block of g is conditioned on z, or only the first.
        learned: whether changes of rate in the residual path are learned, see `models.nn.wavenet.WaveNetBlock`.
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
        self.over_time = [OverTime(cast(WaveNet, net), stride) for net, stride in zip(self.up, strides, strict=True)]

    def features(self, u: Tensor, sites: Sites) -> list[Tensor]:
        """d_1 to d_L, Eq. 8, of the networks' input u (T, N, D); padded frames are zeroed before each layer."""
        d, scale = [u], 1
        for net, stride, after in zip(self.up, self.strides, self.scales, strict=True):
            below = to_multiple(sites.coarser(scale).zeroed(d[-1]), stride)
            d.append(net(below)[0])
            scale = after
        return d[1:]

    def context(self, i: int, g: Tensor | None, before: Tensor) -> Tensor:
        """h at layer index `i`, Eq. 9, from g (None at the top) and the delayed d (Eq. 10)."""
        h: Tensor = self.h[i](before if g is None else concatenate(g, before))[0]
        return h

    def top_down(self, i: int, h: Tensor, z: Tensor | None) -> Tensor:
        """g of the layer below index `i`, Eq. 12, from h and its latent."""
        joined = h if z is None else concatenate(h, z)
        if z is None or not self.every_block:
            g: Tensor = self.g[i](joined)[0]
        else:
            g = self.g[i](joined[..., : h.shape[-1]], z)[0]  # h of the concatenation: it is expanded to z's particles
        return g

    def sample_top_down(
        self,
        t: TimeAxis,
        draw: Callable[[TimeAxis, int, Tensor], Tensor | None],
        *,
        u: Tensor | None = None,
        d: Sequence[Tensor] = (),
        i: int = 0,
    ) -> Tensor:
        """Draw the latents from layer index `i` upwards, and return g of the layer below in the frames of `t`,
        (..., T, N, C).

        Args:
            t: the time axis of the layer below.
            draw: a function that draws z of a layer from its time axis, its index and h; it returns None for a layer
                without a latent.
            u: the networks' input of the frame before each, (..., T, N, D), from which d is computed.
            d: d_1 to d_L of all steps, if they are known, in place of `u`.
            i: index of the layer.
        """

        def step(tau: TimeAxis, below: Tensor | None) -> Tensor:
            delayed = tau.feature(shift(d[i])) if below is None else tau.recur(self.over_time[i], below, lag=True)
            g = None
            if i + 1 < len(self.up):
                g = self.sample_top_down(tau, draw, u=None if below is None else delayed, d=d, i=i + 1)
            h = self.context(i, g, delayed)
            return self.top_down(i, h, draw(tau, i, h))

        return t.slower(self.strides[i], step, u)
