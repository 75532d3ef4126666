"""Which classes does each model think of, image by image?"""

from collections.abc import Mapping

import numpy as np

from tfprune.plots.canvas import SMALL, axes_for, colour_of

_MOST_CLASSES = 10
# In inches: an image, a panel of bars, the gap between panels, a bar, and room above a panel, above and below all.
_IMAGE, _PANEL, _GAP, _BAR, _HEADING, _TOP, _BOTTOM = 1.1, 1.5, 0.2, 0.16, 0.3, 0.16, 0.5


def draw_confidences(images, probabilities, labels=None, class_names=None, ax=None, title=None):
    """Draws images, and beside each the class probabilities that every model gives it: one panel a model.

    Each panel is headed by the model's answer. The bar of the true class is hatched, its name bold.
    With more than 10 classes an image has those 10 that some model gives the most.

    Args:
        images: (n, height, width, channels), 1 or 3 channels, or (n, height, width); uint8, or floats in [0, 1]. A
            dozen images make a page.
        probabilities: (n, classes), or several as `{name of the model: (n, classes)}`.
        labels: What each image shows, (n,) or (n, 1): class indices, or names, which for out-of-distribution images
            need not be among the classes. Default None: not said.
        class_names: Names of the classes. Default None: their numbers.
        ax: Matplotlib axes whose place the images and panels share. Default None: new ones of a fitting size.
        title: Text above the axes. Default None: none.

    Returns:
        The axes; images and panels are its inset axes, `ax.child_axes`, row by row.

    Raises:
        ValueError: Images of another shape or range, probabilities that are none, or numbers of images, labels and
            classes that do not match.

    Example:
        >>> probabilities = {"dense": dense.predict(x), "pruned": ticket.predict(x)}
        >>> tfprune.plots.draw_confidences(x, probabilities, y, class_names=["cat", "dog", "frog"])

    Source: Agrawal, Rajpal and Singhal, "What Happens To Uncertainty In Neural Networks Upon Pruning?", Figure 10.
    """
    images = _checked_images(images)
    models = _checked_probabilities(probabilities, len(images))
    num_classes = next(iter(models.values())).shape[1]
    class_names = _checked_class_names(class_names, num_classes)
    shown_as, true_classes = _checked_labels(labels, class_names, len(images))
    page = _Page(len(images), len(models), min(num_classes, _MOST_CLASSES), max(map(len, class_names)))
    ax = axes_for(ax, (page.width, page.height))
    ax.set_axis_off()
    ax.set_title(title or "")
    for row, image in enumerate(images):
        picture = ax.inset_axes(page.image(row))
        picture.imshow(image, cmap="gray", vmin=0, vmax=1)
        picture.set_title(shown_as[row], fontsize=SMALL, pad=3)
        picture.set_axis_off()
        classes = _classes_to_show([given[row] for given in models.values()], true_classes[row])
        for column, (name, given) in enumerate(models.items()):
            panel = ax.inset_axes(page.panel(row, column))
            _draw_bars(panel, given[row], classes, true_classes[row], column)
            _answer(panel, given[row], class_names, true_classes[row])
            _name_classes(panel, classes, true_classes[row], class_names if column == 0 else None)
            panel.tick_params(labelbottom=row == len(images) - 1)
            if row == 0:
                ax.text(*page.heading(column), name, ha="center", va="top", fontweight="bold", fontsize=10)
            if row == len(images) - 1:
                panel.set_xlabel("probability", fontsize=SMALL)
    return ax


class _Page:
    """Where things lie, measured in inches and given in shares of the axes."""

    def __init__(self, num_images, num_models, num_bars, longest_name):
        self.row_height = _HEADING + max(_IMAGE, _BAR * num_bars)
        self.first_panel = _IMAGE + _GAP + 0.075 * longest_name
        self.width = self.first_panel + num_models * (_PANEL + _GAP)
        self.height = _TOP + num_images * self.row_height + _BOTTOM

    def image(self, row):
        """Bounds of a row's image."""
        height = self.row_height - _HEADING
        return self._bounds(0, self._top(row), _IMAGE, height)

    def panel(self, row, column):
        """Bounds of a panel."""
        left = self.first_panel + column * (_PANEL + _GAP)
        return self._bounds(left, self._top(row), _PANEL, self.row_height - _HEADING)

    def heading(self, column):
        """Top of a column, in its middle."""
        return (self.first_panel + column * (_PANEL + _GAP) + _PANEL / 2) / self.width, 1

    def _top(self, row):
        return _TOP + row * self.row_height + _HEADING

    def _bounds(self, left, top, width, height):
        return [left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height]


