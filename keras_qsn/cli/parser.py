"""What the commands take. Nothing here needs TensorFlow: help is quick."""

import os

from keras_qsn.cli.arguments import DATA
from keras_qsn.cli.arguments import Parser
from keras_qsn.cli.arguments import add_at_least
from keras_qsn.cli.arguments import add_batch_size
from keras_qsn.cli.arguments import add_command
from keras_qsn.cli.arguments import add_open
from keras_qsn.cli.arguments import add_seed
from keras_qsn.cli.arguments import add_workers
from keras_qsn.cli.arguments import of_a_model
from keras_qsn.cli.numbers import above_zero
from keras_qsn.cli.numbers import whole
from keras_qsn.version import __version__

# As in `evaluation.plans.NAMES`, `certifying.METHODS`, `cli.extract`.
PLANS = ("quick", "standard", "full")
METHODS = ("interval", "crown", "crown-full", "branching")
THEFTS = (
    "knockoff",
    "knockoff-adaptive",
    "copycat",
    "active-thief",
    "jacobian",
    "dfme",
    "maze",
)

# What `--detector` may name beside a file.
SQUEEZING = "feature-squeezing"


def parser():
    """The parser; its options have the name of their `command`."""
    whole_program = Parser(
        prog="keras-qsn",
        description="Trainable input quantization for Keras, and what it is "
        "worth.",
    )
    whole_program.add_argument(
        "--version", action="version", version=__version__
    )
    commands = whole_program.add_subparsers(
        required=True, metavar="COMMAND", dest="command"
    )
    for add in (_demo, _evaluate, _extract, _certify, _reproduce):
        command = add(commands)
        command.add_argument(
            "--verbose",
            action="store_true",
            help="with the messages of TensorFlow",
        )
    return whole_program


def _demo(commands):
    command = add_command(
        commands,
        "demo",
        "train the paper's defences, attack them, show what is left",
        "2 wrong input",
    )
    command.add_argument(
        "--data",
        choices=DATA,
        default="digits",
        help="digits: 5,000 embedded MNIST images",
    )
    command.add_argument(
        "--data-dir",
        help="folder with mnist.npz or cifar10.npz (else KERAS_QSN_DATA, else "
        "Keras' own cache or download)",
    )
    add_seed(command)
    command.add_argument(
        "--quick", action="store_true", help="few images, weak attacks"
    )
    command.add_argument(
        "--out", help="results folder (default: results/demo-DATA-seedSEED)"
    )
    add_open(command)
    return command


def _evaluate(commands):
    command = of_a_model(
        commands,
        "evaluate",
        "attack a saved model in every way, and say what is left",
        "1 accuracy below --at-least; 2 wrong input; 3 a check failed, with "
        "--strict",
        images=1000,
    )
    command.add_argument(
        "--plan", choices=PLANS, default="standard", help="which attacks"
    )
    command.add_argument(
        "--norm",
        choices=("inf", "2", "1", "0"),
        default="inf",
        help="of the radius; 0 counts the pixels that change",
    )
    command.add_argument(
        "--detector",
        metavar="FILE",
        help="what stands beside the model and rejects images: a saved Keras "
        "model of one score an image, .keras, larger where more suspicious; or "
        f"{SQUEEZING}. Its threshold rejects 5 percent of the training images",
    )
    command.add_argument(
        "--strict", action="store_true", help="exit with 3 if a check fails"
    )
    add_batch_size(command)
    command.add_argument(
        "--attack-dtype",
        choices=("float32", "bfloat16"),
        help="of inner layers while attacks climb a loss (default: bfloat16 "
        "where this processor multiplies it faster)",
    )
    add_workers(command, 1)
    add_at_least(command)
    add_open(command)
    return command


def _extract(commands):
    command = of_a_model(
        commands,
        "extract",
        "copy a saved model by asking it, and say how well that went",
        "2 wrong input",
        images=1000,
    )
    command.add_argument(
        "--budget",
        type=whole(1),
        required=True,
        metavar="N",
        help="images the model may be asked about",
    )
    command.add_argument(
        "--attack",
        choices=THEFTS,
        default="knockoff",
        metavar="ATTACK",
        help=f"one of {', '.join(THEFTS)}",
    )
    command.add_argument(
        "--answers",
        choices=("soft", "hard"),
        help="soft: probabilities; hard: classes alone (default: soft, of "
        "copycat hard)",
    )
    command.add_argument(
        "--pool",
        metavar="DATA",
        help="images to ask about, all of them, as of --data (default: the "
        "training images of --data)",
    )
    command.add_argument(
        "--copy",
        metavar="FILE",
        help="a saved Keras classifier to teach, from its weights (default: "
        "the model's architecture with new weights; of a LiteRT file a small "
        "network)",
    )
    command.add_argument(
        "--epochs", type=whole(1), default=30, metavar="N", help="of teaching"
    )
    command.add_argument(
        "--rounds",
        type=whole(1),
        metavar="N",
        help="parts of the budget, after each of which the copy is measured "
        "(default: 1, of active-thief, dfme and maze 10)",
    )
    command.add_argument(
        "--repeats",
        type=whole(1),
        default=1,
        metavar="N",
        help="how often each image is asked for, against random answers",
    )
    add_open(command)
    return command


def _certify(commands):
    command = of_a_model(
        commands,
        "certify",
        "prove, image by image, that a saved model is robust",
        "1 certified accuracy below --at-least; 2 wrong input",
        images=None,
    )
    command.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"some of {', '.join(METHODS)} (default: the first two, the "
        "others by cost)",
    )
    command.add_argument(
        "--time-limit",
        type=above_zero,
        default=60.0,
        metavar="SECONDS",
        help="of branching, for one image",
    )
    add_batch_size(command)
    add_workers(command, 1)
    add_at_least(command)
    return command


def _reproduce(commands):
    command = add_command(
        commands,
        "reproduce",
        "run the paper's experiments, set them beside its figures",
        "1 a cell failed; 2 wrong input",
    )
    command.add_argument(
        "--only",
        nargs="+",
        metavar="FIGURE",
        help="some figures, such as fig7 or z (default: all)",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="all figures on the embedded digits, with few images",
    )
    command.add_argument(
        "--data",
        nargs="+",
        metavar="DATA",
        help="mnist, cifar10 or both (default: both)",
    )
    command.add_argument("--data-dir", help="folder with the data sets")
    command.add_argument(
        "--seeds",
        nargs="+",
        type=whole(0),
        default=[0],
        help="of trainings and attacks",
    )
    command.add_argument(
        "--no-run",
        action="store_true",
        help="run nothing: tables and plots of what has finished in OUT",
    )
    add_workers(command, min(2, os.cpu_count() or 1))
    command.add_argument(
        "--out", help="results folder (default: results/paper, or -quick)"
    )
    return command
