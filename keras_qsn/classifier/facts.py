"""What a traced classifier computes: its fingerprint, chance, gradient."""

import dataclasses
import hashlib

import tensorflow as tf

from keras_qsn._core.files import fingerprint

# Attributes of operations that name things, and change nothing computed.
_NAMES = {
    "_class",
    "_gradient_op_type",
    "_output_shapes",
    "_user_specified_name",
    "config",
    "config_proto",
    "container",
    "debug_name",
    "executor_type",
    "shared_name",
    "token",
}
_DRAWS = ("Random", "Rng", "Multinomial", "Stateful")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a look at the graph of a classifier tells.

    Attributes:
        architecture: A short text that differs for another computation, and
            not for other names or weights.
        variables: The variables read, in the order of the graph; not those
            that it writes: where a stream of draws stands is no other model.
        num_classes: Width of the output; `None` if it is no vector.
        random: Whether it draws random numbers.
        gradient_cut: `None`, or the operation at which the gradient of the
            output with respect to the input ends.
    """

    architecture: str
    variables: tuple
    num_classes: int | None
    random: bool
    gradient_cut: str | None


def facts_of(function, shape):
    """The `Facts` of a function from images to a tensor of class scores.

    Args:
        function: Called while it is traced.
        shape: Shape of one image, known or not.
    """
    cuts = []

    def look(x):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            y = function(x)
        cuts.append(_cut(tape, x, y))
        return y

    def run(x):
        return function(x)

    spec = tf.TensorSpec([None, *shape], tf.float32)
    tf.function(look, autograph=False).get_concrete_function(spec)
    traced = tf.function(run, autograph=False).get_concrete_function(spec)
    width = traced.outputs[0].shape
    graph = _Graph(traced.graph.as_graph_def())
    return Facts(
        f"{graph.digest()} {_constants(traced)}",
        _read_by(traced),
        width[-1] if width.rank == 2 else None,
        graph.random,
        cuts[0],
    )


def _read_by(traced):
    """The variables of a traced function, in the order that it meets them,
    but those that it writes."""
    by_handle = {id(v.handle): v for v in traced.variables}
    written = {
        op.inputs[0].name
        for op in traced.graph.get_operations()
        if op.type.startswith("Assign")
    }
    found = (
        by_handle.get(id(given))
        for given, inner in traced.graph.captures
        if inner.name not in written
    )
    return tuple(v for v in found if v is not None)


def _constants(traced):
    """Fingerprint of the tensors, no variables, that a traced function holds.

    Large ones are no part of its graph: those a `Normalization` has adapted.
    """
    given = (tensor for tensor, _ in traced.graph.captures)
    kinds = (tf.resource, tf.variant)
    return fingerprint(*(t.numpy() for t in given if t.dtype not in kinds))


def producer(tensor):
    """The tensor behind identities and casts between floats."""
    while tensor.op.type in ("Identity", "Cast", "EnsureShape") and (
        tensor.op.inputs[0].dtype.is_floating
    ):
        tensor = tensor.op.inputs[0]
    return tensor


def _cut(tape, x, y):
    """The operation nearest to the output that passes no gradient on."""
    try:
        if tape.gradient(y, x) is not None:
            return None
    except (LookupError, TypeError, ValueError):
        # An operation without a gradient, or one that returns none.
        pass
    follows = _following(x)
    seen, waiting = set(), [y.op]
    while waiting:
        op = waiting.pop(0)
        if op.name in seen or op is x.op:
            continue
        seen.add(op.name)
        carried = [
            t for t in op.inputs if t.dtype.is_floating and t.op.name in follows
        ]
        if not carried or not _passes(op, carried):
            scope = op.name.rpartition("/")[0].rpartition("/")[2]
            return f"{op.type} in '{scope}'" if scope else op.type
        waiting += [tensor.op for tensor in carried]
    return "the input"


def _following(x):
    """Names of the operations whose values follow those of a tensor."""
    found = {x.op.name}
    for op in x.graph.get_operations():
        # In the order they were made, inputs first. A shape is no value.
        if op.type not in ("Shape", "ShapeN", "Size", "Rank") and any(
            tensor.op.name in found for tensor in op.inputs
        ):
            found.add(op.name)
    return found


def _passes(op, carried):
    """Whether an operation hands a gradient to any of these inputs."""
    outputs = [t for t in op.outputs if t.dtype.is_floating]
    if op.type in ("PartitionedCall", "StatefulPartitionedCall", "IdentityN"):
        return True
    try:
        gradient = tf.gradients(outputs, carried, unconnected_gradients="none")
    except (LookupError, TypeError, ValueError):
        return False
    return any(part is not None for part in gradient)


class _Graph:
    """A graph without its names, functions that it calls included."""

    def __init__(self, graph_def):
        self._functions = {
            f.signature.name: f for f in graph_def.library.function
        }
        self._digests = {}
        self._nodes = graph_def.node
        types = {
            node.op
            for nodes in (
                graph_def.node,
                *(f.node_def for f in graph_def.library.function),
            )
            for node in nodes
        }
        draws = {t for t in types if any(word in t for word in _DRAWS)}
        draws -= {"StatefulPartitionedCall"}
        stateless = {t for t in draws if t.startswith("Stateless")}
        # A seed that is written moves on from call to call.
        moves = any(t.startswith("Assign") for t in types)
        self.random = bool(draws - stateless) or bool(stateless and moves)

    def digest(self):
        return self._digest(self._nodes, ())

    def _digest(self, nodes, arguments):
        numbers = {name: i for i, name in enumerate(arguments)}
        for node in nodes:
            numbers[node.name] = len(numbers)
        digest = hashlib.sha256()
        for node in nodes:
            digest.update(node.op.encode())
            data, control = [], []
            for name in node.input:
                source, *port = name.lstrip("^").split(":")
                kept = control if name.startswith("^") else data
                kept.append(f"{numbers.get(source, source)}:{port}")
            digest.update(repr((data, sorted(control))).encode())
            for key in sorted(node.attr):
                if key not in _NAMES:
                    digest.update(key.encode())
                    digest.update(self._attribute(node.attr[key]))
        return digest.hexdigest()

    def _attribute(self, value):
        names = [value.func.name] if value.HasField("func") else []
        names += [f.name for f in value.list.func]
        if names:
            return "".join(self._called(name) for name in names).encode()
        return value.SerializeToString(deterministic=True)

    def _called(self, name):
        if name not in self._functions:
            return name
        if name not in self._digests:
            function = self._functions[name]
            inputs = [a.name for a in function.signature.input_arg]
            self._digests[name] = self._digest(function.node_def, inputs)
        return self._digests[name]
