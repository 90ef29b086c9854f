"""The nearest image that a generator makes: descent on its input."""

import dataclasses

import tensorflow as tf

# The learning rate falls to this part of it for the last fifth of the steps.
_DECAY = 0.1


@dataclasses.dataclass(frozen=True)
class Descent:
    """Gradient descent with momentum on how far `generate(z)` is from `x`.

        v <- momentum v - rate d/dz mean (generate(z) - x)^2,  z <- z + v

    from `v = 0`. After 80 % of the steps, rounded up, the rate is a tenth.

    Attributes:
        generate: Function from vectors to images.
        num_steps: How many.
        learning_rate: The rate.
        momentum: From 0 to below 1.
    """

    generate: object
    num_steps: int
    learning_rate: float
    momentum: float

    def errors(self, z, x):
        """Mean squared error of each image."""
        return mean_squares(self.generate(z) - x)

    def slope(self, z, x):
        """The derivative of the errors by `z`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            errors = self.errors(z, x)
        return tape.gradient(errors, z)

    def rate(self, step, dtype):
        """The learning rate of a step, counted from 0."""
        late = step >= -(-self.num_steps * 4 // 5)
        rate = tf.where(late, _DECAY * self.learning_rate, self.learning_rate)
        return tf.cast(rate, dtype)

    def run(self, x, z):
        """Where the descent from `z` ends."""
        return self._descend(x, z, (), lambda kept, *_: kept)[0]

    def path(self, x, z):
        """Where the descent from `z` ends, and each `z` that it comes by."""
        kept = tf.TensorArray(z.dtype, self.num_steps, element_shape=z.shape)
        end, (kept,) = self._descend(
            x, z, (kept,), lambda kept, i, z: (kept[0].write(i, z),)
        )
        return end, kept.stack()

    def back(self, x, path, upstream):
        """The derivative of where it ends by `x`, times `upstream`.

        Steps are taken back one by one: memory holds one of them.
        """

        def step(i, d_z, d_v, d_x):
            i -= 1
            d_v += d_z
            z = path[i]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([z, x])
                slope = self.slope(z, x)
            by_z, by_x = tape.gradient(
                slope, [z, x], -self.rate(i, z.dtype) * d_v
            )
            return i, d_z + by_z, self.momentum * d_v, d_x + by_x

        start = self.num_steps, upstream, tf.zeros_like(upstream)
        return tf.while_loop(
            lambda i, *_: i > 0,
            step,
            (*start, tf.zeros_like(x)),
            maximum_iterations=self.num_steps,
            parallel_iterations=1,
        )[3]

    def _descend(self, x, z, kept, keep):
        """The end, and what `keep(kept, step, z)` makes of it on the way."""

        def step(i, z, v, kept):
            kept = keep(kept, i, z)
            v = self.momentum * v - self.rate(i, z.dtype) * self.slope(z, x)
            return i + 1, z + v, v, kept

        _, end, _, kept = tf.while_loop(
            lambda i, *_: i < self.num_steps,
            step,
            (0, z, tf.zeros_like(z), kept),
            maximum_iterations=self.num_steps,
            parallel_iterations=1,
        )
        return end, kept


def mean_squares(difference):
    """Mean square of each image."""
    axes = tf.range(1, tf.rank(difference))
    return tf.reduce_mean(tf.square(difference), axes)


def best_of_restarts(descent, x, starts, at_once):
    """Where the best descent of each image starts and where it ends.

    Args:
        descent: The `Descent`.
        x: Images.
        starts: Vectors of shape `(images, restarts, latent)`.
        at_once: How many descents are in memory at most, of all images.

    Returns:
        Two tensors of shape `(images, latent)`.
    """
    restarts, latent = starts.shape[1:]
    count = tf.shape(x)[0] * restarts
    flat = tf.reshape(starts, [-1, latent])
    # Parts of one length, the last one filled up with the last descent.
    parts = tf.maximum(-(-count // at_once), 1)
    length = -(-count // parts)
    places = tf.minimum(tf.range(parts * length), tf.maximum(count - 1, 0))

    def run(places):
        seen = tf.gather(x, places // restarts)
        end = descent.run(seen, tf.gather(flat, places))
        return end, descent.errors(end, seen)

    ends, errors = tf.map_fn(
        run,
        tf.reshape(places, [parts, length]),
        parallel_iterations=1,
        fn_output_signature=(x.dtype, x.dtype),
    )
    ends = tf.reshape(tf.reshape(ends, [-1, latent])[:count], tf.shape(starts))
    errors = tf.reshape(tf.reshape(errors, [-1])[:count], [-1, restarts])
    # Of a descent that diverged, the error is no number.
    errors = tf.where(tf.math.is_finite(errors), errors, errors.dtype.max)
    best = tf.argmin(errors, 1)
    return tuple(tf.gather(kept, best, batch_dims=1) for kept in (starts, ends))


def unrolled(descent):
    """A function `(x, start) -> end` of a descent, with its exact gradient.

    That of the end by the images; the start is given.
    """
    forward = tf.function(descent.path, autograph=False)
    backward = tf.function(descent.back, autograph=False)

    @tf.custom_gradient
    def run(x, start):
        # Eager tapes would record every step: they are told not to.
        images = tf.stop_gradient(x)
        end, path = forward(images, tf.stop_gradient(start))

        def gradient(upstream, variables=None):
            d_x = backward(images, path, upstream)
            return (d_x, None), [None] * len(variables or ())

        return end, gradient

    return run


def make_projection(layer):
    """Build `(x, starts) -> G(z)` of the best descent, by a projection."""

    def generate(z):
        return tf.cast(layer.generator(z, training=False), z.dtype)

    descent = Descent(
        generate, layer.num_steps, layer.learning_rate, layer.momentum
    )
    follow = unrolled(descent)

    # Compiled, for eager tapes would record every step.
    @tf.function(autograph=False, reduce_retracing=True)
    def nearest(x, starts):
        start, end = best_of_restarts(
            descent, x, starts, layer.descents_at_once
        )
        return start, generate(end)

    def project(x, starts):
        start, made = nearest(tf.stop_gradient(x), starts)
        if layer.gradient == "unrolled":
            return generate(follow(x, start))
        made = tf.stop_gradient(made)
        if layer.gradient == "none":
            return made
        # A zero that carries the gradient: the forward value is exact.
        return made + (x - tf.stop_gradient(x))

    return project
