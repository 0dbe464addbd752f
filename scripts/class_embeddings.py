"""Write embeddings of class names by the text tower of a CLIP model, for head.initial of a cosine head.

    python scripts/class_embeddings.py MODEL_FOLDER classes.txt embeddings.safetensors

MODEL_FOLDER is a CLIP model in transformers' format on this machine (nothing is downloaded); classes.txt has a class
name on each line, as the data set calls it. A vector is the mean over templates of the text embeddings of unit length.
The image tower's projection is folded into it (`--projected` leaves that out), so that its product with the features
before the projection, which timm's tower gives with `num_classes=0`, is CLIP's logit up to a scale.

    ltr-train backbone=timm backbone.name=vit_base_patch16_clip_224 backbone.weights=FILE tune=lora head=cosine \\
        head.initial=embeddings.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ltr.files import written_atomically

TEMPLATES = ("a photo of a {}.", "a close-up photo of a {}.", "a cropped photo of a {}.")


def class_vectors(
    names: Sequence[str],
    encode: Callable[[list[str]], Tensor],
    projection: Tensor | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> dict[str, Tensor]:
    """Return a vector of unit length for each class name.

    Args:
        names: of classes; an underscore is shown to the text tower as a space.
        encode: texts to their embeddings [N, E].
        projection: weight [E, D] of the image tower's projection, which is folded into the vectors [D]; None: vectors
            are [E].
        templates: prompt templates with ``{}`` for the class name; their L2-normalised embeddings are averaged.
    """
    vectors = {}
    for name in names:
        texts = [template.format(name.replace("_", " ")) for template in templates]
        mean = functional.normalize(encode(texts).float(), dim=1).mean(0)
        folded = mean if projection is None else mean @ projection.float()
        vectors[name] = functional.normalize(folded, dim=0)
    return vectors


def clip_of(folder: Path) -> tuple[Callable[[list[str]], Tensor], Tensor]:
    """Return the text encoder of a CLIP model on this machine, and the weight [E, D] of its image projection."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def encode(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            pooled = model.text_model(**tokens).pooler_output
            return model.text_projection(pooled)

    return encode, model.visual_projection.weight.detach()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a CLIP model in transformers' format")
    parser.add_argument("classes", type=Path, help="text file with a class name on each line")
    parser.add_argument("output", type=Path, help="file to write, .safetensors")
    parser.add_argument(
        "--projected", action="store_true", help="embed with the projection of the image tower left out"
    )
    chosen = parser.parse_args(arguments)
    for path, kind in ((chosen.model, "folder"), (chosen.classes, "file")):
        if not (path.is_dir() if kind == "folder" else path.is_file()):
            print(f"error: {path}: there is no such {kind}. Name one that is on this machine", file=sys.stderr)
            return 1
    if chosen.output.suffix != ".safetensors":
        print(f"error: {chosen.output}: the file must end in .safetensors", file=sys.stderr)
        return 2
    names = [line.strip() for line in chosen.classes.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        print(f"error: {chosen.classes}: different class names are needed, one on each line", file=sys.stderr)
        return 1
    try:
        encode, projection = clip_of(chosen.model)
    except Exception as error:  # transformers raises many kinds for a folder of something else
        print(f"error: {chosen.model}: no CLIP model ({type(error).__name__}: {str(error)[:200]})", file=sys.stderr)
        return 1
    from safetensors.torch import save_file

    vectors = class_vectors(names, encode, None if chosen.projected else projection)
    with written_atomically(chosen.output) as temporary:
        save_file(vectors, temporary)
    print(f"{chosen.output}: {len(vectors)} vectors of {len(next(iter(vectors.values())))} numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
