"""L-infinity, L2, L1 and L0: balls, projections, steepest steps, sampling.

L0 counts the pixels that change; one of each channel counts for itself.
Tensors are batches; everything is done per image.
"""

import numpy as np
import tensorflow as tf

# Where the norm is that an attack has not got.
_INSTEAD = {
    1: "AutoProjectedGradientDescent, FastAdaptiveBoundary or FastMinimumNorm",
    0: "SigmaZero, FastMinimumNorm or SparseRandomSearch",
}
# Cleverhans' guard against dividing by zero.
_TINY = 1e-12
# Of a distance: what adding up pixels in float32 may be off.
_SUMS = 2.0**-20
# Of a pixel: half a float32 step.
_STORED = 2.0**-24


def check_norm(norm, allowed):
    """Return `norm` as a number, or say which ones are allowed."""
    number = float(norm) if norm in ("inf", "0", "1", "2") else norm
    if number not in allowed:
        names = ", ".join("np.inf" if n == np.inf else str(n) for n in allowed)
        others = "".join(
            f". For norm={n} there is {instead}."
            for n, instead in _INSTEAD.items()
            if number == n
        )
        raise ValueError(
            f"`norm` must be one of {names}. Received: norm={norm!r}{others}"
        )
    return number


def check_radius(eps, norm):
    """Refuse a part of a pixel where pixels are counted."""
    if norm == 0 and eps is not None and eps != int(eps):
        raise ValueError(
            "`eps` must be a whole number for `norm=0`: how many pixels may "
            f"change. Received: eps={eps}"
        )


def size(delta, norm):
    """Norm of each perturbation, shape `(batch,)`."""
    flat = tf.reshape(delta, [tf.shape(delta)[0], -1])
    if norm == np.inf:
        return tf.reduce_max(tf.abs(flat), 1)
    if norm == 2:
        return tf.norm(flat, axis=1)
    if norm == 0:
        return tf.cast(tf.math.count_nonzero(flat, 1), flat.dtype)
    return tf.reduce_sum(tf.abs(flat), 1)


def ball(x, eps, low=0.0, high=1.0):
    """The L-infinity ball in float32: smallest and largest of each pixel.

    The ball of attacks, checks and proofs. Its ends are `x - eps` and
    `x + eps`, rounded outward to the next float32, so that every float32
    image whose pixels differ from `x` by at most `eps`, rounding included,
    lies between; then clipped to the range of pixels.

    Args:
        x: Float32 images.
        eps: Float >= 0, or a float32 tensor: the radius. At 0 nothing is
            rounded.
        low: Smallest pixel value, or an array of them.
        high: Largest pixel value, likewise.

    Returns:
        Two float32 tensors like `x`, in `[low, high]`.
    """
    radius = eps if tf.is_tensor(eps) else _rounded_up(eps)
    moved = tf.greater(radius, 0)

    def end(value, limit):
        value = tf.where(moved, tf.math.nextafter(value, limit), value)
        return tf.clip_by_value(value, low, high)

    return (
        end(x - radius, tf.constant(-np.inf, tf.float32)),
        end(x + radius, tf.constant(np.inf, tf.float32)),
    )


def inside(x, x_adv, eps, norm, low=-np.inf, high=np.inf):
    """Which images lie in the ball around `x`, its ends included.

    For L-infinity, those between the ends of `ball`, to the last bit. For L2
    and L1 those whose distance in float64 is at most

        eps * (1 + 2^-20) + 2^-24 * size of (|x| + |x_adv|) in the norm

    The first part is what float32 may be off when a projection adds up the
    pixels, the second half a float32 step for each pixel that it stores. For
    L0 those of which at most `eps` pixels differ.

    Args:
        x: Float32 images.
        x_adv: Float32 images, one for each.
        eps: Float >= 0, the radius.
        norm: `np.inf`, `2`, `1` or `0`.
        low: Smallest pixel value, or an array of them. Defaults to no limit.
        high: Largest pixel value, likewise.

    Returns:
        Booleans, a NumPy array of shape `(batch,)`.
    """
    x, x_adv = (np.asarray(t, "float32").astype("float64") for t in (x, x_adv))
    # A number, not -1, which fits nothing where there are no images.
    flat = len(x), int(np.prod(x.shape[1:]))
    fits = (x_adv >= np.float32(low)) & (x_adv <= np.float32(high))
    fits = fits.reshape(flat)
    if norm == np.inf:
        bottom, top = (
            np.asarray(end) for end in ball(x.astype("float32"), eps, low, high)
        )
        fits &= ((x_adv >= bottom) & (x_adv <= top)).reshape(flat)
        return fits.all(1)
    if norm == 0:
        return fits.all(1) & ((x_adv != x).reshape(flat).sum(1) <= eps)
    distance, stored = (
        np.linalg.norm(t.reshape(flat), norm, axis=1)
        for t in (x_adv - x, np.abs(x) + np.abs(x_adv))
    )
    slack = eps * _SUMS + _STORED * stored
    return fits.all(1) & (distance <= eps + slack * (eps > 0))


