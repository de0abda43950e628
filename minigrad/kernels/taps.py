"""Where the inputs of a convolution lie: the rows under each kernel tap, instead of im2col's copies of them.

`row(t, p)` is where the values under tap t of output pixel p begin in the flat array x; outside the image it is -1,
and zeros are read there.
"""
from typing import NamedTuple

from numba import njit

FAR = 2**40  # a row so far above the image that no tap reaches it


class Taps(NamedTuple):
    """Where taps find their inputs: C values at each tap, `step` values from pixel to pixel of the input.

    Tap (kh, kw) of output pixel (oh, ow) lies over (oh * SH + kh - top, ow * SW + kw - left) of the input spread out by
    (spread_h, spread_w): between its pixels lie spread - 1 rows or columns of zeros, as the data gradient of a strided
    convolution needs it.
    """

    H: int
    W: int
    OH: int
    OW: int
    KH: int
    KW: int
    SH: int
    SW: int
    top: int
    left: int
    spread_h: int
    spread_w: int
    C: int
    step: int


@njit(nogil=True)
def find_rows(g, pixel, n, pixels, rows, at, corners):
    """rows[at + t * n + i] = row(t, pixel + i), or -1 outside the image or past the last pixel; for i < n."""
    oh, ow = pixel // g.OW % g.OH, pixel % g.OW
    image = pixel // (g.OH * g.OW) * g.H * g.W
    for i in range(n):  # counting on from pixel to pixel is cheaper than three divisions each
        corners[0, i] = oh * g.SH - g.top if pixel + i < pixels else -FAR
        corners[1, i] = ow * g.SW - g.left
        corners[2, i] = image
        ow += 1
        if ow == g.OW:
            ow, oh = 0, oh + 1
            if oh == g.OH:
                oh, image = 0, image + g.H * g.W
    dense = g.spread_h == 1 and g.spread_w == 1
    for kh in range(g.KH):
        for kw in range(g.KW):
            begin = at + (kh * g.KW + kw) * n
            if dense:
                for i in range(n):
                    h, w = corners[0, i] + kh, corners[1, i] + kw
                    inside = (h >= 0) & (h < g.H) & (w >= 0) & (w < g.W)
                    rows[begin + i] = (corners[2, i] + h * g.W + w) * g.step if inside else -1
            else:
                for i in range(n):
                    h, w = corners[0, i] + kh, corners[1, i] + kw
                    met = h >= 0 and w >= 0 and h % g.spread_h == 0 and w % g.spread_w == 0
                    h, w = h // g.spread_h, w // g.spread_w
                    rows[begin + i] = (corners[2, i] + h * g.W + w) * g.step if met and h < g.H and w < g.W else -1
