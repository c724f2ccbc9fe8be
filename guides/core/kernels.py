"""Triton kernels of a chain's loop (`guides.core.chain`): a program takes some sequences through all frames.

A frame then costs its arithmetic instead of a launch for each of its operations. The outputs of a layer are written to
memory, where the next layer of the same program reads them, `CHUNK` at a time; like the weights, they are still in a
cache. Products are in full single precision.

Sizes are padded to powers of two of at least 16, as products of blocks need; padded entries are zero.
They need the package triton.
"""

# The kernels have no annotations but those that Triton reads: names of its types are not types of Python.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl

    jit: Any = triton.jit
except ImportError:  # they are then defined, but not called
    tl = None

    def jit(kernel: Any) -> Any:
        return kernel


__all__ = ["adjoint", "forward", "jit", "put", "take", "tanh", "times", "tl"]


@jit
def tanh(v):
    return 1.0 - 2.0 / (tl.exp(2.0 * v) + 1.0)


@jit
def take(base, rows, live, stride, n: tl.constexpr, padded: tl.constexpr):
    """Rows of n values, (rows, padded)."""
    column = tl.arange(0, padded)
    return tl.load(
        base + rows[:, None] * stride + column[None, :], mask=live[:, None] & (column < n)[None, :], other=0.0
    )


@jit
def put(base, rows, live, stride, v, n: tl.constexpr, padded: tl.constexpr):
    column = tl.arange(0, padded)
    tl.store(base + rows[:, None] * stride + column[None, :], v, mask=live[:, None] & (column < n)[None, :])


@jit
def times(
    base,
    rows,
    live,
    stride,
    weight,
    row,
    column,
    m: tl.constexpr,
    n: tl.constexpr,
    of_m: tl.constexpr,
    of_n: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Rows of m values, times the matrix (m, n) at `weight` whose entry (i, j) is `row` i + `column` j numbers on."""
    j = tl.arange(0, of_n)
    total = tl.full((BLOCK, of_n), 0.0, tl.float32)
    for start in range(0, of_m, CHUNK):
        i = start + tl.arange(0, CHUNK)
        v = tl.load(base + rows[:, None] * stride + i[None, :], mask=live[:, None] & (i < m)[None, :], other=0.0)
        inside = (i < m)[:, None] & (j < n)[None, :]
        w = tl.load(weight + i[:, None] * row + j[None, :] * column, mask=inside, other=0.0)
        total = tl.dot(v, w, total, input_precision="ieee")
    return total


@jit
def forward(
    noise,
    injected,
    weights,
    biases,
    outs,
    z_of,
    sigma_of,
    frames,
    batch,
    N: tl.constexpr,
    P: tl.constexpr,
    W: tl.constexpr,
    B: tl.constexpr,
    O: tl.constexpr,  # noqa: E741  # a size by its letter
    AT: tl.constexpr,
    DEPTH: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Layers and draws of all frames; the last layer gives mean and half the log-variance.

    N are the sizes from z (L) to the last layer (2L), P the padded ones; W, B and O say where the weights, biases and
    outputs of each layer begin, O also how many outputs a frame has; AT is the layer whose bias varies over frames.
    """
    sequence = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = sequence < batch
    nothing = sequence * 0
    latent: tl.constexpr = N[0]
    last: tl.constexpr = DEPTH - 1
    for t in range(frames):
        here = t * batch + sequence
        known = live & (t > 0)
        source, rows, stride = z_of, here - batch, latent
        for i in tl.static_range(DEPTH - 1):
            h = times(
                source, rows, known, stride, weights + W[i], 1, N[i], N[i], N[i + 1], P[i], P[i + 1], BLOCK, CHUNK
            )
            if i == AT:
                h += take(injected, here, live, N[i + 1], N[i + 1], P[i + 1])
            else:
                h += take(biases + B[i], nothing, live, 0, N[i + 1], P[i + 1])
            put(outs + O[i], here, live, O[DEPTH], tanh(h), N[i + 1], P[i + 1])
            tl.debug_barrier()  # other threads of the program read it
            source, rows, stride, known = outs + O[i], here, O[DEPTH], live
        if last == AT:
            mean = take(injected, here, live, 2 * latent, latent, P[0])
            half = take(injected + latent, here, live, 2 * latent, latent, P[0])
        else:
            mean = take(biases + B[last], nothing, live, 0, latent, P[0])
            half = take(biases + B[last] + latent, nothing, live, 0, latent, P[0])
        w = weights + W[last]
        mean += times(source, rows, known, stride, w, 1, N[last], N[last], latent, P[last], P[0], BLOCK, CHUNK)
        w += latent * N[last]
        half += times(source, rows, known, stride, w, 1, N[last], N[last], latent, P[last], P[0], BLOCK, CHUNK)
        put(outs + O[last], here, live, O[DEPTH], mean, latent, P[0])
        put(outs + O[last] + latent, here, live, O[DEPTH], half, latent, P[0])
        sigma = tl.exp(half)
        put(sigma_of, here, live, latent, sigma, latent, P[0])
        z = mean + sigma * take(noise, here, live, latent, latent, P[0])
        put(z_of, here, live, latent, z, latent, P[0])
        tl.debug_barrier()


@jit
def adjoint(
    direct,
    factors,
    weights,
    outs,
    deltas,
    frames,
    batch,
    N: tl.constexpr,
    P: tl.constexpr,
    W: tl.constexpr,
    O: tl.constexpr,  # noqa: E741  # a size by its letter
    DEPTH: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The gradient with respect to each layer's output before its tanh, for all frames, the last one first.

    Arguments as of `forward`; `direct` and `factors` as in `guides.core.loop_layers.Layers.reach`.
    """
    sequence = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = sequence < batch
    latent: tl.constexpr = N[0]
    last: tl.constexpr = DEPTH - 1
    padded: tl.constexpr = P[0]
    carried = tl.full((BLOCK, padded), 0.0, tl.float32)
    for step in range(frames):
        here = (frames - 1 - step) * batch + sequence
        of_mean = carried + take(direct, here, live, 2 * latent, latent, P[0])
        of_variance = carried * take(factors + latent, here, live, 2 * latent, latent, P[0])
        of_variance += take(direct + latent, here, live, 2 * latent, latent, P[0])
        into = deltas + O[last]
        put(into, here, live, O[DEPTH], of_mean, latent, P[0])
        put(into + latent, here, live, O[DEPTH], of_variance, latent, P[0])
        tl.debug_barrier()
        w = weights + W[last]
        g = times(into, here, live, O[DEPTH], w, N[last], 1, 2 * latent, N[last], P[DEPTH], P[last], BLOCK, CHUNK)
        for i in tl.static_range(DEPTH - 2, -1, -1):
            h = take(outs + O[i], here, live, O[DEPTH], N[i + 1], P[i + 1])
            into = deltas + O[i]
            put(into, here, live, O[DEPTH], g * (1.0 - h * h), N[i + 1], P[i + 1])
            tl.debug_barrier()
            w = weights + W[i]
            g = times(into, here, live, O[DEPTH], w, N[i], 1, N[i + 1], N[i], P[i + 1], P[i], BLOCK, CHUNK)
        carried = g
