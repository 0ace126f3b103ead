"""Where in an image an encoder finds a query: features before pooling, in the space of its vectors.

Each part of the feature map passes through the layers after the pooling as if it were the pooled feature
(class activation maps in the space of texts; Zhou et al., arXiv 1512.04150).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from actors.encoder import Encoder
from actors.images import pixels
from cluster.errors import UserError

# A convolutional tower ends in few, large parts (3 x 3 at 96 px): a larger image gives a finer map.
CONVOLUTION_SCALE = 2


@torch.inference_mode()
def similarity_map(encoder: Encoder, image: Image.Image, vector: np.ndarray) -> np.ndarray:
    """Cosine of the vector, float32 [D], with every part of the RGB image, float32 [rows, columns].

    The image is squashed to the encoder's size, because a crop would lose its sides.
    Raises UserError for an image tower of an unsupported kind.
    """
    scale = 1 if _has_patches(encoder.model.visual) else CONVOLUTION_SCALE
    height, width = scale * encoder.fit.height_px, scale * encoder.fit.width_px
    fit = replace(encoder.fit, resize_mode="squash", height_px=height, width_px=width)
    squashed = pixels(image, fit)
    normalised = encoder.normalise(torch.from_numpy(squashed[None]))
    parts = functional.normalize(_parts(encoder.model.visual, normalised)[0].float(), dim=-1)
    return (parts.cpu().numpy() @ vector).astype(np.float32)


def _has_patches(visual: nn.Module) -> bool:
    """Whether the tower cuts images of a fixed size into patches; a convolutional one accepts any size."""
    trunk = getattr(visual, "trunk", visual)
    return hasattr(trunk, "patch_embed") or (hasattr(trunk, "conv1") and hasattr(trunk, "class_embedding"))


def _parts(visual: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, rows, columns, D], not normalised."""
    if isinstance(visual, TimmModel):
        return _timm_parts(visual, images)
    if isinstance(visual, VisionTransformer):
        tower: Any = visual
        features = tower.forward_intermediates(
            images, indices=1, normalize_intermediates=True, intermediates_only=True
        )
        grid = features["image_intermediates"][-1].permute(0, 2, 3, 1)
        return grid if tower.proj is None else grid @ tower.proj
    raise UserError(f"There is no heatmap for an image tower of the kind {type(visual).__name__}.")


def _timm_parts(visual: Any, images: Tensor) -> Tensor:
    trunk = visual.trunk
    features = trunk.forward_features(images)
    if features.ndim == 3:  # tokens of a transformer, its class token first
        tokens = features[:, getattr(trunk, "num_prefix_tokens", 0) :]
        rows, columns = trunk.patch_embed.grid_size
        pooled = trunk.fc_norm(tokens) if hasattr(trunk, "fc_norm") else tokens
        return visual.head(pooled.reshape(-1, pooled.shape[-1])).reshape(len(images), rows, columns, -1)
    batch, channels, rows, columns = features.shape
    parts = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    return visual.head(trunk.forward_head(parts)).reshape(batch, rows, columns, -1)
