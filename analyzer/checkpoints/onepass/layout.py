"""Sizes that the numpy and the compiled pass share."""

BLOCK = 1 << 20  # bytes read at a time: they are still in a cache when summed
STRETCH = 1 << 12  # elements that the compiled pass works on at a time, in the first-level cache
SINGLE_BINS = 1 << 16  # sign, exponent and seven bits of mantissa of a float32
ROW = 9  # sums of one block of float32: powers 1 to 4, absolute values, bounds, finite elements, pivot
LANE_SUMS, BOUNDS = 40, 12  # float64s in which the inner loop leaves its sums and its bounds
SCRATCH = LANE_SUMS + BOUNDS + STRETCH // 2  # float64s of working memory
