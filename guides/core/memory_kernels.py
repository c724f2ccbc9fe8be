"""Triton kernels of the loop of a `guides.core.chain.MemoryChain`, made as those of `guides.core.kernels`.

An LSTM is between z_{t-1} and the layers that take h_t. `inputs` (T + 1, B, E + H) holds the inputs of its gates side
by side, features of z_{t-1} and h_{t-1}; `active` (T, B, 4H) the gates i, f, g, o after sigmoid or tanh.
"""

# Annotations as in `guides.core.kernels`: those that Triton reads, and no others.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from guides.core.kernels import jit, put, take, tanh, times, tl

__all__ = ["adjoint", "forward"]


@jit
def _sigmoid(v):
    return 1.0 / (1.0 + tl.exp(-v))


@jit
def _gate(
    k: tl.constexpr,
    gates,
    inputs,
    joined,
    here,
    live,
    E: tl.constexpr,
    H: tl.constexpr,
    PH: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    given = take(gates + k * H, here, live, 4 * H, H, PH)
    w = joined + k * H * (E + H)
    return given + times(inputs, here, live, E + H, w, 1, E + H, E + H, H, E + H, PH, BLOCK, CHUNK)


@jit
def forward(
    noise,
    gates,
    injected,
    joined,
    weights,
    biases,
    inputs,
    active,
    cells,
    outs,
    z_of,
    sigma_of,
    frames,
    batch,
    L: tl.constexpr,
    PL: tl.constexpr,
    N: tl.constexpr,
    PN: tl.constexpr,
    M: tl.constexpr,
    PM: tl.constexpr,
    W: tl.constexpr,
    B: tl.constexpr,
    O: tl.constexpr,  # noqa: E741  # a size by its letter
    AT: tl.constexpr,
    DEPTH: tl.constexpr,
    E: tl.constexpr,
    H: tl.constexpr,
    PH: tl.constexpr,
    LAG: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """The LSTM, layers and draws of all frames.

    L is the size of z, N and M those of the inputs and outputs of each layer, PL, PN and PM the padded ones. Layer AT
    is the first after the LSTM: its input is h (H), and its bias varies over frames. E is the size of the LSTM's input
    from z_{t-1}: the outputs of layer AT - 1, or z itself. LAG is 1 if the LSTM is not run at the first frame.
    Otherwise arguments are as of `guides.core.kernels.forward`; `inputs`, `active`, `cells` and `outs` are zero at
    first.
    """
    sequence = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = sequence < batch
    nothing = sequence * 0
    last: tl.constexpr = DEPTH - 1
    c = tl.full((BLOCK, PH), 0.0, tl.float32)
    for t in range(frames):
        here = t * batch + sequence
        known = live & (t > 0)
        runs = live & ((t > 0) | (LAG == 0))
        source, rows, stride = z_of, here - batch, L
        for i in tl.static_range(AT):
            w = weights + W[i]
            e = times(source, rows, known, stride, w, 1, N[i], N[i], M[i], PN[i], PM[i], BLOCK, CHUNK)
            e = tanh(e + take(biases + B[i], nothing, live, 0, M[i], PM[i]))
            if i == AT - 1:
                put(inputs, here, runs, E + H, e, E, PM[i])
            put(outs + O[i], here, runs, O[DEPTH], e, M[i], PM[i])
            tl.debug_barrier()
            source, rows, stride, known = outs + O[i], here, O[DEPTH], runs
        i_t = _sigmoid(_gate(0, gates, inputs, joined, here, live, E, H, PH, BLOCK, CHUNK))
        f_t = _sigmoid(_gate(1, gates, inputs, joined, here, live, E, H, PH, BLOCK, CHUNK))
        g_t = tanh(_gate(2, gates, inputs, joined, here, live, E, H, PH, BLOCK, CHUNK))
        o_t = _sigmoid(_gate(3, gates, inputs, joined, here, live, E, H, PH, BLOCK, CHUNK))
        c = tl.where(runs[:, None], f_t * c + i_t * g_t, 0.0)
        put(active, here, runs, 4 * H, i_t, H, PH)
        put(active + H, here, runs, 4 * H, f_t, H, PH)
        put(active + 2 * H, here, runs, 4 * H, g_t, H, PH)
        put(active + 3 * H, here, runs, 4 * H, o_t, H, PH)
        put(cells, here + batch, runs, H, c, H, PH)
        put(inputs + E, here + batch, runs, E + H, o_t * tanh(c), H, PH)
        tl.debug_barrier()
        source, rows, stride = inputs + E, here + batch, E + H
        for i in tl.static_range(AT, last):
            w = weights + W[i]
            h = times(source, rows, live, stride, w, 1, N[i], N[i], M[i], PN[i], PM[i], BLOCK, CHUNK)
            if i == AT:
                h += take(injected, here, live, M[i], M[i], PM[i])
            else:
                h += take(biases + B[i], nothing, live, 0, M[i], PM[i])
            put(outs + O[i], here, live, O[DEPTH], tanh(h), M[i], PM[i])
            tl.debug_barrier()
            source, rows, stride = outs + O[i], here, O[DEPTH]
        if last == AT:
            mean = take(injected, here, live, 2 * L, L, PL)
            half = take(injected + L, here, live, 2 * L, L, PL)
        else:
            mean = take(biases + B[last], nothing, live, 0, L, PL)
            half = take(biases + B[last] + L, nothing, live, 0, L, PL)
        w = weights + W[last]
        mean += times(source, rows, live, stride, w, 1, N[last], N[last], L, PN[last], PL, BLOCK, CHUNK)
        w += L * N[last]
        half += times(source, rows, live, stride, w, 1, N[last], N[last], L, PN[last], PL, BLOCK, CHUNK)
        put(outs + O[last], here, live, O[DEPTH], mean, L, PL)
        put(outs + O[last] + L, here, live, O[DEPTH], half, L, PL)
        sigma = tl.exp(half)
        put(sigma_of, here, live, L, sigma, L, PL)
        z = mean + sigma * take(noise, here, live, L, L, PL)
        put(z_of, here, live, L, z, L, PL)
        if AT == 0:
            put(inputs, here + batch, live, E + H, z, L, PL)
        tl.debug_barrier()


@jit
def adjoint(
    direct,
    factors,
    joined,
    weights,
    inputs,
    active,
    cells,
    outs,
    deltas,
    d_gates,
    frames,
    batch,
    L: tl.constexpr,
    PL: tl.constexpr,
    N: tl.constexpr,
    PN: tl.constexpr,
    M: tl.constexpr,
    PM: tl.constexpr,
    W: tl.constexpr,
    O: tl.constexpr,  # noqa: E741  # a size by its letter
    AT: tl.constexpr,
    DEPTH: tl.constexpr,
    E: tl.constexpr,
    PE: tl.constexpr,
    H: tl.constexpr,
    PH: tl.constexpr,
    LAG: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Gradients of layers and gates before tanh and sigmoid, for all frames, the last one first.

    `deltas` and `d_gates` are initially zero; other arguments are those of `forward` and `guides.core.kernels.adjoint`.
    """
    sequence = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = sequence < batch
    last: tl.constexpr = DEPTH - 1
    carried = tl.full((BLOCK, PL), 0.0, tl.float32)
    d_h = tl.full((BLOCK, PH), 0.0, tl.float32)
    d_c = tl.full((BLOCK, PH), 0.0, tl.float32)
    for step in range(frames):
        t = frames - 1 - step
        here = t * batch + sequence
        runs = live & ((t > 0) | (LAG == 0))
        of_mean = carried + take(direct, here, live, 2 * L, L, PL)
        of_half = carried * take(factors + L, here, live, 2 * L, L, PL)
        of_half += take(direct + L, here, live, 2 * L, L, PL)
        into = deltas + O[last]
        put(into, here, live, O[DEPTH], of_mean, L, PL)
        put(into + L, here, live, O[DEPTH], of_half, L, PL)
        tl.debug_barrier()
        w = weights + W[last]
        d = times(into, here, live, O[DEPTH], w, N[last], 1, M[last], N[last], PM[last], PN[last], BLOCK, CHUNK)
        for i in tl.static_range(DEPTH - 2, AT - 1, -1):
            h = take(outs + O[i], here, live, O[DEPTH], M[i], PM[i])
            into = deltas + O[i]
            put(into, here, live, O[DEPTH], d * (1.0 - h * h), M[i], PM[i])
            tl.debug_barrier()
            w = weights + W[i]
            d = times(into, here, live, O[DEPTH], w, N[i], 1, M[i], N[i], PM[i], PN[i], BLOCK, CHUNK)
        d_h += d
        i_t = take(active, here, live, 4 * H, H, PH)
        f_t = take(active + H, here, live, 4 * H, H, PH)
        g_t = take(active + 2 * H, here, live, 4 * H, H, PH)
        o_t = take(active + 3 * H, here, live, 4 * H, H, PH)
        tanh_c = tanh(take(cells, here + batch, live, H, H, PH))
        d_c += d_h * o_t * (1.0 - tanh_c * tanh_c)
        d_f = d_c * take(cells, here, live, H, H, PH) * f_t * (1.0 - f_t)
        put(d_gates, here, runs, 4 * H, d_c * g_t * i_t * (1.0 - i_t), H, PH)
        put(d_gates + H, here, runs, 4 * H, d_f, H, PH)
        put(d_gates + 2 * H, here, runs, 4 * H, d_c * i_t * (1.0 - g_t * g_t), H, PH)
        put(d_gates + 3 * H, here, runs, 4 * H, d_h * tanh_c * o_t * (1.0 - o_t), H, PH)
        d_c = d_c * f_t
        tl.debug_barrier()
        d_h = times(d_gates, here, live, 4 * H, joined + E, E + H, 1, 4 * H, H, 4 * H, PH, BLOCK, CHUNK)
        d = times(d_gates, here, live, 4 * H, joined, E + H, 1, 4 * H, E, 4 * H, PE, BLOCK, CHUNK)
        for i in tl.static_range(AT - 1, -1, -1):
            h = take(outs + O[i], here, live, O[DEPTH], M[i], PM[i])
            into = deltas + O[i]
            put(into, here, runs, O[DEPTH], d * (1.0 - h * h), M[i], PM[i])
            tl.debug_barrier()
            w = weights + W[i]
            d = times(into, here, live, O[DEPTH], w, N[i], 1, M[i], N[i], PM[i], PN[i], BLOCK, CHUNK)
        carried = d