def _rounded_up(number):
    """The smallest float32 that is not below."""
    nearest = np.float32(number)
    if nearest < number:
        nearest = np.nextafter(nearest, np.float32(np.inf))
    return nearest


def project(delta, eps, norm):
    """The nearest perturbation inside the ball of radius `eps`.

    The radius is one number, or a tensor that broadcasts to `delta`, one for
    each image.
    """
    if norm == np.inf:
        return tf.clip_by_value(delta, -eps, eps)
    if norm == 2:
        length = tf.sqrt(tf.maximum(_TINY, _sum(tf.square(delta))))
        return delta * tf.minimum(1.0, eps / length)
    flat = tf.reshape(delta, [tf.shape(delta)[0], -1])
    inside = _project_l1 if norm == 1 else _keep_largest
    return tf.reshape(inside(flat, tf.reshape(eps, [-1, 1])), tf.shape(delta))


def steepest(gradient, norm):
    """The unit step that raises a linear function most."""
    if norm == np.inf:
        return tf.sign(gradient)
    if norm == 2:
        # Scaled first: the squares of a small gradient, which a quantizer
        # leaves, would vanish and shorten the step.
        largest = tf.reduce_max(
            tf.abs(gradient), _pixel_axes(gradient), keepdims=True
        )
        gradient = tf.math.divide_no_nan(gradient, largest)
        return gradient / tf.sqrt(tf.maximum(_TINY, _sum(tf.square(gradient))))
    # All of the step on the pixels with the largest slope, in equal parts.
    magnitude = tf.abs(gradient)
    largest = tf.reduce_max(magnitude, _pixel_axes(gradient), keepdims=True)
    tied = tf.cast(tf.equal(magnitude, largest), gradient.dtype)
    return tf.sign(gradient) * tied / _sum(tied)


def unit_mean(gradient):
    """The gradient over its mean magnitude."""
    mean = tf.reduce_mean(
        tf.abs(gradient), _pixel_axes(gradient), keepdims=True
    )
    return gradient / tf.maximum(_TINY, mean)


def sample(shape, seeds, norm):
    """One point for each image, uniform in the unit ball.

    Args:
        shape: Static shape of one image.
        seeds: Integers of shape `(batch, 2)`; a row decides an image's point,
            whatever batch it is in.
        norm: `np.inf` or `2`.

    Returns:
        A float32 tensor of shape `(batch, *shape)`.
    """

    def one(seed):
        if norm == np.inf:
            return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
        direction = tf.random.stateless_normal(shape, seed)
        radius = tf.random.stateless_uniform([], seed + 1)
        radius = radius ** (1.0 / float(np.prod(shape)))
        return radius * direction / tf.norm(direction)

    return tf.map_fn(one, seeds, fn_output_signature=tf.float32)


def _pixel_axes(x):
    return list(range(1, len(x.shape)))


def _sum(x):
    return tf.reduce_sum(x, _pixel_axes(x), keepdims=True)


def _project_l1(flat, eps):
    """Duchi et al., 2008: soft-threshold by the level that meets `eps`."""
    magnitude = tf.sort(tf.abs(flat), axis=1, direction="DESCENDING")
    count = tf.range(1, tf.shape(flat)[1] + 1, dtype=flat.dtype)
    level = (tf.cumsum(magnitude, axis=1) - eps) / count
    # The last index at which the level is still below the magnitude.
    kept = tf.reduce_sum(tf.cast(magnitude > level, tf.int32), 1)
    level = tf.gather(level, tf.maximum(kept - 1, 0), batch_dims=1)
    level = tf.maximum(level, 0.0)[:, None]
    flat = tf.sign(flat) * tf.maximum(tf.abs(flat) - level, 0.0)
    # The running sum rounds: what it leaves outside is scaled back.
    total = tf.reduce_sum(tf.abs(flat), 1, keepdims=True)
    return flat * tf.minimum(1.0, eps / tf.maximum(total, _TINY))


def _keep_largest(flat, eps):
    """The `eps` largest; of equal ones the first."""
    order = tf.argsort(tf.abs(flat), 1, "DESCENDING", stable=True)
    rank = tf.cast(tf.argsort(order, 1), flat.dtype)
    return tf.where(rank < tf.floor(eps), flat, 0.0)
