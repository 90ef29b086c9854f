"""What all activations have in common: two lines that hold them between."""

import tensorflow as tf

from keras_qsn.certification.rules.affine import total


class Activation:
    """A function of each number by itself.

    A kind has `function`, the activation for tensors of any float dtype, and
    says where it is bent:

    - `bounds(x)`: `Bounds` of what float32 computes of numbers in `x`.
    - `undecided(x)`: where the activation is no straight line on `x`.
    - `lines(x)`: slope and value at zero of a line below, and of one above.
    - `band(x)`: one slope, and the values at zero of such lines with it.
    - `error(x)`: what float32 may be off in the output, and float64 in the
      lines.
    """

    def at(self, entries, shape):
        """The activation of some entries of a flattened node of this shape."""
        return self

    def backward(self, rows, shapes, x):
        """As `Affine.backward`."""
        upward, downward = tf.nn.relu(rows), -tf.nn.relu(-rows)
        (below, base), (above, roof) = (
            [part[:, None] for part in line] for line in self.lines(x)
        )
        constant = total(upward * base + downward * roof)
        constant -= total(tf.abs(rows) * self.error(x)[:, None])
        return [upward * below + downward * above], constant
