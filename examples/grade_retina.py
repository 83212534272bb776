"""Grade a fundus photograph with the bundled model, and draw the regions that it read.

Needs no network.

    pip install "diffmic[plots]" scikit-image
    python examples/grade_retina.py                 scikit-image's photograph of a retina
    python examples/grade_retina.py image.jpg       one of your own

The regions are where the model looked. No lesion was marked in the photographs that it was trained
on: do not read them as findings.

Not a medical device: this is an example of the library, not a statement about anybody's eyes.
"""

import argparse
from pathlib import Path

from diffmic import DiffMICClassifier
from diffmic.data.images import read_image
from diffmic.plots import plot_regions


def main() -> None:
    """Print the probabilities of both stages, and save the picture of the regions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, nargs="?", help="default: scikit-image's retina.jpg")
    parser.add_argument("--picture", type=Path, default=Path("retina-regions.png"))
    args = parser.parse_args()

    image = read_image(args.image or retina())
    clf = DiffMICClassifier.from_pretrained("diffmic-v2-aptos")
    proba = {stage: clf.predict_proba(image, stage=stage)[0] for stage in ("prior", "diffusion")}
    print(f"{'grade':20}{'prior':>10}{'diffusion':>12}")
    for grade, name in enumerate(clf.class_names_):
        print(f"{grade} {name:18}{proba['prior'][grade]:10.3f}{proba['diffusion'][grade]:12.3f}")
    explanation = clf.explain(image)
    axes = plot_regions(image, explanation)
    axes.set_title(clf.class_names_[proba["diffusion"].argmax()])
    axes.figure.savefig(args.picture, dpi=150, bbox_inches="tight")
    print(f"saved {args.picture}\nThe frames are where the model looked, not findings.")


def retina() -> Path:
    """The photograph that scikit-image ships."""
    import skimage

    return Path(skimage.__file__).parent / "data" / "retina.jpg"


if __name__ == "__main__":
    main()
