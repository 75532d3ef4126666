"""`tfprune inspect`: what of a saved model can be pruned, what that frees, and why the rest cannot."""

import os
from pathlib import Path

from tfprune.cli import sources
from tfprune.cli.answer import Answer, printed

HELP = "show what of a saved model can be pruned, what that frees, and why the rest cannot"
DESCRIPTION = (
    "Lists the groups of channels that are pruned together, the parameters and multiply-adds that each can free, what "
    "is pinned and why, and the smallest size that can be reached."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("model", metavar="MODEL.keras").completes = "*.keras"
    draw = command.add_argument(
        "--draw", metavar="PICTURE.svg", help="also draw the network, coupled layers in one colour (.svg or .png)"
    )
    draw.completes = "*.svg"
    command.add_argument(
        "--approximate", action="store_true", help="count channels too that a normalisation mixes: pruning is inexact"
    )
    sources.add_model_flags(command)


def run(options):
    """Returns the table of groups, and draws the network where asked to."""
    picture = Path(options.draw) if options.draw else None
    if picture and picture.suffix not in (".svg", ".png"):
        raise ValueError(f"--draw must name a file that ends in .svg or .png. Received: {picture}.")
    model = sources.load_model(options.model, options.imports)

    import tfprune

    table, text = printed(tfprune.inspect, model, approximate=options.approximate)
    document = {"model": options.model, **table.attrs, "groups": table.to_dict("records")}
    if picture:
        _draw(model, options.approximate, picture)
        document, text = {**document, "drawing": picture}, f"{text}\ndrawing: {picture}"
    return Answer(document, text)


def _draw(model, approximate, picture):
    os.environ.setdefault("MPLBACKEND", "Agg")  # no window: the picture goes to a file
    import matplotlib

    import tfprune

    ax = tfprune.plots.draw_structure(model, approximate=approximate)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # names stay text that can be searched for
        ax.figure.savefig(picture, dpi=150)
