"""A folder of images: a folder inside for each class."""

import textwrap

import numpy as np
from PIL import Image
from PIL import UnidentifiedImageError

_KINDS = (".png", ".jpg", ".jpeg")
# Pillow's modes by the number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Those of one colour; `1` has one bit.
_GREY = ("1", "L", "LA")
_MORE_BITS = ("I", "F")


def read_folder(folder, shape=None, names=None, choose=None):
    """Images and labels of a folder, as bytes.

    Args:
        folder: Path of a folder that has one for each class, with PNG or JPEG
            images; or two such folders, `train` and `test`. Images are in the
            order of their names.
        shape: `(height, width, channels)` that images are brought to.
            Defaults to `None`: they must be of one size, and are grey if all
            are.
        names: The classes in the order of their numbers; not each must have a
            folder. Defaults to `None`: those of the folders, sorted.
        choose: Optional function from the classes of the images for testing
            to the numbers of those to read.

    Returns:
        A dictionary of arrays as in an `.npz` file, the names of the classes,
        and what was done to the images, in words.
    """
    parts = {"test": folder}
    if {"train", "test"} <= {path.name for path in folder.iterdir()}:
        parts = {name: folder / name for name in ("train", "test")}
    names = _classes(parts["test"]) if names is None else names
    files = {part: _files(parts[part], names) for part in parts}
    if choose is not None:
        paths, labels = files["test"]
        rows = choose(labels)
        files["test"] = [paths[row] for row in rows], labels[rows]
    if shape is None:
        shape = _common_shape([p for paths, _ in files.values() for p in paths])
    elif shape[-1] not in _MODES:
        raise ValueError(
            f"Images in a folder have {', '.join(map(str, _MODES))} channels, "
            f"the last axis. Received: shape={tuple(shape)}"
        )
    arrays, resized = {}, 0
    for part, (paths, labels) in files.items():
        images = np.empty((len(paths), *shape), "uint8")
        for i, path in enumerate(paths):
            resized += _read(path, images[i])
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    words = ""
    if resized:
        height, width = shape[:2]
        words = f", {resized:,} of them resized to {height}x{width}"
    return arrays, names, words


def _seen(folder):
    """What is in a folder, by name; hidden files and folders are not."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _classes(folder):
    names = [path.name for path in _seen(folder) if path.is_dir()]
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold a folder of images for each class, at least "
            f"two: {folder}/CLASS/*.png. Received: {len(names)} folder(s)."
        )
    return names


def _listed(names):
    return textwrap.shorten(", ".join(names), 100, placeholder=" ...")


def _files(folder, names):
    """The paths of the images of a folder, and each one's class number."""
    unknown = [name for name in _classes(folder) if name not in names]
    if unknown:
        raise ValueError(
            f"{folder} must hold folders of these classes alone: "
            f"{_listed(names)}. Received: {_listed(unknown)}. Rename the "
            "folders, or name the classes as they do (`class_names`)."
        )
    paths, labels = [], []
    for label, name in enumerate(names):
        if not (folder / name).is_dir():
            continue
        own = _seen(folder / name)
        others = [p for p in own if p.suffix.lower() not in _KINDS]
        if others or not own:
            raise ValueError(
                f"{folder / name} must hold images, {', '.join(_KINDS)}, and "
                f"nothing else. Received: {others[0] if others else 'no file'}"
            )
        paths += own
        labels += [label] * len(own)
    return paths, np.array(labels, "int32")


def _common_shape(paths):
    sizes, modes = {}, set()
    for path in paths:
        image = _opened(path)
        sizes.setdefault(image.size, path)
        modes.add(image.mode)
    if len(sizes) > 1:
        (one, first), (other, second), *_ = sizes.items()
        raise ValueError(
            "Images must be of one size where the model takes any, or no "
            f"`image_shape` is given. Received: {first} of {one[0]}x{one[1]} "
            f"pixels, {second} of {other[0]}x{other[1]}. Resize them."
        )
    ((width, height),) = sizes
    return height, width, 1 if modes <= {*_GREY} else 3


def _read(path, pixels):
    """Put an image into an array of its shape; returns whether it is resized.

    Sizes change as with Pillow: bilinear, averaged over what falls together.
    """
    height, width, channels = pixels.shape
    image = _opened(path).convert(_MODES[channels])
    resized = image.size != (width, height)
    if resized:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels[:] = np.asarray(image).reshape(pixels.shape)
    return resized


def _opened(path):
    try:
        # Opened here: Pillow would leave a damaged file open.
        with open(path, "rb") as file:
            image = Image.open(file)
            image.load()
    except Exception as error:
        # Damage shows as anything: OSError, SyntaxError, ValueError, ...
        what = str(error).rstrip(".")
        if isinstance(error, UnidentifiedImageError):
            what = "not a PNG or JPEG file"
        raise ValueError(
            f"{path} is damaged or no image: {what}. Save it anew as a PNG."
        ) from error
    if image.mode.startswith(_MORE_BITS):
        raise ValueError(
            f"{path} must have 8 bits a channel. Received: Pillow's mode "
            f"{image.mode}. Convert it."
        )
    return image
