"""A folder of images: a folder inside for each class."""

import numpy as np
from PIL import Image
from PIL import UnidentifiedImageError

_KINDS = (".png", ".jpg", ".jpeg")
# Pillow's modes of one colour; `1` has one bit.
_GREY = ("1", "L", "LA")
_MORE_BITS = ("I", "F")


def read_folder(folder, shape=None):
    """Images and labels of a folder, as bytes.

    Args:
        folder: Path of a folder that has one for each class, with PNG or JPEG
            images; or two such folders, `train` and `test`. Classes are
            numbered in the order of their names, images too.
        shape: `(height, width, channels)` that images are brought to.
            Defaults to `None`: they must be of one size, and are grey if all
            are.

    Returns:
        A dictionary of arrays as in an `.npz` file, the names of the classes,
        and what was done to the images, in words.
    """
    parts = {"test": folder}
    if {"train", "test"} <= {path.name for path in folder.iterdir()}:
        parts = {name: folder / name for name in ("train", "test")}
    names = _classes(parts["test"])
    files = {part: _files(parts[part], names) for part in parts}
    if shape is None:
        shape = _common_shape([p for paths, _ in files.values() for p in paths])
    arrays, resized = {}, 0
    for part, (paths, labels) in files.items():
        images = np.empty((len(paths), *shape), "uint8")
        for i, path in enumerate(paths):
            resized += _read(path, images[i])
        arrays |= {f"x_{part}": images, f"y_{part}": np.array(labels, "int32")}
    words = ""
    if resized:
        height, width = shape[:2]
        words = f", {resized:,} of them resized to {height}x{width}"
    return arrays, names, words


def _classes(folder):
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold a folder of images for each class, at least "
            f"two: {folder}/CLASS/*.png. Received: {len(names)} folder(s)."
        )
    return names


def _files(folder, names):
    """The paths of the images of a folder, and the number of each's class."""
    if _classes(folder) != names:
        raise ValueError(
            f"{folder} must have the same classes as the folder for testing: "
            f"{', '.join(names)}. Received: {', '.join(_classes(folder))}"
        )
    paths, labels = [], []
    for label, name in enumerate(names):
        own = sorted(p for p in (folder / name).iterdir() if p.name[0] != ".")
        others = [p for p in own if p.suffix.lower() not in _KINDS]
        if others or not own:
            raise ValueError(
                f"{folder / name} must hold images, {', '.join(_KINDS)}, and "
                f"nothing else. Received: {others[0] if others else 'no file'}"
            )
        paths += own
        labels += [label] * len(own)
    return paths, labels


def _common_shape(paths):
    sizes, modes = {}, set()
    for path in paths:
        image = _opened(path)
        sizes.setdefault(image.size, path)
        modes.add(image.mode)
    if len(sizes) > 1:
        (one, first), (other, second), *_ = sizes.items()
        raise ValueError(
            "Images must be of one size, or a `shape` must be given that they "
            f"are brought to. Received: {first} of {one[0]}x{one[1]} pixels, "
            f"{second} of {other[0]}x{other[1]}."
        )
    ((width, height),) = sizes
    return height, width, 1 if modes <= {*_GREY} else 3


def _read(path, pixels):
    """Put an image into an array of its shape; returns whether it is resized.

    Sizes change as with Pillow: bilinear, averaged over what falls together.
    """
    height, width, channels = pixels.shape
    image = _opened(path).convert("L" if channels == 1 else "RGB")
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
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} is damaged or no image: {error}. Save it anew as a PNG."
        ) from error
    if image.mode.startswith(_MORE_BITS):
        raise ValueError(
            f"{path} must have 8 bits a channel. Received: Pillow's mode "
            f"{image.mode}. Convert it."
        )
    return image