def _draw_bars(panel, given, classes, true_class, column):
    """A model's probabilities of one image, in its colour."""
    colour = colour_of(column)
    bars = panel.barh(range(len(classes)), given[classes], 0.78, color=colour)
    for bar, index in zip(bars, classes, strict=True):
        if index == true_class:
            bar.set(hatch="//////", facecolor="white", edgecolor=colour, linewidth=1.2)
    panel.set(xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5), xticks=[0, 0.5, 1])
    panel.set_xticklabels(["0", "0.5", "1"], fontsize=SMALL)
    panel.spines[["top", "right"]].set_visible(False)


def _answer(panel, given, class_names, true_class):
    """The class that the model answers, with its confidence; whether it is wrong, where that is known."""
    answer = int(np.argmax(given))
    wrong = ", wrong" if true_class is not None and answer != true_class else ""
    panel.set_title(f"{class_names[answer]}: {100 * given[answer]:.0f} %{wrong}", fontsize=SMALL, pad=3)


def _name_classes(panel, classes, true_class, class_names):
    """The classes beside the bars, or only ticks."""
    panel.set_yticks(range(len(classes)))
    panel.set_yticklabels([class_names[index] for index in classes] if class_names else [], fontsize=SMALL)
    if class_names:
        for text, index in zip(panel.get_yticklabels(), classes, strict=True):
            text.set_fontweight("bold" if index == true_class else "normal")


def _classes_to_show(given, true_class):
    """All classes, or the ten that some model gives most, the true one among them; in the order of the classes."""
    most = np.max(given, axis=0)
    if true_class is not None:
        most[true_class] = np.inf
    return np.sort(np.argsort(-most, kind="stable")[:_MOST_CLASSES])


def _checked_images(images):
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if not images.size or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(
            "images must be (n, height, width, channels) with 1 or 3 channels, or (n, height, width), and at least "
            f"one. Received: shape {images.shape}."
        )
    if images.dtype == np.uint8:
        return images / 255
    if not (images.min() >= 0 and images.max() <= 1):  # written so that NaN fails too
        raise ValueError(
            f"images must be uint8, or floats in [0, 1]. Received: {images.dtype} from {images.min()} to "
            f"{images.max()}. Images in [-1, 1] become such by (images + 1) / 2."
        )
    return images.astype(np.float64)


def _checked_probabilities(probabilities, num_images):
    models = probabilities if isinstance(probabilities, Mapping) else {"": probabilities}
    if not models:
        raise ValueError("probabilities must hold at least one model. Received: an empty dict.")
    checked = {str(name): np.asarray(given, dtype=np.float64) for name, given in models.items()}
    for name, given in checked.items():
        of_model = f" of {name!r}" if name else ""
        if given.ndim != 2 or len(given) != num_images:
            raise ValueError(
                f"probabilities{of_model} must be (images, classes) = ({num_images}, classes). "
                f"Received: shape {given.shape}."
            )
        if not (np.all(given >= 0) and np.allclose(given.sum(axis=1), 1, atol=1e-3)):
            raise ValueError(
                f"probabilities{of_model} must be at least 0 and sum to 1 for each image. Received: values from "
                f"{given.min():g} to {given.max():g}. Pass logits through a softmax first."
            )
    widths = {name: given.shape[1] for name, given in checked.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"All models must have the same classes. Received numbers of classes: {widths}.")
    return checked


def _checked_class_names(class_names, num_classes):
    names = [str(name) for name in (range(num_classes) if class_names is None else class_names)]
    if len(names) != num_classes:
        raise ValueError(f"class_names must name all {num_classes} classes. Received: {len(names)} names.")
    return names


def _checked_labels(labels, class_names, num_images):
    """What stands above each image, and the index of its true class, None where it has none or it is not known."""
    if labels is None:
        return [""] * num_images, [None] * num_images
    labels = np.asarray(labels)
    labels = labels[:, 0] if labels.shape == (num_images, 1) else labels
    if labels.shape != (num_images,):
        raise ValueError(f"labels must be one per image, ({num_images},). Received: shape {labels.shape}.")
    if all(isinstance(label, str) for label in labels):
        return labels.tolist(), [class_names.index(label) if label in class_names else None for label in labels]
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(
            f"labels must be class indices, integers from 0 to {len(class_names) - 1}, or names. "
            f"Received: {labels.dtype} labels {labels.tolist()!r:.80}."
        )
    return [class_names[label] for label in labels], labels.tolist()
