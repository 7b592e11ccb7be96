"""Box–Muller in numba, from 32-bit words, without branches and without calls, so that LLVM vectorizes it.

log u and cos, sin of 2πu are minimax polynomials after an exact reduction of the word itself: the word is its own
fixed-point number, so the octant of 2πu and 1 − u near u = 1 are known without rounding. Import only where called.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from optimizers.kernels.compiled import inlined

INLINED = {"error_model": "numpy", "forceinline": True}

# log(1 + f) = f − (f²/2 − s(f²/2 + R)) with s = f/(2 + f) and R = 2(atanh(s) − s)/s, a polynomial in s².
LOG64 = (0.666666666666669879, 0.399999999996136654, 0.285714287033262818, 0.222222022073805438, 0.181833900670488632,
         0.153182147415069685, 0.147566777925127696)  # fmt: skip
SIN64 = (-0.166666666666666392, 0.00833333333332377926, -0.000198412698307089673, 2.75573139608382476e-6,
         -2.50507953485111382e-8, 1.58987413896211184e-10)  # fmt: skip
COS64 = (0.0416666666666666597, -0.00138888888888850348, 0.0000248015872964624867, -2.75573163928857626e-7,
         2.08760018076888398e-9, -1.13740579403422742e-11)  # fmt: skip
LOG32 = tuple(np.float32(c) for c in (0.666667651484996188, 0.399786433803095827, 0.298466213063717013))
SIN32 = tuple(np.float32(c) for c in (-0.166666555193692729, 0.00833220496561094342, -0.000195202055021534826))
COS32 = tuple(np.float32(c) for c in (0.0416666523207563127, -0.00138875931029983904, 0.0000244609907672212874))

ROOT_HALF64, ROOT_HALF32 = np.uint64(0x3FE6A09E667F3BCD), np.uint32(0x3F3504F3)
"""Bits of √½: mantissas are taken in [√½, √2)."""
EXPONENT64, EXPONENT32 = np.uint64(52), np.uint32(23)
EIGHTH, QUARTERS, ONE, TWO = np.uint32(1 << 29), np.uint32(30), np.uint32(1), np.uint32(2)
UNIT64, UNIT32 = 2.0**-32, np.float32(2.0**-32)
ANGLE64, ANGLE32 = 2 * math.pi * 2.0**-32, np.float32(2 * math.pi * 2.0**-32)
LN2_64, LN2_32 = math.log(2), np.float32(math.log(2))
HALF, F1, F2 = np.float32(0.5), np.float32(1), np.float32(2)


def _bitcast(source: Any, target: Any) -> Any:
    @intrinsic
    def cast(context: Any, value: Any) -> Any:
        def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), build

    return cast


bits32, float32 = _bitcast(types.float32, types.uint32), _bitcast(types.uint32, types.float32)
bits64, float64 = _bitcast(types.float64, types.uint64), _bitcast(types.uint64, types.float64)


@inlined
def log64(word):
    """log((word + ½)/2³²), float64."""
    bits = bits64(np.float64(word) + 0.5)
    exponent = np.int32(np.int64(bits - ROOT_HALF64) >> np.int64(52))
    f = float64(bits - (np.uint64(exponent) << EXPONENT64)) - 1.0
    s = f / (2.0 + f)
    z, half = s * s, 0.5 * f * f
    c0, c1, c2, c3, c4, c5, c6 = LOG64
    r = z * (c0 + z * (c1 + z * (c2 + z * (c3 + z * (c4 + z * (c5 + z * c6))))))
    return np.float64(exponent - np.int32(32)) * LN2_64 + (f - (half - s * (half + r)))


@inlined
def log32(word):
    """log((word + ½)/2³²), float32, as accurate near 0 as elsewhere."""
    bits = bits32(np.float32(word) + HALF)
    exponent = np.int32(np.int32(bits - ROOT_HALF32) >> np.int32(23))
    mantissa = float32(np.uint32(bits - np.uint32(np.uint32(exponent) << EXPONENT32)))
    complement = np.float32(np.uint32(~word)) + HALF
    f = -complement * UNIT32 if exponent == 32 else mantissa - F1
    s = f / (F2 + f)
    z, half = s * s, HALF * f * f
    c0, c1, c2 = LOG32
    r = z * (c0 + z * (c1 + z * c2))
    return np.float32(exponent - np.int32(32)) * LN2_32 + (f - (half - s * (half + r)))


@inlined
def turned(quadrant, cosine, sine):
    """cos and sin of x + quadrant·π/2 from those of x."""
    odd = (quadrant & ONE) != 0
    first, second = (sine if odd else cosine), (cosine if odd else sine)
    first = -first if (np.uint32(quadrant + ONE) & TWO) != 0 else first
    second = -second if (quadrant & TWO) != 0 else second
    return first, second


@inlined
def nearest_quadrant(word):
    """2π(word + ½)/2³² as quadrant·π/2 + 2π(rest + ½)/2³², |rest| ≤ 2²⁹."""
    quadrant = np.uint32(np.uint32(word + EIGHTH) >> QUARTERS)
    return quadrant, np.int32(np.uint32(word - np.uint32(quadrant << QUARTERS)))


def box_muller(first: Any, second: Any, like: Any) -> Any:
    """Two independent standard normals from two words.

    Args:
        first, second: uint32.
        like: a number of the wanted dtype, float32 or float64.

    Returns:
        The normals, each within a relative error of 5e-16 in float64 and of 3e-7 in float32.
    """
    raise NotImplementedError("to be called from a kernel")


@overload(box_muller, jit_options=INLINED)
def _box_muller(first, second, like):
    def single(first, second, like):
        radius = np.sqrt(-F2 * log32(first))
        quadrant, rest = nearest_quadrant(second)
        x = (np.float32(rest) + HALF) * ANGLE32
        y = x * x
        s0, s1, s2 = SIN32
        c0, c1, c2 = COS32
        sine = x + x * y * (s0 + y * (s1 + y * s2))
        cosine = F1 - (HALF * y - y * y * (c0 + y * (c1 + y * c2)))
        a, b = turned(quadrant, cosine, sine)
        return radius * a, radius * b

    def double(first, second, like):
        radius = np.sqrt(-2.0 * log64(first))
        quadrant, rest = nearest_quadrant(second)
        x = (np.float64(rest) + 0.5) * ANGLE64
        y = x * x
        s0, s1, s2, s3, s4, s5 = SIN64
        c0, c1, c2, c3, c4, c5 = COS64
        sine = x + x * y * (s0 + y * (s1 + y * (s2 + y * (s3 + y * (s4 + y * s5)))))
        cosine = 1.0 - (0.5 * y - y * y * (c0 + y * (c1 + y * (c2 + y * (c3 + y * (c4 + y * c5))))))
        a, b = turned(quadrant, cosine, sine)
        return radius * a, radius * b

    return single if like == types.float32 else double
